"""Publishing: all or nothing, remembered, and never half old."""

from __future__ import annotations

import pytest
from support.gate_world import POLICY, World

from gharial.gate.outcome import BodyMode, ForwardBody, RequestHead, ResponseHead
from gharial.gate.publishing import PolicyText, Publishing, Readiness
from gharial.model.errors import NotFound, PolicyInvalid, PolicyModeChanged, PolicyTestsFailed

ANN = {"customerId": "42", "fullName": "Ann Lee", "plan": "gold"}
OPENER = POLICY.replace("version: 7", "version: 8").replace(
    "{ grant: basics, to: anyone, show: { person: token, public: clear } }",
    "{ grant: basics, to: anyone, show: { person: token, public: clear, name: clear } }",
)


def text(policy: str = POLICY) -> list[PolicyText]:
    return [PolicyText("policy.yaml", policy)]


def publishing(world: World, failing: tuple[str, ...] = ()) -> tuple[Publishing, Readiness]:
    readiness = Readiness()
    services = world.services
    return (
        Publishing(services.publisher, services.routes, world.store, world.clock, lambda p, r: failing, readiness),
        readiness,
    )


async def test_a_published_policy_decides_the_next_call():
    """What was withheld under the old policy is shown under the new one, from the next call on."""
    world = World()
    publish, readiness = publishing(world)
    assert (await world.call("/customers/42", ANN)).json["fullName"] == "[redacted]"
    assert await publish.publish(text(OPENER)) == ["customer-data"]
    seen = await world.call("/customers/42", ANN)
    assert seen.json["fullName"] == "Ann Lee"
    assert "version=8" in seen.set["gharial-policy"]
    assert (readiness.published, readiness.problems) == (1, ())


async def test_a_running_exchange_ends_under_the_policy_it_began_with():
    """A publication in the middle of a call changes nothing of it: not its body, not the version it names."""
    world = World()
    publish, _ = publishing(world)
    exchange = world.exchange()
    await exchange.on_request(RequestHead("GET", "/customers/42", "g", "http", (), "", BodyMode.BUFFERED))
    await publish.publish(text(OPENER))
    head = await exchange.on_response(ResponseHead(200, (("content-type", "application/json"),), from_upstream=True))
    body = await exchange.on_body(b'{"fullName":"Ann Lee"}')
    assert "version=7" in dict(head.set_headers)["gharial-policy"]
    assert isinstance(body, ForwardBody)
    assert b"Ann" not in body.body


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        (POLICY.replace("show:", "shwo:"), PolicyInvalid),
        ("policy: other\nversion: 1\ntags: { a: { find: '$.a' } }\n", NotFound),
        (POLICY.replace("mode: enforce", "mode: shadow"), PolicyModeChanged),
    ],
)
async def test_a_bad_publication_leaves_the_old_policy_active(policy, error):
    """Whatever is wrong with it, what is active stays active, and readiness says so until one succeeds."""
    world = World()
    publish, readiness = publishing(world)
    with pytest.raises(error):
        await publish.publish(text(policy))
    assert (await world.call("/customers/42", ANN)).json["fullName"] == "[redacted]"
    assert readiness.problems
    assert readiness.rejected == 1
    await publish.publish(text(OPENER))
    assert readiness.problems == ()


async def test_failing_tests_keep_a_policy_out_unless_forced():
    """A policy whose own tests fail is published only by force, and the history tells that."""
    world = World()
    publish, _ = publishing(world, failing=("policy.yaml:30: expected masked, came clear",))
    with pytest.raises(PolicyTestsFailed, match="expected masked"):
        await publish.publish(text(OPENER))
    await publish.publish(text(OPENER), force=True)
    assert [(r.forced, r.failed_tests) for r in world.store.publications] == [(True, 1)]


async def test_a_history_that_cant_be_written_keeps_the_old_policy():
    """What can't be remembered does not become active."""
    world = World()
    publish, _ = publishing(world)
    world.store.broken = True
    with pytest.raises(Exception, match="not available"):
        await publish.publish(text(OPENER))
    world.store.broken = False
    assert (await world.call("/customers/42", ANN)).json["fullName"] == "[redacted]"


async def test_the_history_leads_back():
    """Rolling back finds the text before the active one, or the one of a number; the same text is stored once."""
    world = World()
    publish, _ = publishing(world)
    await publish.publish(text(POLICY), action="start")
    await publish.publish(text(OPENER))
    await publish.publish(text(OPENER))
    assert [r.number for r in await publish.history()] == [2, 1]
    assert (await publish.rollback_text("customer-data", None)).version == 7
    assert (await publish.rollback_text("customer-data", 2)).version == 8
    with pytest.raises(NotFound):
        await publish.rollback_text("customer-data", 99)


async def test_a_canary_serves_the_same_callers_always():
    """A caller is in the part or out of it, on every call; nobody else sees the candidate, and ending it ends it."""
    world = World()
    publish, _ = publishing(world)
    await publish.try_out(text(OPENER), 50, frozenset())
    names = {}
    for client in ("", "clerk-2", "acme-billing", "acme-desk"):
        seen = {(await world.call("/customers/42", ANN, as_=client)).set["gharial-policy"] for _ in range(5)}
        assert len(seen) == 1
        names[client] = seen.pop()
    assert len(set(names.values())) == 2
    publish.end_canary()
    assert "version=7" in (await world.call("/customers/42", ANN, as_="acme-desk")).set["gharial-policy"]


async def test_a_canary_keeps_to_its_routes():
    """A candidate for one route leaves the others to the active policy."""
    world = World()
    publish, _ = publishing(world)
    await publish.try_out(text(OPENER), 100, frozenset({"list"}))
    assert "version=7" in (await world.call("/customers/42", ANN)).set["gharial-policy"]
    assert "version=8" in (await world.call("/customers", [ANN])).set["gharial-policy"]


@pytest.mark.parametrize(("percent", "routes"), [(0, frozenset()), (101, frozenset()), (10, frozenset({"nowhere"}))])
async def test_a_canary_that_cant_be_is_refused(percent, routes):
    """A share outside 1 to 100, or a route that is not there, starts nothing."""
    world = World()
    publish, _ = publishing(world)
    with pytest.raises(ValueError, match=r"canary|route"):
        await publish.try_out(text(OPENER), percent, routes)
    assert world.services.publisher.canary is None


async def test_a_selector_that_no_reader_can_run_is_found_before_a_call_is():
    """What the language accepts and the executor can't run is a mistake at publishing, not a refused call later."""
    world = World()
    publish, _ = publishing(world)
    odd = POLICY.replace("find: '$..plan'", "find: '$..[?match(@.a, \"x{,3}\")].plan'")
    with pytest.raises(PolicyInvalid):
        await publish.publish(text(odd))
