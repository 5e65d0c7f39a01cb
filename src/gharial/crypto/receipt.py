"""Receipts of erasures: signed with Ed25519 (RFC 8032), so that anybody with the public key can check one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gharial.crypto.encoding import find_base64url, to_base64url
from gharial.crypto.keyset import Keyset, KeyState, Purpose, set_state

FORMAT = "gharial.erasure"
VERSION = 1
_SEED_BYTES = 32
_PUBLIC_BYTES = 32


def sign_receipt(keyset: Keyset, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a receipt of what is told: with format, version, the keyset, the key of the signature, and the signature.

    It is signed by the primary: Ed25519 over the JSON of everything else, keys in order, without white space, ASCII.
    """
    key_id = keyset.primary_id
    head = {"format": FORMAT, "version": VERSION, "keyset": keyset.keyset_id, "key": key_id}
    receipt = {**head, **told}
    return {**receipt, "signature": to_base64url(_private(keyset, key_id).sign(_signed(receipt)))}


def verify_receipt(keyset: Keyset, receipt: Mapping[str, Any]) -> bool:
    """Return whether this keyset signed the receipt as it stands; a key that is disabled since then still counts."""
    keyset = _opened(keyset)
    key_id = receipt.get("key")
    if not isinstance(key_id, int) or key_id not in _living(keyset):
        return False
    return verify_with_public_key(_public(keyset, key_id), receipt)


def verify_with_public_key(public_key: str, receipt: Mapping[str, Any]) -> bool:
    """Return whether the receipt was signed by the key of which `public_keys` shows this text."""
    public, signature = find_base64url(public_key), receipt.get("signature")
    signed = find_base64url(signature) if isinstance(signature, str) else None
    if public is None or len(public) != _PUBLIC_BYTES or signed is None:
        return False
    if (receipt.get("format"), receipt.get("version")) != (FORMAT, VERSION):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(
            signed, _signed({name: value for name, value in receipt.items() if name != "signature"})
        )
    except InvalidSignature:
        return False
    return True


def public_keys(keyset: Keyset) -> dict[int, str]:
    """Return by key id the public keys that check receipts, 32 bytes in base64url; none for what is destroyed."""
    keyset = _opened(keyset)
    return {key_id: _public(keyset, key_id) for key_id in _living(keyset)}


def _private(keyset: Keyset, key_id: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(keyset.derive(Purpose.RECEIPT, "", "", _SEED_BYTES, key_id))


def _public(keyset: Keyset, key_id: int) -> str:
    return to_base64url(_private(keyset, key_id).public_key().public_bytes_raw())


def _opened(keyset: Keyset) -> Keyset:
    for key in keyset.keys:
        if key.state is KeyState.DISABLED:
            keyset = set_state(keyset, key.id, KeyState.ENABLED)
    return keyset


def _living(keyset: Keyset) -> list[int]:
    return [key.id for key in keyset.keys if key.state is not KeyState.DESTROYED]


def _signed(receipt: Mapping[str, Any]) -> bytes:
    return json.dumps(receipt, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
