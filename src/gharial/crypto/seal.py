"""Deterministic sealing of short texts: version, key id, AES-SIV (RFC 5297). Tokens and entity tags are made of it."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from gharial.crypto.encoding import find_base64url, to_base64url
from gharial.crypto.keyset import Keyset, Purpose
from gharial.model.errors import KeyUnknown

VERSION = b"\x01"
SIV_KEY_BYTES = 64
HEADER_BYTES = 5
SIV_BYTES = 16


def header(key_id: int) -> bytes:
    """Return version (1 byte) and key id (4, big endian): what stands before every sealed text, in clear."""
    return VERSION + key_id.to_bytes(4, "big")


def get_siv(keyset: Keyset, purpose: Purpose, tenant: str, tag: str, key_id: int) -> AESSIV:
    """Return the AES-256-SIV context of one key, tenant and tag, made once per keyset. Raises KeyUnknown."""
    return keyset.remember(
        (AESSIV, purpose, tenant, tag, key_id),
        lambda: AESSIV(keyset.derive(purpose, tenant, tag, SIV_KEY_BYTES, key_id)),
    )


def seal(keyset: Keyset, purpose: Purpose, tenant: str, tag: str, aad: bytes, plaintext: bytes) -> str:
    """Encrypt with the primary key, bound to `aad`; the same input gives the same text.

    Returns base64url, without padding, of version (1 byte), key id (4, big endian), SIV (16), ciphertext (as long as
    `plaintext`).
    """
    key_id = keyset.primary_id
    return to_base64url(header(key_id) + get_siv(keyset, purpose, tenant, tag, key_id).encrypt(plaintext, [aad]))


def find_opened(keyset: Keyset, purpose: Purpose, tenant: str, tag: str, aad: bytes, text: str) -> bytes | None:
    """Return the plaintext of what `seal` made, or None for anything else, without a word on what is wrong."""
    data = find_base64url(text)
    if data is None or len(data) < HEADER_BYTES + SIV_BYTES or data[:1] != VERSION:
        return None
    try:
        siv = get_siv(keyset, purpose, tenant, tag, int.from_bytes(data[1:HEADER_BYTES], "big"))
        return siv.decrypt(data[HEADER_BYTES:], [aad])
    except (KeyUnknown, InvalidTag):
        return None
