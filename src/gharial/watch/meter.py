"""Counts, exactly, the people shown in clear per principal and grant, and says who may still be shown.

The law that holds: in any interval of `window_s` seconds, both ends included, at most `people` distinct people are
shown clear under a budget. It holds because a person who is shown again is counted from then on anew, so a window
never forgets somebody who was shown within it.

Everything here is synchronous: between the look and the charge no other exchange of the same loop can come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gharial.model.plan import Plan

JOINED = "+"
"""Between the digests of a person's ids, where several stand for one person; a digest has none."""
_MAX_PLANS = 256
_MAX_CELL_SETS = 4096
_LONGEST_WINDOW_S = 35 * 86_400


class ChargeRow(Protocol):
    """A stored charge, as `load` reads it (`gate.ports.Charge` is one)."""

    @property
    def principal(self) -> str: ...
    @property
    def policy(self) -> str: ...
    @property
    def grant(self) -> str: ...
    @property
    def person(self) -> str: ...
    @property
    def at_s(self) -> float: ...


def join_digests(digests: Iterable[str]) -> str:
    """Return what stands for a person who is named by several ids at once, and by nothing less."""
    return JOINED.join(digests)


def split_digests(person: str) -> tuple[str, ...]:
    """Return the digests of the ids by which a person is named."""
    return tuple(person.split(JOINED))


@dataclass(frozen=True, slots=True)
class ScopePeople:
    """The people of one scope as keyed digests, the cells that meet a value in it, and the conditions that hold for it.

    Never without people: a scope that names nobody comes with one digest that is unique to it. `holds` are indexes of
    `Plan.conditions`.
    """

    people: tuple[str, ...]
    cells: frozenset[int]
    holds: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Crossing:
    """A budget without room for somebody in this exchange. `budget` is an index of `Plan.budgets`.

    `people_counted` are in the window now; `people_withheld` are the digests of those who found no room under this
    budget. `measure` says what they come as instead ("mask"; "mask, redact" where tags differ).
    """

    budget: int
    grant: str
    limit: int
    window_s: int
    people_counted: int
    people_withheld: tuple[str, ...]
    measure: str = ""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was decided: one variant (an index of `Plan.variants`) per scope, in their order.

    `charges` are (grant, person) pairs, each once, that must be durable as of `at_s` before anything leaves. `at_s` is
    never earlier than that of an earlier reservation, even if the clock was set back.
    """

    variants: tuple[int, ...]
    charges: tuple[tuple[str, str], ...] = ()
    crossings: tuple[Crossing, ...] = ()
    at_s: float = 0.0


_Counted = OrderedDict[str, float]
"""Digest -> when the person was last shown clear (seconds since the epoch), oldest first."""


@dataclass(slots=True)
class _Ledger:
    """The people counted for one (principal, policy, grant), per length of window in seconds.

    `loaded` holds what came from the store until a plan tells which windows the grant has.
    """

    windows: dict[int, _Counted] = field(default_factory=dict)
    loaded: _Counted | None = None

    def window(self, window_s: int, now_s: float) -> _Counted:
        """Return the people counted in the last `window_s` seconds; a new window begins with what is known."""
        counted = self.windows.get(window_s)
        if counted is None:
            known = self.loaded
            if known is None and self.windows:
                known = self.windows[max(self.windows)]
            counted = self.windows[window_s] = OrderedDict(known or ())
        _expire(counted, now_s - window_s)
        return counted


class BudgetBook:
    """Which people were shown clear to whom, under which grant, and when.

    Bounded: a window holds at most as many people as its limit allowed, and `forget` drops what no window covers.
    `retain_s` is how long charges from the store wait for a plan that asks for them.
    """

    def __init__(self, *, retain_s: int = _LONGEST_WINDOW_S) -> None:
        self._ledgers: dict[tuple[str, str, str], _Ledger] = {}
        self._rules: dict[int, _Rules] = {}
        self._to_visit: list[tuple[str, str, str]] = []
        self._now_s = 0.0
        self._retain_s = retain_s

    def load(self, charges: Iterable[ChargeRow]) -> None:
        """Take up what was durable before a restart; once, before the first reservation.

        Raises ValueError if something was counted already. A charge later than the clock moves the book's time on:
        room is never given earlier because a clock was set back while the process was down.
        """
        if self._ledgers:
            raise ValueError("charges are loaded into an empty book only")
        for row in sorted(charges, key=lambda charge: charge.at_s):
            ledger = self._ledgers.setdefault((row.principal, row.policy, row.grant), _Ledger())
            if ledger.loaded is None:
                ledger.loaded = OrderedDict()
            _count(ledger.loaded, row.person, row.at_s)
            self._now_s = max(self._now_s, row.at_s)

    def reserve(
        self, principal: str, policy: str, plan: Plan, scopes: Sequence[ScopePeople], now_s: float
    ) -> Reservation:
        """Decide for each scope, in document order, how its people may be shown, and count those shown clear.

        Each scope begins with the variant in which exactly its conditions hold and no budget is crossed, and stays with
        its conditions when a budget is. People counted already stay as they were. A scope of several people is shown
        clear only if there is room for all of them. Raises ValueError for a scope without people, and for a plan that
        has no variant for a scope's conditions, none to withhold with, or one that shows clear under a crossed budget:
        there is no way on from there that would be safe.
        """
        now_s = self._now_s = max(self._now_s, now_s)
        if not all(scope.people for scope in scopes):
            raise ValueError("a scope without people can't be metered")
        rules = self._rules_of(plan)
        if not plan.budgets:
            return Reservation(tuple(rules.start(scope.holds) for scope in scopes), at_s=now_s)
        return _Reserving(rules, self._ledgers_of(principal, policy, plan), now_s).run(scopes)

    def forget(self, now_s: float, *, at_most: int = 2000) -> None:
        """Drop everyone whom no window covers any more. Call it about once a second.

        Visits `at_most` ledgers and goes on from there the next time, so that no call waits long for it.
        """
        now_s = self._now_s = max(self._now_s, now_s)
        if not self._to_visit:
            self._to_visit = list(self._ledgers)
        for _ in range(min(at_most, len(self._to_visit))):
            key = self._to_visit.pop()
            ledger = self._ledgers[key]
            for window_s, counted in list(ledger.windows.items()):
                _expire(counted, now_s - window_s)
                if not counted:
                    del ledger.windows[window_s]
            if ledger.loaded is not None:
                _expire(ledger.loaded, now_s - self._retain_s)
            if not ledger.windows and not ledger.loaded:
                del self._ledgers[key]

    def size(self) -> int:
        """Return how many (person, window) entries are held."""
        return sum(
            len(ledger.loaded or ()) + sum(map(len, ledger.windows.values())) for ledger in self._ledgers.values()
        )

    def _ledgers_of(self, principal: str, policy: str, plan: Plan) -> dict[str, _Ledger]:
        """Return the ledger of each budgeted grant, with every window that the plan knows."""
        found: dict[str, _Ledger] = {}
        for budget in plan.budgets:
            ledger = self._ledgers.setdefault((principal, policy, budget.grant), _Ledger())
            ledger.window(budget.window_s, self._now_s)
            found[budget.grant] = ledger
        for ledger in found.values():
            # A plan carries all budgets of a grant, so every window has taken over its part by now.
            ledger.loaded = None
        return found

    def _rules_of(self, plan: Plan) -> _Rules:
        rules = self._rules.get(id(plan))
        if rules is None or rules.plan is not plan:
            if len(self._rules) >= _MAX_PLANS:
                self._rules.clear()
            rules = self._rules[id(plan)] = _Rules(plan)
        return rules


class _Rules:
    """What one plan says about budgets, looked up once and kept."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._variants = {
            (frozenset(v.crossed), frozenset(v.holds)): index for index, v in enumerate(plan.variants) if v.crossed
        }
        self._starts = {frozenset(v.holds): index for index, v in enumerate(plan.variants) if not v.crossed}
        self.all_budgets = frozenset(range(len(plan.budgets)))
        self._siblings = tuple(
            frozenset(i for i, other in enumerate(plan.budgets) if other.grant == budget.grant)
            for budget in plan.budgets
        )
        self._charged: dict[tuple[frozenset[int], int], tuple[int, ...]] = {}

    def charged(self, cells: frozenset[int], variant: int) -> tuple[int, ...]:
        """Return the budgets charged where these cells are shown as in `variant`, with all windows of their grants."""
        found = self._charged.get((cells, variant))
        if found is None:
            if len(self._charged) >= _MAX_CELL_SETS:
                self._charged.clear()
            budgets: set[int] = set()
            for cell in cells:
                for budget in self._charges(cell, variant):
                    # A stored charge counts in all windows of its grant, so room is needed in all of them.
                    budgets |= self._siblings[budget]
            found = self._charged[cells, variant] = tuple(sorted(budgets))
        return found

    def start(self, holds: frozenset[int]) -> int:
        """Return the variant in which exactly these conditions hold and no budget is crossed."""
        found = self._starts.get(holds)
        if found is None:
            # No other variant would do: one with fewer conditions may lack a guardrail, one with more have a grant.
            raise ValueError(f"the plan of route {self.plan.route} has no variant for these conditions")
        return found

    def variant(self, crossed: frozenset[int], holds: frozenset[int]) -> int:
        """Return the variant for exactly these crossed budgets, or the one in which all are; `holds` stays."""
        found = self._variants.get((crossed, holds))
        if found is None:
            found = self._variants.get((self.all_budgets, holds))
        if found is None:
            raise ValueError(f"the plan of route {self.plan.route} has no variant for a crossed budget")
        return found

    def measures(self, cells: frozenset[int], budget: int, start: int, variant: int) -> set[str]:
        """Return the names of the operations that stand in `variant` for what is clear under `budget` in `start`."""
        plan = self.plan
        return {
            plan.steps[plan.cells[cell].steps[variant]].op.value
            for cell in cells
            if not self._siblings[budget].isdisjoint(self._charges(cell, start))
        }

    def _charges(self, cell: int, variant: int) -> tuple[int, ...]:
        charges = self.plan.cells[cell].charges
        return charges[variant] if charges else ()


@dataclass(frozen=True, slots=True)
class _Clear:
    """What clear costs for a set of cells: the windows that need room, with their limits, and those that count."""

    budgets: tuple[int, ...]
    room: tuple[tuple[_Counted, int], ...]
    windows: tuple[_Counted, ...]
    charges: tuple[dict[str, None], ...]


class _Reserving:
    """One call of `reserve`: the state of its walk over the scopes."""

    def __init__(self, rules: _Rules, ledgers: dict[str, _Ledger], now_s: float) -> None:
        self._rules = rules
        self._now_s = now_s
        self._budgets = rules.plan.budgets
        self._counted = tuple(ledgers[b.grant].windows[b.window_s] for b in self._budgets)
        self._windows = {grant: tuple(ledger.windows.values()) for grant, ledger in ledgers.items()}
        self._charges: dict[str, dict[str, None]] = {grant: {} for grant in ledgers}
        self._costs: dict[tuple[int, ...], _Clear] = {}
        self._turned_away: dict[int, dict[str, None]] = {}
        self._withheld: dict[
            tuple[frozenset[int], frozenset[int], frozenset[int]], tuple[int, tuple[dict[str, None], ...]]
        ] = {}
        self._measures: dict[int, set[str]] = {}

    def run(self, scopes: Sequence[ScopePeople]) -> Reservation:
        starts: dict[tuple[frozenset[int], frozenset[int]], tuple[int, _Clear]] = {}
        variants = []
        for scope in scopes:
            known = starts.get((scope.cells, scope.holds))
            if known is None:
                start = self._rules.start(scope.holds)
                known = starts[scope.cells, scope.holds] = start, self._cost(self._rules.charged(scope.cells, start))
            start, cost = known
            variants.append(self._scope(scope, start, cost) if cost.budgets else start)
        charges = [(grant, person) for grant, people in self._charges.items() for person in people]
        crossings = [self._crossing(budget) for budget in sorted(self._turned_away)]
        return Reservation(tuple(variants), tuple(charges), tuple(crossings), self._now_s)

    def _scope(self, scope: ScopePeople, start: int, cost: _Clear) -> int:
        people = scope.people
        if len(people) > 1 or JOINED in people[0]:
            people = tuple(dict.fromkeys(p for person in people for p in _counted_as(person, cost.windows)))
        for counted, limit in cost.room:
            # The first line is the second one for a single person: nearly all scopes are, and it saves a call.
            if (len(counted) >= limit and people[0] not in counted) or (
                len(people) > 1 and not _has_room(counted, limit, people)
            ):
                return self._turn_away(scope, people, start, cost.budgets)
        self._charge(people, cost)
        return start

    def _cost(self, budgets: tuple[int, ...]) -> _Clear:
        found = self._costs.get(budgets)
        if found is None:
            grants = tuple(dict.fromkeys(self._budgets[budget].grant for budget in budgets))
            found = self._costs[budgets] = _Clear(
                budgets,
                tuple((self._counted[budget], self._budgets[budget].people) for budget in budgets),
                tuple(counted for grant in grants for counted in self._windows[grant]),
                tuple(self._charges[grant] for grant in grants),
            )
        return found

    def _full(self, budgets: tuple[int, ...], people: tuple[str, ...]) -> frozenset[int]:
        return frozenset([b for b in budgets if not _has_room(self._counted[b], self._budgets[b].people, people)])

    def _turn_away(self, scope: ScopePeople, people: tuple[str, ...], start: int, asked: tuple[int, ...]) -> int:
        cells = scope.cells
        full = self._full(asked, people)
        known = self._withheld.get((cells, scope.holds, full))
        if known is None:
            variant, crossed, budgets = self._withhold(scope, people, full)
            notes = tuple(self._turned_away.setdefault(budget, {}) for budget in crossed)
            for budget in crossed:
                self._measures.setdefault(budget, set()).update(self._rules.measures(cells, budget, start, variant))
            if budgets:
                self._charge(people, self._cost(budgets))
            elif crossed == full:
                # Nothing was charged on the way here, so the next person's case is decided alike.
                self._withheld[cells, scope.holds, full] = variant, notes
        else:
            variant, notes = known
        for note in notes:
            note.update(dict.fromkeys(people))
        return variant

    def _charge(self, people: tuple[str, ...], cost: _Clear) -> None:
        now_s = self._now_s
        for person in people:
            for counted in cost.windows:
                counted[person] = now_s
                counted.move_to_end(person)
            for charged in cost.charges:
                charged[person] = None

    def _withhold(
        self, scope: ScopePeople, people: tuple[str, ...], crossed: frozenset[int]
    ) -> tuple[int, frozenset[int], tuple[int, ...]]:
        """Return the variant for these crossed budgets, all that are crossed in the end, and what is charged in it."""
        blocked = crossed
        while True:
            variant = self._rules.variant(blocked, scope.holds)
            budgets = self._rules.charged(scope.cells, variant)
            full = self._full(budgets, people)
            if not full and blocked.isdisjoint(budgets):
                return variant, crossed, budgets
            if blocked == self._rules.all_budgets:
                raise ValueError(f"the plan of route {self._rules.plan.route} shows clear under a crossed budget")
            # The variant would show clear under another full budget, or under this very one: withhold more.
            crossed |= full
            blocked = crossed if not crossed <= blocked else self._rules.all_budgets

    def _crossing(self, budget: int) -> Crossing:
        rule = self._budgets[budget]
        counted = self._counted[budget]
        return Crossing(
            budget=budget,
            grant=rule.grant,
            limit=rule.people,
            window_s=rule.window_s,
            people_counted=len(counted),
            # Somebody turned away in a scope of several may have found room in a later scope of his own.
            people_withheld=tuple(person for person in self._turned_away[budget] if person not in counted),
            measure=", ".join(sorted(self._measures[budget])),
        )


def _has_room(counted: _Counted, limit: int, people: tuple[str, ...]) -> bool:
    """Say whether all of these (distinct) people are counted already or still fit in."""
    if len(people) == 1:
        return people[0] in counted or len(counted) < limit
    new = sum(person not in counted for person in people)
    return not new or len(counted) + new <= limit


def _counted_as(person: str, windows: Sequence[_Counted]) -> tuple[str, ...]:
    """Return the person; or its ids one by one, where all but one of them are counted already: it costs no more.

    That one costs something: it may be somebody else's, and the others forged beside it.
    """
    if JOINED not in person or all(person in counted for counted in windows):
        return (person,)
    ids = split_digests(person)
    few = all(sum(one not in counted for one in ids) <= 1 for counted in windows)
    return ids if few else (person,)


def _count(counted: _Counted, person: str, at_s: float) -> None:
    counted[person] = at_s
    counted.move_to_end(person)


def _expire(counted: _Counted, before_s: float) -> None:
    """Drop everyone last shown before `before_s`; whoever was shown at that very moment stays."""
    while counted and next(iter(counted.values())) < before_s:
        counted.popitem(last=False)
