"""CEL, the escape hatch of conditions: type-checked when a policy is loaded, bounded in what it may cost. Pure.

The Common Expression Language (github.com/google/cel-spec), in the part that conditions need: comparisons, `&&`, `||`,
`!`, `in`, `has`, `startsWith`, `endsWith`, `contains`, `matches` (RE2), `size`, conversions, times, and `all`,
`exists`, `exists_one` over a list. What could build large values out of small ones (`map`, `filter`, `+`, loops within
loops) is not there: the library counts an expression's steps, but not what each of them costs.

The library is imported with the first expression, so that a policy without one does not pay for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from gharial.model.caller import ANONYMOUS
from gharial.policy.suggest import did_you_mean

MAX_CEL_CHARS = 1_000
"""Length of one expression."""

_TEXTS = ("client", "team", "user", "purpose", "country", "network", "weekday")
CEL_VARIABLES: Final = frozenset({*_TEXTS, "roles", "claims", "hour"})
"""The names an expression may use; `hour` is 0 to 23 in UTC, `weekday` mon to sun."""

_CONFIG = """
name: gharial
stdlib:
  include_macros: [has, all, exists, exists_one]
  exclude_functions: [{ name: "_+_" }]
"""
_PLACE = re.compile(r"<input>:(\d+):(\d+): ([^\n]*)")
_UNDECLARED = re.compile(r"undeclared reference to '([^']*)' \(in container ''\)")
_OPERATORS = frozenset({"_+_"})
_NOT_HERE = re.compile(r"\.\s*(map|filter|bind|format|join)\s*\(")
_EXPECTING = re.compile(r" expecting \{.*")
_MISSING = re.compile(r"\A(?:UNKNOWN: No value with name |NOT_FOUND: Key not found in map )")
_MAX_MESSAGE_CHARS = 200
_MAX_INT = 2**63


class CelError(ValueError):
    """An expression can't be used. `offset` is where in its text (characters from 0), or None if that is not known."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


class CelFailed(Exception):
    """An expression could not be evaluated for these facts, so nothing follows from it: the exchange is refused."""

    def __init__(self) -> None:
        # The library's text quotes values; this one never does.
        super().__init__("an expression of the policy could not be evaluated")


class CelMissing(CelFailed):
    """The outcome depends on a fact that is missing: a grant's condition does not hold then, a guardrail's does."""


@dataclass(frozen=True, slots=True)
class CelProgram:
    """A checked expression. `reads` are the facts its outcome can depend on, `claims.NAME` for a single claim."""

    text: str
    reads: frozenset[str]
    _names: tuple[str, ...] = field(repr=False, compare=False)
    _expression: Any = field(repr=False, compare=False)

    def holds(self, facts: Mapping[str, object]) -> bool:
        """Return the outcome for these facts, by the names of CEL_VARIABLES.

        A fact that is not there, None, empty, or the client `anonymous` is missing. Raises CelMissing if the outcome
        depends on a missing fact (`country == 'DE' || hour < 6` at night does not), and CelFailed if it has none for
        another reason: types that do not fit, a number out of range, the library's limit of steps.
        """
        given = {name: value for name in self._names if (value := _given(name, facts.get(name))) is not None}
        try:
            result = self._expression.eval(data=given)
            outcome = result.value()
            is_error = result.type().name() == "ERROR"
        except (RuntimeError, TypeError, ValueError, OverflowError):
            # The library speaks mostly through these, `RuntimeError` being its own for "iteration budget exceeded".
            raise CelFailed from None
        # Errors are values in this library, and their value is a text: without this look it would read as true.
        if is_error:
            raise (CelMissing if isinstance(outcome, str) and _MISSING.match(outcome) else CelFailed)
        if outcome is True:
            return True
        if outcome is False:
            return False
        raise CelFailed


def compile_cel(text: str) -> CelProgram:
    """Check an expression over CEL_VARIABLES: its syntax, its types, that it is a condition, and what it may cost.

    Raises CelError.
    """
    if len(text) > MAX_CEL_CHARS:
        raise CelError(f"an expression is at most {MAX_CEL_CHARS:,} characters long")
    if not text.strip():
        raise CelError("the expression is empty")
    if not text.isascii() and not _is_unicode(text):
        raise CelError("the expression holds half of a character (a lone surrogate)")
    from gharial.policy.cel_tree import examine

    try:
        expression = _environment().compile(text)
        kind = expression.return_type().name()
        serialized = expression.serialize()
    except (RuntimeError, TypeError, ValueError) as error:
        raise _readable(str(error), text) from None
    if kind != "BOOL":
        what = "a claim of any type; compare it, e.g. == true" if kind == "DYN" else f"of type {kind.lower()}"
        raise CelError(f"an expression is a condition, true or false; this one is {what}")
    try:
        tree = examine(serialized, CEL_VARIABLES)
    except ValueError:
        raise CelError("what the expression may cost can't be told") from None
    complaints = [*tree.complaints, *("this pattern can't be read" for p in tree.patterns if not _is_pattern(p))]
    if complaints:
        raise CelError("; ".join(dict.fromkeys(complaints)))
    names = tuple(sorted({name.partition(".")[0] for name in tree.reads}))
    program = CelProgram(text, frozenset(tree.reads), names, expression)
    if not program.reads:
        _try_constant(program)
    return program


def _try_constant(program: CelProgram) -> None:
    """An expression that reads nothing has one outcome; where that is a failure, every exchange would be refused."""
    try:
        program.holds({})
    except CelFailed:
        raise CelError("the expression reads no fact, and can't be evaluated") from None


@cache
def _environment() -> Any:
    from cel_expr_python import cel

    types = {
        **dict.fromkeys(_TEXTS, cel.Type.STRING),
        "roles": cel.Type.List(cel.Type.STRING),
        "claims": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
        "hour": cel.Type.INT,
    }
    return cel.NewEnv(config=cel.NewEnvConfigFromYaml(_CONFIG), variables=types)


@cache
def _pattern_probe() -> Any:
    return _environment().compile("client.matches(user)")


def _is_pattern(pattern: str) -> bool:
    """Say whether the library (RE2) takes a pattern; it looks at patterns only when it evaluates."""
    return str(_pattern_probe().eval(data={"client": "", "user": pattern}).type().name()) == "BOOL"


def _readable(said: str, text: str) -> CelError:
    """Return the library's first complaint, with its place counted from the text's beginning."""
    if "Iteration budget" in said or "recursion" in said:
        return CelError("the expression is too large: it nests too deeply, or loops too often")
    found = _PLACE.search(said)
    if found is None:
        return CelError("the expression can't be read")
    line, column, message = int(found[1]), int(found[2]), found[3]
    message = _EXPECTING.sub("", message.removesuffix(" [INVALID_ARGUMENT]"))
    unknown = _UNDECLARED.search(message)
    absent = _NOT_HERE.search(text)
    if unknown is not None and unknown[1] in _OPERATORS:
        message = f"'{unknown[1].strip('_')}' is not available in conditions"
    elif unknown is not None and absent is not None:
        message = f"'{absent[1]}' is not available in conditions"
    elif unknown is not None:
        message = f"unknown name {did_you_mean(unknown[1], CEL_VARIABLES)}"
    lines = text.split("\n")
    offset = None
    if 1 <= line <= len(lines):
        offset = min(sum(len(before) + 1 for before in lines[: line - 1]) + column - 1, len(text))
    return CelError(message[:_MAX_MESSAGE_CHARS], offset)


def _given(name: str, value: object) -> object | None:
    """Return a fact as the library takes it, or None where it is missing."""
    if name == "claims":
        # Never missing as a whole: `has(claims.x)` is an answer also for a caller without any.
        claims = value if isinstance(value, Mapping) else {}
        return {
            key: given for key, claim in claims.items() if _is_unicode(key) and (given := _claim(claim)) is not None
        }
    if value is None or value in ("", (), []) or (name == "client" and value == ANONYMOUS):
        return None
    if isinstance(value, str):
        return value if _is_unicode(value) else None
    return list(value) if isinstance(value, tuple | list) else value


def _claim(value: object) -> object | None:
    """Return a claim, or None for one that no expression could compare: it counts as missing, and spoils no other."""
    if isinstance(value, tuple | list):
        items = [_claim(item) for item in value]
        return None if any(item is None for item in items) else items
    if isinstance(value, str):
        return value if value and _is_unicode(value) else None
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -_MAX_INT <= value < _MAX_INT else None
    return None


def _is_unicode(text: str) -> bool:
    """Say whether a text has a UTF-8 form; JSON can spell half of a character, and the library can't take it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
