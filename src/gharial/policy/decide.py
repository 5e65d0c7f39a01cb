"""Which grants and guardrails apply to an exchange: the class of its caller, for which a plan is compiled.

What depends on the person of a record is not decided here: a grant that needs consent applies, and its plan says of
whom it holds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import chain

from gharial.model.caller import Caller
from gharial.policy.conditions import Conditions, find_outcome
from gharial.policy.document import Policy
from gharial.policy.facts import ExchangeFacts, fact_of_variable
from gharial.policy.who import holds

MAX_DECISIONS = 16_384
"""Classes that one Decider remembers."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Sorted names of the grants that apply, and of the guardrails that act, or may, depending on the person."""

    grants: tuple[str, ...]
    guardrails: tuple[str, ...] = ()


class Decider:
    """Decides for one policy, and remembers: the same facts, as far as the policy reads them, get the same answer."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._reads = facts_read(policy)
        self._known: OrderedDict[tuple[object, ...], Decision] = OrderedDict()

    def decide(self, caller: Caller, now_s: float) -> Decision:
        """Return what applies to this caller at this time (seconds since the epoch).

        Raises PolicyExpressionFailed if an expression of the policy has no outcome for it; that is not remembered.
        """
        facts = ExchangeFacts(caller, now_s)
        key = facts.key(self._reads)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = decide_facts(self.policy, facts)
            if len(self._known) > MAX_DECISIONS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return found


def decide(policy: Policy, caller: Caller, now_s: float) -> Decision:
    """Return what applies to this caller at this time. Raises PolicyExpressionFailed."""
    return decide_facts(policy, ExchangeFacts(caller, now_s))


def decide_facts(policy: Policy, facts: ExchangeFacts) -> Decision:
    """Return what applies to these facts. Raises PolicyExpressionFailed."""
    # Everyone is asked, also where the outcome is known already: which expression fails must not depend on order.
    asked = sorted({name for grant in policy.grants for name in grant.to})
    known = {name: holds(policy.who[name], facts) for name in asked}
    purpose = facts.caller.purpose
    grants = tuple(
        grant.name
        for grant in policy.grants
        if any(known[name] for name in grant.to)
        and (grant.purposes is None or purpose in grant.purposes)
        and (not grant.needs or find_outcome(grant.needs, facts) is True)
    )
    return Decision(grants, tuple(guardrail.name for guardrail in policy.never if guardrail.acts_for(facts)))


def facts_read(policy: Policy) -> tuple[str, ...]:
    """Return the facts on which decisions of this policy can depend, sorted: names of FACTS, claim.NAME, or claims."""
    who = [policy.who[name] for name in {name for grant in policy.grants for name in grant.to}]
    sides: list[Conditions] = [grant.needs for grant in policy.grants]
    sides += chain.from_iterable((guardrail.when, guardrail.unless) for guardrail in policy.never)
    sides += [Conditions(w.conditions, (), w.expressions) for w in who]
    read = {condition.fact for side in sides for condition in side.exchange}
    read |= {fact_of_variable(name) for side in sides for program in side.expressions for name in program.reads}
    if any(g.purposes is not None for g in policy.grants) or any(g.purposes is not None for g in policy.never):
        read.add("purpose")
    return tuple(sorted(read))
