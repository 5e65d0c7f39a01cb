"""Who: which callers a condition means, above all when a fact is missing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.model.caller import Caller
from gharial.policy.conditions import glob_matches
from gharial.policy.decide import decide
from gharial.policy.document import Policy, parse_policy


def a_policy(who: str, rest: str = "") -> Policy:
    return parse_policy(
        "policy: p\nversion: 1\ntags: { a: { find: $.a } }\n"
        f"who: {{ w: {who}, anyone: {{}} }}\n"
        f"grants: [ {{ grant: g, to: w, show: {{ a: clear }} {rest} }} ]\n",
        "policy.yaml",
    )


def applies(who: str, **facts: object) -> bool:
    return decide(a_policy(who), Caller("default", **facts), 0.0).grants == ("g",)


@pytest.mark.parametrize(
    ("who", "facts", "want"),
    [
        ("{}", {}, True),
        ("{ client: acme }", {"client": "acme"}, True),
        ("{ client: acme }", {"client": "acme2"}, False),
        ("{ client: 'acme-*' }", {"client": "acme-billing"}, True),
        ("{ client: 'acme-*' }", {"client": "ACME-billing"}, False),
        ("{ client: [a, 'b*'] }", {"client": "bee"}, True),
        ("{ client: 42 }", {"client": "42"}, True),
        ("{ role: care }", {"roles": ("sales", "care")}, True),
        ("{ role: care }", {"roles": ("sales",)}, False),
        ("{ role: { not: [care, ops] } }", {"roles": ("sales", "care")}, False),
        ("{ role: { not: care } }", {"roles": ("sales",)}, True),
        ("{ team: t, user: u }", {"team": "t", "user": "u"}, True),
        ("{ team: t, user: u }", {"team": "t"}, False),
        ("{ claim.amr: mfa }", {"claims": {"amr": ("pwd", "mfa")}}, True),
        ("{ claim.level: 3 }", {"claims": {"level": 3}}, True),
        ("{ claim.level: 3 }", {"claims": {"level": "3"}}, False),
        ("{ claim.level: '3' }", {"claims": {"level": 3}}, False),
        ("{ claim.ok: true }", {"claims": {"ok": True}}, True),
        ("{ claim.ok: true }", {"claims": {"ok": 1}}, False),
        ("{ claim.level: 1 }", {"claims": {"level": True}}, False),
        ("{ claim.a: x }", {"claims": {"a": {"x": "x"}}}, False),
    ],
)
def test_conditions(who: str, facts: dict[str, object], want: bool):
    """Globs fit whole values, lists mean any, conditions of one entry hold together, types are not mixed."""
    assert applies(who, **facts) is want


@pytest.mark.parametrize("fact", ["client", "team", "role", "user", "claim.x"])
@pytest.mark.parametrize("value", ["'*'", "x", "{ not: x }", "{ not: '*' }", "{ not: ['x', 'y'] }", "''''''"])
def test_a_missing_fact_opens_nothing(fact: str, value: str):
    """Of a caller without a credential no condition holds, neither plain nor negated, nor for whatever client."""
    assert applies(f"{{ {fact}: {value} }}") is False


@pytest.mark.parametrize("claim", [None, "", (), ("",), {}, [{}]])
def test_an_empty_claim_is_missing(claim: object):
    """A claim that says nothing does not satisfy a negation."""
    assert applies("{ claim.x: { not: y } }", claims={"x": claim}) is False


@pytest.mark.parametrize(
    ("purposes", "purpose", "want"),
    [("", "", True), ("", "billing", True), (", for: [support]", "support", True), (", for: [support]", "", False),
     (", for: [support]", "billing", False), (", for: support", "support", True)],
)  # fmt: skip
def test_purposes(purposes: str, purpose: str, want: bool):
    """A grant for purposes needs one of them; a grant without holds for any and for none."""
    found = decide(a_policy("{}", purposes), Caller("default", purpose=purpose), 0.0).grants
    assert (found == ("g",)) is want


@given(st.text("ab*", max_size=6), st.text("ab", max_size=8))
def test_globs_are_those_of_the_book(pattern: str, text: str):
    """`*` stands for any characters, everything else for itself."""
    regex = ".*".join(map(re.escape, pattern.split("*")))
    assert glob_matches(pattern, text) is bool(re.fullmatch(regex, text, re.DOTALL))


def test_a_hostile_glob_is_harmless():
    """Many stars against a long value end at once."""
    assert glob_matches("*a" * 200 + "*b", "a" * 100_000) is False
