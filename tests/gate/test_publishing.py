"""Publishing: all or nothing, remembered, and never half old."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gate_world import POLICY, World

from gharial.crypto.keyset import create_keyset
from gharial.gate.outcome import BodyMode, ForwardBody, RequestHead, ResponseHead
from gharial.gate.publishing import QUIET_ROUNDS, PolicyText, Publishing, Readiness
from gharial.gate.routes import RouteKind
from gharial.model.errors import (
    NotFound,
    PolicyInvalid,
    PolicyModeChanged,
    PolicyTestsFailed,
    ProxyNotChanged,
    StoreUnwritable,
)
from gharial.policy.document import parse_policy

ANN = {"customerId": "42", "fullName": "Ann Lee", "plan": "gold"}
OPENER = POLICY.replace("version: 7", "version: 8").replace(
    "{ grant: basics, to: anyone, show: { person: token, public: clear } }",
    "{ grant: basics, to: anyone, show: { person: token, public: clear, name: clear } }",
)


SHADOW = POLICY.replace("mode: enforce", "mode: shadow")


class FakeProxy:
    """A proxy that follows when a test lets it; `told` is by route what it was told, the last at the end."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, RouteKind]] = []
        self.reads: list[Collection[str]] = []
        self.asked = asyncio.Event()
        self.follows = asyncio.Event()
        self.error: Exception | None = None

    def tell(self, kinds: Mapping[str, RouteKind], reads: Collection[str]) -> None:
        self.told.append(kinds)
        self.reads.append(reads)

    async def until_taken(self) -> None:
        self.asked.set()
        if self.error is not None:
            raise self.error
        await self.follows.wait()


def text(policy: str = POLICY) -> list[PolicyText]:
    return [PolicyText("policy.yaml", policy)]


def publishing(world: World, failing: tuple[str, ...] = (), **more: Any) -> tuple[Publishing, Readiness]:
    readiness = Readiness()
    services = world.services
    made = Publishing(
        services.publisher, services.routes, world.store, world.clock, lambda p, r: failing, readiness, **more
    )
    return made, readiness


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


# --- a mode that changes ----------------------------------------------------------------------------------------------


async def under_way(before: str, after: str, **more: Any) -> tuple[World, FakeProxy, asyncio.Task[list[str]]]:
    """A world in which `after` is being published over `before`, and the proxy has not followed yet."""
    world, proxy = World(before), FakeProxy()
    publish, _ = publishing(world, proxy=proxy, **{"quiet_s": 0, **more})
    await publish.remember_start(text(before))
    task = asyncio.create_task(publish.publish(text(after)))
    asked = asyncio.create_task(proxy.asked.wait())
    await asyncio.wait([task, asked], return_when=asyncio.FIRST_COMPLETED)
    assert not task.done(), task.exception()
    return world, proxy, task


async def mode_of(world: World, announced: BodyMode) -> str:
    """In which mode a call is decided whose body travels so; a refusal's code if it is refused."""
    seen = await world.call("/customers/42", ANN, mode=announced)
    return seen.code or seen.set["gharial-policy"].partition("mode=")[2]


async def test_while_the_proxy_follows_each_call_is_decided_by_the_mode_it_came_in():
    """Enforced where the body is held back, in shadow where it is not, whichever of both is new; then by one alone."""
    for before, after in ((SHADOW, POLICY), (POLICY, SHADOW)):
        world, proxy, task = await under_way(before, after)
        assert await mode_of(world, BodyMode.BUFFERED) == "enforce"
        assert await mode_of(world, BodyMode.STREAMED) == "shadow"
        assert await mode_of(world, BodyMode.NONE) == "gate.protocol"
        proxy.follows.set()
        assert await task == ["customer-data"]
        kind = RouteKind.SHADOW if after is SHADOW else RouteKind.PROTECT
        assert proxy.told == [{"customer": kind, "list": kind, "account": kind, "health": RouteKind.PASS}]
        # What still comes late is never shown: in shadow a body that is held back may be, too.
        late = BodyMode.STREAMED if after is POLICY else BodyMode.BUFFERED
        assert await mode_of(world, late) == ("gate.protocol" if after is POLICY else "shadow")
        assert world.services.publisher.next is None


async def test_a_call_keeps_the_set_that_its_mode_chose():
    """Begun with the next set while the proxy followed, a call ends with it, whatever becomes of that set."""
    world, proxy, task = await under_way(SHADOW, OPENER)
    exchange = world.exchange()
    await exchange.on_request(RequestHead("GET", "/customers/42", "g", "http", (), "", BodyMode.BUFFERED))
    task.cancel()
    await asyncio.wait([task])
    assert world.services.publisher.next is None
    head = await exchange.on_response(ResponseHead(200, (("content-type", "application/json"),), from_upstream=True))
    body = await exchange.on_body(b'{"accountNumber":"4711"}')
    assert "version=8" in dict(head.set_headers)["gharial-policy"]
    assert isinstance(body, ForwardBody)
    assert b"4711" not in body.body
    assert proxy.told[-1]["customer"] is RouteKind.SHADOW


async def test_a_route_whose_mode_stays_keeps_to_the_active_set_until_the_swap():
    """The held set serves only the routes that it is held for."""
    world, proxy, task = await under_way(SHADOW, POLICY)
    active = world.services.publisher.active
    rules = {rule.name: rule for rule in world.services.routes.rules}
    assert world.services.publisher.begin(rules["health"], BodyMode.NONE) is active
    assert world.services.publisher.begin(rules["customer"], BodyMode.BUFFERED) is not active
    proxy.follows.set()
    await task


async def test_rolling_back_does_not_lead_to_what_was_withdrawn():
    """It never was active: the text before the active one is meant, as if nobody had tried."""
    world, proxy = World(POLICY), FakeProxy()
    publish, _ = publishing(world, proxy=proxy, quiet_s=0)
    await publish.remember_start(text(POLICY))
    await publish.publish(text(OPENER))
    proxy.error = ProxyNotChanged("no")
    for _ in range(2):
        with pytest.raises(ProxyNotChanged):
            await publish.publish(text(SHADOW))
        assert (await publish.rollback_text("customer-data", None)).text == POLICY
    assert [r.action for r in await publish.history()] == ["withdraw", "publish"] * 2 + ["publish", "start"]
    assert (await publish.rollback_text("customer-data", 3)).text == SHADOW


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["prepare", "promote", "withdraw", *BodyMode]), max_size=12), enforced=st.booleans()
)
async def test_no_body_that_is_not_held_back_passes_without_a_set_that_says_shadow(steps, enforced):
    """Whatever is held, promoted or withdrawn in which order: a call that is not refused is decided by a set that is
    active or held, and enforced unless that set says shadow."""
    world = World(POLICY if enforced else SHADOW)
    publisher = world.services.publisher
    for step in steps:
        sets = [publisher.active, *([publisher.next.policies] if publisher.next else [])]
        modes = {held.policies["customer-data"].mode.value for held in sets}
        if step == "prepare":
            other = SHADOW if "enforce" in {p.mode.value for p in publisher.active.policies.values()} else POLICY
            publisher.prepare({"customer-data": parse_policy(other, "policy.yaml")})
        elif step == "withdraw":
            publisher.withdraw()
        elif step == "promote":
            if publisher.next is not None:
                publisher.promote()
        else:
            seen = await mode_of(world, step)
            assert seen in {"gate.protocol", *modes}
            assert seen != "enforce" or step is BodyMode.BUFFERED
            assert seen != "gate.protocol" or step is not BodyMode.BUFFERED


@pytest.mark.parametrize("error", [ProxyNotChanged("no"), RuntimeError("a bug")])
async def test_a_proxy_that_does_not_follow_leaves_the_old_policies_active(error):
    """The proxy is told the old modes again, what fits only the new ones is refused at once, the history tells both."""
    world, proxy = World(POLICY), FakeProxy()
    proxy.error = error
    publish, readiness = publishing(world, proxy=proxy, quiet_s=0)
    await publish.remember_start(text(POLICY))
    with pytest.raises(type(error)):
        await publish.publish(text(SHADOW))
    assert [told["customer"] for told in proxy.told] == [RouteKind.SHADOW, RouteKind.PROTECT]
    assert await mode_of(world, BodyMode.STREAMED) == "gate.protocol"
    assert await mode_of(world, BodyMode.BUFFERED) == "enforce"
    assert [r.action for r in await publish.history()] == ["withdraw", "publish", "start"]
    assert bool(readiness.problems) is isinstance(error, ProxyNotChanged)


async def test_a_proxy_that_cant_be_told_leaves_the_old_policies_active():
    """What can't be written for it is not waited for; the error is the one of the telling."""

    class Deaf(FakeProxy):
        def tell(self, kinds: Mapping[str, RouteKind], reads: Collection[str]) -> None:
            raise ProxyNotChanged("can't be written")

    world = World(POLICY)
    publish, readiness = publishing(world, proxy=Deaf(), quiet_s=0)
    await publish.remember_start(text(POLICY))
    with pytest.raises(ProxyNotChanged, match="can't be written"):
        await publish.publish(text(SHADOW))
    assert await mode_of(world, BodyMode.STREAMED) == "gate.protocol"
    assert readiness.problems == ("can't be written",)


async def test_a_mode_that_cant_be_kept_for_a_restart_does_not_become_active():
    """A gate that is started anew would begin with the old policies: so they stay, and the proxy is told so."""

    def broken(_: object) -> None:
        raise StoreUnwritable("not available")

    world, proxy, task = await under_way(SHADOW, POLICY, keep=broken)
    proxy.follows.set()
    with pytest.raises(StoreUnwritable):
        await task
    assert [told["customer"] for told in proxy.told] == [RouteKind.PROTECT, RouteKind.SHADOW]
    assert await mode_of(world, BodyMode.STREAMED) == "shadow"


async def test_what_is_kept_for_a_restart_is_kept_only_after_the_proxy_has_followed():
    """A gate that dies before that must not begin with what nobody was told to be active."""
    kept: list[object] = []
    world, proxy, task = await under_way(POLICY, SHADOW, keep=kept.append)
    assert (kept, len(world.store.publications)) == ([], 2)
    proxy.follows.set()
    await task
    assert kept == [text(SHADOW)]


async def test_calls_that_come_late_put_the_swap_off_and_not_for_ever():
    """As long as calls come in a mode of before, they are served so; after some rounds the rest is refused."""
    quiet_s = 0.005
    world, proxy, task = await under_way(SHADOW, POLICY, quiet_s=quiet_s)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    proxy.follows.set()
    seen = "shadow"
    while seen == "shadow":
        await asyncio.sleep(0)
        seen = await mode_of(world, BodyMode.STREAMED)
    assert seen == "gate.protocol"
    assert await task == ["customer-data"]
    assert loop.time() - began_s >= 0.9 * quiet_s * QUIET_ROUNDS


async def test_a_mode_that_stays_is_no_matter_of_the_proxy():
    """It is not told, nor waited for."""
    world, proxy = World(), FakeProxy()
    publish, _ = publishing(world, proxy=proxy)
    assert await publish.publish(text(OPENER)) == ["customer-data"]
    assert proxy.told == []


async def test_a_keyset_that_is_renewed_meanwhile_is_the_held_sets_too():
    """Keys may change while the proxy follows; the set that becomes active then has the new ones."""
    world, proxy, task = await under_way(SHADOW, POLICY)
    publisher = world.services.publisher
    fresh = create_keyset(lambda size: b"\x29" * size, world.clock.now_s())
    publisher.renew(fresh)
    proxy.follows.set()
    await task
    assert publisher.keyset is fresh
    assert await mode_of(world, BodyMode.BUFFERED) == "enforce"


DEAF = (
    POLICY.replace("reidentify: [account, person]", "reidentify: []")
    .replace("reidentify: [person, account]", "")
    .replace("reidentify: [],", "")
    .replace("show: { account: token },  }", "show: { account: token } }")
)
"""A policy for which no request's body is read."""


async def test_without_a_proxy_to_tell_a_policy_cant_begin_to_read_bodies():
    """It is refused, unless the proxy was started to hand them over; a policy that stops reading is fine."""
    world = World(DEAF)
    publish, _ = publishing(world)
    with pytest.raises(PolicyModeChanged, match="bodies of requests"):
        await publish.publish(text())
    reading = World(DEAF, reads_requests=True)
    publish, _ = publishing(reading)
    assert await publish.publish(text()) == ["customer-data"]
    assert await publish.publish(text(DEAF)) == ["customer-data"]


async def test_a_policy_that_begins_to_read_bodies_waits_for_the_proxy():
    """Until it follows each call is decided by whether its body is handed over; then by the new policy alone."""

    async def version(request_mode: BodyMode) -> str:
        seen = await world.call(
            "/customers/42", ANN, method="POST", body=b"{}", request_mode=request_mode, as_="acme-billing"
        )
        return seen.code or str(seen.set["gharial-policy"]).partition(";")[0]

    world, proxy, task = await under_way(DEAF.replace("version: 7", "version: 6"), POLICY)
    before, after = await version(BodyMode.NONE), await version(BodyMode.BUFFERED)
    assert before != after
    assert "gate." not in before + after
    proxy.follows.set()
    assert await task == ["customer-data"]
    assert proxy.reads == [frozenset({"customer", "list", "account"})]
    assert await version(BodyMode.BUFFERED) == after
    # What still comes without its body is not guessed at.
    assert await version(BodyMode.NONE) == "gate.protocol"


async def test_a_proxy_that_does_not_begin_to_hand_over_bodies_leaves_the_old_policy_active():
    """It is told to go back, and calls are decided as before."""
    world, proxy, task = await under_way(DEAF.replace("version: 7", "version: 6"), POLICY)
    task.cancel()
    await asyncio.wait([task])
    assert proxy.reads[-1] == frozenset()
    seen = await world.call("/customers/42", ANN)
    assert "version=6" in seen.set["gharial-policy"]


async def test_a_candidate_may_not_begin_to_read_bodies():
    """A part of the callers can't be served so: the proxy knows one mode per route."""
    publish, _ = publishing(World(DEAF), proxy=FakeProxy())
    with pytest.raises(PolicyModeChanged, match="publish it as a whole"):
        await publish.try_out(text(), 10, frozenset())
