"""Keys of people: what is made with one opens with that one alone, and nothing tells whose it is."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.key_needles import key_needles, leaks_in

from gharial.crypto.digest import person_digest
from gharial.crypto.encoding import find_base64url
from gharial.crypto.envelope import open_envelope
from gharial.crypto.keyset import Keyset, KeyState, create_keyset, rotate, set_state
from gharial.crypto.receipt import public_keys, sign_receipt, verify_receipt, verify_with_public_key
from gharial.crypto.subject import (
    PersonKey,
    Subject,
    SubjectEncrypter,
    SubjectSealer,
    find_sealed_envelope,
    find_sealed_token,
    find_subject,
    is_subject_envelope,
    is_subject_token,
    new_person_key,
    open_with_subject,
    person_digests,
)
from gharial.crypto.token import Binding, open_token, seal_token
from gharial.crypto.trace import Stray, Traced, Tracer, Untraced
from gharial.crypto.vault import find_token
from gharial.model.errors import TokenRefused
from gharial.model.finding import Kind

KEYSET = create_keyset(random.Random(41).randbytes, 1.0)
OTHER_KEYSET = create_keyset(random.Random(42).randbytes, 1.0)
BINDING = Binding("default", "account", "client", "acme-billing")
OTHERS = [
    replace(BINDING, tenant="other"), replace(BINDING, tag="iban"), replace(BINDING, scope="team"),
    replace(BINDING, recipient="acme-desk"), replace(BINDING, scope="all", recipient=""),
]  # fmt: skip
ANN, BOB = Subject(b"A" * 16, b"\x01" * 32), Subject(b"B" * 16, b"\x02" * 32)
texts = st.text(st.characters(exclude_categories=["Cs"]))
kinds = st.sampled_from([Kind.STRING, Kind.NUMBER, Kind.BOOLEAN])


def token(text: str = "PLANTED-4711", *, subject: Subject = ANN, binding: Binding = BINDING) -> str:
    return SubjectSealer(KEYSET, binding).token(subject, Kind.STRING, text.encode())


def opened(text: str, subject: Subject = ANN, binding: Binding = BINDING, keyset: Keyset = KEYSET) -> str | None:
    found = find_sealed_token(keyset, [binding], text)
    if found is None:
        return None
    assert found[1].handle in (ANN.handle, BOB.handle)
    try:
        return open_with_subject(subject, found[1])[1]
    except TokenRefused:
        return None


@given(kinds, texts)
def test_a_token_comes_back_with_its_type_and_is_always_the_same(kind: Kind, text: str):
    """Every value, the empty one too; one value of one person has one token for one recipient."""
    made = SubjectSealer(KEYSET, BINDING).token(ANN, kind, text.encode())
    assert made == SubjectSealer(KEYSET, BINDING).token(ANN, kind, text.encode())
    found = find_sealed_token(KEYSET, [*OTHERS[:2], BINDING], made)
    assert found is not None
    assert (found[0], found[1].handle) == (BINDING, ANN.handle)
    assert open_with_subject(ANN, found[1]) == (kind, text)


@given(kinds, texts)
def test_an_envelope_comes_back_and_is_never_the_same(kind: Kind, text: str):
    """Two envelopes of one value share nothing; each opens with its person's key."""
    encrypter = SubjectEncrypter(KEYSET, "default", "email", os.urandom)
    one, two = (encrypter.envelope(ANN, kind, text.encode()) for _ in "12")
    assert not shared(one, two)
    for made in (one, two):
        found = find_sealed_envelope(KEYSET, "default", "email", made)
        assert found is not None
        assert open_with_subject(ANN, found) == (kind, text)
        assert find_sealed_envelope(KEYSET, "default", "name", made) is None
        assert find_sealed_envelope(KEYSET, "other", "email", made) is None
        with pytest.raises(TokenRefused):
            open_with_subject(BOB, found)


def shared(one: str, two: str) -> bool:
    """Whether two tokens or envelopes have eight bytes in common behind version and key id."""
    a, b = (find_base64url(text[4:])[5:] for text in (one, two))  # type: ignore[index]
    return any(a[at : at + 8] in b for at in range(len(a) - 7))


@given(texts, texts, st.sampled_from(OTHERS))
def test_nothing_in_two_tokens_tells_that_they_are_of_one_person(one: str, two: str, other: Binding):
    """For two recipients or tags, or two values of one recipient: the handle looks like any other bytes."""
    assert not shared(token(one), token(one, binding=other))
    assert not shared(token(one), token(two, binding=other))
    if one != two:
        assert not shared(token(one), token(two))
    assert not shared(token(one), token(one, subject=BOB))


@given(texts, st.sampled_from(OTHERS))
def test_another_recipient_opens_nothing_and_learns_nothing(text: str, other: Binding):
    """Not even the handle, which alone would tell that the person was erased."""
    assert find_sealed_token(KEYSET, [other], token(text)) is None
    assert find_sealed_token(OTHER_KEYSET, [BINDING], token(text)) is None
    assert opened(token(text), BOB) is None


@given(st.data())
def test_a_changed_token_is_nobodys(data: st.DataObject):
    """One character is enough, anywhere; so is one more or less."""
    made = token()
    at = data.draw(st.integers(4, len(made) - 1))
    char = data.draw(st.sampled_from("ABab01-_").filter(lambda c: c != made[at]))
    for bad in (made[:at] + char + made[at + 1 :], made[:at], made + "A", made + "=", made.upper()):
        assert opened(bad) is None


def test_the_parts_of_two_tokens_can_not_be_exchanged():
    """The handle is bound to the value: Ann's value under Bob's handle is no token."""
    one, two = (find_base64url(token(subject=subject)[4:]) for subject in (ANN, BOB))
    assert one is not None
    assert two is not None
    from gharial.crypto.encoding import to_base64url

    assert opened("tok_" + to_base64url(one[:37] + two[37:])) is None


def test_the_kinds_of_tokens_are_told_apart():
    """A computed token, one of the vault and one under a person's key never open as one another."""
    made, computed = token(), seal_token(KEYSET, BINDING, Kind.STRING, "PLANTED-4711")
    assert (is_subject_token(made), is_subject_token(computed), find_token(made)) == (True, False, None)
    with pytest.raises(TokenRefused):
        open_token(KEYSET, BINDING, made)
    envelope = SubjectEncrypter(KEYSET, "default", "email", os.urandom).envelope(ANN, Kind.STRING, b"x")
    assert is_subject_envelope(envelope)
    assert not is_subject_token(envelope)
    with pytest.raises(TokenRefused):
        open_envelope(KEYSET, "default", "email", envelope)


def a_row(keyset: Keyset = KEYSET, person: str = "p") -> PersonKey:
    return new_person_key(keyset, "default", person, random.Random(5).randbytes, 7.0)


def test_a_row_opens_for_its_own_person_and_keyset():
    """The wrapped key is bound to tenant, person and handle; an erased, cut or altered row is no key."""
    row = a_row()
    subject = find_subject(KEYSET, "default", row)
    assert subject is not None
    assert opened(token(subject=Subject(ANN.handle, b"\x01" * 32)), ANN) == "PLANTED-4711"
    for bad in (
        replace(row, person="q"), replace(row, handle=b"B" * 16), replace(row, erased_s=9.0), replace(row, wrapped=b""),
        replace(row, wrapped=row.wrapped[:-1]), replace(row, wrapped=row.wrapped[:-1] + bytes([row.wrapped[-1] ^ 1])),
        replace(row, wrapped=bytes(len(row.wrapped))),
    ):  # fmt: skip
        assert find_subject(KEYSET, "default", bad) is None
    assert find_subject(KEYSET, "other", row) is None
    assert find_subject(OTHER_KEYSET, "default", row) is None


def test_a_persons_key_is_random_and_prints_nowhere():
    """The row holds it wrapped alone; the same keyset and person have another key with other random bytes."""
    drawn: list[bytes] = []

    def source(count: int) -> bytes:
        drawn.append(os.urandom(count))
        return drawn[-1]

    row = new_person_key(KEYSET, "default", "p", source, 7.0)
    needles = key_needles(next(data for data in drawn if len(data) == 32))
    assert not leaks_in(row.wrapped, needles)
    subject = find_subject(KEYSET, "default", row)
    assert not leaks_in(repr(subject) + repr(row), (*needles, *key_needles(row.wrapped)))
    with pytest.raises(TypeError):
        __import__("pickle").dumps(subject)


def test_a_rotation_changes_nothing_and_without_the_oldest_key_all_is_dead():
    """Rows and tokens are of the oldest enabled key."""
    rotated = rotate(KEYSET, random.Random(9).randbytes, 2.0)
    assert SubjectSealer(rotated, BINDING).token(ANN, Kind.STRING, b"PLANTED-4711") == token()
    assert find_subject(rotated, "default", a_row()) is not None
    assert opened(token(), keyset=rotated) == "PLANTED-4711"
    without = set_state(rotated, KEYSET.primary_id, KeyState.DISABLED)
    assert find_subject(without, "default", a_row()) is None
    assert opened(token(), keyset=without) is None


def test_a_person_is_found_under_every_key_that_could_come_back():
    """A disabled key may be enabled again: whoever is erased meanwhile is erased under its digest too."""
    rotated = rotate(KEYSET, random.Random(9).randbytes, 2.0)
    without = set_state(rotated, KEYSET.primary_id, KeyState.DISABLED)
    want = {person_digest(one, "default", "customer", " 42 ") for one in (KEYSET, without)}
    assert (
        set(person_digests(without, "default", "customer", "42"))
        == want
        == set(person_digests(rotated, "default", "customer", "42"))
    )
    gone = set_state(rotated, KEYSET.primary_id, KeyState.DESTROYED)
    assert person_digests(gone, "default", "customer", "42") == (person_digest(gone, "default", "customer", "42"),)


def test_trace_names_the_recipient_of_an_erased_persons_token():
    """The handle tells for whom it was made, without the person's key."""
    tracer = Tracer(KEYSET, [*OTHERS, BINDING])
    assert tracer.trace(token().encode()) == Traced(BINDING, KEYSET.primary_id)
    assert tracer.trace(token(binding=OTHERS[3]).encode()) == Traced(OTHERS[3], KEYSET.primary_id)
    assert Tracer(KEYSET, OTHERS).trace(token().encode()) == Untraced(Stray.FITS_NOBODY, KEYSET.primary_id)
    assert Tracer(OTHER_KEYSET, [BINDING]).trace(token().encode()) == Untraced(Stray.UNKNOWN_KEY, KEYSET.primary_id)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8) | st.integers() | st.lists(st.text()), max_size=4))
def test_a_receipt_is_checked_by_the_keyset_and_by_anybody_with_the_public_key(told: dict):
    """Whatever is told, and after a rotation; one changed word, or another keyset, and it does not hold."""
    for name in ("format", "version", "keyset", "key", "signature"):
        told.pop(name, None)
    receipt = sign_receipt(KEYSET, told)
    rotated = set_state(rotate(KEYSET, random.Random(9).randbytes, 2.0), KEYSET.primary_id, KeyState.DISABLED)
    assert verify_receipt(KEYSET, receipt)
    assert verify_receipt(rotated, receipt)
    assert verify_with_public_key(public_keys(KEYSET)[KEYSET.primary_id], receipt)
    assert not verify_receipt(OTHER_KEYSET, receipt)
    for bad in (
        {**receipt, "more": 1}, {**receipt, "version": 2}, {**receipt, "signature": "AAAA"}, {**receipt, "key": True},
        {name: value for name, value in receipt.items() if name != "signature"}, {},
    ):  # fmt: skip
        assert not verify_receipt(KEYSET, bad)
