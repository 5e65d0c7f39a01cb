"""What format-preserving encryption may write with: policies name it, ciphers use it."""

from __future__ import annotations

_DIGITS = "0123456789"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

ALPHABETS = {"digits": _DIGITS, "letters": _LETTERS, "alnum": _DIGITS + _LETTERS}
"""Alphabets that have a name; any other is written out."""
MIN_FPE_DOMAIN = 1_000_000
"""The fewest texts among which FF1 may choose (NIST SP 800-38G Rev. 1, second public draft, section 5)."""
MAX_FPE_CHARS = 100
"""The most characters that are encrypted together; FF1's work grows with their square."""


def written_out(alphabet: str) -> str:
    """Return the characters of an alphabet, given by its name or written out."""
    return ALPHABETS.get(alphabet, alphabet)
