"""I-Regexp (RFC 9485), the patterns of match() and search(), in time that grows with the length of the text only.

A pattern becomes a set of states that are followed all at once, so there is nothing to go back to and no pattern that
blows up. Beyond the RFC, as most engines have it: `^` and `$` stand for the ends of the text, \\d \\w \\s and their
opposites for classes of characters, and `?` after a quantifier for nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_CHARS = 1_000
"""Length of a pattern."""
MAX_STATES = 5_000
"""States of a pattern, repetitions written out: what one character of the text may cost."""

_QUANTIFIER = re.compile(r"(?:([*+?])|\{([0-9]{1,4})(?:(,)([0-9]{1,4})?)?\})\??", re.ASCII)
_CATEGORY = re.compile(r"\{(L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|Z[lps]?|S[ckmo]?|C[cfno]?)\}")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_CLASSES: dict[str, Callable[[str], bool]] = {
    "d": str.isdecimal,
    "w": lambda char: char.isalnum() or char == "_",
    "s": str.isspace,
}
_END, _EITHER, _FIRST, _LAST = -1, -2, -3, -4


@dataclass(frozen=True, slots=True)
class _Class:
    """Some characters: these ranges, and what these tests accept; or all others."""

    ranges: tuple[tuple[str, str], ...] = ()
    tests: tuple[Callable[[str], bool], ...] = ()
    negated: bool = False

    def holds(self, char: str) -> bool:
        found = any(low <= char <= high for low, high in self.ranges) or any(test(char) for test in self.tests)
        return found != self.negated


_ANY = _Class((("\n", "\n"), ("\r", "\r")), negated=True)


class Pattern:
    """A compiled pattern. Raises ValueError for what is no I-Regexp, or too large."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_CHARS:
            raise ValueError(f"a pattern is longer than {MAX_CHARS} characters")
        states = _States()
        try:
            self._start = _Parser(pattern, states).parse()
        except RecursionError:
            raise ValueError("a pattern is nested too deeply") from None
        self._states = states

    def matches(self, text: str, *, whole: bool, spend: Callable[[int], None]) -> bool:
        """True if the pattern matches the text, all of it (`whole`) or some part. `spend` is told each step's cost."""
        states = self._states
        here = states.closure([self._start], first=True, last=not text)
        length = len(text)
        for at, char in enumerate(text):
            spend(len(here) + 1)
            if _END in here and not whole:
                return True
            after = [states.then[state] for state in here if state >= 0 and states.classes[state].holds(char)]
            if not whole:
                after.append(self._start)
            elif not after:
                return False
            here = states.closure(after, first=False, last=at + 1 == length)
        return _END in here


@dataclass(slots=True)
class _States:
    """`classes[i]` is what state i takes, `then[i]` where it leads. Ways without a character: see `free`.

    `free[i]`, if there is one, makes i a fork: (kind, targets), with kind _EITHER, _FIRST or _LAST.
    """

    classes: list[_Class] = field(default_factory=list)
    then: list[int] = field(default_factory=list)
    free: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)

    def add(self, taken: _Class, then: int) -> int:
        if len(self.classes) >= MAX_STATES:
            raise ValueError("a pattern has too many states")
        self.classes.append(taken)
        self.then.append(then)
        return len(self.classes) - 1

    def fork(self, kind: int, targets: tuple[int, ...]) -> int:
        at = self.add(_ANY, _END)
        self.free[at] = (kind, targets)
        return at

    def closure(self, found: list[int], *, first: bool, last: bool) -> set[int]:
        """Return the states that take a character, or _END, that these lead to for free."""
        seen: set[int] = set()
        reached: set[int] = set()
        waiting = found
        while waiting:
            state = waiting.pop()
            if state in seen:
                continue
            seen.add(state)
            way = self.free.get(state)
            if way is None:
                reached.add(state)
            elif way[0] == _EITHER or (first if way[0] == _FIRST else last):
                waiting.extend(way[1])
        return reached


_Node = Callable[[int], int]
"""A piece of a pattern: given the state that follows, adds its own and returns the first of them."""


class _Parser:
    """Reads a pattern into pieces; each can be laid out as often as it is repeated."""

    def __init__(self, pattern: str, states: _States) -> None:
        self.pattern = pattern
        self.states = states
        self.at = 0

    def parse(self) -> int:
        whole = self._alternatives()
        if self.at < len(self.pattern):
            raise ValueError("a pattern has a ')' too many")
        return whole(_END)

    def _peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise ValueError("a pattern ends too early")
        self.at += 1
        return char

    def _alternatives(self) -> _Node:
        branches = [self._branch()]
        while self._peek() == "|":
            self.at += 1
            branches.append(self._branch())
        if len(branches) == 1:
            return branches[0]
        return lambda then: self.states.fork(_EITHER, tuple(branch(then) for branch in branches))

    def _branch(self) -> _Node:
        pieces: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            pieces.append(self._piece())

        def lay(then: int) -> int:
            for piece in reversed(pieces):
                then = piece(then)
            return then

        return lay

    def _piece(self) -> _Node:
        atom = self._atom()
        found = _QUANTIFIER.match(self.pattern, self.at)
        if found is None:
            return atom
        self.at = found.end()
        sign, low_text, comma, high_text = found.groups()
        if sign:
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        else:
            low = int(low_text)
            high = int(high_text) if high_text else (None if comma else low)
        if high is not None and high < low:
            raise ValueError("a pattern repeats something fewer times than it must")
        return self._repeated(atom, low, high)

    def _repeated(self, atom: _Node, low: int, high: int | None) -> _Node:
        states = self.states

        def lay(then: int) -> int:
            if high is None:
                loop = states.fork(_EITHER, ())
                states.free[loop] = (_EITHER, (atom(loop), then))
                then = loop
            else:
                end = then
                for _ in range(high - low):
                    then = states.fork(_EITHER, (atom(then), end))
            for _ in range(low):
                then = atom(then)
            return then

        return lay

    def _atom(self) -> _Node:
        char = self._take()
        match char:
            case "(":
                if self._peek() == "?":
                    raise ValueError("a pattern uses what I-Regexp does not have")
                inner = self._alternatives()
                if self._peek() != ")":
                    raise ValueError("a pattern has a '(' that is not closed")
                self.at += 1
                return inner
            case "^":
                return lambda then: self.states.fork(_FIRST, (then,))
            case "$":
                return lambda then: self.states.fork(_LAST, (then,))
            case ".":
                return self._of(_ANY)
            case "[":
                return self._of(self._class())
            case "\\":
                return self._of(self._escape())
            case "*" | "+" | "?" | "{":
                raise ValueError("a pattern repeats nothing")
            case _:
                return self._of(_one(char))

    def _of(self, taken: _Class) -> _Node:
        return lambda then: self.states.add(taken, then)

    def _escape(self) -> _Class:
        char = self._take()
        if char in "pP":
            found = _CATEGORY.match(self.pattern, self.at)
            if found is None:
                raise ValueError("a pattern names a category that Unicode does not have")
            self.at = found.end()
            return _Class(tests=(_has_category(found[1]),), negated=char == "P")
        if char.lower() in _CLASSES:
            return _Class(tests=(_CLASSES[char.lower()],), negated=char.isupper())
        if char in _ESCAPES:
            return _one(_ESCAPES[char])
        if char.isalnum():
            raise ValueError("a pattern has an escape that I-Regexp does not have")
        return _one(char)

    def _class(self) -> _Class:
        negated = self._peek() == "^"
        self.at += negated
        ranges: list[tuple[str, str]] = []
        tests: list[Callable[[str], bool]] = []
        while self._peek() != "]" or not (ranges or tests):
            low = self._class_item(tests)
            if low is None:
                continue
            high = low
            if self._peek() == "-" and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                end = self._class_item(tests)
                if end is None or end < low:
                    raise ValueError("a pattern has a range that ends before it begins")
                high = end
            ranges.append((low, high))
        self.at += 1
        return _Class(tuple(ranges), tuple(tests), negated)

    def _class_item(self, tests: list[Callable[[str], bool]]) -> str | None:
        char = self._take()
        if char != "\\":
            return char
        escaped = self._escape()
        if escaped.tests:
            tests.append(escaped.holds)
            return None
        return escaped.ranges[0][0]


def _one(char: str) -> _Class:
    return _Class(((char, char),))


def _has_category(category: str) -> Callable[[str], bool]:
    return lambda char: unicodedata.category(char).startswith(category)
