"""A full disk: nothing clear leaves while audit or store can't be written, and it goes on when there is room."""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio
from support.envoy_harness import Answer
from support.gateway import Api, Home, a_gateway, customer, customer_id, people_in_clear, shows, until
from support.upstreams import an_upstream, json_answer

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.xdist_group("gateway-audit"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="fills the disk of one process by prlimit"),
]

ONE = f"/customers/{customer_id(1)}"


@dataclass
class World:
    """A gateway and the keys of an auditor (no budget) and a clerk (60 people an hour)."""

    home: Home
    api: Api
    auditor: str
    clerk: str

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """As long as this holds, no file of the gate grows: every write fails as on a full disk (EFBIG)."""
        gate = self.home.pid("gate")
        before = resource.prlimit(gate, resource.RLIMIT_FSIZE)
        resource.prlimit(gate, resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            yield
        finally:
            resource.prlimit(gate, resource.RLIMIT_FSIZE, before)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_world() -> AsyncIterator[World]:
    api = Api()
    async with an_upstream(api) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        auditor = await home.add_client("auditor", roles=["auditor"])
        yield World(home, api, auditor, await home.add_client("clerk", roles=["care"], purpose="support"))


@pytest.fixture
def world(the_world: World) -> Iterator[World]:
    """The gateway; after the test no file of it may hold anything planted."""
    the_world.api.answers.clear()
    yield the_world
    the_world.home.look_for_leaks()


def refused(reply: Answer, *codes: str) -> bool:
    """Whether the answer is a 503 of one of these kinds; it names nothing in any case."""
    assert not shows(reply)
    if reply.status != 503:
        return False
    assert reply.code in codes
    assert set(reply.problem()) <= {"type", "title", "status", "code", "exchange"}
    assert "audit" not in str(reply.problem()["title"])
    return True


async def test_with_a_full_disk_no_clear_value_leaves_and_with_room_it_goes_on(world: World):
    """Every answer with a clear value is 503, also those with public fields only; all of it works again with room."""
    home = world.home
    assert people_in_clear((await home.get(ONE, key=world.auditor)).body) == {1}
    lines = len(home.audit())
    world.api.answers["/any/token"] = json_answer(json.dumps({"customerId": customer_id(7)}))
    with world.full_disk():
        for key in (world.auditor, "", world.clerk):
            for _ in range(3):
                assert refused(await home.get(ONE, key=key), "audit.unwritable", "store.unwritable")
        replies = await asyncio.gather(*(home.get(ONE, key=world.auditor) for _ in range(20)))
        assert all(refused(reply, "audit.unwritable") for reply in replies)
        # Where nothing is clear a line need not be on disk first; what comes is protected all the same.
        assert not shows(await home.get("/any/token"))
        status = await home.status()
        assert status["audit"]["writable"] is False
        assert status["counters"]["refused"]["audit.unwritable"] >= 20
        assert len(home.audit()) == lines
    reply = await until(lambda: _seen(home, world.auditor))
    assert people_in_clear(reply.body) == {1}
    status = await home.status()
    assert status["audit"]["writable"] is True
    assert status["adapter"]["crashed"] == 0
    assert status["counters"]["bytes_without_plan"] == 0
    # The line that said `audit.unwritable` had no room either; that it can be written again is said.
    assert '"audit.writable"' in (home.run / "gate.log").read_text()
    assert [part.restarts for part in home.parts().values()] == [0, 0]


async def _seen(home: Home, key: str) -> Answer | None:
    reply = await home.get(ONE, key=key)
    return reply if reply.status == 200 else None


async def test_whoever_was_not_shown_for_want_of_room_is_charged_at_most_once(world: World):
    """Refusals on a full disk show nobody; afterwards the clerk's budget still is at most 60 people, and holds."""
    home = world.home
    with world.full_disk():
        replies = [await home.get(f"/customers/{customer_id(n)}", key=world.clerk) for n in range(100, 130)]
        assert all(refused(reply, "audit.unwritable", "store.unwritable") for reply in replies)
    await until(lambda: _seen(home, world.clerk))
    replies = [await home.get(f"/customers/{customer_id(n)}", key=world.clerk) for n in range(200)]
    shown = people_in_clear(*(reply.body for reply in replies if reply.status == 200))
    assert {reply.status for reply in replies} == {200}
    assert 0 < len(shown) <= 60


async def test_a_removed_audit_file_is_not_written_to(world: World):
    """Somebody deletes the file that is being written: the next line is in a new one, not on no disk."""
    home = world.home
    for file in (home.run / "audit").glob("audit-*"):
        file.unlink()
    reply = await home.get(ONE, key=world.auditor)
    assert reply.status == 200
    (line,) = [line for line in home.audit() if line["exchange"] == reply.one("gharial-exchange")]
    assert line["client"] == "auditor"


async def test_every_clear_answer_has_its_line_before_it_arrives(world: World):
    """Whatever a client has read, the record of it is in the file already."""
    for number in range(20):
        reply = await world.home.get(f"/customers/{customer_id(number)}", key=world.auditor)
        assert people_in_clear(reply.body) == {number}
        assert any(line["exchange"] == reply.one("gharial-exchange") for line in world.home.audit())


async def test_a_store_that_is_locked_refuses_and_recovers(world: World):
    """Another process holds the database: what needs a reservation is refused, and comes when it lets go."""
    home = world.home
    fresh = await home.add_client("clerk-2", roles=["care"], purpose="support")
    db = sqlite3.connect(home.run / "gharial.db", isolation_level=None, timeout=5)
    try:
        db.execute("BEGIN EXCLUSIVE")
        held = asyncio.create_task(home.get(f"/customers/{customer_id(300)}", key=fresh))
        assert people_in_clear((await home.get(ONE, key=world.auditor)).body) == {1}
        await asyncio.wait({held}, timeout=0.5)
        assert not held.done() or refused(held.result(), "store.unwritable")
        db.execute("COMMIT")
    finally:
        db.close()
    assert (await held).status in (200, 503)
    assert json.loads((await home.get(f"/customers/{customer_id(301)}", key=fresh)).body)["plan"] == customer(1)["plan"]
