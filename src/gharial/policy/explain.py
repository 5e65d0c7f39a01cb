"""Why a value is shown as it is: every rule that speaks of it, whether it applied, which one won.

What was decided is read from the plan, which is what the gate runs; why, from the rules and the caller's facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from gharial.model import plan as plans
from gharial.model.errors import PolicyExpressionFailed
from gharial.model.plan import NONE, Param, Plan, Step
from gharial.policy.conditions import Condition, Conditions, find_outcome, grant_atom, guardrail_atom
from gharial.policy.document import Policy
from gharial.policy.facts import ExchangeFacts
from gharial.policy.grants import Grant
from gharial.policy.guardrails import Guardrail
from gharial.policy.incoming import is_sending, tags_demanded, tags_opened
from gharial.policy.people import window_text
from gharial.policy.places import find_cell, find_spots, unlisted_step
from gharial.policy.samples import Facts, caller_of
from gharial.policy.technique import Technique
from gharial.policy.verdict import technique_of
from gharial.policy.who import Who

UNLISTED = "unlisted"


@dataclass(frozen=True, slots=True)
class Considered:
    """One rule that speaks of a tag. `rule` is named as in plans ("grant:basics"); `technique` is what it says.

    `reasons` say why it did not apply, or what it applied by.
    """

    rule: str
    tag: str
    technique: str
    applied: bool
    reasons: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happens at one place and why. `rule` won; `why` says by which law."""

    place: str
    tags: tuple[str, ...]
    technique: str
    rule: str
    why: str
    considered: tuple[Considered, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """The situation that is explained: the caller's facts, the plan of its class, and the variant of the person."""

    policy: Policy
    plan: Plan
    facts: Facts
    variant: int


def explain_places(asked: Asked) -> list[Explanation]:
    """Explain every kind of place that the policy's tags find, and what no tag names."""
    found: list[Explanation] = []
    for spot in find_spots(asked.policy)[0]:
        cell = find_cell(asked.plan, spot.steps, xml=spot.xml)
        tags = tuple(sorted(tag for _, tag in (spot.tags | spot.around)))
        found.append(
            explain_step(asked, spot.place, tags, asked.plan.steps[cell.steps[asked.variant]] if cell else None)
        )
    for extra in asked.plan.extras:
        cell = asked.plan.cells[extra.cell]
        place = extra.path or f"values that look like {extra.detector}"
        found.append(explain_step(asked, place, (cell.tag,), asked.plan.steps[cell.steps[asked.variant]]))
    found += [_explain_param(asked, param) for param in asked.plan.params]
    found += _explain_bodies(asked)
    found += _explain_reveal(asked)
    return sorted(found, key=lambda e: (not e.tags, e.tags, e.place))


def _explain_bodies(asked: Asked) -> Iterator[Explanation]:
    """Explain what happens to tagged values in the bodies of requests, tag by tag."""
    opened, demanded = tags_opened(asked.plan), tags_demanded(asked.plan)
    for name in sorted(opened | demanded):
        tag = asked.policy.tags[name]
        opening = [g.name for g in asked.policy.grants if g.name in asked.plan.grants and name in g.reidentify]
        demanding = [g.name for g in asked.policy.never if g.name in asked.plan.guardrails and name in g.token_tags]
        demanding = demanding if name in demanded else []
        whys = ["a token of this caller here becomes the real value for the upstream"] if name in opened else []
        if demanding:
            whys.append("anything else is refused")
        rule = f"never:{demanding[0]}" if demanding else f"grant:{opening[0]}"
        place = f"{', '.join(map(str, tag.body_paths))} of requests"
        yield Explanation(place, (tag.name,), "opened" if opening else "refused", rule, "; ".join(whys), ())
    for step in () if asked.plan.incoming is None else asked.plan.incoming.steps:
        if is_sending(step):
            place = f"{', '.join(map(str, asked.policy.tags[step.tag].sent_paths))} of requests"
            yield _on_its_way(explain_step(asked, place, (step.tag,), step))


def _on_its_way(one: Explanation) -> Explanation:
    return replace(one, why=f"{one.why}; so it is sent to the upstream, whoever it is about")


def _explain_reveal(asked: Asked) -> Iterator[Explanation]:
    """Explain what happens to values that this caller sends to the reveal API, tag by tag."""
    granting = [g for g in asked.policy.grants if g.name in asked.plan.grants]
    forbidding = [g for g in asked.policy.never if g.name in asked.plan.guardrails]
    for tag in sorted(frozenset[str]().union(*(grant.reveal for grant in granting))):
        rules = [f"never:{g.name}" for g in forbidding if tag in g.tags]
        why = "a guardrail puts a floor under it, and no person is known here who could be spared"
        how = "refused"
        if not rules:
            rules = [f"grant:{g.name}" for g in granting if tag in g.reveal]
            how, why = "revealed", "tokens of this caller, and envelopes, come back in clear"
        yield Explanation("values sent to the reveal API", (tag,), how, rules[0], why, ())


def _explain_param(asked: Asked, param: Param) -> Explanation:
    """Explain what happens to a tagged part of the request, on its way to the upstream and in a `Location`."""
    opening = [g.name for g in asked.policy.grants if g.name in asked.plan.grants and g.reidentify & {*param.tags}]
    whys = ["a token of this caller here becomes the real value for the upstream"] if param.reidentify else []
    demanding = [g.name for g in asked.policy.never if g.name in asked.plan.guardrails and g.token_tags & {*param.tags}]
    if param.only_tokens:
        whys.append(
            "anything but such a token is refused" if param.reidentify else "only tokens may come, and none opens"
        )
    if param.step != NONE:
        return _on_its_way(explain_step(asked, param.place, param.tags, asked.plan.steps[param.step]))
    if param.cell != NONE:
        cell = asked.plan.cells[param.cell]
        one = explain_step(asked, param.place, param.tags, asked.plan.steps[cell.steps[asked.variant]])
        return replace(one, why="; ".join([one.why, *whys]))
    if param.subject:
        whys.append("the value names the person of what has no nearer one")
    rule = f"never:{demanding[0]}" if param.only_tokens else f"grant:{opening[0]}" if opening else "tag"
    how = "opened" if opening else "refused" if param.only_tokens else "as sent"
    return Explanation(param.place, param.tags, how, rule, "; ".join(whys), ())


def explain_step(asked: Asked, place: str, tags: Sequence[str], step: Step | None) -> Explanation:
    """Explain what the plan does at one place. `tags` are those found there and around; None: no tag names it."""
    if step is None:
        shown = str(unlisted_step(asked.plan))
        why = f"no tag names it: unlisted_fields: {asked.plan.unlisted}"
        return Explanation(place, (), shown, UNLISTED, why, ())
    considered = tuple(c for tag in dict.fromkeys((step.tag, *tags)) for c in consider(asked, tag))
    technique = Technique(step.op, tuple(pair for pair in step.args if pair[0] != "type"))
    return Explanation(
        place,
        tuple(dict.fromkeys((step.tag, *tags))),
        str(technique),
        step.rule,
        "; ".join([_why(step, considered, tags), *_people(asked.policy, tags)]),
        considered,
    )


def _people(policy: Policy, tags: Sequence[str]) -> Iterator[str]:
    """Say of a value that names a person what the policy says of all these people together."""
    for space in sorted({policy.tags[tag].subject for tag in tags if tag in policy.tags} - {""}):
        others = [other for spaces in policy.same if space in spaces for other in spaces if other != space]
        if others:
            yield f"the people of {space} are those of {' and '.join(others)} (same_as)"
        if space in policy.populations:
            yield f"there are {policy.populations[space]:,} people of {space}"


def consider(asked: Asked, tag: str) -> Iterator[Considered]:
    """Yield every rule that speaks of a tag: grants first, then guardrails, each by name."""
    exchange = ExchangeFacts(*caller_of(asked.facts))
    for grant in asked.policy.grants:
        if tag in grant.shown:
            yield _grant(asked, grant, tag, exchange)
    for guardrail in asked.policy.never:
        if tag in guardrail.tags:
            yield _guardrail(asked, guardrail, tag, exchange)


def _why(step: Step, considered: Sequence[Considered], tags: Sequence[str]) -> str:
    kind = step.rule.partition(":")[0]
    several = len({c.tag for c in considered}) > 1 or len(tags) > 1
    suffix = "; of several tags that find it, the strictest result holds" if several else ""
    if kind == "never":
        return f"a guardrail allows no more, whatever grants say{suffix}"
    if kind == "grant":
        applied = sum(c.applied and c.rule.startswith("grant:") for c in considered)
        return ("the most open of the grants that apply" if applied > 1 else "the only grant that applies") + suffix
    return f"no grant that applies shows it, and what is not granted is redacted{suffix}"


def _grant(asked: Asked, grant: Grant, tag: str, exchange: ExchangeFacts) -> Considered:
    against: list[str] = []
    who = [asked.policy.who[name] for name in grant.to]
    if not any(_who_outcome(one, exchange) for one in who):
        against += [f"the caller is not '{one.name}': {', '.join(_who_against(one, exchange))}" for one in who]
    purpose = exchange.caller.purpose
    if grant.purposes is not None and purpose not in grant.purposes:
        against.append(
            f"it is for {' or '.join(grant.purposes)}, not {'for ' + purpose if purpose else 'without purpose'}"
        )
    against += _against(grant.needs, exchange)
    by: list[str] = []
    if not against:
        for condition in grant.needs.person:
            held = _holds(asked, [grant_atom(condition)])
            (by if held else against).append(f"{condition_text(condition, 'subject.')} {_met(held)} of this person")
        if grant.min_group:
            held = _group_holds(asked, grant.min_group)
            (by if held else against).append(f"min_group: {grant.min_group} {_met(held)}")
    crossed = _crossed(asked, grant)
    for index in crossed:
        rule = grant.budgets[index]
        by.append(f"beyond its budget of {rule.people} people in {window_text(rule.window_s)}: {rule.then}")
    shown = technique_of(grant, grant.shown[tag], crossed)
    return Considered(f"grant:{grant.name}", tag, str(shown), not against, tuple(against or by), grant.line)


def _guardrail(asked: Asked, guardrail: Guardrail, tag: str, exchange: ExchangeFacts) -> Considered:
    against: list[str] = []
    purpose = exchange.caller.purpose
    if guardrail.purposes is not None and purpose and purpose not in guardrail.purposes:
        against.append(f"it is for {' or '.join(guardrail.purposes)}, not for {purpose}")
    against += [
        f"{condition_text(c)} is not so: {_known(c, exchange)}"
        for c in guardrail.when.exchange
        if find_outcome(Conditions((c,)), exchange) is False
    ]
    against += [f"cel: {e.text} is false" for e in guardrail.when.expressions if _outcome(e, exchange) is False]
    unless = guardrail.unless
    if unless and not unless.person and _safe_outcome(unless, exchange) is True:
        against.append("what 'unless' says is so")
    by: list[str] = []
    if not against:
        for condition in guardrail.when.exchange:
            missing = not exchange.values(condition.fact)
            by.append(f"{condition_text(condition)} {'may be so: it is unknown' if missing else 'is so'}")
        for condition in guardrail.when.person:
            held = _holds(asked, [guardrail_atom(condition)])
            text = condition_text(condition, "subject.")
            (by if held else against).append(
                f"{text} is so of this person, or unknown" if held else f"{text} is not so"
            )
        if unless.person and _holds(asked, [grant_atom(condition) for condition in unless.person]):
            against.append("what 'unless' says is so of this person")
    technique = f"at least {guardrail.at_least}"
    return Considered(f"never:{guardrail.name}", tag, technique, not against, tuple(against or by), guardrail.line)


# --- conditions ---------------------------------------------------------------------------------------------------


def condition_text(condition: Condition, prefix: str = "") -> str:
    """Return a condition as it may be written: "country: not EEA"."""
    values = " or ".join(map(str, condition.written or condition.values))
    return f"{prefix}{condition.fact}: {'not ' if condition.negated else ''}{values}"


def _who_outcome(who: Who, exchange: ExchangeFacts) -> bool:
    return _safe_outcome(Conditions(who.conditions, (), who.expressions), exchange) is True


def _who_against(who: Who, exchange: ExchangeFacts) -> list[str]:
    return _against(Conditions(who.conditions, (), who.expressions), exchange)


def _against(conditions: Conditions, exchange: ExchangeFacts) -> list[str]:
    """What keeps conditions that must hold from holding."""
    found = [
        f"{condition_text(condition)} is not so: {_known(condition, exchange)}"
        for condition in conditions.exchange
        if find_outcome(Conditions((condition,)), exchange) is not True
    ]
    return found + [
        f"cel: {expression.text} is not true"
        for expression in conditions.expressions
        if _outcome(expression, exchange) is not True
    ]


def _known(condition: Condition, exchange: ExchangeFacts) -> str:
    values = exchange.values(condition.fact)
    return f"it is {' and '.join(map(str, values))}" if values else "it is unknown"


def _outcome(expression: object, exchange: ExchangeFacts) -> bool | None:
    return _safe_outcome(Conditions((), (), (expression,)), exchange)  # type: ignore[arg-type]


def _safe_outcome(conditions: Conditions, exchange: ExchangeFacts) -> bool | None:
    try:
        return find_outcome(conditions, exchange)
    except PolicyExpressionFailed:
        return None


def _met(held: bool) -> str:
    return "is so" if held else "is not known to be so"


def _holds(asked: Asked, atoms: Iterable[plans.Condition]) -> bool:
    """True if the plan says so of the person: the variant is what was decided, and nothing else."""
    held = {asked.plan.conditions[index] for index in asked.plan.variants[asked.variant].holds}
    return all(atom in held for atom in atoms)


def _group_holds(asked: Asked, people: int) -> bool:
    held = (asked.plan.conditions[index] for index in asked.plan.variants[asked.variant].holds)
    return any(condition.fact == "group" and condition.people == people for condition in held)


def _crossed(asked: Asked, grant: Grant) -> list[int]:
    """Which of a grant's budgets are crossed in the variant."""
    crossed = [asked.plan.budgets[index] for index in asked.plan.variants[asked.variant].crossed]
    windows = {budget.window_s for budget in crossed if budget.grant == grant.name}
    return [index for index, rule in enumerate(grant.budgets) if rule.window_s in windows]
