"""The order of writing never matters: whole policies, right and wrong ones, with everything in them shuffled."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.policies import WHO, conditional_policy_maps

from gharial.model.caller import Caller
from gharial.model.errors import PolicyInvalid, Problem
from gharial.model.plan import dump_plan
from gharial.policy.advice import find_warnings
from gharial.policy.checks import check_policy
from gharial.policy.compile import compile_plan
from gharial.policy.decide import decide
from gharial.policy.document import Policy, parse_policy

CALLERS = (
    Caller("t"),
    Caller("t", client="acme-1", roles=("care", "chief"), claims={"amr": "mfa"}, team="x", purpose="support"),
    Caller("t", client="other", roles=("boss",), country="DE", network="tor", team="own", purpose="billing"),
)
ROUTES = {"rows": (), "row": ("id",)}
# Each takes any policy and gives it one more mistake, or something that may be one together with another.
EXTRA_TAGS: tuple[dict[str, Any], ...] = (
    {"loop_a": ["loop_b"], "loop_b": ["loop_c", "alpha"], "loop_c": ["loop_a", "loop_b"]},
    {"ring_a": ["ring_b"], "ring_b": ["ring_a"], "into": ["ring_b"]},
    {"look_a": {"detect": "email"}, "look_b": {"detect": "email"}, "look_c": {"find": "$.c", "detect": "email"}},
    {"one": {"find": "$.twin", "subject": "a"}, "two": {"find": ["$.twin", "path:id"], "subject": "b"}},
    {"one": {"find": "$.twin", "fact": "residency"}, "two": {"find": "$.twin", "fact": "tier"}},
    {"one": {"find": "$.o", "subject": "a", "same_as": "b"}, "two": {"find": "$.w", "subject": "b", "same_as": "c"}},
    {
        "many": {"find": "$.o", "subject": "a", "population": 5},
        "more": {"find": "$.m", "subject": "a", "population": 6},
        "less": {"find": "$.l", "subject": "a", "population": 0, "same_as": "a"},
    },
    {"odd": {"find": ["$.x[", "$.y", "$.y", "path:nowhere"], "fnid": "$.z"}, "void": {}},
    {"left": ["alpha"], "right": ["alpha"], "lost": ["alhpa", "alpha", "alpha"]},
)
EXTRA_GRANTS: tuple[dict[str, Any], ...] = (
    {"grant": "g0", "to": "anyone", "show": {"alpha": "mask(first=2)"}},
    {"grant": "first", "to": "anyone", "show": {"alpha": "mask(first=3)", "one": "mask(last=1)", "two": "year"}},
    {"grant": "last", "to": ["anyone", "nobody"], "show": {"alpha": "mask(last=3)", "two": "mask(first=2)"}},
    {"grant": "both", "to": "anyone", "show": {"left": "clear", "right": "mask"}},
    {"grant": "wrong", "to": ["care", "care"], "show": {"alhpa": "clear", "alpha": "encript"}, "fro": ["x"]},
    {"grant": "cel", "to": "anyone", "needs": {"cel": "claims.level > 3 && cleint == 'x'"}, "show": {"alpha": "null"}},
    {"grant": "level", "to": "anyone", "needs": {"cel": "claims.level > 3"}, "show": {"alpha": "redact"}},
    {
        "grant": "spent",
        "to": "anyone",
        "show": {"alpha": "clear"},
        "budget": [
            {"people": "9/h", "then": "mask"},
            {"people": "9/h", "then": "null"},
            {"people": "5/d", "then": "x"},
        ],
    },
)
EXTRA_RULES: tuple[dict[str, Any], ...] = (
    {"never": "g0", "tag": ["alpha", "beta"], "at_least": "redact"},
    {"never": "n0", "tag": "alpha", "at_least": "mask(first=1)", "when": {"subject.resident": ["EU", "XX"]}},
    {"never": "probing", "filter_or_sort_by": ["alpha", "delta"], "unless": "clear"},
)


@st.composite
def doubtful(draw: st.DrawFn) -> dict[str, Any]:
    """A policy to which some mistakes may have been added, of kinds that can be told only together with other rules."""
    policy = draw(conditional_policy_maps())
    tags = dict(policy["tags"])
    grants, never = list(policy["grants"]), list(policy["never"])
    for extra in draw(st.lists(st.sampled_from(EXTRA_TAGS), max_size=2)):
        tags |= extra
    grants += draw(st.lists(st.sampled_from(EXTRA_GRANTS), max_size=3))
    never += draw(st.lists(st.sampled_from(EXTRA_RULES), max_size=2))
    return policy | {"tags": tags, "grants": grants, "never": never}


def shuffled(value: Any, order: random.Random) -> Any:
    """The same data, the members of each mapping and the items of each list in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(inner, order)) for key, inner in value.items()]
        order.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        items = [shuffled(inner, order) for inner in value]
        order.shuffle(items)
        return items
    return value


def read(policy: dict[str, Any]) -> Policy | list[Problem]:
    try:
        return parse_policy(json.dumps(policy), "policy.yaml")
    except PolicyInvalid as error:
        return list(error.problems)


def told(problems: list[Problem]) -> Counter[tuple[str, ...]]:
    """What is said, but for where it stands and which of two that contradict each other is named first."""
    words = (re.findall(r"[^\s,;:()]+", re.sub(r"line \d+", "", problem.what)) for problem in problems)
    return Counter(tuple(sorted(said)) for said in words)


def plan_of(policy: Policy, route: str, caller: Caller) -> bytes | Counter[tuple[str, ...]]:
    decision = decide(policy, caller, 0.0)
    try:
        return dump_plan(compile_plan(policy, route, ROUTES[route], decision.grants, decision.guardrails))
    except PolicyInvalid as error:
        return told(list(error.problems))


@settings(max_examples=examples(600))
@given(doubtful(), st.randoms(use_true_random=False))
def test_a_policy_says_the_same_in_any_order(written: dict[str, Any], order: random.Random):
    """With all rules, tags, conditions and lists shuffled: the same decisions, plans, mistakes and warnings."""
    one, other = read(written), read(shuffled(written, order))
    if isinstance(one, list) or isinstance(other, list):
        assert isinstance(one, list)
        assert isinstance(other, list)
        assert told(one) == told(other)
        return
    assert told(check_policy(one, ROUTES)) == told(check_policy(other, ROUTES))
    assert told(find_warnings(one)) == told(find_warnings(other))
    for caller in CALLERS:
        assert decide(one, caller, 0.0) == decide(other, caller, 0.0)
        for route in ROUTES:
            assert plan_of(one, route, caller) == plan_of(other, route, caller)


def test_the_policies_that_are_shuffled_hold_rules_and_mistakes():
    """The extras do what they are for: each of them is a mistake somewhere, and a policy without them is right."""
    plain: dict[str, Any] = {
        "policy": "p", "version": 1, "tags": {"alpha": {"find": "$.a"}, "beta": {"find": "$.b"}}, "who": WHO,
    }  # fmt: skip
    assert isinstance(read(plain), Policy)
    wrong = [
        plain | {"tags": plain["tags"] | extra, "grants": [*EXTRA_GRANTS], "never": [*EXTRA_RULES]}
        for extra in EXTRA_TAGS
    ]
    assert all(isinstance(read(policy), list) for policy in wrong)
