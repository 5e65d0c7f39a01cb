"""Which types of claims an expression can't take, found by trying it: whoever brings such a claim is refused. Pure.

An issuer may give a claim any type, and what the library says of types at load stops there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from gharial.policy.cel import CEL_VARIABLES, CelFailed, CelMissing, CelProgram

MAX_TRIALS = 6_000
"""Evaluations of one expression; about 15 microseconds each."""
MAX_ALL_TRIALS = 40_000
"""Evaluations of all expressions of one policy."""
_MAX_LITERALS = 4
_TEXT = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")
_INTEGER = re.compile(r"(?<![\w.])[0-9]{1,9}(?![\w.])")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LAST_HOUR = 23

TYPES: Final[Mapping[str, str]] = {
    "a text": "string", "a whole number": "int", "a fraction": "double", "true or false": "bool", "a list": "list",
}  # fmt: skip
"""The types that a claim may have, in words, and CEL's names for them."""


@dataclass(frozen=True, slots=True)
class ClaimFault:
    """A claim, as CEL writes it, the types (in words) of which it makes the expression fail, and what to test first."""

    claim: str
    types: tuple[str, ...]
    test: str


@dataclass(slots=True)
class Trials:
    """How many evaluations are left."""

    left: int = MAX_ALL_TRIALS


def literals_of(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the texts and the whole numbers that an expression names, in their order."""
    texts = dict.fromkeys(one or other for one, other in _TEXT.findall(text))
    numbers = dict.fromkeys(int(digits) for digits in _INTEGER.findall(_TEXT.sub("", text)))
    return tuple(texts), tuple(numbers)


def find_faults(program: CelProgram, trials: Trials) -> tuple[ClaimFault, ...]:
    """Return the claims of which some types make the expression fail, each tried on its own.

    The other facts take values that the expression itself names, so that no part of it stays hidden behind another
    that decides alone. Only what a trial shows is told: of an expression with very many facts some may be overlooked.
    """
    claims = sorted(name for name in program.reads if name.startswith(_CLAIM))
    judges = (_certainly, _probably, _as_a_whole)
    trial = _Trial(program, trials, MAX_TRIALS // max(1, len(judges) * len(claims)))
    found: dict[str, set[str]] = {claim: set() for claim in claims}
    for judge in judges:
        found = {claim: kinds or trial.blame(claim, judge, found) for claim, kinds in found.items()}
    return tuple(_fault(claim, kinds) for claim, kinds in found.items() if kinds)


_CLAIM = "claims."
_MAX_SETTINGS = 60
_OTHER = "no text of an expression"


_Outcomes = Mapping[str, Sequence[bool | None]]
"""Type of a claim -> what an expression says for its samples; None where it fails."""


class _Trial:
    """One expression, with samples of what its facts may be."""

    def __init__(self, program: CelProgram, trials: Trials, share: int) -> None:
        """`share` is how many evaluations may go into one call of `blame`."""
        self._program = program
        self._trials = trials
        self._share = share
        self._samples = _samples(program.text)
        self._tried = tuple((kind, value) for kind, values in self._samples.items() for value in values)

    def blame(
        self, claim: str, judge: Callable[[_Outcomes, bool], set[str]], others_wrong: Mapping[str, set[str]]
    ) -> set[str]:
        """Return the types of a claim that are to blame for failures; other claims have none of `others_wrong`."""
        facts = {
            name: self._values(name, others_wrong.get(name, set()))
            for name in sorted(self._program.reads)
            if name not in ("claims", claim)
        }
        found: set[str] = set()
        share = self._share
        for others in _settings(facts):
            cost = len(self._tried) + 1
            if min(share, self._trials.left) < cost:
                break
            share -= cost
            self._trials.left -= cost
            outcomes: dict[str, list[bool | None]] = {}
            for kind, value in self._tried:
                outcomes.setdefault(kind, []).append(self._outcome({**others, claim: value}))
            found |= judge(outcomes, self._outcome(others) is not None)
        return found

    def _values(self, name: str, wrong: set[str]) -> tuple[object, ...]:
        """Values that another fact takes in turn."""
        if name == "roles":
            return self._samples["a list"]
        if name == "hour":
            numbers = self._samples["a whole number"]
            return (12, *(n for n in numbers if isinstance(n, int) and 0 <= n <= _LAST_HOUR))
        if name in CEL_VARIABLES:
            return self._samples["a text"]
        right = [value for kind, values in self._samples.items() if kind not in wrong for value in values]
        return tuple(right) or (None,)

    def _outcome(self, facts: Mapping[str, object]) -> bool | None:
        claims = {name.removeprefix(_CLAIM): value for name, value in facts.items() if name.startswith(_CLAIM)}
        try:
            return self._program.holds({**facts, "claims": claims})
        except CelMissing:
            return False
        except CelFailed:
            return None


def _certainly(outcomes: _Outcomes, _: bool) -> set[str]:
    """Another claim's wrong type fails too, but not where this claim alone takes the outcome to true and to false."""
    seen = {outcome for of_kind in outcomes.values() for outcome in of_kind}
    return {kind for kind, of_kind in outcomes.items() if None in of_kind} if {True, False} <= seen else set()


def _probably(outcomes: _Outcomes, _: bool) -> set[str]:
    """A type that fails whatever its value, where another type does not."""
    failing = {kind for kind, of_kind in outcomes.items() if set(of_kind) == {None}}
    return failing if len(failing) < len(outcomes) else set()


def _as_a_whole(outcomes: _Outcomes, fine_without: bool) -> set[str]:
    """All types, where all fail and no claim at all does not."""
    return set(outcomes) if fine_without and all(set(of_kind) == {None} for of_kind in outcomes.values()) else set()


def _samples(text: str) -> dict[str, tuple[object, ...]]:
    """Values of each type, those among them that the expression names."""
    texts, numbers = literals_of(text)
    texts = tuple(filter(None, texts))[:_MAX_LITERALS]
    near = dict.fromkeys(n + d for n in numbers[:_MAX_LITERALS] for d in (0, 1, -1))
    return {
        "a text": (_OTHER, *texts),
        "a whole number": (7, *near),
        "a fraction": (1.5, *(n + 0.5 for n in numbers[:_MAX_LITERALS])),
        "true or false": (True, False),
        "a list": ([_OTHER], *([text] for text in texts)),
    }


def _settings(facts: Mapping[str, Sequence[object]]) -> Iterator[dict[str, object]]:
    """Yield values for all facts: every combination where these are few, else some in which each value has its turn."""
    every = prod(len(values) for values in facts.values())
    for number in range(min(every, _MAX_SETTINGS)):
        found, rest = {}, number
        for at, (name, values) in enumerate(facts.items()):
            if every <= _MAX_SETTINGS:
                rest, pick = divmod(rest, len(values))
            else:
                # Steps that differ from fact to fact, so that values do not always meet the same others.
                pick = (number * (at + 1) + number // len(values)) % len(values)
            found[name] = values[pick]
        yield found


def _fault(claim: str, failing: set[str]) -> ClaimFault:
    name = claim.removeprefix(_CLAIM)
    written = claim if _IDENTIFIER.fullmatch(name) else f"claims[{json.dumps(name)}]"
    kind = f"type({written})"
    fit = [TYPES[words] for words in TYPES if words not in failing]
    if not fit:
        test = ""
    elif len(fit) <= 2:
        test = " || ".join(f"{kind} == {name}" for name in fit)
        test = f"({test})" if len(fit) > 1 else test
    else:
        test = " && ".join(f"{kind} != {TYPES[words]}" for words in TYPES if words in failing)
    return ClaimFault(written, tuple(words for words in TYPES if words in failing), test)
