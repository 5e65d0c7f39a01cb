"""Classes of callers: who could come, as far as policies can tell callers apart, and what applies to each.

The sample callers of `samples` are put to the policies themselves, so what is told of a class is what the gate does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

from gharial.model.caller import Caller
from gharial.model.errors import PolicyExpressionFailed
from gharial.policy.cel import CelProgram
from gharial.policy.cel_trial import literals_of
from gharial.policy.conditions import Condition, Conditions, find_outcome
from gharial.policy.countries import COUNTRIES
from gharial.policy.decide import decide
from gharial.policy.document import Policy
from gharial.policy.facts import CLAIM, ExchangeFacts, Value, fact_of_variable
from gharial.policy.guardrails import Guardrail
from gharial.policy.samples import HOUR, Axis, Facts, Question, Sample, caller_of, make_axis
from gharial.policy.who import Who, holds

MAX_KINDS = 20_000
"""Kinds of callers that are told apart."""


@dataclass(frozen=True, slots=True)
class Applying:
    """The names of the grants and guardrails that apply to one class of callers, or may, depending on the person.

    `refused`: an expression of the policy has no outcome for them, so every call is refused.
    """

    grants: tuple[str, ...]
    guardrails: tuple[str, ...] = ()
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """Callers of whom all conditions of all policies say the same; `facts` are those of the plainest of them.

    `picks` say it in the words of `Classes.axes`: which who it is, its purpose, which guardrails may act.
    """

    facts: Facts
    picks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CallerClass:
    """All kinds of callers for which each of the policies says the same: `applying[i]` is of policy i."""

    applying: tuple[Applying, ...]
    members: tuple[Kind, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Classes:
    """All classes that were found, the plainest first. `left_out` says what was not tried."""

    axes: tuple[Axis, ...]
    classes: tuple[CallerClass, ...]
    left_out: tuple[str, ...] = ()


def applying_to(policy: Policy, caller: Caller, now_s: float) -> Applying:
    """Return what applies to a caller at a time."""
    try:
        decision = decide(policy, caller, now_s)
    except PolicyExpressionFailed:
        return Applying((), (), refused=True)
    return Applying(decision.grants, decision.guardrails)


def find_classes(policies: Sequence[Policy], limit: int = MAX_KINDS) -> Classes:
    """Return the classes of callers that these policies, together, can tell apart."""
    questions: dict[str, list[Question]] = {}
    for policy in policies:
        for question in questions_of(policy):
            questions.setdefault(question.fact, []).append(question)
    countries = country_groups(policies)
    axes = [make_axis(fact, questions[fact], countries) for fact in sorted(questions, key=_axis_order)]
    kinds, more = _kinds(axes, policies, limit)
    told = _words(policies, kinds)
    found: dict[tuple[Applying, ...], list[Kind]] = {}
    for kind, picks in zip(
        kinds, zip(*(picks for _, picks in told), strict=True) if told else [()] * len(kinds), strict=True
    ):
        caller, now_s = caller_of(kind)
        applying = tuple(applying_to(policy, caller, now_s) for policy in policies)
        found.setdefault(applying, []).append(Kind(kind, picks))
    left_out = [f"callers beyond the first {limit:,} kinds"] if more else []
    if len({frozenset(e for c in conditions_of(policy) for e in c.expressions) for policy in policies}) > 1:
        left_out.append("what expressions (cel) say of values that they do not spell out")
    classes = tuple(CallerClass(applying, tuple(members)) for applying, members in found.items())
    return Classes(tuple(axis for axis, _ in told), classes, tuple(left_out))


def _kinds(axes: Sequence[Axis], policies: Sequence[Policy], limit: int) -> tuple[list[Facts], bool]:
    """Return the facts of one caller of each kind, and whether there are more kinds than `limit`.

    Facts are added one after the other; callers of whom all conditions say the same so far are one from then on.
    """
    # A missing fact is as good as a false condition where rules open something, as a true one where they forbid.
    asked = [(c, False) for p in policies for c in _opening(p)] + [(g.when, True) for p in policies for g in p.never]
    sides = list(dict.fromkeys((conditions, missing) for conditions, missing in asked if conditions))
    read = {fact for side, _ in sides for program in side.expressions for fact in facts_of_expression(program)}
    states: dict[tuple[object, ...], tuple[int, Facts]] = {(): (0, MappingProxyType({}))}
    more = False
    for axis in axes:
        own = [Conditions(tuple(c for c in side.exchange if c.fact == axis.fact)) for side, _ in sides]
        whole = axis.fact in read or axis.fact == "purpose"
        answers = [_answers(own, [missing for _, missing in sides], _facts(axis, sample)) for sample in axis.samples]
        reached: dict[tuple[object, ...], tuple[int, Facts]] = {}
        for key, (weight, facts) in states.items():
            before = key[: len(sides)] or (True,) * len(sides)
            for sample, answer in zip(axis.samples, answers, strict=True):
                after = tuple(one and other for one, other in zip(before, answer, strict=True))
                own_key = (*after, *key[len(sides) :], *([sample.values] if whole else []))
                held = reached.get(own_key)
                if held is None or weight + sample.weight < held[0]:
                    reached[own_key] = (weight + sample.weight, MappingProxyType({**facts, **_facts(axis, sample)}))
        plainest = sorted(reached.items(), key=lambda item: item[1][0])
        more = more or len(plainest) > limit
        states = dict(plainest[:limit])
    return [facts for _, facts in states.values()], more


def _facts(axis: Axis, sample: Sample) -> Facts:
    return {axis.fact: sample.values} if sample.values else {}


def _answers(sides: Sequence[Conditions], missing: Sequence[bool], facts: Facts) -> tuple[bool, ...]:
    exchange = ExchangeFacts(*caller_of(facts))
    outcomes = (find_outcome(side, exchange) for side in sides)
    return tuple(unknown if found is None else found for found, unknown in zip(outcomes, missing, strict=True))


# --- the words in which kinds of callers are told -----------------------------------------------------------------


def _words(policies: Sequence[Policy], kinds: Sequence[Facts]) -> list[tuple[Axis, list[int]]]:
    """Return axes that people read, and for each the sample of each kind: who it is, its purpose, what acts."""
    exchanges = [ExchangeFacts(*caller_of(facts)) for facts in kinds]
    found = _boolean_axes([{n: _who_answers(w, exchanges) for n, w in p.who.items()} for p in policies], "", "not ")
    purposes = sorted({str(facts["purpose"][0]) for facts in kinds if "purpose" in facts})
    if purposes:
        samples = (Sample((), "no purpose", 0), *(Sample((purpose,), purpose, 1) for purpose in purposes))
        picks = [1 + purposes.index(str(f["purpose"][0])) if "purpose" in f else 0 for f in kinds]
        found.append((Axis("for", samples), picks))
    acting = [{g.name: [_acts(g, e) for e in exchanges] for g in p.never if g.when or g.unless} for p in policies]
    return found + _boolean_axes(acting, "where {} may act", "where {} can't act")


def _who_answers(who: Who, exchanges: Sequence[ExchangeFacts]) -> list[bool]:
    return [_is(who, exchange) for exchange in exchanges]


def _is(who: Who, exchange: ExchangeFacts) -> bool:
    try:
        return holds(who, exchange)
    except PolicyExpressionFailed:
        return False


def _acts(guardrail: Guardrail, exchange: ExchangeFacts) -> bool:
    try:
        return guardrail.acts_for(exchange)
    except PolicyExpressionFailed:
        return True


def _boolean_axes(answers: Sequence[Mapping[str, list[bool]]], yes: str, no: str) -> list[tuple[Axis, list[int]]]:
    """Axes of yes and no: one for a name that means the same in all policies, else one for each."""
    found: list[tuple[Axis, list[int]]] = []
    for name in sorted({name for own in answers for name in own}):
        told = [own.get(name) for own in answers]
        same = all(one is None or other is None or one == other for one, other in pairwise(told))
        for which, own in enumerate(told):
            if own is None or (same and any(told[:which])):
                continue
            text = name if same or len(told) == 1 else f"{name} ({('old', 'new')[which]})"
            samples = (Sample((False,), _worded(no, text), 1), Sample((True,), _worded(yes, text), 0))
            if len(set(own)) > 1:
                found.append((Axis("", samples), [int(value) for value in own]))
    return found


def _worded(pattern: str, name: str) -> str:
    return pattern.format(name) if "{}" in pattern else pattern + name


def conditions_of(policy: Policy) -> Iterator[Conditions]:
    """Yield all conditions of a policy's who, grants and guardrails."""
    yield from _opening(policy)
    yield from (guardrail.when for guardrail in policy.never)


def _opening(policy: Policy) -> Iterator[Conditions]:
    """Conditions that open something where they certainly hold."""
    yield from (Conditions(who.conditions, (), who.expressions) for who in policy.who.values())
    yield from (grant.needs for grant in policy.grants)
    yield from (guardrail.unless for guardrail in policy.never)


def questions_of(policy: Policy) -> Iterator[Question]:
    """Yield what a policy asks of the facts of an exchange."""
    named = [*(grant.purposes for grant in policy.grants), *(guardrail.purposes for guardrail in policy.never)]
    for purpose in sorted({purpose for purposes in named for purpose in purposes or ()}):
        yield _literal_question("purpose", purpose)
    for conditions in conditions_of(policy):
        for condition in conditions.exchange:
            yield _condition_question(condition)
        for expression in conditions.expressions:
            yield from _expression_questions(expression)


def country_groups(policies: Sequence[Policy]) -> Mapping[str, frozenset[str]]:
    """Return the groups of countries that the policies know, by name; of two of one name the members of both."""
    found: dict[str, frozenset[str]] = {}
    for policy in policies:
        for name, members in policy.countries.items():
            found[name] = found.get(name, frozenset()) | members
    return found


def facts_of_expression(expression: CelProgram) -> tuple[str, ...]:
    """Return the facts that an expression reads, named as in conditions."""
    return tuple(sorted({_fact_of_variable(name) for name in expression.reads} - {CLAIM}))


def _condition_question(condition: Condition) -> Question:
    alone = Conditions((condition,))
    return Question(
        condition.fact,
        condition.written or condition.values,
        lambda facts: find_outcome(alone, ExchangeFacts(*caller_of(facts))) is True,
    )


def _expression_questions(expression: CelProgram) -> Iterator[Question]:
    """What an expression asks can't be taken apart: each text and number in it is worth a try for each of its facts."""
    texts: list[Value] = [literal for literals in literals_of(expression.text) for literal in literals]
    for fact in facts_of_expression(expression):
        named = [text for text in texts if fact.startswith(CLAIM) or isinstance(text, str)]
        if fact == HOUR:
            named = [text for text in texts if isinstance(text, int) and 0 <= text <= _LAST_HOUR]
            named += [text + 1 for text in named if isinstance(text, int) and text < _LAST_HOUR]
        elif fact == "country":
            named = [text for text in named if text in COUNTRIES]
        yield from (_literal_question(fact, text) for text in named)
        if not named:
            yield Question(fact, (), lambda facts, fact=fact: fact in facts)  # type: ignore[misc]


_LAST_HOUR = 23


def _literal_question(fact: str, value: Value) -> Question:
    return Question(fact, (value,), lambda facts: value in facts.get(fact, ()))


def _fact_of_variable(name: str) -> str:
    head, _, claim = name.partition(".")
    return f"{CLAIM}{claim}" if head == "claims" else fact_of_variable(name)


_ORDER = ("client", "team", "user", "role", "purpose", "country", "network")


def _axis_order(fact: str) -> tuple[int, str]:
    return (_ORDER.index(fact) if fact in _ORDER else len(_ORDER), fact)
