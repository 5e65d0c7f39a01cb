"""Which grants and guardrails apply: facts, time, expressions, and what a Decider remembers."""

from __future__ import annotations

import pytest

from gharial.model.caller import Caller
from gharial.model.errors import PolicyExpressionFailed
from gharial.policy.conditions import glob_matches
from gharial.policy.decide import MAX_DECISIONS, Decider, Decision, decide, facts_read
from gharial.policy.document import Policy, parse_policy

HOUR_S, DAY_S = 3_600.0, 86_400.0
# 2026-01-05 is a Monday.
MONDAY_S = 1_767_571_200.0


def a_policy(needs: str = "{}", *, when: str = "", who: str = "{}", rest: str = "") -> Policy:
    never = f"never: [ {{ never: n, tag: a, at_least: mask, when: {when} }} ]\n" if when else ""
    return parse_policy(
        f"policy: p\nversion: 1\ntags: {{ a: {{ find: $.a }} }}\nwho: {{ w: {who} }}\n"
        f"groups: {{ dach: [DE, AT, CH] }}\n"
        f"grants: [ {{ grant: g, to: w, show: {{ a: clear }}, needs: {needs} {rest} }} ]\n{never}",
        "policy.yaml",
    )


def applies(needs: str, now_s: float = MONDAY_S, **facts: object) -> bool:
    return decide(a_policy(needs), Caller("t", **facts), now_s).grants == ("g",)


def acts(when: str, now_s: float = MONDAY_S, **facts: object) -> bool:
    return decide(a_policy(when=when), Caller("t", **facts), now_s).guardrails == ("n",)


@pytest.mark.parametrize(
    ("needs", "facts", "want"),
    [
        ("{ caller.country: EU }", {"country": "DE"}, True),
        ("{ country: EU }", {"country": "de"}, True),
        ("{ country: EU }", {"country": "CH"}, False),
        ("{ country: dach }", {"country": "CH"}, True),
        ("{ country: [US, EFTA] }", {"country": "NO"}, True),
        ("{ country: { not: EEA } }", {"country": "US"}, True),
        ("{ country: { not: EEA } }", {"country": "NO"}, False),
        ("{ country: { not: EEA } }", {"country": "Germany"}, False),
        ("{ country: { not: EEA } }", {"country": "XX"}, False),
        ("{ country: '*' }", {"country": "XX"}, False),
        ("{ caller.network: [tor, 'host*'] }", {"network": "hosting"}, True),
        ("{ network: { not: tor } }", {}, False),
        ("{ purpose: billing }", {"purpose": "billing"}, True),
        ("{ purpose: { not: billing } }", {}, False),
        ("{ caller.client: 'acme-*', caller.role: care }", {"client": "acme-1", "roles": ("care",)}, True),
        ("{ caller.client: 'acme-*', caller.role: care }", {"client": "acme-1"}, False),
    ],
)
def test_needs_of_the_caller(needs: str, facts: dict[str, object], want: bool):
    """All conditions hold together; what nobody vouched for, or is no country, satisfies none of them."""
    assert applies(needs, **facts) is want


@pytest.mark.parametrize(
    ("when", "facts", "want"),
    [
        ("{ country: { not: EEA } }", {}, True),
        ("{ country: { not: EEA } }", {"country": "XX"}, True),
        ("{ country: { not: EEA } }", {"country": "FR"}, False),
        ("{ country: EEA }", {}, True),
        ("{ country: EEA }", {"country": "US"}, False),
        ("{ network: [tor, hosting] }", {}, True),
        ("{ network: [tor, hosting] }", {"network": "residential"}, False),
        ("{ network: tor, country: EU }", {"country": "US"}, False),
        ("{ network: tor, country: EU }", {"country": "DE"}, True),
        ("{ client: acme }", {}, True),
        ("{ client: { not: acme } }", {"client": "acme"}, False),
        ("{ cel: 'country == \"DE\"' }", {}, True),
        ("{ cel: 'country == \"DE\"' }", {"country": "US"}, False),
        ("{}", {}, True),
        ("{ subject.consent: { not: x } }", {}, True),
    ],
)
def test_a_guardrail_acts_unless_facts_speak_against_it(when: str, facts: dict[str, object], want: bool):
    """A missing fact satisfies a guardrail's condition, plain or negated; a known one decides."""
    assert acts(when, **facts) is want


@pytest.mark.parametrize(
    ("needs", "hour", "want"),
    [("{ time.hour: 8-17 }", 17.99, True), ("{ time.hour: 8-17 }", 18, False), ("{ time.hour: [22-5, 12] }", 2, True),
     ("{ time.hour: [22-5, 12] }", 12, True), ("{ time.hour: 22-5 }", 6, False), ("{ time.hour: 0 }", 0, True),
     ("{ time.weekday: mon }", 23.9, True), ("{ time.weekday: mon }", 24, False), ("{ time.weekday: mon }", -1, False),
     ("{ time.weekday: [sat, sun] }", 24 * 6, True), ("{ cel: 'hour == 3 && weekday == \"tue\"' }", 27, True)],
)  # fmt: skip
def test_time_is_utc(needs: str, hour: float, want: bool):
    """Hours and weekdays change on the hour, at midnight UTC."""
    assert applies(needs, MONDAY_S + hour * HOUR_S) is want


def test_purposes_of_a_guardrail():
    """A guardrail for a purpose acts where the purpose is that one, or unknown."""
    policy = parse_policy(
        "policy: p\nversion: 1\ntags: { a: { find: $.a } }\nwho: {}\n"
        "never: [ { never: n, tag: a, at_least: mask, for: billing } ]\n",
        "policy.yaml",
    )
    acting = {p: decide(policy, Caller("t", purpose=p), 0.0).guardrails for p in ("", "billing", "support")}
    assert acting == {"": ("n",), "billing": ("n",), "support": ()}


@pytest.mark.parametrize(
    ("unless", "facts", "want"),
    [("{ role: boss }", {"roles": ("boss",)}, False), ("{ role: boss }", {"roles": ("x",)}, True),
     ("{ role: boss }", {}, True), ("{ role: { not: boss } }", {}, True), ("{ cel: 'user == \"u\"' }", {}, True),
     ("{ cel: 'user == \"u\"' }", {"user": "u"}, False), ("{ subject.consent: x }", {}, True)],
)  # fmt: skip
def test_unless_needs_to_be_certain(unless: str, facts: dict[str, object], want: bool):
    """Only what certainly holds keeps a guardrail still; what depends on the person does not keep it out of a plan."""
    policy = parse_policy(
        "policy: p\nversion: 1\ntags: { a: { find: $.a } }\nwho: {}\n"
        f"never: [ {{ never: n, tag: a, at_least: mask, unless: {unless} }} ]\n",
        "policy.yaml",
    )
    assert (decide(policy, Caller("t", **facts), 0.0).guardrails == ("n",)) is want


def test_an_expression_that_fails_refuses():
    """Types that do not fit give no outcome, neither for grants nor for guardrails, and nothing is remembered."""
    caller = Caller("t", claims={"level": "high"})
    failing = "{ cel: 'claims.level > 3' }"
    for policy in (a_policy(failing), a_policy(when=failing), a_policy(who=failing)):
        decider = Decider(policy)
        for _ in range(2):
            with pytest.raises(PolicyExpressionFailed):
                decider.decide(caller, 0.0)


def test_an_expression_fails_whatever_the_others_say():
    """Of several who each is asked, though one is enough: the outcome must not depend on the order of writing.

    What a grant needs is asked only of those whom it is for.
    """
    policy = a_policy("{ cel: 'claims.level > 3' }", who="{ role: nobody }")
    assert decide(policy, Caller("t", claims={"level": "high"}), 0.0) == Decision((), ())
    both = parse_policy(
        "policy: p\nversion: 1\ntags: { a: { find: $.a } }\n"
        "who: { w: {}, bad: { cel: 'claims.level > 3' } }\n"
        "grants: [ { grant: g, to: [w, bad], show: { a: clear } } ]\n",
        "policy.yaml",
    )
    with pytest.raises(PolicyExpressionFailed):
        decide(both, Caller("t", claims={"level": "high"}), 0.0)


def test_the_key_of_a_class_is_what_the_policy_reads():
    """Facts that no rule asks for do not make another class; those that one asks for do."""
    policy = a_policy("{ country: EU, claim.x: y, cel: 'hour > 3 && has(claims.z)' }", rest=", for: [p]")
    assert facts_read(policy) == ("claim.x", "claims", "country", "purpose", "time.hour")
    assert facts_read(a_policy()) == ()


def test_claims_that_are_equal_in_python_are_different_classes():
    """`1`, `1.0`, `true` and `"1"` are four claims, whichever of them asked first."""
    decider = Decider(a_policy("{ claim.x: 1 }"))
    wanted = [(True, False), (1, True), ("1", False), (True, False), (1, True), ((1, "a"), True), (False, False)]
    for claim, want in wanted:
        assert (decider.decide(Caller("t", claims={"x": claim}), 0.0).grants == ("g",)) is want


def test_what_is_remembered_is_bounded():
    """Callers of ever new names push out the oldest; the answers stay right."""
    decider = Decider(a_policy("{ client: 'a*' }"))
    for n in range(MAX_DECISIONS + 50):
        assert decider.decide(Caller("t", client=f"a{n}"), 0.0).grants == ("g",)
    assert len(decider._known) == MAX_DECISIONS
    assert decider.decide(Caller("t", client="b"), 0.0).grants == ()


def test_a_hostile_glob_is_harmless():
    """Many stars against a long value end at once."""
    assert glob_matches("*a" * 200 + "*b", "a" * 100_000) is False
