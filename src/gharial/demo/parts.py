"""The two parts that the demo starts, telecom and gateway: each a process of its own that ends with the demo."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from gharial.adapters.files import write_private_file
from gharial.crypto.kek import LocalKek
from gharial.crypto.keyfile import wrap_keyset
from gharial.crypto.keyset import create_keyset, new_kek, parse_kek

START_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05
_MAX_LOG_BYTES = 2_000


class DemoFailed(Exception):
    """A part did not start or did not answer; the text says which, and what it said."""


class Gateway(Protocol):
    """What the story needs of a running gateway."""

    @property
    def url(self) -> str:
        """Where clients connect."""

    @property
    def folder(self) -> Path:
        """Where its files are."""

    async def add_client(self, name: str, role: str, purpose: str) -> str:
        """Register a client and return its API key."""

    async def list_incidents(self) -> Sequence[dict[str, Any]]:
        """Return all incidents, newest first, with the fields of `model.incident.IncidentRecord`."""


@asynccontextmanager
async def running_telecom() -> AsyncIterator[str]:
    """Start the telecom on a free loopback port; yield its URL; it has ended when this returns."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Handing over the listening socket leaves no moment in which another process could take the port.
        fd, port = listener.fileno(), listener.getsockname()[1]
        command = [sys.executable, "-m", "gharial.demo.telecom", "--fd", str(fd)]
        async with _running(command, None, pass_fds=(fd,)) as process:
            listener.close()
            url = f"http://127.0.0.1:{port}"
            await _until_answers(
                _Part("the telecom", process, None), f"{url}/customers/1", lambda status: status == 200
            )
            yield url


@asynccontextmanager
async def running_gateway(upstream_url: str, *, keep_files: bool) -> AsyncIterator[Gateway]:
    """Write a gateway's files into a private folder, start `gharial up` on a free loopback port, yield it ready.

    Gateway and Envoy have ended when this returns, and the folder is gone; with `keep_files` it stays after a good end.
    """
    folder, stays = Path(tempfile.mkdtemp(prefix="gharial-demo-")), False
    try:
        gateway = RealGateway(folder, _find_free_port())
        write_gateway_files(folder, upstream_url, gateway.port)
        log = folder / "up.log"
        async with _running(gateway.command("up"), log) as process:
            # While the gate is down Envoy answers 503; a path without a route is answered with 404 by a living gate.
            await _until_answers(_Part("the gateway", process, log), f"{gateway.url}/", lambda status: status == 404)
            yield gateway
        stays = keep_files
    finally:
        if not stays:
            shutil.rmtree(folder, ignore_errors=True)


class RealGateway:
    """A gateway that is asked through the command line, as an operator would."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def command(self, *words: str) -> list[str]:
        """Return the command line `gharial WORDS -c …` for this gateway."""
        return [sys.executable, "-m", "gharial", *words, "-c", str(self.folder / "gharial.yaml")]

    async def add_client(self, name: str, role: str, purpose: str) -> str:
        """See Gateway."""
        made = await self._ask("clients", "add", name, "--role", role, "--purpose", purpose, "--json")
        return str(made["key"])

    async def list_incidents(self) -> Sequence[dict[str, Any]]:
        """See Gateway."""
        listed: list[dict[str, Any]] = await self._ask("incidents", "list", "--json")
        return listed

    async def _ask(self, *words: str) -> Any:
        process = await asyncio.create_subprocess_exec(
            *self.command(*words), stdin=asyncio.subprocess.DEVNULL, stdout=-1, stderr=-1
        )
        try:
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        shown = "gharial " + " ".join(words)
        if process.returncode != 0:
            raise DemoFailed(f"'{shown}' ended with status {process.returncode}:\n{_tail(err)}")
        try:
            return json.loads(out)
        except ValueError:
            raise DemoFailed(f"'{shown}' did not print JSON") from None


def write_gateway_files(folder: Path, upstream_url: str, port: int) -> None:
    """Write gharial.yaml, the policy, the wrapped key file and the key that wraps it."""
    kek = new_kek(os.urandom)
    keyset = create_keyset(os.urandom, time.time())
    write_private_file(folder / "run" / "kek", kek.encode("ascii"))
    write_private_file(folder / "run" / "keys.json", wrap_keyset(keyset, LocalKek(parse_kek(kek)), os.urandom))
    write_private_file(folder / "policy.yaml", read_policy())
    write_private_file(folder / "gharial.yaml", config_text(upstream_url, port).encode("utf-8"))


def read_policy() -> bytes:
    """Return the text of the demo's policy, which ships with the package."""
    return files("gharial.demo").joinpath("policy.yaml").read_bytes()


def config_text(upstream_url: str, port: int) -> str:
    """Return the demo's gharial.yaml."""
    return _CONFIG.format(url=upstream_url, port=port)


_CONFIG = """\
listen: {{ address: 127.0.0.1, port: {port} }}
upstreams:
  telecom: {{ url: '{url}' }}
routes:
  - {{ route: customer, match: 'GET /customers/{{id}}', upstream: telecom, policy: telecom-customers }}
  - {{ route: bill, match: 'GET /customers/{{id}}/bill', upstream: telecom, policy: telecom-customers }}
  - {{ route: list, match: 'GET /customers', upstream: telecom, policy: telecom-customers }}
policies: [policy.yaml]
identity:
  - {{ api_keys: {{ header: X-Api-Key }} }}
keys: {{ file: run/keys.json, kek: file:run/kek }}
alarms: ['file://run/alarms.jsonl']
"""


# --- processes ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _running(
    command: Sequence[str], log: Path | None, *, pass_fds: Sequence[int] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a process in a group of its own and end it, and all that it started, on the way out.

    Its own group: Ctrl-C then reaches the demo alone, which ends the parts in order.
    """
    output = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    finally:
        os.close(output)
    try:
        yield process
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
    # What is left of its group: the part itself if it would not end, or children of a part that died on its own.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    process: asyncio.subprocess.Process
    log: Path | None

    def last_words(self) -> str:
        return _tail(self.log.read_bytes()) if self.log is not None else ""


async def _until_answers(part: _Part, url: str, is_ready: Callable[[int], bool]) -> None:
    """Ask until the status says that the part is ready. Raises DemoFailed if it ends, or after START_TIMEOUT_S."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as session:
            while True:
                if part.process.returncode is not None:
                    raise DemoFailed(f"{part.name} ended with status {part.process.returncode}. {part.last_words()}")
                with suppress(aiohttp.ClientError):
                    async with session.get(url) as reply:
                        if is_ready(reply.status):
                            return
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise DemoFailed(f"{part.name} was not ready after {START_TIMEOUT_S:.0f} s. {part.last_words()}") from None


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _tail(output: bytes) -> str:
    return output[-_MAX_LOG_BYTES:].decode("utf-8", "replace").strip()
