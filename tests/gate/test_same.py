"""Ids of several spaces that mean the same people: nobody hides behind another's id, and nobody counts as two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.gate_world import World

from gharial.gate.persons import conditions_of, find_holds
from gharial.gate.same import find_together, join_ids
from gharial.model.finding import Kind, Scope
from gharial.model.plan import (
    PLAN_FORMAT,
    Budget,
    Cell,
    Condition,
    Mode,
    Node,
    Op,
    Plan,
    Step,
    Unlisted,
    Variant,
)
from gharial.watch.meter import BudgetBook, ScopePeople

SPACES = ("account", "customer", "login")
SAME = (SPACES,)
NAME = frozenset({0})
PEOPLE, THIEF = range(5), 9

Id = tuple[str, str]


def true_id(space: str, person: int) -> Id:
    return space, f"{space}{person}"


@dataclass(frozen=True)
class Record:
    """One record of an answer: whose it truly is, and the ids that it names."""

    person: int
    ids: tuple[Id, ...]


def some_spaces() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(SPACES), min_size=1, unique=True)


@st.composite
def honest_records(draw: st.DrawFn) -> Record:
    person = draw(st.sampled_from(PEOPLE))
    return Record(person, tuple(true_id(space, person) for space in draw(some_spaces())))


@st.composite
def forged_records(draw: st.DrawFn, forgers: Sequence[int] = (THIEF,)) -> Record:
    """A record of a forger: one of his ids is his own, beside it he writes whatever he likes."""
    person = draw(st.sampled_from(forgers))
    anything = st.tuples(st.sampled_from(SPACES), st.sampled_from([*PEOPLE, *forgers, 77]))
    forged = [true_id(space, other) for space, other in draw(st.lists(anything, max_size=3))]
    own = true_id(draw(st.sampled_from(SPACES)), person)
    return Record(person, tuple(draw(st.permutations(list(dict.fromkeys([own, *forged]))))))


answers = st.lists(honest_records() | forged_records(), max_size=8)


def keys_of(records: Sequence[Record], same: tuple[tuple[str, ...], ...] = SAME) -> tuple[tuple[str, ...], ...]:
    return join_ids(same, [record.ids for record in records], ())


def counted(records: Sequence[Record], same: tuple[tuple[str, ...], ...] = SAME) -> int:
    return len({key for keys in keys_of(records, same) for key in keys})


@settings(max_examples=examples(2_000))
@given(answers)
def test_nobody_hides_behind_a_forged_id(records: list[Record]):
    """For any answer, a thief's records with forged ids among them: at least as many are counted as are in it."""
    assert counted(records) >= len({record.person for record in records})


@settings(max_examples=examples(1_000))
@given(st.lists(honest_records() | forged_records((7, 8, 9)), max_size=8))
def test_thieves_together_hide_no_honest_person(records: list[Record]):
    """Several who forge together can be taken for one another at most, as many as there are spaces; for nobody else."""
    honest = {record.person for record in records if record.person in PEOPLE}
    thieves = {record.person for record in records} - honest
    assert counted(records) >= len(honest) + ceil(len(thieves) / len(SPACES))


@settings(max_examples=examples(500))
@given(answers)
def test_same_as_never_counts_more_in_one_answer(records: list[Record]):
    """It only takes away what is counted twice."""
    assert counted(records) <= counted(records, ())


@settings(max_examples=examples(500))
@given(st.lists(st.tuples(st.sampled_from(PEOPLE), some_spaces()), max_size=8))
def test_who_is_named_in_one_way_counts_once(named: list[tuple[int, list[str]]]):
    """Where the answer names each person always by the same ids, as many are counted as there are."""
    ways = dict(named)
    records = [Record(person, tuple(true_id(space, person) for space in ways[person])) for person, _ in named]
    assert counted(records) == len(ways)


@settings(max_examples=examples(500))
@given(answers, st.data())
def test_the_order_of_records_never_matters(records: list[Record], data: st.DataObject):
    """Each record has the same people, wherever it stands in the answer and in whatever order it names its ids."""
    keys = Counter((record.person, frozenset(own)) for record, own in zip(records, keys_of(records), strict=True))
    mixed = [
        Record(record.person, tuple(data.draw(st.permutations(record.ids))))
        for record in data.draw(st.permutations(records))
    ]
    assert keys == Counter((r.person, frozenset(own)) for r, own in zip(mixed, keys_of(mixed), strict=True))


@given(answers, st.sampled_from([(), (("pet", "vet"),)]))
def test_without_same_as_each_id_is_a_person(records: list[Record], same: tuple[tuple[str, ...], ...]):
    """Nothing is joined, and the order of the ids stays."""
    assert keys_of(records, same) == tuple(tuple(text for _, text in record.ids) for record in records)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([["customer:1", "login:ann"]], 1),
        ([["customer:1", "login:ann"], ["customer:1", "login:ann"]], 1),
        ([["customer:1", "login:ann"], ["customer:1", "login:bob"]], 3),
        ([["customer:1", "login:ann"], ["customer:2", "login:ann"]], 3),
        ([["customer:1", "login:ann"], ["login:ann"]], 2),
        ([["customer:1", "customer:2", "login:ann"]], 3),
        ([["customer:1", "login:ann", "account:5"]], 1),
        ([["customer:1", "login:ann"], ["login:ann", "account:5"]], 3),
        ([["customer:1", "agent:7", "login:ann"]], 2),
        ([["customer:1", "login:1"]], 1),
    ],
)
def test_which_ids_are_one_person(records: list[list[str]], expected: int):
    """Two ids of one record are one person; conflicts, chains and lists of ids leave each of them apart."""
    scopes = [[(space, f"{space}-{text}") for space, _, text in (i.partition(":") for i in ids)] for ids in records]
    assert len({key for keys in join_ids(SAME, scopes, ()) for key in keys}) == expected


def test_whom_the_request_names_alone_is_not_joined():
    """What is shown of the path's person beside a record that joins this id counts for him, and the record apart."""
    scopes = [[("customer", "c1"), ("login", "l1")]]
    assert join_ids(SAME, scopes, ()) == (("c1+l1",),)
    assert join_ids(SAME, scopes, [("customer", "c1")]) == (("c1", "l1"),)


# --- over several answers: the meter ------------------------------------------------------------------------------


def a_plan(*conditions: Condition, people: int = 0, same: tuple[tuple[str, ...], ...] = SAME) -> Plan:
    """One cell that is clear under a budget of so many people; or, without budgets, with these conditions."""
    subsets = [tuple(i for i in range(len(conditions)) if bits >> i & 1) for bits in range(2 ** len(conditions))]
    variants = (Variant(), Variant(crossed=(0,))) if people else tuple(Variant(holds=holds) for holds in subsets)
    return Plan(
        format=PLAN_FORMAT,
        policy="p",
        version=1,
        route="r",
        mode=Mode.ENFORCE,
        grants=(),
        unlisted=Unlisted.DROP,
        nodes=(Node(),),
        cells=(
            Cell(
                "country",
                (0, 1) if people else (0,) * len(variants),
                ((0,), ()) if people else (),
                fact="residency",
                report=True,
            ),
        ),
        steps=(Step(Op.CLEAR, "x", "grant:g"), Step(Op.REDACT, "x", "default")),
        variants=variants,
        budgets=(Budget("g", people, 3600),) if people else (),
        conditions=conditions,
        same=same,
    )


def shown_to_a_thief(several: list[list[Record]], limit: int) -> tuple[set[int], int]:
    """Send answers through the meter; return who was shown in clear, and how many count by now."""
    book, plan, shown = BudgetBook(), a_plan(people=limit), set()
    for now_s, records in enumerate(several):
        scopes = [ScopePeople(keys, NAME) for keys in keys_of(records)]
        reservation = book.reserve("t", "p", plan, scopes, float(now_s))
        shown |= {r.person for r, variant in zip(records, reservation.variants, strict=True) if variant == 0}
    return shown, book.size()


@settings(max_examples=examples(1_000))
@given(st.lists(answers, max_size=6), st.integers(1, 6))
def test_a_budget_holds_whatever_ids_are_forged(several: list[list[Record]], limit: int):
    """Over any answers, no more people are shown in clear than the budget allows, and all that are shown count."""
    shown, size = shown_to_a_thief(several, limit)
    assert len(shown) <= size <= limit


def test_a_thief_who_writes_victims_into_his_profile_gains_nothing():
    """His own record, each time with another victim's id beside his own, and then the victim's: both always count."""
    mine = ("customer", "customer9")
    several = []
    for victim in PEOPLE:
        several += [[Record(THIEF, (mine, true_id("login", victim)))], [Record(victim, (true_id("login", victim),))]]
    shown, size = shown_to_a_thief(several, 100)
    assert shown == {*PEOPLE, THIEF}
    assert size >= len(shown)


def test_an_echo_of_the_request_hides_nobody():
    """An API that repeats an id of the request in each record: with one id in all of them, each record still counts."""
    several = [[Record(person, (("customer", "c"), true_id("login", person)))] for person in PEOPLE]
    assert shown_to_a_thief(several, 3)[0] == {0, 1, 2}
    assert shown_to_a_thief([[record for (record,) in several]], 3)[0] < {*PEOPLE}


def test_over_days():
    """Seen by both ids again: once. By each of them before: nobody new. By one of them before or later: once more."""
    both = Record(1, (true_id("customer", 1), true_id("login", 1)))
    by_customer, by_login = (Record(1, (true_id(space, 1),)) for space in ("customer", "login"))
    assert shown_to_a_thief([[both], [both]], 9)[1] == 1
    assert shown_to_a_thief([[by_customer], [by_login], [both], [both]], 9)[1] == 2
    assert shown_to_a_thief([[by_customer], [both]], 9)[1] == 2
    assert shown_to_a_thief([[by_customer], [both], [by_login], [both]], 9)[1] == 2
    assert shown_to_a_thief([[both], [by_customer], [both]], 9)[1] == 2
    assert shown_to_a_thief([[both], [by_customer], [by_login]], 9)[1] == 3


# --- facts, consent, groups ---------------------------------------------------------------------------------------

GRANT = Condition("residency", ("US",))
GUARD = Condition("residency", ("DE", "FR"), if_missing=True)
CONSENT = Condition("consent", ("sharing",))


def judge(plan: Plan, records: Sequence[Record], countries: Sequence[str], consents: Any = None) -> list[list[int]]:
    scopes = [Scope(NAME, values=((0, Kind.STRING, country),) if country else ()) for country in countries]
    keep = (lambda kind, text: (kind, text),) * len(plan.steps)
    found = find_holds(conditions_of(plan), scopes, [record.ids for record in records], consents or {}, keep)
    return [sorted(holds) for holds in found]


@settings(max_examples=examples(1_000))
@given(st.lists(st.tuples(honest_records() | forged_records(), st.sampled_from(["US", "DE", "", "?"])), max_size=6))
def test_facts_of_joined_people_only_make_stricter(told: list[tuple[Record, str]]):
    """With same_as no grant's condition holds that did not hold without, and no guardrail's ceases to."""
    records, countries = [record for record, _ in told], [country for _, country in told]
    joined = judge(a_plan(GRANT, GUARD), records, countries)
    apart = judge(a_plan(GRANT, GUARD, same=()), records, countries)
    for with_it, without in zip(joined, apart, strict=True):
        assert not (0 in with_it and 0 not in without)
        assert not (1 in without and 1 not in with_it)


def test_what_is_told_of_one_id_counts_for_the_other():
    """The record by login tells US, the one by customer tells DE, and a third one names both: a guardrail acts."""
    records = [
        Record(1, (true_id("login", 1),)),
        Record(1, (true_id("customer", 1),)),
        Record(1, (true_id("customer", 1), true_id("login", 1))),
    ]
    assert judge(a_plan(GUARD), records, ["US", "DE", ""]) == [[0], [0], [0]]
    assert judge(a_plan(GUARD, same=()), records, ["US", "DE", ""]) == [[], [0], [0]]


def test_a_fact_of_one_id_never_stands_in_for_a_missing_one():
    """A victim's login beside the thief's customer id: the thief's country opens nothing of a record without one."""
    records = [Record(THIEF, (true_id("customer", 9), true_id("login", 1))), Record(1, (true_id("login", 1),))]
    only_thief = [Record(THIEF, (true_id("customer", 9),)), *records]
    assert judge(a_plan(GRANT, GUARD), only_thief, ["US", "", ""])[1:] == [[1], [1]]


def test_each_id_of_a_joined_person_needs_consent():
    """A forged id that has consented brings no consent for the one beside it."""
    both = [Record(1, (true_id("customer", 9), true_id("login", 1)))]
    given_by = frozenset({"sharing"})
    assert judge(a_plan(CONSENT), both, [""], {true_id("customer", 9): given_by}) == [[]]
    everyone = {true_id("customer", 9): given_by, true_id("login", 1): given_by}
    assert judge(a_plan(CONSENT), both, [""], everyone) == [[0]]


@settings(max_examples=examples(500))
@given(st.lists(honest_records(), max_size=8), st.integers(2, 4))
def test_a_crowd_is_never_larger_than_it_is(records: list[Record], wanted: int):
    """A group of so many is found only where so many people are in the answer who are named in any way together."""
    plan = a_plan(Condition("group", people=wanted))
    together = find_together(SAME, [record.ids for record in records])
    people = len({together[one] for record in records for one in record.ids})
    held = judge(plan, records, [""] * len(records))
    assert held == [[0] if people >= wanted else []] * len(records)
    linked = all(len(record.ids) == len(SPACES) for record in records)
    if linked:
        assert people == len({record.person for record in records})


def test_two_ids_make_no_crowd():
    """One record with two ids is one person where the smallest group is two; without same_as it would pass for two."""
    record = [Record(1, (true_id("customer", 1), true_id("login", 1)))]
    assert judge(a_plan(Condition("group", people=2)), record, [""]) == [[]]
    assert judge(a_plan(Condition("group", people=2), same=()), record, [""]) == [[0]]


# --- a whole gate -------------------------------------------------------------------------------------------------

POLICY = """
policy: customer-data
version: 1
tags:
  customer: { find: ['$..customerId', 'path:id'], subject: customer }
  login:    { find: '$..login', subject: login, same_as: customer, population: 1000 }
  name:     { find: '$..fullName' }
who: { care: { role: care } }
grants:
  - { grant: view, to: care, show: { customer: clear, login: clear, name: clear },
      budget: { people: 3/h, then: redact } }
"""
PAGE = [{"customerId": str(n), "login": f"user{n}", "fullName": f"Name {n}"} for n in range(5)]


@pytest.mark.parametrize(("policy", "shown"), [(POLICY, 3), (POLICY.replace(", same_as: customer", ""), 1)])
async def test_a_budget_counts_people_and_not_ids(policy: str, shown: int):
    """Of five people, each with two ids, a budget of three shows three; without same_as their ids fill it."""
    world = World(policy)
    seen = await world.call("/customers", PAGE, as_="clerk-1")
    assert sum(record["fullName"].startswith("Name") for record in seen.json) == shown
    people = world.audit.lines[-1]["people"]
    assert people["clear_count"] == (3 if shown == 3 else 2)
    assert all(("+" in digest) == (shown == 3) for digest in people["clear"])


async def test_dates_move_alike_whoever_else_is_in_the_answer():
    """By how many days a person's dates are shifted does not depend on whether other records let its ids be joined."""
    show = "show: { name: 'date_shift(300)' } }"
    world = World(POLICY.split("grants:")[0] + "grants:\n  - { grant: view, to: care, " + show + "\n")
    record = {"customerId": "7", "login": "ann", "fullName": "1990-05-17"}
    alone = await world.call("/customers", [record], as_="clerk-1")
    beside = await world.call("/customers", [record, {"login": "ann", "fullName": "x"}], as_="clerk-1")
    assert alone.json[0]["fullName"] == beside.json[0]["fullName"] != record["fullName"]


async def test_joined_people_stay_counted_after_a_crash():
    """What was charged for a joined person is durable, and counts again when the gate is back."""
    world = World(POLICY)
    await world.call("/customers", PAGE[:3], as_="clerk-1")
    seen = await world.restarted().call("/customers", [*PAGE[3:], *PAGE[:3]], as_="clerk-1")
    assert [record["fullName"].startswith("Name") for record in seen.json] == [False, False, True, True, True]


async def test_the_path_and_a_record_of_both_ids():
    """A single record by path names both ids itself: one person, whatever the path says."""
    world = World(POLICY)
    for n in range(5):
        seen = await world.call(f"/customers/{n}", PAGE[n], as_="clerk-1")
        assert seen.json["fullName"].startswith("Name") is (n < 3)


class CountedId(tuple[str, str]):
    """An id that counts how often an id was looked at."""

    __slots__ = ()
    looks = 0

    def __iter__(self):
        CountedId.looks += 1
        return super().__iter__()

    def __hash__(self):
        CountedId.looks += 1
        return super().__hash__()


def test_the_work_grows_with_the_ids_only():
    """A record of twice as many ids is twice the work; in XML one element may hold thousands."""

    def work(count):
        ids = [CountedId((space, str(at))) for space in ("customer", "login") for at in range(count)]
        CountedId.looks = 0
        join_ids((("customer", "login"),), [ids, ids[:-1], ids], ())
        return CountedId.looks

    assert 0 < work(200) < 3 * work(100)
