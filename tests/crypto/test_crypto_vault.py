"""Tokens from the vault: they say nothing, rows say nothing without the keyset, and rows can't be exchanged."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gharial.crypto.keyset import Keyset, KeyState, create_keyset, rotate, set_state
from gharial.crypto.token import Binding, open_token, seal_token
from gharial.crypto.vault import Entry, EntryMaker, find_token, open_sealed, write_token
from gharial.model.errors import TokenRefused
from gharial.model.finding import Kind

KEYSET = create_keyset(random.Random(31).randbytes, 1.0)
OTHER_KEYSET = create_keyset(random.Random(32).randbytes, 1.0)
BINDING = Binding("default", "account", "client", "acme-billing")
TOKEN = bytes(range(16))
PLAIN = b"sPLANTED-4711"
OTHERS = [
    replace(BINDING, tenant="other"), replace(BINDING, tag="iban"), replace(BINDING, scope="team"),
    replace(BINDING, recipient="acme-desk"), replace(BINDING, scope="all", recipient=""),
]  # fmt: skip


def an_entry(keyset: Keyset = KEYSET, binding: Binding = BINDING, plain: bytes = PLAIN) -> Entry:
    return EntryMaker(keyset, binding).make(plain, TOKEN)


def is_refused(keyset: Keyset, binding: Binding, token: bytes, sealed: bytes) -> bool:
    try:
        open_sealed(keyset, binding, token, sealed)
    except TokenRefused:
        return True
    return False


@given(st.sampled_from([Kind.STRING, Kind.NUMBER, Kind.BOOLEAN]), st.text(st.characters(exclude_categories=["Cs"])))
def test_what_was_sealed_comes_back_with_its_type(kind: Kind, text: str):
    """Every value, the empty one too, with the type that it had."""
    entry = an_entry(plain=kind.value.encode() + text.encode())
    assert open_sealed(KEYSET, BINDING, TOKEN, entry.sealed) == (kind, text)


@given(st.binary(min_size=16, max_size=16))
def test_a_token_is_as_long_as_any_other_and_holds_nothing_but_its_random_bytes(token: bytes):
    """27 characters, whatever the value; one spelling."""
    text = write_token(token)
    assert len(text) == 27
    assert find_token(text) == token


@given(st.text(alphabet="tok_AgB-=é ", max_size=40) | st.binary(max_size=30).map(lambda b: f"tok_{b.hex()}"))
def test_any_other_text_is_no_token_of_the_vault(text: str):
    """Nothing is found in another length, version or spelling."""
    found = find_token(text)
    assert found is None or write_token(found) == text


def test_the_two_kinds_of_tokens_are_told_apart():
    """A computed token is none of the vault, even one as short; and one of the vault opens nothing by itself."""
    assert find_token(seal_token(KEYSET, BINDING, Kind.STRING, "")) is None
    with pytest.raises(TokenRefused):
        open_token(KEYSET, BINDING, write_token(TOKEN))


def test_a_row_holds_nothing_clear():
    """Neither the value nor the recipient's name stands in a row, and its printed form shows none of its bytes."""
    entry = an_entry()
    for data in (entry.lookup, entry.sealed):
        assert b"PLANTED" not in data
        assert b"acme" not in data
    assert repr(entry) == "Entry()"


@pytest.mark.parametrize("other", OTHERS)
def test_another_recipient_has_another_row(other: Binding):
    """The same value of another tenant, tag, scope or recipient is looked up elsewhere, and opens for itself alone."""
    assert an_entry(binding=other).lookup != an_entry().lookup
    assert is_refused(KEYSET, other, TOKEN, an_entry().sealed)
    assert is_refused(KEYSET, BINDING, TOKEN, an_entry(binding=other).sealed)


def test_a_row_of_another_keyset_is_of_no_use():
    """Lookups and seals need the keyset."""
    assert an_entry(OTHER_KEYSET).lookup != an_entry().lookup
    assert is_refused(OTHER_KEYSET, BINDING, TOKEN, an_entry().sealed)


def test_what_is_sealed_belongs_to_its_token():
    """Whoever writes to the vault can't let a token stand for another value."""
    other = bytes(16)
    assert is_refused(KEYSET, BINDING, other, an_entry().sealed)
    maker = EntryMaker(KEYSET, BINDING)
    assert maker.holds(an_entry(), PLAIN)
    for bad in (
        replace(an_entry(), token=other),
        replace(an_entry(), token=b""),
        replace(an_entry(), sealed=an_entry(plain=b"sBob").sealed),
        replace(an_entry(), sealed=b""),
    ):
        assert not maker.holds(bad, PLAIN)
    assert not maker.holds(an_entry(), b"nPLANTED-4711")


@given(st.data())
def test_an_altered_seal_opens_nothing(data: st.DataObject):
    """One bit is enough, anywhere; so is a byte less or more."""
    sealed = bytearray(an_entry().sealed)
    at = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[at // 8] ^= 1 << at % 8
    assert is_refused(KEYSET, BINDING, TOKEN, bytes(sealed))
    assert is_refused(KEYSET, BINDING, TOKEN, an_entry().sealed + b"x")
    assert is_refused(KEYSET, BINDING, TOKEN, an_entry().sealed[: data.draw(st.integers(0, len(sealed) - 1))])


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_different_values_have_different_rows(one: bytes, other: bytes):
    """The type counts: the number 1 and the text "1" are two values."""
    assume(one != other)
    maker = EntryMaker(KEYSET, BINDING)
    assert maker.lookup(one) != maker.lookup(other)


def test_a_rotation_changes_no_token():
    """Rows are of the oldest enabled key; without that key everything gets new rows, and the old ones are dead."""
    old = KEYSET.primary_id
    rotated = rotate(KEYSET, random.Random(33).randbytes, 2.0)
    assert an_entry(rotated) == an_entry()
    assert open_sealed(rotated, BINDING, TOKEN, an_entry().sealed) == (Kind.STRING, "PLANTED-4711")
    without = set_state(rotated, old, KeyState.DISABLED)
    assert an_entry(without).lookup != an_entry().lookup
    assert is_refused(without, BINDING, TOKEN, an_entry().sealed)
    again = set_state(without, old, KeyState.ENABLED)
    assert open_sealed(again, BINDING, TOKEN, an_entry().sealed) == (Kind.STRING, "PLANTED-4711")
