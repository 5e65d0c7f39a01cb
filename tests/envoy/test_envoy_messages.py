"""Envoy's messages and the gate's words, without an Envoy."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.adapters.envoy import messages
from gharial.adapters.envoy.proto import ext_proc_pb2 as pb
from gharial.gate.outcome import BodyMode, ForwardBody, ForwardHead, ForwardRequest, Refuse
from gharial.model.errors import GateFull, UnknownCredential

APPEND, OVERWRITE = pb.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD, pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def parsed(raw: bytes) -> pb.ProcessingResponse:
    return pb.ProcessingResponse.FromString(raw)


def sets(mutation: pb.HeaderMutation) -> list[tuple[str, bytes, int]]:
    return [(item.header.key, item.header.raw_value, item.append_action) for item in mutation.set_headers]


def test_an_empty_body_clears_the_original():
    """`body: ""` on the wire would mean "no change", and the original would pass."""
    reply = parsed(messages.body_reply(ForwardBody(b""), b"clear"))
    assert reply.response_body.response.body_mutation.WhichOneof("mutation") == "clear_body"


def test_an_unchanged_body_is_named_too():
    """What goes out is what the gate has seen, also where it changes nothing; with its exact length."""
    reply = parsed(messages.body_reply(ForwardBody(None), b"as it came"))
    assert reply.response_body.response.body_mutation.body == b"as it came"
    assert sets(reply.response_body.response.header_mutation) == [("content-length", b"10", OVERWRITE)]


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_body_reply_holds_the_new_body_and_its_length_and_nothing_of_the_original(new, original):
    """Whatever the two bodies are, only the new one is in the reply."""
    response = parsed(messages.body_reply(ForwardBody(new), original)).response_body.response
    assert (response.body_mutation.body, response.body_mutation.clear_body) == (new, not new)
    assert ("content-length", str(len(new)).encode(), OVERWRITE) in sets(response.header_mutation)


def test_repeated_names_stand_beside_each_other():
    """Two cookies stay two; the first replaces what the upstream had set."""
    head = ForwardHead(set_headers=(("set-cookie", "a=1"), ("set-cookie", "b=2")))
    mutation = parsed(messages.response_head_reply(head, drop_length=True)).response_headers.response.header_mutation
    assert sets(mutation) == [("set-cookie", b"a=1", OVERWRITE), ("set-cookie", b"b=2", APPEND)]
    assert [option.append.value for option in mutation.set_headers] == [False, True]
    assert list(mutation.remove_headers) == ["content-length"]


def test_a_target_is_set_as_the_path():
    """The path goes on as the gate wrote it, byte for byte."""
    reply = parsed(messages.request_reply(ForwardRequest(target="/a/%C3%A9?x=1")))
    assert sets(reply.request_headers.response.header_mutation) == [(":path", b"/a/%C3%A9?x=1", OVERWRITE)]


@pytest.mark.parametrize("value", ["a\r\nset-cookie: x", "a\nb", "a\0b"])
def test_a_header_value_that_would_end_its_line_is_a_bug(value):
    """Nothing is written for it: the caller's outermost boundary turns this into a 500."""
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        messages.response_head_reply(ForwardHead(set_headers=(("x", value),)), drop_length=False)


@given(st.text(st.characters(max_codepoint=255, blacklist_characters="\r\n\0")))
def test_header_values_survive_as_latin_1(value):
    """Bytes that are not UTF-8 come and go unchanged."""
    head = pb.HttpHeaders(headers=pb.HeaderMap(headers=[pb.HeaderValue(key="X-A", raw_value=value.encode("latin-1"))]))
    _, headers = messages.read_headers(head)
    assert headers == (("x-a", value),)
    mutation = parsed(messages.request_reply(ForwardRequest(set_headers=headers))).request_headers.response
    assert sets(mutation.header_mutation) == [("x-a", value.encode("latin-1"), OVERWRITE)]


def test_a_refusal_is_problem_details_that_no_cache_keeps():
    """Status, media type, cache rule, exchange id and extra headers are all there; the details are constant."""
    refuse = Refuse(UnknownCredential(), "ex-1", (("www-authenticate", "Bearer"),))
    answer = parsed(messages.refusal_reply(refuse)).immediate_response
    assert answer.status.code == 401
    assert answer.details == messages.DETAILS
    assert sets(answer.headers) == [
        ("www-authenticate", b"Bearer", OVERWRITE),
        ("content-type", b"application/problem+json", OVERWRITE),
        ("cache-control", b"no-store", OVERWRITE),
    ]
    assert json.loads(answer.body) == {
        "type": "urn:gharial:error:identity.unknown_credential",
        "title": "The credential is not valid",
        "status": 401,
        "code": "identity.unknown_credential",
        "exchange": "ex-1",
    }


def test_what_an_error_says_to_operators_is_not_in_the_refusal():
    """Only code and title leave; an exception's text may name paths."""
    assert b"secret-place" not in messages.refusal_reply(Refuse(GateFull("secret-place")))


def test_every_mode_but_four_is_unknown():
    """A mode of a later Envoy is not spoken, rather than guessed."""
    assert [messages.body_mode(number) for number in (0, 1, 2, 3, 4, 5, 6, 99)] == [
        BodyMode.NONE,
        BodyMode.STREAMED,
        BodyMode.BUFFERED,
        BodyMode.UNKNOWN,
        BodyMode.DUPLEX,
        *[BodyMode.UNKNOWN] * 3,
    ]


def test_attributes_that_are_missing_read_as_empty():
    """No attribute means that nobody vouches: no route, and not from the upstream."""
    message = pb.ProcessingRequest()
    assert (messages.route_name(message), messages.code_details(message)) == ("", "")
    message.attributes["envoy.filters.http.ext_proc"].fields["xds.route_name"].string_value = "customer"
    assert (messages.route_name(message), messages.code_details(message)) == ("customer", "")
