"""Texts that name nobody."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.model.names import is_blank


@pytest.mark.parametrize(
    "text", ["", " ", "\t\r\n", "\xa0", "\u2003", "\u200b\u200d", "\ufeff", "\0", "\u3164", "\u2800"]
)
def test_a_text_without_anything_to_see_is_blank(text: str) -> None:
    """White space, controls, zero-width characters, fillers, in any number."""
    assert is_blank(text * 3)


@pytest.mark.parametrize("text", ["0", "a", " a ", "\u200b7", "\xe9", "-", "\u0301", "\ud800", "\u6f22"])
def test_a_text_with_something_to_see_is_not(text: str) -> None:
    """One visible character is enough, a lone surrogate or a bare accent too."""
    assert not is_blank(text)


@given(st.text())
def test_whatever_is_stripped_for_a_persons_digest_is_blank(text: str) -> None:
    """So no two texts become one person because nothing of either is left."""
    assert is_blank(text) or unicodedata.normalize("NFC", text).strip()


def test_every_white_space_is_blank() -> None:
    """All that `strip` takes away."""
    assert all(is_blank(chr(code)) for code in range(sys.maxunicode + 1) if chr(code).isspace())
