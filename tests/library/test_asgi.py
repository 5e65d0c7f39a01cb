"""What ASGI alone has: lifespans, WebSockets, trailers, other messages, cancellation; and real frameworks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fastapi
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Mount, Route
from support.apps import AsgiSite
from support.embedded import audit_of, write_home
from support.gateway import MARK, PLANTED, customer, customer_id

import gharial
from gharial.model.errors import ProtocolViolation

ONE = f"/customers/{customer_id(1)}"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AsgiSite]:
    with gharial.load(write_home(tmp_path)) as gate:
        yield AsgiSite(gate)


async def drive(site: AsgiSite, app: Any, scope: dict[str, Any], *incoming: dict[str, Any]) -> list[dict[str, Any]]:
    """Serve one scope by hand; return what was sent."""
    waiting, sent = list(incoming), []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await gharial.GharialMiddleware(app, site.gate)(scope, receive, send)
    return sent


def websocket(path: str) -> dict[str, Any]:
    return {"type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}


async def talkative(scope: Any, receive: Any, send: Any) -> None:
    """A WebSocket app that tells all it knows."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": MARK})


@pytest.mark.parametrize("path", [ONE, "/nowhere", "/open/%2e%2e/customers/x", "/open/..;/x"])
async def test_a_websocket_on_a_covered_route_is_refused(site: AsgiSite, path: str):
    """It is closed before it is accepted; the app is not asked."""
    sent = await drive(site, talkative, websocket(path), {"type": "websocket.connect"})
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_a_websocket_on_a_passing_route_passes(site: AsgiSite, tmp_path: Path):
    """And is written down as one."""
    sent = await drive(site, talkative, websocket("/open/chat"), {"type": "websocket.connect"})
    assert sent[-1]["text"] == MARK
    site.gate.close()
    assert [line["outcome"] for line in audit_of(tmp_path)] == ["pass"]


async def test_a_lifespan_is_the_apps_own(site: AsgiSite):
    """Start-up and shutdown go straight through."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": (await receive())["type"] + ".complete"})

    sent = await drive(site, app, {"type": "lifespan"}, {"type": "lifespan.startup"})
    assert sent == [{"type": "lifespan.startup.complete"}]


async def test_a_kind_of_connection_that_nobody_knows_is_refused(site: AsgiSite):
    """What comes to ASGI later does not pass unseen."""
    with pytest.raises(ProtocolViolation):
        await drive(site, talkative, {"type": "webtransport"})


def http(**more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": ONE,
        "query_string": b"",
        "headers": [],
        "extensions": {"http.response.pathsend": {}, "http.response.trailers": {}},
        **more,
    }


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}


@pytest.mark.parametrize(
    "messages",
    [
        [{**START, "trailers": True}, {"type": "http.response.body", "body": MARK.encode()}],
        [START, {"type": "http.response.pathsend", "path": "/etc/passwd"}],
        [{"type": "http.response.push", "path": MARK, "headers": []}],
        [START, START],
        [{"type": "http.response.body", "body": MARK.encode()}],
        [{"type": "http.response.debug", "info": {"x": MARK}}],
        [{**START, "status": 101}],
    ],
)
async def test_other_ways_to_send_something_are_refused(site: AsgiSite, messages: list[dict[str, Any]]):
    """A file by its path, a push, trailers: each would pass unseen. Nothing of it is sent, and the app is stopped."""
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append(scope["extensions"])
        for message in messages:
            await send(message)
        told.append("not stopped")

    sent = await drive(site, app, http(), {"type": "http.request"})
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[0]["status"], json.loads(sent[1]["body"])["code"]) == (500, "gate.protocol")
    assert MARK.encode() not in repr(sent).encode()
    assert told == [{}]


async def test_a_client_that_goes_away_is_written_down(site: AsgiSite, tmp_path: Path):
    """A call that is cancelled in the middle ends as abandoned, and nothing was sent."""
    begun = asyncio.Event()
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        begun.set()
        await asyncio.Event().wait()

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    task = asyncio.create_task(gharial.GharialMiddleware(app, site.gate)(http(), receive, send))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    site.gate.close()
    assert sent == []
    assert [line["outcome"] for line in audit_of(tmp_path)] == ["abandoned"]


async def test_an_app_that_says_nothing_is_a_500(site: AsgiSite):
    """Nothing at all, or a head without an end: 500, without a body."""

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": MARK.encode(), "more_body": True})

    for app in (silent, half):
        start, body = await drive(site, app, http(), {"type": "http.request"})
        assert (start["status"], body["body"]) == (500, b"")


async def test_a_scope_without_a_raw_path_is_served(site: AsgiSite):
    """`raw_path` is optional in ASGI."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": json.dumps(customer(1)).encode()})

    start, body = await drive(site, app, http(), {"type": "http.request"})
    assert start["status"] == 200
    assert not any(needle in body["body"] for needle in PLANTED)


async def test_a_header_with_an_underscore_is_refused(site: AsgiSite):
    """As at the gateway: some servers read it as another header."""
    got = await site.ask(ONE, ("x_api_key", "x"))
    assert (got.status, got.code) == (400, "request.malformed")


async def test_an_app_may_read_a_request_without_a_body(site: AsgiSite):
    """Looking for a body takes nothing from the app: it is told that there is none, and not that the client is gone."""
    heard = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.append(await receive())
        await send(START)
        await send({"type": "http.response.body", "body": b"{}"})

    await drive(site, app, http(), {"type": "http.request"})
    assert heard == [{"type": "http.request", "body": b"", "more_body": False}]


# --- frameworks -------------------------------------------------------------------------------------------------------


async def one(request: Request) -> JSONResponse:
    return JSONResponse({**customer(1), "asked": request.path_params["id"]}, background=BackgroundTask(lambda: None))


async def streamed(_: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        yield "["
        yield ",".join(json.dumps(customer(n)) for n in range(5))
        yield "]"

    return StreamingResponse(pieces(), media_type="application/json")


async def broken(_: Request) -> JSONResponse:
    raise ValueError(MARK)


async def file(request: Request) -> FileResponse:
    return FileResponse(request.app.state.file, media_type="application/json")


ROUTES = [Route("/customers/{id}", one), Route("/customers", streamed)]
ROUTES += [Mount("/any", routes=[Route("/broken", broken), Route("/file", file)])]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("inside", [False, True])
async def test_starlette_behind_it(site: AsgiSite, tmp_path: Path, debug: bool, inside: bool):
    """Around a Starlette app or within it: records, streams and files are rewritten, and no traceback shows a value."""
    (tmp_path / "record.json").write_text(json.dumps(customer(3)))
    middleware = [Middleware(gharial.GharialMiddleware, gate=site.gate)] if inside else []
    app: Any = Starlette(debug=debug, routes=ROUTES, middleware=middleware)
    app.state.file = tmp_path / "record.json"

    async def ask(path: str) -> Any:
        if not inside:
            return await site.ask_app(app, path)
        return await _bare(site, app, path)

    for path, status in ((ONE, 200), ("/customers", 200), ("/any/file", 200), ("/any/broken", 500), ("/any/x", 404)):
        got = await ask(path)
        assert got.status == status, path
        assert not any(needle in repr(got.headers).encode() + got.body for needle in PLANTED), path
    assert (await ask(ONE)).json["plan"] == "magenta"
    assert len((await ask("/customers")).json) == 5


async def _bare(site: AsgiSite, app: Any, path: str) -> Any:
    """Ask an app that has the middleware inside."""
    bare = AsgiSite(site.gate)
    original = gharial.GharialMiddleware
    try:
        gharial.GharialMiddleware = lambda app, *_: app  # type: ignore[assignment, misc]
        return await bare.ask_app(app, path)
    finally:
        gharial.GharialMiddleware = original  # type: ignore[misc]


async def test_fastapi_behind_it(site: AsgiSite):
    """Its errors of validation, which repeat what was sent, keep their status, and their text is judged like any."""
    app = fastapi.FastAPI()

    @app.get("/customers/{customer}")
    async def read(customer: str) -> dict[str, Any]:
        return {**globals()["customer"](1), "path": customer}

    @app.post("/customers/{customer}")
    async def write(customer: str, count: int) -> dict[str, Any]:
        return {}

    got = await site.ask_app(app, ONE)
    assert (got.status, got.json["plan"]) == (200, "magenta")
    assert not any(needle in got.body for needle in PLANTED)
    refused = await site.ask_app(app, f"{ONE}?count={MARK}", method="POST")
    assert refused.status == 422
    assert not any(needle in refused.body for needle in PLANTED)
