"""Python's dicts and lists as a JSON text and back: JSON's own types alone, nothing else is guessed into them."""

from __future__ import annotations

import json

from gharial.model.errors import DataUnfit
from gharial.model.finding import Limits

_TOO_LARGE = "more values, or deeper, than the limits allow"


def encode_value(value: object, limits: Limits) -> bytes:
    """Return the JSON text of a value of dict, list, str, int, float, bool and None, and no subclass of these.

    Raises DataUnfit for every other type, a name that is no text, a number that JSON lacks (NaN, infinity), and for a
    value beyond `limits`, such as one that holds itself.
    """
    _check(value, limits)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
        return text.encode()
    except (ValueError, TypeError, RecursionError):
        # `from None`: the cause may quote what it could not write (a lone surrogate).
        raise DataUnfit("holds a text or number that can't be written as JSON") from None


def decode_value(text: bytes) -> object:
    """Return the value of a JSON text that has been rewritten. Raises DataUnfit if Python can't hold it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DataUnfit("the result can't be held as Python's values") from None


def _check(root: object, limits: Limits) -> None:
    """Refuse what json.dumps would turn into something of its own choice (tuples, enums, numbers as names)."""
    waiting: list[tuple[object, int]] = [(root, 1)]
    count = 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        kind = type(value)
        if count > limits.values or depth > limits.depth + 1:
            raise DataUnfit(_TOO_LARGE)
        if kind is dict:
            assert isinstance(value, dict)  # noqa: S101 - for the type checker; `kind` says so
            if any(type(name) is not str for name in value):
                raise DataUnfit("an object holds a name that is not a str")
            waiting.extend((inner, depth + 1) for inner in value.values())
        elif kind is list:
            assert isinstance(value, list)  # noqa: S101 - for the type checker; `kind` says so
            waiting.extend((inner, depth + 1) for inner in value)
        elif kind is float:
            if value != value or value in (_INFINITY, -_INFINITY):
                raise DataUnfit("holds a number that JSON lacks")
        elif kind not in (str, int, bool, type(None)):
            raise DataUnfit(f"holds a value of the type {kind.__name__}, which JSON lacks")


_INFINITY = float("inf")
