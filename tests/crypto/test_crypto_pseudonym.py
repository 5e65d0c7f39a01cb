"""One-way techniques: the same for the same value, other ones for other recipients, and never the value."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.crypto.keyset import create_keyset, rotate
from gharial.crypto.pseudonym import pseudonymiser, shift_of, substituter
from gharial.crypto.token import Binding
from gharial.model.finding import Kind

KEYSET = create_keyset(random.Random(81).randbytes, 1.0)
OWN = Binding("default", "name", "client", "acme")
OTHERS = [
    Binding("default", "name", "client", "globex"),
    Binding("default", "name", "team", "acme"),
    Binding("default", "city", "client", "acme"),
    Binding("other", "name", "client", "acme"),
]
CITIES = ("Springfield", "Riverton", "Lakeside", "Fairview")


@given(st.sampled_from(list(Kind)), st.text())
def test_pseudonyms(kind, text):
    """26 characters whatever the value; equal for equal values, other ones for every other recipient, tag and type."""
    own = pseudonymiser(KEYSET, OWN)
    made = own(kind, text)
    assert made is not None
    assert len(made) == len("psn_") + 22
    assert own(kind, text) == made
    assert len({made, *(pseudonymiser(KEYSET, other)(kind, text) for other in OTHERS)}) == 5
    assert own(kind, text + "x") != made
    assert own(Kind.NULL if kind is not Kind.NULL else Kind.STRING, text) != made


@given(st.text() | st.sampled_from([*CITIES, "RIVERTON", "lakeside"]))
def test_substitutes(text):
    """One of the list, always the same, and never the value itself in any case of letters."""
    run = substituter(KEYSET, OWN, CITIES)
    got = run(Kind.STRING, text)
    assert got in CITIES
    assert got == run(Kind.STRING, text)
    assert got is not None
    assert got.casefold() != text.casefold()


def test_all_substitutes_are_used():
    """Values spread over the whole list."""
    run = substituter(KEYSET, OWN, CITIES)
    assert {run(Kind.STRING, str(number)) for number in range(200)} == set(CITIES)


@given(st.text(min_size=1), st.integers(1, 3650))
def test_shifts(person, days):
    """Between 1 and the most, forth or back, never 0; the same for all tags of a person and recipient."""
    by = shift_of(KEYSET, OWN, person, days)
    assert 1 <= abs(by) <= days
    assert by == shift_of(KEYSET, Binding("default", "birth", "client", "acme"), person, days)


def test_shifts_reach_every_day():
    """Over many people each number of days occurs, in both directions."""
    found = {shift_of(KEYSET, OWN, f"person {number}", 3) for number in range(300)}
    assert found == {-3, -2, -1, 1, 2, 3}
    other = [shift_of(KEYSET, OTHERS[0], f"person {number}", 30) for number in range(50)]
    assert other != [shift_of(KEYSET, OWN, f"person {number}", 30) for number in range(50)]


def test_a_rotation_changes_nothing():
    """What a recipient has joined over years does not fall apart."""
    rotated = rotate(KEYSET, random.Random(82).randbytes, 2.0)
    assert pseudonymiser(rotated, OWN)(Kind.STRING, "a") == pseudonymiser(KEYSET, OWN)(Kind.STRING, "a")
    assert shift_of(rotated, OWN, "p", 30) == shift_of(KEYSET, OWN, "p", 30)


def test_what_can_not_be_made():
    """No UTF-8, no recipient, no choice."""
    assert pseudonymiser(KEYSET, OWN)(Kind.STRING, "\ud800") is None
    assert substituter(KEYSET, OWN, CITIES)(Kind.STRING, "\ud800") is None
    nobody = Binding("default", "name", "client", "")
    with pytest.raises(ValueError, match="recipient"):
        pseudonymiser(KEYSET, nobody)
    with pytest.raises(ValueError, match="recipient"):
        shift_of(KEYSET, nobody, "p", 30)
    for choices in ((), ("a",), ("a", "A")):
        with pytest.raises(ValueError, match="choose"):
            substituter(KEYSET, OWN, choices)
