"""The generated configuration: golden files, what Envoy itself says to it, and what must hold for any settings."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.adapters.envoy import process
from gharial.adapters.envoy.config import (
    EnvoyPaths,
    EnvoyRoute,
    bootstrap,
    buffer_limit_bytes,
    envoy_routes,
    route_file,
)
from gharial.gate.routes import RouteKind, RouteRule, parse_template
from gharial.settings import Settings

CORPUS = Path(__file__).parents[1] / "corpus" / "envoy"
SOCKETS = EnvoyPaths(Path("/run/gharial/gate/gate.sock"), Path("/run/gharial/envoy-admin.sock"))
PATHS = replace(SOCKETS, routes=Path("/run/gharial/envoy-routes.json"))
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def settings(**change: Any) -> Settings:
    document: dict[str, Any] = {
        "upstreams": {
            "crm": {"url": "https://crm.internal:8443", "ca": "file:/etc/crm-ca.pem", "host": "crm", "timeout": "2s"},
            "public": {"url": "https://api.example", "resolver": "192.0.2.53:53"},
            "local": {"url": "http://127.0.0.1:9000"},
        },
        "routes": [
            {"route": "customer", "match": "GET /customers/{id}", "upstream": "crm", "policy": "p"},
            {"route": "trial", "match": "GET,POST /trial/**", "upstream": "public", "policy": "q"},
            {"route": "health", "match": "ANY /health", "upstream": "local", "pass": True},
        ],
    }
    return Settings.model_validate({**document, **change})


def rules(of: Settings) -> list[RouteRule]:
    kinds = {"p": RouteKind.PROTECT, "q": RouteKind.SHADOW, None: RouteKind.PASS}
    return [RouteRule(r.route, parse_template(r.match), kinds[r.policy], r.policy or "") for r in of.routes]


def made(of: Settings, paths: EnvoyPaths = PATHS) -> dict[str, Any]:
    return bootstrap(of, paths, envoy_routes(of, rules(of)), ca_bundle=BUNDLE)


def manager(config: dict[str, Any]) -> dict[str, Any]:
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    http: dict[str, Any] = chain["filters"][0]["typed_config"]
    return http


CASES = {
    "plain": settings(),
    "tls": settings(
        listen={
            "address": "0.0.0.0",
            "port": 8443,
            "tls": {"cert": "file:/etc/gharial/server.pem", "key": "file:/etc/gharial/server.key"},
        },
        limits={"body": "1MB", "header": "64KB", "in_flight": 10},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_configuration_is_the_golden_one(case: str, update_golden: bool):
    """Every change to what Envoy is told shows in a diff (`--update-golden`, then read it)."""
    of = CASES[case]
    for name, text in (
        ("envoy.json", json.dumps(made(of), indent=1) + "\n"),
        ("envoy-routes.json", route_file(of, envoy_routes(of, rules(of))).data.decode() + "\n"),
    ):
        path = CORPUS / case / name
        if update_golden:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.read_text() == text


@pytest.mark.envoy
def test_bodies_of_requests_are_handed_over_only_where_they_are_read():
    """A protected route whose policy may look for tokens in them gets them whole; no other route does."""
    reading = [replace(rule, reads_requests=rule.kind is not RouteKind.PASS) for rule in rules(settings())]
    table = json.loads(route_file(settings(), envoy_routes(settings(), reading)).data)["resources"][0]
    modes = {
        route["name"]: route["typed_per_filter_config"]["gate"]["overrides"]["processing_mode"]["request_body_mode"]
        for route in table["virtual_hosts"][0]["routes"]
        if "name" in route
    }
    assert modes == {"customer": "BUFFERED", "trial": "NONE", "health": "NONE"}


async def test_envoy_accepts_it_without_a_word(tmp_path):
    """No warning of a deprecated field, of all that `up` can generate."""
    envoy = process.find_envoy()
    assert envoy is not None
    config = made(CASES["plain"], SOCKETS)
    ca = next(path for path in (BUNDLE, Path("/etc/ssl/cert.pem")) if path.exists())
    text = json.dumps(config).replace("/etc/crm-ca.pem", str(ca)).replace(str(BUNDLE), str(ca))
    path = tmp_path / "envoy.json"
    path.write_text(text)
    check = await asyncio.create_subprocess_exec(
        str(envoy), "--mode", "validate", "--log-level", "warning", "-c", str(path),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await check.communicate()
    assert check.returncode == 0
    complaints = [line for line in said.decode().splitlines() if "][warning]" in line or "][error]" in line]
    assert complaints == []


@given(
    body=st.integers(1, 999_999_999),
    header=st.integers(1, 96_000),
    in_flight=st.integers(1, 100_000),
    kinds=st.lists(st.sampled_from(list(RouteKind)), min_size=1, max_size=5),
    stream=st.booleans(),
)
def test_what_must_hold_for_any_settings(body, header, in_flight, kinds, stream):
    """No route without the gate, no mode but its own, no failure that lets pass, limits above the gate's own."""
    of = settings(limits={"body": body, "header": header, "in_flight": in_flight})
    routes = [EnvoyRoute(f"r{n}", (), f"/{n}", "local", kind, stream=stream) for n, kind in enumerate(kinds)]
    config = bootstrap(of, PATHS, routes, ca_bundle=BUNDLE)
    http = manager(config)
    (table,) = json.loads(route_file(of, routes).data)["resources"]
    # The same table, whether it stands in the configuration or in a file; never in both.
    assert manager(bootstrap(of, SOCKETS, routes, ca_bundle=BUNDLE))["route_config"].items() <= table.items()
    assert ("route_config" in http, http["rds"]["route_config_name"]) == (False, table["name"])
    gate, router = http["http_filters"]
    assert (gate["name"], router["name"]) == ("gate", "router")
    ext_proc = gate["typed_config"]
    assert ext_proc["failure_mode_allow"] is False
    assert ext_proc["allow_mode_override"] is False
    assert ext_proc["processing_mode"]["response_body_mode"] == "BUFFERED"
    assert "observability_mode" not in ext_proc
    # The gate is switched on for the whole table of routes; only the last entry, which leads nowhere, is without it.
    assert table["typed_per_filter_config"]["gate"]["overrides"] == {}
    *real, last = table["virtual_hosts"][0]["routes"]
    assert last["direct_response"] == {"status": 404}
    assert "route" not in last
    protect = "FULL_DUPLEX_STREAMED" if stream else "BUFFERED"
    body_modes = {RouteKind.PROTECT: protect, RouteKind.SHADOW: "STREAMED", RouteKind.PASS: "NONE"}
    for route, kind in zip(real, kinds, strict=True):
        gate_config = route["typed_per_filter_config"]["gate"]
        assert set(gate_config) == {"@type", "overrides"}
        assert set(gate_config["overrides"]) == {"processing_mode"}
        mode = gate_config["overrides"]["processing_mode"]
        assert mode["response_body_mode"] == body_modes[kind]
        assert (mode["response_trailer_mode"] == "SEND") is (mode["response_body_mode"] == "FULL_DUPLEX_STREAMED")
        # Either an answer ends after a time, or it must not be silent for that time.
        assert (route["route"]["timeout"] == "0s") is ("idle_timeout" in route["route"]) is stream
        assert (mode["request_header_mode"], mode["response_header_mode"]) == ("SEND", "SEND")
        assert "retry_policy" not in route["route"]
    listener = config["static_resources"]["listeners"][0]
    assert body < listener["per_connection_buffer_limit_bytes"] == buffer_limit_bytes(body) < 2**32
    assert http["http2_protocol_options"]["initial_stream_window_size"] < 2**31
    for cluster in config["static_resources"]["clusters"]:
        for threshold in cluster["circuit_breakers"]["thresholds"]:
            assert threshold["max_requests"] > in_flight


def test_an_https_upstream_needs_a_ca():
    """Without one nothing could be checked, so nothing is generated."""
    of = settings()
    with pytest.raises(ValueError, match="public"):
        bootstrap(of, PATHS, envoy_routes(of, rules(of)), ca_bundle=None)


def test_no_secret_of_the_settings_is_in_the_configuration():
    """Credentials are the gate's to inject; Envoy's file holds none, nor a reference to one."""
    of = settings(
        upstreams={
            name: {"url": "http://127.0.0.1:1", "credentials": "inject: env:CRM_TOKEN"}
            for name in ("crm", "public", "local")
        },
        keys={"kek": "env:GHARIAL_KEK"},
    )
    text = json.dumps(made(of))
    assert "CRM_TOKEN" not in text
    assert "GHARIAL_KEK" not in text
