"""The meter's law: no window ever holds more people than its budget allows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples

from gharial.gate.ports import Charge
from gharial.model.plan import PLAN_FORMAT, Budget, Cell, Condition, Mode, Node, Op, Plan, Step, Unlisted, Variant
from gharial.watch.meter import BudgetBook, Reservation, ScopePeople

WHO, POLICY = "t\x1fcare\x1fu", "customer-data"
OPS = (Op.CLEAR, Op.MASK, Op.REDACT)
NAME = frozenset({0})


def subsets(count: int) -> list[tuple[int, ...]]:
    return [tuple(i for i in range(count) if bits >> i & 1) for bits in range(2**count)]


def a_plan(
    *budgets: Budget, cells: tuple[tuple[str, ...], ...] = (), needs: tuple[str, ...] = (), **changes: object
) -> Plan:
    """A plan as the compiler makes it: cell n is clear while one of the grants `cells[n]` has room, else masked.

    Condition n must hold for the grant `needs[n]` to show anything.
    """
    ways = [Variant(crossed, holds) for holds in subsets(len(needs)) for crossed in subsets(len(budgets))]
    grants_of_cells = cells or (tuple(dict.fromkeys(b.grant for b in budgets)),)

    def charges(grants: tuple[str, ...], way: Variant) -> tuple[int, ...]:
        closed = {budgets[b].grant for b in way.crossed}
        closed |= {grant for condition, grant in enumerate(needs) if condition not in way.holds}
        return tuple(i for i, b in enumerate(budgets) if b.grant in grants and b.grant not in closed)

    fields: dict[str, object] = {
        "format": PLAN_FORMAT,
        "policy": POLICY,
        "version": 1,
        "route": "customer",
        "mode": Mode.ENFORCE,
        "grants": tuple(sorted({b.grant for b in budgets})),
        "unlisted": Unlisted.DROP,
        "nodes": (Node(),),
        "cells": tuple(
            Cell("name", tuple(0 if charges(g, w) else 1 for w in ways), tuple(charges(g, w) for w in ways))
            for g in grants_of_cells
        ),
        "steps": tuple(Step(op, "name", "grant:g") for op in OPS),
        "budgets": budgets,
        "variants": tuple(ways),
        "conditions": tuple(Condition("consent", (grant,)) for grant in needs),
    }
    return Plan(**{**fields, **changes})  # type: ignore[arg-type]


def people(*names: str, cells: frozenset[int] = NAME) -> list[ScopePeople]:
    """One scope per name; a name like 'a+b' is a scope of two people."""
    return [ScopePeople(tuple(name.split("+")), cells) for name in names]


def crossed(reservation: Reservation, plan: Plan) -> list[tuple[int, ...]]:
    return [plan.variants[v].crossed for v in reservation.variants]


HOUR = Budget("support", 3, 3600)


def test_a_page_of_a_hundred_under_a_budget_of_sixty_shows_sixty():
    """The first sixty in document order are shown, the next forty come as the next variant, and one crossing tells."""
    plan = a_plan(Budget("support", 60, 3600))
    page = people(*(f"p{n}" for n in range(100)))
    got = BudgetBook().reserve(WHO, POLICY, plan, page, 0.0)
    assert got.variants == (0,) * 60 + (1,) * 40
    assert got.charges == tuple(("support", f"p{n}") for n in range(60))
    (crossing,) = got.crossings
    assert (crossing.grant, crossing.limit, crossing.window_s, crossing.people_counted) == ("support", 60, 3600, 60)
    assert crossing.people_withheld == tuple(f"p{n}" for n in range(60, 100))
    assert crossing.measure == "mask"


def test_people_counted_already_stay_as_they_were():
    """Whoever was shown is shown again although the budget is spent."""
    book, plan = BudgetBook(), a_plan(HOUR)
    book.reserve(WHO, POLICY, plan, people("a", "b", "c"), 0.0)
    assert crossed(book.reserve(WHO, POLICY, plan, people("d", "b", "a"), 1.0), plan) == [(0,), (), ()]


def test_room_comes_back_when_a_window_has_passed():
    """At exactly one window the person still counts; a moment later there is room."""
    book, plan = BudgetBook(), a_plan(Budget("support", 1, 3600))
    book.reserve(WHO, POLICY, plan, people("a"), 100.0)
    assert crossed(book.reserve(WHO, POLICY, plan, people("b"), 3700.0), plan) == [(0,)]
    assert crossed(book.reserve(WHO, POLICY, plan, people("b"), 3700.001), plan) == [()]


def test_a_person_seen_again_counts_from_then_on():
    """Refreshing a person keeps the room taken: otherwise 'a' and 'b' were both shown within one window."""
    book, plan = BudgetBook(), a_plan(Budget("support", 1, 3600))
    book.reserve(WHO, POLICY, plan, people("a"), 0.0)
    assert book.reserve(WHO, POLICY, plan, people("a"), 3000.0).charges == (("support", "a"),)
    assert crossed(book.reserve(WHO, POLICY, plan, people("b"), 3601.0), plan) == [(0,)]


def test_a_clock_set_back_gives_no_room_earlier():
    """Time only moves on: neither a look back nor the time after it opens a window early."""
    book, plan = BudgetBook(), a_plan(Budget("support", 1, 3600))
    book.reserve(WHO, POLICY, plan, people("a"), 10_000.0)
    got = book.reserve(WHO, POLICY, plan, people("a", "b"), 0.0)
    assert crossed(got, plan) == [(), (0,)]
    assert got.at_s == 10_000.0
    assert crossed(book.reserve(WHO, POLICY, plan, people("b"), 3601.0), plan) == [(0,)]


def test_a_scope_of_several_people_needs_room_for_all():
    """Two new people and room for one: the scope is withheld, and the one alone is still shown after it."""
    book, plan = BudgetBook(), a_plan(Budget("support", 2, 3600))
    got = book.reserve(WHO, POLICY, plan, people("a", "a+a", "b+c", "b", "a+b", "c"), 0.0)
    assert crossed(got, plan) == [(), (), (0,), (), (), (0,)]
    assert got.crossings[0].people_withheld == ("c",)


def test_principals_policies_and_grants_are_counted_apart():
    """One clerk's harvest takes nothing from another clerk, policy or grant."""
    book, plan = BudgetBook(), a_plan(Budget("support", 1, 3600))
    other = a_plan(Budget("billing", 1, 3600))
    book.reserve(WHO, POLICY, plan, people("a"), 0.0)
    for principal, policy, its_plan in (("other", POLICY, plan), (WHO, "other", plan), (WHO, POLICY, other)):
        assert crossed(book.reserve(principal, policy, its_plan, people("b"), 0.0), its_plan) == [()]
    assert crossed(book.reserve(WHO, POLICY, plan, people("b"), 0.0), plan) == [(0,)]


def test_two_windows_of_a_grant_both_hold():
    """The shorter window opens again, the longer one is still full: the variant says which are crossed."""
    plan = a_plan(Budget("g", 1, 3600), Budget("g", 2, 86_400))
    book = BudgetBook()
    assert crossed(book.reserve(WHO, POLICY, plan, people("a", "b"), 0.0), plan) == [(), (0,)]
    assert crossed(book.reserve(WHO, POLICY, plan, people("b"), 4000.0), plan) == [()]
    assert crossed(book.reserve(WHO, POLICY, plan, people("c"), 4000.0), plan) == [(0, 1)]
    assert crossed(book.reserve(WHO, POLICY, plan, people("c"), 8000.0), plan) == [(1,)]


def test_a_person_is_charged_to_every_grant_that_allowed_clear():
    """Two grants allow clear: both count. Once one is spent, the other still shows and counts alone."""
    plan = a_plan(Budget("g", 1, 3600), Budget("h", 2, 3600))
    got = BudgetBook().reserve(WHO, POLICY, plan, people("a", "b", "c"), 0.0)
    assert crossed(got, plan) == [(), (0,), (0, 1)]
    assert set(got.charges) == {("g", "a"), ("h", "a"), ("h", "b")}
    assert len(got.charges) == 3
    assert [c.grant for c in got.crossings] == ["g", "h"]


def test_cells_without_a_budget_cost_nothing():
    """A scope in which nothing is clear under a budget is neither counted nor withheld."""
    plan = a_plan(Budget("g", 0, 3600), cells=(("g",), ()))
    got = BudgetBook().reserve(WHO, POLICY, plan, people("a", cells=frozenset({1})) + people("b"), 0.0)
    assert crossed(got, plan) == [(), (0,)]
    assert got.charges == ()


def test_a_plan_without_budgets_counts_nobody():
    """No budget, no count, and every scope comes as the normal variant."""
    book = BudgetBook()
    assert book.reserve(WHO, POLICY, a_plan(), people("a", "b"), 5.0) == Reservation((0, 0), at_s=5.0)
    assert book.size() == 0


def test_a_lowered_limit_keeps_the_old_and_stops_the_new():
    """A new policy version allows fewer: people counted stay, new ones are withheld until enough have left."""
    book = BudgetBook()
    book.reserve(WHO, POLICY, a_plan(HOUR), people("a", "b", "c"), 0.0)
    lower = a_plan(Budget("support", 1, 3600))
    assert crossed(book.reserve(WHO, POLICY, lower, people("a", "b", "c", "d"), 10.0), lower) == [(), (), (), (0,)]


def test_a_longer_window_begins_with_what_is_known():
    """A policy version that adds a day's window counts the people of the running hour in it, and old plans fill it."""
    book = BudgetBook()
    book.reserve(WHO, POLICY, a_plan(HOUR), people("a", "b"), 0.0)
    longer = a_plan(HOUR, Budget("support", 3, 86_400))
    book.reserve(WHO, POLICY, longer, people("a"), 10.0)
    book.reserve(WHO, POLICY, a_plan(HOUR), people("c"), 20.0)  # an exchange that began with the version before
    assert crossed(book.reserve(WHO, POLICY, longer, people("d"), 5000.0), longer) == [(1,)]


def test_what_was_stored_counts_after_a_restart():
    """A crash resets nothing: the charges of the old book, loaded into a new one, decide alike, in every window."""
    plan = a_plan(Budget("g", 2, 3600), Budget("g", 3, 86_400))
    first = BudgetBook()
    rows = [
        Charge(WHO, POLICY, grant, person, got.at_s)
        for now_s, names in ((0.0, "ab"), (4000.0, "c"), (4001.0, "a"))
        for got in [first.reserve(WHO, POLICY, plan, people(*names), now_s)]
        for grant, person in got.charges
    ]
    second = BudgetBook()
    second.load(reversed(rows))
    second.reserve(WHO, POLICY, plan, [], 4001.0)
    assert second.size() == first.size()  # what waited for a plan is in the windows now, and nowhere else
    for page, now_s in ((people("b", "d"), 4002.0), (people("d", "e"), 8000.0), (people("d"), 90_000.0)):
        assert first.reserve(WHO, POLICY, plan, page, now_s) == second.reserve(WHO, POLICY, plan, page, now_s)


def test_charges_are_loaded_into_an_empty_book_only():
    """Loading over what was counted since could move people back in time."""
    book = BudgetBook()
    book.reserve(WHO, POLICY, a_plan(HOUR), people("a"), 0.0)
    with pytest.raises(ValueError, match="empty book"):
        book.load([])


def test_a_charge_from_the_future_is_not_forgotten_early():
    """The clock was set back while the process was down: the book's time goes on from the latest charge."""
    book, plan = BudgetBook(), a_plan(Budget("support", 1, 3600))
    book.load([Charge(WHO, POLICY, "support", "a", 50_000.0)])
    got = book.reserve(WHO, POLICY, plan, people("a", "b"), 100.0)
    assert crossed(got, plan) == [(), (0,)]
    assert got.at_s == 50_000.0
    assert crossed(book.reserve(WHO, POLICY, plan, people("b"), 53_601.0), plan) == [()]


# --- conditions of persons ---------------------------------------------------------------------------------------


def those(names: str, holds: frozenset[int]) -> list[ScopePeople]:
    return [ScopePeople((name,), NAME, holds) for name in names]


def test_a_person_begins_with_exactly_the_conditions_that_hold():
    """Who has given consent is shown and counted, who has not is neither, side by side in one answer."""
    plan = a_plan(Budget("g", 9, 3600), needs=("g", "h"))
    page = those("a", frozenset({0})) + those("b", frozenset()) + those("c", frozenset({0, 1}))
    got = BudgetBook().reserve(WHO, POLICY, plan, page, 0.0)
    assert [plan.variants[v] for v in got.variants] == [Variant((), (0,)), Variant(), Variant((), (0, 1))]
    assert got.charges == (("g", "a"), ("g", "c"))


def test_a_crossed_budget_leaves_the_conditions_as_they_are():
    """Beyond the budget a person gets what stands for clear under the same conditions, told with its measure."""
    plan = a_plan(Budget("g", 1, 3600), needs=("g", "h"))
    page = those("ab", frozenset({0})) + those("cd", frozenset({0, 1})) + those("e", frozenset({1}))
    got = BudgetBook().reserve(WHO, POLICY, plan, page, 0.0)
    assert [plan.variants[v] for v in got.variants] == [
        Variant((), (0,)),
        Variant((0,), (0,)),
        Variant((0,), (0, 1)),
        Variant((0,), (0, 1)),
        Variant((), (1,)),
    ]
    (crossing,) = got.crossings
    assert (crossing.people_withheld, crossing.measure) == (("b", "c", "d"), "mask")


def test_conditions_decide_without_any_budget_too():
    """A plan without budgets has variants all the same."""
    plan = a_plan(needs=("g",))
    got = BudgetBook().reserve(WHO, POLICY, plan, those("a", frozenset({0})) + those("b", frozenset()), 0.0)
    assert [plan.variants[v].holds for v in got.variants] == [(0,), ()]


@pytest.mark.parametrize("budgets", [(), (Budget("g", 5, 3600),)])
def test_a_plan_without_the_variant_for_these_conditions_is_refused(budgets):
    """No other variant would do, not even the strictest known one: raising is the one safe way on."""
    plan = a_plan(*budgets, needs=("g",))
    with pytest.raises(ValueError, match="these conditions"):
        BudgetBook().reserve(WHO, POLICY, plan, those("a", frozenset({0, 7})), 0.0)


def test_a_crossed_budget_never_falls_to_other_conditions():
    """The plan can withhold only where no condition holds: for one of whom one holds there is no safe way on."""
    plan = a_plan(Budget("g", 0, 3600), needs=("g",))
    keep = [i for i, v in enumerate(plan.variants) if v != Variant((0,), (0,))]
    (cell,) = plan.cells
    changed = {
        "variants": tuple(plan.variants[i] for i in keep),
        "cells": (Cell("name", tuple(cell.steps[i] for i in keep), tuple(cell.charges[i] for i in keep)),),
    }
    less = Plan(**{**{name: getattr(plan, name) for name in plan.__struct_fields__}, **changed})
    with pytest.raises(ValueError, match="no variant for a crossed budget"):
        BudgetBook().reserve(WHO, POLICY, less, those("a", frozenset({0})), 0.0)


# --- plans that can't be right -----------------------------------------------------------------------------------


def test_a_missing_variant_falls_to_all_crossed():
    """Without the variant for exactly what is crossed, the strictest one is taken, never the normal one."""
    plan = a_plan(Budget("g", 1, 3600), Budget("h", 9, 3600))
    keep = [i for i, v in enumerate(plan.variants) if v.crossed != (0,)]
    (cell,) = plan.cells
    less = a_plan(
        *plan.budgets,
        variants=tuple(plan.variants[i] for i in keep),
        cells=(("g", "h"),),
    )
    less = Plan(
        **{
            **{name: getattr(less, name) for name in less.__struct_fields__},
            "cells": (Cell("name", tuple(cell.steps[i] for i in keep), tuple(cell.charges[i] for i in keep)),),
        }
    )
    got = BudgetBook().reserve(WHO, POLICY, less, people("a", "b"), 0.0)
    assert crossed(got, less) == [(), (0, 1)]
    assert [c.grant for c in got.crossings] == ["g"]


def test_a_plan_without_any_variant_to_withhold_with_is_refused():
    """There is only the normal variant: raising is the one safe way on."""
    plan = a_plan(Budget("g", 0, 3600), variants=(Variant(),))
    with pytest.raises(ValueError, match="no variant"):
        BudgetBook().reserve(WHO, POLICY, plan, people("a"), 0.0)


def test_a_plan_that_shows_clear_under_a_crossed_budget_is_refused():
    """Every variant charges the crossed budget, so every one would show the person clear."""
    plan = a_plan(Budget("g", 0, 3600))
    cells = (Cell("name", (0, 0), ((0,), (0,))),)
    wrong = Plan(**{**{name: getattr(plan, name) for name in plan.__struct_fields__}, "cells": cells})
    with pytest.raises(ValueError, match="under a crossed budget"):
        BudgetBook().reserve(WHO, POLICY, wrong, people("a"), 0.0)


def test_a_budget_that_appears_only_in_another_variant_is_held_too():
    """Variant 1 shows clear under a second, full budget that variant 0 did not ask for: it is crossed as well."""
    budgets = (Budget("g", 0, 3600), Budget("h", 0, 3600))
    plan = a_plan(*budgets)
    cells = (Cell("name", (0, 0, 0, 1), ((0,), (1,), (0,), ())),)
    odd = Plan(**{**{name: getattr(plan, name) for name in plan.__struct_fields__}, "cells": cells})
    got = BudgetBook().reserve(WHO, POLICY, odd, people("a", "b"), 0.0)
    assert crossed(got, odd) == [(0, 1), (0, 1)]
    assert got.charges == ()


def test_who_is_counted_is_not_taken_for_the_stranger_before():
    """A stranger finds a second budget full; the next person is in it already and is shown under it."""
    budgets = (Budget("g", 0, 3600), Budget("h", 1, 3600))
    cells = (
        Cell("name", (0, 0, 0, 1), ((0,), (1,), (0,), ())),
        Cell("name", (0, 0, 1, 1), ((1,), (1,), (), ())),
    )
    plan = a_plan(*budgets)
    odd = Plan(**{**{name: getattr(plan, name) for name in plan.__struct_fields__}, "cells": cells})
    page = [*people("a", cells=frozenset({1})), *people("stranger", "a")]
    assert crossed(BudgetBook().reserve(WHO, POLICY, odd, page, 0.0), odd) == [(), (0, 1), (0,)]


def test_a_charge_needs_room_in_all_windows_of_its_grant():
    """A stored charge counts in every window of its grant, so a cell that names one of them is held by all."""
    plan = a_plan(Budget("g", 9, 3600), Budget("g", 1, 86_400))
    cells = (Cell("name", (0, 1, 1, 1), ((0,), (), (), ())),)
    one = Plan(**{**{name: getattr(plan, name) for name in plan.__struct_fields__}, "cells": cells})
    assert crossed(BudgetBook().reserve(WHO, POLICY, one, people("a", "b"), 0.0), one) == [(), (1,)]


def test_a_scope_without_people_is_refused_before_anything_is_counted():
    """Nobody to count would be somebody shown for nothing."""
    book = BudgetBook()
    with pytest.raises(ValueError, match="without people"):
        book.reserve(WHO, POLICY, a_plan(HOUR), [*people("a"), ScopePeople((), NAME)], 0.0)
    assert book.size() == 0


# --- memory ------------------------------------------------------------------------------------------------------


def test_a_harvest_holds_no_more_than_the_limit():
    """Ten thousand people asked for, three allowed: three are held."""
    book, plan = BudgetBook(), a_plan(HOUR)
    for start in range(0, 10_000, 100):
        book.reserve(WHO, POLICY, plan, people(*(str(n) for n in range(start, start + 100))), float(start) / 1000)
    assert book.size() == 3


def test_forgetting_drops_what_no_window_covers_and_nothing_else():
    """After the window nothing is left of a principal, loaded charges included; before it nothing is lost."""
    book, plan = BudgetBook(retain_s=7200), a_plan(Budget("support", 1, 3600))
    book.load([Charge("old", POLICY, "support", "x", 0.0)])
    for n in range(10):
        book.reserve(f"p{n}", POLICY, plan, people("a"), 0.0)
    for _ in range(4):
        book.forget(3600.0, at_most=3)
    assert book.size() == 11
    assert crossed(book.reserve("p3", POLICY, plan, people("b"), 3600.0), plan) == [(0,)]
    for _ in range(8):
        book.forget(7201.0, at_most=3)
    assert book.size() == 0
    assert book._ledgers == {}


# --- the law -----------------------------------------------------------------------------------------------------

BUDGETS = st.tuples(
    st.builds(Budget, st.just("g"), st.integers(0, 4), st.just(10)),
    st.builds(Budget, st.just("g"), st.integers(0, 6), st.just(25)),
    st.builds(Budget, st.just("h"), st.integers(0, 4), st.just(15)),
)
CELLS = st.sets(st.integers(0, 2), min_size=1, max_size=3).map(frozenset)
SCOPES = st.lists(
    st.builds(
        ScopePeople,
        st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3).map(tuple),
        CELLS,
        st.sets(st.integers(0, 1)).map(frozenset),
    ),
    max_size=8,
)
STEPS = st.sampled_from((0.0, 0.0, 0.5, 1.0, 4.0, 5.0, 10.0, 11.0, 30.0, -7.0))


@dataclass
class Shown:
    """What an observer saw: (time, grant, person) of everyone shown clear."""

    seen: list[tuple[float, str, str]]

    def most_within(self, grant: str, window_s: float) -> int:
        """The largest number of distinct people shown under `grant` in any closed interval of that length."""
        mine = [(at_s, who) for at_s, name, who in self.seen if name == grant]
        return max(
            (len({who for at_s, who in mine if begin <= at_s <= begin + window_s}) for begin, _ in mine), default=0
        )


@settings(max_examples=examples(300))
@given(budgets=BUDGETS, calls=st.lists(st.tuples(STEPS, SCOPES), max_size=25), data=st.data())
def test_no_interval_ever_holds_more_people_than_the_budget(budgets, calls, data):
    """In any interval as long as the window, whatever was asked and whenever the process died, the limit held."""
    plan = a_plan(*budgets, cells=(("g",), ("h",), ("g", "h")), needs=("g", "h"))
    book, now_s = BudgetBook(), 100.0
    shown, rows = Shown([]), []
    for step_s, scopes in calls:
        now_s += step_s
        if data.draw(st.booleans(), label="crash"):
            book = BudgetBook()
            book.load(rows)
        if data.draw(st.booleans(), label="forget"):
            book.forget(now_s)
        got = book.reserve(WHO, POLICY, plan, scopes, now_s)
        rows += [Charge(WHO, POLICY, grant, person, got.at_s) for grant, person in got.charges]
        for scope, variant in zip(scopes, got.variants, strict=True):
            assert frozenset(plan.variants[variant].holds) == scope.holds
            for cell in scope.cells:
                for budget in plan.cells[cell].charges[variant]:
                    shown.seen += [(got.at_s, budgets[budget].grant, who) for who in scope.people]
        assert {(g, p) for at_s, g, p in shown.seen if at_s == got.at_s} >= set(got.charges)
    for budget in budgets:
        assert shown.most_within(budget.grant, budget.window_s) <= budget.people


@settings(max_examples=examples(200))
@given(budgets=BUDGETS, calls=st.lists(st.tuples(STEPS, SCOPES), max_size=15))
def test_what_is_shown_is_what_is_charged(budgets, calls):
    """Everybody shown clear under a budgeted grant is in `charges`, and nobody else; nobody is withheld with room."""
    plan = a_plan(*budgets, cells=(("g",), ("h",), ("g", "h")), needs=("g", "h"))
    book, now_s = BudgetBook(), 100.0
    for step_s, scopes in calls:
        now_s += step_s
        got = book.reserve(WHO, POLICY, plan, scopes, now_s)
        expected = {
            (budgets[budget].grant, who)
            for scope, variant in zip(scopes, got.variants, strict=True)
            for cell in scope.cells
            for budget in plan.cells[cell].charges[variant]
            for who in scope.people
        }
        assert set(got.charges) == expected
        assert len(got.charges) == len(expected)
        for crossing in got.crossings:
            assert crossing.people_withheld
            assert crossing.people_counted + 3 > crossing.limit  # a scope has three people at most
        assert any(plan.variants[v].crossed for v in got.variants) == bool(got.crossings)
