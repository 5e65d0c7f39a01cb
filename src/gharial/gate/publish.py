"""The active policies: which plan holds for a caller on a route, made once per class of caller and kept.

Publishing puts a whole new set of policies in the place of the old one, in one step; another keyset comes in the same
way. A running exchange keeps the set it began with, so none is half old. A candidate set may serve a part of the calls
beside the active one (canary).

Where a new set changes the mode of a route, the proxy must hand over that route's bodies in another way, and can't do
so for all calls at the same moment. Meanwhile the gate holds both sets, and each exchange begins with the one that fits
the way that the proxy announced for it.
"""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from gharial.crypto.keyset import Keyset, Random
from gharial.crypto.token import Recipient, handed_over
from gharial.crypto.transform import transforms_for
from gharial.gate.outcome import BodyMode
from gharial.gate.persons import Conditions, conditions_of
from gharial.gate.routes import RouteKind, RouteRule, RouteTable
from gharial.model.caller import Caller
from gharial.model.finding import Transform
from gharial.model.plan import Mode, Plan
from gharial.policy.compile import compile_plan
from gharial.policy.decide import Decider, Decision
from gharial.policy.document import Policy
from gharial.policy.incoming import reads_requests
from gharial.policy.job import Job, compile_job_plan
from gharial.policy.masked import compile_masked_plan, open_to_all
from gharial.policy.reveal import REVEAL_ROUTE, compile_reveal, tags_forbidden

MAX_PLANS = 1_000
MAX_PLAN_PARTS = 400_000
"""Nodes and steps of all plans that are kept, together; a plan of a very large policy has about 15,000."""
MAX_TRANSFORM_SETS = 4_096
MAX_TRANSFORMS = 300_000
"""Transforms of all recipients that are kept, together."""
JOBS_SHARE = 10
"""Of jobs a tenth of all that is kept. They are kept apart: a caller chooses what stands in them, as often as it likes,
and must not push out what all others need."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What an exchange needs to rewrite a body: the plan, and its steps made runnable for this recipient.

    `incoming` are those of `plan.incoming`, if there is one.
    `open_tags` are those that everybody may see in clear; empty where nobody watches.
    """

    plan: Plan
    transforms: tuple[Transform, ...] = field(repr=False)
    conditions: Conditions = field(repr=False)
    incoming: tuple[Transform, ...] = field(default=(), repr=False)
    open_tags: frozenset[str] = frozenset()


class ActivePolicies:
    """One set of policies under one keyset, and the plans made of it; the caches forget the least recently used."""

    def __init__(self, policies: Mapping[str, Policy], keyset: Keyset, random: Random) -> None:
        self.policies = dict(policies)
        self._random = random
        self._deciders = {name: Decider(policy) for name, policy in self.policies.items()}
        self.keyset = keyset
        self._made = _Made()
        self._made_for_jobs = _Made(JOBS_SHARE)
        self._open_tags: _Kept[frozenset[str]] = _Kept(MAX_PLANS, MAX_PLANS, lambda _: 1)

    def prepare(
        self, rule: RouteRule, caller: Caller, now_s: float, *, masked: bool = False, job: Job | None = None
    ) -> Prepared:
        """Return plan and transforms for this caller on this route, at this time (seconds since the epoch).

        `masked`: whatever not everybody may see in clear is masked at least (a measure of the watch). `job`: what the
        caller asks for besides.

        Raises PolicyInvalid if the policy can't be compiled for this class of caller (publishing checks for that),
        PolicyExpressionFailed if an expression has no outcome for it, and KeyUnknown if a step needs a key that is not
        enabled.
        """
        policy = self.policies[rule.policy]
        decision = self._deciders[rule.policy].decide(caller, now_s)
        params = rule.template.params
        open_tags = self._open_to_all(rule.policy, caller.tenant, now_s) if masked or policy.watch else frozenset()
        mask_but = open_tags if masked else None
        made = self._made if job is None else self._made_for_jobs
        plan = made.plans.get(
            (policy.name, rule.name, decision, mask_but, job),
            lambda: _compile(policy, rule.name, params, decision, mask_but, job),
        )
        # Whoever asks for a job hands the data over itself.
        tenant = caller.tenant if job is None else handed_over(caller.tenant)
        recipient = Recipient(tenant, caller.client, caller.team)
        transforms = made.transforms.get(
            (plan.digest, recipient), lambda: transforms_for(plan, self.keyset, recipient, self._random)
        )
        incoming: tuple[Transform, ...] = ()
        if (sent := plan.incoming) is not None:
            incoming = made.transforms.get(
                (plan.digest, recipient, "incoming"), lambda: transforms_for(sent, self.keyset, recipient, self._random)
            )
        conditions = made.conditions.get(plan.digest, lambda: conditions_of(plan))
        return Prepared(plan, transforms, conditions, incoming, open_tags)

    def _open_to_all(self, policy: str, tenant: str, now_s: float) -> frozenset[str]:
        """Return the tags that a caller without a credential sees in clear."""
        decision = self._deciders[policy].decide(Caller(tenant), now_s)
        return self._open_tags.get(
            (policy, decision), lambda: open_to_all(self.policies[policy], decision.grants, decision.guardrails)
        )

    def under(self, keyset: Keyset) -> ActivePolicies:
        """Return this set under another keyset. Plans hold no key, so they are kept; transforms are made anew."""
        fresh = copy.copy(self)
        fresh.keyset = keyset
        fresh._made = self._made.without_transforms()  # noqa: SLF001 - of its own kind
        fresh._made_for_jobs = self._made_for_jobs.without_transforms()  # noqa: SLF001 - of its own kind
        return fresh

    def reveals(self, caller: Caller, now_s: float) -> tuple[Plan, ...]:
        """Return what this caller may have revealed at this time, a plan for each policy that gives it something.

        A token does not tell which policy it was made under, so a floor of any policy under a tag holds for all; the
        grants of a policy in shadow mode give nothing. Raises as `prepare` does.
        """
        decisions = {name: decider.decide(caller, now_s) for name, decider in self._deciders.items()}
        forbidden = frozenset[str]().union(
            *(tags_forbidden(self.policies[name], decision.guardrails) for name, decision in decisions.items())
        )
        enforced = [policy for policy in self.policies.values() if policy.mode is Mode.ENFORCE]
        plans = [self._reveal_plan(policy, decisions[policy.name].grants, forbidden) for policy in enforced]
        return tuple(plan for plan in plans if plan.cells)

    def _reveal_plan(self, policy: Policy, grants: tuple[str, ...], forbidden: frozenset[str]) -> Plan:
        key = (REVEAL_ROUTE, policy.name, grants, forbidden)
        return self._made.plans.get(key, lambda: compile_reveal(policy, grants, forbidden))

    def routes_read(self, table: RouteTable) -> frozenset[str]:
        """Return the routes of which the bodies of requests may be read under these policies."""
        return frozenset(rule.name for rule in table.rules if self.reads(rule))

    def reads(self, rule: RouteRule) -> bool:
        """True if the bodies of requests of a route may be read under these policies."""
        return rule.kind is not RouteKind.PASS and reads_requests(self.policies[rule.policy])

    def kind(self, rule: RouteRule) -> RouteKind:
        """Return what is done on a route under these policies."""
        if rule.kind is RouteKind.PASS:
            return RouteKind.PASS
        return RouteKind.SHADOW if self.policies[rule.policy].mode is Mode.SHADOW else RouteKind.PROTECT


def _compile(
    policy: Policy,
    route: str,
    params: tuple[str, ...],
    decision: Decision,
    open_tags: frozenset[str] | None,
    job: Job | None,
) -> Plan:
    grants, guardrails = decision.grants, decision.guardrails
    if job is not None:
        return compile_job_plan(policy, route, params, grants, guardrails, job, open_tags)
    if open_tags is not None:
        return compile_masked_plan(policy, route, params, grants, guardrails, open_tags)
    return compile_plan(policy, route, params, grants, guardrails)


_BODY_MODE = {RouteKind.PROTECT: BodyMode.BUFFERED, RouteKind.SHADOW: BodyMode.STREAMED, RouteKind.PASS: BodyMode.NONE}


def body_mode(rule: RouteRule, kind: RouteKind) -> BodyMode:
    """Return how the body of an answer travels on a route on which this is done, where the proxy is told by us."""
    return BodyMode.DUPLEX if rule.stream and kind is RouteKind.PROTECT else _BODY_MODE[kind]


@dataclass(slots=True)
class Next:
    """A set that waits for the proxy to follow it. `late` counts the exchanges that began in a mode of before."""

    policies: ActivePolicies
    late: int = 0


@dataclass(frozen=True, slots=True)
class Canary:
    """A candidate set that serves a part of the principals, on some routes (none named: on all)."""

    policies: ActivePolicies
    percent: int
    routes: frozenset[str] = frozenset()

    def serves(self, rule: RouteRule, principal: str) -> bool:
        """True if this principal is in the part. One principal is always in or always out, whatever it calls."""
        if self.routes and rule.name not in self.routes:
            return False
        return int.from_bytes(hashlib.sha256(principal.encode()).digest()[:8], "big") % 100 < self.percent


class Publisher:
    """Holds the active set, maybe a candidate, and maybe the next set, for which the proxy is not ready yet."""

    def __init__(self, policies: Mapping[str, Policy], keyset: Keyset, random: Random) -> None:
        """`random` gives the nonces of what is encrypted (`os.urandom`)."""
        self._random = random
        self.active = ActivePolicies(policies, keyset, random)
        self.canary: Canary | None = None
        self.next: Next | None = None

    @property
    def keyset(self) -> Keyset:
        """The active keyset."""
        return self.active.keyset

    def renew(self, keyset: Keyset) -> None:
        """Put a keyset in the place of the active one; all transforms are made anew, as calls need them.

        What runs goes on with the set of policies that it began with, and so with that set's keyset.
        """
        self.active = self.active.under(keyset)
        if self.canary is not None:
            self.canary = replace(self.canary, policies=self.canary.policies.under(keyset))
        if self.next is not None:
            self.next.policies = self.next.policies.under(keyset)

    def publish(self, policies: Mapping[str, Policy]) -> None:
        """Put a new set in the place of the active one; a candidate ends. What runs goes on with the set it has."""
        self.active = ActivePolicies(policies, self.keyset, self._random)
        self.canary = None

    def changed_kinds(self, policies: Mapping[str, Policy], table: RouteTable) -> dict[str, RouteKind]:
        """Return what would be done under these policies on the routes on which that is not what is done now."""
        wanted = ActivePolicies(policies, self.keyset, self._random)
        kinds = {rule.name: (self.active.kind(rule), wanted.kind(rule)) for rule in table.rules}
        return {name: then for name, (now, then) in kinds.items() if then is not now}

    def prepare(self, policies: Mapping[str, Policy]) -> Next:
        """Hold a set beside the active one, for exchanges whose announced mode fits only it."""
        self.next = Next(ActivePolicies(policies, self.keyset, self._random))
        return self.next

    def promote(self) -> None:
        """Put the set that is held in the place of the active one; a candidate ends."""
        assert self.next is not None  # noqa: S101 - held since `prepare`
        self.active, self.next, self.canary = self.next.policies, None, None

    def withdraw(self) -> None:
        """Let go of the set that is held. What began with it goes on with it."""
        self.next = None

    def begin(
        self, rule: RouteRule, announced: BodyMode, announced_request: BodyMode = BodyMode.NONE
    ) -> ActivePolicies:
        """Return the set for an exchange that begins now on this route, in the modes that the proxy announced for it.

        Whether they fit the set is not decided here: the exchange insists on it.
        """
        held = self.next
        if held is None:
            return self.active
        kind = held.policies.kind(rule)
        if kind is not self.active.kind(rule):
            fits = announced is body_mode(rule, kind)
        elif kind is RouteKind.PROTECT and held.policies.reads(rule) and not self.active.reads(rule):
            # Where the answers' mode stays, that of the requests tells whether the proxy has followed.
            fits = announced_request is BodyMode.BUFFERED
        else:
            return self.active
        if fits:
            return held.policies
        held.late += 1
        return self.active

    def try_out(self, policies: Mapping[str, Policy], percent: int, routes: frozenset[str], table: RouteTable) -> None:
        """Let a candidate set serve a part of the calls. Raises ValueError if it may not.

        A candidate keeps each route's mode: the proxy knows one mode per route, and the stricter one would not fit.
        """
        if not 1 <= percent <= 100:
            raise ValueError("a canary serves 1 to 100 percent")
        candidate = ActivePolicies(policies, self.keyset, self._random)
        known = {rule.name for rule in table.rules}
        if routes - known:
            raise ValueError(f"there is no route {', '.join(sorted(routes - known))}")
        for rule in table.rules:
            if candidate.kind(rule) is not self.active.kind(rule):
                raise ValueError(f"the candidate changes the mode on route {rule.name}; publish it as a whole")
        self.canary = Canary(candidate, percent, routes)

    def end_canary(self) -> None:
        """Let the active set serve all calls again."""
        self.canary = None

    def choose(self, rule: RouteRule, caller: Caller, begun_with: ActivePolicies) -> ActivePolicies:
        """Return the set that serves this caller on this route: the candidate, or the one the exchange began with."""
        canary = self.canary
        if canary is None or not canary.serves(rule, caller.principal):
            return begun_with
        # A set may have been published since the exchange began; its mode on this route is settled by now.
        return canary.policies if canary.policies.kind(rule) is begun_with.kind(rule) else begun_with


def _parts_of(plan: Plan) -> int:
    own = len(plan.nodes) + len(plan.xml_nodes) + len(plan.steps)
    return own + (_parts_of(plan.incoming) if plan.incoming is not None else 0)


class _Kept(Generic[_T]):
    """Things made once and kept, the least recently used forgotten first; bounded in number and in weight."""

    def __init__(self, most: int, heaviest: int, weigh: Callable[[_T], int]) -> None:
        self._most = most
        self._heaviest = heaviest
        self._weigh = weigh
        self._weight = 0
        self._found: OrderedDict[Hashable, _T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return what is kept under `key`, or make it. What was just made is kept, however heavy it is alone."""
        found = self._found.get(key)
        if found is not None:
            self._found.move_to_end(key)
            return found
        made = make()
        self._found[key] = made
        self._weight += self._weigh(made)
        while len(self._found) > 1 and (len(self._found) > self._most or self._weight > self._heaviest):
            _, gone = self._found.popitem(last=False)
            self._weight -= self._weigh(gone)
        return made


class _Made:
    """What was made of one set of policies, kept within 1/`share` of the bounds of this module."""

    def __init__(self, share: int = 1) -> None:
        self._share = share
        self.plans: _Kept[Plan] = _Kept(MAX_PLANS // share, MAX_PLAN_PARTS // share, _parts_of)
        self.conditions: _Kept[Conditions] = _Kept(MAX_PLANS // share, MAX_PLANS // share, lambda _: 1)
        self.transforms = self._no_transforms()

    def without_transforms(self) -> _Made:
        """Return the same plans, kept together with these, and no transforms."""
        fresh = copy.copy(self)
        fresh.transforms = self._no_transforms()
        return fresh

    def _no_transforms(self) -> _Kept[tuple[Transform, ...]]:
        return _Kept(MAX_TRANSFORM_SETS // self._share, MAX_TRANSFORMS // self._share, len)
