"""Recorded exchanges under another policy: what each place would show instead, counted; what can't be told stays so.

An exchange is decided and its plan compiled as the gate does it. A place's step follows from the path, the facts that
were recorded and the budgets; where one of these is not known every step that is possible is looked at, and only if
all of them go one way it counts that way.

A budget that was crossed counts as crossed again as long as the policies charge it alike over the whole recording, for
this principal; else it can't be told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from gharial.model.errors import PolicyExpressionFailed, PolicyInvalid
from gharial.model.plan import NONE, Cell, Mode, Op, Plan
from gharial.model.plan import Step as PlanStep
from gharial.model.recording import JsonType, RecordedCaller, RecordedExchange, RecordedPlace, Shown
from gharial.policy.compile import compile_plan
from gharial.policy.decide import Decider
from gharial.policy.document import Policy
from gharial.policy.incoming import places_opened, places_sent, wants_only_tokens
from gharial.policy.places import unlisted_step
from gharial.policy.recorded import BudgetKey, Maybe, People, Spot, Walker, find_variants
from gharial.policy.tally import Replay, Tally, Texts, Way
from gharial.policy.technique import Technique, compare
from gharial.policy.technique_syntax import TechniqueError, parse_technique

UNLISTED_RULE = "unlisted"
_INDEX = re.compile(r"\[[0-9]+\]")

Result = tuple[Technique, str, str]
"""How a value would be shown, by which rule, and its tag (empty: unlisted)."""


class NothingToReplay(ValueError):
    """No exchange of the recording went through a policy of this name; `policies` are those that are in it."""

    def __init__(self, policies: Iterable[str]) -> None:
        self.policies = tuple(sorted(policies))
        super().__init__("the recording holds no exchange of this policy")


def replay(read: Callable[[], Iterable[RecordedExchange]], policy: Policy) -> Replay:
    """Run recorded exchanges under `policy`. `read` gives them anew each time it is called; it is called twice.

    Raises NothingToReplay, and whatever `read` raises.
    """
    trial = _Trial(policy)
    policies: Counter[str] = Counter()
    for exchange in read():
        policies[exchange.policy] += 1
        if exchange.policy == policy.name:
            trial.look_at_charges(exchange)
    if not policies[policy.name]:
        raise NothingToReplay(policies)
    for exchange in read():
        if exchange.policy == policy.name:
            trial.run(exchange)
    trial.tally.left_out.update({f"exchanges of the policy {n}": c for n, c in policies.items() if n != policy.name})
    return trial.tally.found(policy.name, policy.version)


def possible_results(exchange: RecordedExchange, policy: Policy) -> list[frozenset[Result]]:
    """Return for each place of one exchange what `policy` may do with it, as far as this exchange alone tells.

    An exchange that it would refuse has no results.
    """
    trial = _Trial(policy)
    trial.look_at_charges(exchange)
    return trial.results(exchange)


def caller_label(caller: RecordedCaller) -> str:
    """Return a kind of caller in words: client, roles, purpose."""
    roles = f", role {'+'.join(caller.roles)}" if caller.roles else ""
    purpose = f", for {caller.purpose}" if caller.purpose else ""
    return f"{caller.client}{roles}{purpose}"


class _Refused(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(slots=True)
class _Tried:
    """One exchange under the new policy's plan."""

    exchange: RecordedExchange
    walker: Walker
    people: People
    holds: list[tuple[Maybe, ...]]

    @property
    def plan(self) -> Plan:
        return self.walker.plan

    @property
    def is_same_plan(self) -> bool:
        return self.plan.digest == self.exchange.plan

    def holds_in(self, scope: int) -> tuple[Maybe, ...]:
        return self.holds[scope] if 0 <= scope < len(self.holds) else self.people.holds(scope)


class _Trial:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._deciders: dict[tuple[int, str], Decider] = {}
        self._walkers: dict[tuple[object, ...], Walker | PolicyInvalid] = {}
        self._uneven: set[tuple[str, str, str, BudgetKey]] = set()
        self._variants: dict[tuple[object, ...], tuple[int, ...]] = {}
        self.tally = Tally()

    # --- deciding -----------------------------------------------------------------------------------------------

    def _try(self, exchange: RecordedExchange) -> _Tried:
        """Decide and compile; version and mode as recorded, so that a plan that is the same has the same digest."""
        key = (exchange.version or self._policy.version, exchange.mode or self._policy.mode.value)
        decider = self._deciders.get(key)
        if decider is None:
            decider = self._deciders[key] = Decider(replace(self._policy, version=key[0], mode=Mode(key[1])))
        try:
            decision = decider.decide(exchange.caller.caller(), exchange.at_s)
        except PolicyExpressionFailed as failed:
            raise _Refused(failed.code) from None
        params = tuple(param.name for param in exchange.params if param.in_path)
        plan_key = (key, exchange.route, params, decision)
        walker = self._walkers.get(plan_key)
        if walker is None:
            try:
                plan = compile_plan(decider.policy, exchange.route, params, decision.grants, decision.guardrails)
                walker = Walker(plan)
            except PolicyInvalid as invalid:
                walker = invalid
            self._walkers[plan_key] = walker
        if isinstance(walker, PolicyInvalid):
            raise _Refused(walker.code)
        people = People.of(walker, exchange)
        return _Tried(exchange, walker, people, [people.holds(at) for at in range(len(exchange.scopes))])

    # --- budgets ------------------------------------------------------------------------------------------------

    def look_at_charges(self, exchange: RecordedExchange) -> None:
        """Note the budgets that this exchange would charge otherwise than it did."""
        before = {key for scope in exchange.scopes for key in scope.charged}
        try:
            tried = self._try(exchange)
        except _Refused:
            self._note_uneven(exchange, before)
            return
        if tried.is_same_plan:
            return
        if exchange.cut or not exchange.scopes_known:
            self._note_uneven(exchange, before | {(b.grant, b.window_s) for b in tried.plan.budgets})
            return
        if tried.plan.same != exchange.same:
            # Records that name several ids count otherwise, and so does what was crossed.
            self._note_uneven(exchange, {key for s in exchange.scopes if len(s.people) > 1 for key in s.charged})
        charged: list[set[BudgetKey]] = [set() for _ in exchange.scopes]
        for place in exchange.places:
            spots = tried.walker.spots(place.path, exchange.hidden)
            options = {
                frozenset(cell.charges[variant] if cell.charges else ())
                for spot in spots
                for cell in [tried.plan.cells[spot.cell] if spot.cell != NONE else None]
                for variant in (self._variants_of(tried, place.scope) if cell else ())
                if cell is not None
            }
            for option in options:
                keys = {(tried.plan.budgets[b].grant, tried.plan.budgets[b].window_s) for b in option}
                charged[place.scope] |= keys
                if len(options) > 1:
                    self._note_uneven(exchange, keys)
        for scope, own in zip(exchange.scopes, charged, strict=True):
            self._note_uneven(exchange, own ^ set(scope.charged))

    def _note_uneven(self, exchange: RecordedExchange, keys: Iterable[BudgetKey]) -> None:
        caller = exchange.caller
        self._uneven |= {(caller.tenant, caller.client, caller.user, key) for key in keys}

    def _variants_of(self, tried: _Tried, scope: int) -> tuple[int, ...]:
        plan, caller = tried.plan, tried.exchange.caller
        before = {(grant, window_s): people for grant, window_s, people in tried.exchange.budgets}
        crossed: list[Maybe] = []
        for budget in plan.budgets:
            key = (budget.grant, budget.window_s)
            even = (caller.tenant, caller.client, caller.user, key) not in self._uneven
            if before.get(key) == budget.people and even and tried.exchange.scopes_known:
                crossed.append(0 <= scope < len(tried.exchange.scopes) and key in tried.exchange.scopes[scope].crossed)
            else:
                crossed.append(None)
        holds = tried.holds_in(scope)
        known = (id(tried.walker), tuple(crossed), holds)
        variants = self._variants.get(known)
        if variants is None:
            variants = self._variants[known] = find_variants(plan, crossed, holds)
        return variants

    # --- one exchange -------------------------------------------------------------------------------------------

    def run(self, exchange: RecordedExchange) -> None:
        """Count what the new policy would do with an exchange."""
        self.tally.exchanges += 1
        caller = caller_label(exchange.caller)
        try:
            tried = self._try(exchange)
        except _Refused as refused:
            if exchange.error:
                self.tally.left_out["exchanges that were refused before as well"] += 1
            else:
                self.tally.refused[exchange.route, caller, refused.code] += 1
            return
        if exchange.mode and exchange.mode != self._policy.mode:
            self.tally.modes[f"{exchange.mode} -> {self._policy.mode}"] += 1
        if exchange.error:
            self.tally.left_out["exchanges that were refused: their bodies are not known"] += 1
            return
        if exchange.cut:
            self.tally.left_out["exchanges of which only the first places are recorded"] += 1
        if not exchange.places:
            self.tally.left_out["exchanges without a place"] += 1
        if tried.plan.probes and not tried.is_same_plan:
            self.tally.left_out["exchanges whose filters and sorts may be refused: queries are not recorded"] += 1
        if wants_only_tokens(tried.plan) and not tried.is_same_plan:
            self.tally.left_out["exchanges that may be refused for plain ids: what is sent is not recorded"] += 1
        if places_sent(tried.plan) and not tried.is_same_plan:
            self.tally.left_out["exchanges of which other values may be sent: what is sent is not recorded"] += 1
        if any(extra.keys for extra in tried.plan.extras) and not tried.is_same_plan:
            self.tally.left_out["exchanges in which names of members may be values"] += 1
        self._tokens(tried, caller)
        for place in exchange.places:
            self.tally.places += 1
            self._place(tried, place, caller)

    def results(self, exchange: RecordedExchange) -> list[frozenset[Result]]:
        """Return what may be done with each place; nothing if the exchange would be refused."""
        try:
            tried = self._try(exchange)
        except _Refused:
            return []
        return [frozenset(self._results(tried, place)) for place in exchange.places]

    def _tokens(self, tried: _Tried, caller: str) -> None:
        for tag, count in tried.exchange.reidentified.items():
            if not any(tag == opened for _, opened in places_opened(tried.plan)):
                texts = Texts("token accepted", "token not accepted")
                self.tally.change(Way.STRICTER, tried.exchange.route, caller, tag, "path", texts, count)

    def _place(self, tried: _Tried, place: RecordedPlace, caller: str) -> None:
        exchange = tried.exchange
        shown = exchange.shown[place.shown]
        if tried.is_same_plan:
            self.tally.row(exchange.route, caller, shown.tag)[Way.SAME] += 1
            return
        after = self._results(tried, place)
        tags = {tag for _, _, tag in after}
        tag = shown.tag or (next(iter(tags)) if len(tags) == 1 else "")
        ways = {_way(_technique(shown), technique) for technique, _, _ in after}
        way = next(iter(ways)) if len(ways) == 1 else Way.UNKNOWN
        row = self.tally.row(exchange.route, caller, tag)
        if shown.tag and tags == {""}:
            row["newly_unlisted"] += 1
        if way is Way.UNKNOWN and ways & {Way.MORE_OPEN, Way.OTHER, Way.UNKNOWN}:
            row["maybe_more_open"] += 1
        if way is Way.SAME:
            row[way] += 1
            return
        techniques = sorted({str(technique) for technique, _, _ in after})
        rules = sorted({rule for _, rule, _ in after})
        texts = Texts(shown.technique or "not known", " or ".join(techniques), shown.rule, " or ".join(rules))
        self.tally.change(way, exchange.route, caller, tag, _INDEX.sub("[*]", place.path), texts)

    def _results(self, tried: _Tried, place: RecordedPlace) -> set[Result]:
        plan, exchange = tried.plan, tried.exchange
        nested = plan.json_in_strings != exchange.json_levels
        if nested and (exchange.json_levels or place.type is JsonType.JSON):
            # What stands in a string is recorded as deep as the policy opened it.
            return {_result(step) for step in plan.steps} | {_unlisted(plan)}
        spots = tried.walker.spots(place.path, exchange.hidden)
        extras = tried.walker.extras(place, exchange.detectors) if plan.extras else []
        found: set[Result] = set()
        for variant in self._variants_of(tried, place.scope):
            for spot in spots:
                found |= _steps_of(plan, spot, [(plan.cells[e.cell], e.detector, hit) for e, hit in extras], variant)
        around = {cell for spot in spots for cell in spot.around}
        if around and len(exchange.scopes) > 1:
            anywhere = {v for scope in range(len(exchange.scopes)) for v in self._variants_of(tried, scope)}
            steps = (plan.steps[plan.cells[cell].steps[variant]] for cell in around for variant in anywhere)
            found |= {_result(step) for step in steps if step.op is Op.DROP}
        return found


def _steps_of(plan: Plan, spot: Spot, extras: Sequence[tuple[Cell, str, Maybe]], variant: int) -> set[Result]:
    """Return what may be done with a place: its own cell's step, or that of an extra that is stricter.

    A detector counts only where nothing else finds the place; of all others the highest rank holds.
    """
    own = None if spot.cell == NONE else plan.steps[plan.cells[spot.cell].steps[variant]]
    found: set[PlanStep | None] = {own}
    for cell, _, _ in [extra for extra in extras if not extra[1]]:
        step = plan.steps[cell.steps[variant]]
        found |= {step if other is None or step.rank > other.rank else other for other in found}
    if None in found:
        detectors = [(plan.steps[cell.steps[variant]], hit) for cell, name, hit in extras if name]
        sure = [step for step, hit in detectors if hit]
        if sure:
            found = (found - {None}) | {max(sure, key=lambda step: step.rank)}
        found |= {step for step, hit in detectors if hit is None}
    return {_unlisted(plan) if step is None else _result(step) for step in found}


def _result(step: PlanStep) -> Result:
    technique = Technique(step.op, tuple(pair for pair in step.args if pair[0] != "type"))
    return technique, step.rule, step.tag


def _unlisted(plan: Plan) -> Result:
    return unlisted_step(plan), UNLISTED_RULE, ""


@lru_cache(maxsize=4_096)
def _technique(shown: Shown) -> Technique | None:
    try:
        return parse_technique(shown.technique)
    except TechniqueError:
        return None


def _way(before: Technique | None, after: Technique) -> Way:
    if before is None:
        return Way.UNKNOWN
    match compare(before, after):
        case None:
            return Way.OTHER
        case 0:
            return Way.SAME
        case order:
            return Way.STRICTER if order < 0 else Way.MORE_OPEN
