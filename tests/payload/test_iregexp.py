"""Patterns of match() and search(): as the standard engine, without its worst cases."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.effort import examples

from gharial.payload.iregexp import Pattern


def matches(pattern: str, text: str, *, whole: bool) -> bool:
    return Pattern(pattern).matches(text, whole=whole, spend=lambda _: None)


_ATOMS = st.sampled_from(
    ["a", "b", "c", ".", "[ab]", "[^a]", "[a-c]", r"\.", r"\d", r"\w", "[0-9_]", r"[^\s]", "-", "é"]
)
_QUANTIFIERS = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "*?"])


def _longer(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pieces = st.builds(lambda p, q: f"({p}){q}", inner, _QUANTIFIERS)
    return st.one_of(
        st.lists(st.one_of(pieces, st.builds(str.__add__, _ATOMS, _QUANTIFIERS)), max_size=3).map("".join),
        st.builds("{}|{}".format, inner, inner),
        st.builds("^{}".format, inner),
        st.builds("{}$".format, inner),
    )


@given(st.recursive(_ATOMS, _longer, max_leaves=8), st.text("abc.1-_ é\n", max_size=6), st.booleans())
@settings(max_examples=examples(1500))
@example("", "", True)
@example("(a|b)*c{2,3}", "ababccc", True)
@example("x*", "", False)
@example("^a|b$", "ca", False)
@example("(|a)+", "aa", True)
def test_it_agrees_with_the_standard_engine(pattern: str, text: str, whole: bool) -> None:
    """The same texts match, wholly or in part."""
    standard = re.compile(pattern.replace("$", r"\Z"))
    want = standard.fullmatch(text) if whole else standard.search(text)
    assert matches(pattern, text, whole=whole) == bool(want)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [(r"\p{Lu}\p{Ll}+", "Ann"), (r"[\p{N}\-]+", "1-²"), (r"\P{L}", "1"), (r"[^\P{L}a]", "b"), (r"a\n\t", "a\n\t"),
     (r"[]a]+", "]a"), (r"[a-]+", "a-"), (r"[\]\\^]+", "]\\^"), (r"\$\^", "$^"), (r".", "😀")],
)  # fmt: skip
def test_what_the_rfc_has(pattern: str, text: str) -> None:
    """Categories, escapes and classes of RFC 9485."""
    assert matches(pattern, text, whole=True)
    assert not matches(pattern, text + "\n ", whole=True)


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "*", "a**", "+a", "[", "[a", "[]", "[b-a]", "{2}", "a{2,1}", "\\", r"\q", r"\1", r"\b", r"\Z",
     "(?:a)", "(?=a)", "a++", r"\p{Xx}", r"\p", "a{99999}", "(a{100}){100}", "(" * 2000, "x" * 1001, "a{1000}{1000}"],
)  # fmt: skip
def test_what_is_no_pattern_is_an_error(pattern: str) -> None:
    """Never a pattern that silently matches nothing, or is too large to follow."""
    with pytest.raises(ValueError, match="a pattern"):
        Pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|a)+b", "(a|aa)+b", "a*a*a*a*a*b", "(a?){50}a{50}b", "((a+)+)+b"])
def test_no_pattern_blows_up(pattern: str) -> None:
    """Patterns that take other engines years take milliseconds, and say what they cost."""
    spent: list[int] = []
    started = time.process_time()
    assert not Pattern(pattern).matches("a" * 5000, whole=False, spend=spent.append)
    assert time.process_time() - started < 3
    assert len(spent) == 5000
