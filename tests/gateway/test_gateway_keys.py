"""Keys of a running gateway: rotated under load, refused where the file is worse than what is loaded, never shown."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
from typing import Any

import pytest
from support.gateway import MARK, Answer, Api, Home, a_gateway, a_home, customer_id, until, write_gateway
from support.key_needles import key_needles, leaks_in_files, materials
from support.upstreams import an_upstream

from gharial.adapters.admin import AdminClient, AdminRefused
from gharial.adapters.kms.fake_transit import FakeTransit
from gharial.crypto.keyset import Keyset, KeyState
from gharial.wiring.keyfiles import KeyDesk

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("gateway-keys")]

ONE = f"/customers/{customer_id(1)}"


async def admin(home: Home, method: str, target: str) -> Any:
    return await asyncio.to_thread(AdminClient(home.run / "admin.sock").call, method, target)


async def rotate(home: Home) -> Keyset:
    """Rotate as the command does, and tell the gate."""
    desk = KeyDesk(home.config)
    keyset = await asyncio.to_thread(desk.rotate)
    assert await asyncio.to_thread(desk.tell_gate)
    return keyset


def token_of(answer: Answer) -> str:
    """The token in the place of the customer's id."""
    assert answer.status == 200, answer.body
    token = json.loads(answer.body)["customerId"]
    assert token.startswith("tok_")
    return str(token)


def key_of(token: str) -> int:
    """The id of the key that made a token, as docs/keys-and-tokens.md has it."""
    return int.from_bytes(base64.urlsafe_b64decode(token[4:] + "==")[1:5], "big")


async def problems(home: Home) -> str:
    """What keeps the gate from being ready; empty if nothing does."""
    try:
        await admin(home, "GET", "/readyz")
    except AdminRefused:
        return str((await home.status())["keys"]["problem"])
    return ""


async def test_rotation_under_load_fails_no_call_and_loses_no_token():
    """Eight callers send back tokens of all ages through twenty rotations: none fails, each token comes back."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        key = await home.add_client("acme-1", purpose="billing")
        first = token_of(await home.get(ONE, key=key))
        tokens = {key_of(first): first}
        stop = asyncio.Event()
        choose = random.Random(1)
        calls = 0

        async def call() -> None:
            nonlocal calls
            while not stop.is_set():
                sent = choose.choice(list(tokens.values()))
                came = token_of(await home.get(f"/customers/{sent}", key=key))
                tokens.setdefault(key_of(came), came)
                calls += 1

        callers = [asyncio.create_task(call()) for _ in range(8)]
        made = [key_of(first)]
        for _ in range(20):
            keyset = await rotate(home)
            made.append(keyset.primary_id)
            await until(lambda: made[-1] in tokens or any(task.done() for task in callers))
        stop.set()
        await asyncio.gather(*callers)
        assert calls > 20
        assert sorted(tokens) == sorted(made)
        for sent in tokens.values():
            assert key_of(token_of(await home.get(f"/customers/{sent}", key=key))) == made[-1]
        found = (await home.status())["keys"]
        assert (found["primary"], found["keys"], found["reloads"], found["rejected"]) == (made[-1], 21, 20, 0)


async def test_commands_tell_the_running_gateway_and_sighup_does_too():
    """After `rotate` tokens have the new key, after `disable` they are refused; SIGHUP takes a changed file."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        key = await home.add_client("acme-1", purpose="billing")
        said = await home.cli("keys", "rotate")
        assert (said.status, "the running gateway has taken it" in said.err) == (0, True)
        token = token_of(await home.get(ONE, key=key))
        await home.cli("keys", "rotate")
        assert (await home.get(f"/customers/{token}", key=key)).status == 200
        assert (await home.cli("keys", "disable", str(key_of(token)))).status == 0
        assert (await home.get(f"/customers/{token}", key=key)).status == 400
        KeyDesk(home.config).set_state(key_of(token), KeyState.ENABLED)
        assert (await home.get(f"/customers/{token}", key=key)).status == 400
        assert home.process is not None
        os.kill(home.process.pid, signal.SIGHUP)

        async def comes_back() -> bool:
            return (await home.get(f"/customers/{token}", key=key)).status == 200

        await until(comes_back)


async def test_a_bad_or_older_key_file_keeps_the_old_keys_and_readiness_says_so():
    """Cut, readable by others, wrapped by another KEK, older: refused with what is wrong, and calls go on as before."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        key = await home.add_client("acme-1", purpose="billing")
        desk = KeyDesk(home.config)
        older = desk.key_file.read_bytes()
        newest = (await rotate(home)).primary_id
        newer = desk.key_file.read_bytes()
        token = token_of(await home.get(ONE, key=key))
        assert key_of(token) == newest
        for data, mode, word in (
            (newer[:-9], 0o600, "truncated"),
            (newer, 0o644, "read by others"),
            (newer.replace(b'"name": "', b'"name": "0'), 0o600, "KEK"),
            (older, 0o600, f"key {newest} is not in it"),
        ):
            desk.key_file.write_bytes(data)
            desk.key_file.chmod(mode)
            with pytest.raises(AdminRefused, match=word):
                await admin(home, "POST", "/keys/reload")
            assert word in await problems(home)
            assert key_of(token_of(await home.get(f"/customers/{token}", key=key))) == newest
        said = await home.cli("keys", "reload")
        assert (said.status, f"key {newest}" in said.err) == (1, True)
        desk.key_file.write_bytes(newer)
        assert (await home.cli("keys", "reload")).status == 0
        assert await problems(home) == ""
        assert (await home.status())["keys"]["rejected"] == 5


async def test_an_older_key_file_is_noticed_at_start_and_may_be_accepted():
    """With a file that lacks a key it had it does not start; `import --replace` accepts the loss, then it does."""
    async with an_upstream(Api()) as upstream, a_home() as home:
        write_gateway(home, {"api": {"url": upstream.url}})
        desk = KeyDesk(home.config)
        older = desk.key_file.read_bytes()
        await home.start()
        newest = (await rotate(home)).primary_id
        refused = await home.cli("keys", "import", str(desk.key_file), "--replace")
        assert (refused.status, "store.in_use" in refused.err) == (1, True)
        await home.stop()
        desk.key_file.write_bytes(older)
        process = await home.spawn()
        async with asyncio.timeout(60):
            assert await process.wait() == 1
        assert f"key {newest} is not in it" in home.errors.read_text()
        assert (await home.cli("keys", "import", str(desk.key_file), "--replace")).status == 0
        await home.start()
        assert (await home.get(ONE)).status == 200


async def test_a_running_gateway_shows_no_key_anywhere():
    """Rotations, a refusal, calls and a stop leave no key in logs, store, audit or Envoy's files; only wrapped ones."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        key = await home.add_client("acme-1", purpose="billing")
        keysets = [KeyDesk(home.config).load(), await rotate(home), await rotate(home)]
        await home.get(ONE, key=key)
        await home.cli("keys", "destroy", str(keysets[1].primary_id), "--yes")
        (home.run / "keys.json").write_text(f"{MARK}")
        assert (await home.cli("keys", "reload")).status == 1
        await home.status()
        await home.stop()
        assert leaks_in_files(home.run, key_needles(*materials(*keysets))) == []
        assert leaks_in_files(home.base / "out", key_needles(*materials(*keysets))) == []
        (home.run / "keys.json").unlink()


async def test_a_kms_is_asked_at_start_and_reload_alone_and_may_be_down_in_between():
    """Calls ask it nothing; while it is down the loaded keys serve on and readiness names it; a start needs it."""
    with FakeTransit(token=f"{MARK}-vault-token") as vault:
        keys = {"kek": {"transit": {"url": vault.url, "token": "file:secret/vault"}}}
        async with an_upstream(Api()) as upstream, a_home() as home:
            write_gateway(home, {"api": {"url": upstream.url}}, keys=keys)
            (home.base / "secret" / "vault").write_text(vault.token)
            (home.run / "keys.json").unlink()
            assert (await home.cli("keys", "init")).status == 0
            await home.start()
            key = await home.add_client("acme-1", purpose="billing")
            asked = len(vault.asked)
            token = token_of(await home.get(ONE, key=key))
            for _ in range(20):
                assert token_of(await home.get(f"/customers/{token}", key=key)) == token
            assert len(vault.asked) == asked
            newest = (await rotate(home)).primary_id
            vault.stop()
            said = await home.cli("keys", "reload")
            assert (said.status, "the KEK transit/gharial at" in said.err) == (1, True)
            assert "can't be reached" in await problems(home)
            assert key_of(token_of(await home.get(f"/customers/{token}", key=key))) == newest
            failed = await home.cli("keys", "rotate")
            assert (failed.status, "key.kek_unavailable" in failed.err) == (1, True)
            vault.start()
            vault.raw = (200, b"{}")
            assert (await home.cli("keys", "reload")).status == 1
            assert "no plaintext" in await problems(home)
            await home.stop()
            process = await home.spawn()
            async with asyncio.timeout(60):
                assert await process.wait() == 1
            assert "the KEK transit/gharial at" in home.errors.read_text()
            vault.raw = None
            await home.start()
            assert key_of(token_of(await home.get(f"/customers/{token}", key=key))) == newest
