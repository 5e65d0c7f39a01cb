"""Erasure of a whole gateway: by the command line, with and without a running gate, and after kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import tempfile
from pathlib import Path

import pytest
from support.envoy_harness import Answer
from support.gateway import Api, Home, a_gateway, a_home, customer_id, shows, until, write_gateway
from support.upstreams import an_upstream

from gharial.adapters.store.schema import STEPS

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("gateway-erase")]

POLICY = """\
policy: customer-data
version: 1
mode: enforce
tags:
  person: { find: ['$..customerId', 'path:id'], subject: customer }
  public: { find: '$..plan' }
who:
  anyone: {}
  partner: { client: 'acme-*' }
grants:
  - { grant: basics, to: anyone, show: { public: clear } }
  - { grant: partner, to: partner, show: { person: token(per=subject) }, reidentify: [person] }
"""


def token_of(answer: Answer) -> str:
    """The token in the place of the customer's id."""
    assert answer.status == 200, answer.body
    return str(json.loads(answer.body)["customerId"])


def path_of(number: int) -> str:
    return f"/customers/{customer_id(number)}"


async def works(home: Home, key: str) -> bool:
    answer = await home.ask_whatever_comes(path_of(0), key=key)
    return answer is not None and answer.status == 200


async def erase(home: Home, number: int, *words: str) -> dict:
    said = await home.cli(
        "erase", customer_id(number), "--space", "customer", "--yes", "--json",
        "--receipt", str(home.config.parent / f"receipt-{number}-{len(words)}.json"), *words,
    )  # fmt: skip
    assert said.status == 0, said.err
    return dict(said.json())


def wrapped_keys(folder: Path) -> list[bytes]:
    """The wrapped keys that stand in a store, read from a copy so that its log stays as it is."""
    with tempfile.TemporaryDirectory() as copy:
        for file in folder.glob("gharial.db*"):
            shutil.copy(file, copy)
        with sqlite3.connect(Path(copy) / "gharial.db") as db:
            assert db.execute("PRAGMA user_version").fetchone() == (len(STEPS),)
            return [row[0] for row in db.execute("SELECT wrapped FROM person_key ORDER BY number")]


def files_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def change(name: str) -> None:
    path = Path(name)
    path.write_text(path.read_text().replace("customer", "custumer"))


async def test_an_erased_person_is_dead_for_every_client_also_after_kill_9():
    """Tokens of two clients say 410, new data is redacted, the key is in no file, and the receipt can be checked."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}, policy=POLICY) as home:
        keys = [await home.add_client("acme-1"), await home.add_client("acme-2")]
        ann = [token_of(await home.get(path_of(1), key=key)) for key in keys]
        bob = token_of(await home.get(path_of(2), key=keys[0]))
        assert ann[0] != ann[1]
        assert token_of(await home.get(f"/customers/{ann[0]}", key=keys[0])) == ann[0]
        store = home.run
        wrapped = wrapped_keys(store)[0]
        receipt = await erase(home, 1)
        assert len(receipt["keys"]) == 1
        assert wrapped[17:] not in files_of(store)
        before = home.pid("gate")
        for again in (False, True):
            if again:
                os.kill(before, signal.SIGKILL)
                await home.restarted("gate", before)
                assert await until(lambda: works(home, keys[0]))
            for key, token in zip(keys, ann, strict=True):
                answer = await home.get(f"/customers/{token}", key=key)
                assert (answer.status, answer.code, shows(answer)) == (410, "token.erased", False)
            swapped = await home.get(f"/customers/{ann[0]}", key=keys[1])
            assert (swapped.status, swapped.code) == (400, "token.refused")
            assert token_of(await home.get(path_of(1), key=keys[0])) == "[redacted]"
            assert token_of(await home.get(f"/customers/{bob}", key=keys[0])) == bob
        said = await home.cli("erase", "--verify", receipt["receipt"], customer_id(1), "--space", "customer")
        assert (said.status, customer_id(1) in said.out) == (0, False), said.err
        said = await home.cli("erase", "--verify", receipt["receipt"], customer_id(2), "--space", "customer")
        assert (said.status, "somebody else" in said.err) == (1, True)
        change(receipt["receipt"])
        assert (await home.cli("erase", "--verify", receipt["receipt"])).status == 1
        assert "Ed25519" in (await home.cli("erase", "--public-keys")).out


async def test_kill_9_loses_no_key_that_was_used():
    """In the middle of first looks at people the gate is killed: each token that arrived opens, and is the same."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}, policy=POLICY) as home:
        key = await home.add_client("acme-1")
        tokens = {0: token_of(await home.get(path_of(0), key=key))}

        async def look(number: int) -> None:
            answer = await home.ask_whatever_comes(path_of(number), key=key)
            assert answer is None or not shows(answer)
            if answer is not None and answer.status == 200:
                tokens[number] = token_of(answer)

        before = home.pid("gate")
        callers = [asyncio.create_task(look(number)) for number in range(1, 60)]
        await until(lambda: len(tokens) > 10)
        os.kill(before, signal.SIGKILL)
        await asyncio.gather(*callers)
        await home.restarted("gate", before)
        assert await until(lambda: works(home, key))
        for number, token in tokens.items():
            upstream.seen.clear()
            assert token_of(await home.get(f"/customers/{token}", key=key)) == token
            assert [seen.target for seen in upstream.seen] == [path_of(number)]


async def test_without_a_gateway_the_command_works_on_the_store():
    """A receipt twice the same; a mistyped id space, and a receipt that can't be written, erase nothing."""
    async with a_home() as home:
        write_gateway(home, {"api": {"url": "http://127.0.0.1:9"}}, policy=POLICY)
        first, second = await erase(home, 1), await erase(home, 1, "--yes")
        assert {**first, "receipt": ""} == {**second, "receipt": ""}
        assert first["keys"] == []
        unmade = f"{home.config}.r"
        wrong = await home.cli("erase", "x", "--space", "custmer", "--yes", "--receipt", unmade)
        assert (wrong.status, "there is customer" in wrong.err) == (1, True)
        assert not os.path.lexists(unmade)  # noqa: ASYNC240
        taken = await home.cli("erase", "x", "--space", "customer", "--yes", "--receipt", first["receipt"])
        assert (taken.status, "nothing was erased" in taken.err) == (1, True)
        assert (await home.cli("erase", "x", "--space", "customer", "--yes", "--forget")).status == 1
        said = await home.cli("erase", customer_id(1), "--space", "customer", "--yes", "--forget")
        assert (said.status, "forgotten" in said.out) == (0, True)
        assert (await home.cli("erase", "x")).status == 2
