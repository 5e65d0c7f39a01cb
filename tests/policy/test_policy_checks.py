"""What only the whole policy shows, and work that stays bounded whatever the text."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples, thorough_only

from gharial.model.errors import PolicyInvalid, Problem
from gharial.policy.advice import find_warnings
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


def test_tokens_that_nobody_gets_are_a_warning():
    """reidentify of what no grant shows as a token, or of what stands in no path, does nothing."""
    text = (
        f"{HEAD}tags: {{ m: {{ find: $.m }}, n: {{ find: 'path:n' }} }}\nwho: {{ a: {{}} }}\ngrants:\n"
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


@pytest.mark.parametrize(
    ("cel", "failing"),
    [
        ("claims.level >= 3", "a text or true or false or a list"),
        ("has(claims.level) && claims.level >= 3", "a text or true or false or a list"),
        ("'a' in claims.level", "a text or a whole number or a fraction or true or false"),
        ("type(claims.level) == int && claims.level >= 3", ""),
        ("claims.level == 3 || hour < 6", ""),
        ("team == 'a'", ""),
    ],
)
def test_an_expression_that_has_no_outcome_for_some_claims_is_a_warning(cel: str, failing: str):
    """It would refuse these callers everywhere; the warning names the claim, its types, and what to write."""
    rules = [
        f'who: {{ a: {{ cel: "{cel}" }} }}\n',
        f'who: {{ a: {{}} }}\ngrants: [ {{ grant: g, to: a, show: {{ m: clear }}, needs: {{ cel: "{cel}" }} }} ]\n',
        f'who: {{ a: {{}} }}\nnever: [ {{ never: n, tag: m, at_least: drop, when: {{ cel: "{cel}" }} }} ]\n',
    ]
    for rule in rules:
        found = warnings(f"{HEAD}tags: {{ m: {{ find: $.m }} }}\n{rule}")
        if failing:
            assert f"refuses every exchange of a caller whose claims.level is {failing}; test it first" in found[0]
        else:
            assert found == []


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
