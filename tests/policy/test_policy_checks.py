"""What only the whole policy shows, and work that stays bounded whatever the text."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples, thorough_only

from gharial.model.errors import PolicyInvalid, Problem
from gharial.policy.advice import find_warnings
from gharial.policy.cel import compile_cel
from gharial.policy.cel_trial import MAX_ALL_TRIALS, TYPES, Trials, find_faults
from gharial.policy.checks import check_policy
from gharial.policy.document import Policy, parse_policy

HEAD = "policy: p\nversion: 1\n"
TELECOM = (Path(__file__).parents[2] / "examples/telecom/policy.yaml").read_text(encoding="utf-8")


def two_grants(first: str, second: str, who: str = "{ a: {}, b: {} }") -> Policy:
    """Two grants whose techniques for one tag can't be ordered; `first` and `second` say to whom and for what."""
    return parse_policy(
        f"{HEAD}tags: {{ m: {{ find: $.m }} }}\nwho: {who}\ngrants:\n"
        f"  - {{ grant: one, {first}, show: {{ m: mask(last=4) }} }}\n"
        f"  - {{ grant: two, {second}, show: {{ m: mask(first=4) }} }}\n",
        "policy.yaml",
    )


@pytest.mark.parametrize(
    ("first", "second", "who", "clash"),
    [
        ("to: a", "to: b", "{ a: {}, b: {} }", True),
        ("to: a, for: [x]", "to: b, for: [y]", "{ a: {}, b: {} }", False),
        ("to: a, for: [x]", "to: b, for: [x, y]", "{ a: {}, b: {} }", True),
        ("to: a, for: [x]", "to: b", "{ a: {}, b: {} }", True),
        ("to: a", "to: b", "{ a: { client: x }, b: { client: [y, z] } }", False),
        ("to: a", "to: b", "{ a: { client: x }, b: { client: 'x*' } }", True),
        ("to: a", "to: b", "{ a: { client: x }, b: { client: { not: x } } }", False),
        ("to: a", "to: b", "{ a: { client: x }, b: { client: { not: y } } }", True),
        ("to: a, needs: { country: EU }", "to: b, needs: { country: { not: EEA } }", "{ a: {}, b: {} }", False),
        ("to: a, needs: { country: EEA }", "to: b, needs: { country: { not: EU } }", "{ a: {}, b: {} }", True),
        ("to: a, needs: { time.hour: 8-17 }", "to: b, needs: { time.hour: 18-7 }", "{ a: {}, b: {} }", False),
        ("to: a, needs: { subject.consent: x }", "to: b, needs: { subject.consent: y }", "{ a: {}, b: {} }", True),
        ("to: a", "to: b", "{ a: { role: x }, b: { role: y } }", True),
        ("to: a", "to: [a, b]", "{ a: { client: x }, b: { client: y } }", True),
    ],
)
def test_grants_clash_only_where_one_caller_may_have_both(first: str, second: str, who: str, clash: bool):
    """Different purposes, and different values of a fact that has only one, keep grants apart; roles do not."""
    assert bool(check_policy(two_grants(first, second, who), {})) is clash


def test_an_equal_technique_is_no_clash():
    """The author's way out of a clash works: the same technique in both grants."""
    policy = parse_policy(TELECOM, "policy.yaml")
    assert check_policy(policy, {"customer": ("id",)}) == []


def test_the_telecom_example_has_neither_mistakes_nor_warnings():
    """The policy that the demo runs is one that a person may copy."""
    assert find_warnings(parse_policy(TELECOM, "policy.yaml")) == []


def warnings(text: str) -> list[str]:
    return [str(problem) for problem in find_warnings(parse_policy(text, "policy.yaml"))]


def test_a_budget_without_persons_is_a_warning():
    """Without a subject each record counts as a person, which is probably not meant."""
    text = (
        f"{HEAD}tags: {{ m: {{ find: $.m }} }}\nwho: {{ a: {{}} }}\ngrants:\n"
        "  - { grant: g, to: a, show: { m: clear }, budget: { people: 5/h, then: mask } }\n"
    )
    assert warnings(text) == [
        "policy.yaml:6:5: the grant 'g' has a budget, but no tag has a subject: each record counts as one person"
    ]


def test_a_population_that_nothing_measures_yet_is_a_warning():
    """What is kept for later is said, so that nobody believes it to act."""
    text = f"{HEAD}tags: {{ m: {{ find: $.m, subject: customer, population: 5 }} }}\n"
    assert warnings(text) == [
        "policy.yaml:3:9: the population of 'customer' is read and checked, but this version does not measure by it yet"
    ]


def test_places_of_requests_that_nothing_heeds_are_a_warning():
    """What is sent there goes on as it is; a person's place in a query, and what a guardrail names, are heeded."""
    text = (
        f"{HEAD}tags:\n  a: {{ find: ['$.a', 'header:X-A', 'query:a'] }}\n"
        "  b: { find: 'query:b', subject: customer }\n  c: { find: ['query:c', '$.c'] }\n"
        "  d: { find: ['cookie:d', '$.d'] }\n  e: { find: ['cookie:e', '$.e'] }\n"
        "who: { a: {} }\ngrants: [{ grant: g, to: a, show: { d: token }, reidentify: d }]\n"
        "never:\n  - { never: n, filter_or_sort_by: [a, c] }\n  - { never: m, only_tokens: e }\n"
    )
    (idle,) = warnings(text)
    assert idle == "policy.yaml:4:3: 'a' finds header:x-a, and nothing is done there: no grant reidentifies 'a'"


def test_tokens_that_nobody_gets_are_a_warning():
    """reidentify of what no grant shows as a token, or of what stands in no request, does nothing."""
    text = (
        f"{HEAD}tags: {{ m: {{ find: $.m, keys: true }}, n: {{ find: 'path:n' }} }}\nwho: {{ a: {{}} }}\ngrants:\n"
        "  - { grant: g, to: a, show: { m: token }, reidentify: [m, n] }\n"
    )
    useless, never_a_token = warnings(text)
    assert useless.startswith("policy.yaml:6:5: 'g' reidentifies 'm', which has no place in a request")
    assert never_a_token == "policy.yaml:6:5: 'g' reidentifies 'n', which no grant shows as a token"


def test_more_budgets_than_a_plan_holds_are_a_warning():
    """Nine budgets that one caller may meet at once would refuse that caller; apart by purpose they are fine."""

    def text(purpose: str) -> str:
        grants = "".join(
            f"  - {{ grant: g{n}, to: a, for: {purpose.format(n)}, show: {{ m: clear }}, "
            "budget: { people: 5/h, then: mask } }\n"
            for n in range(9)
        )
        return f"{HEAD}tags: {{ m: {{ find: $.m, subject: s }} }}\nwho: {{ a: {{}} }}\ngrants:\n{grants}"

    assert warnings(text("p{}")) == []
    assert len(warnings(text("p"))) == 1


def takes(claim: str, *fit: str) -> str:
    """What is said of a claim of which only these types, in CEL's words, have an outcome."""
    test = " || ".join(f"type({claim}) == {name}" for name in fit)
    failing = " or ".join(words for words, name in TYPES.items() if name not in fit)
    return f"{claim} is {failing}; test it first: {f'({test})' if len(fit) > 1 else test} && …"


LEVEL = takes("claims.level", "int", "double")


@pytest.mark.parametrize(
    ("cel", "told"),
    [
        ("claims.level >= 3", [LEVEL]),
        ("has(claims.level) && claims.level >= 3", [LEVEL]),
        ("'a' in claims.level", [takes("claims.level", "list")]),
        ("claims.dept.startsWith('fin') && claims.level >= 3", [takes("claims.dept", "string"), LEVEL]),
        ("claims.dept == 'fin' && claims.level >= 3", [LEVEL]),
        ("client == 'acme' && hour in [3, 4] && claims.level >= 3", [LEVEL]),
        ("!claims['a b']", [takes('claims["a b"]', "bool")]),
        (
            "claims.ok ? claims.level >= 3 : claims.name.size() == 3",
            [LEVEL, takes("claims.name", "string", "list"), takes("claims.ok", "bool")],
        ),
        ("10 / claims.n > 100", [takes("claims.n", "int")]),
        ("type(claims.level) == int && claims.level >= 3", []),
        ("claims.level == 3 || hour < 6", []),
        ("team == 'a'", []),
    ],
)
def test_an_expression_that_has_no_outcome_for_some_claims_is_a_warning(cel: str, told: list[str]):
    """It would refuse such callers everywhere; each claim is named with its types, and with a test that fits it."""
    quoted = json.dumps(cel)
    rules = [
        f"who: {{ a: {{ cel: {quoted} }} }}\n",
        f"who: {{ a: {{}} }}\ngrants: [ {{ grant: g, to: a, show: {{ m: clear }}, needs: {{ cel: {quoted} }} }} ]\n",
        f"who: {{ a: {{}} }}\nnever: [ {{ never: n, tag: m, at_least: drop, when: {{ cel: {quoted} }} }} ]\n",
    ]
    for rule in rules:
        found = warnings(f"{HEAD}tags: {{ m: {{ find: $.m }} }}\n{rule}")
        assert [line.partition(" refuses exchanges of a caller whose ")[2] for line in found] == told


def test_an_expression_for_which_no_type_fits_is_told_so():
    """A claim is never an object here: no test could make this expression one that has an outcome."""
    text = f"{HEAD}tags: {{ m: {{ find: $.m }} }}\nwho: {{ a: {{ cel: 'claims.a.b == 1' }} }}\n"
    assert warnings(text)[0].endswith("or true or false or a list; no type of it fits")


ATOMS = (
    "claims.level >= 3", "claims.level < 2.5", "claims.level == 'x'", "claims.dept.startsWith('fin')", "!claims.ok",
    "claims.dept == 'x'", "'x' in claims.amr", "claims.amr.exists(m, m == 'mfa')", "size(claims.any) == 3",
    "client == 'acme'", "hour < 6", "has(claims.level)",
)  # fmt: skip
"""Each uses a claim as one kind of value throughout."""


@given(st.lists(st.tuples(st.sampled_from(ATOMS), st.sampled_from(["&&", "||"])), min_size=1, max_size=2))
def test_who_follows_the_advice_is_warned_no_more(parts: list[tuple[str, str]]):
    """With the tests that are advised before it, an expression fails for no type of these claims."""
    text = "".join(f"({atom}) {link} " for atom, link in parts).rstrip("&| ")
    faults = find_faults(compile_cel(text), Trials())
    assert all(fault.test for fault in faults)
    advised = " && ".join([*(fault.test for fault in faults), f"({text})"])
    assert {fault.claim for fault in find_faults(compile_cel(advised), Trials())}.isdisjoint(f.claim for f in faults)


def test_trying_expressions_out_is_bounded():
    """Very many expressions are not all tried: publishing waits for seconds at most, and refuses none for it."""
    long = " && ".join(f"claims.c{n} == 'v{n}'" for n in range(20))
    whos = ", ".join(f'w{n}: {{ cel: "{long} && claims.n > {n}" }}' for n in range(300))
    policy = parse_policy(f"{HEAD}tags: {{ m: {{ find: $.m }} }}\nwho: {{ {whos} }}\n", "policy.yaml")
    trials = Trials()
    for who in policy.who.values():
        find_faults(who.expressions[0], trials)
    assert 0 <= trials.left < MAX_ALL_TRIALS


def hostile_texts() -> dict[str, str]:
    chain = "".join(f"  g{n}: [g{n + 1}]\n" for n in range(1_500))
    ring = "".join(f"  g{n}: [g{(n + 1) % 1_500}]\n" for n in range(1_500))
    star = "$" + "..*" * 60
    sides = ("first", "last")
    return {
        "10 MB": HEAD + "tags:\n" + "  a: { find: '$..a' }\n" * 500_000,
        "nested lists": HEAD + "tags: " + "[" * 10_000,
        "10,000 groups": HEAD + "tags:\n" + "".join(f"  g{n}: [g{n + 1}]\n" for n in range(10_000)),
        "a chain of groups": f"{HEAD}tags:\n{chain}  g1500: {{ find: $.a }}\nwhat: 1\n",
        "a ring of groups": f"{HEAD}tags:\n{ring}",
        "aliases": HEAD + "tags: &a [x]\nwho: [" + "*a, " * 20_000 + "]",
        "unknown names": f"{HEAD}tags: {{}}\ngrants: [ {{ grant: g, to: w, show: {{ "
        + ", ".join(f"t{n}: clear" for n in range(3_000)) + " } } ]",
        "deep stars": f"{HEAD}tags: {{ a: {{ find: ['{star}', '$..a{'[*]' * 40}', '$..b{'.*' * 40}'] }} }}\n",
        "a long glob": f"{HEAD}tags: {{}}\nwho: {{ a: {{ client: '{'*a' * 100_000}' }} }}\nx: 1\n",
        "a ring of country groups": f"{HEAD}tags: {{}}\ngroups:\n"
        + "".join(f"  g{n}: [g{(n + 1) % 400}]\n" for n in range(400)),
        "grants that can't be ordered": f"{HEAD}tags: {{ a: {{ find: $.a }} }}\nwho:\n"
        + "".join(f"  w{n}: {{ client: c{n} }}\n" for n in range(2_000)) + "grants:\n"
        + "".join(f"  - {{ grant: g{n}, to: w{n}, show: {{ a: mask({sides[n % 2]}=4) }} }}\n" for n in range(2_000)),
        "tags of one place": f"{HEAD}tags:\n" + "".join(f"  t{n}: {{ find: '$..a' }}\n" for n in range(1_900)),
        "a pattern that blows up": f"{HEAD}tags: {{ a: {{ find: '$.a[?match(@.b, \"{'(a+)+' * 30}x\")]' }} }}\n",
        "a nested filter": f"{HEAD}tags: {{ a: {{ find: '$[?{'(' * 450}@.a{')' * 450}]' }} }}\nx: 1\n",
        "a large expression": f"{HEAD}tags: {{}}\nwho: {{ w: {{ cel: \"{'hour == 1 || ' * 20_000}true\" }} }}\n",
        "many values": f"{HEAD}tags: {{}}\nwho: {{ w: {{ client: [{', '.join(f'c{n}' for n in range(20_000))}] }} }}\n",
        "digits": f"{HEAD}tags: {{}}\nversion2: {'9' * 900_000}\n",
    }  # fmt: skip


_LONG = ("grants that can't be ordered", "10,000 groups", "deep stars", "tags of one place", "many values")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=thorough_only if name in _LONG else ()) for name in hostile_texts()]
)
def test_hostile_policies_end_in_a_mistake_soon(name: str):
    """Whatever the text, reading and checking it ends within seconds, and it does not become a policy."""
    began = time.process_time()
    with pytest.raises(PolicyInvalid) as refused:
        raise PolicyInvalid(check_policy(parse_policy(hostile_texts()[name], "policy.yaml"), {}))
    assert refused.value.problems
    assert time.process_time() - began < 20


LINES = TELECOM.splitlines(keepends=True)


@settings(max_examples=examples(150))
@given(st.data())
def test_a_damaged_policy_is_read_or_refused(data: st.DataObject):
    """A policy with lines lost, doubled, swapped or cut raises nothing but PolicyInvalid, with places in the file."""
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["lose", "double", "cut", "swap", "spoil"])):
            case "lose":
                lines[at] = ""
            case "double":
                lines[at] *= 2
            case "cut":
                lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
            case "swap":
                lines[at], lines[at - 1] = lines[at - 1], lines[at]
            case _:
                spoiler = data.draw(st.sampled_from(["[", "}", ":", "- ", "null", "&", "'", "\t", "~", "*"]))
                lines[at] = lines[at].replace(data.draw(st.sampled_from([" ", ":", "a", "{", "]"])), spoiler, 1)
    text = "".join(lines)
    problems: tuple[Problem, ...] = (Problem("policy.yaml", 1, 1, "none"),)
    try:
        check_policy(parse_policy(text, "policy.yaml"), {"customer": ("id",)})
    except PolicyInvalid as refused:
        problems = refused.problems
    assert problems
    assert all(1 <= p.line <= text.count("\n") + 2 and p.column >= 1 for p in problems)
