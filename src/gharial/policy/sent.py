"""Values on their way to the API (`in: [request]`): how each is sent for a class of callers, and what contradicts it.

It is what the policy shows this caller of the tag. Nothing is known of people in a request: a grant that asks for
something about a person does not hold, a guardrail that does acts, and budgets are not crossed. A measure of the watch
changes nothing here: it is about what a caller sees.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from gharial.model.errors import Problem
from gharial.policy.document import Policy
from gharial.policy.grants import Grant
from gharial.policy.guardrails import MASKED, Guardrail
from gharial.policy.layout import join_verdicts
from gharial.policy.variants import Table, find_factors
from gharial.policy.verdict import Verdict, raise_to


@dataclass(frozen=True, slots=True)
class Sent:
    """How a value is sent: by which tag (keyed techniques are bound to it), and what is done."""

    tag: str
    verdict: Verdict


def verdicts_of(policy: Policy, grants: Sequence[Grant], guardrails: Sequence[Guardrail]) -> dict[str, Verdict]:
    """Return what is done with each tag that is protected in requests. Raises PolicyInvalid as `compile_plan` does."""
    names = sorted(tag.name for tag in policy.tags.values() if tag.request)
    if not names:
        return {}
    acting = [guardrail for guardrail in guardrails if guardrail.name != MASKED]
    factors = find_factors(policy, grants, acting, names)
    fates, floors = Table.of(policy, factors, grants, acting).fates(names)
    unknown = tuple(index for index, atom in enumerate(factors.atoms) if atom.condition.if_missing)
    at = next(n for n, v in enumerate(factors.variants) if not v.crossed and tuple(v.holds) == unknown)
    return {name: raise_to(fates[name][at], floors[name][at]) for name in names}


def combine(verdicts: Mapping[str, Verdict], tags: Collection[str]) -> Sent:
    """Return how a value is sent that all of these tags find: at least as strictly as each says."""
    ordered = sorted(tags)
    strictest = reduce(join_verdicts, (verdicts[tag] for tag in ordered))
    named = [tag for tag in ordered if verdicts[tag].technique == strictest.technique]
    return Sent(named[0] if named else ordered[0], strictest)


def find_contradictions(policy: Policy, together: Collection[frozenset[str]]) -> Iterator[Problem]:
    """Return what can't be meant: a tag both protected in requests and one whose tokens come back in them.

    `together` are sets of tags that find one and the same place of a request.
    """
    back: dict[str, Grant | Guardrail] = {}
    for guardrail in policy.never:
        back.update(dict.fromkeys(guardrail.token_tags, guardrail))
    for grant in policy.grants:
        back.update(dict.fromkeys(grant.reidentify, grant))
    sent = {tag.name for tag in policy.tags.values() if tag.request}
    for name in sorted(sent & back.keys()):
        rule = back[name]
        kind = "reidentify" if isinstance(rule, Grant) else "only_tokens"
        what = (
            f"'{name}' is protected on its way to the API (in: [request]), and '{rule.name}' opens its tokens there "
            f"({kind}); of one tag it can be one of both only"
        )
        yield Problem(policy.file, rule.line, rule.column, what)
    for tags in sorted(together, key=sorted):
        for one in sorted((tags & sent) - back.keys()):
            for other in sorted((tags & back.keys()) - sent):
                tag = policy.tags[one]
                what = (
                    f"'{one}' is protected on its way to the API (in: [request]), and '{other}', whose tokens come "
                    "back, finds the same place"
                )
                yield Problem(policy.file, tag.line, tag.column, what)
