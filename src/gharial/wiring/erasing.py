"""The command line's side of erasure: through the admin socket of a running gateway, or on its store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from gharial.adapters.admin import AdminClient
from gharial.adapters.files import load_gateway_files
from gharial.adapters.key_file import load_keyset
from gharial.adapters.store import SqlitePersonKeys, open_store
from gharial.crypto.digest import person_digest
from gharial.crypto.keyset import Keyset
from gharial.crypto.receipt import public_keys, verify_receipt
from gharial.crypto.subject import person_digests
from gharial.gate.erasing import Eraser, Who, spaces_of
from gharial.gate.people import PersonBook
from gharial.model.errors import RequestMalformed
from gharial.settings import load_settings
from gharial.wiring.operator import gate_answers
from gharial.wiring.world import SystemClock, iso_time, random_bytes

_T = TypeVar("_T")
MAX_RECEIPT_BYTES = 1_000_000


def erase_person(config_path: Path, who: Who) -> dict[str, Any]:
    """Destroy a person's key, and return the receipt. Raises GharialError."""
    admin = _admin(config_path)
    if admin is not None:
        return dict(admin.call("POST", "/people/erase", {"space": who.space, "id": who.id}))
    return asyncio.run(_locally(config_path, lambda eraser: eraser.erase(who)))


def forget_person(config_path: Path, who: Who) -> int:
    """Let a person who was erased have a new key if seen again; return how many notes went. Raises GharialError."""
    admin = _admin(config_path)
    if admin is not None:
        return int(admin.call("POST", "/people/forget", {"space": who.space, "id": who.id})["forgotten"])
    return asyncio.run(_locally(config_path, lambda eraser: eraser.forget(who)))


def digest_of(config_path: Path, who: Who) -> str:
    """Return the digest of a person, as it stands in the audit. Raises GharialError."""
    return person_digest(_keyset(config_path), load_settings(config_path).tenant, who.space, who.id)


def check_receipt(config_path: Path, path: Path, who: Who | None) -> dict[str, Any]:
    """Return what a receipt says, and whether it is ours and of this person (None where nobody was named).

    Raises RequestMalformed for a file that is no receipt, KeyFileUnusable.
    """
    try:
        with path.open("rb") as file:
            receipt = json.loads(file.read(MAX_RECEIPT_BYTES))
    except OSError as error:
        raise RequestMalformed(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        receipt = None
    if not isinstance(receipt, dict):
        raise RequestMalformed(f"{path} is no receipt")
    keyset = _keyset(config_path)
    of_person = None
    if who is not None:
        digests = person_digests(keyset, str(receipt.get("tenant")), who.space, who.id)
        people = receipt.get("people")
        of_person = receipt.get("space") == who.space and isinstance(people, list) and not {*digests}.isdisjoint(people)
    return {"signed_by_us": verify_receipt(keyset, receipt), "of_this_person": of_person, "receipt": receipt}


def keys_of_receipts(config_path: Path) -> dict[int, str]:
    """Return by key id the public keys that check receipts. Raises KeyFileUnusable."""
    return public_keys(_keyset(config_path))


def _keyset(config_path: Path) -> Keyset:
    return load_keyset(load_settings(config_path), config_path.resolve().parent)


def _admin(config_path: Path) -> AdminClient | None:
    path = config_path.resolve().parent / load_settings(config_path).admin.socket
    return AdminClient(path) if gate_answers(path) else None


async def _locally(config_path: Path, work: Callable[[Eraser], Awaitable[_T]]) -> _T:
    files = load_gateway_files(config_path)
    keyset = await asyncio.to_thread(load_keyset, files.settings, files.base)
    store = open_store(files.store_path)
    try:
        people = PersonBook(SqlitePersonKeys(store), files.settings.tenant, random_bytes, SystemClock().now_s)
        return await work(Eraser(people, lambda: keyset, lambda: spaces_of(files.policies.values()), iso_time))
    finally:
        store.close()
