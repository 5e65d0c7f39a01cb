"""Guardrails, needs and persons: compiled plans against the language read aloud, and the laws that follow from it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import reduce

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.effort import examples

from gharial.model.caller import Caller
from gharial.model.plan import Condition, Plan, dump_plan, load_plan
from gharial.policy.compile import compile_plan
from gharial.policy.decide import Decider, decide
from gharial.policy.document import Policy, parse_policy
from gharial.policy.technique import Technique, compare, find_most_open, join
from gharial.policy.technique_syntax import parse_technique

TAGS = ("a", "b", "c")
CHAIN = ["clear", "mask(last=4)", "mask(last=2)", "mask", "token(scope=team)", "redact", "null", "drop"]
OWN_GROUP = {"DE", "US", "CH"}
MEMBERS = {"EU": {"DE", "FR"}, "own": OWN_GROUP}
"""What groups mean, as far as these tests use countries."""
COUNTRIES = ["DE", "FR", "US", "CH"]
Rule = dict[str, object]
Facts = Mapping[str, tuple[str, ...]]

# --- a policy as data --------------------------------------------------------------------------------------------


def conditions(*, person: bool) -> st.SearchStrategy[dict[str, object]]:
    places = st.lists(st.sampled_from([*COUNTRIES, "EU", "own"]), min_size=1, max_size=2, unique=True)
    texts = st.lists(st.sampled_from(["x", "y"]), min_size=1, max_size=2, unique=True)
    facts = {"caller.country": places, "role": texts, "claim.k": texts}
    if person:
        facts |= {"subject.residency": places, "subject.consent": texts}
    one = st.sampled_from(sorted(facts)).flatmap(lambda f: st.tuples(st.just(f), facts[f], st.booleans()))
    return st.lists(one, max_size=2, unique_by=lambda c: c[0]).map(
        lambda found: {fact: {"not": values} if negated else values for fact, values, negated in found}
    )


@st.composite
def policies(draw: st.DrawFn) -> dict[str, list[Rule]]:
    targets = st.lists(st.sampled_from([*TAGS, "all"]), min_size=1, max_size=2, unique=True)
    grants: list[Rule] = []
    for n in range(draw(st.integers(0, 3))):
        show = {tag: draw(st.sampled_from(CHAIN)) for tag in draw(targets)}
        grant: Rule = {"grant": f"g{n}", "to": "w", "show": show, "needs": draw(conditions(person=True))}
        if draw(st.booleans()):
            grant["for"] = draw(st.lists(st.sampled_from(["p", "q"]), min_size=1, unique=True))
        grants.append(grant)
    never: list[Rule] = []
    for n in range(draw(st.integers(0, 2))):
        floor = draw(st.sampled_from([*CHAIN[1:], "mask(first=2)", "year"]))
        guardrail: Rule = {"never": f"n{n}", "tag": draw(targets), "at_least": floor}
        guardrail["when"] = draw(conditions(person=True))
        spared = draw(conditions(person=False))
        if spared and draw(st.booleans()):
            guardrail["unless"] = spared
        if draw(st.booleans()):
            guardrail["for"] = ["p"]
        never.append(guardrail)
    return {"grants": grants, "never": never}


def flow(value: object, shuffle: random.Random | None) -> str:
    """A value in YAML's flow style, its keys and items in any order."""
    if isinstance(value, dict):
        items = [f"{key}: {flow(inner, shuffle)}" for key, inner in value.items()]
        return "{ " + ", ".join(ordered(items, shuffle)) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(ordered([flow(item, shuffle) for item in value], shuffle)) + "]"
    return f"'{value}'"


def ordered(items: list[str], shuffle: random.Random | None) -> list[str]:
    if shuffle:
        shuffle.shuffle(items)
    return items


def text_of(written: Mapping[str, list[Rule]], shuffle: random.Random | None = None) -> str:
    tags = [f"  {tag}: {{ find: '$.{tag}' }}" for tag in TAGS]
    tags += ["  all: [a, b, c]", "  id: { find: '$.id', subject: s }", "  home: { find: '$.home', fact: residency }"]
    parts = ["policy: p", "version: 1", "tags:\n" + "\n".join(ordered(tags, shuffle)), "who: { w: {} }"]
    parts.append(f"groups: {{ own: {flow(sorted(OWN_GROUP), shuffle)}, rest: [own, EU] }}")
    for key, rules in written.items():
        parts.append(f"{key}: " + flow([dict(rule) for rule in rules], shuffle))
    return "\n".join(ordered(parts, shuffle)) + "\n"


def read(written: Mapping[str, list[Rule]], shuffle: random.Random | None = None) -> Policy:
    return parse_policy(text_of(written, shuffle), "policy.yaml")


# --- the language read aloud -------------------------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Caller, Facts]:
    """A caller, and a person; each fact may be missing."""
    roles = draw(st.lists(st.sampled_from(["x", "y", "z"]), max_size=2, unique=True))
    claim = draw(st.sampled_from([None, "x", "y", "z"]))
    caller = Caller(
        "t",
        roles=tuple(roles),
        claims={"k": claim} if claim else {},
        country=draw(st.sampled_from(["", "XX", *COUNTRIES])),
        purpose=draw(st.sampled_from(["", "p", "q"])),
    )
    home = draw(st.sampled_from([(), ("DE",), ("FR",), ("US",)]))
    consent = draw(st.sampled_from([(), ("x",), ("z",), ("x", "y")]))
    person = {"subject.residency": home, "subject.consent": consent}
    return caller, {name: values for name, values in person.items() if values}


def known(caller: Caller, person: Facts) -> Facts:
    facts = {
        "role": caller.roles,
        "claim.k": tuple(str(v) for v in caller.claims.values()),
        "caller.country": (caller.country,) if caller.country in COUNTRIES else (),
        **person,
    }
    return {name: values for name, values in facts.items() if values}


def outcome(wanted: object, values: tuple[str, ...]) -> bool | None:
    if not values:
        return None
    negated = isinstance(wanted, dict)
    named = wanted["not"] if isinstance(wanted, dict) else wanted
    members = set().union(*(MEMBERS.get(name, {name}) for name in named))
    return bool(members & set(values)) is not negated


def outcomes(asked: object, facts: Facts) -> list[bool | None]:
    return [outcome(wanted, facts.get(fact, ())) for fact, wanted in (asked or {}).items()]


def expected(written: Mapping[str, list[Rule]], tag: str, caller: Caller, person: Facts) -> Technique:
    """What the documentation says of one tag, in the order in which it says it."""
    facts = known(caller, person)
    says = []
    for grant in written["grants"]:
        show = grant["show"]
        shown = show.get(tag) or show.get("all")
        if "for" in grant and caller.purpose not in grant["for"]:
            continue
        if shown and all(found is True for found in outcomes(grant["needs"], facts)):
            says.append(parse_technique(shown))
    result = find_most_open(says) if says else parse_technique("redact")
    floors = []
    for guardrail in written["never"]:
        if tag not in guardrail["tag"] and "all" not in guardrail["tag"]:
            continue
        if "for" in guardrail and caller.purpose and caller.purpose not in guardrail["for"]:
            continue
        if "unless" in guardrail and all(found is True for found in outcomes(guardrail["unless"], facts)):
            continue
        if all(found is not False for found in outcomes(guardrail["when"], facts)):
            floors.append(parse_technique(guardrail["at_least"]))
    return reduce(join, floors, result)


# --- what a plan says --------------------------------------------------------------------------------------------


def condition_holds(condition: Condition, person: Facts) -> bool:
    values = person.get(f"subject.{condition.fact}", ())
    if not values:
        return condition.if_missing
    return bool(set(values) & set(condition.values)) is not condition.negated


def shown(plan: Plan, name: str, person: Facts) -> Technique:
    holds = tuple(i for i, condition in enumerate(plan.conditions) if condition_holds(condition, person))
    variant = next(i for i, v in enumerate(plan.variants) if v.holds == holds and not v.crossed)
    step = plan.steps[plan.cells[plan.nodes[plan.nodes[0].names[name]].cell].steps[variant]]
    return Technique(step.op, step.args)


def plan_for(policy: Policy, caller: Caller) -> Plan:
    decision = decide(policy, caller, 0.0)
    return compile_plan(policy, "r", (), decision.grants, decision.guardrails)


@settings(max_examples=examples(120))
@given(policies(), worlds())
def test_a_plan_says_what_the_language_says(written: dict[str, list[Rule]], world: tuple[Caller, Facts]):
    """For any caller and person, facts missing or not, each tag is shown as the documentation read aloud says."""
    caller, person = world
    plan = plan_for(read(written), caller)
    for tag in TAGS:
        assert shown(plan, tag, person) == expected(written, tag, caller, person)


@settings(max_examples=examples(80))
@given(policies(), worlds(), st.randoms(use_true_random=False))
def test_the_order_of_writing_never_matters(
    written: dict[str, list[Rule]], world: tuple[Caller, Facts], shuffle: random.Random
):
    """Rules, conditions, values, tags and groups in any order decide alike and give the same bytes."""
    caller, _ = world
    one, other = read(written), read(written, shuffle)
    assert decide(one, caller, 0.0) == decide(other, caller, 0.0)
    assert dump_plan(plan_for(one, caller)) == dump_plan(plan_for(other, caller))


@settings(max_examples=examples(80))
@given(policies(), worlds())
def test_a_further_guardrail_opens_nothing(written: dict[str, list[Rule]], world: tuple[Caller, Facts]):
    """With one guardrail more, no tag is shown more openly to anybody, about anybody."""
    assume(written["never"])
    caller, person = world
    fewer = {**written, "never": written["never"][:-1]}
    before, after = plan_for(read(fewer), caller), plan_for(read(written), caller)
    for tag in TAGS:
        assert compare(shown(after, tag, person), shown(before, tag, person)) in (0, 1)


@settings(max_examples=examples(80))
@given(policies(), worlds(), st.data())
def test_a_fact_that_gets_lost_satisfies_no_grant(
    written: dict[str, list[Rule]], world: tuple[Caller, Facts], data: st.DataObject
):
    """Without guardrails, and grants saying nothing stricter than redact: losing a fact opens nothing."""
    gentle = [g for g in written["grants"] if not {"null", "drop"} & set(g["show"].values())]
    written = {"grants": gentle, "never": []}
    caller, person = world
    lost = data.draw(st.sampled_from(["country", "roles", "claims", "subject.residency", "subject.consent"]))
    empty = {"country": "", "roles": (), "claims": {}}
    poorer = {name: values for name, values in person.items() if name != lost}
    unknown = Caller(
        "t",
        purpose=caller.purpose,
        **{name: empty[name] if name == lost else getattr(caller, name) for name in empty},
    )
    policy = read(written)
    before, after = plan_for(policy, caller), plan_for(policy, unknown)
    for tag in TAGS:
        assert compare(shown(after, tag, poorer), shown(before, tag, person)) in (0, 1)


@settings(max_examples=examples(80))
@given(policies(), worlds(), st.data())
def test_a_fact_that_gets_lost_satisfies_every_guardrail(
    written: dict[str, list[Rule]], world: tuple[Caller, Facts], data: st.DataObject
):
    """Without grants' conditions: whatever fact gets lost, the guardrails show no tag more openly."""
    written = {**written, "grants": [{**grant, "needs": {}} for grant in written["grants"]]}
    caller, person = world
    lost = data.draw(st.sampled_from(["country", "roles", "claims", "subject.residency", "subject.consent"]))
    empty = {"country": "", "roles": (), "claims": {}}
    poorer = {name: values for name, values in person.items() if name != lost}
    unknown = Caller(
        "t",
        purpose=caller.purpose,
        **{name: empty[name] if name == lost else getattr(caller, name) for name in empty},
    )
    policy = read(written)
    before, after = plan_for(policy, caller), plan_for(policy, unknown)
    for tag in TAGS:
        assert compare(shown(after, tag, poorer), shown(before, tag, person)) in (0, 1)


@settings(max_examples=examples(40))
@given(policies(), worlds())
def test_a_plan_loads_back_equal(written: dict[str, list[Rule]], world: tuple[Caller, Facts]):
    """What is stored of a plan is the plan."""
    plan = plan_for(read(written), world[0])
    assert load_plan(dump_plan(plan)) == plan


@settings(max_examples=examples(40))
@given(policies(), st.lists(worlds(), min_size=2, max_size=8))
def test_a_remembered_decision_is_the_decision(written: dict[str, list[Rule]], several: list[tuple[Caller, Facts]]):
    """The decider answers as the plain function does, whoever asked before."""
    policy = read(written)
    decider = Decider(policy)
    for caller, _ in [*several, *several]:
        assert decider.decide(caller, 0.0) == decide(policy, caller, 0.0)
