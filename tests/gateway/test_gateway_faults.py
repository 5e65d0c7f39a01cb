"""Parts that die, hang or are full, in the middle of calls: a clear error, never a clear value, and then it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from support.envoy_harness import Answer
from support.gateway import Api, Held, Home, a_gateway, customer, customer_id, people_in_clear, shows, until
from support.upstreams import Upstream, an_upstream, answer, json_answer

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.xdist_group("gateway-faults"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="counts processes by /proc"),
]

ONE = f"/customers/{customer_id(1)}"
MESSAGE_TIMEOUT_S = 10
CLEAR = json_answer(json.dumps(customer(1)))


@dataclass
class World:
    """A gateway that heals, so that the tests of this module share it."""

    home: Home
    api: Api
    upstream: Upstream
    auditor: str

    def hold(self, count: int, *, key: str = "") -> tuple[Held, list[asyncio.Task[Answer | None]]]:
        """Start so many calls that wait in the upstream."""
        held = self.api.answers["/any/held"] = Held(CLEAR)
        calls = [asyncio.create_task(self.home.ask_whatever_comes("/any/held", key=key)) for _ in range(count)]
        return held, calls


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_world() -> AsyncIterator[World]:
    api = Api()
    async with an_upstream(api) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        yield World(home, api, upstream, await home.add_client("auditor", roles=["auditor"]))


@pytest.fixture
def world(the_world: World) -> Iterator[World]:
    """The gateway; after the test no file of it may hold anything planted."""
    the_world.api.answers.clear()
    yield the_world
    the_world.home.look_for_leaks()


def unavailable(reply: Answer | None) -> None:
    """The answer is the problem that Envoy sends while the gate does not answer; it names nothing."""
    assert reply is not None
    assert (reply.status, reply.code) == (503, "gate.unavailable")
    assert set(reply.problem()) == {"type", "title", "status", "code"}
    assert not shows(reply)


async def works(home: Home) -> bool:
    """Whether a call comes through, protected; until then it is refused."""
    reply = await home.ask_whatever_comes(ONE)
    assert reply is None or not shows(reply)
    return reply is not None and reply.status == 200


async def test_while_the_gate_is_dead_every_call_is_refused_and_then_it_works_again(world: World):
    """kill -9 of the gate: 503 for all, on every kind of route, until it is restarted; status counts the restart."""
    home = world.home
    before, restarts = home.pid("gate"), home.parts()["gate"].restarts
    assert home.process is not None
    # While the supervisor sleeps nobody restarts the gate, so this state lasts as long as the test looks at it.
    home.process.send_signal(signal.SIGSTOP)
    try:
        os.kill(before, signal.SIGKILL)
        world.upstream.seen.clear()
        for target in (ONE, "/any/x", "/open/x"):
            for key in ("", world.auditor):
                unavailable(await home.get(target, key=key))
        assert world.upstream.seen == []
    finally:
        home.process.send_signal(signal.SIGCONT)
    assert (await home.restarted("gate", before)).restarts == restarts + 1
    assert await until(lambda: works(home))
    said = await home.cli("status", "--json")
    assert {part["name"]: part["restarts"] for part in said.json()["parts"]}["gate"] == restarts + 1
    assert people_in_clear((await home.get(ONE, key=world.auditor)).body) == {1}


@pytest.mark.parametrize("edit", ["shadow", "broken", "passing route", "gone"])
async def test_a_gate_started_anew_runs_by_what_was_active_not_by_what_was_edited(world: World, edit: str):
    """An edit that nobody published opens nothing and stops nothing when the gate dies."""
    home = world.home
    (policy,) = (home.base / "policies").glob("*.yaml")
    config = home.base / "gharial.yaml"
    written = {file: file.read_text() for file in (policy, config)}
    assert "mode: enforce" in written[policy]
    try:
        if edit == "shadow":
            policy.write_text(written[policy].replace("mode: enforce", "mode: shadow"))
        elif edit == "broken":
            policy.write_text("policy: [")
        elif edit == "gone":
            policy.unlink()
        else:
            settings = json.loads(written[config])
            for route in settings["routes"]:
                route.pop("policy", None)
                route["pass"] = True
            config.write_text(json.dumps(settings))
        before = home.pid("gate")
        os.kill(before, signal.SIGKILL)
        await home.restarted("gate", before)
        assert await until(lambda: works(home))
        answer = await home.get(ONE)
        assert answer.status == 200
        assert people_in_clear(answer.body) == set()
        assert people_in_clear((await home.get(ONE, key=world.auditor)).body) == {1}
    finally:
        for file, text in written.items():
            file.write_text(text)


async def test_a_published_policy_is_the_one_that_a_new_gate_runs_by(world: World):
    """What was published is active after the gate has died, also where the file has been edited since."""
    home = world.home
    (policy,) = (home.base / "policies").glob("*.yaml")
    written = policy.read_text()
    try:
        policy.write_text(f"# published\n{written}")
        assert (await home.cli("policy", "publish")).status == 0
        policy.write_text("policy: [")
        before = home.pid("gate")
        os.kill(before, signal.SIGKILL)
        await home.restarted("gate", before)
        assert await until(lambda: works(home))
        assert (home.run / "active.json").read_text().count("# published") == 1
        assert people_in_clear((await home.get(ONE)).body) == set()
    finally:
        policy.write_text(written)
        assert (await home.cli("policy", "publish")).status == 0


async def test_calls_in_the_middle_are_refused_when_the_gate_dies(world: World):
    """Calls that wait for the upstream when the gate is killed end as 503, also for who may see."""
    before = world.home.pid("gate")
    held, calls = world.hold(6, key=world.auditor)
    await until(lambda: held.arrived == 6)
    os.kill(before, signal.SIGKILL)
    for reply in await asyncio.gather(*calls):
        unavailable(reply)
    held.free.set()
    await world.home.restarted("gate", before)
    assert await until(lambda: works(world.home))


async def test_calls_in_the_middle_break_off_when_envoy_dies(world: World):
    """kill -9 of Envoy: running calls break off, none gets a byte of the answer; a new Envoy serves."""
    before, gate = world.home.pid("envoy"), world.home.pid("gate")
    held, calls = world.hold(6, key=world.auditor)
    await until(lambda: held.arrived == 6)
    os.kill(before, signal.SIGKILL)
    assert await asyncio.gather(*calls) == [None] * 6
    held.free.set()
    await world.home.restarted("envoy", before)
    assert await until(lambda: works(world.home))
    assert world.home.pid("gate") == gate
    status = await until(lambda: _idle(world.home))
    assert status["counters"]["abandoned"] >= 6


async def _idle(home: Home) -> dict[str, object] | None:
    status = await home.status()
    return status if status["in_flight"] == 0 else None


@pytest.mark.parametrize("part", ["gate", "envoy"])
async def test_under_load_a_killed_part_costs_calls_and_nothing_else(world: World, part: str):
    """While clients call all the time and a part is killed, every answer is protected and whole, or a refusal."""
    stop = False
    before = world.home.pid(part)
    answers: list[Answer | None] = []

    async def call_on() -> None:
        while not stop:
            answers.append(await world.home.ask_whatever_comes(ONE))

    callers = [asyncio.create_task(call_on()) for _ in range(8)]
    await until(lambda: len(answers) > 40)
    os.kill(before, signal.SIGKILL)
    await world.home.restarted(part, before)
    after = len(answers)
    await until(lambda: sum(a is not None and a.status == 200 for a in answers[after:]) > 40)
    stop = True
    await asyncio.gather(*callers)
    whole = [reply for reply in answers if reply is not None]
    assert {reply.status for reply in whole} <= {200, 503}
    assert not any(shows(reply) for reply in whole)
    for reply in whole:
        assert json.loads(reply.body).get("plan") == "magenta" if reply.status == 200 else reply.code


async def test_a_gate_that_hangs_is_refused_in_time_killed_and_replaced(world: World):
    """SIGSTOP of the gate: calls end as 503 within the message timeout, and the supervisor puts a new gate there."""
    before = world.home.pid("gate")
    held, waiting = world.hold(2, key=world.auditor)
    await until(lambda: held.arrived == 2)
    os.kill(before, signal.SIGSTOP)
    held.free.set()
    began = time.monotonic()
    fresh = [asyncio.create_task(world.home.ask_whatever_comes(ONE)) for _ in range(3)]
    for reply in await asyncio.gather(*waiting, *fresh):
        unavailable(reply)
    assert time.monotonic() - began < MESSAGE_TIMEOUT_S + 3
    await world.home.restarted("gate", before)
    assert await until(lambda: works(world.home))
    assert '"child.hangs"' in world.home.errors.read_text()


async def test_beyond_in_flight_a_call_is_refused_at_once():
    """With `in_flight: 2` and two slow calls, the third is 503 `gate.full` right away; then there is room again."""
    api = Api()
    async with (
        an_upstream(api) as upstream,
        a_gateway({"api": {"url": upstream.url}}, limits={"in_flight": 2}) as home,
    ):
        held = api.answers["/any/held"] = Held(CLEAR)
        slow = [asyncio.create_task(home.get("/any/held")) for _ in range(2)]
        await until(lambda: held.arrived == 2)
        for _ in range(5):
            began = time.monotonic()
            reply = await home.get(ONE)
            assert (reply.status, reply.code) == (503, "gate.full")
            assert time.monotonic() - began < 1
            assert not shows(reply)
        assert len(upstream.seen) == 2
        held.free.set()
        assert [reply.status for reply in await asyncio.gather(*slow)] == [200, 200]
        assert await until(lambda: works(home))
        assert (await home.status())["adapter"]["refused_full"] >= 5


async def test_a_flood_is_refused_and_does_not_fill_the_disk():
    """300 calls on a gateway for 2: two are answered, the rest is 503 at once, and no log has a line for each."""
    api = Api()
    async with (
        an_upstream(api) as upstream,
        a_gateway({"api": {"url": upstream.url}}, limits={"in_flight": 2}) as home,
    ):
        held = api.answers["/any/held"] = Held(CLEAR)
        before = sum(file.stat().st_size for file in home.run.glob("*.log"))
        calls = [asyncio.create_task(home.get("/any/held")) for _ in range(300)]
        await until(lambda: sum(call.done() for call in calls) == 298)
        held.free.set()
        replies = await asyncio.gather(*calls)
        assert sorted(reply.status for reply in replies) == [200] * 2 + [503] * 298
        assert {reply.code for reply in replies if reply.status == 503} <= {"gate.full", "gate.unavailable"}
        assert not any(shows(reply) for reply in replies)
        assert len(upstream.seen) == 2
        assert sum(file.stat().st_size for file in home.run.glob("*.log")) - before < 3_000


async def test_sigterm_ends_no_running_call_and_leaves_nothing():
    """Running calls complete with whole bodies, nobody new gets in, the exit status is 0, no process is left."""
    api = Api()
    async with an_upstream(api) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        auditor = await home.add_client("auditor", roles=["auditor"])
        held = api.answers["/any/held"] = Held(CLEAR)
        calls = [asyncio.create_task(home.get("/any/held", key=key)) for key in ["", auditor] * 8]
        await until(lambda: held.arrived == 16)
        assert home.process is not None
        home.process.send_signal(signal.SIGTERM)
        await until(lambda: _refuses(home.port))
        assert not any(call.done() for call in calls)
        held.free.set()
        for number, reply in enumerate(await asyncio.gather(*calls)):
            assert reply.status == 200
            assert json.loads(reply.body)["plan"] == "magenta"
            assert people_in_clear(reply.body) == ({1} if number % 2 else set())
        assert await home.stop() == 0
        assert home.left_running() == []
        assert not (home.run / "parts.json").exists()
        assert not list(home.run.glob("admin.sock"))
        # What was shown in clear is on disk, also though the gateway was ending.
        assert sum(line["client"] == "auditor" for line in home.audit()) == 8


async def test_sigterm_waits_for_a_client_that_reads_slowly():
    """A large answer that is on its way to a slow client arrives whole, though the gateway was told to end."""
    api = Api()
    size = 15_000_000
    async with an_upstream(api) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        api.answers["/open/large"] = answer("200 OK", b"p" * size)
        # A small window and a reader that does not read: most of the answer stays in the gateway.
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            plain.connect(("127.0.0.1", home.port))
            plain.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=plain, limit=65_536)
            writer.write(b"GET /open/large HTTP/1.1\r\nhost: a\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            await until(lambda: _idle(home))
            assert home.process is not None
            home.process.send_signal(signal.SIGTERM)
            await until(lambda: _refuses(home.port))
            # Long enough for a gateway that does not wait to be gone.
            await asyncio.wait({asyncio.create_task(home.process.wait())}, timeout=1.0)
            body = await reader.readexactly(size)
            writer.close()
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert body == b"p" * size
        assert await home.stop() == 0


async def _refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_when_the_supervisor_is_killed_its_children_end_and_the_next_start_is_clean():
    """kill -9 of `gharial up`: gate and Envoy end with it, running calls break off; `up` works again, budgets kept."""
    api = Api()
    async with an_upstream(api) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        clerk = await home.add_client("clerk", roles=["care"], purpose="support")
        seen = [await home.get(f"/customers/{customer_id(n)}", key=clerk) for n in range(50)]
        assert len(people_in_clear(*(reply.body for reply in seen))) == 50
        held = api.answers["/any/held"] = Held(CLEAR)
        calls = [asyncio.create_task(home.ask_whatever_comes("/any/held", key=clerk)) for _ in range(4)]
        await until(lambda: held.arrived == 4)
        assert home.process is not None
        home.process.kill()
        await home.process.wait()
        for reply in await asyncio.gather(*calls):
            assert reply is None or not shows(reply)
        held.free.set()
        await until(lambda: not home.left_running())
        assert await _refuses(home.port)
        await home.start()
        again = [await home.get(f"/customers/{customer_id(n)}", key=clerk) for n in range(90)]
        assert {reply.status for reply in again} == {200}
        assert people_in_clear(*(reply.body for reply in again)) == set(range(60))
