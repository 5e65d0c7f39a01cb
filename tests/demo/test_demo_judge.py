"""The judge: strict enough that no spelling of a true value slips by, and blind to everything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.demo.judge import PERSONAL_FIELDS, PUBLIC_FIELDS, has_public_fields, in_clear
from gharial.demo.telecom import CUSTOMERS, customer

MASKED = {"customerId": "tok_AXWZ2rhc", "fullName": "***", "email": "***", "dob": "1969", "accountNumber": "[redacted]"}
ids = st.integers(min_value=1, max_value=CUSTOMERS)
personal = st.sampled_from(PERSONAL_FIELDS)


def reply_with(**fields: object) -> bytes:
    """A masked reply into which some fields slipped."""
    return json.dumps({**MASKED, **fields}, ensure_ascii=False).encode()


@given(ids, personal)
def test_each_personal_value_counts_wherever_it_stands(number: int, name: str):
    """One true value is enough: under its own name, another one, as a name, or within a longer text."""
    record = customer(number)
    value = record[name]
    for body in (
        reply_with(**{name: value}),
        reply_with(note=f"see {value} for more"),
        json.dumps({value: 1}, ensure_ascii=False).encode(),
        f"<p>{value}</p>".encode(),
    ):
        assert in_clear(record, body)


@given(ids, personal, st.data())
def test_escapes_do_not_hide_a_value(number: int, name: str, data: st.DataObject):
    """Any characters of a value written as \\uXXXX, in either case, are still that value."""
    record = customer(number)
    spelled = "".join(
        data.draw(st.sampled_from([char, f"\\u{ord(char):04x}", f"\\u{ord(char):04X}"])) for char in record[name]
    )
    assert in_clear(record, f'{{"x":"{spelled}"}}'.encode())


@given(ids, personal)
def test_json_within_a_string_does_not_hide_a_value(number: int, name: str):
    """A record in a string in a record, escaped twice over, is still read."""
    record = customer(number)
    inner = json.dumps({name: record[name]})
    assert in_clear(record, json.dumps({"log": inner}).encode())


def test_the_first_of_two_equal_names_counts():
    """A value under a name that comes again later is seen, although most parsers drop it."""
    record = customer(42)
    body = f'{{"fullName":"{record["fullName"]}","fullName":"***"}}'
    assert in_clear(record, body.encode())


def test_a_value_counts_in_a_reply_that_is_cut_off():
    """A broken body is judged like a whole one."""
    record = customer(42)
    assert in_clear(record, reply_with(email=record["email"])[:-30] + b'"\\u00')


@pytest.mark.parametrize("body", [b"", b"null", b"\xff\xfe", b'{"a":"\\ud800"}', b"[" * 100_000, reply_with()])
def test_a_reply_without_a_value_is_not_in_clear(body: bytes):
    """Masks, tokens, years, nonsense and hostile bodies are not in clear, and don't break the judge."""
    assert not in_clear(customer(42), body)


@given(ids, ids)
def test_another_customers_record_is_not_the_asked_ones(asked: int, other: int):
    """The judge looks for the asked person only, unless two people share a value."""
    asked_record, other_record = customer(asked), customer(other)
    shared = any(asked_record[name] == other_record[name] for name in PERSONAL_FIELDS)
    assert in_clear(asked_record, reply_with(**other_record)) == shared


@given(ids, st.sampled_from(PUBLIC_FIELDS))
def test_public_fields_must_be_there_and_true(number: int, name: str):
    """A missing, changed or retyped public field makes a record useless, and is counted so."""
    record = customer(number)
    assert has_public_fields(record, json.dumps(record).encode())
    for wrong in (
        {k: v for k, v in record.items() if k != name},
        {**record, name: "[redacted]"},
        {**record, name: None},
        {**record, "lines": str(record["lines"])},
        [record],
    ):
        assert not has_public_fields(record, json.dumps(wrong).encode())


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b"1"])
def test_what_is_no_record_has_no_public_fields(body: bytes):
    """Bodies that can't be read count as useless, not as an error of the demo."""
    assert not has_public_fields(customer(42), body)
