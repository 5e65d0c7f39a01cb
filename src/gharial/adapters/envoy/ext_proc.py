"""The gate as Envoy's external processor: a gRPC service on a Unix socket; one stream is one exchange.

What makes this delicate: a handler that *returns* before it has answered tells Envoy that it wants to see no more, and
the clear body passes, whatever `failure_mode_allow` says. So nothing below `process` returns (`NoReturn`); it leaves in
two ways only: Envoy closed its side, or the stream is aborted with a constant text. And an exception's text never gets
out: grpc would send it to Envoy, which writes it to its log.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import grpc

from gharial.adapters.envoy import messages
from gharial.adapters.envoy.config import buffer_limit_bytes
from gharial.adapters.envoy.conversation import (
    Abort,
    Conversation,
    EnvoyClosed,
    Stream,
    is_early_local_reply,
    read_request_head,
)
from gharial.gate.outcome import Exchange, Refuse, RequestHead
from gharial.model.errors import GateFull, GateUnavailable, GharialError, ProtocolViolation, RequestMalformed

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD = "Process"

ABORTED = "the gate refuses to go on"
"""All that Envoy, and so its log, ever learns about a stream that was aborted."""

_FULL = messages.refusal_reply(Refuse(GateFull()))
_UNSPEAKABLE = messages.refusal_reply(Refuse(ProtocolViolation()))
_UNREADABLE = messages.refusal_reply(Refuse(RequestMalformed()))
_BROKEN = messages.refusal_reply(Refuse(GharialError()))
_MESSAGE_OVERHEAD_BYTES = 1_048_576
"""What a message may be larger than the body in it: heads, attributes, and what Envoy buffers beyond its limit."""


class Log(Protocol):
    """Where the adapter writes its few lines: an event's name and facts that hold no value."""

    def __call__(self, event: str, /, **facts: str) -> object: ...


@dataclass(slots=True)
class Counters:
    """What happened on this server since it started; `under_way` is the number of exchanges now."""

    opened: int = 0
    refused_full: int = 0
    refused_protocol: int = 0
    crashed: int = 0
    under_way: int = 0


class _Slot:
    """One of the `in_flight` places; it may be given back more than once, and counts once."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._taken = True
        counters.under_way += 1

    def free(self) -> None:
        if self._taken:
            self._taken = False
            self._counters.under_way -= 1


class Servicer:
    """Answers every stream with an exchange of its own; beyond `in_flight` of them with 503, unread."""

    def __init__(self, new_exchange: Callable[[], Exchange], *, in_flight: int, log: Log) -> None:
        self.counters = Counters()
        self._new_exchange = new_exchange
        self._in_flight = in_flight
        self._log = log

    async def process(self, _requests: object, context: Any) -> None:
        """Handle one stream (the method `Process`); returns only after Envoy closed its side."""
        closed_by_envoy = False
        try:
            await self._admit(Stream(context))
        except EnvoyClosed:
            closed_by_envoy = True
        except Abort:
            self.counters.refused_protocol += 1
        except Exception as error:  # noqa: BLE001 - the outermost boundary: a bug may not let a clear body pass
            self._crashed(error)
        finally:
            # Also under cancellation: whatever else happens, this function does not end as if all were well.
            if not closed_by_envoy:
                await context.abort(grpc.StatusCode.INTERNAL, ABORTED)

    async def _admit(self, stream: Stream) -> NoReturn:
        if self.counters.under_way >= self._in_flight:
            self.counters.refused_full += 1
            await stream.read_raw()
            await stream.write(_FULL)
            await stream.expect_close()
        self.counters.opened += 1
        slot = _Slot(self.counters)
        stream.on_answered = slot.free
        try:
            await self._converse(stream)
        finally:
            slot.free()

    async def _converse(self, stream: Stream) -> NoReturn:
        first = await stream.read()
        if is_early_local_reply(first):
            await stream.write(_UNREADABLE)
            await stream.expect_close()
        head = read_request_head(first)
        if head is None:
            self.counters.refused_protocol += 1
            await stream.write(_UNSPEAKABLE)
            await stream.expect_close()
        try:
            conversation = Conversation(stream, self._new_exchange())
        except Exception as error:  # noqa: BLE001 - see process()
            self._crashed(error)
            await stream.write(_BROKEN)
            await stream.expect_close()
        try:
            await self._run(conversation, head)
        finally:
            # How the stream ends says nothing: Envoy mostly resets it as soon as it has the last reply.
            self._end(conversation, completed=conversation.decided)

    async def _run(self, conversation: Conversation, head: RequestHead) -> NoReturn:
        try:
            await conversation.run(head)
        except (EnvoyClosed, Abort):
            raise
        except Exception as error:  # noqa: BLE001 - see process()
            self._crashed(error)
            await conversation.refuse(Refuse(GharialError()))

    def _end(self, conversation: Conversation, *, completed: bool) -> None:
        """Tell the exchange that it is over; in this very step, for this handler may be about to be cancelled."""
        try:
            conversation.end(completed=completed)
        except Exception as error:  # noqa: BLE001 - nothing can be answered any more; asyncio would log the text
            self._crashed(error)

    def _crashed(self, error: Exception) -> None:
        self.counters.crashed += 1
        # The type alone: the text of an exception may quote the payload.
        self._log("gate.crashed", error=type(error).__name__)


class Server:
    """A running gate service on a Unix socket."""

    def __init__(self, server: Any, servicer: Servicer, socket_path: Path) -> None:
        self._server = server
        self._servicer = servicer
        self.socket_path = socket_path

    @property
    def counters(self) -> Counters:
        """What happened since the start; live."""
        return self._servicer.counters

    async def stop(self, grace_s: float) -> None:
        """Take no new exchanges, give the running ones `grace_s` seconds, cancel the rest, remove the socket."""
        await self._server.stop(grace_s)
        self.socket_path.unlink(missing_ok=True)


async def serve(
    socket_path: Path, new_exchange: Callable[[], Exchange], *, in_flight: int, body_bytes: int, log: Log
) -> Server:
    """Listen on a Unix socket (mode 0600, in a folder of mode 0700 that is made if need be).

    `in_flight` is the number of exchanges beyond which the answer is 503, `body_bytes` the largest body to protect: the
    exchange refuses a larger one, and one that is much larger never gets here. Keep the server that is returned: it
    stops when it is collected. Raises GateUnavailable if the folder is open to other users, or another gate serves
    there.
    """
    _silence_grpc()
    _prepare_folder(socket_path)
    servicer = Servicer(new_exchange, in_flight=in_flight, log=log)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", buffer_limit_bytes(body_bytes) + _MESSAGE_OVERHEAD_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    # No (de)serialisers: grpc would log their failures with a traceback.
    method = grpc.stream_stream_rpc_method_handler(servicer.process)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))
    mask = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{socket_path}")
    except RuntimeError:
        raise GateUnavailable(f"can't listen on {socket_path}") from None
    finally:
        os.umask(mask)
    await server.start()
    return Server(server, servicer, socket_path)


def _silence_grpc() -> None:
    """Keep grpc's own loggers quiet: they print tracebacks, and those hold whatever an exception quotes."""
    logger = logging.getLogger("grpc")
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False


def _prepare_folder(socket_path: Path) -> None:
    folder = socket_path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        raise GateUnavailable(f"{folder} is open to other users; it must have mode 0700")
    if socket_path.exists() and _is_served(socket_path):
        raise GateUnavailable(f"another gate serves on {socket_path}")
    socket_path.unlink(missing_ok=True)


def _is_served(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(socket_path))
        except OSError:
            return False
    return True
