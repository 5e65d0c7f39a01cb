"""The KEK: what wraps the one data key of a key file. Local bytes and passphrases are here; a KMS is an adapter.

A KEK is asked when a key file is read or written, and never per value.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gharial.crypto.encoding import encode_parts, find_base64url, to_base64url
from gharial.crypto.keyset import KEY_BYTES, Random, draw
from gharial.crypto.secret import SecretBytes
from gharial.model.errors import KeyFileUnusable

NONCE_BYTES = 12

ARGON_MEMORY_KIB, ARGON_PASSES, ARGON_LANES = 65_536, 3, 4
"""What new files have: the second recommended choice of RFC 9106, section 4. Takes 64 MiB and about 0.1 s."""

_SALT_BYTES = 16
_BOUNDS = {"memory_kib": (8_192, 262_144), "passes": (1, 10), "lanes": (1, 16)}
"""What a file may ask for. Above these a hostile one would cost memory and minutes before anything is checked."""

MIN_PASSPHRASE = 12
"""Characters of a passphrase that may wrap a new file."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as it stands in a key file; nothing in it is secret.

    `kind` is the sort of KEK, `name` which one of that sort (an id, or what the KMS calls it), `parameters` what it
    needs beside itself, `wrapped` the ciphertext as text.
    """

    kind: str
    name: str
    wrapped: str
    parameters: Mapping[str, int | str] = field(default_factory=dict)


class Kek(Protocol):
    """A key that wraps data keys. Its repr shows no secret."""

    @property
    def kind(self) -> str:
        """The sort of KEK, as key files name it."""

    def wrap(self, data_key: bytes, binding: bytes, random: Random) -> WrappedKey:
        """Wrap 32 bytes, bound to `binding`. Raises KekUnavailable, KeyFileUnusable."""

    def unwrap(self, wrapped: WrappedKey, binding: bytes) -> bytes:
        """Return the 32 bytes of what `wrap` made under the same binding.

        Raises KekUnavailable if the KEK can't be asked or does not answer as it should, KeyFileUnusable if this is not
        the KEK that wrapped it, or the file was edited.
        """


class LocalKek:
    """A KEK of 32 bytes that this process holds."""

    kind = "local"

    def __init__(self, key: bytes) -> None:
        """Raises KeyFileUnusable if it is not 32 bytes."""
        if len(key) != KEY_BYTES:
            raise KeyFileUnusable(f"the KEK has {len(key)} bytes instead of {KEY_BYTES}")
        self.key = SecretBytes(key)
        self.kek_id = bytes(from_kek(self.key, "id", "", 4)).hex()

    def wrap(self, data_key: bytes, binding: bytes, random: Random) -> WrappedKey:
        """See Kek. AES-256-GCM-SIV (RFC 8452) under a random nonce."""
        return WrappedKey(self.kind, self.kek_id, _seal(self.key, data_key, binding, random))

    def unwrap(self, wrapped: WrappedKey, binding: bytes) -> bytes:
        """See Kek."""
        refuse_other_kind(self, wrapped)
        if wrapped.name != self.kek_id:
            raise KeyFileUnusable(
                f"the key file names KEK {printable(wrapped.name)}, the one given is {self.kek_id}; give the KEK that "
                "wrapped it"
            )
        return _open(self.key, wrapped.wrapped, binding)

    def __repr__(self) -> str:
        return f"<LocalKek {self.kek_id}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KEK can't be pickled or copied")


class PassphraseKek:
    """A KEK that is made of a passphrase by Argon2id (RFC 9106); salt and costs stand in the key file."""

    kind = "passphrase"

    def __init__(self, passphrase: str) -> None:
        # NFC: the same passphrase typed on two systems is the same bytes.
        self._passphrase = SecretBytes(unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass"))
        self._length = len(passphrase)

    def wrap(self, data_key: bytes, binding: bytes, random: Random) -> WrappedKey:
        """See Kek. Raises KeyFileUnusable for a passphrase that is too short to protect anything."""
        if self._length < MIN_PASSPHRASE:
            raise KeyFileUnusable(f"the passphrase has fewer than {MIN_PASSPHRASE} characters; take a longer one")
        salt = bytes(draw(random, _SALT_BYTES))
        kek = self._kek(salt, ARGON_MEMORY_KIB, ARGON_PASSES, ARGON_LANES)
        inner = kek.wrap(data_key, binding, random)
        costs = {"memory_kib": ARGON_MEMORY_KIB, "passes": ARGON_PASSES, "lanes": ARGON_LANES}
        return WrappedKey(self.kind, inner.name, inner.wrapped, {"salt": to_base64url(salt), **costs})

    def unwrap(self, wrapped: WrappedKey, binding: bytes) -> bytes:
        """See Kek. Raises KeyFileUnusable also for costs that no Gharial wrote, before any of them is paid."""
        refuse_other_kind(self, wrapped)
        salt, *costs = _argon_parameters(wrapped.parameters)
        kek = self._kek(salt, *costs)
        if wrapped.name != kek.kek_id:
            raise KeyFileUnusable("the passphrase is not the one that wrapped the key file; give that one")
        return _open(kek.key, wrapped.wrapped, binding)

    def _kek(self, salt: bytes, memory_kib: int, passes: int, lanes: int) -> LocalKek:
        argon = Argon2id(salt=salt, length=KEY_BYTES, iterations=passes, lanes=lanes, memory_cost=memory_kib)
        return LocalKek(argon.derive(self._passphrase))

    def __repr__(self) -> str:
        return "<PassphraseKek>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KEK can't be pickled or copied")


def refuse_other_kind(kek: Kek, wrapped: WrappedKey) -> None:
    """Raise KeyFileUnusable if the file was wrapped by another sort of KEK."""
    if wrapped.kind != kek.kind:
        raise KeyFileUnusable(
            f"the key file is wrapped by a KEK of kind {printable(wrapped.kind)}, keys.kek is of kind {kek.kind}; give "
            "the KEK that wrapped it, or 'gharial keys rewrap'"
        )


def printable(text: str) -> str:
    """Return a name that a file gave, fit for an error: short, and of plain characters."""
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text[:80]) or "(empty)"


def from_kek(kek: bytes, use: str, keyset_id: str, length: int) -> SecretBytes:
    """Return what is derived from 32 bytes for one use and keyset: HKDF-SHA256 (RFC 5869) without salt."""
    info = encode_parts("gharial/kek/v1", use, keyset_id, str(length))
    return SecretBytes(HKDF(hashes.SHA256(), length=length, salt=None, info=info).derive(kek))


def _seal(kek: bytes, data_key: bytes, binding: bytes, random: Random) -> str:
    nonce = bytes(draw(random, NONCE_BYTES))
    return to_base64url(nonce + AESGCMSIV(from_kek(kek, "data-key", "", KEY_BYTES)).encrypt(nonce, data_key, binding))


def _open(kek: bytes, text: str, binding: bytes) -> bytes:
    blob = find_base64url(text)
    if blob is not None and len(blob) > NONCE_BYTES:
        try:
            aead = AESGCMSIV(from_kek(kek, "data-key", "", KEY_BYTES))
            return SecretBytes(aead.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], binding))
        except InvalidTag:
            pass
    raise KeyFileUnusable("the key file was edited: its data key can't be unwrapped; restore it, byte for byte")


def _argon_parameters(parameters: Mapping[str, int | str]) -> tuple[bytes, int, int, int]:
    costs = []
    for name, (least, most) in _BOUNDS.items():
        cost = parameters.get(name)
        if not isinstance(cost, int) or not least <= cost <= most:
            raise KeyFileUnusable(f"the key file was edited: its passphrase's {name} is not from {least} to {most}")
        costs.append(cost)
    text = parameters.get("salt")
    salt = find_base64url(text) if isinstance(text, str) else None
    if salt is None or len(salt) != _SALT_BYTES:
        raise KeyFileUnusable(f"the key file was edited: its passphrase's salt is not {_SALT_BYTES} bytes")
    memory_kib, passes, lanes = costs
    return salt, memory_kib, passes, lanes
