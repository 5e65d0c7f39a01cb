"""`gharial up`: checks, writes Envoy's configuration, and keeps gate and Envoy running until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import aiohttp

from gharial.adapters.active_file import ActiveFile
from gharial.adapters.admin import CHANGE_TIMEOUT_S, AdminClient
from gharial.adapters.envoy.config import EnvoyPaths, bootstrap, envoy_routes, route_file
from gharial.adapters.envoy.process import EnvoyAdmin, command, find_envoy
from gharial.adapters.files import GatewayFiles, load_gateway_files, read_active_texts
from gharial.adapters.replace_file import replace_file
from gharial.adapters.supervise import ChildSpec, NotReady, Supervisor
from gharial.adapters.system_ca import find_system_ca_bundle
from gharial.model.errors import GateUnavailable, GharialError
from gharial.settings import Api, Listen
from gharial.wiring.checks import check_port, check_start
from gharial.wiring.gate_process import GRACE_S
from gharial.wiring.keyfiles import RELOAD_TIMEOUT_S
from gharial.wiring.log import Log, make_log, tell_crashes

_MARGIN_S = 5.0
_MAX_ENVOY_THREADS = 8

Say = Callable[[str], None]


def run_gateway(config_path: Path, *, say: Say) -> int:
    """Run a gateway until SIGTERM or SIGINT. Returns the exit status; `say` speaks to the person at the terminal.

    Raises ConfigInvalid, PolicyInvalid, GateUnavailable and what else keeps it from starting: then nothing runs.
    """
    # Envoy chooses the mode of its log itself; nothing of this gateway is for other users' eyes.
    os.umask(0o077)
    load_gateway_files(config_path)
    # From here on the files may be edited: all parts run by what was read now, also one that is started anew.
    texts = read_active_texts(config_path)
    files = load_gateway_files(config_path, texts)
    check_start(files)
    with _alone(files.run_dir):
        check_port(files)
        ActiveFile(_active_path(files), texts).keep(texts.policies)
        write_envoy_config(files)
        return asyncio.run(_run(files, make_log("supervisor"), say))


@contextlib.contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Hold a run folder for one gateway. Raises GateUnavailable if another one runs in it.

    A second one would take the sockets of the first for its own, and the answers on them for its own parts' readiness.
    """
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(run_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise GateUnavailable(
                f"another gateway runs in {run_dir}; 'gharial status' shows it. "
                "A second one needs an admin.socket, a store and a listen.port of its own"
            ) from None
        yield
    finally:
        os.close(handle)


def write_envoy_config(files: GatewayFiles) -> Path:
    """Write Envoy's configuration and its routes beside the sockets and return where. They hold no secret of ours."""
    files.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    routes = envoy_routes(files.settings, files.routes.rules)
    config = bootstrap(
        files.settings,
        EnvoyPaths(files.gate_socket, files.envoy_admin_socket, files.envoy_routes),
        routes,
        ca_bundle=find_system_ca_bundle(),
    )
    replace_file(files.envoy_routes, route_file(files.settings, routes).data)
    path = files.run_dir / "envoy.json"
    _replace_file(path, json.dumps(config, indent=1).encode())
    return path


def _replace_file(path: Path, data: bytes) -> None:
    fresh = path.with_suffix(".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    fresh.replace(path)


async def _run(files: GatewayFiles, log: Log, say: Say) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    tell_crashes(loop, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    supervisor = Supervisor([_gate_spec(files), _envoy_spec(files)], log=log)
    starting = asyncio.create_task(supervisor.start())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
    try:
        await starting
    except asyncio.CancelledError:
        return 0
    except NotReady as error:
        raise GateUnavailable(f"{error} did not start; {_last_words(files, str(error))}") from None
    loop.add_signal_handler(signal.SIGHUP, lambda: _take_files_soon(files, log))
    reporter = asyncio.create_task(_report_parts(supervisor, files.run_dir / "parts.json"))
    say(_greeting(files))
    await stopping
    log("gateway.stopping")
    reporter.cancel()
    await supervisor.stop()
    (files.run_dir / "parts.json").unlink(missing_ok=True)
    return 0


_publishing: set[asyncio.Task[None]] = set()


def _take_files_soon(files: GatewayFiles, log: Log) -> None:
    for work in (_publish(files, log), _reload_keys(files, log)):
        task = asyncio.create_task(work)
        _publishing.add(task)
        task.add_done_callback(_publishing.discard)


async def _publish(files: GatewayFiles, log: Log) -> None:
    """Publish the policy files as they are now (SIGHUP); if that fails, the active policies stay."""
    admin = AdminClient(files.admin_socket, timeout_s=CHANGE_TIMEOUT_S)
    try:
        changed = await asyncio.to_thread(admin.call, "POST", "/policies/publish")
    except GharialError as error:
        log("policies.rejected", code=error.code, why=str(error))
    else:
        log("policies.published", changed=", ".join(changed["changed"]) or "none")


async def _reload_keys(files: GatewayFiles, log: Log) -> None:
    """Have the gate take the key file as it is now (SIGHUP); if that fails, the active keyset stays."""
    try:
        await asyncio.to_thread(AdminClient(files.admin_socket, RELOAD_TIMEOUT_S).call, "POST", "/keys/reload")
    except GharialError as error:
        log("keys.rejected", code=error.code, why=str(error))


def _active_path(files: GatewayFiles) -> Path:
    return files.run_dir.resolve() / "active.json"


def _gate_spec(files: GatewayFiles) -> ChildSpec:
    async def alive() -> bool:
        return await _is_alive(files.admin_socket)

    return ChildSpec(
        name="gate",
        argv=[
            sys.executable,
            "-m",
            "gharial",
            "gate",
            "-c",
            str(files.path.resolve()),
            "--active",
            str(_active_path(files)),
        ],
        ready=alive,
        cwd=files.base,
        alive=alive,
        # Under a flood of large bodies the gate answers late; only one that says nothing for long hangs.
        alive_every_s=2.0,
        stop_within_s=GRACE_S + _MARGIN_S,
        stderr=files.run_dir / "gate.log",
    )


def _envoy_spec(files: GatewayFiles) -> ChildSpec:
    envoy = find_envoy()
    if envoy is None:
        raise GateUnavailable("there is no Envoy here; 'gharial doctor' says how to get it")
    admin = EnvoyAdmin(files.envoy_admin_socket)
    threads = min(os.cpu_count() or 1, _MAX_ENVOY_THREADS)
    return ChildSpec(
        name="envoy",
        argv=command(envoy, files.run_dir / "envoy.json", files.run_dir / "envoy.log", concurrency=threads),
        ready=admin.is_ready,
        cwd=files.base,
        stop=lambda: admin.drain_and_stop(GRACE_S),
        stop_within_s=GRACE_S + _MARGIN_S,
        stderr=files.run_dir / "envoy.err",
    )


async def _is_alive(admin_socket: Path) -> bool:
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(admin_socket)), timeout=aiohttp.ClientTimeout(total=2)
            ) as session,
            session.get("http://gate/livez") as answer,
        ):
            return answer.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def _report_parts(supervisor: Supervisor, path: Path) -> None:
    """Keep a small file of where each part is, for `gharial status`; written only when something changed."""
    written = b""
    while True:
        data = json.dumps([asdict(state) for state in supervisor.states()]).encode()
        if data != written:
            with contextlib.suppress(OSError):
                _replace_file(path, data)
                written = data
        await asyncio.sleep(0.5)


def _last_words(files: GatewayFiles, name: str) -> str:
    """Return what a part that did not start said last; its own lines hold no value."""
    path = files.run_dir / ("gate.log" if name == "gate" else "envoy.log")
    with contextlib.suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return f"it said: {lines[-1][:500]} (all of it: {path})"
    return f"see {path}"


def _url(listen: Listen | Api) -> str:
    host = f"[{listen.address}]" if ":" in listen.address else listen.address
    return f"{'https' if listen.tls else 'http'}://{host}:{listen.port}"


def _greeting(files: GatewayFiles) -> str:
    lines = [f"Gharial stands at {_url(files.settings.listen)}"]
    for rule in files.routes.rules:
        covered = f"policy {rule.policy}" if rule.policy else "unprotected"
        lines.append(f"  {rule.template.text:40} {rule.kind.value:8} {covered}")
    if files.settings.api is not None:
        lines.append(f"The reveal API stands at {_url(files.settings.api)}/v1/reveal")
    lines.append("gharial status shows what it does; Ctrl-C stops it without losing a call.")
    return "\n".join(lines)
