"""Techniques against what they are used on: lists that do not exist, and types that they can't keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gharial.model.errors import Problem
from gharial.model.plan import Op
from gharial.policy.grants import Grant
from gharial.policy.guardrails import Guardrail
from gharial.policy.suggest import did_you_mean
from gharial.policy.tags import Tag
from gharial.policy.technique import Technique, is_per_subject

_OF_DATES = frozenset({Op.MONTH, Op.YEAR, Op.DATE_SHIFT})
_OF_NUMBERS = frozenset({Op.BUCKET, Op.ROUND})
_MAKES_TEXT = frozenset({Op.MASK, Op.TRUNCATE, Op.POSTCODE, Op.TOKEN, Op.ENCRYPT, Op.PSEUDONYM, Op.SUBSTITUTE})


@dataclass(frozen=True, slots=True)
class Use:
    """A technique where it is written, and the single tags that it is for. `rule` names the rule in a sentence."""

    technique: Technique
    tags: tuple[str, ...]
    rule: str
    line: int
    column: int


def uses_of(grants: Iterable[Grant], guardrails: Iterable[Guardrail]) -> Iterator[Use]:
    """Return every use of a technique in the rules of a policy."""
    for grant in grants:
        rule = f"the grant '{grant.name}'"
        for show in grant.show:
            own = tuple(sorted(tag for tag, technique in grant.shown.items() if technique == show.technique))
            yield Use(show.technique, own, rule, show.line, show.column)
        for budget in grant.budgets:
            yield Use(budget.then, tuple(grant.shown), rule, budget.line, budget.column)
    for guardrail in guardrails:
        if guardrail.at_least is not None:
            rule = f"the guardrail '{guardrail.name}'"
            yield Use(guardrail.at_least, tuple(sorted(guardrail.tags)), rule, guardrail.line, guardrail.column)


def find_misuses(
    uses: Iterable[Use], tags: Mapping[str, Tag], lists: Mapping[str, tuple[str, ...]], file: str
) -> Iterator[Problem]:
    """Return the uses that can't be meant: the policy is refused for them."""
    for use in uses:
        if use.technique.op is Op.SUBSTITUTE and use.technique.get("list") not in lists:
            named = did_you_mean(str(use.technique.get("list")), lists) if lists else "(there are no 'lists')"
            yield Problem(file, use.line, use.column, f"{use.rule} substitutes from an unknown list {named}")
        if use.technique.op is Op.FPE:
            for tag in use.tags:
                if tag in tags and tags[tag].type in ("boolean", "date"):
                    what = (
                        f"'{tag}' is a {tags[tag].type}: too few possible values for fpe, whoever sees many would know "
                        "them all; use token, encrypt or redact"
                    )
                    yield Problem(file, use.line, use.column, what)


def find_doubtful(uses: Iterable[Use], tags: Mapping[str, Tag], file: str) -> Iterator[Problem]:
    """Return the uses that are allowed and do not keep the type that the policy states, or fit no value at all."""
    has_subject = any(tag.subject for tag in tags.values())
    for use in uses:
        op = use.technique.op
        of_dates = op in _OF_DATES or (op is Op.BAND and use.technique.get("unit") == "y")
        of_numbers = op in _OF_NUMBERS or (op is Op.BAND and not of_dates)
        if op is Op.DATE_SHIFT and not has_subject:
            what = f"{use.rule} shifts dates by person, but no tag has a subject: every date is redacted"
            yield Problem(file, use.line, use.column, what)
        if is_per_subject(use.technique) and not has_subject:
            what = f"{use.rule} uses keys of people, but no tag has a subject: every value is redacted"
            yield Problem(file, use.line, use.column, what)
        for tag in use.tags:
            declared = tags[tag].type if tag in tags else ""
            what = ""
            if declared in ("number", "date") and op in _MAKES_TEXT:
                what = f"'{tag}' is a {declared}, and {op} makes a text of it that is none"
            elif (of_dates and declared in ("number", "boolean")) or (of_numbers and declared in ("date", "boolean")):
                what = f"'{tag}' is a {declared}: {op} does not fit it, so it is redacted"
            if what:
                yield Problem(file, use.line, use.column, what)
