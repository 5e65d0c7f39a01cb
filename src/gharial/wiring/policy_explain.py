"""What `gharial policy explain` says: by tag, or by the fields of a body that goes through the real reader."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gharial.crypto.keyset import create_keyset
from gharial.model.errors import ConfigInvalid, Problem
from gharial.model.place import BodyPath, PlaceError, XmlPath, fold_name, parse_place
from gharial.policy.automaton import Automaton, Move
from gharial.policy.cases import CaseProblem, Path, facts_of_who, path_text, value_text
from gharial.policy.conditions import CONSENT
from gharial.policy.countries import COUNTRIES
from gharial.policy.decide import decide
from gharial.policy.diff import compile_class
from gharial.policy.document import Policy
from gharial.policy.explain import Asked, Explanation, explain_places, explain_step
from gharial.policy.facts import CLAIM, FACTS, Value
from gharial.policy.people import find_variant
from gharial.policy.places import find_cell, find_tags, find_xml_tags, steps_of
from gharial.policy.samples import Facts, caller_of
from gharial.policy.suggest import did_you_mean
from gharial.wiring.policy_tools import Run, params_of, run_body
from gharial.wiring.world import SystemClock, random_bytes


@dataclass(frozen=True, slots=True)
class Situation:
    """Who asks about whom, in the words of the command line. `stated` are facts besides `as_`, by their names.

    Without `show_values` the names of members that a tag calls values (`keys: true`) are numbered, not named.
    """

    as_: str
    stated: Mapping[str, Value] = field(default_factory=dict)
    subject: str = ""
    beyond_budgets: bool = False
    path: str = ""
    show_values: bool = False


@dataclass(frozen=True, slots=True)
class Explained:
    """An explanation and, for a field of a body, its value and what became of it, as JSON."""

    explanation: Explanation
    given: str | None = field(default=None, repr=False)
    came: str | None = field(default=None, repr=False)


def explain_policy(policy: Policy, situation: Situation, body: bytes | None) -> list[Explained]:
    """Explain a policy for a situation: every tag, or every field of a body.

    Raises ConfigInvalid for words that can't be read, PolicyInvalid, and the errors of the payload room.
    """
    facts = facts_of_words(policy, situation.as_, situation.stated)
    subject = _pairs(situation.subject, "--subject")
    path = _path(situation.path)
    if body is not None:
        if isinstance(path, XmlPath):
            raise _words("--path", "a body is explained in JSON; without one, places in XML are explained too")
        return list(_fields(policy, facts, subject, situation, path, body))
    caller, now_s = caller_of(facts)
    decision = decide(policy, caller, now_s)
    plan = compile_class(policy, params_of(policy), decision.grants, decision.guardrails)
    crossed = frozenset(range(len(plan.budgets))) if situation.beyond_budgets else frozenset[int]()
    asked = Asked(policy, plan, facts, find_variant(plan, _residency(policy, subject), crossed))
    if path is None:
        return [Explained(explanation) for explanation in explain_places(asked)]
    cell = find_cell(plan, steps_of(path), xml=isinstance(path, XmlPath))
    step = plan.steps[cell.steps[asked.variant]] if cell else None
    if isinstance(path, XmlPath):
        return [Explained(explain_step(asked, str(path), tuple(sorted(find_xml_tags(policy, path))), step))]
    concrete: Path = tuple(step if isinstance(step, (str, int)) else "*" for step in steps_of(path))
    return [Explained(explain_step(asked, str(path), tuple(sorted(find_tags(policy, concrete))), step))]


def explained_json(one: Explained, *, show_values: bool) -> dict[str, Any]:
    """Return an explanation for scripts; values only where they are asked for."""
    found = asdict(one.explanation)
    return found | {"given": one.given, "came": one.came} if show_values else found


def _fields(
    policy: Policy,
    facts: Facts,
    subject: Mapping[str, tuple[str, ...]],
    situation: Situation,
    path: BodyPath | None,
    body: bytes,
) -> Iterator[Explained]:
    keyset = create_keyset(random_bytes, SystemClock().now_s())
    consents = frozenset(subject.get(CONSENT, ()))
    spaces = sorted({tag.subject for tag in policy.tags.values() if tag.subject})
    people = [(spaces[0], "person-of-the-body")] if spaces else []
    run = run_body(policy, facts, body, keyset, consents, people, beyond_budgets=situation.beyond_budgets)
    shown = _Shown(policy)
    for place, value in _leaves(run.given):
        if path is None or _leads_to(path, place):
            explanation = _explain_field(policy, facts, run, place)
            if not situation.show_values:
                explanation = replace(explanation, place=path_text(shown.place(place)))
            yield Explained(explanation, value_text(value), value_text(run.find_after(place)))


def _explain_field(policy: Policy, facts: Facts, run: Run, place: Path) -> Explanation:
    finding = run.find(place)
    asked = Asked(policy, run.plan, facts, run.variants[finding.scope] if finding is not None and run.variants else 0)
    step = None if finding is None else run.plan.steps[finding.step]
    return explain_step(asked, path_text(place), tuple(sorted(find_tags(policy, place))), step)


def _leaves(document: object) -> Iterator[tuple[Path, object]]:
    """Scalars and empty containers, in document order. Without recursion: the reader has bounded the depth."""
    waiting: list[tuple[Path, object]] = [((), document)]
    while waiting:
        path, value = waiting.pop()
        below: list[tuple[Path, object]] = []
        if isinstance(value, dict):
            below = [((*path, name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            below = [((*path, index), inner) for index, inner in enumerate(value)]
        if below:
            waiting += reversed(below)
        else:
            yield path, value


class _Shown:
    """Places as they may be printed: a name that is itself a value is told by its number within its object."""

    def __init__(self, policy: Policy) -> None:
        finds = [(tag.name, path) for tag in policy.tags.values() if tag.keys for path in tag.extra_paths]
        self._automaton = Automaton.of((tag, path) for tag, path in finds if isinstance(path, BodyPath))
        self._numbers: dict[Path, dict[str, int]] = {}

    def place(self, place: Path) -> Path:
        """Return the place with every name below an object of a `keys: true` tag replaced by its number."""
        shown: list[str | int] = []
        for depth, (step, move) in enumerate(zip(place, _moves_along(self._automaton, place), strict=False)):
            if move.found and isinstance(step, str):
                numbers = self._numbers.setdefault(place[:depth], {})
                shown.append(f"<name {numbers.setdefault(step, len(numbers) + 1)}>")
            else:
                shown.append(step)
        return tuple(shown)


def _leads_to(path: BodyPath, place: Path) -> bool:
    """True if the path finds the place or something around it."""
    return any(move.found for move in _moves_along(Automaton.of([("x", path)]), place))


def _moves_along(automaton: Automaton, place: Path) -> Iterator[Move]:
    """Yield the move to the whole body, and then the one after each step."""
    move = automaton.start()
    yield move
    for step in place:
        moves = automaton.moves(move.positions)
        known = moves.names.get(fold_name(step)) if isinstance(step, str) else moves.indexes.get(step)
        move = known or (moves.other_name if isinstance(step, str) else moves.other_index)
        yield move


# --- words of the command line --------------------------------------------------------------------------------------


def facts_of_words(policy: Policy, as_: str, words: Mapping[str, Value]) -> Facts:
    """Return a caller's facts: `as_` is a name of the policy's who, or facts (`role=care`); `words` are further ones.

    Raises ConfigInvalid for words that can't be read.
    """
    stated = {name: (value,) for name, value in words.items()}
    if "country" in words and words["country"] not in COUNTRIES:
        raise _words("--in", f"unknown country '{words['country']}' (two letters, ISO 3166-1)")
    if "=" in as_:
        told: dict[str, tuple[Value, ...]] = dict(_pairs(as_, "--as"))
        for name in told:
            if name not in FACTS and not name.startswith(CLAIM):
                raise _words("--as", f"unknown fact {did_you_mean(name, FACTS)} (claims are written claim.NAME)")
        return {name: _typed(name, values) for name, values in told.items()} | stated
    if as_ not in policy.who:
        raise _words("--as", f"unknown who {did_you_mean(as_, policy.who)}; or write facts: role=care")
    try:
        return facts_of_who(policy, policy.who[as_], stated)
    except CaseProblem as problem:
        raise _words("--as", str(problem)) from None


def _typed(name: str, values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Read the values of a claim as YAML would: `18` is a number there, and `true` is true."""
    if not name.startswith(CLAIM):
        return values
    words: dict[str, Value] = {"true": True, "false": False}
    return tuple(words.get(str(v), int(v) if _INTEGER.fullmatch(str(v)) else v) for v in values)


_INTEGER = re.compile(r"-?[0-9]{1,18}")


def _pairs(text: str, option: str) -> dict[str, tuple[str, ...]]:
    """Read `a=1,b=2,a=3`; a name that comes twice has several values."""
    found: dict[str, tuple[str, ...]] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not value:
            raise _words(option, "facts are written name=value,name=value")
        found[name] = (*found.get(name, ()), value)
    return found


def _residency(policy: Policy, subject: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    """Take a group of countries for one of its members: `residency=EU`."""
    found = dict(subject)
    for name, values in subject.items():
        known = {tag.fact for tag in policy.tags.values() if tag.fact} | {CONSENT, "group"}
        if name not in known:
            raise _words("--subject", f"no tag has the fact {did_you_mean(name, known)}")
        if name == "residency":
            found[name] = tuple(min(policy.countries[v]) if v in policy.countries else v for v in values)
    return found


def _path(text: str) -> BodyPath | XmlPath | None:
    if not text:
        return None
    try:
        place = parse_place(text)
    except PlaceError as error:
        raise _words("--path", str(error)) from None
    if not isinstance(place, BodyPath | XmlPath):
        raise _words("--path", "a path of the body begins with '$', in XML with '/'")
    return place


def _words(option: str, what: str) -> ConfigInvalid:
    return ConfigInvalid([Problem(option, 1, 1, what)])
