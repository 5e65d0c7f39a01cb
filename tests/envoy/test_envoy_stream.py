"""One stream with the gate, spoken by hand: what a faulty, foreign or future Envoy might say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.envoy_harness import PLANTED, ScriptedExchange

from gharial.adapters.envoy.ext_proc import ABORTED, METHOD, SERVICE, Server, serve
from gharial.adapters.envoy.messages import VIA_UPSTREAM
from gharial.adapters.envoy.proto import ext_proc_pb2 as pb
from gharial.gate.outcome import BodyMode, ForwardBody, ForwardHead, ForwardPart, Refuse, RequestHead
from gharial.model.errors import BodyMalformed, GateUnavailable, KeyUnknown

CLEAR = PLANTED.encode()


class Talk:
    """A stream to the gate, as Envoy would hold it."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def say(self, message: pb.ProcessingRequest) -> None:
        await self.call.write(message.SerializeToString())

    async def hear(self) -> pb.ProcessingResponse:
        raw = await asyncio.wait_for(self.call.read(), 5)
        assert raw is not grpc.aio.EOF, "the gate closed the stream as if all were well"
        return pb.ProcessingResponse.FromString(raw)

    async def ask(self, message: pb.ProcessingRequest) -> pb.ProcessingResponse:
        await self.say(message)
        return await self.hear()

    async def refused(self, message: pb.ProcessingRequest) -> str:
        """Send it and return the code of the refusal that comes."""
        reply = await self.ask(message)
        assert reply.WhichOneof("response") == "immediate_response", reply
        return str(json.loads(reply.immediate_response.body)["code"])

    async def aborted(self) -> str:
        """Wait for the end of the stream and return its text; fails if it ended well."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            raw = await asyncio.wait_for(self.call.read(), 5)
            assert raw is grpc.aio.EOF, "the gate answered instead"
        assert await asyncio.wait_for(self.call.code(), 5) is grpc.StatusCode.INTERNAL
        return str(await self.call.details())

    async def ended_well(self) -> bool:
        await self.call.done_writing()
        return await asyncio.wait_for(self.call.code(), 5) is grpc.StatusCode.OK


class Gate:
    def __init__(self, server: Server, exchanges: list[ScriptedExchange], log: list[Any], channel: Any) -> None:
        self.server, self.exchanges, self.log = server, exchanges, log
        self._open = channel.stream_stream(f"/{SERVICE}/{METHOD}")

    def talk(self) -> Talk:
        return Talk(self._open())

    async def ends(self) -> list[bool]:
        """Wait until every exchange was told its end; return what each was told."""
        async with asyncio.timeout(5):
            while self.server.counters.under_way:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return [end for exchange in self.exchanges for end in exchange.named("end")]


@contextlib.asynccontextmanager
async def a_gate(*, in_flight: int = 8, body_bytes: int = 100_000, **script: Any) -> AsyncIterator[Gate]:
    """A gate alone, whose exchanges are scripted; at the end no log holds the planted value, nor a traceback."""
    folder = Path(tempfile.mkdtemp(prefix="gh", dir="/tmp"))
    exchanges: list[ScriptedExchange] = []
    log: list[Any] = []
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter().format(record))

    def make() -> ScriptedExchange:
        exchanges.append(ScriptedExchange(**script))
        return exchanges[-1]

    handler = Collect()
    logging.getLogger().addHandler(handler)
    server = await serve(
        folder / "gate" / "s",
        make,
        in_flight=in_flight,
        body_bytes=body_bytes,
        log=lambda event, /, **facts: log.append((event, facts)),
    )
    try:
        async with grpc.aio.insecure_channel(f"unix:{server.socket_path}") as channel:
            yield Gate(server, exchanges, log, channel)
    finally:
        await server.stop(0)
        logging.getLogger().removeHandler(handler)
        shutil.rmtree(folder)
        assert lines == []
        assert PLANTED not in repr(log)


def headers(**values: str) -> pb.HeaderMap:
    names = {"method": ":method", "path": ":path", "authority": ":authority", "scheme": ":scheme", "status": ":status"}
    return pb.HeaderMap(
        headers=[pb.HeaderValue(key=names.get(key, key), raw_value=value.encode()) for key, value in values.items()]
    )


def request(mode: int = pb.BUFFERED, **change: Any) -> pb.ProcessingRequest:
    head = headers(method="GET", path="/protected/1", authority="a", scheme="http")
    message = pb.ProcessingRequest(
        request_headers=pb.HttpHeaders(headers=head),
        protocol_config=pb.ProtocolConfiguration(request_body_mode=pb.NONE, response_body_mode=mode),
    )
    for key, value in change.items():
        if value is None:
            message.ClearField(key)
        elif isinstance(value, bool):
            setattr(message, key, value)
        else:
            getattr(message, key).CopyFrom(value)
    return message


def response(status: str = "200", details: str = VIA_UPSTREAM, *, end: bool = False) -> pb.ProcessingRequest:
    message = pb.ProcessingRequest(
        response_headers=pb.HttpHeaders(headers=headers(status=status), end_of_stream=end),
    )
    if details:
        message.attributes["envoy.filters.http.ext_proc"].fields["response.code_details"].string_value = details
    return message


def body(data: bytes = CLEAR, *, end: bool = True) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(response_body=pb.HttpBody(body=data, end_of_stream=end))


async def test_a_whole_exchange():
    """Head, head, body: three questions, three answers, one end."""
    async with a_gate() as gate:
        talk = gate.talk()
        assert (await talk.ask(request())).WhichOneof("response") == "request_headers"
        assert (await talk.ask(response())).WhichOneof("response") == "response_headers"
        assert (await talk.ask(body())).response_body.response.body_mutation.body == b"*"
        assert await talk.ended_well()
        assert await gate.ends() == [True]


def posted() -> pb.ProcessingRequest:
    both = pb.ProtocolConfiguration(request_body_mode=pb.BUFFERED, response_body_mode=pb.BUFFERED)
    return request(protocol_config=both)


def request_body(data: bytes = CLEAR, *, end: bool = True) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=data, end_of_stream=end))


async def test_a_request_with_its_body():
    """Its length goes with the head and comes back, right, with the body that the exchange names."""
    async with a_gate(request_body=lambda _: ForwardBody(b"resolved")) as gate:
        talk = gate.talk()
        head = await talk.ask(posted())
        assert list(head.request_headers.response.header_mutation.remove_headers) == ["content-length"]
        reply = (await talk.ask(request_body())).request_body.response
        assert reply.body_mutation.body == b"resolved"
        (length,) = reply.header_mutation.set_headers
        assert (length.header.key, length.header.raw_value) == ("content-length", b"8")
        await talk.ask(response())
        await talk.ask(body())
        assert await talk.ended_well()


async def test_a_request_body_that_stays_is_named_too():
    """What goes to the upstream is what the exchange has seen."""
    async with a_gate() as gate:
        talk = gate.talk()
        await talk.ask(posted())
        assert (await talk.ask(request_body(b"x"))).request_body.response.body_mutation.body == b"x"


async def test_a_bug_over_a_request_body_lets_nothing_on():
    """The request ends there, with a text that quotes nothing; the exchange is told that it was decided."""

    def broken(data: bytes) -> ForwardBody:
        raise RuntimeError(data.decode())

    async with a_gate(request_body=broken) as gate:
        talk = gate.talk()
        await talk.ask(posted())
        assert await talk.refused(request_body()) == "internal"
        assert await talk.ended_well()
        assert await gate.ends() == [True]


@pytest.mark.parametrize("third", [request(), body(), request_body(), pb.ProcessingRequest()])
async def test_after_a_request_body_only_the_answers_head_is_understood(third: pb.ProcessingRequest):
    """Anything else ends the stream with an error, so Envoy forwards nothing."""
    async with a_gate() as gate:
        talk = gate.talk()
        await talk.ask(posted())
        await talk.ask(request_body())
        await talk.say(third)
        assert await talk.aborted() == ABORTED


async def test_a_part_of_a_request_body_is_refused():
    """What follows it, trailers too, would pass unseen."""
    async with a_gate() as gate:
        talk = gate.talk()
        await talk.ask(posted())
        assert await talk.refused(request_body(end=False)) == "request.malformed"


@pytest.mark.parametrize("mode", [pb.BUFFERED_PARTIAL, pb.GRPC])
async def test_a_mode_that_is_not_spoken_is_refused_before_the_request_goes_on(mode):
    """The exchange is not even made; nothing reaches the upstream."""
    async with a_gate() as gate:
        assert await gate.talk().refused(request(mode)) == "gate.protocol"
        assert gate.exchanges == []


def unknown_mode() -> pb.ProcessingRequest:
    message = request()
    # 77 is no number of this Envoy's: field 11, length 4, request_body_mode (1) 0, response_body_mode (2) 77.
    message.ClearField("protocol_config")
    return pb.ProcessingRequest.FromString(message.SerializeToString() + bytes([0x5A, 2, 0x10, 77]))


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(unknown_mode(), id="a mode of a later Envoy"),
        pytest.param(request(protocol_config=None), id="no protocol_config"),
        pytest.param(request(observability_mode=True), id="observability"),
        pytest.param(
            request(protocol_config=pb.ProtocolConfiguration(request_body_mode=1, response_body_mode=2)),
            id="request bodies in pieces",
        ),
        pytest.param(response(), id="an upstream's answer without its request"),
        pytest.param(response(details=""), id="an answer that nobody vouches for"),
        pytest.param(body(), id="a body first"),
        pytest.param(pb.ProcessingRequest(), id="nothing at all"),
    ],
)
async def test_a_first_message_that_the_gate_cannot_vouch_for_is_refused(first):
    """Each of these is a set-up in which a clear body could pass; it is refused and counted."""
    async with a_gate() as gate:
        talk = gate.talk()
        assert await talk.refused(first) == "gate.protocol"
        assert gate.exchanges == []
        assert gate.server.counters.refused_protocol == 1


async def test_envoys_own_answer_to_an_unreadable_request_is_replaced():
    """It names nothing of what Envoy thought was wrong, and no exchange is made for it."""
    async with a_gate() as gate:
        assert await gate.talk().refused(response("400", "path_normalization_failed")) == "request.malformed"
        assert gate.exchanges == []


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(request(), id="a second request head"),
        pytest.param(body(), id="a body before its head"),
        pytest.param(pb.ProcessingRequest(request_body=pb.HttpBody(body=b"x")), id="a request body"),
        pytest.param(pb.ProcessingRequest(request_trailers=pb.HttpTrailers()), id="request trailers"),
        pytest.param(pb.ProcessingRequest(response_trailers=pb.HttpTrailers()), id="response trailers"),
        pytest.param(pb.ProcessingRequest(), id="an unknown message"),
    ],
)
async def test_a_message_out_of_order_aborts(second):
    """The stream ends with an error and a constant text, so Envoy forwards nothing."""
    async with a_gate() as gate:
        talk = gate.talk()
        await talk.ask(request())
        await talk.say(second)
        assert await talk.aborted() == ABORTED
        assert await gate.ends() == [False]


@pytest.mark.parametrize("third", [response(), request(), pb.ProcessingRequest(response_trailers=pb.HttpTrailers())])
async def test_something_else_than_the_body_aborts(third):
    """After the response's head only its body is understood."""
    async with a_gate() as gate:
        talk = gate.talk()
        await talk.ask(request())
        await talk.ask(response())
        await talk.say(third)
        assert await talk.aborted() == ABORTED


async def test_a_part_of_a_body_is_refused():
    """BUFFERED means all of it: what follows a part would pass unseen."""
    async with a_gate() as gate:
        talk = gate.talk()
        await talk.ask(request())
        await talk.ask(response())
        assert await talk.refused(body(end=False)) == "gate.protocol"
        assert gate.exchanges[0].named("body") == []


async def test_anything_after_the_end_aborts():
    """A second body is not answered with a second guess."""
    async with a_gate() as gate:
        talk = gate.talk()
        for message in (request(), response(), body()):
            await talk.ask(message)
        await talk.say(body())
        assert await talk.aborted() == ABORTED


async def test_bytes_that_are_no_message_abort():
    """What can't be parsed is not answered; the text says nothing of it."""
    async with a_gate() as gate:
        talk = gate.talk()
        await talk.call.write(b"\xff" + CLEAR)
        assert await talk.aborted() == ABORTED


async def test_switching_protocols_is_refused():
    """After 101 nobody could read what goes by."""
    async with a_gate() as gate:
        talk = gate.talk()
        await talk.ask(request(pb.NONE))
        assert await talk.refused(response("101")) == "gate.protocol"


def boom(*_: Any) -> None:
    raise ValueError(f"the payload was {PLANTED}")


def expected_failure(*_: Any) -> None:
    raise KeyUnknown(f"key of {PLANTED}")


@pytest.mark.parametrize("where", ["request", "response", "body"])
async def test_a_bug_is_answered_with_500_and_its_text_goes_nowhere(where):
    """Whatever call has the bug: one constant log line with the exception's type, a problem document, no value."""
    async with a_gate(**{where: boom}) as gate:
        talk = gate.talk()
        code = None
        for name, message in {"request": request(), "response": response(), "body": body()}.items():
            if name == where:
                code = await talk.refused(message)
                break
            await talk.ask(message)
        assert code == "internal"
        assert gate.log == [("gate.crashed", {"error": "ValueError"})]
        assert gate.server.counters.crashed == 1
        assert await talk.ended_well()
        assert await gate.ends() == [True]


@pytest.mark.parametrize("answer", [None, b"clear", ForwardHead()])
async def test_an_answer_of_the_wrong_kind_is_a_bug(answer):
    """A body's answer that is not one of the two outcomes is never taken as "go on"."""
    async with a_gate(body=lambda _: answer) as gate:
        talk = gate.talk()
        await talk.ask(request())
        await talk.ask(response())
        assert await talk.refused(body()) == "internal"


async def test_a_header_that_cannot_be_written_is_a_bug_and_nothing_goes_out():
    """A value beyond latin-1, or with a line break, ends as 500."""
    async with a_gate(body=lambda _: ForwardBody(b"x", (("x-a", f"\u20ac {PLANTED}"),))) as gate:
        talk = gate.talk()
        await talk.ask(request())
        await talk.ask(response())
        assert await talk.refused(body()) == "internal"


async def test_an_expected_failure_that_is_raised_is_a_refusal():
    """A GharialError keeps its own code and is not counted as a crash."""
    async with a_gate(body=expected_failure) as gate:
        talk = gate.talk()
        await talk.ask(request())
        await talk.ask(response())
        assert await talk.refused(body()) == "key.unknown"
        assert gate.server.counters.crashed == 0
        assert gate.log == []


async def test_a_bug_while_looking_at_a_copy_aborts():
    """The head has left already, so no other answer is possible: the stream is aborted."""
    async with a_gate(chunk=boom) as gate:
        talk = gate.talk()
        await talk.ask(request(pb.STREAMED))
        await talk.ask(response())
        await talk.say(body(end=False))
        assert await talk.aborted() == ABORTED
        assert gate.log == [("gate.crashed", {"error": "ValueError"})]
        assert await gate.ends() == [False]


async def test_chunks_pass_unchanged_in_shadow():
    """The gate looks at a copy; its replies change nothing."""
    async with a_gate() as gate:
        talk = gate.talk()
        await talk.ask(request(pb.STREAMED))
        await talk.ask(response())
        for end in (False, True):
            reply = await talk.ask(body(end=end))
            assert reply.response_body.response.body_mutation.WhichOneof("mutation") is None
        assert await talk.ended_well()
        assert gate.exchanges[0].named("chunk") == [(CLEAR, False), (CLEAR, True)]
        assert await gate.ends() == [True]


async def test_the_mode_reaches_the_exchange():
    """The exchange itself insists on BUFFERED for what it protects."""
    async with a_gate(expects=frozenset({BodyMode.BUFFERED})) as gate:
        assert await gate.talk().refused(request(pb.NONE)) == "gate.protocol"
        head: RequestHead = gate.exchanges[0].named("request")[0]
        assert head.response_body is BodyMode.NONE


async def test_a_full_gate_answers_without_reading():
    """Beyond `in_flight` the answer is 503, and no exchange is made; a place that gets free is used again."""
    async with a_gate(in_flight=2) as gate:
        first, second = gate.talk(), gate.talk()
        await first.ask(request())
        await second.ask(request())
        assert await gate.talk().refused(pb.ProcessingRequest()) == "gate.full"
        assert len(gate.exchanges) == 2
        first.call.cancel()
        async with asyncio.timeout(5):
            while gate.server.counters.under_way == 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert (await gate.talk().ask(request())).WhichOneof("response") == "request_headers"
        assert gate.server.counters.refused_full == 1
        assert gate.server.counters.opened == 3


@pytest.mark.parametrize("answered", [1, 2])
async def test_a_call_that_is_cut_off_ends_once_as_not_completed(answered):
    """Also in the middle of a question that is still being thought about."""
    thinking = asyncio.Event()

    async def think(_: Any) -> None:
        thinking.set()
        await asyncio.Event().wait()

    async with a_gate(body=think) as gate:
        talk = gate.talk()
        for message in (request(), response())[:answered]:
            await talk.ask(message)
        if answered == 2:
            await talk.say(body())
            await asyncio.wait_for(thinking.wait(), 5)
        talk.call.cancel()
        assert await gate.ends() == [False]


async def test_a_bug_in_the_last_call_is_only_counted():
    """Nothing can be answered any more, and asyncio must not print the exception."""

    class Bad(ScriptedExchange):
        def on_end(self, *, completed: bool) -> None:
            boom()

    folder = Path(tempfile.mkdtemp(prefix="gh", dir="/tmp"))
    log: list[Any] = []
    server = await serve(folder / "g" / "s", Bad, in_flight=1, body_bytes=1000, log=lambda e, **f: log.append((e, f)))
    async with grpc.aio.insecure_channel(f"unix:{server.socket_path}") as channel:
        talk = Talk(channel.stream_stream(f"/{SERVICE}/{METHOD}")())
        await talk.ask(request(pb.NONE))
        await talk.ask(response())
        assert await talk.ended_well()
    await server.stop(0)
    assert log == [("gate.crashed", {"error": "ValueError"})]
    assert not server.socket_path.exists()
    shutil.rmtree(folder)


async def test_an_exchange_that_cannot_be_made_is_a_bug():
    """The call is answered with 500 all the same."""
    folder = Path(tempfile.mkdtemp(prefix="gh", dir="/tmp"))
    log: list[Any] = []

    def broken() -> ScriptedExchange:
        raise RuntimeError(PLANTED)

    server = await serve(
        folder / "g" / "s", broken, in_flight=1, body_bytes=1000, log=lambda e, **f: log.append((e, f))
    )
    async with grpc.aio.insecure_channel(f"unix:{server.socket_path}") as channel:
        assert await Talk(channel.stream_stream(f"/{SERVICE}/{METHOD}")()).refused(request()) == "internal"
    await server.stop(0)
    assert log == [("gate.crashed", {"error": "RuntimeError"})]
    shutil.rmtree(folder)


async def test_stopping_waits_for_what_is_under_way():
    """A call in the middle of its body gets its answer; one that takes too long is cancelled and told its end."""
    go = asyncio.Event()

    async def think(_: Any) -> ForwardBody:
        await go.wait()
        return ForwardBody(b"done")

    async with a_gate(body=think) as gate:
        talk, slow = gate.talk(), gate.talk()
        for message in (request(), response()):
            await talk.ask(message)
        await slow.ask(request())
        await talk.say(body())
        stopping = asyncio.create_task(gate.server.stop(0.3))
        await asyncio.sleep(0)
        go.set()
        assert (await talk.hear()).response_body.response.body_mutation.body == b"done"
        await talk.call.done_writing()
        await stopping
        assert sorted(await gate.ends()) == [False, True]


async def test_the_socket_is_its_owners_alone():
    """Mode 0600 in a folder of 0700; who may connect could play Envoy."""
    async with a_gate() as gate:
        path = gate.server.socket_path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_folder_open_to_others_is_not_used(tmp_path):
    """The gate says so and does not start."""
    tmp_path.chmod(0o755)
    with pytest.raises(GateUnavailable, match="0700"):
        await serve(tmp_path / "s", ScriptedExchange, in_flight=1, body_bytes=1, log=lambda *_, **__: None)


async def test_a_second_gate_does_not_take_the_socket():
    """The first goes on; a socket that nobody serves is taken over."""
    async with a_gate() as gate:
        path = gate.server.socket_path
        with pytest.raises(GateUnavailable, match="another gate"):
            await serve(path, ScriptedExchange, in_flight=1, body_bytes=1, log=lambda *_, **__: None)
        assert (await gate.talk().ask(request())).WhichOneof("response") == "request_headers"


# --- bodies that both sides send in pieces ------------------------------------------------------------------------


async def duplex(gate: Gate) -> Talk:
    """A talk in full-duplex mode, the answer's head asked and not answered yet."""
    talk = gate.talk()
    await talk.ask(request(pb.FULL_DUPLEX_STREAMED))
    await talk.say(response())
    return talk


def parts_of(reply: pb.ProcessingResponse) -> tuple[bytes, bool]:
    """What a reply lets leave, and whether it is the end; fails if it is of any other kind."""
    mutation = reply.response_body.response.body_mutation
    assert mutation.WhichOneof("mutation") == "streamed_response", reply
    return mutation.streamed_response.body, mutation.streamed_response.end_of_stream


async def test_the_head_waits_for_the_first_part_that_leaves():
    """Nothing is said while nothing leaves; then the head without its length, then parts, then the end."""
    held: list[bytes] = []

    def part(data: bytes, end: bool) -> ForwardPart:
        held.append(data)
        return ForwardPart(b"*" if data == b"second" else b"")

    async with a_gate(part=part) as gate:
        talk = await duplex(gate)
        await talk.say(body(b"first", end=False))
        await talk.say(body(b"second", end=False))
        head = await talk.hear()
        assert head.WhichOneof("response") == "response_headers"
        assert list(head.response_headers.response.header_mutation.remove_headers) == ["content-length"]
        assert parts_of(await talk.hear()) == (b"*", False)
        assert parts_of(await talk.ask(body(b"", end=True))) == (b"", True)
        assert held == [b"first", b"second", b""]
        assert await talk.ended_well()
        assert await gate.ends() == [True]


async def test_an_empty_stream_has_a_head_and_an_end():
    """Also where nothing of it leaves."""
    async with a_gate(part=lambda *_: ForwardPart()) as gate:
        talk = await duplex(gate)
        head = await talk.ask(body(CLEAR))
        assert head.WhichOneof("response") == "response_headers"
        assert parts_of(await talk.hear()) == (b"", True)


async def test_a_refusal_before_anything_left_is_an_answer():
    """The client learns what is wrong, and the exchange was decided."""
    async with a_gate(part=lambda *_: Refuse(BodyMalformed())) as gate:
        talk = await duplex(gate)
        assert await talk.refused(body(end=False)) == "body.malformed"
        assert await talk.ended_well()
        assert await gate.ends() == [True]


@pytest.mark.parametrize("end", [False, True])
async def test_a_refusal_after_a_part_has_left_ends_without_an_end(end: bool):
    """Nothing else would tell the client that it has not got all."""
    answers = iter([ForwardPart(b"*"), Refuse(BodyMalformed())])
    async with a_gate(part=lambda *_: next(answers)) as gate:
        talk = await duplex(gate)
        await talk.say(body(end=False))
        assert (await talk.hear()).WhichOneof("response") == "response_headers"
        assert parts_of(await talk.hear()) == (b"*", False)
        await talk.say(body(end=end))
        assert await talk.aborted() == ABORTED
        assert await gate.ends() == [False]


async def test_a_part_that_is_cut_leaves_and_is_the_last():
    """It is never marked as the end, even if the upstream's answer has ended."""
    async with a_gate(part=lambda *_: ForwardPart(b"*", cut=True)) as gate:
        talk = await duplex(gate)
        await talk.say(body(end=True))
        assert (await talk.hear()).WhichOneof("response") == "response_headers"
        assert parts_of(await talk.hear()) == (b"*", False)
        assert await talk.aborted() == ABORTED
        assert await gate.ends() == [False]


async def test_a_bug_in_the_middle_of_a_stream_ends_it():
    """With a constant text, and nothing of what came."""

    def broken(data: bytes, _: bool) -> ForwardPart:
        if data != b"first":
            raise RuntimeError(data.decode())
        return ForwardPart(b"*")

    async with a_gate(part=broken) as gate:
        talk = await duplex(gate)
        await talk.say(body(b"first", end=False))
        await talk.hear()
        await talk.hear()
        await talk.say(body(end=False))
        assert await talk.aborted() == ABORTED
        assert gate.server.counters.crashed == 1


async def test_trailers_end_a_stream_and_none_of_them_leaves():
    """What is left of the body leaves first, without an end of its own."""
    async with a_gate(part=lambda _, end: ForwardPart(b"*" if end else b"")) as gate:
        talk = await duplex(gate)
        await talk.say(body(end=False))
        trailers = pb.HttpTrailers(trailers=headers(**{"x-email": PLANTED, "x-sum": "1"}))
        await talk.say(pb.ProcessingRequest(response_trailers=trailers))
        assert (await talk.hear()).WhichOneof("response") == "response_headers"
        assert parts_of(await talk.hear()) == (b"*", False)
        reply = await talk.hear()
        assert list(reply.response_trailers.header_mutation.remove_headers) == ["x-email", "x-sum"]
        assert await talk.ended_well()


@pytest.mark.parametrize("message", [request(), response(), request_body(), pb.ProcessingRequest()])
async def test_in_a_stream_only_its_parts_are_understood(message: pb.ProcessingRequest):
    """A message out of order ends it."""
    async with a_gate() as gate:
        talk = await duplex(gate)
        await talk.say(message)
        assert await talk.aborted() == ABORTED


async def test_an_answer_without_a_body_is_answered_at_once_in_full_duplex_mode():
    """Its head is all there is."""
    async with a_gate() as gate:
        talk = gate.talk()
        await talk.ask(request(pb.FULL_DUPLEX_STREAMED))
        assert (await talk.ask(response(end=True))).WhichOneof("response") == "response_headers"
        assert await talk.ended_well()
        assert await gate.ends() == [True]


@pytest.mark.parametrize(
    ("mode", "kind"), [(pb.BUFFERED, "body"), (pb.STREAMED, None), (pb.FULL_DUPLEX_STREAMED, "streamed_response")]
)
async def test_each_mode_gets_its_own_kind_of_reply(mode: int, kind: str | None):
    """One of another kind would be left out in silence, and the original pass."""
    async with a_gate() as gate:
        talk = gate.talk()
        await talk.ask(request(mode))
        await talk.say(response())
        await talk.say(body())
        assert (await talk.hear()).WhichOneof("response") == "response_headers"
        mutation = (await talk.hear()).response_body.response.body_mutation
        assert mutation.WhichOneof("mutation") == kind
