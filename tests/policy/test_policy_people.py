"""Kinds of people: what the tools say of a person's facts is what the gate decides about bodies."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.policies import conditional_policy_maps, read

from gharial.gate.persons import conditions_of, find_holds
from gharial.model.errors import PolicyInvalid
from gharial.model.finding import Kind, Scope
from gharial.policy.classes import find_classes
from gharial.policy.diff import compile_class
from gharial.policy.people import find_people, holding, variants_of, words_of

PERSON = ("customer", "7")
RESIDENCIES = ("FR", "fr", " US ", "NO", "CH", "EU", "Germany", "", "42")
CONSENTS = ("sharing", "ads", "Sharing", "other")


@given(conditional_policy_maps(), st.data())
@settings(max_examples=examples(100))
def test_a_person_is_judged_as_the_gate_judges(policy: dict[str, Any], data: st.DataObject):
    """For any facts of a person, the conditions that hold are those that hold for a body that tells them."""
    parsed = read(policy)
    applying = data.draw(st.sampled_from(find_classes([parsed]).classes)).applying[0]
    try:
        plan = compile_class(parsed, (), applying.grants, applying.guardrails)
    except PolicyInvalid:
        return
    homes = data.draw(st.lists(st.sampled_from(RESIDENCIES), max_size=2))
    consents = data.draw(st.lists(st.sampled_from(CONSENTS), max_size=2))
    cell = next((n for n, cell in enumerate(plan.cells) if cell.fact == "residency"), None)
    told = () if cell is None else tuple((cell, Kind.STRING, home) for home in homes)
    scope = Scope(frozenset(), (PERSON,), told)
    (held,) = find_holds(conditions_of(plan), [scope], [[PERSON]], {PERSON: frozenset(consents)}, ())
    assert holding(plan, {"residency": tuple(homes), "consent": tuple(consents)}) == held


@given(conditional_policy_maps())
@settings(max_examples=examples(40))
def test_every_variant_belongs_to_some_kind_of_people(policy: dict[str, Any]):
    """Each kind has a variant, and variants of no kind are those whose conditions contradict each other."""
    parsed = read(policy)
    for found in find_classes([parsed]).classes:
        try:
            plan = compile_class(parsed, (), found.applying[0].grants, found.applying[0].guardrails)
        except PolicyInvalid:
            continue
        people = find_people([plan], words_of([parsed]))
        variants = variants_of(plan, people)
        assert len(variants) == len(people.kinds)
        assert variants[0] in range(len(plan.variants))
        if not plan.conditions:
            crossed = {plan.variants[variant].crossed for variant in variants}
            assert {()} <= crossed
            assert tuple(range(len(plan.budgets))) in crossed
        assert msgspec.json.encode(plan)
