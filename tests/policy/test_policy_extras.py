"""What a plan says beyond its trie: extras, the order of its steps, probes, conditions and the cells that report."""

from __future__ import annotations

import pytest

from gharial.model.errors import PolicyInvalid
from gharial.model.plan import Condition, Extra, Plan
from gharial.policy.compile import compile_plan
from gharial.policy.document import parse_policy
from gharial.policy.technique import Technique, compare
from gharial.policy.variants import MAX_FACTORS

HEAD = "policy: p\nversion: 1\nwho: { w: {} }\n"


def a_plan(tags: str, show: str = "{}", rest: str = "", grant: str = "") -> Plan:
    """The plan of everyone, to whom all rules apply."""
    grants = f"grants: [ {{ grant: g, to: w, show: {show} {grant} }} ]\n" if show != "{}" else ""
    policy = parse_policy(f"{HEAD}tags: {tags}\n{grants}{rest}\n", "policy.yaml")
    return compile_plan(policy, "r", (), [g.name for g in policy.grants], [g.name for g in policy.never])


def test_steps_are_ranked_only_where_extras_need_it():
    """Without extras no rank; with them a linear order that keeps the scale."""
    tags = "{ a: { find: $.a }, b: { find: $.b }, c: { find: $.c }, d: { find: $.d }, e: { find: '$.e[-1]' } }"
    show = "{ a: clear, b: mask(last=4), c: mask(first=4), d: token, e: year }"
    assert {step.rank for step in a_plan(tags.replace("[-1]", ""), show).steps} == {0}
    steps = a_plan(tags, show).steps
    assert len({step.rank for step in steps}) >= 5
    for one in steps:
        for other in steps:
            if compare(Technique(one.op, one.args), Technique(other.op, other.args)) == -1:
                assert one.rank < other.rank


def test_a_detector_matters_only_where_unlisted_values_may_leave():
    """What is dropped or redacted need not be looked at, and such a plan stays fast."""
    for unlisted, slow in (("drop", False), ("redact", False), ("pass", True), ("detect", True)):
        plan = a_plan("{ a: { find: $.a, detect: email } }", rest=f"unlisted_fields: {unlisted}")
        assert bool(plan.needs_reference) is slow
        assert plan.extras == ((Extra(0, detector="email"),) if slow else ())


def test_where_is_folded_and_names_the_very_member():
    """Members and texts of `where` come folded into the plan, as an executor compares them."""
    plan = a_plan("{ a: { find: '$..Value', where: { NAME: [Straße, PHONE] } } }")
    assert plan.extras == (Extra(0, path="$..value", where=(("name", ("phone", "strasse")),)),)
    assert plan.needs_reference == "'a' finds $..Value (where)"
    assert len(plan.nodes) == 1


def test_names_of_members_are_not_in_the_trie():
    """With `keys` the found object's values are as if the tag were not there."""
    plan = a_plan("{ a: { find: $.a, keys: true }, b: { find: $.a.x } }", "{ a: token, b: clear }")
    assert plan.extras == (Extra(1, path="$.a", keys=True),)
    assert [plan.cells[node.cell].tag for node in plan.nodes if node.cell >= 0] == ["b"]


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("find: $.v, where: { n: x }", "find: $.v, where: { n: x }", True),
        ("find: $.v, where: { n: x }", "find: $.v, where: { n: y }", False),
        ("find: $.v, where: { n: x }", "find: $.v, where: { m: y }", True),
        ("find: $.v, where: { n: x }", "find: $.V", True),
        ("find: $.v, where: { n: x }", "find: $.w", False),
        ("find: '$.v[?@.a]'", "find: '$.v[?@.a]'", True),
        ("find: '$.v[?@.a]'", "find: '$.v[?@.b]'", False),
        ("find: $.v, keys: true", "find: $.v", False),
    ],
)
def test_only_the_very_same_place_asks_its_author(first: str, second: str, clash: bool):
    """Two techniques that can't be ordered are a mistake where both name one place, else the rank decides."""
    tags, show = f"{{ a: {{ {first} }}, b: {{ {second} }} }}", "{ a: mask(last=4), b: mask(first=4) }"
    if clash:
        with pytest.raises(PolicyInvalid, match="find the same value"):
            a_plan(tags, show)
    else:
        assert a_plan(tags, show)


def test_probes_are_what_is_not_clear_for_everybody():
    """Masked, withheld, or clear for some people only: no filtering by it; a budget alone does not forbid it."""
    tags = (
        "{ a: { find: '$..Ann' }, b: { find: '$.b[0]' }, c: { find: $.c }, d: { find: ['$.d', '$.D2'] },"
        " id: { find: $.id, subject: s } }"
    )
    never = "{ never: n, filter_or_sort_by: [a, b, c, d], unless: clear }"
    some = "{ never: m, tag: d, when: { subject.consent: x }, at_least: mask }"
    plan = a_plan(
        tags, "{ a: mask, b: clear, d: clear }", f"never: [ {never}, {some} ]", ", budget: { people: 5/h, then: mask }"
    )
    assert plan.probes == ("ann", "c", "d", "d2")
    always = a_plan(tags, "{ b: clear }", f"never: [ {never.replace(', unless: clear', '')} ]")
    assert always.probes == ("ann", "b", "c", "d", "d2")
    # A stricter tag at the same place hides the value, and its name with it.
    both = a_plan("{ a: { find: $.x }, b: { find: $.x } }", "{ a: clear }",
                  "never: [ { never: n, filter_or_sort_by: a, unless: clear } ]")  # fmt: skip
    assert both.probes == ("x",)


def test_a_group_compares_what_its_grant_generalises():
    """Cells that some variant generalises, and they report; without any, the answer counts as one group."""
    tags = "{ a: { find: $.a }, b: { find: $.b }, c: { find: $.c } }"
    plan = a_plan(tags, "{ a: year, b: band(10), c: mask }", grant=", min_group: 7")
    (group,) = plan.conditions
    assert (group.fact, group.people, group.if_missing) == ("group", 7, False)
    assert [plan.cells[cell].tag for cell in group.cells] == ["a", "b"]
    assert [cell.tag for cell in plan.cells if cell.report] == ["a", "b"]
    assert a_plan(tags, "{ c: mask }", grant=", min_group: 7").conditions == (Condition("group", people=7),)


def test_facts_report_only_where_a_condition_asks():
    """A value is handed out of a body only for a condition of this very plan."""
    tags = "{ a: { find: $.a }, land: { find: '$.land[0]', fact: residency } }"
    assert not any(cell.report for cell in a_plan(tags).cells)
    plan = a_plan(tags, "{ a: clear }", grant=", needs: { subject.residency: { not: EU } }")
    assert {(cell.tag, cell.fact, cell.report) for cell in plan.cells} >= {
        ("a", "", False),
        ("land", "residency", True),
    }
    assert plan.conditions[0].negated
    assert not plan.conditions[0].if_missing


def test_equal_conditions_are_one_and_missing_ones_differ():
    """Two grants that need the same share it; a guardrail's is another, for there a missing fact means otherwise."""
    rest = (
        "grants:\n  - { grant: g, to: w, show: { a: clear }, needs: { subject.consent: [x, y] } }\n"
        "  - { grant: h, to: w, show: { b: clear }, needs: { subject.consent: [y, x] } }\n"
        "never: [ { never: n, tag: a, when: { subject.consent: [x, y] }, at_least: mask } ]"
    )
    plan = a_plan("{ a: { find: $.a }, b: { find: $.b } }", rest=rest)
    assert plan.conditions == (
        Condition("consent", ("x", "y")),
        Condition("consent", ("x", "y"), if_missing=True),
    )
    assert [v.holds for v in plan.variants] == [(), (0,), (1,), (0, 1)]


def test_conditions_and_budgets_together_are_bounded():
    """Each doubles the variants; nine of them are refused, at the rule that goes beyond."""
    needs = ", ".join(f"{{ grant: g{n}, to: w, show: {{ a: clear }}, needs: {{ subject.consent: c{n} }} }}"
                      for n in range(MAX_FACTORS + 1))  # fmt: skip
    with pytest.raises(PolicyInvalid, match="have more than 8 budgets and conditions about persons"):
        a_plan("{ a: { find: $.a } }", rest=f"grants: [ {needs} ]")
    fewer = needs.rpartition(", { grant")[0]
    assert len(a_plan("{ a: { find: $.a } }", rest=f"grants: [ {fewer} ]").variants) == 256


def test_the_type_of_a_tag_is_in_all_its_steps():
    """Executors and techniques may need it: a date is redacted as a date."""
    plan = a_plan("{ a: { find: $.a, type: date } }", "{ a: band(10y) }", grant=", min_group: 2")
    assert {step.arg("type", "") for step in plan.steps} == {"date"}
    assert plan.steps[1].args == (("type", "date"), ("unit", "y"), ("width", 10))


def test_a_floor_that_cannot_be_ordered_shows_what_both_allow():
    """A guardrail never asks its author to choose: the result shows only what it and the grants both show."""
    rest = "never: [ { never: n, tag: a, at_least: mask(first=2) }, { never: m, tag: a, at_least: mask(first=3) } ]"
    plan = a_plan("{ a: { find: $.a } }", "{ a: 'mask(first=4, last=4)' }", rest)
    step = plan.steps[plan.cells[0].steps[0]]
    assert (str(Technique(step.op, step.args)), step.rule) == ("mask(first=2)", "never:n")
    plan = a_plan("{ a: { find: $.a } }", "{ a: mask(last=4) }", rest)
    assert str(Technique(plan.steps[0].op, plan.steps[0].args)) == "mask"
