"""`reveal` in a grant: how it is read, what it gives to whom, and what forbids it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gharial.model.errors import PolicyInvalid
from gharial.model.plan import Op
from gharial.policy.advice import find_warnings
from gharial.policy.compile import compile_plan
from gharial.policy.diff import Direction, diff_policies
from gharial.policy.document import Policy, parse_policy
from gharial.policy.explain import Asked, explain_places
from gharial.policy.reveal import compile_reveal, limits_of, tags_forbidden

BASE: dict[str, Any] = {
    "policy": "p",
    "version": 1,
    "tags": {
        "account": {"find": "$..account"},
        "email": {"find": "$..email"},
        "home": {"find": "$..home", "fact": "residency"},
        "both": ["account", "email"],
    },
    "who": {"anyone": {}},
    "grants": [{"grant": "g", "to": "anyone", "show": {"both": "token"}}],
}
BUDGET = {"people": "60/h", "then": "redact"}


def with_grants(*grants: dict[str, Any], **more: Any) -> Policy:
    added = [{"to": "anyone", **grant} for grant in grants]
    return parse_policy(json.dumps(BASE | {"grants": [*BASE["grants"], *added]} | more), "p.yaml")


def revealed(policy: Policy, *grants: str, guardrails: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a caller with these grants has revealed: the limits, by tag."""
    plan = compile_reveal(policy, grants, tags_forbidden(policy, guardrails))
    return {cell.tag: limits_of(plan, cell.tag) for cell in plan.cells}


def test_a_group_is_its_single_tags_and_each_grant_gives_its_own():
    """Of the grants that apply, and of no others, what they name is revealed."""
    policy = with_grants({"grant": "r", "reveal": ["both"], "budget": BUDGET}, {"grant": "s", "reveal": "home"})
    assert revealed(policy, "g") == {}
    assert revealed(policy, "g", "r") == {"account": {("r", 3600): 60}, "email": {("r", 3600): 60}}
    assert revealed(policy, "r", "s")["home"] == {}


@pytest.mark.parametrize("more", [{"needs": {"subject.consent": "ads"}}, {"min_group": 3}])
def test_conditions_about_persons_are_refused(more: dict[str, Any]):
    """No person is known where a value is revealed, so such a grant would promise what nobody checks."""
    with pytest.raises(PolicyInvalid) as caught:
        with_grants({"grant": "r", "reveal": "account", "show": {"email": "year"}, **more})
    assert "make 'reveal' a grant of its own" in str(caught.value)


def test_an_unknown_tag_is_a_mistake_with_a_suggestion():
    """As for every name of a tag."""
    with pytest.raises(PolicyInvalid) as caught:
        with_grants({"grant": "r", "reveal": "acount"})
    assert "did you mean 'account'" in str(caught.value)


def test_a_floor_forbids_whatever_grants_say():
    """A guardrail that acts, or may, depending on the person, takes the tag away; other tags stay."""
    never = [
        {"never": "eu", "tag": "account", "when": {"subject.residency": "EU"}, "at_least": "mask"},
        {"never": "unless", "tag": "email", "unless": {"subject.consent": "ads"}, "at_least": "redact"},
    ]
    policy = with_grants({"grant": "r", "reveal": ["both", "home"]}, never=never)
    assert set(revealed(policy, "r", guardrails=("eu",))) == {"email", "home"}
    assert set(revealed(policy, "r", guardrails=("eu", "unless"))) == {"home"}


def test_beyond_each_budget_the_plan_drops():
    """A tag of one grant is clear only where no budget of it is crossed; of two grants, where one has room."""
    two = [BUDGET, {"people": "99/d", "then": "mask"}]
    policy = with_grants(
        {"grant": "r", "reveal": ["account", "email"], "budget": two}, {"grant": "s", "reveal": "email"}
    )
    plan = compile_reveal(policy, ("r", "s"), ())
    shown = {
        cell.tag: [(v.crossed, plan.steps[step].op) for v, step in zip(plan.variants, cell.steps, strict=True)]
        for cell in plan.cells
    }
    assert shown["account"] == [((), Op.CLEAR), ((0,), Op.DROP), ((1,), Op.DROP), ((0, 1), Op.DROP)]
    assert {op for _, op in shown["email"]} == {Op.CLEAR}
    assert limits_of(plan, "email") == {}


def test_a_difference_says_what_opens_and_what_closes():
    """A new reveal, a larger budget, a lost one are more open; a floor under the tag is stricter."""
    without = with_grants({"grant": "r", "reveal": "email", "budget": BUDGET})
    more = with_grants({"grant": "r", "reveal": "both", "budget": BUDGET})
    larger = with_grants({"grant": "r", "reveal": "both", "budget": BUDGET | {"people": "61/h"}})
    unlimited = with_grants({"grant": "r", "reveal": "both"})
    floored = with_grants(
        {"grant": "r", "reveal": "both", "budget": BUDGET},
        never=[{"never": "n", "tag": "account", "at_least": "token"}],
    )

    def told(old: Policy, new: Policy) -> list[tuple[Direction, str, str]]:
        found = diff_policies(old, new).changes
        return [(c.direction, c.tag, c.after) for c in found if c.place == "reveal API"]

    assert told(without, more) == [(Direction.MORE_OPEN, "account", "revealed (60 values in 1h)")]
    assert {direction for direction, _, _ in told(more, larger)} == {Direction.MORE_OPEN}
    assert {direction for direction, _, _ in told(larger, unlimited)} == {Direction.MORE_OPEN}
    assert {direction for direction, _, _ in told(unlimited, more)} == {Direction.STRICTER}
    assert told(more, floored) == [(Direction.STRICTER, "account", "not revealed")]
    assert told(more, more) == []


def test_doubtful_grants_are_warned_of():
    """Without a budget, or of a tag that is never a token or an envelope, a reveal is probably not meant."""
    found = [str(p) for p in find_warnings(with_grants({"grant": "r", "reveal": ["account", "home"]}))]
    assert any("'r' reveals 'account', without a budget" in text for text in found)
    assert any("'r' reveals 'home', which no grant shows as a token or an envelope" in text for text in found)
    assert not any(
        "'r'" in str(p) for p in find_warnings(with_grants({"grant": "r", "reveal": "email", "budget": BUDGET}))
    )


def test_explanations_tell_of_the_reveal_api():
    """Of each tag: which grant reveals it, or which guardrail forbids it."""
    never = [{"never": "stays", "tag": "email", "at_least": "mask"}]
    policy = with_grants({"grant": "r", "reveal": "both"}, never=never)
    plan = compile_plan(policy, "", (), ("g", "r"), ("stays",))
    found = [e for e in explain_places(Asked(policy, plan, {}, 0)) if "reveal API" in e.place]
    assert [(e.tags, e.technique, e.rule) for e in found] == [
        (("account",), "revealed", "grant:r"),
        (("email",), "refused", "never:stays"),
    ]
