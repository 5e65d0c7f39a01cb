"""Keyset: versioned keys with states and one primary, what is derived from them, and the KEK that wraps them.

Key material is in here and nowhere else. What other modules get is derived for one purpose, tenant and tag.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeVar, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gharial.crypto.encoding import encode_parts
from gharial.crypto.secret import SecretBytes
from gharial.model.errors import KeyFileUnusable, KeyUnknown

KEY_BYTES = 32
MAX_KEY_ID = 2**31 - 1
_LABEL = "gharial/derive/v1"
_MAX_DRAWS = 64
_T = TypeVar("_T")

Random = Callable[[int], bytes]
"""A cryptographic source: takes a count, gives that many random bytes (`os.urandom`)."""


class KeyState(enum.StrEnum):
    """`enabled` seals (the primary) and opens; `disabled` does neither, and can be enabled; `destroyed` is gone."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DESTROYED = "destroyed"


class Purpose(enum.StrEnum):
    """What a derived key is for. Closed: two purposes never share a key. The values are part of the derivation."""

    TOKEN = "token"  # noqa: S105 - a purpose, not a secret
    PERSON = "person"
    CREDENTIAL = "credential"
    ETAG = "etag"
    SEAL = "seal"
    FPE = "fpe"
    PSEUDONYM = "pseudonym"
    SUBSTITUTE = "substitute"
    SHIFT = "shift"
    VAULT = "vault"
    VAULT_LOOKUP = "vault_lookup"
    PERSON_KEY = "person_key"
    HANDLE = "handle"
    RECEIPT = "receipt"


@dataclass(frozen=True, slots=True)
class Key:
    """What may be known about a key: never its material. `created_s` is in whole seconds since the epoch."""

    id: int
    state: KeyState
    created_s: int


class Keyset:
    """Keys in the order in which they were made; immutable, so a running exchange keeps the keys it began with.

    Two keysets are equal only if they are the same object. It can't be pickled or copied.
    """

    __slots__ = ("__weakref__", "_materials", "_remembered", "_states", "keys", "keyset_id", "primary_id", "revision")

    def __init__(
        self,
        keyset_id: str,
        keys: tuple[Key, ...],
        primary_id: int,
        materials: Mapping[int, bytes],
        revision: int = 0,
    ) -> None:
        """`materials` holds 32 bytes for each key that is not destroyed. Raises ValueError if these don't agree.

        `revision` counts the changes of a keyset, from 1; 0 where nobody counted.
        """
        # Assigned before anything can fail: a traceback with local variables prints half-made objects too.
        self.keyset_id = keyset_id
        self.keys = keys
        self.primary_id = primary_id
        self.revision = revision
        self._remembered: dict[tuple[object, ...], object] = {}
        self._states = states = {key.id: key.state for key in keys}
        if len(states) != len(keys) or any(not 1 <= key.id <= MAX_KEY_ID for key in keys):
            raise ValueError("key ids are not unique numbers from 1 to 2**31 - 1")
        if states.get(primary_id) is not KeyState.ENABLED:
            raise ValueError("the primary is not one of the enabled keys")
        living = {key_id for key_id, state in states.items() if state is not KeyState.DESTROYED}
        if materials.keys() != living or any(len(material) != KEY_BYTES for material in materials.values()):
            raise ValueError("the keys that are not destroyed need 32 bytes of material each, the others none")
        self._materials = {key_id: SecretBytes(material) for key_id, material in materials.items()}

    @property
    def oldest_enabled_id(self) -> int:
        """The id of the first key, in the order of making, that is enabled.

        What must stay the same when the primary rotates hangs on this key. Order, not `created_s`: clocks go back.
        """
        return next(key.id for key in self.keys if key.state is KeyState.ENABLED)

    def derive(self, purpose: Purpose, tenant: str, tag: str, length: int, key_id: int | None = None) -> bytes:
        """Return `length` bytes of key for one purpose, tenant and tag, from key `key_id` (None: the primary).

        HKDF-SHA256 (RFC 5869) without salt; `info` is the length-prefixed (label, purpose, tenant, tag, length), so
        that no two of them meet, and a shorter key is not the beginning of a longer one.
        Raises KeyUnknown if there is no such key or it is not enabled.
        """
        material = self._get_material(self.primary_id if key_id is None else key_id)
        info = encode_parts(_LABEL, Purpose(purpose).value, tenant, tag, str(length))
        return SecretBytes(HKDF(hashes.SHA256(), length=length, salt=None, info=info).derive(material))

    def remember(self, name: tuple[object, ...], make: Callable[[], _T]) -> _T:
        """Return what `make` made when `name` was first asked for; it lives exactly as long as this keyset.

        `name` must name the type too, and come from policy and configuration, never from a payload: nothing is evicted.
        """
        known = self._remembered.get(name)
        if known is None:
            known = self._remembered[name] = make()
        return cast("_T", known)

    def _get_material(self, key_id: int) -> SecretBytes:
        state = self._states.get(key_id)
        if state is None:
            raise KeyUnknown(f"key {key_id} is not in keyset {self.keyset_id}")
        if state is not KeyState.ENABLED:
            raise KeyUnknown(f"key {key_id} of keyset {self.keyset_id} is {state.value}")
        return self._materials[key_id]

    def __repr__(self) -> str:
        keys = ", ".join(f"{key.id} {key.state.value}" for key in self.keys)
        return f"<Keyset {self.keyset_id}: {keys}; primary {self.primary_id}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyset can't be pickled or copied")


def create_keyset(random: Random, now_s: float) -> Keyset:
    """Return a keyset with one new key, enabled and primary."""
    keyset_id = draw(random, 16).hex()
    key = Key(_draw_key_id(random, frozenset()), KeyState.ENABLED, int(now_s))
    return Keyset(keyset_id, (key,), key.id, {key.id: draw(random, KEY_BYTES)}, 1)


def rotate(keyset: Keyset, random: Random, now_s: float) -> Keyset:
    """Return the keyset with a new primary; the keys before it keep their states, so what they sealed still opens."""
    key = Key(_draw_key_id(random, frozenset(old.id for old in keyset.keys)), KeyState.ENABLED, int(now_s))
    materials = dict(living_materials(keyset)) | {key.id: draw(random, KEY_BYTES)}
    return Keyset(keyset.keyset_id, (*keyset.keys, key), key.id, materials, keyset.revision + 1)


def set_state(keyset: Keyset, key_id: int, state: KeyState) -> Keyset:
    """Return the keyset with one key in another state; destroying drops its material for good.

    Tokens of a key that is not enabled are refused. If it was the oldest enabled key, digests of people and hashes of
    credentials change: every credential must be issued again. Raises KeyUnknown if there is no such key, if it is
    destroyed (nothing brings it back), or if it is the primary (rotate first).
    """
    old = next((key for key in keyset.keys if key.id == key_id), None)
    if old is None:
        raise KeyUnknown(f"key {key_id} is not in keyset {keyset.keyset_id}")
    if old.state is KeyState.DESTROYED and state is not KeyState.DESTROYED:
        raise KeyUnknown(f"key {key_id} is destroyed; nothing brings it back")
    if key_id == keyset.primary_id and state is not KeyState.ENABLED:
        raise KeyUnknown(f"key {key_id} is the primary; rotate the keyset before it is {state.value}")
    keys = tuple(Key(key.id, state, key.created_s) if key.id == key_id else key for key in keyset.keys)
    materials = dict(living_materials(keyset))
    if state is KeyState.DESTROYED:
        materials.pop(key_id, None)
    return Keyset(keyset.keyset_id, keys, keyset.primary_id, materials, keyset.revision + 1)


def living_materials(keyset: Keyset) -> Mapping[int, SecretBytes]:
    """Return the material of every key that is not destroyed, for wrapping and for nothing else."""
    return keyset._materials  # noqa: SLF001 - this module is the keyset's own


def parse_kek(text: str) -> bytes:
    """Read a KEK: 32 random bytes as base64 (44 characters); white space around it is ignored.

    Raises KeyFileUnusable, which never quotes the text.
    """
    try:
        kek = SecretBytes(base64.b64decode(text.strip().encode("ascii"), validate=True))
    except (UnicodeEncodeError, binascii.Error):
        kek = SecretBytes(b"")
    # Raised out here: inside the handler, the cause would carry the text along.
    if len(kek) != KEY_BYTES:
        raise KeyFileUnusable("the KEK must be 32 bytes in base64 (44 characters, '=' at the end); this is not")
    if len(set(kek)) == 1:
        raise KeyFileUnusable("the KEK is one byte repeated, as in a placeholder; it must be random")
    return kek


def new_kek(random: Random) -> str:
    """Return a new KEK as the text that `parse_kek` reads."""
    return base64.b64encode(draw(random, KEY_BYTES)).decode("ascii")


def draw(random: Random, count: int) -> SecretBytes:
    """Return `count` random bytes. Raises ValueError if the source gives another number of them."""
    data = SecretBytes(random(count))
    if len(data) != count:
        raise ValueError(f"the random source gave {len(data)} bytes instead of {count}")
    return data


def _draw_key_id(random: Random, taken: frozenset[int]) -> int:
    for _ in range(_MAX_DRAWS):
        key_id = int.from_bytes(draw(random, 4), "big") & MAX_KEY_ID
        if key_id and key_id not in taken:
            return key_id
    raise ValueError("the random source repeats itself")
