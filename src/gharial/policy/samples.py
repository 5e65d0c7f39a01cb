"""Sample callers: for each fact that policies read, values that tell their conditions apart, and all combinations.

What a policy says of callers it has never seen can be tried out, for it reads a closed set of facts and asks each
whether it is one of some values. Two values of a fact that answer all questions alike need only one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from types import MappingProxyType

from gharial.model.caller import ANONYMOUS, Caller
from gharial.policy.facts import CLAIM, WEEKDAYS, Value

Facts = Mapping[str, tuple[Value, ...]]
"""Name of a fact -> its values, of which only roles, claims and consent may have several; missing ones are not here."""

HOUR, WEEKDAY = "time.hour", "time.weekday"
_MONDAY_S = 1_704_067_200.0
"""2024-01-01T00:00:00Z, a Monday: the week in which all samples live."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Values of one fact that stand for all others that answer the same; none for a fact that is missing.

    `label` is what people read: the values or groups that the policy itself names. `weight` orders combinations: the
    plainest first.
    """

    values: tuple[Value, ...]
    label: str
    weight: int


@dataclass(frozen=True, slots=True)
class Axis:
    """One fact and its samples, the missing one first."""

    fact: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What a policy asks of one fact; `texts` are the values that it names."""

    fact: str
    texts: tuple[Value, ...]
    ask: Callable[[Facts], bool] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Combination:
    """One sample of each axis, as indexes; `facts` are the values."""

    picks: tuple[int, ...]
    facts: Facts = field(default_factory=lambda: MappingProxyType({}))


def caller_of(facts: Facts, tenant: str = "default") -> tuple[Caller, float]:
    """Return a caller with exactly these facts, and the time (seconds since the epoch) at which it asks."""

    def text(name: str) -> str:
        values = facts.get(name, ())
        return str(values[0]) if values else ""

    claims = {
        name.removeprefix(CLAIM): values[0] if len(values) == 1 else tuple(values)
        for name, values in facts.items()
        if name.startswith(CLAIM) and values
    }
    caller = Caller(
        tenant=tenant,
        client=text("client") or ANONYMOUS,
        user=text("user"),
        team=text("team"),
        roles=tuple(str(role) for role in facts.get("role", ())),
        claims=MappingProxyType(claims),
        purpose=text("purpose"),
        country=text("country"),
        network=text("network"),
        source="test",
    )
    return caller, moment_s(facts)


def facts_text(facts: Facts) -> str:
    """Return facts as one line: "role care, purpose support"."""
    return ", ".join(f"{name} {' + '.join(map(str, values))}" for name, values in facts.items()) or "nobody known"


def moment_s(facts: Facts) -> float:
    """Return a time at which it is the facts' hour and weekday; noon of a Monday where they don't say."""
    hours = facts.get(HOUR, (12,))
    days = facts.get(WEEKDAY, ("mon",))
    day = WEEKDAYS.index(str(days[0])) if days and days[0] in WEEKDAYS else 0
    hour = int(hours[0]) if hours else 12
    return _MONDAY_S + day * 86_400 + hour * 3_600


def make_axis(fact: str, questions: Sequence[Question], countries: Mapping[str, frozenset[str]]) -> Axis:
    """Return the samples of one fact that tell its questions apart. `countries` are the groups of countries."""
    found: dict[tuple[bool, ...], Sample] = {}
    for sample in _candidates(fact, questions, countries):
        answers = tuple(question.ask({fact: sample.values} if sample.values else {}) for question in questions)
        # A missing fact is never the same as one that is known: who reads the result must see which it is.
        key = (*answers, not sample.values)
        held = found.get(key)
        if held is None or sample.weight < held.weight:
            found[key] = sample
    return Axis(fact, tuple(sorted(found.values(), key=lambda s: (s.weight, s.label))))


def combine(axes: Sequence[Axis], limit: int) -> tuple[tuple[Combination, ...], bool]:
    """Return combinations of samples, the plainest first, and whether there are more than `limit`."""
    found: list[Combination] = []
    for picks in _by_weight(axes):
        if len(found) == limit:
            return tuple(found), True
        facts = {
            axis.fact: axis.samples[pick].values
            for axis, pick in zip(axes, picks, strict=True)
            if axis.samples[pick].values
        }
        found.append(Combination(picks, MappingProxyType(facts)))
    return tuple(found), False


def describe(axes: Sequence[Axis], members: Iterable[tuple[int, ...]], all_: Iterable[tuple[int, ...]]) -> list[str]:
    """Say in few words which combinations `members` are among `all_`: facts that make no difference are left out.

    Returns lines like "role: care, purpose: support", of which each adds some; one empty line means all. Where it is
    shorter there is one line that begins with "everyone but ".
    """
    inside, tested = set(members), set(all_)
    lines = _lines(axes, inside, tested)
    if len(lines) > 1 and (others := _lines(axes, tested - inside, tested)) and len(others) < len(lines):
        return ["everyone but " + "; nor ".join(others)]
    return lines


def _lines(axes: Sequence[Axis], inside: set[tuple[int, ...]], tested: set[tuple[int, ...]]) -> list[str]:
    relevant = [n for n in range(len(axes)) if not _is_independent(n, inside, tested)]
    shapes = {tuple(frozenset([picks[n]]) for n in relevant) for picks in inside}
    # Lines that differ in one fact only become one line with several values of that fact.
    for position in range(len(relevant)):
        merged: dict[tuple[frozenset[int], ...], frozenset[int]] = {}
        for shape in shapes:
            rest = shape[:position] + shape[position + 1 :]
            merged[rest] = merged.get(rest, frozenset()) | shape[position]
        shapes = {(*rest[:position], values, *rest[position:]) for rest, values in merged.items()}
    lines = [
        _joined(
            [
                _clause(axes[n], values)
                for n, values in zip(relevant, shape, strict=True)
                if len(values) < len(axes[n].samples)
            ]
        )
        for shape in shapes
    ]
    return sorted(lines, key=lambda line: (len(line), line))


def _joined(clauses: list[str]) -> str:
    """Join clauses; of many that only say who it is not, the number is enough."""
    negative = [clause for clause in clauses if clause.startswith("not ")]
    if len(negative) > _MAX_SHOWN:
        clauses = [clause for clause in clauses if not clause.startswith("not ")]
        clauses.insert(len(clauses) and 1, f"none of {len(negative)} others")
    return ", ".join(clauses)


def _is_independent(axis: int, inside: set[tuple[int, ...]], tested: set[tuple[int, ...]]) -> bool:
    """True if no tested combination leaves or enters `inside` by a change of this axis alone."""
    kept: dict[tuple[int, ...], bool] = {}
    for picks in tested:
        rest = picks[:axis] + picks[axis + 1 :]
        if kept.setdefault(rest, picks in inside) != (picks in inside):
            return False
    return True


def _clause(axis: Axis, picks: frozenset[int]) -> str:
    samples = [axis.samples[pick] for pick in sorted(picks)]
    missing = [sample for sample in axis.samples if not sample.values]
    head = f"{axis.fact} " if axis.fact else ""
    if len(samples) == len(axis.samples) - 1 and missing and missing[0] not in samples and len(samples) > 1:
        return f"{head}any that is known"
    sets = [frozenset(sample.values) for sample in samples]
    # Of roles {care} and {care, partner} the second adds nothing: whoever has care.
    plain = [s for s, own in zip(samples, sets, strict=True) if not any(o and o < own for o in sets)]
    shown = [sample.label for sample in plain]
    if len(shown) > _MAX_SHOWN:
        shown = [*shown[:_MAX_SHOWN], f"{len(shown) - _MAX_SHOWN} more"]
    return f"{head}{' or '.join(shown)}"


_MAX_SHOWN = 5
_MAX_PAIRS = 2_000
_MISSING_LABELS = {"purpose": "none", "role": "none", "client": "none", "consent": "none"}
_MANY = ("role", "consent")


def _candidates(fact: str, questions: Sequence[Question], countries: Mapping[str, frozenset[str]]) -> Iterator[Sample]:
    if fact == HOUR:
        yield from (Sample((hour,), f"{hour}", int(hour != 12)) for hour in range(24))
        return
    if fact == WEEKDAY:
        yield from (Sample((day,), day, int(day != "mon")) for day in WEEKDAYS)
        return
    yield Sample((), _MISSING_LABELS.get(fact, "unknown"), 0)
    # In one order, whichever policy names them first: two policies are described alike in either direction.
    texts = {(type(text).__name__, str(text)): text for question in questions for text in question.texts}
    named = [text for _, text in sorted(texts.items())]
    if fact in ("country", "residency"):
        yield from _country_candidates(named, countries)
        if fact == "residency":
            yield Sample(("Atlantis",), "no country's code", 3)
        return
    singles = [Sample((_instance(text),), str(text), 1) for text in named]
    yield from singles
    if any(isinstance(text, str) for text in named) or not named:
        yield Sample((_other(named),), "another", 2)
    if any(isinstance(text, (int, float)) and not isinstance(text, bool) for text in named):
        yield Sample((987_654_321,), "another number", 2)
    yield from (Sample((text,), str(text).lower(), 1) for text in (True, False) if _has_bool(named))
    if fact in _MANY or fact.startswith(CLAIM):
        pairs = combinations(singles, 2)
        for _, (one, other) in zip(range(_MAX_PAIRS), pairs, strict=False):
            yield Sample((*one.values, *other.values), f"{one.label} + {other.label}", 2)
        if len(singles) > 2:
            yield Sample(tuple(s.values[0] for s in singles), "all of them", 3)


def _has_bool(named: Sequence[Value]) -> bool:
    return any(isinstance(text, bool) for text in named)


def _country_candidates(named: Sequence[Value], countries: Mapping[str, frozenset[str]]) -> Iterator[Sample]:
    codes = dict.fromkeys(text for text in named if isinstance(text, str) and text not in countries)
    groups = [text for text in named if isinstance(text, str) and text in countries]
    for code in codes:
        if "*" not in code:
            inside = [group for group in groups if code in countries[group]]
            yield Sample((code,), f"{code} (of {', '.join(inside)})" if inside else code, 1)
    for code in sorted(set().union(*(countries[group] for group in groups))):
        inside = [group for group in groups if code in countries[group]]
        yield Sample((code,), f"{' and '.join(inside)} (such as {code})", 1)
    known = set(codes).union(*(countries[group] for group in groups))
    other = next(code for code in (*_OTHER_COUNTRIES, "ZZ") if code not in known)
    yield Sample((other,), f"elsewhere (such as {other})", 2)


_OTHER_COUNTRIES = ("BR", "IN", "ZA", "JP", "KE", "PE")


def _instance(text: Value) -> Value:
    """A value that fits a glob."""
    return text.replace("*", "x") if isinstance(text, str) else text


def _other(named: Sequence[Value]) -> str:
    texts = {str(text) for text in named}
    return next(name for name in (f"other{'-' * n}" for n in range(len(texts) + 1)) if name not in texts)


def _by_weight(axes: Sequence[Axis]) -> Iterator[tuple[int, ...]]:
    """All combinations by their total weight."""
    by_weight = [
        {w: [n for n, s in enumerate(axis.samples) if s.weight == w] for w in {s.weight for s in axis.samples}}
        for axis in axes
    ]
    heaviest = sum(max(weights) for weights in by_weight)
    for total in range(heaviest + 1):
        for split in _splits([sorted(weights) for weights in by_weight], total):
            yield from product(*(weights[w] for weights, w in zip(by_weight, split, strict=True)))


def _splits(choices: Sequence[Sequence[int]], total: int) -> Iterator[tuple[int, ...]]:
    if not choices:
        if total == 0:
            yield ()
        return
    if total > sum(max(c) for c in choices):
        return
    for weight in choices[0]:
        if weight <= total:
            yield from ((weight, *rest) for rest in _splits(choices[1:], total - weight))
