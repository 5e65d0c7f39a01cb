"""The active policies: which plan holds for a caller on a route, made once per class of caller and kept.

Publishing compiles; deciding only looks up. A running exchange keeps the plan it began with.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from gharial.crypto.keyset import Keyset
from gharial.crypto.token import Recipient
from gharial.crypto.transform import transforms_for
from gharial.gate.routes import RouteRule
from gharial.model.caller import Caller
from gharial.model.finding import Transform
from gharial.model.plan import Plan
from gharial.policy.compile import compile_plan
from gharial.policy.decide import matching_grants
from gharial.policy.document import Policy

MAX_PLANS = 1_000
MAX_TRANSFORM_SETS = 4_096

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What an exchange needs to rewrite a body: the plan, and its steps made runnable for this recipient."""

    plan: Plan
    transforms: tuple[Transform, ...] = field(repr=False)


class Publisher:
    """Holds the active policies and the plans made of them; both caches forget the least recently used."""

    def __init__(self, policies: Mapping[str, Policy], keyset: Keyset) -> None:
        self.policies = dict(policies)
        self._keyset = keyset
        self._plans: OrderedDict[Hashable, Plan] = OrderedDict()
        self._transforms: OrderedDict[Hashable, tuple[Transform, ...]] = OrderedDict()

    def prepare(self, rule: RouteRule, caller: Caller) -> Prepared:
        """Return plan and transforms for this caller on this route.

        Raises PolicyInvalid if the policy can't be compiled for this class of caller (publishing checks for that), and
        KeyUnknown if a step needs a key that is not enabled.
        """
        policy = self.policies[rule.policy]
        grants = matching_grants(policy, caller)
        plan = _remembered(
            self._plans,
            (policy.name, rule.name, grants),
            lambda: compile_plan(policy, rule.name, rule.template.params, grants),
            MAX_PLANS,
        )
        recipient = Recipient(caller.tenant, caller.client, caller.team)
        transforms = _remembered(
            self._transforms,
            (plan.digest, recipient),
            lambda: transforms_for(plan, self._keyset, recipient),
            MAX_TRANSFORM_SETS,
        )
        return Prepared(plan, transforms)


def _remembered(cache: OrderedDict[Hashable, _T], key: Hashable, make: Callable[[], _T], limit: int) -> _T:
    found = cache.get(key)
    if found is not None:
        cache.move_to_end(key)
        return found
    made = make()
    cache[key] = made
    if len(cache) > limit:
        cache.popitem(last=False)
    return made
