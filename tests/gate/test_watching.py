"""The watch in the gate: too much has a consequence for whoever did it, on the very next call, and for nobody else."""

from __future__ import annotations

import json

import pytest
from support.gate_world import Answer, World, refused

from gharial.gate.outcome import BodyMode
from gharial.model.errors import PolicyInvalid
from gharial.policy.document import parse_policy

WATCH = """\
watch:
  harvest: {{ people_per: client, over: 1h, above: 20, do: [alert, {measure}] }}
  sweep:   {{ ids_in_order: 10/min, do: [alert, throttle] }}
  decoy:   {{ ids: 'file:decoys.txt', do: ['alert:critical', 'block:1h'] }}
"""
POLICY = (
    """\
policy: customer-data
version: 3
mode: {mode}
tags:
  person: {{ find: ['$..customerId', 'path:id'], subject: customer }}
  name:   {{ find: '$..fullName' }}
  public: {{ find: '$..plan' }}
who:
  anyone:  {{}}
  care:    {{ role: care }}
  partner: {{ role: partner }}
grants:
  - {{ grant: basics, to: anyone, show: {{ person: token, public: clear }} }}
  - {{ grant: desk, to: [care, partner], show: {{ person: clear, name: clear }}, reidentify: [person] }}
"""
    + WATCH
)


def a_world(measure: str = "mask", mode: str = "enforce") -> World:
    world = World(POLICY.format(measure=measure, mode=mode))
    world.decoys["file:decoys.txt"] = ["666"]
    return world


def record(number: int) -> dict[str, object]:
    return {"customerId": number, "fullName": f"Planted {number}", "plan": "gold"}


async def look_at(world: World, number: int, as_: str = "clerk-1"):
    """One clerk opens one record by its token or number."""
    mode = BodyMode.BUFFERED
    return await world.call(f"/customers/{number}", record(number), as_=as_, mode=mode)


def scattered(count: int) -> list[int]:
    """Numbers in no order."""
    return [(number * number * 7_919) % 100_003 + 1_000 for number in range(count)]


async def test_a_harvest_is_masked_from_the_next_call_on():
    """Twenty people in clear, and the twenty-first; after that nothing clear but what everybody may see."""
    world = a_world()
    seen = [await look_at(world, number) for number in scattered(40)]
    clear = [b"Planted" in one.body.body for one in seen]
    assert clear.index(False) == 21
    assert not any(clear[21:])
    last = json.loads(seen[-1].body.body)
    assert (last["plan"], last["fullName"]) == ("gold", "***")
    assert last["customerId"] == "***"


async def test_honest_callers_go_on():
    """What is done to one client touches no other."""
    world = a_world()
    for number in scattered(40):
        await look_at(world, number)
    other = await look_at(world, 4_711, as_="clerk-2")
    assert b"Planted" in other.body.body


async def test_it_ends_by_itself_and_by_undo():
    """An operator's word ends it at once; else an hour does, and the people of an hour ago count no more."""
    world = a_world()
    for number in scattered(40):
        await look_at(world, number)
    (record_of, _), *_ = world.services.incidents.flush(world.clock.now_s())
    assert (record_of.detector, record_of.measure, record_of.client) == ("harvest", "mask", "clerk-1")
    assert [m.name for m in world.services.watching.undo(record_of.incident_id)] == ["mask"]
    # The people are still too many, so it begins anew with the call that shows it.
    assert b"Planted" in (await look_at(world, 99_000)).body.body
    assert b"Planted" not in (await look_at(world, 99_001)).body.body
    world.clock.at_s += 3 * 3_600
    assert b"Planted" in (await look_at(world, 99_002)).body.body


async def test_a_block_refuses_before_the_upstream_is_asked():
    """A blocked caller's request goes nowhere."""
    world = a_world("block")
    for number in scattered(21):
        await look_at(world, number)
    seen = await look_at(world, 1)
    assert refused(seen) == "measure.blocked"
    assert seen.request is None


async def test_one_decoy_blocks():
    """Whoever asks for an id of nobody is blocked from the next call on, and a critical alarm waits."""
    world = a_world()
    await look_at(world, 666)
    assert refused(await look_at(world, 4_711)) == "measure.blocked"
    found = world.services.incidents.flush(world.clock.now_s())
    (alarm,) = [json.loads(alarm) for _, alarm in found if alarm is not None]
    assert (alarm["severity"], alarm["detector"]) == ("critical", "decoy")
    assert "666" not in json.dumps(alarm)


async def test_ids_in_order_are_throttled():
    """A sweep is slowed down, whatever it finds, also nothing."""
    world = a_world()
    codes = []
    for number in range(100, 140):
        seen = await world.call(f"/customers/{number}", {"error": "none"}, as_="clerk-1")
        codes.append(seen.code if seen.refusal is not None else "")
        world.clock.at_s += 0.1
    assert codes.index("measure.throttled") <= 18
    assert codes[-1] == "measure.throttled"


async def test_foreign_tokens_open_an_incident():
    """A token of another client is refused, and told."""
    world = a_world()
    token = json.loads((await world.call("/customers/7", record(7))).body.body)["customerId"]
    assert refused(await world.call(f"/customers/{token}", record(7), as_="clerk-1")) == "token.refused"
    found = [one.detector for one, _ in world.services.incidents.flush(world.clock.now_s())]
    assert found == ["foreign-token"]


async def test_shadow_tells_and_does_nothing():
    """On a route in shadow the watch tells what it would have done."""
    world = a_world(mode="shadow")
    for number in scattered(40):
        seen = await look_at(world, number)
    assert seen.body.body is None
    found = {one.detector: one.measure for one, _ in world.services.incidents.flush(world.clock.now_s())}
    assert found == {"harvest": "would mask"}
    assert world.services.watching.measures.active(world.clock.now_s()) == ()


async def test_an_unchanged_watch_goes_on_after_publishing():
    """A new version of the policy does not let a harvest begin anew."""
    world = a_world()
    for number in scattered(15):
        await look_at(world, number)
    newer = parse_policy(POLICY.format(measure="mask", mode="enforce").replace("version: 3", "version: 4"), "p.yaml")
    world.services.publisher.publish({newer.name: newer})
    clear = [b"Planted" in (await look_at(world, 200_000 + 31 * number)).body.body for number in range(10)]
    assert clear.index(False) == 6


def test_decoys_that_can_not_be_read_are_a_mistake():
    """A policy whose decoys are missing is not published."""
    world = a_world()
    world.decoys.clear()
    policy = parse_policy(POLICY.format(measure="mask", mode="enforce"), "p.yaml")
    with pytest.raises(PolicyInvalid, match=r"p\.yaml:18:3: the decoys of 'decoy' can't be read"):
        world.services.watching.check({policy.name: policy})


async def test_what_everybody_may_see_is_no_harvest():
    """People of whom only such values are clear are not counted, whoever asks."""
    world = a_world("block")
    page = [{"customerId": number, "plan": "gold"} for number in range(60)]
    for _ in range(3):
        seen = await world.call("/customers", page)
        assert seen.refusal is None
    assert world.services.incidents.flush(world.clock.now_s()) == ()


async def test_nothing_is_done_to_all_who_have_no_credential():
    """One of them asks for a decoy: that is told, and the others are answered as before."""
    world = a_world()
    await world.call("/customers/666", record(666))
    (found, _), *_ = world.services.incidents.flush(world.clock.now_s())
    assert (found.detector, found.measure) == ("decoy", "")
    assert (await world.call("/customers/7", record(7))).refusal is None


async def test_an_undo_teaches_what_is_usual():
    """What somebody called honest is not too much again the day after, and many times that still is."""
    text = POLICY.format(measure="mask", mode="enforce").replace("above: 20", "above: 6x_baseline, floor: 20")
    world = World(text)
    world.decoys["file:decoys.txt"] = []
    for number in scattered(25):
        await look_at(world, number)
    (found, _), *_ = world.services.incidents.flush(world.clock.now_s())
    world.services.watching.undo(found.incident_id)
    clear = [b"Planted" in (await look_at(world, number)).body.body for number in scattered(200)[50:]]
    assert clear[:90] == [True] * 90
    assert not clear[-1]


async def test_shadow_learns():
    """On a route in shadow everything is learned: what is usual is known when it becomes enforced."""
    text = POLICY.format(measure="mask", mode="shadow").replace("above: 20", "above: 6x_baseline, floor: 20")
    world = World(text)
    world.decoys["file:decoys.txt"] = []
    for hour in range(9):
        for number in range(30):
            await look_at(world, 1_000 * hour + 7 * number)
        world.clock.at_s += 3_600
    enforced = parse_policy(text.replace("mode: shadow", "mode: enforce").replace("version: 3", "version: 4"), "p.yaml")
    detectors = world.services.watching.detectors_of(enforced)
    ((_, counter),) = detectors.harvests["harvest"]._counters.items()
    assert counter.baseline.usual == 30


async def test_records_without_an_id_are_people_too():
    """A page whose records name nobody is as many people as it has records; the envelope around known ones is none."""
    world = a_world("block")
    page = [{"fullName": f"Planted {number}"} for number in range(12)]
    codes = [(await world.call("/customers", page, as_="clerk-1")).code for _ in range(3)]
    assert codes[-1] == "measure.blocked"
    world = a_world("block")
    for _ in range(40):
        seen = await world.call("/customers", {"fullName": "Planted", "data": [record(7)]}, as_="clerk-1")
    assert seen.refusal is None


async def test_ids_in_a_location_are_counted():
    """Redirects that lead to one person after the other are a harvest as pages are."""
    world = a_world("block")
    for number in scattered(30):
        to = (("location", f"/customers/{number}"),)
        seen = await world.call("/customers", Answer(b"", 302, to, has_body=False), as_="clerk-1")
        if seen.code:
            break
    assert refused(seen) == "measure.blocked"
