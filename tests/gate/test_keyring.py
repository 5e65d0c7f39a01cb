"""The active keyset is swapped as a whole; what fails keeps the old one; what runs keeps the one it began with."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from dataclasses import dataclass, field

import pytest
from support.gate_world import Answer, World

from gharial.crypto.keyset import Keyset, KeyState, create_keyset, rotate, set_state
from gharial.crypto.keyset_history import Known, KnownKey, find_losses, known_of
from gharial.gate.keyring import Keyring
from gharial.gate.outcome import BodyMode, ForwardHead, RequestHead, ResponseHead
from gharial.gate.publish import Canary
from gharial.model.caller import Caller
from gharial.model.errors import GharialError, KeyFileOlder, KeyFileUnusable, StoreUnwritable

SOURCE = random.Random(31).randbytes
ANN = json.dumps({"customerId": "42", "accountNumber": "77", "plan": "basic"}).encode()
HEADERS = (("content-type", "application/json"), ("etag", '"v1"'))


@dataclass
class Memory:
    """A KeyMemory that keeps as the store does; `broken` refuses to write."""

    kept: dict[tuple[str, int], bool] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    broken: bool = False

    async def load_known_keys(self) -> Known:
        return Known(frozenset(KnownKey(*name, dead) for name, dead in self.kept.items()), dict(self.revisions))

    async def remember_keys(self, known: Known, *, alone: bool = False) -> None:
        if self.broken:
            raise StoreUnwritable
        if alone:
            self.kept.clear()
            self.revisions.clear()
        for key in known.keys:
            name = (key.keyset_id, key.key_id)
            self.kept[name] = key.destroyed or self.kept.get(name, False)
        for keyset_id, revision in known.revisions.items():
            self.revisions[keyset_id] = max(revision, self.revisions.get(keyset_id, 0))


class KeyFile:
    """Stands for the file: what the next load finds."""

    def __init__(self, keyset: Keyset) -> None:
        self.found: Keyset | Exception = keyset

    async def load(self) -> Keyset:
        await asyncio.sleep(0)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def a_keyring(world: World) -> tuple[Keyring, KeyFile, Memory]:
    file, memory = KeyFile(world.services.keyset), Memory()
    return Keyring(world.services.publisher, memory, file.load), file, memory


def key_of(token: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(token + "==")[1:5], "big")


async def test_an_exchange_keeps_the_keyset_that_it_began_with():
    """A swap between its request and its answer: tokens and entity tag are the old key's; the next call has the new."""
    world = World()
    keyring, file, _ = a_keyring(world)
    old = world.services.keyset
    exchange = world.exchange()
    key = (("x-api-key", world.keys["acme-billing"]),)
    head = RequestHead("GET", "/customers/42", "gateway", "http", key, "", BodyMode.BUFFERED)
    await exchange.on_request(head)
    file.found = rotate(old, SOURCE, 9.0)
    new = await keyring.reload()
    answered = await exchange.on_response(ResponseHead(200, HEADERS, True, True, "via_upstream"))
    assert isinstance(answered, ForwardHead)
    body = json.loads((await exchange.on_body(ANN)).body)  # type: ignore[union-attr,arg-type]
    etag = dict(answered.set_headers)["etag"]
    assert key_of(etag.strip('"')) == key_of(body["customerId"][4:]) == old.primary_id
    seen = await world.call("/customers/42", Answer(ANN, headers=HEADERS), as_="acme-billing")
    assert key_of(seen.set["etag"].strip('"')) == key_of(seen.json["customerId"][4:]) == new.primary_id


async def test_credentials_and_tokens_from_before_a_rotation_still_hold():
    """An API key that was registered before is known after it, and a token that was given before opens."""
    world = World()
    keyring, file, _ = a_keyring(world)
    token = (await world.call("/customers/42", Answer(ANN), as_="acme-billing")).json["customerId"]
    file.found = rotate(world.services.keyset, SOURCE, 9.0)
    await keyring.reload()
    seen = await world.call(f"/customers/{token}", Answer(ANN), as_="acme-billing")
    assert seen.request is not None
    assert seen.request.target == "/customers/42"


async def test_plans_are_kept_and_transforms_are_not():
    """Plans hold no key, so a swap costs no call a compilation; what holds a key is the new keyset's."""
    world = World()
    publisher = world.services.publisher
    keyring, file, _ = a_keyring(world)
    old = publisher.active
    rule = world.services.routes.rules[0]
    caller = Caller("default", "acme-billing")
    before = old.prepare(rule, caller, 1.0)
    file.found = rotate(world.services.keyset, SOURCE, 9.0)
    await keyring.reload()
    after = publisher.active.prepare(rule, caller, 1.0)
    assert after.plan is before.plan
    assert after.transforms is not before.transforms
    assert old.prepare(rule, caller, 1.0).transforms is before.transforms


async def test_a_candidate_set_of_policies_takes_the_new_keyset_too():
    """A canary that runs through a rotation seals with the new key, as the active set does."""
    world = World()
    publisher = world.services.publisher
    keyring, file, _ = a_keyring(world)
    publisher.try_out(publisher.active.policies, 100, frozenset(), world.services.routes)
    file.found = rotate(world.services.keyset, SOURCE, 9.0)
    new = await keyring.reload()
    assert isinstance(publisher.canary, Canary)
    assert publisher.canary.policies.keyset is publisher.active.keyset is new


@pytest.mark.parametrize("error", [KeyFileUnusable("cut"), KeyFileUnusable("the KMS is down")])
async def test_what_can_not_be_loaded_keeps_the_old_keyset(error: GharialError):
    """The problem is told until a reload succeeds, and both are counted."""
    world = World()
    keyring, file, _ = a_keyring(world)
    old = world.services.keyset
    file.found = error
    with pytest.raises(KeyFileUnusable):
        await keyring.reload()
    assert world.services.keyset is old
    assert keyring.problem == str(error)
    file.found = old
    await keyring.reload()
    assert (keyring.problem, keyring.counts.taken, keyring.counts.rejected) == ("", 1, 1)


async def test_an_older_keyset_is_refused_by_the_id_of_the_key_that_it_lacks():
    """Also by the gate that starts next; and a destroyed key does not come back."""
    world = World()
    keyring, file, memory = a_keyring(world)
    old = world.services.keyset
    await keyring.remember_start()
    file.found = newer = rotate(old, SOURCE, 9.0)
    await keyring.reload()
    file.found = old
    with pytest.raises(KeyFileOlder, match=str(newer.primary_id)):
        await keyring.reload()
    assert world.services.keyset is newer
    fresh = World()
    with pytest.raises(KeyFileOlder, match=str(newer.primary_id)):
        await Keyring(fresh.services.publisher, memory, file.load).remember_start()
    file.found = set_state(newer, old.primary_id, KeyState.DESTROYED)
    await keyring.reload()
    file.found = newer
    with pytest.raises(KeyFileOlder, match=f"{old.primary_id} was destroyed"):
        await keyring.reload()


async def test_a_state_that_an_older_copy_has_differently_is_noticed():
    """A key that was disabled is enabled in an older copy, and no key is missing: its revision tells."""
    world = World()
    keyring, file, _ = a_keyring(world)
    file.found = rotated = rotate(world.services.keyset, SOURCE, 9.0)
    await keyring.reload()
    file.found = set_state(rotated, rotated.keys[0].id, KeyState.DISABLED)
    await keyring.reload()
    file.found = rotated
    with pytest.raises(KeyFileOlder, match="revision 2 of the keyset, and revision 3 was in use"):
        await keyring.reload()


async def test_a_failure_that_nobody_expected_keeps_the_old_keyset_and_shows_no_text():
    """A bug while loading: the keyset stays, readiness tells its type alone."""
    world = World()
    keyring, file, _ = a_keyring(world)
    old = world.services.keyset
    file.found = RuntimeError("with a key in it")
    with pytest.raises(RuntimeError):
        await keyring.reload()
    assert world.services.keyset is old
    assert keyring.problem == "RuntimeError"


async def test_what_can_not_be_remembered_is_not_used():
    """A key that seals tokens and is not remembered could be lost without a word: the old keyset stays."""
    world = World()
    keyring, file, memory = a_keyring(world)
    old = world.services.keyset
    await keyring.remember_start()
    memory.broken = True
    file.found = rotate(old, SOURCE, 9.0)
    with pytest.raises(StoreUnwritable):
        await keyring.reload()
    assert world.services.keyset is old


async def test_reloads_that_come_at_once_end_with_the_newest_file():
    """Each reads the file after the one before it was done: none puts an older keyset over a newer one."""
    world = World()
    keyring, file, _ = a_keyring(world)
    keysets = [world.services.keyset]
    for number in range(5):
        keysets.append(rotate(keysets[-1], SOURCE, float(number)))

    async def change(keyset: Keyset) -> None:
        file.found = keyset
        await keyring.reload()

    await asyncio.gather(*(change(keyset) for keyset in keysets[1:]))
    assert world.services.keyset is keysets[-1]


def test_losses_are_told_by_key_and_a_newer_keyset_has_none():
    """Law over one life: a later keyset has no loss against an earlier one; another keyset lacks everything."""
    life = [create_keyset(SOURCE, 1.0)]
    for number in range(4):
        life.append(rotate(life[-1], SOURCE, float(number)))
    life.append(set_state(life[-1], life[-1].keys[1].id, KeyState.DISABLED))
    life.append(set_state(life[-1], life[-1].keys[1].id, KeyState.DESTROYED))
    for at, earlier in enumerate(life):
        for later in life[at:]:
            assert find_losses(known_of(earlier), later) == ()
    assert len(find_losses(known_of(life[4]), life[2])) == 2
    other = create_keyset(SOURCE, 1.0)
    (line,) = find_losses(known_of(life[0]), other)
    assert life[0].keyset_id in line
