"""Facts about people decide record by record, and what is missing never opens anything."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.gate import persons
from gharial.gate.persons import conditions_of, find_holds, find_variant, unknown_holds
from gharial.model.finding import Kind, Scope
from gharial.model.place import fold_fact
from gharial.model.plan import PLAN_FORMAT, Cell, Condition, Mode, Node, Op, Plan, Step, Unlisted, Variant

RESIDENCY, NAME, BIRTH = 0, 1, 2


def a_plan(*conditions: Condition) -> Plan:
    subsets = [tuple(i for i in range(len(conditions)) if bits >> i & 1) for bits in range(2 ** len(conditions))]
    variants = tuple(Variant(holds=holds) for holds in subsets)
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
            Cell("country", (0,) * len(variants), fact="residency", report=True),
            Cell("name", (0,) * len(variants), report=True),
            Cell("birth", (0,) * len(variants), report=True),
        ),
        steps=(Step(Op.CLEAR, "x", "default"),),
        variants=variants,
        conditions=conditions,
    )


def scope(*values: tuple[int, str]) -> Scope:
    return Scope(frozenset({RESIDENCY}), values=tuple((cell, Kind.STRING, text) for cell, text in values))


ANN, BOB = ("customer", "1"), ("customer", "2")
EU = ("DE", "FR")
GRANT = Condition("residency", ("US",))
GUARD = Condition("residency", EU, if_missing=True)
NOT_EEA = Condition("residency", EU, negated=True, if_missing=True)


def judge(plan, scopes, people, consents=None):
    same = (lambda kind, text: (kind, text),) * len(plan.steps)
    return [sorted(h) for h in find_holds(conditions_of(plan), scopes, people, consents or {}, same)]


def test_residency_differs_from_record_to_record():
    """Two people in one answer are judged each by their own country, whatever its case."""
    plan = a_plan(GRANT, GUARD)
    scopes = [scope((RESIDENCY, "us")), scope((RESIDENCY, " DE "))]
    assert judge(plan, scopes, [[ANN], [BOB]]) == [[0], [1]]


@pytest.mark.parametrize("value", [None, "", "  ", "Germany", "EL", "XX", "D"])
def test_what_is_no_country_is_missing(value):
    """A missing or unreadable country satisfies no grant, and every guardrail, negated ones too."""
    plan = a_plan(GRANT, GUARD, NOT_EEA)
    scopes = [scope(*([] if value is None else [(RESIDENCY, value)]))]
    assert judge(plan, scopes, [[ANN]]) == [[1, 2]]


def test_contradicting_values_are_judged_strictly():
    """Of two countries told for one person both must satisfy a grant, and any one a guardrail."""
    plan = a_plan(GRANT, GUARD)
    scopes = [scope((RESIDENCY, "US"), (RESIDENCY, "DE"))]
    assert judge(plan, scopes, [[ANN]]) == [[1]]


def test_a_fact_told_of_a_person_counts_in_all_scopes():
    """A person's country, told in one record, holds for the record that does not tell it."""
    plan = a_plan(GUARD)
    scopes = [scope((RESIDENCY, "US")), scope(), scope()]
    assert judge(plan, scopes, [[ANN], [ANN], [BOB]]) == [[], [], [0]]


def test_several_people_in_one_scope_are_judged_together():
    """A grant's condition must hold for all people of a scope, a guardrail's for any."""
    plan = a_plan(GRANT, GUARD)
    scopes = [scope((RESIDENCY, "US")), scope((RESIDENCY, "DE")), scope()]
    assert judge(plan, scopes, [[ANN], [BOB], [ANN, BOB]]) == [[0], [1], [1]]


def test_no_answer_means_no_consent():
    """Consent holds for whom the resolver names, for what it names; unknown people have given none."""
    plan = a_plan(Condition("consent", ("sharing",)), Condition("consent", ("sharing",), negated=True, if_missing=True))
    consents = {ANN: frozenset({"Sharing", "ads"}), BOB: frozenset({"ads"})}
    scopes = [scope(), scope(), scope(), scope()]
    people = [[ANN], [BOB], [("customer", "3")], []]
    assert judge(plan, scopes, people, consents) == [[0], [1], [1], [1]]


def test_small_groups_are_not_shown():
    """A record counts with the people of the same answer that show the same results; alone it is too small."""
    plan = a_plan(Condition("group", people=2, cells=(BIRTH,)))
    scopes = [scope((BIRTH, "1980")), scope((BIRTH, "1980")), scope((BIRTH, "1990")), scope((BIRTH, "1990"))]
    people = [[ANN], [BOB], [("customer", "3")], [("customer", "3")]]
    assert judge(plan, scopes, people) == [[0], [0], [], []]


def test_records_without_a_person_are_no_crowd():
    """Ten records that name nobody may all be one person's: they are a group of one."""
    plan = a_plan(Condition("group", people=2))
    assert judge(plan, [scope()] * 10, [[]] * 10) == [[]] * 10


@given(st.lists(st.sampled_from(["US", "DE", "FR", "", "??"]), max_size=4))
def test_knowing_less_never_opens_more(values):
    """Taking a value away never makes a grant's condition hold, and never makes a guardrail's fail."""
    plan = a_plan(GRANT, GUARD)
    (known,) = judge(plan, [scope(*((RESIDENCY, v) for v in values))], [[ANN]])
    (unknown,) = judge(plan, [scope()], [[ANN]])
    assert unknown == [1]
    if 0 in known:
        assert all(v in ("US", "") for v in values)


def test_of_an_unknown_person_guardrails_hold():
    """Where nothing can be known (a redirect), the variant is the one in which every guardrail acts."""
    plan = a_plan(GRANT, GUARD, NOT_EEA)
    assert unknown_holds(plan) == {1, 2}
    assert plan.variants[find_variant(plan, unknown_holds(plan))].holds == (1, 2)


class CountedPerson(tuple[str, str]):
    """A person who counts how often somebody of this kind was looked up."""

    __slots__ = ()
    looked_up = 0

    def __hash__(self) -> int:
        CountedPerson.looked_up += 1
        return super().__hash__()


def _work(monkeypatch, plan, scopes, people):
    """How many values are folded and how many people are looked up for these scopes."""
    folded = 0

    def fold(text):
        nonlocal folded
        folded += 1
        return fold_fact(text)

    counted = [[CountedPerson(person) for person in own] for own in people]
    ready, transforms = conditions_of(plan), (lambda kind, text: (kind, text),)
    CountedPerson.looked_up = 0
    with monkeypatch.context() as patch:
        patch.setattr(persons, "fold_fact", fold)
        find_holds(ready, scopes, counted, {}, transforms)
    return folded + CountedPerson.looked_up


def _records_of_one(count):
    return [scope((RESIDENCY, f"r{at}")) for at in range(count)], [[ANN]] * count


def _one_record_of_many(count):
    return [scope(*((RESIDENCY, f"r{at}") for at in range(count)))], [[("customer", str(at)) for at in range(count)]]


def _records_of_joined(count):
    return [scope((RESIDENCY, f"r{at}")) for at in range(count)], [
        [("customer", "1"), ("login", str(at))] for at in range(count)
    ]


@pytest.mark.parametrize("records", [_records_of_one, _one_record_of_many, _records_of_joined])
@pytest.mark.parametrize("wanted", [EU, ("vip",)])
def test_the_work_grows_with_the_values_and_people_only(records, wanted, monkeypatch):
    """Twice as many records are twice the work, however often they name one person, and however many one names."""
    plan = a_plan(Condition("residency", wanted), Condition("residency", wanted, if_missing=True))
    plan = msgspec.structs.replace(plan, same=(("customer", "login"),))
    few, many = (_work(monkeypatch, plan, *records(count)) for count in (100, 200))
    # Four times as much would be quadratic.
    assert 0 < many < 3 * few
