"""Tokens from the vault: random, so that nothing can be computed from them; what they stand for is kept, sealed.

The vault itself holds rows of three texts of bytes that say nothing without the keyset (`Entry`). Layout in
docs/keys-and-tokens.md.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import InvalidTag

from gharial.crypto.encoding import find_base64url, to_base64url
from gharial.crypto.keyset import Keyset, Purpose
from gharial.crypto.seal import get_siv, header
from gharial.crypto.subject import Subject
from gharial.crypto.token import KIND_OF, PREFIX, Binding
from gharial.model.errors import KeyUnknown, TokenRefused
from gharial.model.finding import Kind

TOKEN_BYTES = 16
_VERSION = b"\x02"
_LOOKUP_BYTES = 16
_LOOKUP_KEY_BYTES = 32
_HEADER_BYTES = 5
_SIV_BYTES = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the vault: `lookup` is a keyed digest of the value (16 bytes), `token` random (16), `sealed` the value.

    Both are bound to tenant, tag, scope and recipient; `sealed` to the token too.
    """

    lookup: bytes = field(repr=False)
    token: bytes = field(repr=False)
    sealed: bytes = field(repr=False)


class Tokens(Protocol):
    """Where the steps of one exchange get random tokens and keys of people from."""

    def token_of(self, maker: EntryMaker, plain: bytes) -> bytes:
        """Return the token of a value: 16 bytes, always the same for the same maker and value."""

    def subject_of(self, person: str) -> Subject | None:
        """Return the key of a person, given by the digest; None for one who was erased."""


class EntryMaker:
    """Makes rows for the values of one binding, and checks rows that come back.

    Digests and seals are of the oldest enabled key, as everything that must outlast a rotation (decision 0014).
    """

    __slots__ = ("_aad", "_head", "_keyed", "_siv")

    def __init__(self, keyset: Keyset, binding: Binding) -> None:
        """Raises KeyUnknown."""
        key_id = keyset.oldest_enabled_id
        self._aad = binding.aad()
        self._head = header(key_id)
        self._siv = get_siv(keyset, Purpose.VAULT, binding.tenant, binding.tag, key_id)
        keyed = keyset.remember(
            (hmac.HMAC, Purpose.VAULT_LOOKUP, binding.tenant, binding.tag),
            lambda: hmac.new(
                keyset.derive(Purpose.VAULT_LOOKUP, binding.tenant, binding.tag, _LOOKUP_KEY_BYTES, key_id),
                None,
                "sha256",
            ),
        ).copy()
        keyed.update(self._aad)
        self._keyed = keyed

    def lookup(self, plain: bytes) -> bytes:
        """Return the keyed digest under which the row of a value is kept."""
        keyed = self._keyed.copy()
        keyed.update(plain)
        return keyed.digest()[:_LOOKUP_BYTES]

    def make(self, plain: bytes, token: bytes) -> Entry:
        """Return the row of a value (a byte for its type, then its UTF-8) under a token that was drawn for it."""
        return Entry(self.lookup(plain), token, self._seal(plain, token))

    def holds(self, entry: Entry, plain: bytes) -> bool:
        """Return whether a row is the one of this value: made with this keyset, for this binding, and not altered."""
        return len(entry.token) == TOKEN_BYTES and self._seal(plain, entry.token) == entry.sealed

    def _seal(self, plain: bytes, token: bytes) -> bytes:
        return self._head + self._siv.encrypt(plain, [self._aad, token])


def write_token(token: bytes) -> str:
    """Return a token from the vault as recipients get it: 27 characters, whatever the value."""
    return PREFIX + to_base64url(_VERSION + token)


def find_token(text: str) -> bytes | None:
    """Return the 16 random bytes of what `write_token` wrote, None for anything else."""
    data = find_base64url(text[len(PREFIX) :]) if text.startswith(PREFIX) else None
    return data[1:] if data is not None and len(data) == 1 + TOKEN_BYTES and data[:1] == _VERSION else None


def open_sealed(keyset: Keyset, binding: Binding, token: bytes, sealed: bytes) -> tuple[Kind, str]:
    """Return type and text of the value in a row.

    Raises TokenRefused, the same for everything that may be wrong: not a row's seal, forged, of an unknown or disabled
    key, of another token, or made for another tenant, tag, scope or recipient.
    """
    plain = b""
    if binding.sound and len(sealed) > _HEADER_BYTES + _SIV_BYTES:
        key_id = int.from_bytes(sealed[1:_HEADER_BYTES], "big")
        if sealed[:_HEADER_BYTES] == header(key_id):
            try:
                siv = get_siv(keyset, Purpose.VAULT, binding.tenant, binding.tag, key_id)
                plain = siv.decrypt(sealed[_HEADER_BYTES:], [binding.aad(), token])
            except (KeyUnknown, InvalidTag):
                plain = b""
    kind = KIND_OF.get(plain[:1])
    if kind is None:
        raise TokenRefused
    return kind, plain[1:].decode("utf-8")
