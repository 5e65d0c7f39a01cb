"""What is said on one stream with Envoy, in which order, and what is answered. Knows no socket and no server.

A message out of order, or a mode in which a clear body could pass, ends the conversation; it never goes on by guessing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar, assert_never

import grpc
from google.protobuf.message import DecodeError

from gharial.adapters.envoy import messages
from gharial.adapters.envoy.proto import ext_proc_pb2 as pb
from gharial.gate.outcome import (
    BodyMode,
    Exchange,
    ForwardBody,
    ForwardHead,
    ForwardPart,
    ForwardRequest,
    Refuse,
    RequestHead,
    ResponseHead,
)
from gharial.model.errors import GharialError, ProtocolViolation, RequestMalformed

_Outcome = TypeVar("_Outcome")


class EnvoyClosed(Exception):
    """Envoy closed its side of the stream. Raised by `Stream.read` and nowhere else."""


class Abort(Exception):
    """The stream can't go on and no reply would be understood."""


def _nothing() -> None:
    """Nobody has to be told."""


class Stream:
    """Reads and writes raw messages of one stream."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.on_answered: Callable[[], None] = _nothing
        """Called when all that the gate has to say is said."""

    async def read_raw(self) -> bytes:
        """Return the next message. Raises EnvoyClosed."""
        raw = await self._context.read()
        if raw is grpc.aio.EOF:
            raise EnvoyClosed
        return bytes(raw)

    async def read(self) -> pb.ProcessingRequest:
        """Return the next message, parsed. Raises EnvoyClosed, Abort."""
        raw = await self.read_raw()
        try:
            return pb.ProcessingRequest.FromString(raw)
        except DecodeError:
            raise Abort from None

    async def write(self, reply: bytes) -> None:
        """Hand a reply to Envoy."""
        await self._context.write(reply)

    async def expect_close(self) -> NoReturn:
        """Wait until Envoy closes its side. Raises EnvoyClosed; Abort if it says anything else."""
        # All is answered: a client that reads slowly keeps this stream open, and must not keep others out.
        self.on_answered()
        await self.read_raw()
        raise Abort


class Conversation:
    """One exchange, from its first message to its last. `run` ends by an exception only."""

    def __init__(self, stream: Stream, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange
        self.decided = False
        """The last decision was handed to Envoy. Set just before: cancelled in between, it may have arrived or not."""
        self.can_answer = True
        """Envoy would still understand an immediate answer: nothing of the response has gone to the client."""

    async def run(self, head: RequestHead) -> NoReturn:
        await self._request(head)
        message = await self._stream.read()
        if _awaits_body(head) and message.WhichOneof("request") == "request_body":
            # Otherwise Envoy has answered itself, for a body too large for it; whose answer it is, the exchange asks.
            await self._request_body(message)
            message = await self._stream.read()
        if message.WhichOneof("request") != "response_headers":
            raise Abort
        has_body = not message.response_headers.end_of_stream and head.response_body is not BodyMode.NONE
        reply = await self._response_head(message, head.response_body)
        if has_body and head.response_body is BodyMode.DUPLEX:
            await self._parts(reply)
        await self._stream.write(reply)
        if not has_body:
            await self._stream.expect_close()
        if head.response_body is BodyMode.STREAMED:
            await self._chunks()
        await self._whole_body(await self._stream.read())

    async def _request(self, head: RequestHead) -> None:
        outcome = await _ask(self._exchange.on_request(head))
        match outcome:
            case ForwardRequest():
                await self._stream.write(messages.request_reply(outcome, drop_length=_awaits_body(head)))
            case Refuse():
                await self.refuse(outcome)
            case _:
                assert_never(outcome)

    async def _request_body(self, message: pb.ProcessingRequest) -> None:
        if not message.request_body.end_of_stream:
            # Only a part of the body, or trailers follow it: they would pass unseen.
            await self.refuse(Refuse(RequestMalformed()))
        original = message.request_body.body
        outcome = await _ask(self._exchange.on_request_body(original))
        match outcome:
            case ForwardBody():
                await self._stream.write(messages.request_body_reply(outcome, original))
            case Refuse():
                await self.refuse(outcome)
            case _:
                assert_never(outcome)

    async def _response_head(self, message: pb.ProcessingRequest, mode: BodyMode) -> bytes:
        has_body = not message.response_headers.end_of_stream
        head = _response_head(message, has_body=has_body)
        if head.status < 200:
            # 101: from here on it would be another protocol, that nobody here reads. Others never get this far.
            await self.refuse(Refuse(ProtocolViolation()))
        outcome = await _ask(self._exchange.on_response(head))
        match outcome:
            case ForwardHead():
                reply = messages.response_head_reply(outcome, drop_length=mode in _HELD)
            case Refuse():
                await self.refuse(outcome)
            case _:
                assert_never(outcome)
        self.decided = not has_body or mode is BodyMode.NONE
        # Under BUFFERED Envoy keeps the head until the body's reply, under DUPLEX it is kept here; otherwise it is on
        # its way now.
        self.can_answer = mode in _HELD and has_body
        return reply

    async def _whole_body(self, message: pb.ProcessingRequest) -> NoReturn:
        if message.WhichOneof("request") != "response_body":
            raise Abort
        if not message.response_body.end_of_stream:
            # Only a part of the body: what follows it would pass unseen.
            await self.refuse(Refuse(ProtocolViolation()))
        original = message.response_body.body
        outcome = await _ask(self._exchange.on_body(original))
        match outcome:
            case ForwardBody():
                reply = messages.body_reply(outcome, original)
            case Refuse():
                await self.refuse(outcome)
            case _:
                assert_never(outcome)
        self.decided, self.can_answer = True, False
        await self._stream.write(reply)
        await self._stream.expect_close()

    async def _parts(self, head: bytes) -> NoReturn:
        """Answer a body in pieces with pieces; `head`, the reply to the head, is sent before the first of them."""
        while True:
            message = await self._stream.read()
            match message.WhichOneof("request"):
                case "response_body":
                    part, end = message.response_body.body, message.response_body.end_of_stream
                case "response_trailers":
                    part, end = b"", True
                case _:
                    raise Abort
            outcome = await _ask(self._exchange.on_part(part, end=end))
            match outcome:
                case ForwardPart():
                    pass
                case Refuse():
                    await self.refuse(outcome)
                case _:
                    assert_never(outcome)
            whole = end and not outcome.cut
            if (outcome.body or whole) and self.can_answer:
                self.can_answer = False
                await self._stream.write(head)
            if whole:
                self.decided = True
            await self._write_part(message, outcome.body, end=whole)
            if outcome.cut:
                # No end is sent: so the client can tell that this is not all.
                raise Abort
            if whole:
                await self._stream.expect_close()

    async def _write_part(self, message: pb.ProcessingRequest, body: bytes, *, end: bool) -> None:
        with_trailers = message.WhichOneof("request") == "response_trailers"
        if body or (end and not with_trailers):
            await self._stream.write(messages.part_reply(body, end=end and not with_trailers))
        if end and with_trailers:
            await self._stream.write(messages.trailers_reply(message))

    async def _chunks(self) -> NoReturn:
        reply = messages.chunk_reply()
        while True:
            message = await self._stream.read()
            if message.WhichOneof("request") != "response_body" or self.decided:
                raise Abort
            end = message.response_body.end_of_stream
            try:
                await self._exchange.on_chunk(message.response_body.body, end=end)
            except GharialError:
                raise Abort from None
            self.decided = end
            await self._stream.write(reply)

    async def refuse(self, outcome: Refuse) -> NoReturn:
        """Answer in place of the upstream, and wait for the end."""
        if not self.can_answer:
            raise Abort
        reply = messages.refusal_reply(outcome)
        self.decided, self.can_answer = True, False
        await self._stream.write(reply)
        await self._stream.expect_close()

    def end(self, *, completed: bool) -> None:
        """Tell the exchange that it is over."""
        self._exchange.on_end(completed=completed)


_HELD = (BodyMode.BUFFERED, BodyMode.DUPLEX)
"""Modes in which the head of an answer does not leave before something of the body is decided."""


async def _ask(answer: Awaitable[_Outcome | Refuse]) -> _Outcome | Refuse:
    try:
        return await answer
    except GharialError as error:
        return Refuse(error)


def _awaits_body(head: RequestHead) -> bool:
    return head.has_body and head.request_body is BodyMode.BUFFERED


def is_early_local_reply(message: pb.ProcessingRequest) -> bool:
    """True if Envoy asks about an answer of its own to a request that it never showed: it could not be read."""
    details = messages.code_details(message)
    is_response = message.WhichOneof("request") == "response_headers" and not message.observability_mode
    return is_response and details not in ("", messages.VIA_UPSTREAM)


def read_request_head(message: pb.ProcessingRequest) -> RequestHead | None:
    """Return the head in the first message, or None if the gate can't vouch for what Envoy is set up to do."""
    if message.WhichOneof("request") != "request_headers" or message.observability_mode:
        return None
    if not message.HasField("protocol_config"):
        return None
    request_mode = messages.body_mode(message.protocol_config.request_body_mode)
    if request_mode not in (BodyMode.NONE, BodyMode.BUFFERED):
        return None
    mode = messages.body_mode(message.protocol_config.response_body_mode)
    if mode is BodyMode.UNKNOWN:
        return None
    pseudo, headers = messages.read_headers(message.request_headers)
    return RequestHead(
        method=pseudo.get("method", ""),
        target=pseudo.get("path", ""),
        authority=pseudo.get("authority", ""),
        scheme=pseudo.get("scheme", ""),
        headers=headers,
        proxy_route=messages.route_name(message),
        response_body=mode,
        peer=messages.peer_address(message),
        has_body=not message.request_headers.end_of_stream,
        request_body=request_mode,
    )


def _response_head(message: pb.ProcessingRequest, *, has_body: bool) -> ResponseHead:
    pseudo, headers = messages.read_headers(message.response_headers)
    details = messages.code_details(message)
    return ResponseHead(
        status=int(pseudo["status"]),
        headers=headers,
        has_body=has_body,
        from_upstream=details == messages.VIA_UPSTREAM,
        proxy_detail=details,
    )
