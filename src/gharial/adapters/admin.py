"""The admin socket: HTTP over a Unix socket of mode 0600, for the command line of the same user.

Who can open the socket may do everything here; the file's mode is the login. A port with a login is another adapter.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gharial.adapters.metrics import CONTENT_TYPE
from gharial.gate.erasing import Eraser, Who
from gharial.gate.operate import ClientFacts, Operations
from gharial.model.errors import AdminUnavailable, GharialError, RequestMalformed, problem_body
from gharial.model.publication import PublicationRecord

MAX_REQUEST_BYTES = 64 * 1024

CHANGE_TIMEOUT_S = 60.0
"""How long to wait for a publication: longer than it waits for the proxy, and than the one before it does."""


def admin_app(
    operations: Operations,
    status: Callable[[], dict[str, Any]],
    publications: Publications,
    readiness: Callable[[], list[str]],
    metrics: Callable[[], bytes],
    recordings: Recordings,
    reload_keys: Callable[[], Awaitable[dict[str, Any]]],
    undo: Callable[[str], list[dict[str, Any]]],
    eraser: Eraser,
) -> Starlette:
    """Return the ASGI application of the admin socket. `readiness` lists what keeps the gate from being ready.

    `undo` ends the measures that were taken for an incident, and returns them.
    `reload_keys` has the gate take the key file as it is now, and returns what may be shown of it.
    """

    async def get_status(_: Request) -> JSONResponse:
        return JSONResponse(status())

    async def get_livez(_: Request) -> JSONResponse:
        return JSONResponse({})

    async def get_readyz(_: Request) -> JSONResponse:
        problems = readiness()
        return JSONResponse({"ready": not problems, "problems": problems}, status_code=503 if problems else 200)

    async def get_metrics(_: Request) -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE)

    async def publish(request: Request) -> JSONResponse:
        wanted = await _decoded(request, PublishRequest)
        return JSONResponse({"changed": await publications.publish(force=wanted.force)})

    async def start_canary(request: Request) -> JSONResponse:
        wanted = await _decoded(request, CanaryRequest)
        await publications.try_out([Path(file) for file in wanted.files], wanted.percent, frozenset(wanted.routes))
        return JSONResponse({})

    async def end_canary(_: Request) -> JSONResponse:
        await publications.end_canary()
        return JSONResponse({})

    async def get_history(_: Request) -> JSONResponse:
        return JSONResponse([asdict(record) for record in await publications.history()])

    async def rollback(request: Request) -> JSONResponse:
        wanted = await _decoded(request, RollbackRequest)
        record = await publications.rollback(wanted.policy, wanted.number, force=wanted.force)
        return JSONResponse({"policy": record.policy, "version": record.version, "number": record.number})

    async def get_recording(_: Request) -> JSONResponse:
        return JSONResponse(recordings.status())

    async def start_recording(request: Request) -> JSONResponse:
        wanted = await _decoded(request, RecordingRequest)
        recordings.start(Path(wanted.file), wanted.for_s, wanted.exchanges, wanted.size_bytes, frozenset(wanted.routes))
        return JSONResponse(recordings.status(), status_code=201)

    async def stop_recording(_: Request) -> JSONResponse:
        # What waits is written first, which may take a moment; calls go on meanwhile.
        await asyncio.to_thread(recordings.stop)
        return JSONResponse(recordings.status())

    async def take_keys(_: Request) -> JSONResponse:
        return JSONResponse(await reload_keys())

    async def get_clients(_: Request) -> JSONResponse:
        return JSONResponse(await operations.list_clients())

    async def add_client(request: Request) -> JSONResponse:
        facts = await _decoded(request, ClientFacts)
        try:
            made = await operations.add_client(facts)
        except ValueError as error:
            raise RequestMalformed(str(error)) from None
        return JSONResponse(dict(made), status_code=201)

    async def revoke_client(request: Request) -> JSONResponse:
        await operations.revoke_client(request.path_params["name"])
        return JSONResponse({})

    async def erase(request: Request) -> JSONResponse:
        return JSONResponse(await eraser.erase(await _decoded(request, Who)))

    async def forget(request: Request) -> JSONResponse:
        return JSONResponse({"forgotten": await eraser.forget(await _decoded(request, Who))})

    async def get_incidents(_: Request) -> JSONResponse:
        return JSONResponse([asdict(incident) for incident in await operations.list_incidents()])

    async def get_incident(request: Request) -> JSONResponse:
        return JSONResponse(asdict(await operations.get_incident(request.path_params["id"])))

    async def undo_incident(request: Request) -> JSONResponse:
        incident = await operations.get_incident(request.path_params["id"])
        return JSONResponse({"undone": undo(incident.incident_id)})

    routes = [
        Route("/livez", _guarded(get_livez)),
        Route("/readyz", _guarded(get_readyz)),
        Route("/metrics", _guarded(get_metrics)),
        Route("/status", _guarded(get_status)),
        Route("/people/erase", _guarded(erase), methods=["POST"]),
        Route("/people/forget", _guarded(forget), methods=["POST"]),
        Route("/policies/publish", _guarded(publish), methods=["POST"]),
        Route("/policies/canary", _guarded(start_canary), methods=["POST"]),
        Route("/policies/canary/end", _guarded(end_canary), methods=["POST"]),
        Route("/policies/history", _guarded(get_history)),
        Route("/policies/rollback", _guarded(rollback), methods=["POST"]),
        Route("/recording", _guarded(get_recording), methods=["GET"]),
        Route("/recording", _guarded(start_recording), methods=["POST"]),
        Route("/recording/stop", _guarded(stop_recording), methods=["POST"]),
        Route("/keys/reload", _guarded(take_keys), methods=["POST"]),
        Route("/clients", _guarded(get_clients), methods=["GET"]),
        Route("/clients", _guarded(add_client), methods=["POST"]),
        Route("/clients/{name}/revoke", _guarded(revoke_client), methods=["POST"]),
        Route("/incidents", _guarded(get_incidents)),
        Route("/incidents/{id}", _guarded(get_incident)),
        Route("/incidents/{id}/undo", _guarded(undo_incident), methods=["POST"]),
    ]
    return Starlette(routes=routes)


class PublishRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Publish what stands in the policy files now; `force`: although tests of theirs fail."""

    force: bool = False


class CanaryRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Let the policies of these files serve a part of the callers, on these routes (none: on all)."""

    files: tuple[str, ...]
    percent: int
    routes: tuple[str, ...] = ()


class RollbackRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Go back to an earlier publication of a policy; without a number, to the one before."""

    policy: str
    number: int | None = None
    force: bool = False


class RecordingRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Record exchanges of these routes (none: of all) into a new file, until the first of the bounds is reached."""

    file: str
    for_s: float
    exchanges: int
    size_bytes: int
    routes: tuple[str, ...] = ()


class Recordings(Protocol):
    """What an operator does with recordings; at most one runs."""

    def start(self, path: Path, for_s: float, exchanges: int, size_bytes: int, routes: frozenset[str]) -> None:
        """Start one."""

    def stop(self) -> None:
        """End it; returns when its file is complete."""

    def status(self) -> dict[str, Any]:
        """Where the one that runs, or the last one, stands."""


class Publications(Protocol):
    """What an operator does with policies."""

    async def publish(self, *, force: bool) -> list[str]:
        """Publish the files; returns the names of the policies that changed."""

    async def try_out(self, files: Sequence[Path], percent: int, routes: frozenset[str]) -> None:
        """Start a canary."""

    async def end_canary(self) -> None:
        """End it."""

    async def rollback(self, policy: str, number: int | None, *, force: bool) -> PublicationRecord:
        """Publish an earlier text again, and write it into the policy's file."""

    async def history(self) -> Sequence[PublicationRecord]:
        """All publications, newest first."""


Handler = Callable[[Request], Awaitable[Response]]
_Wanted = TypeVar("_Wanted")


def _guarded(handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except GharialError as error:
            return JSONResponse({**problem_body(error), "detail": str(error)}, status_code=error.status)

    return guarded


async def _decoded(request: Request, kind: type[_Wanted]) -> _Wanted:
    try:
        return msgspec.json.decode(await _bounded_body(request) or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise RequestMalformed(str(error)) from None


async def _bounded_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_BYTES:
            raise RequestMalformed(f"an admin request has at most {MAX_REQUEST_BYTES} bytes")
    return bytes(body)


def bind_private_socket(path: Path) -> socket.socket:
    """Return a bound Unix socket that only this user can open; a dead one of an earlier run is replaced.

    The folder is made with mode 0700. The mode is right from the start: between bind and chmod there is no gap.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        bound.bind(str(path))
    finally:
        os.umask(old)
    return bound


class QuietServer(uvicorn.Server):
    """A server within the gate's process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: the gate has handlers of its own, and ends its listeners itself."""
        yield


async def serve_admin(app: Starlette, path: Path) -> tuple[uvicorn.Server, asyncio.Task[None]]:
    """Serve `app` on the socket at `path`; returns the server (set `should_exit` to end it) and its task."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", http="httptools", ws="none")
    server = QuietServer(config)
    return server, await start_server(server, bind_private_socket(path))


async def start_server(server: uvicorn.Server, bound: socket.socket) -> asyncio.Task[None]:
    """Serve on a bound socket; returns the task once calls are taken, or when it has ended already."""
    task = asyncio.create_task(server.serve(sockets=[bound]))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn tells it by an attribute only
        await asyncio.sleep(0.005)
    return task


class AdminClient:
    """The command line's side of the admin socket."""

    def __init__(self, path: Path, timeout_s: float = 10.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def call(self, method: str, target: str, body: object = None) -> Any:
        """Return the decoded answer. Raises AdminUnavailable if no gateway runs, AdminRefused if it says no."""
        connection = _UnixConnection(self._path, self._timeout_s)
        try:
            connection.request(method, target, None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise AdminUnavailable(
                f"no gateway answers on {self._path} ({type(error).__name__}); 'gharial up' starts one"
            ) from None
        finally:
            connection.close()
        if response.status >= 400:
            raise AdminRefused(answer.get("code", "internal"), answer.get("detail", answer.get("title", "")))
        return answer


class AdminRefused(GharialError):
    """The running gateway refused an operator's request; `code` and text are its own."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._unix_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._unix_path))
