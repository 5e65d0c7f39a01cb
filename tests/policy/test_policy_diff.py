"""Differences between policies: what becomes more open, what stricter, for whom."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.policies import (
    TECHNIQUES,
    WHO,
    conditional_policy_maps,
    grant_maps,
    guardrail_maps,
    policy_maps,
    read,
    tag_maps,
)

from gharial.model.errors import PolicyInvalid
from gharial.policy.classes import find_classes
from gharial.policy.diff import Change, Direction, _Changed, compile_class, diff_policies

OTHER_WAY = {
    Direction.MORE_OPEN: Direction.STRICTER,
    Direction.STRICTER: Direction.MORE_OPEN,
    Direction.OTHER: Direction.OTHER,
}
NO_STRICTER_THAN_NOTHING = tuple(t for t in TECHNIQUES if t not in ("null", "drop"))

BASE: dict[str, Any] = {
    "policy": "p",
    "version": 1,
    "tags": {"person": {"find": ["$..id", "path:id"], "subject": "customer"}, "email": {"find": "$..email"}},
    "who": WHO,
    "grants": [
        {
            "grant": "desk",
            "to": "care",
            "for": "support",
            "show": {"email": "clear"},
            "budget": {"people": "60/h", "then": "mask"},
        }
    ],
}


def changed(**grant: Any) -> dict[str, Any]:
    return BASE | {"grants": [BASE["grants"][0] | grant]}


def facts_of(change: Change) -> tuple[Any, ...]:
    return change.tag, change.before, change.after, change.whom, change.when


@given(policy_maps() | conditional_policy_maps())
@settings(max_examples=examples(60))
def test_a_policy_does_not_differ_from_itself(policy: dict[str, Any]):
    """Nothing changes where nothing was changed."""
    found = diff_policies(read(policy), read(policy))
    assert found.changes == ()
    assert found.left_out == ()


@given(st.data())
@settings(max_examples=examples(40))
def test_back_is_the_mirror_of_forth(data: st.DataObject):
    """Whatever becomes more open in one direction becomes stricter in the other, at the same places.

    Whom it is for may be put in other words: one set of callers has several descriptions.
    """
    tags = data.draw(tag_maps())
    if data.draw(st.booleans()):
        one, other = data.draw(conditional_policy_maps()), data.draw(conditional_policy_maps())
    else:
        one = data.draw(policy_maps(tags))
        other = data.draw(policy_maps(data.draw(st.sampled_from([tags, None]))))
    forth, back = diff_policies(read(one), read(other)), diff_policies(read(other), read(one))

    def seen(change: Change) -> tuple[Any, ...]:
        tag = frozenset(change.tag.split(" -> "))
        return change.direction, tag, change.place, change.before, change.after, change.when

    mirrored = {
        (OTHER_WAY[d], tag, place, after, before, when)
        for d, tag, place, before, after, when in map(seen, back.changes)
    }
    assert set(map(seen, forth.changes)) == mirrored


@given(st.data())
@settings(max_examples=examples(40))
def test_one_more_grant_only_opens(data: st.DataObject):
    """Grants add up: another one, no stricter than saying nothing, makes nothing stricter for anybody."""
    policy = data.draw(policy_maps())
    more = data.draw(grant_maps(tuple(policy["tags"]), NO_STRICTER_THAN_NOTHING))
    grants = [g for g in policy["grants"] if not {"null", "drop"} & {*g["show"].values()}]
    grants = [g for g in grants if "budget" not in g or g["budget"]["then"] not in ("null", "drop")]
    before, after = policy | {"grants": grants}, policy | {"grants": [*grants, {"grant": "more", **more}]}
    found = diff_policies(read(before), read(after))
    assert {change.direction for change in found.changes} <= {Direction.MORE_OPEN}


@given(st.data())
@settings(max_examples=examples(40))
def test_classes_that_are_not_compiled_have_equal_plans(data: st.DataObject):
    """A class that no changed rule touches is left out of the work because nothing can change for it."""
    tags = data.draw(tag_maps())
    one = data.draw(policy_maps(tags))
    grants = [g for g in one["grants"] if data.draw(st.booleans())]
    more = data.draw(st.lists(grant_maps(tuple(tags)), max_size=1))
    other = one | {"version": 9, "grants": [*({"grant": "new", **g} for g in more), *reversed(grants)]}
    old, new = read(one), read(other)
    changed = _Changed.between(old, new)
    for found in find_classes([old, new]).classes:
        if changed.touches(found.applying):
            continue
        try:
            plans = [
                compile_class(policy, ("id",), own.grants, own.guardrails)
                for policy, own in zip((old, new), found.applying, strict=True)
            ]
        except PolicyInvalid:
            continue
        assert msgspec.structs.replace(plans[0], version=0, digest="") == msgspec.structs.replace(
            plans[1], version=0, digest=""
        )


@given(conditional_policy_maps(), st.data())
@settings(max_examples=examples(40))
def test_one_more_guardrail_only_closes(policy: dict[str, Any], data: st.DataObject):
    """No grant relaxes a guardrail: another one makes nothing more open for anybody."""
    more = {"never": "more", **data.draw(guardrail_maps(tuple(policy["tags"])))}
    found = diff_policies(read(policy), read(policy | {"never": [*policy["never"], more]}))
    assert {change.direction for change in found.changes} <= {Direction.STRICTER}


def test_who_may_have_it_is_compared_not_how_they_are_called():
    """Another name for the same callers changes nothing; other callers under the same name do."""
    renamed = changed(to="clerk") | {"who": {**WHO, "clerk": {"role": "care"}}}
    assert diff_policies(read(BASE), read(renamed)).changes == ()
    wider = BASE | {"who": {**WHO, "care": {"role": ["care", "sales"]}}}
    found = diff_policies(read(BASE), read(wider)).of(Direction.MORE_OPEN)
    assert {change.whom for change in found} == {("not care (old), care (new), for support",)}
    assert {change.example for change in found} == {"role sales, purpose support"}
    assert ("redact", "clear") in {(change.before, change.after) for change in found}


def with_logins(**login: Any) -> dict[str, Any]:
    tags = {**BASE["tags"], "login": {"find": "$..login", "subject": "login", **login}}
    return BASE | {"tags": tags}


def test_ids_that_become_one_person_are_more_open():
    """A budget reaches further where two ids count as one person; a smallest group is harder to reach."""
    (change,) = diff_policies(read(with_logins()), read(with_logins(same_as="customer"))).changes
    assert change.direction is Direction.MORE_OPEN
    assert change.place == "people of customer and login (same_as)"
    (back,) = diff_policies(read(with_logins(same_as="customer")), read(with_logins())).changes
    assert (back.direction, back.before, back.after) == (Direction.STRICTER, change.after, change.before)
    crowds = {"grants": [BASE["grants"][0] | {"min_group": 5}]}
    found = diff_policies(read(with_logins() | crowds), read(with_logins(same_as="customer") | crowds))
    assert [(c.place.split()[0], c.direction) for c in found.changes] == [
        ("people", Direction.MORE_OPEN),
        ("groups", Direction.STRICTER),
    ]


def test_another_population_is_told():
    """How many people there are decides nothing by itself, and is told."""
    (change,) = diff_policies(read(with_logins()), read(with_logins(population=37_000_000))).changes
    assert (change.direction, change.place) == (Direction.OTHER, "population of login")
    assert (change.before, change.after) == ("not said", "37,000,000")


def test_a_larger_budget_is_more_open():
    """The number of people is a change of its own; what holds within and beyond is the same."""
    found = diff_policies(read(BASE), read(changed(budget={"people": "600/h", "then": "mask"})))
    (change,) = found.changes
    assert (change.direction, change.place) == (Direction.MORE_OPEN, "budget of desk")
    assert (change.before, change.after) == ("60 people in 1h", "600 people in 1h")
    assert change.whom == ("care, for support",)


def test_a_budget_that_goes_opens_what_was_beyond_it():
    """Without its budget a grant shows clear where it showed a mask."""
    without = {key: value for key, value in BASE["grants"][0].items() if key != "budget"}
    found = diff_policies(read(BASE), read(BASE | {"grants": [without]}))
    assert [facts_of(change) for change in found.changes] == [
        ("email", "mask", "clear", ("care, for support",), ("beyond the budget of desk per 1h",))
    ]


def test_a_place_that_a_tag_no_longer_finds_is_what_no_tag_names():
    """Taking a path from a tag leaves its fields to `unlisted_fields`: open where that is `pass`."""
    fewer = BASE | {"tags": BASE["tags"] | {"email": {"find": "$.email"}}, "unlisted_fields": "pass"}
    found = diff_policies(read(BASE | {"unlisted_fields": "pass"}), read(fewer))
    assert {(c.direction, c.place, c.before, c.after) for c in found.changes} == {
        (Direction.MORE_OPEN, "$..email", "redact", "clear"),
        (Direction.MORE_OPEN, "$..email", "mask", "clear"),
    }


def test_shadow_opens_everything():
    """A policy that goes to shadow changes nothing on the wire any more: the most open change there is."""
    found = diff_policies(read(BASE), read(BASE | {"mode": "shadow"}))
    assert [(c.direction, c.before, c.after) for c in found.changes] == [
        (Direction.MORE_OPEN, "mode enforce", "mode shadow")
    ]


def test_reidentifying_is_told():
    """That tokens become real values for the upstream is more open."""
    found = diff_policies(read(BASE), read(changed(reidentify="person")))
    assert [(c.direction, c.tag, c.place) for c in found.changes] == [
        (Direction.MORE_OPEN, "person", "bodies of requests"),
        (Direction.MORE_OPEN, "person", "path:id"),
    ]


def test_how_values_are_sent_to_the_api_is_told():
    """Protecting a value on its way is stricter than sending it as it came; another technique is compared with it."""
    sending = BASE | {"tags": BASE["tags"] | {"email": {"find": ["$..email", "query:email"], "in": "request"}}}
    found = [c for c in diff_policies(read(BASE), read(sending)).changes if "sent to the API" in c.before]
    assert {(c.direction, c.tag, c.place) for c in found} == {
        (Direction.STRICTER, "email", "bodies of requests"),
        (Direction.STRICTER, "email", "query:email"),
    }
    back = [c for c in diff_policies(read(sending), read(BASE)).changes if "sent to the API" in c.before]
    assert {c.direction for c in back} == {Direction.MORE_OPEN}


def test_what_was_not_compared_is_said():
    """A bound on the classes of callers is told, never a silent pass."""
    found = diff_policies(read(BASE), read(BASE | {"unlisted_fields": "redact"}), max_classes=1)
    assert found.tried == 1
    assert found.left_out == ("1 of 2 classes of callers",)


def test_a_condition_on_siblings_is_compared_with_the_place_without_it():
    """Where only members with the right sibling stay clear, the others become stricter and nothing opens."""
    tags = {"value": {"find": "$..value"}}
    grants = [{"grant": "g", "to": "anyone", "show": {"value": "clear"}}]
    plain = BASE | {"tags": tags, "grants": grants}
    narrower = plain | {"tags": {"value": tags["value"] | {"where": {"name": "plan"}}}}
    found = diff_policies(read(plain), read(narrower))
    assert {(c.direction, c.place, c.before, c.after) for c in found.changes} == {
        (Direction.STRICTER, "$..value", "clear", "drop")
    }
    back = diff_policies(read(narrower), read(plain))
    assert {c.direction for c in back.changes} == {Direction.MORE_OPEN}


EU = {"never": "eu", "tag": "email", "when": {"subject.residency": "EU", "country": {"not": "EEA"}}, "at_least": "drop"}
GUARDED = BASE | {
    "tags": BASE["tags"] | {"home": {"find": "$..home", "fact": "residency"}},
    "never": [EU],
}


def test_a_guardrail_that_goes_opens_for_those_whom_it_kept():
    """It is told for which people, and where from: for those of whom nothing is known too."""
    found = diff_policies(read(GUARDED), read(GUARDED | {"never": []}))
    assert {c.direction for c in found.changes} == {Direction.MORE_OPEN}
    assert {c.when for c in found.changes if c.before == "drop" and c.after == "redact"} == {
        ("residency unknown or EU (such as AT)",)
    }
    assert all("where eu may act" in line for c in found.changes for line in c.whom)


def test_another_group_of_countries_is_told_by_its_members():
    """Narrowing EU to one country spares people of the others; the sample names one of them."""
    narrower = GUARDED | {
        "never": [GUARDED["never"][0] | {"when": {"subject.residency": "FR", "country": {"not": "EEA"}}}]
    }
    found = diff_policies(read(GUARDED), read(narrower))
    assert {c.direction for c in found.changes} == {Direction.MORE_OPEN}
    assert {line.partition(",")[0] for c in found.changes for line in c.when} == {"residency EU (such as AT)"}


REQUESTS: dict[str, Any] = BASE | {
    "tags": {"email": {"find": ["$..email", "query:email"]}},
    "grants": [{"grant": "desk", "to": "care", "show": {"email": "token"}, "reidentify": "email"}],
}


def test_another_place_for_tokens_is_told():
    """A place that tokens may come back in opens, one that goes closes."""
    wider = REQUESTS | {"tags": {"email": {"find": ["$..email", "query:email", "header:X-Email"]}}}
    (change,) = diff_policies(read(REQUESTS), read(wider)).changes
    assert (change.direction, change.tag, change.place) == (Direction.MORE_OPEN, "email", "header:x-email")
    (back,) = diff_policies(read(wider), read(REQUESTS)).changes
    assert (back.direction, back.place) == (Direction.STRICTER, "header:x-email")


def test_only_tokens_is_told():
    """That nothing but tokens may come any more is stricter, and told with its place."""
    guarded = REQUESTS | {"never": [{"never": "no-guessing", "only_tokens": "email"}]}
    stricter = [c for c in diff_policies(read(REQUESTS), read(guarded)).changes if c.direction is Direction.STRICTER]
    assert ("query:email", "only tokens are accepted") in {(c.place, c.after) for c in stricter}
    back = diff_policies(read(guarded), read(REQUESTS)).changes
    assert ("query:email", Direction.MORE_OPEN) in {(c.place, c.direction) for c in back}
