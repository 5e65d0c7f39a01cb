"""Envoy's configuration, made from ours. Pure: settings and routes in, the bootstrap as a JSON-able dict out.

What each setting protects against is told in `docs/envoy.md`; change the two together.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gharial.adapters.envoy.local_replies import local_reply_config
from gharial.adapters.envoy.upstream_tls import Authority, upstream_transport_socket
from gharial.gate.routes import RouteKind, RouteRule
from gharial.settings import LimitSettings, Listen, Settings, Upstream

GATE_CLUSTER = "gharial_gate"
"""The cluster of the gate; no upstream can be called so, because their clusters carry a prefix."""

UPSTREAM_PREFIX = "upstream_"

STAT_PREFIX = "gharial"
"""Prefix of the listener's statistics: `http.gharial.*`."""

ROUTE_TABLE = "routes"
"""The name of the one table of routes; its statistics are `http.gharial.rds.routes.*`."""

GROWTH = 4
"""How many times `limits.body_bytes` a protected answer may be long: tokens are longer than what they stand for.

Envoy has one limit for the body on its way in and out; beyond it an answer ends as 502. What comes in is limited by
the gate itself, which gets to see the byte too many.
"""

BUFFER_ROOM_BYTES = 65_536

GATE_ROOM = 64
"""How many calls beyond `limits.in_flight` Envoy hands to the gate, so that the gate says 503 itself."""

STREAMS_PER_PLACE = 4
"""Streams to the gate per place of `limits.in_flight`: one whose answer is decided, and whose client reads slowly,
stays open without taking a place."""

_LARGEST_WINDOW_BYTES = 2**31 - 1  # RFC 9113, section 6.5.2
_HEADERS_WITHIN_S = 10
_REQUEST_WITHIN_S = 60
_KEEP_UPSTREAM_CONNECTION_S = 4
_RETRY_DNS_S = 5

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EnvoyPaths:
    """Files that Envoy and its neighbours meet at. Sockets are Unix sockets (at most 100 bytes long).

    `routes` is the file of the routes, which Envoy reads again whenever another is renamed into its place; None: they
    stand in the configuration itself, and stay as they are while Envoy runs.
    """

    gate_socket: Path
    admin_socket: Path
    routes: Path | None = None


@dataclass(frozen=True, slots=True)
class RouteFile:
    """What stands in the file of the routes. The same routes have the same version, others have another."""

    version: str
    data: bytes


@dataclass(frozen=True, slots=True)
class EnvoyRoute:
    """One line of `routes` as Envoy needs it: `path_regex` matches the whole path (RE2), no methods means any.

    `reads_requests`: the gate gets the bodies of requests too. `stream`: answers may take as long as they like.
    """

    name: str
    methods: tuple[str, ...]
    path_regex: str
    upstream: str
    kind: RouteKind
    reads_requests: bool = False
    stream: bool = False


def buffer_limit_bytes(body_bytes: int) -> int:
    """Return the largest body that Envoy hands over and takes back, if `body_bytes` is the largest one to protect."""
    return GROWTH * body_bytes + BUFFER_ROOM_BYTES


def envoy_routes(
    settings: Settings,
    rules: Iterable[RouteRule],
    kinds: Mapping[str, RouteKind] | None = None,
    reads: Collection[str] = (),
) -> tuple[EnvoyRoute, ...]:
    """Join the gate's rules with the upstreams that the settings name for them; same names, same order.

    `kinds` says by route what is done on it; None: what the rules say. `reads` are routes of which the gate gets the
    bodies of requests, beside those of which the rules say so.
    """
    upstreams = {route.route: route.upstream for route in settings.routes}
    return tuple(
        EnvoyRoute(
            rule.name,
            rule.template.methods,
            rule.template.regex,
            upstreams[rule.name],
            rule.kind if kinds is None else kinds[rule.name],
            rule.reads_requests or rule.name in reads,
            rule.stream,
        )
        for rule in rules
    )


def route_file(settings: Settings, routes: Sequence[EnvoyRoute]) -> RouteFile:
    """Return the file of these routes: a discovery response with one table."""
    table = _route_table(settings, routes)
    # Names what is in it, so that Envoy's word for what it has loaded can be compared with what it should have.
    version = hashlib.sha256(json.dumps(table).encode()).hexdigest()[:16]
    made = {
        "version_info": version,
        "resources": [{"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", **table}],
    }
    return RouteFile(version, json.dumps(made, indent=1).encode())


def bootstrap(
    settings: Settings,
    paths: EnvoyPaths,
    routes: Sequence[EnvoyRoute],
    *,
    ca_bundle: Path | None = None,
    message_timeout_s: float = 10.0,
) -> Json:
    """Return the whole configuration. The routes stand in it only if `paths` names no file for them.

    `ca_bundle` is the system's CA file, for HTTPS upstreams without a `ca` of their own; `message_timeout_s` is how
    long the gate may think about one message. Raises ValueError for an HTTPS upstream without any CA.
    """
    slowest_s = max((upstream.timeout_s for upstream in settings.upstreams.values()), default=0.0)
    # Longer than all that may take its time lawfully, so that the timeouts with a better name act first.
    idle_s = slowest_s + 3 * message_timeout_s
    source = _routes_in_file(paths.routes) if paths.routes else {"route_config": _route_table(settings, routes)}
    return {
        # Envoy reads no routes from a file before it has a name. It tells it nobody.
        "node": {"id": STAT_PREFIX, "cluster": STAT_PREFIX},
        "admin": {"address": {"pipe": {"path": str(paths.admin_socket), "mode": 0o600}}},
        "static_resources": {
            "listeners": [_listener(settings, source, idle_s, message_timeout_s)],
            "clusters": [
                _gate_cluster(paths.gate_socket, settings.limits),
                *(
                    _upstream_cluster(name, upstream, settings.limits, ca_bundle)
                    for name, upstream in settings.upstreams.items()
                ),
            ],
        },
    }


def _listener(settings: Settings, source: Json, idle_s: float, message_timeout_s: float) -> Json:
    chain: Json = {
        "filters": [
            {
                "name": "http",
                "typed_config": _http_connection_manager(settings, source, idle_s, message_timeout_s),
            }
        ]
    }
    if settings.listen.tls is not None:
        chain["transport_socket"] = _listener_tls(settings.listen)
    return {
        "name": STAT_PREFIX,
        "address": _socket_address(settings.listen.address, settings.listen.port),
        "per_connection_buffer_limit_bytes": buffer_limit_bytes(settings.limits.body_bytes),
        # Otherwise a forgotten Envoy and a new one would share the port, each with a configuration of its own.
        "enable_reuse_port": False,
        "filter_chains": [chain],
    }


def _listener_tls(listen: Listen) -> Json:
    tls = listen.tls
    assert tls is not None  # noqa: S101 - the caller has looked
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificates": [
                    {"certificate_chain": {"filename": str(tls.cert)}, "private_key": {"filename": str(tls.key)}}
                ],
            },
        },
    }


def _http_connection_manager(settings: Settings, source: Json, idle_s: float, message_timeout_s: float) -> Json:
    return {
        "@type": (
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ),
        "stat_prefix": STAT_PREFIX,
        "codec_type": "AUTO",
        # --- one path, one meaning
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {
            "headers_with_underscores_action": "REJECT_REQUEST",
            "idle_timeout": "300s",
        },
        "http_protocol_options": {"accept_http_10": False, "allow_chunked_length": False, "enable_trailers": False},
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            # For HTTP/2 this, not the listener's limit, is how much of an answer Envoy buffers.
            "initial_stream_window_size": _window_bytes(settings.limits),
            "initial_connection_window_size": _window_bytes(settings.limits),
        },
        # --- nobody's word but the connection's
        "use_remote_address": True,
        # No address is internal. An empty list would not do: Envoy then takes all private addresses for internal.
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        # The early mutation appends instead: for a peer on the loopback interface Envoy itself would write the
        # machine's address, which is no hop's, and every client behind a local proxy would seem to be the machine.
        "skip_xff_append": True,
        "early_header_mutation_extensions": [_mutate_early()],
        "generate_request_id": False,
        # --- nothing about us, nothing about the upstream
        "server_header_transformation": "OVERWRITE",
        "server_name": "gharial",
        "local_reply_config": local_reply_config(),
        # --- nobody holds us up
        "max_request_headers_kb": _kilobytes(settings.limits.header_bytes),
        "request_headers_timeout": _duration(_HEADERS_WITHIN_S),
        "request_timeout": _duration(_REQUEST_WITHIN_S),
        "stream_idle_timeout": _duration(idle_s),
        **source,
        "http_filters": [
            # Off where there is no route, on (just above) for whatever has one; nothing reaches an upstream without a
            # route. A request that can't even be read has none: were the gate asked about Envoy's answer to it, Envoy
            # would close the connection before the gate has said anything, and the client would never learn why.
            {"name": "gate", "disabled": True, "typed_config": _ext_proc(message_timeout_s)},
            {
                "name": "router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
    }


def _mutate_early() -> Json:
    """Before anything reads them: remove the headers by which a client could steer Envoy or the gate, and append the
    direct peer's address to `X-Forwarded-For`."""
    return {
        "name": "early",
        "typed_config": {
            "@type": (
                "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
            ),
            "mutations": [
                {"remove_on_match": {"key_matcher": {"prefix": prefix, "ignore_case": True}}}
                for prefix in ("x-envoy-", "x-gharial-")
            ]
            + [
                {
                    "append": {
                        "header": {
                            "key": "x-forwarded-for",
                            "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
                        },
                        "append_action": "APPEND_IF_EXISTS_OR_ADD",
                    }
                }
            ],
        },
    }


def _ext_proc(message_timeout_s: float) -> Json:
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": GATE_CLUSTER}},
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
        "message_timeout": _duration(message_timeout_s),
        "allow_mode_override": False,
        "disable_immediate_response": False,
        "route_cache_action": "RETAIN",
        # A change that Envoy does not allow is an error then, instead of being left out in silence.
        # `x-envoy-*` is among what the gate removes from answers: an upstream behind an Envoy of its own sends it.
        "mutation_rules": {"disallow_is_error": True, "allow_envoy": True},
        "request_attributes": ["xds.route_name", "source.address"],
        "response_attributes": ["response.code_details"],
        "processing_mode": _processing_mode(RouteKind.PROTECT),
    }


def _processing_mode(kind: RouteKind, *, reads_requests: bool = False, stream: bool = False) -> Json:
    body = {RouteKind.PROTECT: "BUFFERED", RouteKind.SHADOW: "STREAMED", RouteKind.PASS: "NONE"}[kind]
    duplex = stream and kind is RouteKind.PROTECT
    return {
        "request_header_mode": "SEND",
        "response_header_mode": "SEND",
        "request_body_mode": "BUFFERED" if reads_requests and kind is RouteKind.PROTECT else "NONE",
        "response_body_mode": "FULL_DUPLEX_STREAMED" if duplex else body,
        "request_trailer_mode": "SKIP",
        # Without the trailers Envoy does not take that mode.
        "response_trailer_mode": "SEND" if duplex else "SKIP",
    }


def _routes_in_file(path: Path) -> Json:
    return {
        "rds": {
            "route_config_name": ROUTE_TABLE,
            "config_source": {"resource_api_version": "V3", "path_config_source": {"path": str(path)}},
        }
    }


def _route_table(settings: Settings, routes: Sequence[EnvoyRoute]) -> Json:
    return {
        "name": ROUTE_TABLE,
        # A table that names an upstream which is not there is refused as a whole, also while Envoy runs.
        "validate_clusters": True,
        "typed_per_filter_config": {"gate": _per_route({})},
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "request_headers_to_remove": ["x-envoy-internal", "x-envoy-external-address"],
                "routes": [*(_route(route, settings.upstreams[route.upstream]) for route in routes), _no_route()],
            }
        ],
    }


def _route(route: EnvoyRoute, upstream: Upstream) -> Json:
    match: Json = {"safe_regex": {"regex": route.path_regex}}
    if route.methods:
        methods = "|".join(dict.fromkeys((*route.methods, *(("HEAD",) if "GET" in route.methods else ()))))
        match["headers"] = [{"name": ":method", "string_match": {"safe_regex": {"regex": methods}}}]
    mode = _processing_mode(route.kind, reads_requests=route.reads_requests, stream=route.stream)
    made: Json = {
        "name": route.name,
        "match": match,
        "route": {
            "cluster": UPSTREAM_PREFIX + route.upstream,
            "timeout": _duration(0 if route.stream else upstream.timeout_s),
            "host_rewrite_literal": Authority.of(upstream).host_header,
        },
        "typed_per_filter_config": {"gate": _per_route({"processing_mode": mode})},
    }
    if route.stream:
        # A stream may go on for ever, but not be silent for so long.
        made["route"]["idle_timeout"] = _duration(upstream.timeout_s)
    return made


def _per_route(overrides: Json) -> Json:
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute",
        "overrides": overrides,
    }


def _no_route() -> Json:
    """What matches nothing is answered here, by Envoy: the gate is not asked, and there is no upstream to reach."""
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": 404},
        "typed_per_filter_config": {
            "gate": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute",
                "disabled": True,
            }
        },
    }


def _gate_cluster(socket_path: Path, limits: LimitSettings) -> Json:
    return {
        "name": GATE_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": _circuit_breakers(STREAMS_PER_PLACE * limits.in_flight + GATE_ROOM),
        "per_connection_buffer_limit_bytes": buffer_limit_bytes(limits.body_bytes),
        "load_assignment": _load_assignment(GATE_CLUSTER, {"pipe": {"path": str(socket_path)}}),
        "typed_extension_protocol_options": _protocol_options({"http2_protocol_options": {}}),
    }


def _upstream_cluster(name: str, upstream: Upstream, limits: LimitSettings, ca_bundle: Path | None) -> Json:
    cluster: Json = {
        "name": UPSTREAM_PREFIX + name,
        "connect_timeout": _duration(min(5.0, upstream.timeout_s)),
        "circuit_breakers": _circuit_breakers(limits.in_flight + GATE_ROOM),
        "per_connection_buffer_limit_bytes": buffer_limit_bytes(limits.body_bytes),
        "load_assignment": _load_assignment(UPSTREAM_PREFIX + name, _socket_address(upstream.address, upstream.port)),
        "typed_extension_protocol_options": _protocol_options(
            {"http_protocol_options": {"enable_trailers": False}},
            {
                "max_response_headers_kb": _kilobytes(limits.header_bytes),
                # Shorter than what servers commonly keep (5 s and more), so that a call seldom meets a closing
                # connection: nothing is tried a second time.
                "idle_timeout": _duration(_KEEP_UPSTREAM_CONNECTION_S),
            },
        ),
    }
    if _is_address(upstream.address):
        cluster["type"] = "STATIC"
    else:
        cluster["cluster_type"] = {"name": "envoy.clusters.dns", "typed_config": _dns_cluster(upstream)}
    if upstream.tls:
        ca = upstream.ca or ca_bundle
        if ca is None:
            raise ValueError(f"upstream {name}: no CA to check its certificate with; set `ca`")
        cluster["transport_socket"] = upstream_transport_socket(Authority.of(upstream), ca)
    return cluster


def _dns_cluster(upstream: Upstream) -> Json:
    """Ask again when a record's time is over, and every few seconds while there is no answer."""
    made: Json = {
        "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
        "respect_dns_ttl": True,
        "dns_refresh_rate": _duration(_RETRY_DNS_S),
        "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": _duration(_RETRY_DNS_S)},
        "dns_lookup_family": "V4_PREFERRED",
    }
    if upstream.resolver is not None:
        address, _, port = upstream.resolver.rpartition(":")
        made["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [_socket_address(address.strip("[]"), int(port))],
                "dns_resolver_options": {"no_default_search_domain": True},
            },
        }
    return made


def _circuit_breakers(most: int) -> Json:
    limits = {"max_connections": most, "max_pending_requests": most, "max_requests": most}
    return {"thresholds": [{"priority": priority, **limits} for priority in ("DEFAULT", "HIGH")]}


def _protocol_options(explicit: Json, common: Json | None = None) -> Json:
    options: Json = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": explicit,
    }
    if common is not None:
        options["common_http_protocol_options"] = common
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}


def _load_assignment(cluster: str, address: Json) -> Json:
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


def _socket_address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _duration(seconds: float) -> str:
    return f"{seconds:g}s"


def _window_bytes(limits: LimitSettings) -> int:
    return min(buffer_limit_bytes(limits.body_bytes), _LARGEST_WINDOW_BYTES)


def _kilobytes(size_bytes: int) -> int:
    return max(1, math.ceil(size_bytes / 1024))
