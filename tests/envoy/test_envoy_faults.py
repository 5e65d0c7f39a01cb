"""What clients get when a part is dead, hangs or is full, or too much comes; the real Envoy, planted values."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.envoy_harness import PLANTED, Answer, Gateway, ScriptedExchange, a_gateway, mask
from support.upstreams import Raw, an_upstream, answer, chunked, json_answer

from gharial.gate.outcome import ForwardBody, Refuse, ResponseHead
from gharial.model.errors import BodyTooLarge, UpstreamTimeout

pytestmark = pytest.mark.envoy

CLEAR = json_answer(f'{{"name":"{PLANTED}"}}', f"x-clear: {PLANTED}")


def is_refusal(reply: Answer, status: int, code: str) -> bool:
    """A problem document of this kind, without a byte or header of the upstream, and without Envoy's own words."""
    text = repr(reply).lower()
    words = ("envoy", "upstream_", "grpc", "ext_proc", "127.0.0.1", "gharial_gate", "/tmp")
    return (reply.status, reply.code) == (status, code) and not any(w in text for w in (PLANTED.lower(), *words))


async def test_a_dead_gate_is_503_and_nothing_reaches_the_upstream():
    """Nobody serves the gate's socket: every route answers 503, `pass` and `shadow` too."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, serve_gate=False) as gateway:
        for target in ("/protected/1", "/shadow", "/pass"):
            assert is_refusal(await gateway.get(target), 503, "gate.unavailable"), target
        assert upstream.seen == []


@pytest.mark.parametrize("where", ["request", "response", "body"])
async def test_a_hanging_gate_is_503(where):
    """Whatever message it does not answer, Envoy's patience ends, and the exchange is told its end."""

    async def hang(_: Any) -> None:
        await asyncio.Event().wait()

    async with (
        an_upstream(CLEAR) as upstream,
        a_gateway(upstream.url, lambda: ScriptedExchange(**{where: hang}), message_timeout_s=0.3) as gateway,
    ):
        assert is_refusal(await gateway.get(), 503, "gate.unavailable")
        await gateway.all_ended()
        assert gateway.exchanges[0].named("end") == [False]


async def test_a_gate_killed_in_the_middle_of_a_body_is_503(tmp_path):
    """kill -9 while it holds a clear body: the client gets none of it; a new gate on the same socket serves again."""
    script = tmp_path / "gate.py"
    script.write_text(
        textwrap.dedent("""
            import asyncio, sys
            from pathlib import Path
            from gharial.adapters.envoy.ext_proc import serve
            from support.envoy_harness import ScriptedExchange

            async def hold(_):
                print("holding", flush=True)
                await asyncio.Event().wait()

            async def main():
                make = lambda: ScriptedExchange(body=hold if sys.argv[2] == "hold" else None)
                server = await serve(Path(sys.argv[1]), make, in_flight=8, body_bytes=100_000, log=print)
                print("serving", flush=True)
                await asyncio.Event().wait()
                await server.stop(0)

            asyncio.run(main())
        """)
    )

    async def start(socket_path: Path, how: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            str(socket_path),
            how,
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": str(Path(__file__).parents[1])},
        )
        await says(process, b"serving\n")
        return process

    async def says(process: asyncio.subprocess.Process, line: bytes) -> None:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 10) == line

    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, serve_gate=False) as gateway:
        process = await start(gateway.gate_socket, "hold")
        call = asyncio.create_task(gateway.get())
        await says(process, b"holding\n")
        process.kill()
        await process.wait()
        assert is_refusal(await call, 503, "gate.unavailable")
        process = await start(gateway.gate_socket, "mask")
        try:
            reply = await _until_ok(gateway)
            assert reply.body == b'{"name":"*"}'
        finally:
            process.kill()
            await process.wait()


async def _until_ok(gateway: Gateway) -> Answer:
    """Ask until Envoy has connected to the new gate; every answer on the way is a refusal."""
    async with asyncio.timeout(15):
        while (reply := await gateway.get()).status != 200:
            assert is_refusal(reply, 503, "gate.unavailable")
            await asyncio.sleep(0.05)
        return reply


async def test_a_full_gate_is_503_at_once():
    """Beyond `in_flight` calls get their refusal without waiting, and those under way are served."""
    free = asyncio.Event()

    async def wait(body: bytes) -> ForwardBody:
        await free.wait()
        return ForwardBody(mask(body))

    async with (
        an_upstream(CLEAR) as upstream,
        a_gateway(upstream.url, lambda: ScriptedExchange(body=wait), limits={"in_flight": 3}) as gateway,
    ):
        held = [asyncio.create_task(gateway.get()) for _ in range(3)]
        assert gateway.server is not None
        async with asyncio.timeout(5):
            while gateway.server.counters.under_way < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for reply in await asyncio.gather(*(gateway.get() for _ in range(10))):
            assert is_refusal(reply, 503, "gate.full")
        free.set()
        assert [reply.body for reply in await asyncio.gather(*held)] == [b'{"name":"*"}'] * 3
        assert gateway.server.counters.refused_full == 10
        assert len(upstream.seen) == 3


async def test_envoy_itself_stops_asking_a_gate_that_hangs():
    """More calls than the gate could refuse don't pile up behind it: the circuit breaker answers them."""

    async def hang(_: Any) -> None:
        await asyncio.Event().wait()

    async with (
        an_upstream(CLEAR) as upstream,
        a_gateway(
            upstream.url,
            lambda: ScriptedExchange(request=hang),
            limits={"in_flight": 5},
            message_timeout_s=1.0,
            change=lambda config: _breaker(config, 5),
        ) as gateway,
    ):
        replies = await asyncio.gather(*(gateway.get() for _ in range(20)))
        assert all(is_refusal(reply, 503, "gate.unavailable") for reply in replies)
        assert len(gateway.exchanges) == 5


def _breaker(config: dict[str, Any], most: int) -> None:
    for threshold in config["static_resources"]["clusters"][0]["circuit_breakers"]["thresholds"]:
        assert threshold["max_requests"] > most
        threshold["max_requests"] = most


@pytest.mark.parametrize("make", [lambda b: answer(body=b), lambda b: chunked([b])], ids=["length", "chunked"])
async def test_the_gate_decides_about_the_byte_too_many(make):
    """At the limit and one byte above the gate has the whole body; far above it dies in Envoy, as the same refusal."""
    limit = 50_000

    def decide(body: bytes) -> ForwardBody | Refuse:
        return ForwardBody(mask(body)) if len(body) <= limit else Refuse(BodyTooLarge())

    sizes = {"/protected/at": limit, "/protected/above": limit + 1, "/protected/far": 40 * limit}
    async with (
        an_upstream(lambda seen: make(PLANTED.encode().ljust(sizes[seen.target], b"x"))) as upstream,
        a_gateway(upstream.url, lambda: ScriptedExchange(body=decide), limits={"body": limit}) as gateway,
    ):
        reply = await gateway.get("/protected/at")
        assert (reply.status, reply.body[:2]) == (200, b"*x")
        assert is_refusal(await gateway.get("/protected/above"), 502, "body.too_large")
        assert is_refusal(await gateway.get("/protected/far"), 502, "body.too_large")
        assert [len(exchange.named("body")) for exchange in gateway.exchanges] == [1, 1, 0]


async def test_an_answer_may_grow_beyond_the_limit():
    """Tokens are longer than what they stand for: up to four times the limit for what comes in goes out."""
    big = b"y" * 400_000
    async with (
        an_upstream(CLEAR) as upstream,
        a_gateway(
            upstream.url, lambda: ScriptedExchange(body=lambda _: ForwardBody(big)), limits={"body": 100_000}
        ) as gateway,
    ):
        reply = await gateway.get()
        assert reply.one("content-length") == "400000"
        assert reply.body == big


async def test_a_message_larger_than_the_gate_takes_is_503():
    """Were Envoy to buffer more than the gate reads (its own limits edited), the stream fails, and nothing passes."""

    def more(config: dict[str, Any]) -> None:
        for part in [*config["static_resources"]["listeners"], *config["static_resources"]["clusters"]]:
            part["per_connection_buffer_limit_bytes"] = 10_000_000

    async with (
        an_upstream(answer(body=PLANTED.encode().ljust(5_000_000))) as upstream,
        a_gateway(upstream.url, limits={"body": 1000}, change=more) as gateway,
    ):
        assert is_refusal(await gateway.get(), 503, "gate.unavailable")


def by_detail(head: ResponseHead) -> Refuse:
    """What a gate makes of an answer that is not the upstream's."""
    assert not head.from_upstream
    return Refuse(UpstreamTimeout())


async def test_a_dead_upstream_is_told_to_the_gate_as_not_from_the_upstream():
    """Envoy's own answer passes the gate too; it carries the reason, and the gate's refusal takes its place."""
    async with an_upstream(CLEAR) as upstream:
        url = upstream.url
    async with a_gateway(url, lambda: ScriptedExchange(response=by_detail)) as gateway:
        for target in ("/protected/1", "/shadow", "/pass"):
            assert is_refusal(await gateway.get(target), 504, "upstream.timeout")
        for exchange in gateway.exchanges:
            (head,) = exchange.named("response")
            assert head.proxy_detail.startswith("upstream_reset_before_response_started")


async def test_a_hanging_upstream_is_told_to_the_gate_as_a_timeout():
    """The route's timeout ends the wait."""
    async with (
        an_upstream(Raw(b"", then_hang=True)) as upstream,
        a_gateway(upstream.url, lambda: ScriptedExchange(response=by_detail), upstream_timeout="200ms") as gateway,
    ):
        assert is_refusal(await gateway.get(), 504, "upstream.timeout")
        assert gateway.exchanges[0].named("response")[0].proxy_detail == "response_timeout"


HEAD = f"HTTP/1.1 200 OK\r\nx-clear: {PLANTED}\r\ncontent-length: 1000\r\n\r\n{PLANTED}".encode()

BAD_CHUNK = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (Raw(HEAD, then_close=True), 502, "upstream.unreachable"),
        (Raw(HEAD, then_hang=True), 504, "upstream.timeout"),
        (Raw(PLANTED.encode() + b"\r\n\r\n", then_close=True), 502, "upstream.unreachable"),
        (Raw(b"", then_close=True), 502, "upstream.unreachable"),
        (json_answer("{}", f"x: {PLANTED}{'a' * 40_000}"), 502, "upstream.unreachable"),
        (
            Raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", then_close=True),
            502,
            "upstream.unreachable",
        ),
    ],
    ids=["cut off", "stops", "garbage", "closes", "head too large", "bad chunk"],
)
async def test_half_an_answer_is_no_answer(raw, status, code):
    """Whatever the upstream breaks off, the client gets a whole refusal and nothing of what had come."""
    async with an_upstream(raw) as upstream, a_gateway(upstream.url, upstream_timeout="300ms") as gateway:
        assert is_refusal(await gateway.get(), status, code)
        await gateway.all_ended()


async def test_a_client_that_goes_away_is_the_end_of_the_exchange():
    """While the upstream is still thinking; nothing stays behind in the gate."""
    async with (
        an_upstream(Raw(b"", then_hang=True)) as upstream,
        a_gateway(upstream.url) as gateway,
    ):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /protected/1 HTTP/1.1\r\nhost: a\r\n\r\n")
        async with asyncio.timeout(5):
            while not upstream.seen:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        writer.close()
        await gateway.all_ended()
        assert gateway.exchanges[0].named("end") == [False]
