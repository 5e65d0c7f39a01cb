"""The plan of a caller whom a measure masks: what not everybody may see in clear is masked at least.

It is the policy with one guardrail more, so all that holds for guardrails holds for it: no grant relaxes it, and what
is stricter stays stricter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from gharial.model.plan import Op, Plan
from gharial.policy.compile import compile_plan
from gharial.policy.conditions import Conditions
from gharial.policy.document import Policy
from gharial.policy.guardrails import MASKED, Guardrail
from gharial.policy.technique import CLEAR, Technique
from gharial.policy.variants import Table, find_factors


def open_to_all(policy: Policy, grants: Iterable[str], guardrails: Iterable[str]) -> frozenset[str]:
    """Return the tags that a caller without a credential sees in clear, of everybody.

    `grants` and `guardrails` are those that apply to such a caller. Raises PolicyInvalid as `compile_plan` does.
    """
    applying = [policy.get_grant(name) for name in grants]
    acting = [policy.get_guardrail(name) for name in guardrails]
    factors = find_factors(policy, applying, acting, policy.tags.keys())
    fates, floors = Table.of(policy, factors, applying, acting).fates(policy.tags)
    return frozenset(
        tag
        for tag, fate in fates.items()
        if all(verdict.technique == CLEAR for verdict in fate) and not any(floors[tag])
    )


def compile_masked_plan(
    policy: Policy,
    route: str,
    params: tuple[str, ...],
    grants: Iterable[str],
    guardrails: Iterable[str],
    open_tags: frozenset[str],
) -> Plan:
    """Return the plan of one route for one class of callers, masked but for `open_tags`. Raises as `compile_plan`."""
    floor = Guardrail(
        name=MASKED,
        tags=frozenset(policy.tags) - open_tags,
        at_least=Technique(Op.MASK),
        probe_tags=frozenset(),
        token_tags=frozenset(),
        unless_clear=False,
        when=Conditions(),
        unless=Conditions(),
        purposes=None,
        line=1,
        column=1,
    )
    stricter = dataclasses.replace(policy, never=(*policy.never, floor))
    return compile_plan(stricter, route, params, grants, (*guardrails, MASKED))
