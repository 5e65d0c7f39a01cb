"""What WSGI alone has: `write`, `exc_info`, mounts, sockets in the environ, the server's `close`; and Flask."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.apps import WsgiSite, validated
from support.embedded import audit_of, write_home
from support.gateway import MARK, PLANTED, POLICY, customer, customer_id

import gharial

ONE = f"/customers/{customer_id(1)}"
RECORD = json.dumps(customer(1)).encode()
JSON = [("Content-Type", "application/json")]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[WsgiSite]:
    with gharial.load(write_home(tmp_path)) as gate:
        yield WsgiSite(gate)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[WsgiSite]:
    shadow = POLICY.replace("mode: enforce", "mode: shadow")
    with gharial.load(write_home(tmp_path / "shadow", shadow)) as gate:
        yield WsgiSite(gate)


def shows(data: object) -> bool:
    return any(needle in repr(data).encode() for needle in PLANTED)


async def test_write_is_judged_like_what_is_returned(site: WsgiSite, watched: WsgiSite):
    """The old way to send a body is no way round: enforced it is collected, in shadow it passes."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", JSON)
        write(RECORD[:20])
        write(RECORD[20:])
        return []

    got = await site.ask_app(app, ONE)
    assert got.json["plan"] == "magenta"
    assert not shows(got)
    passing = await watched.ask_app(app, ONE)
    assert passing.json == customer(1)


async def test_an_answer_may_be_taken_back_before_its_body(site: WsgiSite):
    """With `exc_info` the newest head counts; after the body began, the app's exception ends it as a 500."""

    def early(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", JSON)
        try:
            raise ValueError(MARK)
        except ValueError:
            start_response("503 Busy", JSON, sys.exc_info())
        return [b"{}"]

    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", JSON)
        yield RECORD[:10]
        try:
            raise ValueError(MARK)
        except ValueError:
            start_response("503 Busy", JSON, sys.exc_info())
        yield RECORD

    def twice(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", JSON)
        start_response("200 OK", JSON)
        return [RECORD]

    def never(environ: Any, start_response: Any) -> list[bytes]:
        return [RECORD]

    assert (await site.ask_app(early, ONE)).status == 503
    for app in (late, twice, never):
        got = await site.ask_app(app, ONE)
        assert (got.status, got.body) == (500, b"")
        assert MARK not in site.errors.getvalue()


class Closing:
    """An answer that tells whether it was closed."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("path", [ONE, "/open/x", "/customers"])
async def test_the_apps_answer_is_closed_once(site: WsgiSite, path: str):
    """However it ends: whole, passing, or refused in the middle."""
    answer = Closing(RECORD, b"x" * 17_000_000 if path == "/customers" else b"", b"")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", JSON)
        return answer

    await site.ask_app(app, path)
    assert answer.closed == 1


async def test_both_sides_speak_as_pep_3333_says(site: WsgiSite, tmp_path: Path):
    """wsgiref's validator finds nothing wrong with what the app gets, and with what the server gets."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read(5)
        start_response("200 OK", JSON)
        return [RECORD]

    middleware = validated(gharial.GharialWsgiMiddleware(validated(app), site.gate))
    for path in (ONE, "/open/x", "/nowhere"):
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "x",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        heads: list[str] = []

        def start_response(status: str, headers: Any, exc_info: Any = None, heads: list[str] = heads) -> Any:
            heads.append(status)
            return lambda _: None

        answer = middleware(environ, start_response)
        list(answer)
        answer.close()
        assert heads[0][:3] == {ONE: "200", "/open/x": "200", "/nowhere": "404"}[path]


def ask_bare(site: WsgiSite, app: Any, **environ: Any) -> tuple[str, bytes]:
    """Ask with an environ of one's own; return status and body."""
    heads: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        heads.append(status)
        return lambda _: None

    whole = {"REQUEST_METHOD": "GET", "QUERY_STRING": "", "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO()}
    answer = gharial.GharialWsgiMiddleware(app, site.gate)({**whole, **environ}, start_response)
    body = b"".join(answer)
    close = getattr(answer, "close", None)
    if close is not None:
        close()
    return heads[-1], body


async def test_a_mounted_app_is_judged_by_its_whole_path(site: WsgiSite):
    """SCRIPT_NAME is a part of the path, and stays what it was for the app."""
    seen: list[tuple[str, str]] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append((environ["SCRIPT_NAME"], environ["PATH_INFO"]))
        start_response("200 OK", JSON)
        return [RECORD]

    status, body = ask_bare(site, app, SCRIPT_NAME="/customers", PATH_INFO=f"/{customer_id(1)}")
    assert status == "200 OK"
    assert not shows(body)
    assert seen == [("/customers", f"/{customer_id(1)}")]
    assert ask_bare(site, app, SCRIPT_NAME="//customers", PATH_INFO="/x")[0][:3] == "400"


async def test_the_connection_itself_is_not_handed_on(site: WsgiSite):
    """Some servers put their socket into the environ: on a covered route it would be a way past everything."""
    seen: list[set[str]] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append({name for name in environ if name.endswith(".socket") or name == "wsgi.file_wrapper"})
        start_response("200 OK", JSON)
        return [b"{}"]

    sockets = {"gunicorn.socket": object(), "werkzeug.socket": object(), "wsgi.file_wrapper": object()}
    for path in (ONE, "/open/x"):
        ask_bare(site, app, PATH_INFO=path, **sockets)
    assert seen == [set(), set(sockets)]


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"CONTENT_LENGTH": "10", "wsgi.input": io.BytesIO(b"{}")}, "400"),
        ({"CONTENT_LENGTH": "+2", "wsgi.input": io.BytesIO(b"{}")}, "400"),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": io.BytesIO(b"{}")}, "400"),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": io.BytesIO(b"{}"), "wsgi.input_terminated": True}, "200"),
        ({"CONTENT_LENGTH": "2", "wsgi.input": io.BytesIO(b"{}{}")}, "200"),
        ({"PATH_INFO": "/customers/\xff"}, "400"),
    ],
)
async def test_a_request_whose_body_cannot_be_told_is_refused(site: WsgiSite, environ: dict[str, Any], status: str):
    """Cut off, of a length that is none, or without an end: the app would read what nobody judged."""
    bodies: list[bytes] = []

    def app(given: Any, start_response: Any) -> list[bytes]:
        bodies.append(given["wsgi.input"].read(int(given["CONTENT_LENGTH"])))
        start_response("200 OK", JSON)
        return [b"{}"]

    found = {"REQUEST_METHOD": "POST", "PATH_INFO": ONE, "CONTENT_TYPE": "application/json", **environ}
    assert ask_bare(site, app, **found)[0][:3] == status
    assert bodies == ([b"{}"] if status == "200" else [])


async def test_a_server_that_stops_in_the_middle_is_written_down(watched: WsgiSite, tmp_path: Path):
    """A passing answer that is closed early ends as abandoned."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", JSON)
        yield RECORD[:10]
        yield RECORD[10:]

    answer = gharial.GharialWsgiMiddleware(app, watched.gate)(
        {"REQUEST_METHOD": "GET", "PATH_INFO": ONE, "wsgi.input": io.BytesIO()}, lambda *_: lambda _: None
    )
    next(iter(answer))
    answer.close()  # type: ignore[attr-defined]
    watched.gate.close()
    assert [line["outcome"] for line in audit_of(tmp_path / "shadow")] == ["abandoned"]


@pytest.mark.skipif(
    importlib.util.find_spec("flask") is None, reason="Flask is not installed: uv sync --group services"
)
async def test_flask_behind_it(site: WsgiSite):
    """Records, streams, files and debug pages of a Flask app: rewritten or withheld."""
    import flask

    app = flask.Flask("site")

    @app.get("/customers/<customer_id>")
    def one(customer_id: str) -> Any:
        return flask.jsonify({**customer(1), "asked": customer_id})

    @app.get("/customers")
    def streamed() -> Any:
        rows = (json.dumps(customer(n)) + ("," if n < 4 else "]") for n in range(5))
        return flask.Response((piece for piece in ("[", *rows)), mimetype="application/json")

    @app.get("/any/file")
    def file() -> Any:
        return flask.send_file(io.BytesIO(RECORD), mimetype="application/json")

    @app.get("/any/broken")
    def broken() -> Any:
        raise ValueError(MARK)

    for debug in (False, True):
        app.debug = debug
        for path, status in (
            (ONE, 200),
            ("/customers", 200),
            ("/any/file", 200),
            ("/any/broken", 500),
            ("/any/x", 404),
        ):
            got = await site.ask_app(app, path)
            assert got.status == status, path
            assert not shows(got), path
    assert (await site.ask_app(app, ONE)).json["plan"] == "magenta"
    assert len((await site.ask_app(app, "/customers")).json) == 5
