"""What the ladder stands on: an upstream, an Envoy without the gate, and a whole gateway with one policy per rung."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gharial.adapters.envoy.config import EnvoyPaths, bootstrap, envoy_routes
from gharial.adapters.envoy.process import command, find_envoy
from gharial.adapters.files import load_gateway_files, write_private_file
from gharial.crypto.kek import LocalKek
from gharial.crypto.keyfile import wrap_keyset
from gharial.crypto.keyset import create_keyset, new_kek, parse_kek

HERE = Path(__file__).resolve().parent
START_TIMEOUT_S = 40.0

_SHOW = {"masked": "mask", "tokens": "token(scope=client)", "clear": "clear", "budget": "clear"}

_CONFIG = """\
listen: {{ address: 127.0.0.1, port: {port} }}
upstreams:
  bench: {{ url: 'http://127.0.0.1:{upstream}' }}
routes:
  - {{ route: pass, match: 'GET /pass/{{size}}/{{number}}', upstream: bench, pass: true }}
{routes}policies: ['policy-*.yaml']
identity:
  - {{ api_keys: {{ header: X-Api-Key }} }}
keys: {{ file: run/keys.json, kek: file:run/kek }}
"""

_ROUTE = "  - {{ route: {name}, match: 'GET /{name}/{{size}}/{{number}}', upstream: bench, policy: bench-{name} }}\n"

_POLICY = """\
policy: bench-{name}
version: 1
mode: enforce
tags:
  person:  {{ find: '$..customerId', subject: customer }}
  country: {{ find: '$..countryOfResidence' }}
  name:    {{ find: '$..fullName' }}
  email:   {{ find: '$..email' }}
  phone:   {{ find: '$..msisdn' }}
  birth:   {{ find: '$..dob' }}
  account: {{ find: '$..accountNumber' }}
  all:     [person, country, name, email, phone, birth, account]
unlisted_fields: drop
who:
  bench: {{ client: bench }}
grants:
  - grant: bench-{name}
    to: bench
    show: {{ all: {show} }}
{budget}"""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the rungs are, the API key for them, and the processes behind."""

    ports: dict[str, int]
    key: str
    upstream: int
    envoy: int
    gateway_envoy: int
    gate: int


@contextmanager
def standing(folder: Path) -> Iterator[Places]:
    """Start the upstream, an Envoy without the gate, and a whole gateway; stop them on the way out."""
    with ExitStack() as stack:
        upstream, upstream_port = stack.enter_context(_upstream())
        gateway_port, envoy_port = _free_port(), _free_port()
        config = write_files(folder, upstream_port, gateway_port)
        gharial = [sys.executable, "-m", "gharial"]
        log = stack.enter_context((folder / "up.log").open("wb"))
        up = stack.enter_context(_process([*gharial, "up", "-c", str(config)], log))
        _wait_for(gateway_port, up)
        children = {_command(pid): pid for pid in _children(up.pid)}
        gate = next(pid for line, pid in children.items() if "gharial" in line)
        gateway_envoy = next(pid for line, pid in children.items() if "envoy" in line.split("\0")[0])
        added = subprocess.run(
            [*gharial, "clients", "add", "bench", "--json", "-c", str(config)], check=True, capture_output=True
        )
        envoy = stack.enter_context(_process(_envoy_alone(config, folder, envoy_port), log))
        _wait_for(envoy_port, envoy)
        ports = {"upstream": upstream_port, "envoy": envoy_port, "gateway": gateway_port}
        yield Places(ports, json.loads(added.stdout)["key"], upstream.pid, envoy.pid, gateway_envoy, gate)


def write_files(folder: Path, upstream_port: int, port: int) -> Path:
    """Write a gateway's files with one policy per rung; return gharial.yaml."""
    kek = new_kek(os.urandom)
    keyset = create_keyset(os.urandom, time.time())
    write_private_file(folder / "run" / "kek", kek.encode("ascii"))
    write_private_file(folder / "run" / "keys.json", wrap_keyset(keyset, LocalKek(parse_kek(kek)), os.urandom))
    for name, show in _SHOW.items():
        budget = "    budget: { people: 10000000/h, then: mask }\n" if name == "budget" else ""
        text = _POLICY.format(name=name, show=show, budget=budget)
        (folder / f"policy-{name}.yaml").write_text(text, encoding="utf-8")
    routes = "".join(_ROUTE.format(name=name) for name in _SHOW)
    config = folder / "gharial.yaml"
    config.write_text(_CONFIG.format(port=port, upstream=upstream_port, routes=routes), encoding="utf-8")
    return config


def _envoy_alone(config: Path, folder: Path, port: int) -> list[str]:
    """Return the command of an Envoy with the gateway's own configuration, only without the gate."""
    files = load_gateway_files(config)
    sockets = EnvoyPaths(folder / "none.sock", folder / "alone-admin.sock")
    text = bootstrap(files.settings, sockets, envoy_routes(files.settings, files.routes.rules))
    listener = text["static_resources"]["listeners"][0]
    listener["address"]["socket_address"]["port_value"] = port
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [one for one in manager["http_filters"] if one["name"] != "gate"]
    table = manager["route_config"]
    for holder in (table, *(route for host in table["virtual_hosts"] for route in host["routes"])):
        holder.pop("typed_per_filter_config", None)
    path = folder / "envoy-alone.json"
    path.write_text(json.dumps(text), encoding="utf-8")
    envoy = find_envoy()
    if envoy is None:
        raise SystemExit("there is no Envoy here; 'gharial doctor' says how to get it")
    return command(envoy, path, folder / "envoy-alone.log", concurrency=os.cpu_count() or 1)


@contextmanager
def _upstream() -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "upstream.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def _process(argv: Sequence[str], log: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when a path without a route is answered with 404: then all parts are up."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with status {process.returncode}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == 404:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise SystemExit(f"nothing answers on port {port}")


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
