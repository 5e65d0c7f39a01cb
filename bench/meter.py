"""How long the meter takes for a page of people: `python bench/meter.py`. Prints medians in microseconds."""

from __future__ import annotations

import statistics
import time

from machine import describe_machine, machine_line

from gharial.model.plan import PLAN_FORMAT, Budget, Cell, Mode, Node, Op, Plan, Step, Unlisted, Variant
from gharial.watch.meter import BudgetBook, ScopePeople


def plan(*budgets: Budget) -> Plan:
    """A plan with one cell that is clear until any budget is crossed."""
    subsets = [tuple(i for i in range(len(budgets)) if n >> i & 1) for n in range(2 ** len(budgets))]
    return Plan(
        format=PLAN_FORMAT,
        policy="bench",
        version=1,
        route="customer",
        mode=Mode.ENFORCE,
        grants=("support",),
        unlisted=Unlisted.DROP,
        nodes=(Node(),),
        cells=(
            Cell(
                "name",
                tuple(1 if s else 0 for s in subsets),
                tuple(() if s else tuple(range(len(budgets))) for s in subsets),
            ),
        ),
        steps=(Step(Op.CLEAR, "name", "grant:support"), Step(Op.MASK, "name", "grant:support")),
        budgets=budgets,
        variants=tuple(Variant(s) for s in subsets),
    )


def page(first: int) -> list[ScopePeople]:
    """A hundred records, one person each."""
    return [ScopePeople((f"{first + n:032x}",), frozenset((0,))) for n in range(100)]


def median_us(book: BudgetBook, a_plan: Plan, pages: list[list[ScopePeople]]) -> float:
    """Reserve every page, one a second; the median of one reservation."""
    took = []
    for second, scopes in enumerate(pages):
        began = time.perf_counter_ns()
        book.reserve("bench", "bench", a_plan, scopes, float(second))
        took.append((time.perf_counter_ns() - began) / 1000)
    return statistics.median(took)


def main() -> None:
    """Print the ladder."""
    hour, day = Budget("support", 10_000_000, 3600), Budget("support", 10_000_000, 86_400)
    small = Budget("support", 60, 3600)
    fresh = [page(100 * n) for n in range(2000)]
    print(f"{machine_line(describe_machine())}\npages of 100 people, median of 2000\n")
    print(f"new people, one budget        {median_us(BudgetBook(), plan(hour), fresh):7.1f} us")
    print(f"known people, one budget      {median_us(BudgetBook(), plan(hour), [page(0)] * 2000):7.1f} us")
    print(f"new people, two windows       {median_us(BudgetBook(), plan(hour, day), fresh):7.1f} us")
    print(f"harvest, budget crossed       {median_us(BudgetBook(), plan(small), fresh):7.1f} us")
    single = [[ScopePeople((f"{n:032x}",), frozenset((0,)))] for n in range(2000)]
    print(f"one person, one budget        {median_us(BudgetBook(), plan(hour), single):7.1f} us")
    book, clerks = BudgetBook(), 20_000
    for clerk in range(clerks):
        book.reserve(f"clerk-{clerk}", "bench", plan_of_clerks, page(0)[:60], 0.0)
    began = time.perf_counter()
    book.forget(1.0, at_most=2000)
    print(f"forget, 2000 of {clerks} ledgers {(time.perf_counter() - began) * 1000:7.1f} ms, {book.size()} entries")


plan_of_clerks = plan(Budget("support", 60, 3600))

if __name__ == "__main__":
    main()
