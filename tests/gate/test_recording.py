"""A recording tells the shape of an exchange, what decided and what was done; never a value."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.gate_world import Answer, FakeConsent, World
from support.recordings import recorded

from gharial.gate.outcome import BodyMode
from gharial.model.errors import MediaUnreadable
from gharial.model.recording import MAX_PLACES, JsonType, RecordedExchange
from gharial.policy.document import parse_policy
from gharial.policy.replay import replay
from gharial.wiring.recordings import FileRecordings

POLICY = """
policy: customer-data
version: 7
mode: enforce
tags:
  person:  { find: ['$..customerId', 'path:id'], subject: customer }
  home:    { find: '$..country', fact: residency }
  tier:    { find: '$..tier', fact: tier }
  name:    { find: '$..fullName' }
  email:   { find: '$..email' }
  public:  { find: '$..plan' }
who:
  anyone: {}
  care: { role: care }
grants:
  - { grant: basics, to: anyone, show: { person: token, public: clear, home: clear, tier: mask } }
  - { grant: support-view, to: care, for: [support], show: { person: clear, name: clear, email: mask(keep=domain) },
      budget: { people: 2/h, then: mask } }
  - { grant: gold, to: care, needs: { subject.tier: gold, subject.consent: sharing }, show: { email: clear } }
never:
  - { never: eu-stays, tag: name, when: { subject.residency: EU }, at_least: redact }
"""

ROW = {
    "customerId": 1,
    "fullName": "Ann",
    "email": "ann@ex.org",
    "country": "DE",
    "tier": "gold",
    "plan": "x",
    "age": 7,
}


async def one(world: World, target: str, answer: Any, **how: Any) -> RecordedExchange:
    recorder = recorded(world)
    await world.call(target, answer, **how)
    (found,) = recorder.exchanges
    return found


def shown(found: RecordedExchange) -> dict[str, tuple[str, str, str]]:
    return {p.path: (s.tag, s.technique, s.rule) for p in found.places for s in [found.shown[p.shown]]}


async def test_places_types_tags_techniques_and_rules():
    """What was done with each leaf is told where it was done, what no tag names as well."""
    found = await one(World(POLICY), "/customers/1", ROW, as_="clerk-1")
    assert shown(found) == {
        "$.customerId": ("person", "clear", "grant:support-view"),
        "$.fullName": ("name", "redact", "never:eu-stays"),
        "$.email": ("email", "mask(keep=domain)", "grant:support-view"),
        "$.country": ("home", "clear", "grant:basics"),
        "$.tier": ("tier", "mask", "grant:basics"),
        "$.plan": ("public", "clear", "grant:basics"),
        "$.age": ("", "drop", "unlisted"),
    }
    assert [p.type for p in found.places] == [JsonType.NUMBER, *[JsonType.STRING] * 5, JsonType.NUMBER]
    assert found.places[2].detectors == ("email",)


async def test_the_callers_facts_and_what_applied():
    """Everything on which the decision stood is there."""
    found = await one(World(POLICY), "/customers/1", ROW, as_="clerk-1")
    assert (found.caller.client, found.caller.roles, found.caller.purpose) == ("clerk-1", ("care",), "support")
    assert (found.grants, found.guardrails) == (("basics", "gold", "support-view"), ("eu-stays",))
    assert (found.policy, found.version, found.mode, found.route) == ("customer-data", 7, "enforce", "customer")
    assert found.outcome == "forward"


async def test_people_are_digests_and_their_facts_are_what_decides():
    """One person, in path and body alike, has one digest; a country and a value that the policy names are told."""
    world = World(POLICY)
    world.consent = FakeConsent({("customer", "1"): frozenset({"sharing"})})
    world.services = replace(world.services, consent=world.consent)
    found = await one(world, "/customers/1", ROW, as_="clerk-1")
    (param,), (scope,) = found.params, found.scopes
    assert scope.people == (param.digest,)
    assert scope.facts == {"residency": ("DE",), "tier": ("gold",)}
    assert found.consent == {param.digest: ("sharing",)}
    assert found.fact_values == {"residency": (), "tier": ("gold",)}
    assert dict(found.subjects) == {0: "customer"}
    assert dict(found.facts) == {3: "residency", 4: "tier"}


async def test_a_fact_that_the_policy_does_not_name_is_not_told():
    """A mistyped tag would make a fact of anything; only known values leave."""
    found = await one(World(POLICY), "/customers/1", {**ROW, "country": "Germany", "tier": "ann@ex.org"}, as_="clerk-1")
    assert found.scopes[0].facts == {"residency": ("*",), "tier": ("*",)}


async def test_facts_are_told_even_where_no_condition_asks_for_them():
    """Another policy may ask: a caller without conditions is recorded with the facts all the same."""
    found = await one(World(POLICY), "/customers/1", ROW)
    assert found.scopes[0].facts["residency"] == ("DE",)
    assert found.consent is None


async def test_budgets_crossed_and_charged_are_told_by_record():
    """The third person of a budget of two is beyond it; a list belongs to its records."""
    rows = [{"customerId": n, "fullName": "x"} for n in range(3)]
    found = await one(World(POLICY), "/customers", {"rows": rows}, as_="clerk-1")
    key = ("support-view", 3600)
    assert [scope.crossed for scope in found.scopes] == [(), (), (key,)]
    assert [scope.charged for scope in found.scopes] == [(key,), (key,), ()]
    assert found.budgets == (("support-view", 3600, 2),)


async def test_people_of_the_query_are_told_as_those_of_the_path_are():
    """By a digest, under the place that names them; a record without an id is theirs, also when it is replayed."""
    asking = POLICY.replace("'path:id'", "'path:id', 'query:id'")
    found = await one(World(asking), "/customers?id=4711&id=4712&x=secret", {"email": "a@ex.org"}, as_="clerk-1")
    assert [(param.name, param.subject) for param in found.params] == [("query:id", "customer")] * 2
    (scope,) = found.scopes
    assert scope.people == tuple(param.digest for param in found.params)
    assert "471" not in repr(found)
    other = asking.replace("version: 7", "version: 8").replace("mask(keep=domain)", "redact")
    again = replay(lambda: [found], parse_policy(other, "p"))
    assert (len(again.changes), again.total("stricter"), again.total("unknown")) == (1, 1, 0)


async def test_gzip_shadow_and_pieces_are_recorded_as_well():
    """Whichever way a body comes, its shape is told."""
    packed = Answer(gzip.compress(json.dumps(ROW).encode()), headers=(
        ("content-type", "application/json"), ("content-encoding", "gzip")))  # fmt: skip
    assert len((await one(World(POLICY), "/customers/1", packed, as_="clerk-1")).places) == 7
    shadow = World(POLICY.replace("enforce", "shadow"))
    found = await one(shadow, "/customers/1", ROW, as_="clerk-1", mode=BodyMode.STREAMED)
    assert (found.mode, found.outcome, len(found.places)) == ("shadow", "shadow", 7)


async def test_refusals_are_recorded_with_their_code_and_nothing_of_the_body():
    """A body that can't be read leaves only the code."""
    found = await one(World(POLICY), "/customers/1", Answer(b'{"email":"ann@ex.org"'), as_="clerk-1")
    assert (found.outcome, found.error, found.places) == ("refuse", "body.malformed", ())


async def test_xml_is_not_recorded_and_counted_as_lost():
    """Recordings know JSON alone: an answer in XML leaves no line, and harms nobody."""
    world = World(POLICY.replace("find: '$..plan'", "find: ['$..plan', '//plan']"))
    recorder = recorded(world)
    seen = await world.call("/customers/1", Answer(b"<a><plan>x</plan></a>", headers=(("content-type", "text/xml"),)))
    assert seen.body is not None
    assert (recorder.lines, recorder.lost) == ([], 1)


async def test_passing_routes_and_unknown_callers_are_not_recorded():
    """What no policy covers has nothing to replay; a forged credential tells no facts."""
    world = World(POLICY)
    recorder = recorded(world)
    await world.call("/health", {"a": 1})
    await world.call("/customers/1", ROW, headers=[("x-api-key", "gk_forged")])
    assert recorder.lines == []


async def test_many_places_are_cut():
    """2,000 places are kept, and it is said that there were more."""
    found = await one(
        World(POLICY), "/customers", {"rows": [{"plan": n} for n in range(MAX_PLACES + 5)]}, as_="clerk-1"
    )
    assert (len(found.places), found.cut) == (MAX_PLACES, True)


def _planted(number: int) -> dict[str, Any]:
    """A record with six values (and keys) that are known; each holds `q` and five or more digits of its own."""
    return {
        "customerId": f"q{number:06d}c",
        "fullName": f'Name q{number:06d}n " \\ é',
        "email": f"q{number:06d}@ex.org",
        "tier": f"q{number:06d}t",
        "country": f"q{number:06d}l",
        "plan": 7_000_000_000 + number,
        f"q{number:06d}k@ex.org": {"deep": [f"q{number:06d}d"]},
        "text": json.dumps({"inner": f"q{number:06d}j", f"q{number:06d}x": 1}),
    }


async def test_no_value_of_three_thousand_is_in_the_file(tmp_path: Path):
    """Values of every place, keys that are data, ids in paths, queries and headers: none is in the recording."""
    for policy in (POLICY, POLICY.replace("tags:", "json_in_strings: 2\ntags:", 1)):
        world = World(policy)
        recordings = FileRecordings(world.services)
        path = tmp_path / f"{len(policy)}.jsonl"
        recordings.start(path, 3600, 10_000, 10**9, frozenset())
        for number in range(250):
            body = {"rows": [_planted(2 * number), _planted(2 * number + 1)]}
            as_ = ("clerk-1", "acme-billing", "")[number % 3]
            target = f"/customers/q{number:06d}p?email=q{number:06d}@ex.org"
            await world.call(target, body, as_=as_, headers=[("x-trace", f"q{number:06d}h")])
        recordings.stop()
        text = path.read_text()
        assert recordings.status()["exchanges"] == 250
        assert recordings.status()["lost"] == 0
        assert len(text.splitlines()) == 250
        assert re.findall(r"q[0-9]{6}|70000[0-9]{5}|Zeno|@", text) == []
        assert path.stat().st_mode & 0o777 == 0o600


async def test_an_exchange_whose_body_has_rows_is_not_recorded():
    """Its places would be read as those of a list; the recorder's file counts it as lost, and nothing is kept of it."""
    sightings = []
    world = World(POLICY)
    recorder = recorded(world)
    recorder.take = sightings.append  # type: ignore[method-assign]
    for kind, body in (("application/x-ndjson", json.dumps(ROW).encode()), ("text/csv", b"email\nann@ex.org\n")):
        await world.call("/customers/1", Answer(body, headers=(("content-type", kind),)), as_="clerk-1")
        with pytest.raises(MediaUnreadable):
            recorder._describer.describe(sightings.pop())
