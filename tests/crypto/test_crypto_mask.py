"""Masks and cut texts: what is shown, and above all what is not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.crypto.mask import HIDDEN, mask

COUNTS = st.integers(0, 6)


@given(st.text())
def test_the_default_mask_hides_everything(text):
    """Without parameters the mask is the same for every text, the empty one too: not even the length is told."""
    assert mask(text) == HIDDEN == "***"


@pytest.mark.parametrize(
    ("text", "first", "last", "want"),
    [
        ("+44 7700 900123", 0, 4, "***0123"),
        ("+44 7700 900123", 3, 0, "+44***"),
        ("DE02120300000000202051", 4, 4, "DE02***2051"),
        ("Ann", 1, 0, "A***"),
        ("Anna", 1, 1, "A***a"),
        ("1234567", 0, 4, "***"),
        ("12345678", 0, 4, "***5678"),
        ("Bo", 1, 0, "***"),
        ("Ann", 1, 1, "***"),
        ("", 1, 1, "***"),
        ("abc", 3, 0, "***"),
        ("abc", 9, 9, "***"),
        ("----1234", 0, 4, "***"),
        ("\u200b" * 8 + "1234", 0, 4, "***"),
        ("((((((12", 0, 2, "***"),
        ("abcde1\u200d2\u200d3\u200d4", 0, 1, "***4"),
        ("😀😀😀😀", 1, 0, "***"),
    ],
)
def test_first_and_last(text, first, last, want):
    """The ends are shown where at least as many letters and digits, and two of them, stay hidden; else nothing is."""
    assert mask(text, first, last) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("ann@ex.org", "***@ex.org"),
        ("a@mail.ex-ample.co.uk", "***@mail.ex-ample.co.uk"),
        ("ann@münchen.example", "***@münchen.example"),
        ("ann", "***"),
        ("", "***"),
        ("@ex.org", "***"),
        ("ann@", "***"),
        ("ann@bob@ex.org", "***"),
        ("ann@ex.org@", "***"),
        ("Ann <ann@ex.org>", "***"),
        ("met her @ 12 Main St.", "***"),
        ("ann@ex.org, bob", "***"),
        ("ann@ex.org\n", "***"),
        ("ann@192.0.2.1", "***"),
        ("ann@[192.0.2.1]", "***"),
        ("ann@localhost", "***"),
        ("4711@-ex.org", "***"),
        ("ann@ex..org", "***"),
        ("ann@ex.org.", "***"),
        ("ann@" + "a" * 64 + ".org", "***"),
        ("ann@" + "a." * 200 + "org", "***"),
        ("ann\uff20ex.org", "***"),
    ],
)
def test_keep_domain(text, want):
    """The domain is shown only if the text is one address of a host name; whatever else has an '@' is hidden."""
    assert mask(text, keep="domain") == want


def test_keep_domain_with_first_and_last():
    """The ends are those of what stands before the '@'."""
    assert mask("ann.person@ex.org", 1, 0, "domain") == "a***@ex.org"
    assert mask("an@ex.org", 1, 0, "domain") == "***@ex.org"


def test_an_unknown_keep_hides_everything():
    """A parameter of a later version does not open anything."""
    assert mask("ann@ex.org", 2, 2, "user") == HIDDEN


def test_negative_counts_show_nothing():
    """A negative count is no count: it does not wrap round to the other end."""
    assert mask("0123456789", -3, -3) == HIDDEN
    assert mask("0123456789", 2, -3) == "01***"
    assert mask("0123456789", -3, 2) == "***89"


@given(st.text("aZ09 -.é\u0301\u200d😀", max_size=30), COUNTS, COUNTS)
def test_a_mask_shows_only_its_ends_and_at_most_half(text, first, last):
    """Either all is hidden, or the text's own ends are shown, with no more letters and digits than are hidden."""
    masked = mask(text, first, last)
    head, tail = masked.split(HIDDEN)
    assert text.startswith(head)
    assert text.endswith(tail)
    middle = text[len(head) : len(text) - len(tail)] if head or tail else text
    count = sum(map(str.isalnum, middle))
    if head or tail:
        assert count >= 2
        assert count >= sum(map(str.isalnum, head + tail))
    if head:
        assert not unicodedata.combining(middle[0])


ENDS = st.text("abc019é", max_size=3)
MIDDLES = st.text("abc0123456789é", min_size=6, max_size=30)


@given(ENDS, MIDDLES, MIDDLES, ENDS)
def test_the_length_does_not_leak(head, one, other, tail):
    """Texts with the same ends, of which enough is hidden, look the same whatever their length."""
    masked = mask(head + one + tail, len(head), len(tail))
    assert masked == mask(head + other + tail, len(head), len(tail)) == head + HIDDEN + tail


def test_characters_are_not_cut():
    """A base keeps its marks, a flag and a joined emoji stay whole: no mark ends up on an asterisk."""
    assert mask("e\u0301abcd", 1, 0) == "e\u0301***"
    assert mask("abcde\u0301", 0, 1) == "***e\u0301"
    assert mask("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7abcd", 1, 0) == "\U0001f1e9\U0001f1ea***"
    assert mask("\U0001f469\u200d\U0001f680abcd", 1, 0) == "\U0001f469\u200d\U0001f680***"
    assert mask("\U0001f44d\U0001f3fdabcd", 1, 0) == "\U0001f44d\U0001f3fd***"
    assert mask("नमस्ते दुनिया", 1, 0) == "न***"


def test_what_cannot_be_written_is_hidden():
    """A lone surrogate hides all of the text that it stands in."""
    assert mask("\ud800abcdefgh", 1, 1) == mask("abcdefgh\ud800", 1, 1) == HIDDEN
