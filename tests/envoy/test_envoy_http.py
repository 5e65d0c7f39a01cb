"""HTTP as clients and upstreams speak it, through the real Envoy: shapes of answers, tricks with requests."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from support.envoy_harness import PLANTED, EnvoyRoute, ScriptedExchange, a_gateway, mask, parse_answer
from support.upstreams import Raw, SeenRequest, an_upstream, answer, chunked, json_answer

from gharial.gate.outcome import ForwardBody, ForwardHead, ForwardRequest, Refuse, RequestHead
from gharial.gate.routes import RouteKind
from gharial.model.errors import UnknownCredential

pytestmark = pytest.mark.envoy

NAME = f'{{"name":"{PLANTED}"}}'
CLEAR = json_answer(NAME)


async def curl(*arguments: str) -> tuple[int, str]:
    """Run curl and return its exit code and what it wrote; it is strict about lengths, framing and HTTP/2."""
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--show-error", "--max-time", "10", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode("latin-1")


BODIES = {"short": b"*", "long": b"x" * 3_000_000, "none": b""}


async def test_curl_is_content_with_http_1():
    """Bodies shorter and longer than the original, empty ones and HEAD, on one connection: nothing is malformed."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, _by_target(BODIES)) as gateway:
        base = f"http://127.0.0.1:{gateway.port}/protected/"
        urls = [part for name in BODIES for part in ("-o", "/dev/null", base + name)]
        code, out = await curl("-w", "%{http_code} %{http_version} %{size_download} %{num_connects}\n", *urls)
        assert code == 0
        assert out.splitlines() == ["200 1.1 1 1", "200 1.1 3000000 0", "200 1.1 0 0"]
        code, out = await curl("-I", base + "short")
        assert code == 0
        assert f"content-length: {len(NAME)}" not in out.lower()


@pytest.mark.parametrize("name", BODIES)
async def test_curl_is_content_with_http_2(name):
    """The same over HTTP/2 without TLS, where a wrong length is an error of the protocol."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, _by_target(BODIES)) as gateway:
        url = f"http://127.0.0.1:{gateway.port}/protected/{name}"
        h2 = ("--http2-prior-knowledge", "-w", "%{http_code} %{http_version} %{size_download}")
        assert await curl(*h2, "-o", "/dev/null", url) == (0, f"200 2 {len(BODIES[name])}")
        code, out = await curl("--http2-prior-knowledge", "-I", url)
        assert code == 0
        assert f"content-length: {len(NAME)}" not in out.lower()


def _by_target(bodies: dict[str, bytes]) -> Any:
    class ByTarget(ScriptedExchange):
        async def on_body(self, body: bytes) -> ForwardBody | Refuse:
            head: RequestHead = self.named("request")[0]
            return ForwardBody(bodies[head.target.rsplit("/", 1)[1]])

    return ByTarget


async def test_a_connection_is_used_again_after_every_kind_of_answer():
    """Protected, refused, unknown, HEAD: the next answer on the connection is the next call's."""
    async with (
        an_upstream(CLEAR) as upstream,
        a_gateway(upstream.url) as gateway,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        for target, body in [("/protected/1", b'{"name":"*"}'), ("/nope", None), ("/protected/2", b'{"name":"*"}')]:
            writer.write(f"GET {target} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            length = int(next(x for x in head.split(b"\r\n") if x.startswith(b"content-length: ")).split()[1])
            got = await reader.readexactly(length)
            assert body is None or got == body
        writer.close()


@pytest.mark.parametrize(
    ("method", "raw", "status"),
    [
        ("HEAD", answer("200 OK", b"", f"content-length: {len(NAME)}", "etag: x", length=False), 200),
        ("GET", answer("204 No Content", b"", "etag: x", length=False), 204),
        ("GET", answer("304 Not Modified", b"", f"content-length: {len(NAME)}", "etag: x", length=False), 304),
        ("GET", answer("200 OK", b"", "etag: x"), 200),
    ],
    ids=["HEAD", "204", "304", "empty"],
)
async def test_answers_without_a_body_are_decided_by_their_head(method, raw, status):
    """The exchange is told that there is none; the length of the clear body is not told to the client."""
    async with an_upstream(raw) as upstream, a_gateway(upstream.url) as gateway:
        reply = await gateway.get(method=method)
        assert (reply.status, reply.body, reply.one("etag")) == (status, b"", "x")
        assert reply.one("content-length") in (None, "0")
        await gateway.all_ended()
        (exchange,) = gateway.exchanges
        assert exchange.named("response")[0].has_body is False
        assert exchange.named("body") == []
        assert exchange.named("end") == [True]


async def test_a_refusal_of_a_head_request_has_no_body():
    """HEAD gets status and headers of the refusal, and not a byte more."""
    refuse = Refuse(UnknownCredential(), "ex-1", (("www-authenticate", 'Bearer realm="x"'),))
    async with (
        an_upstream(CLEAR) as upstream,
        a_gateway(upstream.url, lambda: ScriptedExchange(request=lambda _: refuse)) as gateway,
    ):
        reply = await gateway.get(method="HEAD")
        assert (reply.status, reply.one("www-authenticate")) == (401, 'Bearer realm="x"')
        assert (await gateway.get()).problem()["exchange"] == "ex-1"
        assert upstream.seen == []


async def test_chunked_answers_arrive_whole_and_leave_with_a_length():
    """A value cut in two by chunks is still found, because the body is one."""
    half = len(PLANTED) // 2
    raw = chunked(
        [b'{"a":"', PLANTED[:half].encode(), PLANTED[half:].encode(), b'"}'], "content-type: application/json"
    )
    async with an_upstream(raw) as upstream, a_gateway(upstream.url) as gateway:
        reply = await gateway.get()
        assert (reply.body, reply.one("content-length")) == (b'{"a":"*"}', "9")


async def test_a_body_without_length_ends_with_the_connection():
    """HTTP/1.0 style upstreams too are read to their end before anything leaves."""
    raw = Raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + NAME.encode(), then_close=True)
    async with an_upstream(raw) as upstream, a_gateway(upstream.url) as gateway:
        assert (await gateway.get()).body == b'{"name":"*"}'


async def test_codings_are_left_to_the_exchange():
    """Envoy does not undo gzip; the exchange gets the bytes as they came, and may change the coding's header."""
    packed = gzip.compress(NAME.encode())

    def unpack(body: bytes) -> ForwardBody:
        return ForwardBody(mask(gzip.decompress(body)))

    async with (
        an_upstream(answer("200 OK", packed, "content-encoding: gzip")) as upstream,
        a_gateway(
            upstream.url,
            lambda: ScriptedExchange(
                request=lambda _: ForwardRequest(set_headers=(("accept-encoding", "gzip"),)),
                response=lambda _: ForwardHead(remove_headers=("content-encoding",)),
                body=unpack,
            ),
        ) as gateway,
    ):
        reply = await gateway.get("/protected/1", "accept-encoding: br, zstd")
        assert (reply.body, reply.one("content-encoding")) == (b'{"name":"*"}', None)
        assert gateway.exchanges[0].named("body") == [packed]
        assert upstream.seen[0].all("accept-encoding") == ["gzip"]


async def test_trailers_of_the_upstream_do_not_pass():
    """Nobody would have looked at them; on no kind of route."""
    raw = chunked([NAME.encode()], "trailer: x-secret", trailers=(f"x-secret: {PLANTED}",))
    async with an_upstream(raw) as upstream, a_gateway(upstream.url) as gateway:
        for target in ("/protected/1", "/shadow", "/pass"):
            text = await gateway.raw(
                f"GET {target} HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\n\r\n".encode()
            )
            assert b"x-secret:" not in text.lower(), target
            parse_answer(text)  # fails for anything behind the last chunk


async def test_informational_answers_do_not_pass():
    """103 with links and 100 are swallowed; the final answer comes."""
    early = (
        f"HTTP/1.1 103 Early Hints\r\nlink: <{PLANTED}>\r\n\r\nHTTP/1.1 100 Continue\r\nx: {PLANTED}\r\n\r\n".encode()
    )
    async with an_upstream(Raw(early + CLEAR.data)) as upstream, a_gateway(upstream.url) as gateway:
        for target in ("/protected/1", "/pass"):
            text = await gateway.raw(f"GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
            assert text.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"link:" not in text


async def test_an_upstream_cannot_switch_protocols():
    """101 is refused on every kind of route: what follows could not be read."""
    raw = Raw(
        f"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n{PLANTED}".encode(),
        then_close=True,
    )
    async with an_upstream(raw) as upstream, a_gateway(upstream.url) as gateway:
        for target in ("/protected/1", "/shadow", "/pass"):
            reply = await gateway.get(target)
            assert (reply.status, reply.code) == (500, "gate.protocol"), target
            assert PLANTED not in repr(reply)


async def test_a_redirect_may_be_rewritten_and_a_path_set():
    """`:path` goes on as the gate wrote it, without choosing the route again; `location` comes back changed."""

    def redirect(seen: SeenRequest) -> Raw:
        return answer("302 Found", b"", "location: http://inner.example/x")

    async with (
        an_upstream(redirect) as upstream,
        a_gateway(
            upstream.url,
            lambda: ScriptedExchange(
                request=lambda _: ForwardRequest(target="/pass/%2F..%20?q=%C3%A9"),
                response=lambda _: ForwardHead(set_headers=(("location", "/x"),)),
            ),
        ) as gateway,
    ):
        reply = await gateway.get()
        assert (reply.status, reply.one("location")) == (302, "/x")
        assert [seen.target for seen in upstream.seen] == ["/pass/%2F..%20?q=%C3%A9"]
        (request,) = gateway.exchanges[0].named("request")
        assert (request.proxy_route, request.target) == ("protected", "/protected/1")


async def test_a_change_that_envoy_does_not_allow_is_no_answer():
    """A header that may not be changed ends the call, instead of being left out in silence."""
    async with (
        an_upstream(CLEAR) as upstream,
        a_gateway(
            upstream.url,
            lambda: ScriptedExchange(request=lambda _: ForwardRequest(set_headers=((":method", "DELETE"),))),
        ) as gateway,
    ):
        reply = await gateway.get()
        assert reply.status in (500, 503)
        assert reply.problem()
        assert upstream.seen == []


PATHS = {
    # as sent: what the exchange and the upstream see, or None for a refusal by Envoy
    "/x/../protected/1": "/protected/1",
    "/x/%2e%2e/protected/1": "/protected/1",
    "//protected//1": "/protected/1",
    "/protected/%70": "/protected/p",
    "/./protected/1?x=/../pass": "/protected/1?x=/../pass",
    "/protected/1;v=1": "/protected/1;v=1",
    "/protected/a%2Fb": None,
    "/protected/a%5Cb": None,
    "/protected/%00": None,
    "/protected/1#fragment": None,
    "/protected/\xff": None,
}


async def test_paths_have_one_meaning():
    """What route, gate and upstream see is the same text, whatever the client's spelling; the rest gets 400."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url) as gateway:
        for sent, seen in PATHS.items():
            before = len(upstream.seen)
            reply = await gateway.get(sent)
            if seen is None:
                assert (reply.status, reply.code) == (400, "request.malformed"), sent
                assert len(upstream.seen) == before, sent
            else:
                assert (reply.status, reply.body) == (200, b'{"name":"*"}'), sent
                assert upstream.seen[-1].target == seen
                assert gateway.exchanges[-1].named("request")[0].target == seen
        assert (await gateway.get("/protected/x/../../pass")).body == NAME.encode()
        assert gateway.exchanges[-1].named("request")[0].proxy_route == "pass"


SMUGGLED = "GET /pass HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"

POST = "POST /protected/1 HTTP/1.1\r\nhost: a\r\n"

REFUSED = {
    "both lengths": (
        400,
        f"{POST}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    ),
    "two lengths": (
        400,
        f"{POST}content-length: 0\r\ncontent-length: 5\r\n\r\n{SMUGGLED}",
    ),
    "bad coding": (
        501,
        f"{POST}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    ),
    "space before colon": (400, f"{POST}content-length : 5\r\n\r\n{SMUGGLED}"),
    "underscore": (400, "GET /protected/1 HTTP/1.1\r\nhost: a\r\nx_api_key: 1\r\n\r\n"),
    "no host": (400, "GET /protected/1 HTTP/1.1\r\nx: a\r\n\r\n"),
    "old": (426, "GET /protected/1 HTTP/1.0\r\nhost: a\r\n\r\n"),
    "large head": (431, f"GET /protected/1 HTTP/1.1\r\nhost: a\r\nx: {'a' * 40_000}\r\n\r\n"),
    "not HTTP": (400, "hello\r\n\r\n"),
}


async def test_requests_that_can_be_read_in_two_ways_are_refused_with_a_problem():
    """One answer, then the connection closes; no second request is found in the first, nothing reaches the upstream."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url) as gateway:

        async def refused(name: str) -> None:
            status, raw = REFUSED[name]
            reply = parse_answer(await gateway.raw(raw.encode()))
            assert (reply.status, reply.code) in {(status, "request.malformed"), (status, "internal")}, name
            assert reply.one("connection") == "close", name

        await asyncio.gather(*(refused(name) for name in REFUSED))
        assert upstream.seen == []
        assert gateway.exchanges == []


async def test_upgrades_and_tunnels_are_refused():
    """A websocket or CONNECT would carry bytes that nobody reads."""
    upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: eA==")
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url) as gateway:
        for target in ("/protected/1", "/pass"):
            head = "\r\n".join([f"GET {target} HTTP/1.1", "host: a", *upgrade, "", ""])
            reply = await gateway.ask(head.encode())
            assert 400 <= reply.status < 500
            assert reply.problem()
        tunnel = await gateway.ask(b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n")
        assert (tunnel.status, tunnel.code) == (404, "route.none")
        assert upstream.seen == []


async def test_a_client_cannot_steer_envoy_or_the_gate():
    """Control headers are gone before anything reads them, in every spelling."""
    steering = (
        "x-envoy-upstream-rq-timeout-ms: 1",
        "X-Envoy-Max-Retries: 5",
        "x-envoy-original-path: /pass",
        "x-envoy-internal: true",
        "x-envoy-decorator-operation: x",
        "X-Gharial-Mode: off",
        "x-gharial-anything: 1",
        "x-ok: 1",
    )
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url) as gateway:
        assert (await gateway.get("/protected/1", *steering)).status == 200
        (seen,) = upstream.seen
        text = seen.text().lower()
        assert "x-envoy" not in text
        assert "x-gharial" not in text
        assert "x-request-id" not in text
        assert seen.all("x-ok") == ["1"]
        names = {name for name, _ in gateway.exchanges[0].named("request")[0].headers}
        assert not any(name.startswith(("x-gharial", "x-envoy-max", "x-envoy-original")) for name in names)
        assert seen.all("host") == [f"127.0.0.1:{upstream.port}"]


async def test_answers_name_neither_envoy_nor_the_upstream_s_server():
    """The server's name is ours; times and internals of Envoy are not told."""
    async with an_upstream(json_answer(NAME, "server: secret/1.0")) as upstream, a_gateway(upstream.url) as gateway:
        for target in ("/protected/1", "/pass", "/nope"):
            reply = await gateway.get(target)
            assert reply.all("server") == ["gharial"]
            assert "envoy" not in repr(reply.headers)


async def test_request_bodies_pass_as_they_are():
    """Lengths and chunks of requests go on; the gate does not see bodies of requests."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url) as gateway:
        await gateway.get(method="POST", body=b'{"x":1}')
        await gateway.ask(
            b"POST /protected/1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: 1\r\n\r\n"
        )
        assert [seen.body for seen in upstream.seen] == [b'{"x":1}', b"abcde"]


async def test_head_is_matched_where_get_is():
    """Also if a route is written for GET alone; other methods are not."""
    routes = [EnvoyRoute("only-get", ("GET",), "/a", "api", RouteKind.PASS)]
    async with an_upstream(answer("200 OK", b"")) as upstream, a_gateway(upstream.url, routes=routes) as gateway:
        statuses = [(await gateway.get("/a", method=method)).status for method in ("GET", "HEAD", "POST", "PUT")]
        assert statuses == [200, 200, 404, 404]


async def test_the_first_route_that_matches_wins_and_matches_the_whole_path():
    """Order is the file's order; a template is not a prefix."""
    routes = [
        EnvoyRoute("first", (), "/a/[^/]+", "api", RouteKind.PROTECT),
        EnvoyRoute("second", (), "/a/b", "api", RouteKind.PASS),
        EnvoyRoute("third", (), "/c(?:/.*)?", "api", RouteKind.PASS),
    ]
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, routes=routes) as gateway:
        chosen = {}
        for target in ("/a/b", "/a/b?c=d", "/a/b/c", "/c", "/c/d/e", "/cc"):
            before = len(gateway.exchanges)
            await gateway.get(target)
            new = gateway.exchanges[before:]
            chosen[target] = new[0].named("request")[0].proxy_route if new else None
        assert chosen == {
            "/a/b": "first",
            "/a/b?c=d": "first",
            "/a/b/c": None,
            "/c": "third",
            "/c/d/e": "third",
            "/cc": None,
        }


async def test_many_at_once_get_each_their_own_answer():
    """Two hundred calls over two connections' worth of streams; none sees another's body."""

    def echo(seen: SeenRequest) -> Raw:
        return json_answer(json.dumps({"name": PLANTED, "id": seen.target.rsplit("/", 1)[1]}))

    async with an_upstream(echo) as upstream, a_gateway(upstream.url) as gateway:
        replies = await asyncio.gather(*(gateway.get(f"/protected/{n}") for n in range(200)))
        assert [json.loads(reply.body) for reply in replies] == [{"name": "*", "id": str(n)} for n in range(200)]
        await gateway.all_ended()
        assert gateway.server is not None
        assert (gateway.server.counters.opened, gateway.server.counters.under_way) == (200, 0)
