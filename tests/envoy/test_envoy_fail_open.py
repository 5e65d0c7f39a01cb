"""The ways in which ext_proc lets a clear body through, on the real Envoy: that they are real, and that ours are shut.

Every upstream here answers with a planted value; the harness also looks for it in every log.
"""

# ruff: noqa: SIM117 - a gate of our own lives inside of its gateway

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from support.envoy_harness import PLANTED, Answer, Gateway, ScriptedExchange, Torn, a_gateway
from support.upstreams import Raw, an_upstream, json_answer

from gharial.adapters.envoy.ext_proc import METHOD, SERVICE
from gharial.adapters.envoy.messages import part_reply, response_head_reply
from gharial.adapters.envoy.proto import ext_proc_pb2 as pb
from gharial.gate.outcome import BodyMode, ForwardBody, ForwardHead

pytestmark = pytest.mark.envoy

CLEAR = json_answer(f'{{"name":"{PLANTED}"}}', f"x-clear: {PLANTED}", f"set-cookie: a={PLANTED}")

PROTECTED_ONLY = frozenset({BodyMode.BUFFERED})

Handler = Callable[[Any, Any], Awaitable[None]]


@contextlib.asynccontextmanager
async def a_foreign_gate(gateway: Gateway, handler: Handler) -> AsyncIterator[None]:
    """Serve the gate's socket with a handler that is not ours."""
    gateway.gate_socket.parent.mkdir(mode=0o700)
    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))
    server.add_insecure_port(f"unix:{gateway.gate_socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


def go_on(kind: str) -> bytes:
    reply = pb.ProcessingResponse()
    getattr(reply, kind).response.SetInParent()
    return reply.SerializeToString()


def shows(answer: Answer) -> bool:
    return PLANTED in repr(answer)


async def returns_at_once(_: Any, context: Any) -> None:
    await context.read()


async def returns_after_the_request(_: Any, context: Any) -> None:
    await context.read()
    await context.write(go_on("request_headers"))


async def returns_after_the_response_head(_: Any, context: Any) -> None:
    await returns_after_the_request(_, context)
    await context.read()
    await context.write(go_on("response_headers"))


@pytest.mark.parametrize(
    "handler", [returns_at_once, returns_after_the_request, returns_after_the_response_head], ids=lambda h: h.__name__
)
async def test_a_handler_that_returns_early_is_a_real_danger(handler):
    """With a careless gate the clear body passes with 200, although `failure_mode_allow` is false."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, serve_gate=False) as gateway:
        async with a_foreign_gate(gateway, handler):
            answer = await gateway.get()
    assert answer.status == 200
    assert shows(answer)


def boom(*_: Any) -> None:
    raise ValueError(f"the payload was {PLANTED}")


@pytest.mark.parametrize("where", ["request", "response", "body"])
async def test_our_handler_does_not_return_early_whatever_the_exchange_does(where):
    """A bug in any call ends as a 500 without a byte, header or cookie of the upstream, and its text is in no log."""
    async with (
        an_upstream(CLEAR) as upstream,
        a_gateway(upstream.url, lambda: ScriptedExchange(**{where: boom})) as gateway,
    ):
        answer = await gateway.get()
        assert (answer.status, answer.code) == (500, "internal")
        assert not shows(answer)
        assert gateway.log == [("gate.crashed", {"error": "ValueError"})]
        assert bool(upstream.seen) == (where != "request")


async def test_an_exception_s_text_is_a_real_danger_and_ours_are_silent():
    """grpc hands an exception's text to its peer: a careless gate shows that; the test above, that ours does not."""
    heard: list[str] = []

    async def careless(_: Any, context: Any) -> None:
        await context.read()
        raise ValueError("text of the exception")

    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, serve_gate=False) as gateway:
        async with a_foreign_gate(gateway, careless), grpc.aio.insecure_channel(f"unix:{gateway.gate_socket}") as peer:
            call = peer.stream_stream(f"/{SERVICE}/{METHOD}")()
            await call.write(b"")
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call.read()
            heard.append(str(await call.details()))
            answer = await gateway.get()
    assert "text of the exception" in heard[0]
    assert (answer.status, answer.code) == (503, "gate.unavailable")


def body_mode(mode: str) -> dict[str, Callable[[dict[str, Any]], None]]:
    """Edit Envoy's configuration: this response body mode everywhere, as a company's own Envoy might be set up."""

    def set_mode(processing: dict[str, Any]) -> None:
        processing["response_body_mode"] = mode
        processing["response_trailer_mode"] = "SEND" if mode == "FULL_DUPLEX_STREAMED" else "SKIP"

    def change(config: dict[str, Any]) -> None:
        manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        set_mode(manager["http_filters"][0]["typed_config"]["processing_mode"])

    def change_routes(table: dict[str, Any]) -> None:
        for route in table["virtual_hosts"][0]["routes"][:-1]:
            set_mode(route["typed_per_filter_config"]["gate"]["overrides"]["processing_mode"])

    return {"change": change, "change_routes": change_routes}


@pytest.mark.parametrize("mode", ["NONE", "STREAMED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED", "GRPC"])
async def test_a_protected_route_in_another_mode_is_refused_before_the_upstream_is_asked(mode):
    """Envoy announces a mode in which the body would pass unseen; not even the request goes on."""
    async with (
        an_upstream(CLEAR) as upstream,
        a_gateway(upstream.url, lambda: ScriptedExchange(expects=PROTECTED_ONLY), **body_mode(mode)) as gateway,
    ):
        answer = await gateway.get()
        assert (answer.status, answer.code) == (500, "gate.protocol")
        assert upstream.seen == []


async def test_observability_mode_is_never_taken_for_protection():
    """Envoy does not wait for answers then, so no gate can stop it; ours counts it and makes no exchange."""

    def observe(config: dict[str, Any]) -> None:
        manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        manager["http_filters"][0]["typed_config"]["observability_mode"] = True

    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, change=observe) as gateway:
        await gateway.get("/pass")
        assert gateway.server is not None
        async with asyncio.timeout(5):
            while not gateway.server.counters.refused_protocol:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert gateway.exchanges == []


async def test_the_wrong_kind_of_reply_is_a_real_danger():
    """A `streamed_response` under BUFFERED is ignored and the original passes.

    `test_each_mode_gets_its_own_kind_of_reply` shows that our gate never says it there.
    """

    async def wrong_kind(_: Any, context: Any) -> None:
        await context.read()
        await context.write(go_on("request_headers"))
        await context.read()
        await context.write(response_head_reply(ForwardHead(), drop_length=True))
        await context.read()
        await context.write(part_reply(b"***", end=True))
        await context.read()

    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, serve_gate=False) as gateway:
        async with a_foreign_gate(gateway, wrong_kind):
            answer = await gateway.get()
    assert shows(answer)


@pytest.mark.parametrize("allowed", [False, True], ids=["as generated", "as others might"])
async def test_an_override_of_the_mode_changes_nothing(allowed):
    """A gate that asks for NONE halfway does not get it; where `allow_mode_override` is set, the clear body passes."""
    asked: list[str] = []

    def change(config: dict[str, Any]) -> None:
        manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        ext_proc = manager["http_filters"][0]["typed_config"]
        assert ext_proc["allow_mode_override"] is False
        ext_proc["allow_mode_override"] = allowed

    async def overrides(_: Any, context: Any) -> None:
        await context.read()
        await context.write(go_on("request_headers"))
        await context.read()
        # mode_override (9) {}: response_body_mode is NONE by default
        await context.write(go_on("response_headers") + b"\x4a\x00")
        raw = await context.read()
        if raw is not grpc.aio.EOF:
            asked.append(str(pb.ProcessingRequest.FromString(raw).WhichOneof("request")))
            await context.abort(grpc.StatusCode.INTERNAL, "no")

    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, serve_gate=False, change=change) as gateway:
        async with a_foreign_gate(gateway, overrides):
            answer = await gateway.get()
    assert asked == ([] if allowed else ["response_body"])
    assert answer.status == (200 if allowed else 503)
    assert shows(answer) == allowed


async def test_an_emptied_body_is_empty():
    """`ForwardBody(b"")` sends nothing, instead of meaning "no change"."""
    async with (
        an_upstream(CLEAR) as upstream,
        a_gateway(upstream.url, lambda: ScriptedExchange(body=lambda _: ForwardBody(b""))) as gateway,
    ):
        answer = await gateway.get()
    assert (answer.status, answer.body) == (200, b"")


async def test_the_gate_is_asked_on_every_route_that_reaches_an_upstream():
    """The filter is off where there is no route; whatever has one goes through the gate, on every method and shape."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url) as gateway:
        calls = [("GET", "/protected/1"), ("POST", "/protected/1"), ("HEAD", "/protected/1"), ("GET", "/shadow")]
        for method, target in [*calls, ("DELETE", "/pass"), ("GET", "/protected/2?x=/pass")]:
            await gateway.get(target, method=method, body=b"{}" if method == "POST" else b"")
        for method, target in [("GET", "/"), ("GET", "/passage"), ("DELETE", "/protected/1"), ("GET", "/protected/")]:
            answer = await gateway.get(target, method=method)
            assert (answer.status, answer.code) == (404, "route.none")
        assert len(upstream.seen) == len(gateway.exchanges) == 6
        names = [exchange.named("request")[0].proxy_route for exchange in gateway.exchanges]
        assert names == ["protected", "protected", "protected", "shadow", "pass", "protected"]


async def test_a_bug_in_the_middle_tears_a_streamed_answer():
    """Under STREAMED the head has left already; the client sees a torn connection, not a short but whole answer."""
    seen_first = asyncio.Event()

    def chunk(_: bytes, end: bool) -> None:
        if seen_first.is_set():
            boom()
        seen_first.set()

    async def rest() -> bytes:
        await seen_first.wait()
        return b"6\r\nsecond\r\n0\r\n\r\n"

    first = Raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n", then=rest)
    async with (
        an_upstream(first) as upstream,
        a_gateway(upstream.url, lambda: ScriptedExchange(chunk=chunk)) as gateway,
    ):
        with pytest.raises(Torn):
            await gateway.get("/shadow")
        await gateway.all_ended()
        assert gateway.exchanges[0].named("end") == [False]
