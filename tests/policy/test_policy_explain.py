"""Explanations tell what the plan does, and why."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.policies import WHO, conditional_policy_maps, policy_maps, read

from gharial.model.errors import PolicyInvalid
from gharial.policy.classes import find_classes
from gharial.policy.decide import decide
from gharial.policy.diff import compile_class
from gharial.policy.explain import Asked, Explanation, explain_places
from gharial.policy.places import find_cell, find_spots
from gharial.policy.samples import caller_of
from gharial.policy.technique import compare
from gharial.policy.technique_syntax import parse_technique

GUARDED: dict[str, Any] = {
    "policy": "p",
    "version": 1,
    "tags": {"email": {"find": "$..email"}, "home": {"find": "$..home", "fact": "residency"}},
    "who": WHO,
    "grants": [
        {"grant": "basics", "to": "anyone", "show": {"email": "mask"}},
        {
            "grant": "desk",
            "to": "care",
            "for": "support",
            "needs": {"subject.consent": "desk"},
            "show": {"email": "clear"},
        },
    ],
    "never": [
        {
            "never": "eu",
            "tag": "email",
            "when": {"subject.residency": "EU", "country": {"not": "EEA"}},
            "at_least": "redact",
        }
    ],
}


def explain(policy: dict[str, Any], facts: dict[str, tuple[Any, ...]], variant: int | None = None) -> list[Explanation]:
    parsed = read(policy)
    decision = decide(parsed, *caller_of(facts))
    plan = compile_class(parsed, (), decision.grants, decision.guardrails)
    return explain_places(Asked(parsed, plan, facts, variant or 0))


@given(policy_maps() | conditional_policy_maps(), st.data())
@settings(max_examples=examples(100))
def test_the_winner_is_the_rule_of_the_plan(policy: dict[str, Any], data: st.DataObject):
    """For any policy and caller the rule and the technique are the plan's, and the reasons agree with them."""
    parsed = read(policy)
    kind = data.draw(st.sampled_from(find_classes([parsed]).classes))
    applying = kind.applying[0]
    try:
        plan = compile_class(parsed, (), applying.grants, applying.guardrails)
    except PolicyInvalid:
        return
    variant = data.draw(st.integers(0, len(plan.variants) - 1))
    found = {e.place: e for e in explain_places(Asked(parsed, plan, kind.members[0].facts, variant))}
    spots = find_spots(parsed)[0]
    for spot in spots:
        explanation = found[spot.place]
        cell = find_cell(plan, spot.steps)
        assert (cell is None) is (explanation.rule == "unlisted")
        if cell is None:
            continue
        step = plan.steps[cell.steps[variant]]
        assert explanation.rule == step.rule
        assert parse_technique(explanation.technique).op is step.op
        applied = [c for c in explanation.considered if c.applied and c.tag == cell.tag]
        grants = [c for c in applied if c.rule.startswith("grant:")]
        floors = [c for c in applied if c.rule.startswith("never:")]
        assert {c.rule.removeprefix("grant:") for c in grants} <= set(plan.grants)
        assert {c.rule.removeprefix("never:") for c in floors} <= set(plan.guardrails)
        if len(spot.tags) > 1 or spot.around:
            continue
        shown = parse_technique(explanation.technique)
        if explanation.rule == "default":
            assert grants == []
        elif explanation.rule.startswith("grant:"):
            assert (explanation.rule, explanation.technique) in [(c.rule, c.technique) for c in grants]
        else:
            assert explanation.rule in [c.rule for c in floors]
        for floor in floors:
            assert compare(shown, parse_technique(floor.technique.removeprefix("at least "))) in (1, 0, None)
        if not explanation.rule.startswith("never:"):
            assert all(compare(shown, parse_technique(grant.technique)) in (-1, 0) for grant in grants)


def test_a_grant_that_does_not_apply_says_which_condition_failed():
    """The caller who is not meant, the purpose that is missing and the consent that nobody gave are told."""
    (email, *_) = explain(GUARDED, {"role": ("sales",), "country": ("FR",)})
    desk = next(c for c in email.considered if c.rule == "grant:desk")
    assert not desk.applied
    assert desk.reasons == (
        "the caller is not 'care': role: care is not so: it is sales",
        "it is for support, not without purpose",
    )
    (email, *_) = explain(GUARDED, {"role": ("care",), "purpose": ("support",), "country": ("FR",)})
    desk = next(c for c in email.considered if c.rule == "grant:desk")
    assert desk.reasons == ("subject.consent: desk is not known to be so of this person",)
    assert (email.rule, email.technique) == ("grant:basics", "mask")


def test_a_value_that_names_a_person_says_who_else_that_is():
    """Of an id it is told which other ids mean the same people, and how many people there are."""
    tags = {
        "login": {"find": "$.login", "subject": "login", "same_as": "customer", "population": 5_000},
        "person": {"find": "$.id", "subject": "customer"},
    }
    found = {e.tags: e for e in explain(GUARDED | {"tags": GUARDED["tags"] | tags}, {})}
    login, person = found["login",], found["person",]
    assert login.why.endswith("; the people of login are those of customer (same_as); there are 5,000 people of login")
    assert person.why.endswith("; the people of customer are those of login (same_as)")


def test_a_guardrail_says_what_makes_it_act_or_keeps_it_still():
    """A country that certainly spares the caller is told; so is one that is merely unknown."""
    (email, *_) = explain(GUARDED, {"country": ("FR",)})
    (eu,) = [c for c in email.considered if c.rule == "never:eu"]
    assert (eu.applied, eu.reasons) == (False, ("country: not EEA is not so: it is FR",))
    # Variant 1: the guardrail's condition on the person holds.
    (email, *_) = explain(GUARDED, {}, variant=1)
    (eu,) = [c for c in email.considered if c.rule == "never:eu"]
    assert eu.applied
    assert eu.reasons[0] == "country: not EEA may be so: it is unknown"
    assert (email.rule, email.technique) == ("never:eu", "redact")


def test_places_in_requests_say_what_happens_to_tokens_and_all_else():
    """Whether a token is opened there, by which grant, and whether anything else may come."""
    policy = GUARDED | {
        "tags": {
            "email": {"find": ["$..email", "query:email"]},
            "home": {"find": "$..home", "fact": "residency"},
            "person": {"find": "query:id", "subject": "customer"},
        },
        "grants": [{"grant": "desk", "to": "care", "show": {"email": "token"}, "reidentify": "email"}],
        "never": [{"never": "no-guessing", "only_tokens": "email"}],
    }
    found = {e.place: e for e in explain(policy, {"role": ("care",)})}
    assert (found["query:email"].technique, found["query:email"].rule) == ("opened", "never:no-guessing")
    assert "anything but such a token is refused" in found["query:email"].why
    assert (found["query:id"].technique, found["query:id"].rule) == ("as sent", "tag")
    others = {e.place: e for e in explain(policy, {"role": ("other",)})}
    assert others["query:email"].technique == "refused"


def test_what_is_sent_to_the_api_is_explained_by_its_direction():
    """Bodies, parameters and lines of requests are named as such, with what the API gets and the rule that says so."""
    email = {"find": ["$..email", "query:email", "header:X-Email"], "in": ["request", "response"]}
    policy = GUARDED | {"tags": GUARDED["tags"] | {"email": email}}
    found = {e.place: e for e in explain(policy, {}) if "sent to the upstream" in e.why}
    assert set(found) == {"$..email of requests", "query:email", "header:x-email"}
    # Nobody is known in a request, so the guardrail acts.
    assert {(e.technique, e.rule) for e in found.values()} == {("redact", "never:eu")}
