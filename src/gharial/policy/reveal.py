"""What a caller may have revealed: a plan whose cells are tags, clear or dropped, with the budgets that pay for them.

It has the form of a plan for a body, so that the same book counts for both; but no place leads to its cells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import replace

import msgspec

from gharial.model.plan import PLAN_FORMAT, Cell, Node, Op, Plan, Step
from gharial.policy.document import Policy
from gharial.policy.technique import CLEAR, Technique
from gharial.policy.variants import Table, find_factors

REVEAL_ROUTE = "POST /v1/reveal"
"""What stands for a route in plans and incidents of the reveal API; no route can be called so."""

_DROP = Technique(Op.DROP)


def tags_forbidden(policy: Policy, guardrails: Iterable[str]) -> frozenset[str]:
    """Return the tags on which one of these guardrails puts a floor.

    They are those that act, or may, depending on the person: no person is known here who could spare a value.
    """
    acting = set(guardrails)
    return frozenset[str]().union(*(guardrail.tags for guardrail in policy.never if guardrail.name in acting))


def compile_reveal(policy: Policy, grants: Iterable[str], forbidden: Collection[str]) -> Plan:
    """Return what a class of callers may have revealed by these grants: one cell per tag, none for a forbidden one.

    Raises PolicyInvalid where the grants have too many budgets together.
    """
    wanted = set(grants)
    # A grant reveals as it would show clear, and beyond a budget nothing: `then` has no say here.
    revealing = [
        replace(
            grant,
            shown=dict.fromkeys(sorted(grant.reveal.difference(forbidden)), CLEAR),
            budgets=tuple(replace(budget, then=_DROP) for budget in grant.budgets),
        )
        for grant in policy.grants
        if grant.name in wanted and not grant.reveal.issubset(forbidden)
    ]
    tags = sorted(frozenset[str]().union(*(grant.shown.keys() for grant in revealing)))
    factors = find_factors(policy, revealing, (), tags)
    fates, _ = Table.of(policy, factors, revealing, ()).fates(tags)
    steps: dict[Step, int] = {}
    cells = tuple(
        Cell(
            tag,
            tuple(steps.setdefault(Step(v.technique.op, tag, v.rule), len(steps)) for v in fates[tag]),
            tuple(tuple(sorted(v.charges)) for v in fates[tag]),
        )
        for tag in tags
    )
    plan = Plan(
        format=PLAN_FORMAT,
        policy=policy.name,
        version=policy.version,
        route=REVEAL_ROUTE,
        mode=policy.mode,
        grants=tuple(grant.name for grant in revealing),
        unlisted=policy.unlisted,
        nodes=(Node(),),
        cells=cells,
        steps=tuple(steps),
        budgets=factors.budgets,
        variants=factors.variants,
    )
    return msgspec.structs.replace(plan, digest=hashlib.sha256(msgspec.json.encode(plan)).hexdigest()[:32])


def limits_of(plan: Plan, tag: str) -> dict[tuple[str, int], int] | None:
    """Return how many values of a tag each grant reveals per window (seconds); None if the tag is not revealed at all.

    Empty if there is no limit: a grant without a budget goes on where another one's is used up.
    """
    cell = next((cell for cell in plan.cells if cell.tag == tag), None)
    if cell is None:
        return None
    if all(plan.steps[step].op is Op.CLEAR for step in cell.steps):
        return {}
    budgets = (plan.budgets[index] for index in cell.charges[0])
    return {(budget.grant, budget.window_s): budget.people for budget in budgets}
