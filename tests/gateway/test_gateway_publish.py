"""Publishing under load: no call fails, none is half old, and a bad file never replaces a good policy."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from support.gateway import MARK, POLICY, Answer, Api, Home, a_gateway, customer_id, until
from support.upstreams import an_upstream

from gharial.adapters.admin import AdminClient, AdminRefused

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("gateway-publish")]

ONE = f"/customers/{customer_id(1)}"
OPEN = POLICY.replace("public: clear }", "public: clear, name: clear }", 1)
NAME = f"{MARK}-name-0001".encode()


def version(policy: str, number: int) -> str:
    assert "version: " in policy
    head, _, tail = policy.partition("version: ")
    return f"{head}version: {number}\n{tail.partition(chr(10))[2]}"


async def admin(home: Home, method: str, target: str, body: object = None) -> Any:
    return await asyncio.to_thread(AdminClient(home.run / "admin.sock").call, method, target, body)


async def publish(home: Home, policy: str) -> Any:
    (home.base / "policies" / "customer-data.yaml").write_text(policy)
    return await admin(home, "POST", "/policies/publish", {})


def decided_by(answer: Answer) -> int:
    """The version of the policy that an answer says it was decided by."""
    return int(dict(answer.headers)["gharial-policy"].split("version=")[1].split(";")[0])


def is_whole(answer: Answer) -> bool:
    """An answer shows the name exactly if it says that it was decided by an even, open version."""
    return answer.status == 200 and (NAME in answer.body) is (decided_by(answer) % 2 == 0)


async def test_publishing_under_load_fails_no_call_and_leaves_none_half_old():
    """Eight callers go on calling through 30 publications; each answer is wholly of one version, and none fails."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        stop = asyncio.Event()
        answers: list[Answer] = []

        async def call() -> None:
            while not stop.is_set():
                answers.append(await home.get(ONE))

        callers = [asyncio.create_task(call()) for _ in range(8)]
        for number in range(2, 32):
            await publish(home, version(OPEN if number % 2 == 0 else POLICY, number))
            await until(lambda number=number: any(decided_by(answer) == number for answer in answers[-16:]))
        stop.set()
        await asyncio.gather(*callers)
        assert all(is_whole(answer) for answer in answers)
        assert set(range(2, 32)) <= set(map(decided_by, answers))
        history = await admin(home, "GET", "/policies/history")
        assert [record["version"] for record in history][:-1] == list(range(31, 1, -1))


async def test_a_bad_file_never_replaces_a_good_policy():
    """Mistakes and failing tests are refused with their places; readiness says so until a publication succeeds."""
    failing = OPEN + "tests:\n  - { as: anyone, give: { name: Zoe }, want: { name: redacted } }\n"
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        for policy, code in ((OPEN.replace("grants:", "grantz:"), "policy.invalid"), (failing, "policy.tests_failed")):
            with pytest.raises(AdminRefused) as refused:
                await publish(home, policy)
            assert refused.value.code == code
            assert "customer-data.yaml:" in str(refused.value)
            assert NAME not in (await home.get(ONE)).body
            said = await home.cli("policy", "publish")
            assert (said.status, "customer-data.yaml:" in said.err) == (1, True)
            with pytest.raises(AdminRefused):
                await admin(home, "GET", "/readyz")
        await publish(home, version(OPEN, 2))
        assert (await admin(home, "GET", "/readyz"))["ready"] is True
        assert is_whole(await home.get(ONE))


async def test_sighup_publishes_and_rollback_goes_back():
    """SIGHUP to `gharial up` publishes the files; rollback makes the text before active, and writes the file back."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        file = home.base / "policies" / "customer-data.yaml"
        file.write_text(version(OPEN, 2))
        assert home.process is not None
        os.kill(home.process.pid, signal.SIGHUP)

        async def is_open() -> bool:
            return NAME in (await home.get(ONE)).body

        await until(is_open)
        said = await home.cli("policy", "rollback", "customer-data")
        assert said.status == 0
        assert not await is_open()
        assert file.read_text() == POLICY
        listed = await home.cli("policy", "history")
        assert [word for word in ("rollback", "publish", "start") if word in listed.out] == [
            "rollback",
            "publish",
            "start",
        ]


async def test_a_canary_serves_a_part_and_ends():
    """A candidate for everybody on one route shows on that route only, and is gone when it is ended."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        (home.base / "candidate.yaml").write_text(version(OPEN, 2))
        said = await home.cli("policy", "canary", str(home.base / "candidate.yaml"), "--route", "customer")
        assert said.status == 0
        assert NAME in (await home.get(ONE)).body
        assert NAME not in (await home.get("/customers")).body
        assert (await home.status())["canary"]["percent"] == 100
        assert (await home.cli("policy", "canary", "--end")).status == 0
        assert NAME not in (await home.get(ONE)).body
