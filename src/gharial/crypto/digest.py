"""Keyed digests: people in meters and audit, credentials in the store, and entity tags bound to caller and plan."""

from __future__ import annotations

import hmac
import unicodedata

from gharial.crypto.encoding import encode_parts, to_base64url
from gharial.crypto.keyset import Keyset, Purpose
from gharial.crypto.seal import find_opened, seal
from gharial.model.errors import PreconditionFailed

_PERSON_BYTES = 16
_MAC_KEY_BYTES = 32


def person_digest(keyset: Keyset, tenant: str, space: str, text: str, key_id: int | None = None) -> str:
    """Return what stands for a person outside the exchange: 22 characters of base64url.

    The first 128 bits of HMAC-SHA256 (FIPS 198-1) over the NFC of the text without white space around it. The key hangs
    on the keyset's oldest enabled key, so that a new primary does not make new people of known ones; `key_id` names
    another one. Raises KeyUnknown.
    """
    # Stripped after NFC, which turns some spaces into others. Lone surrogates are digested too: no person is left out.
    normal = text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip()
    return to_base64url(_digest(keyset, Purpose.PERSON, tenant, space, normal, key_id)[:_PERSON_BYTES])


def credential_hash(keyset: Keyset, credential: str) -> bytes:
    """Return the 32 bytes under which a credential is kept: HMAC-SHA256, keyed like `person_digest`.

    Fit for long random credentials that Gharial made; not for passwords, which people choose and others guess.
    """
    return _digest(keyset, Purpose.CREDENTIAL, "", "", credential)


def same_hash(left: bytes, right: bytes) -> bool:
    """Return whether two hashes are equal, in time that does not tell where they differ."""
    return hmac.compare_digest(left, right)


def seal_etag(keyset: Keyset, tenant: str, client: str, plan_digest: str, etag: str) -> str:
    """Return the entity tag that this client gets under this plan for the upstream's `etag`, quotes included.

    The upstream's tag is sealed whole, its `W/` too; the result itself never has one.
    """
    aad = encode_parts(tenant, client, plan_digest)
    return f'"{seal(keyset, Purpose.ETAG, tenant, "", aad, etag.encode("utf-8", "surrogatepass"))}"'


def open_etag(keyset: Keyset, tenant: str, client: str, plan_digest: str, etag: str) -> str:
    """Return the upstream's entity tag behind what `seal_etag` made.

    Raises PreconditionFailed for anything that was not issued to this client under this plan.
    """
    plaintext = None
    if len(etag) > 2 and etag[0] == '"' == etag[-1]:
        aad = encode_parts(tenant, client, plan_digest)
        plaintext = find_opened(keyset, Purpose.ETAG, tenant, "", aad, etag[1:-1])
    if plaintext is None:
        raise PreconditionFailed
    return plaintext.decode("utf-8", "surrogatepass")


def _digest(keyset: Keyset, purpose: Purpose, tenant: str, tag: str, text: str, key_id: int | None = None) -> bytes:
    """Return HMAC-SHA256 of the text under the key that lasts.

    From a copy of one that has taken up its key: `hmac.digest` lets other threads run each time, which costs a busy
    event loop many times what it computes.
    """
    keyed = keyset.remember(
        (hmac.HMAC, purpose, tenant, tag, key_id),
        lambda: hmac.new(
            keyset.derive(purpose, tenant, tag, _MAC_KEY_BYTES, key_id or keyset.oldest_enabled_id), None, "sha256"
        ),
    ).copy()
    keyed.update(text.encode("utf-8", "surrogatepass"))
    return keyed.digest()
