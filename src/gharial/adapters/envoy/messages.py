"""Between Envoy's messages and the gate's words: heads and attributes in, replies out. Pure; decides nothing."""

from __future__ import annotations

import json

from gharial.adapters.envoy.proto import ext_proc_pb2 as pb
from gharial.gate.outcome import BodyMode, ForwardBody, ForwardHead, ForwardRequest, Headers, Refuse
from gharial.model.errors import problem_body

DETAILS = "gharial_refused"
"""Envoy's `response.code_details` of every answer that the gate itself made; the configuration looks for it."""

VIA_UPSTREAM = "via_upstream"
"""Envoy's `response.code_details` of an answer that an upstream made (source/common/stream_info: ViaUpstream)."""

_ATTRIBUTES = "envoy.filters.http.ext_proc"
_ROUTE_NAME = "xds.route_name"
_PEER = "source.address"
_CODE_DETAILS = "response.code_details"

_MODES: dict[int, BodyMode] = {
    pb.NONE: BodyMode.NONE,
    pb.STREAMED: BodyMode.STREAMED,
    pb.BUFFERED: BodyMode.BUFFERED,
    pb.FULL_DUPLEX_STREAMED: BodyMode.DUPLEX,
}

_OVERWRITE = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_APPEND = pb.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD


def body_mode(number: int) -> BodyMode:
    """Return the mode of a body that Envoy announced, UNKNOWN for all that the gate does not speak."""
    return _MODES.get(number, BodyMode.UNKNOWN)


def read_headers(head: pb.HttpHeaders) -> tuple[dict[str, str], Headers]:
    """Return (pseudo headers without their colon, the other headers in order), values decoded as latin-1."""
    pseudo: dict[str, str] = {}
    headers: list[tuple[str, str]] = []
    for item in head.headers.headers:
        key = item.key  # each look into a message makes a new object
        # Envoy fills raw_value; value is there for other proxies that speak the same protocol.
        value = (item.raw_value or item.value.encode()).decode("latin-1")
        if key.startswith(":"):
            pseudo[key[1:]] = value
        else:
            headers.append((key.lower(), value))
    return pseudo, tuple(headers)


def route_name(message: pb.ProcessingRequest) -> str:
    """Return the name of the route that Envoy chose, or empty."""
    return _attribute(message, _ROUTE_NAME)


def peer_address(message: pb.ProcessingRequest) -> str:
    """Return address and port of the connection's other end as Envoy saw it, or empty."""
    return _attribute(message, _PEER)


def code_details(message: pb.ProcessingRequest) -> str:
    """Return Envoy's word for where an answer comes from, or empty if it says nothing."""
    return _attribute(message, _CODE_DETAILS)


def _attribute(message: pb.ProcessingRequest, name: str) -> str:
    if _ATTRIBUTES not in message.attributes:  # reading a missing key of a protobuf map would insert it
        return ""
    fields = message.attributes[_ATTRIBUTES].fields
    return fields[name].string_value if name in fields else ""


def request_reply(outcome: ForwardRequest, *, drop_length: bool = False) -> bytes:
    """Return the reply that lets a request's head go on, changed as `outcome` says.

    `drop_length` removes `content-length`, for the reply to the body to say the new one.
    """
    reply = pb.ProcessingResponse()
    mutation = reply.request_headers.response.header_mutation
    _mutate(mutation, outcome.set_headers, outcome.remove_headers)
    if drop_length and "content-length" not in mutation.remove_headers:
        mutation.remove_headers.append("content-length")
    if outcome.target is not None:
        _set(mutation, ":path", outcome.target, _OVERWRITE)
    return reply.SerializeToString()


def response_head_reply(outcome: ForwardHead, *, drop_length: bool) -> bytes:
    """Return the reply that lets a response's head go on.

    `drop_length` removes `content-length` first: Envoy refuses a body of another length than the head says (an empty
    500), and where no body follows (HEAD) the number would tell the length of the clear one.
    """
    reply = pb.ProcessingResponse()
    mutation = reply.response_headers.response.header_mutation
    _mutate(mutation, outcome.set_headers, outcome.remove_headers)
    # Envoy applies removals before settings, so an exchange may still set a length of its own.
    if drop_length and "content-length" not in mutation.remove_headers:
        mutation.remove_headers.append("content-length")
    return reply.SerializeToString()


def body_reply(outcome: ForwardBody, original: bytes) -> bytes:
    """Return the reply to a whole body: the new one with its exact length."""
    reply = pb.ProcessingResponse()
    _replace_body(reply.response_body.response, outcome, original)
    return reply.SerializeToString()


def request_body_reply(outcome: ForwardBody, original: bytes) -> bytes:
    """Return the reply to a request's whole body: the one to send on, with its exact length."""
    reply = pb.ProcessingResponse()
    _replace_body(reply.request_body.response, outcome, original)
    return reply.SerializeToString()


def _replace_body(response: pb.CommonResponse, outcome: ForwardBody, original: bytes) -> None:
    body = original if outcome.body is None else outcome.body
    if body:
        # Also where nothing changes the bytes are named: what goes out is then what the gate has seen.
        response.body_mutation.body = body
    else:
        # An empty `body` would read as "no change" and let the original pass.
        response.body_mutation.clear_body = True
    _mutate(response.header_mutation, outcome.set_headers, ())
    _set(response.header_mutation, "content-length", str(len(body)), _OVERWRITE)


def chunk_reply() -> bytes:
    """Return the reply that lets a part of a streamed body pass as it is."""
    reply = pb.ProcessingResponse()
    reply.response_body.response.SetInParent()
    return reply.SerializeToString()


def part_reply(body: bytes, *, end: bool) -> bytes:
    """Return the next part of a body that both sides send in pieces, whatever pieces came; `end`: it is the last."""
    reply = pb.ProcessingResponse()
    part = reply.response_body.response.body_mutation.streamed_response
    part.body = body
    part.end_of_stream = end
    return reply.SerializeToString()


def trailers_reply(message: pb.ProcessingRequest) -> bytes:
    """Return the reply that ends a body that has trailers; none of them leaves."""
    reply = pb.ProcessingResponse()
    names = dict.fromkeys(item.key for item in message.response_trailers.trailers.headers)
    reply.response_trailers.header_mutation.remove_headers.extend(names)
    return reply.SerializeToString()


def refusal_reply(outcome: Refuse) -> bytes:
    """Return the reply that ends the exchange with problem details, in place of whatever the upstream said."""
    reply = pb.ProcessingResponse()
    answer = reply.immediate_response
    answer.status.code = outcome.error.status
    answer.body = json.dumps(problem_body(outcome.error, outcome.exchange_id), separators=(",", ":")).encode()
    answer.details = DETAILS
    _mutate(answer.headers, outcome.set_headers, ())
    _set(answer.headers, "content-type", "application/problem+json", _OVERWRITE)
    _set(answer.headers, "cache-control", "no-store", _OVERWRITE)
    return reply.SerializeToString()


def _mutate(mutation: pb.HeaderMutation, set_headers: Headers, remove_headers: tuple[str, ...]) -> None:
    mutation.remove_headers.extend(remove_headers)
    seen: set[str] = set()
    for name, value in set_headers:
        # The first replaces what was there; further ones of the same name (set-cookie) stand beside it.
        _set(mutation, name, value, _APPEND if name in seen else _OVERWRITE)
        seen.add(name)


def _set(mutation: pb.HeaderMutation, name: str, value: str, action: pb.HeaderValueOption.HeaderAppendAction) -> None:
    if "\r" in value or "\n" in value or "\0" in value:
        raise ValueError("a header value can't hold CR, LF or NUL")
    option = mutation.set_headers.add(append_action=action, keep_empty_value=True)
    if action == _APPEND:
        # To Envoy 1.40 an `append_action` of 0 is one that is not there, and then it replaces.
        option.append.value = True
    option.header.key = name
    option.header.raw_value = value.encode("latin-1")
