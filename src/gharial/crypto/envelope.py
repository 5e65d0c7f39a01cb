"""Envelopes: a value encrypted anew each time, so that equal ones differ; whoever holds the keyset can open it.

AES-256-GCM-SIV (RFC 8452) under a random nonce, bound to tenant and tag. Layout in docs/keys-and-tokens.md.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from gharial.crypto.encoding import encode_parts, find_base64url, find_utf8, to_base64url
from gharial.crypto.keyset import Keyset, Purpose, Random, draw
from gharial.crypto.token import KIND_BYTE, KIND_OF
from gharial.model.errors import KeyUnknown, TokenRefused
from gharial.model.finding import Kind

PREFIX = "enc_"
_VERSION = b"\x01"
_KEY_BYTES = 32
_HEADER_BYTES = 5
_NONCE_BYTES = 12
_TAG_BYTES = 16

Seal = Callable[[Kind, str], str | None]


def sealer(keyset: Keyset, tenant: str, tag: str, random: Random) -> Seal:
    """Return a function from type and text to an envelope under the primary key; None for text that has no UTF-8."""
    key_id = keyset.primary_id
    aead, aad = _aead_of(keyset, tenant, tag, key_id), _aad(tenant, tag)
    head = _VERSION + key_id.to_bytes(4, "big")

    def seal(kind: Kind, text: str) -> str | None:
        data = find_utf8(text)
        if data is None:
            return None
        nonce = bytes(draw(random, _NONCE_BYTES))
        return PREFIX + to_base64url(head + nonce + aead.encrypt(nonce, KIND_BYTE[kind] + data, aad))

    return seal


def open_envelope(keyset: Keyset, tenant: str, tag: str, envelope: str) -> tuple[Kind, str]:
    """Return type and text of the value in an envelope.

    Raises TokenRefused, the same for everything that may be wrong: no envelope, not spelled as it was made, forged, of
    an unknown or disabled key, or made for another tenant or tag.
    """
    data = find_base64url(envelope[len(PREFIX) :]) if envelope.startswith(PREFIX) else None
    plaintext = b""
    if data is not None and data[:1] == _VERSION and len(data) > _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES:
        nonce, sealed = data[_HEADER_BYTES:][:_NONCE_BYTES], data[_HEADER_BYTES + _NONCE_BYTES :]
        try:
            aead = _aead_of(keyset, tenant, tag, int.from_bytes(data[1:_HEADER_BYTES], "big"))
            plaintext = aead.decrypt(nonce, sealed, _aad(tenant, tag))
        except (KeyUnknown, InvalidTag):
            plaintext = b""
    kind = KIND_OF.get(plaintext[:1])
    if kind is None:
        raise TokenRefused
    return kind, plaintext[1:].decode("utf-8")


def _aead_of(keyset: Keyset, tenant: str, tag: str, key_id: int) -> AESGCMSIV:
    return keyset.remember(
        (AESGCMSIV, tenant, tag, key_id),
        lambda: AESGCMSIV(keyset.derive(Purpose.SEAL, tenant, tag, _KEY_BYTES, key_id)),
    )


def _aad(tenant: str, tag: str) -> bytes:
    return encode_parts(tenant, tag)
