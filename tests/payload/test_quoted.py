"""JSON in single quotes: read in one way, or not at all."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.model.errors import BodyMalformed
from gharial.payload.quoted import is_quoted_singly, to_json

SCALARS = st.none() | st.booleans() | st.integers() | st.text()
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def in_single_quotes(document: object) -> str:
    """Write a document as careful clients do: with single quotes, and apostrophes escaped."""
    match document:
        case str():
            return "'" + json.dumps(document)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
        case list():
            return "[" + ",".join(map(in_single_quotes, document)) + "]"
        case dict():
            return "{" + ", ".join(f"{in_single_quotes(k)}:{in_single_quotes(v)}" for k, v in document.items()) + "}"
        case _:
            return json.dumps(document)


@given(DOCUMENTS)
def test_what_is_written_in_single_quotes_is_read_as_it_was_meant(document: object):
    """Any document, with any characters in its strings."""
    assert json.loads(to_json(in_single_quotes(document))) == document


@given(DOCUMENTS)
def test_json_is_never_taken_for_single_quotes(document: object):
    """An apostrophe inside a string of JSON makes nobody read the text in another way."""
    assert not is_quoted_singly(json.dumps(document, ensure_ascii=False))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("{'name':'O'Brien'}", {"name": "O'Brien"}),
        ("{'name':'O'Brien', 'of':'the dogs' home' }", {"name": "O'Brien", "of": "the dogs' home"}),
        ("{'a':'it''s'}", {"a": "it''s"}),
        ("['''']", ["''"]),
        ("{'a':''}", {"a": ""}),
        ("'top'", "top"),
        ("{'a':\"it's\"}", {"a": "it's"}),
        ("{'height':'5\" 2'}", {"height": '5" 2'}),
        (r"{'a':'x\', \'b'}", {"a": "x', 'b"}),
        ("{'n':1.50,'t':true,'z':null}", {"n": 1.5, "t": True, "z": None}),
    ],
)
def test_an_apostrophe_is_a_letter_only_where_it_cant_close(text: str, meant: object):
    """The rule of the contract, at its edges."""
    assert json.loads(to_json(text)) == meant


@pytest.mark.parametrize("text", ["{'a':'b", "{'a':'b}", "{'a':'\\x'}", "{'a':'\\", "{'a':\"b}"])
def test_what_has_no_end_or_no_meaning_is_refused(text: str):
    """No string is closed for the sender, and no escape is guessed."""
    with pytest.raises(BodyMalformed):
        to_json(text)


@pytest.mark.parametrize("text", ["{'a':'dogs', cats'}", "{'O', B':1}", "{'a':'b' 'c':'d'}", "{'a':'x'] }"])
def test_what_closes_too_early_is_no_json(text: str):
    """Where the rule closes a string and the text goes on as if it had not, nothing is guessed."""
    with pytest.raises((BodyMalformed, ValueError)):
        json.loads(to_json(text))


@pytest.mark.parametrize("end", ["", "\\"])
def test_a_string_without_an_end_is_looked_at_once(end: str):
    """Looking for its end again from each quote in it would take some 15 seconds."""
    started = time.process_time()
    assert not is_quoted_singly('"' + '\\"' * 40_000 + end)
    assert time.process_time() - started < 4
