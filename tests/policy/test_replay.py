"""Replay foretells what the gate does; the same policy changes nothing; what can't be told is not guessed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.gate_world import World
from support.recordings import recorded

from gharial.model.recording import RecordedExchange
from gharial.policy.document import parse_policy
from gharial.policy.replay import NothingToReplay, possible_results, replay
from gharial.policy.tally import Replay
from gharial.policy.technique_syntax import parse_technique

ROUTES = (("customer", "GET /customers/{id}", "p"), ("list", "GET /customers", "p"))
OPENNESS = (
    "clear",
    "mask(keep=domain, last=4)",
    "mask(last=4)",
    "mask",
    "token(scope=client)",
    "redact",
    "null",
    "drop",
)

TAGS: dict[str, dict[str, Any]] = {
    "person": {"find": ["$..id", "path:id"], "subject": "customer"},
    "other": {"find": "$.rows[*].ref", "subject": "customer"},
    "login": {"find": "$..login", "subject": "login"},
    "home": {"find": "$..country", "fact": "residency"},
    "tier": {"find": "$..tier", "fact": "tier"},
    "email": {"find": "$..email"},
    "phone": {"find": ["$.rows[*].phone", "$.phone"]},
    "notes": {"find": "$..notes"},
    "rows": {"find": "$.rows"},
    "odd": {"find": "$..['x@y']"},
}
NEEDS = (
    {"subject.residency": "EU"},
    {"subject.residency": {"not": "DE"}},
    {"subject.tier": "gold"},
    {"subject.tier": {"not": ["gold", "iron"]}},
    {"subject.consent": "sharing"},
    {"country": "DE"},
)
WHO = {"anyone": {}, "care": {"role": "care"}, "partner": {"client": "acme-*"}}


@st.composite
def policies(draw: st.DrawFn) -> str:
    """Policies over one set of tags, of which each has some; facts, consent, budgets, groups, guardrails included."""
    names = sorted(draw(st.sets(st.sampled_from(sorted(TAGS)), min_size=3)) | {"person", "home", "tier"})
    techniques = st.sampled_from(OPENNESS)
    grants = []
    for number in range(draw(st.integers(1, 3))):
        show = draw(st.dictionaries(st.sampled_from(names), techniques, min_size=1))
        grant: dict[str, Any] = {"grant": f"g{number}", "to": draw(st.sampled_from(sorted(WHO))), "show": show}
        if draw(st.integers(0, 2)) == 0:
            grant["needs"] = draw(st.sampled_from(NEEDS))
        if "clear" in show.values() and draw(st.booleans()):
            grant["budget"] = {"people": "2/h", "then": draw(st.sampled_from(("mask", "redact", "drop")))}
        grants.append(grant)
    never = [
        {"never": f"n{number}", "tag": draw(st.sampled_from(names)), "when": draw(st.sampled_from(NEEDS)),
         "at_least": draw(st.sampled_from(OPENNESS[1:]))}
        for number in range(draw(st.integers(0, 1)))
    ]  # fmt: skip
    tags = {name: TAGS[name] for name in names}
    if "login" in tags and draw(st.booleans()):
        tags["login"] = {**tags["login"], "same_as": "customer"}
    policy = {
        "policy": "p", "version": 1, "tags": tags, "who": WHO, "grants": grants,
        "never": never, "unlisted_fields": draw(st.sampled_from(["drop", "redact", "pass"])),
    }  # fmt: skip
    return json.dumps(policy)


@st.composite
def slow_policies(draw: st.DrawFn) -> str:
    """Policies that need the reference executor: detectors, sibling conditions, filters, JSON in strings."""
    policy = json.loads(draw(policies()))
    tags = policy["tags"] = {name: dict(tag) for name, tag in policy["tags"].items()}
    if draw(st.booleans()):
        tags["email"] = {"find": "$..email", "detect": "email"}
        policy["unlisted_fields"] = draw(st.sampled_from(["detect", "drop"]))
    if draw(st.booleans()):
        tags["golden"] = {"find": "$..free", "where": {"tier": "gold"}}
    if draw(st.booleans()):
        tags["filtered"] = {"find": "$.rows[?@.id > 1].phone"}
    if draw(st.booleans()):
        policy["json_in_strings"] = draw(st.integers(1, 2))
    shown = [name for name in ("golden", "filtered", "email") if name in tags]
    if shown:
        policy["grants"].append(
            {"grant": "slow", "to": "anyone", "show": dict.fromkeys(shown, draw(st.sampled_from(OPENNESS)))}
        )
    return json.dumps(policy)


def _records() -> st.SearchStrategy[dict[str, Any]]:
    texts = st.sampled_from(["a", "ann@ex.org", ""])
    return st.fixed_dictionaries(
        {},
        optional={
            "id": st.sampled_from([1, 2, 3, "4", ""]),
            "ref": st.sampled_from([1, 5]),
            "login": st.sampled_from(["ann", "bob"]),
            "country": st.sampled_from(["DE", "us", "Germany", ""]),
            "tier": st.sampled_from(["gold", "IRON", "tin"]),
            "email": texts,
            "phone": texts,
            "notes": st.sampled_from([[], ["a", "b"], {"email": "b"}, {}]),
            "x@y": texts,
            "z@y": texts,
            "free": st.sampled_from(["a", None, True, 1.5, "ann@ex.org", json.dumps({"email": "a", "id": 2})]),
        },
    )


def bodies() -> st.SearchStrategy[Any]:
    """Single records, pages, and records that hold a page."""
    rows = st.lists(_records(), max_size=4)
    return st.one_of(_records(), rows, st.builds(lambda own, page: {**own, "rows": page}, _records(), rows))


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["/customers", "/customers/1"]), bodies(), st.sampled_from(["clerk-1", "acme-billing", ""])
    ),
    min_size=1,
    max_size=4,
)


def traffic(policy: str, calls: list[tuple[str, Any, str]]) -> list[RecordedExchange]:
    """What is recorded of these calls under a policy; the same calls give the same digests under any."""
    world = World(policy, ROUTES)
    world.consent.given.update({("customer", "1"): frozenset({"sharing"}), ("customer", "2"): frozenset({"other"})})
    recorder = recorded(world)

    async def play() -> None:
        for target, body, as_ in calls:
            await world.call(target, body, as_=as_)

    asyncio.run(play())
    return recorder.exchanges


def again(exchanges: list[RecordedExchange], policy: str) -> Replay:
    return replay(lambda: exchanges, parse_policy(policy, "new.yaml"))


@given(policies(), CALLS, st.booleans())
@settings(max_examples=examples(40))
def test_under_the_same_policy_nothing_changes(policy: str, calls: list[tuple[str, Any, str]], renumber: bool):
    """Whatever the policy and the traffic; a new version number alone is no change either."""
    exchanges = [e for e in traffic(policy, calls) if not e.error]
    if not exchanges:
        return
    found = again(exchanges, policy.replace('"version": 1', '"version": 2') if renumber else policy)
    assert found.changes == ()
    assert found.newly_refused == ()
    assert found.total("same") == found.places == sum(len(e.places) for e in exchanges)


@given(policies(), policies(), CALLS)
@settings(max_examples=examples(60))
def test_what_is_foretold_is_what_the_gate_does(old: str, new: str, calls: list[tuple[str, Any, str]]):
    """Traffic recorded under one policy, then really run under another: each result is one of those foretold."""
    compare(old, new, calls)


@given(st.one_of(policies(), slow_policies()), slow_policies(), CALLS)
@settings(max_examples=examples(40))
def test_what_only_the_reference_executor_finds_is_foretold_too(old: str, new: str, calls: list[tuple[str, Any, str]]):
    """Where values decide, what the gate does is still one of what is foretold."""
    compare(old, new, calls)


def compare(old: str, new: str, calls: list[tuple[str, Any, str]]) -> None:
    before, after = traffic(old, calls), traffic(new, calls)
    policy = parse_policy(new, "new.yaml")
    for one, other in zip(before, after, strict=True):
        foretold = possible_results(one, policy)
        if one.error or other.error:
            continue
        if one.json_levels != other.json_levels:
            continue  # they don't have the same places; see test_json_in_strings_that_was_not_opened_is_unknown
        assert len(one.places) == len(other.places)
        for place, results in zip(other.places, foretold, strict=True):
            real = other.shown[place.shown]
            assert (parse_technique(real.technique), real.rule, real.tag) in results, place


BASE = """
policy: p
version: 1
tags:
  person: { find: ['$..id', 'path:id'], subject: customer }
  home:   { find: '$..country', fact: residency }
  email:  { find: '$..email' }
who: { anyone: {}, care: { role: care }, partner: { client: 'acme-*' } }
grants:
  - { grant: desk, to: care, show: { person: clear, email: mask(last=4), home: clear } }
"""
PAGE = {"rows": [{"id": n, "email": "ann@ex.org", "country": ("DE", "US")[n % 2], "age": 3} for n in range(4)]}


def ways(found: Replay) -> dict[str, dict[str, int]]:
    columns = ("same", "more_open", "stricter", "other", "unknown", "newly_unlisted")
    return {row.tag: {name: getattr(row, name) for name in columns if getattr(row, name)} for row in found.rows}


@pytest.fixture(scope="module")
def page() -> list[RecordedExchange]:
    return traffic(BASE, [("/customers", PAGE, "clerk-1")])


@pytest.mark.parametrize(
    ("old", "new", "tag", "counts"),
    [
        ("email: mask(last=4)", "email: clear", "email", {"more_open": 4}),
        ("email: mask(last=4)", "email: redact", "email", {"stricter": 4}),
        ("email: mask(last=4)", "email: mask(first=2)", "email", {"other": 4}),
        ("  email:  { find: '$..email' }\n", "  email:  { find: '$..mail' }\n", "email",
         {"stricter": 4, "newly_unlisted": 4}),
        ("grants:", "unlisted_fields: pass\ngrants:", "", {"more_open": 4}),
        ("to: care,", "to: partner,", "person", {"stricter": 4}),
        ("to: care,", "to: care, needs: { subject.residency: DE },", "email", {"same": 2, "stricter": 2}),
        ("to: care,", "to: care, needs: { subject.consent: sharing },", "email", {"unknown": 4}),
        ("to: care,", "to: care, min_group: 2,", "email", {"unknown": 4}),
        ("home: clear } }", "home: clear }, budget: { people: 9/h, then: mask } }", "person", {"unknown": 4}),
    ],
)  # fmt: skip
def test_one_change_one_count(page: list[RecordedExchange], old: str, new: str, tag: str, counts: dict[str, int]):
    """Each kind of change goes into its column, and only there; people differ as their facts do."""
    assert old in BASE
    assert ways(again(page, BASE.replace(old, new)))[tag] == counts


def test_a_budget_that_both_charge_alike_is_known():
    """What was crossed is crossed again as long as nothing else is charged to it; a narrower grant makes it unknown."""
    budget = BASE.replace("home: clear } }", "home: clear }, budget: { people: 2/h, then: drop } }")
    exchanges = traffic(budget, [("/customers", PAGE, "clerk-1")])
    assert ways(again(exchanges, budget.replace("mask(last=4)", "mask")))["person"] == {"same": 4}
    assert ways(again(exchanges, budget.replace("mask(last=4)", "mask")))["email"] == {"same": 2, "stricter": 2}
    narrower = budget.replace("to: care,", "to: care, needs: { subject.residency: DE },")
    assert ways(again(exchanges, narrower))["email"] == {"more_open": 1, "stricter": 1, "unknown": 2}


def test_detector_hits_are_known():
    """`detect` of a new policy is answered by what the recording's detectors saw."""
    exchanges = traffic(BASE, [("/customers", {"text": "ann@ex.org", "more": "plain"}, "clerk-1")])
    new = BASE.replace("grants:", "unlisted_fields: detect\ngrants:").replace(
        "email:  { find: '$..email' }", "email:  { find: '$..email', detect: email }"
    )
    found = again(exchanges, new)
    assert (found.total("more_open"), found.total("unknown")) == (2, 0)


def test_what_is_not_told_is_not_guessed():
    """A key that looks like data may be a name that the new policy lists: unknown, with both possibilities."""
    exchanges = traffic(BASE, [("/customers", {"ann@ex.org": "x"}, "clerk-1")])
    new = BASE.replace("'$..email'", "['$..email', \"$..['ann@ex.org']\"]")
    (change,) = again(exchanges, new).changes
    assert (change.way, change.place, change.before, change.after) == (
        "unknown", "$.*", "drop", "drop or mask(last=4)",
    )  # fmt: skip


def test_a_policy_that_fails_for_a_caller_refuses_newly(page: list[RecordedExchange]):
    """An expression without an outcome refuses; the exchange is counted, and nothing of its places."""
    new = BASE.replace("care: { role: care }", "care: { cel: 'int(client) > 3' }")
    found = again(page, new)
    assert [(r.route, r.code, r.count) for r in found.newly_refused] == [("list", "policy.expression", 1)]
    assert found.places == 0


def test_shadow_is_more_open_than_anything(page: list[RecordedExchange]):
    """A change of mode is said, and counts as more open."""
    found = again(page, BASE.replace("version: 1", "version: 1\nmode: shadow"))
    assert found.modes == {"enforce -> shadow": 1}
    assert found.may_be_more_open
    assert not again(page, BASE).may_be_more_open


def test_another_policys_exchanges_are_not_compared(page: list[RecordedExchange]):
    """Only those of the policy of this name; if there are none it is said which there are."""
    with pytest.raises(NothingToReplay) as caught:
        again(page, BASE.replace("policy: p", "policy: q"))
    assert caught.value.policies == ("p",)


def test_tokens_that_would_no_longer_be_accepted():
    """A grant that loses `reidentify` makes a call fail upstream, and that shows."""
    policy = BASE.replace("to: care,", "to: care, reidentify: [person],").replace("person: clear", "person: token")
    world = World(policy, ROUTES)
    recorder = recorded(world)

    async def play() -> None:
        token = (await world.call("/customers/1", {"id": 1}, as_="clerk-1")).json["id"]
        await world.call(f"/customers/{token}", {"id": 1}, as_="clerk-1")

    asyncio.run(play())
    found = again(recorder.exchanges, policy.replace("reidentify: [person], ", ""))
    assert [(c.place, c.before, c.after, c.count) for c in found.changes] == [
        ("path", "token accepted", "token not accepted", 1)
    ]


def test_tokens_of_bodies_are_accepted_as_before():
    """A token that came in a body, of a tag that no path of a request finds, is no news unless the right goes."""
    opening = BASE.replace("to: care,", "to: care, reidentify: [email],")
    (exchange,) = traffic(opening, [("/customers", PAGE, "clerk-1")])
    came = [msgspec.structs.replace(exchange, reidentified={"email": 1})]
    assert not again(came, opening.replace("version: 1", "version: 2")).changes
    assert [(c.after, c.tag) for c in again(came, BASE).changes] == [("token not accepted", "email")]


def test_plain_ids_that_may_be_refused_are_left_out_and_said():
    """Whether a caller sent tokens is not recorded, so what `only_tokens` would refuse can't be told."""
    exchanges = traffic(BASE, [("/customers", PAGE, "clerk-1")])
    found = again(exchanges, BASE + "never: [{ never: no-guessing, only_tokens: person }]\n")
    assert any("plain ids" in what for what in found.left_out)


def test_json_in_strings_that_was_not_opened_is_unknown():
    """A string that holds JSON may show more or less once it is opened; a plain string next to it is known."""
    body = {"text": json.dumps({"email": "a"}), "more": "plain"}
    exchanges = traffic(BASE, [("/customers", body, "clerk-1")])
    found = again(exchanges, BASE.replace("grants:", "json_in_strings: 1\ngrants:"))
    assert [(c.way, c.place) for c in found.changes] == [("unknown", "$.text")]
    assert found.total("same") == 1
