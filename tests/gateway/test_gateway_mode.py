"""A policy's mode changes while calls run: no call fails, none is half old, and what is published holds at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import Any

import pytest
from support.envoy_harness import Answer
from support.gateway import (
    POLICY,
    Api,
    Home,
    a_gateway,
    a_home,
    customer,
    customer_id,
    shows,
    until,
    write_gateway,
)
from support.upstreams import Raw, SeenRequest, an_upstream, json_answer

from gharial.adapters.admin import AdminClient, AdminRefused
from gharial.model.errors import AdminUnavailable

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("gateway-mode")]

ONE = f"/customers/{customer_id(1)}"
SHADOW = POLICY.replace("mode: enforce", "mode: shadow")
CLEAR = json.dumps(customer(1)).encode()


async def admin(home: Home, method: str, target: str, body: object = None) -> Any:
    client = AdminClient(home.run / "admin.sock", timeout_s=60.0)
    return await asyncio.to_thread(client.call, method, target, body)


def write(home: Home, policy: str) -> None:
    (home.base / "policies" / "customer-data.yaml").write_text(policy)


async def publish(home: Home, policy: str) -> Any:
    write(home, policy)
    return await admin(home, "POST", "/policies/publish", {})


def mode(answer: Answer) -> str:
    """The mode in which an answer says that it was decided."""
    return str(answer.one("gharial-policy")).partition("mode=")[2]


def is_whole(answer: Answer) -> bool:
    """An answer is the upstream's to the byte, or shows nothing that is planted; and says which of both."""
    if mode(answer) == "shadow":
        return (answer.status, answer.body) == (200, CLEAR)
    return (answer.status, mode(answer), shows(answer)) == (200, "enforce", False)


class Callers:
    """They call one after the other, and note which mode was published last when a call began."""

    def __init__(self, home: Home, published: str) -> None:
        self._changes = 0
        self.published = published
        self.seen: list[tuple[str, Answer]] = []
        self._home = home
        self._stop = False
        self._tasks = [asyncio.create_task(self._call(path)) for path in (ONE, ONE, ONE, ONE)]

    async def _call(self, path: str) -> None:
        while not self._stop:
            published, began = self.published, self._changes
            answer = await self._home.get(path)
            # A call that was under way while something was published may be in either mode.
            self.seen.append((published if self._changes == began else "either", answer))

    @property
    def published(self) -> str:
        """The mode that was published last, "either" while one is being published."""
        return self._published

    @published.setter
    def published(self, mode: str) -> None:
        self._published = mode
        self._changes += 1

    async def end(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    def modes(self) -> list[str]:
        return [mode(answer) for _, answer in self.seen]


async def test_a_mode_is_published_under_load_and_holds_from_then_on():
    """Through six changes of mode no call fails, each answer is wholly of one mode, and a call that begins after a
    publication is done is in the mode that was published."""
    async with (
        an_upstream(Api()) as upstream,
        a_gateway({"api": {"url": upstream.url}}, policy=SHADOW) as home,
    ):
        callers = Callers(home, "shadow")
        for number in range(6):
            await until(lambda: callers.modes()[-8:] == [callers.published] * 8)
            callers.published = "either"
            await publish(home, SHADOW if number % 2 else POLICY)
            callers.published = "shadow" if number % 2 else "enforce"
        await until(lambda: callers.modes()[-8:] == [callers.published] * 8)
        await callers.end()
        assert all(is_whole(answer) for _, answer in callers.seen)
        assert [published for published, answer in callers.seen if published not in ("either", mode(answer))] == []
        status = await home.status()
        assert (status["counters"]["refused"], status["counters"]["bytes_without_plan"]) == ({}, 0)
        assert (await admin(home, "GET", "/readyz"))["ready"] is True
        await until(lambda: in_step(home))


async def test_a_call_that_runs_ends_in_the_mode_that_it_began_with():
    """A body that still comes in pieces when its route is enforced passes to its end; one that is held back is
    protected although its route is in shadow by then."""
    free = asyncio.Event()
    rest = b"x" * 100_000

    async def late() -> bytes:
        await free.wait()
        return rest

    async def held(_: SeenRequest) -> Raw:
        await free.wait()
        return json_answer(CLEAR.decode())

    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {len(rest)}\r\n\r\n"
    api = Api({"/any/slow": Raw(head.encode(), then=late), "/any/held": held})
    async with (
        an_upstream(api) as upstream,
        a_gateway({"api": {"url": upstream.url}}, policy=SHADOW) as home,
    ):
        in_pieces = asyncio.create_task(home.get("/any/slow"))
        await until(lambda: len(upstream.seen) == 1)
        await publish(home, POLICY)
        in_one = asyncio.create_task(home.get("/any/held"))
        await until(lambda: len(upstream.seen) == 2)
        await publish(home, SHADOW)
        free.set()
        assert ((await in_pieces).body, mode(await in_pieces)) == (rest, "shadow")
        assert (shows(await in_one), mode(await in_one)) == (False, "enforce")
        assert (await home.status())["counters"]["refused"] == {}


async def test_rolling_back_and_sighup_change_the_mode_too_and_none_runs_over_another():
    """Publications that are asked for at the same time happen one after the other; the last one is what is active."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}, policy=SHADOW) as home:
        await publish(home, POLICY)
        assert not shows(await home.get(ONE))
        assert (await home.cli("policy", "rollback", "customer-data")).status == 0
        assert "mode: shadow" in (home.base / "policies" / "customer-data.yaml").read_text()
        assert (await home.get(ONE)).body == CLEAR
        write(home, POLICY)
        assert home.process is not None
        os.kill(home.process.pid, signal.SIGHUP)
        said = await asyncio.gather(*(admin(home, "POST", "/policies/publish", {}) for _ in range(3)))
        assert sum(len(one["changed"]) for one in said) <= 1
        await until(lambda: published(home, 4))
        assert not shows(await home.get(ONE))
        history = await admin(home, "GET", "/policies/history")
        assert [record["action"] for record in history] == ["publish", "rollback", "publish", "start"]


async def test_an_envoy_that_does_not_follow_changes_nothing():
    """It hangs: the old policies go on, the publication says what to do and readiness that it failed; with an Envoy
    that answers again it succeeds."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}, policy=SHADOW) as home:
        routes = (home.run / "envoy-routes.json").read_bytes()
        envoy = home.pid("envoy")
        os.kill(envoy, signal.SIGSTOP)
        try:
            with pytest.raises(AdminRefused, match="gharial status") as refused:
                await publish(home, POLICY)
        finally:
            os.kill(envoy, signal.SIGCONT)
        assert refused.value.code == "policy.mode_not_taken"
        assert (home.run / "envoy-routes.json").read_bytes() == routes
        await until(lambda: in_step(home))
        assert (await home.get(ONE)).body == CLEAR
        with pytest.raises(AdminRefused):
            await admin(home, "GET", "/readyz")
        history = await admin(home, "GET", "/policies/history")
        assert [record["action"] for record in history] == ["withdraw", "publish", "start"]
        await publish(home, POLICY)
        assert not shows(await home.get(ONE))
        assert (await admin(home, "GET", "/readyz"))["ready"] is True


@pytest.mark.parametrize(("before", "after"), [(SHADOW, POLICY), (POLICY, SHADOW)], ids=["enforce", "shadow"])
async def test_a_gate_that_dies_in_the_middle_begins_with_what_was_active(before: str, after: str):
    """Killed while Envoy has not followed yet: the new gate tells Envoy the modes of the old policies again, and what
    does not fit them never passes."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}, policy=before) as home:
        routes = (home.run / "envoy-routes.json").read_bytes()
        gate, envoy = home.pid("gate"), home.pid("envoy")
        os.kill(envoy, signal.SIGSTOP)
        publishing = asyncio.create_task(publish(home, after))
        await until(lambda: (home.run / "envoy-routes.json").read_bytes() != routes)
        os.kill(gate, signal.SIGKILL)
        with pytest.raises(AdminUnavailable):
            await publishing
        os.kill(envoy, signal.SIGCONT)
        await home.restarted("gate", gate)
        await until(lambda: in_step(home))
        assert (home.run / "envoy-routes.json").read_bytes() == routes
        answer = await home.get(ONE)
        assert (is_whole(answer), mode(answer)) == (True, "shadow" if before is SHADOW else "enforce")
        assert [one["mode"] for one in (await home.status())["policies"]] == [mode(answer)]


async def test_an_envoy_that_goes_by_other_routes_shows_nothing_and_is_told_again():
    """Somebody puts the routes of the shadow mode under a gate that enforces: nothing is shown, the gate's log says so,
    and it has its own routes in place again by itself."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        routes = home.run / "envoy-routes.json"
        good = routes.read_text()
        await until(lambda: in_step(home))
        for number in (1, 2, 3):
            wrong = good.replace("BUFFERED", "STREAMED").replace('"version_info": "', '"version_info": "x')
            (home.run / "other").write_text(wrong)
            (home.run / "other").rename(routes)
            await until(lambda number=number: noticed(home, number))
            await until(lambda: in_step(home))
            assert routes.read_text() == good
            assert is_whole(await home.get(ONE))
        assert (await admin(home, "GET", "/readyz"))["ready"] is True


async def test_an_envoy_that_dies_in_the_middle_comes_back_in_the_new_mode():
    """Killed just before a publication, Envoy begins with the new routes, and the publication waits for that."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}, policy=SHADOW) as home:
        os.kill(home.pid("envoy"), signal.SIGKILL)
        await publish(home, POLICY)
        assert is_whole(await home.get(ONE))
        assert not shows(await home.get(ONE))


async def test_a_gate_alone_does_not_change_a_mode():
    """Before an Envoy that others configure there is nobody to tell: refused, and what is active stays."""
    async with a_home() as home:
        write_gateway(home, {"api": {"url": "http://127.0.0.1:9"}})
        gate = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "gharial", "gate", "-c", str(home.config)],
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=home.env(),
        )
        try:
            await until(lambda: answers(home))
            with pytest.raises(AdminRefused, match="by hand") as error:
                await publish(home, SHADOW)
            assert error.value.code == "policy.mode_changed"
            assert (await home.status())["policies"][0]["mode"] == "enforce"
            assert not (home.run / "envoy-routes.json").exists()
        finally:
            gate.terminate()
            await gate.wait()


async def noticed(home: Home, times: int) -> bool:
    """Whether the gate has noticed so often that Envoy goes by other routes; a call meanwhile shows nothing."""
    assert not shows(await home.get(ONE))
    return (home.run / "gate.log").read_text().count("proxy.out_of_step") == times


async def answers(home: Home) -> bool:
    """Whether a gate's admin socket is open yet."""
    with contextlib.suppress(AdminUnavailable):
        return bool(await home.status())
    return False


async def in_step(home: Home) -> bool:
    return (await home.status())["proxy"]["in_step"] is True


async def published(home: Home, number: int) -> bool:
    return len(await admin(home, "GET", "/policies/history")) == number
