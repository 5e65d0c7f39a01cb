"""JSONPath beyond the regular subset: checked when a policy is read, and run by the reference executor only.

Work stays bounded: the text is short, functions are those of RFC 9535, and a pattern of match() or search() can't
blow up. What could never select anything is a mistake, for its author believes that it does.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

from jsonpath import JSONPathEnvironment
from jsonpath.exceptions import JSONPathError
from jsonpath.filter import (
    BaseExpression,
    BooleanLiteral,
    FilterExpression,
    FilterExpressionLiteral,
    FilterQuery,
    FunctionExtension,
    InfixExpression,
    StringLiteral,
)
from jsonpath.path import JSONPath
from jsonpath.segments import JSONPathSegment
from jsonpath.selectors import Filter, NameSelector, SingularQuerySelector, SliceSelector

from gharial.model.place import GeneralPath, PlaceError

MAX_GENERAL_CHARS = 1_000
"""Length of one general path."""
MAX_PATTERN_CHARS = 200
"""Length of a pattern of match() or search()."""
MAX_UNBOUNDED = 3
"""`*`, `+` and `{n,}` in one pattern: the time for a text grows with a power of its length as high as this."""
_FUNCTIONS = ("length", "count", "match", "search", "value")
_ENVIRONMENT = JSONPathEnvironment(strict=True)


def parse_general(text: str) -> GeneralPath:
    """Check a JSONPath of RFC 9535. Raises PlaceError."""
    path = _compile(text)
    for segment in path.segments:
        _check_segment(segment)
    return GeneralPath(text)


def last_names(path: GeneralPath) -> tuple[str, ...]:
    """Return the names of the members that a path ends with; none where it ends with a filter, index or wildcard."""
    segments = list(_compile(path.text).segments)
    while segments:
        selectors = segments.pop().selectors
        names = tuple(selector.name for selector in selectors if isinstance(selector, NameSelector))
        if names:
            return names
    return ()


def _compile(text: str) -> JSONPath:
    if len(text) > MAX_GENERAL_CHARS:
        raise PlaceError(f"a path with filters, slices or unions has at most {MAX_GENERAL_CHARS:,} characters", 0)
    try:
        path = _ENVIRONMENT.compile(text)
    except JSONPathError as error:
        offset = error.token.index if error.token is not None and error.token.index >= 0 else len(text)
        raise PlaceError(f"not a JSONPath (RFC 9535): {error.args[0]}", offset) from None
    except (ValueError, OverflowError, RecursionError):
        raise PlaceError("not a JSONPath (RFC 9535)", 0) from None
    if not isinstance(path, JSONPath):
        raise PlaceError("a place is one path", 0)
    return path


def _check_segment(segment: JSONPathSegment) -> None:
    for selector in segment.selectors:
        offset = max(selector.token.index, 0)
        if isinstance(selector, SliceSelector):
            _check_slice(selector.slice, offset)
        elif isinstance(selector, Filter):
            for expression in _walk(selector.expression):
                _check_expression(expression, offset)
        elif isinstance(selector, SingularQuerySelector):
            raise PlaceError("a path inside brackets is not a selector of RFC 9535", offset)


def _check_slice(span: slice, offset: int) -> None:
    step = 1 if span.step is None else span.step
    start, stop = span.start, span.stop
    same_side = start is not None and stop is not None and (start < 0) == (stop < 0)
    if step == 0 or stop == 0 < step or (same_side and (start >= stop if step > 0 else start <= stop)):
        raise PlaceError("this slice selects nothing", offset)


def _walk(expression: BaseExpression) -> Iterator[BaseExpression]:
    waiting = [expression]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += found.children()
        if isinstance(found, FilterQuery):
            for segment in found.path.segments:
                _check_segment(segment)


def _check_expression(expression: BaseExpression, offset: int) -> None:
    if isinstance(expression, InfixExpression) and not expression.logical:
        if _is_literal(expression.left) and _is_literal(expression.right):
            raise PlaceError("two constants are compared here; the outcome is the same for every body", offset)
    elif isinstance(expression, FilterExpression) and isinstance(expression.expression, BooleanLiteral):
        raise PlaceError("a filter that is always or never true", offset)
    elif isinstance(expression, FunctionExtension):
        if expression.name not in _FUNCTIONS:
            raise PlaceError(f"{expression.name}() is not a function of RFC 9535", offset)
        if expression.name in ("match", "search"):
            pattern = expression.args[1]
            if not isinstance(pattern, StringLiteral):
                raise PlaceError(f"the pattern of {expression.name}() is written out, as a text", offset)
            what = find_pattern_fault(pattern.value)
            if what:
                raise PlaceError(f"the pattern of {expression.name}() {what}", offset)


def _is_literal(expression: BaseExpression) -> bool:
    return isinstance(expression, FilterExpressionLiteral)


_QUANTIFIER = re.compile(r"[*+?]|\{[0-9]*,?[0-9]*\}")
_BOUNDS = re.compile(r"\{([0-9]+)(,?)([0-9]*)\}")
_MAX_REPEAT = 100
# Escapes of Python's own, `{,n}`, and possessive quantifiers; two backslashes are one character.
_NOT_I_REGEXP = re.compile(r"(?<!\\)(?:\\\\)*\\[^dwsDWSnrt\\|.?*+(){}\[\]^$-]|\{,|[*+?}]\+")


def find_pattern_fault(pattern: str) -> str:
    """Say why a pattern may not be used; "" if it may. Refused is what makes matching slow, beside bad syntax.

    That is a quantifier on a group that itself holds a quantifier or `|`, many unbounded quantifiers, and what
    I-Regexp (RFC 9485) does not have: back references and look-around.
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        return f"is longer than {MAX_PATTERN_CHARS} characters"
    try:
        with warnings.catch_warnings():
            # `[[a]` means something else in a later Python.
            warnings.simplefilter("error", FutureWarning)
            re.compile(pattern)
    except (re.error, FutureWarning, OverflowError, RecursionError):
        return "is not a regular expression"
    if "(?" in pattern or _NOT_I_REGEXP.search(pattern):
        return "uses what I-Regexp (RFC 9485) does not have"
    # For each open group, whether something in it is repeated or one of several: then it may not be repeated itself.
    branching = [False]
    unbounded, at, closed = 0, 0, False
    while at < len(pattern):
        quantifier = _QUANTIFIER.match(pattern, at)
        if quantifier and at:
            bounds = _BOUNDS.fullmatch(quantifier[0])
            if closed and quantifier[0] != "?":
                return "repeats a group in which something is repeated or one of several"
            if quantifier[0] in "*+" or (bounds and bounds[2] and not bounds[3]):
                unbounded += 1
            if bounds and max(int(bounds[1]), int(bounds[3] or 0)) > _MAX_REPEAT:
                return f"repeats something more than {_MAX_REPEAT} times"
            branching[-1] = True
            at, closed = quantifier.end(), False
            continue
        char, closed = pattern[at], False
        if char == "\\":
            at += 1
        elif char == "[":
            at = _end_of_class(pattern, at)
        elif char == "(":
            branching.append(False)
        elif char == "|":
            branching[-1] = True
        elif char == ")" and len(branching) > 1:
            closed = branching.pop()
            branching[-1] = branching[-1] or closed
        at += 1
    return f"has more than {MAX_UNBOUNDED} unbounded quantifiers" if unbounded > MAX_UNBOUNDED else ""


def _end_of_class(pattern: str, at: int) -> int:
    """The index of the `]` that ends the class beginning at `at`; its first character may be `]` itself."""
    at += 2 if pattern[at + 1 : at + 2] == "^" else 1
    first = True
    while at < len(pattern) and (pattern[at] != "]" or first):
        at += 2 if pattern[at] == "\\" else 1
        first = False
    return at
