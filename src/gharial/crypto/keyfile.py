"""The key file: a keyset wrapped by a KEK as one JSON text. Layout in docs/keys-and-tokens.md.

Whatever is not exactly what was written is found: one authenticator covers all of it, and it has one spelling only.
"""

from __future__ import annotations

import hmac
import json
import re
from typing import Annotated, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gharial.crypto.encoding import encode_parts, find_base64url, to_base64url
from gharial.crypto.keyset import KEY_BYTES, MAX_KEY_ID, Key, Keyset, KeyState, Random, draw, living_materials
from gharial.crypto.secret import SecretBytes
from gharial.model.errors import KeyFileUnusable

FORMAT = "gharial.keyset"
VERSION = 1
MAX_FILE_BYTES = 1_000_000
_NONCE_BYTES = 12
_RESTORE = "restore it from a backup, byte for byte"
_KEK_ID = re.compile(r"[0-9a-f]{8}")
_T = TypeVar("_T")

# Bounded, so that no number of a hostile file is too long to be printed in an error.
_Version = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_KeyId = Annotated[int, msgspec.Meta(ge=1, le=MAX_KEY_ID)]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Head(msgspec.Struct):
    format: str
    version: _Version


class _FileKey(msgspec.Struct, forbid_unknown_fields=True):
    id: _KeyId
    state: KeyState
    created_s: _Seconds
    wrapped: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    version: _Version
    keyset: str
    kek: str
    primary: _KeyId
    keys: list[_FileKey]
    seal: str


def wrap_keyset(keyset: Keyset, kek: bytes, random: Random) -> bytes:
    """Return the key file: clear metadata, each key's material wrapped on its own, one authenticator over everything.

    Each material is AES-256-GCM-SIV (RFC 8452) under a random nonce, bound to format, keyset id and key id.
    Raises KeyFileUnusable if the KEK is not 32 bytes.
    """
    kek = _get_kek(kek)
    materials = living_materials(keyset)
    aead = AESGCMSIV(_from_kek(kek, "wrap", keyset.keyset_id, KEY_BYTES))
    keys: list[_FileKey] = []
    for key in keyset.keys:
        wrapped = ""
        if key.id in materials:
            nonce = bytes(draw(random, _NONCE_BYTES))
            sealed = aead.encrypt(nonce, materials[key.id], _binding(keyset.keyset_id, key.id))
            wrapped = to_base64url(nonce + sealed)
        keys.append(_FileKey(key.id, key.state, key.created_s, wrapped))
    file = _File(FORMAT, VERSION, keyset.keyset_id, _kek_id(kek), keyset.primary_id, keys, "")
    file.seal = _seal(file, kek)
    return _render(file)


def unwrap_keyset(data: bytes, kek: bytes) -> Keyset:
    """Read what `wrap_keyset` wrote.

    Raises KeyFileUnusable if the file is truncated, edited in any byte, of a newer format, or wrapped by another KEK.
    """
    kek = _get_kek(kek)
    file = _parse(data)
    if not hmac.compare_digest(file.kek.encode(), _kek_id(kek).encode()):
        named = f"KEK {file.kek}" if _KEK_ID.fullmatch(file.kek) else "an unreadable KEK id"
        raise KeyFileUnusable(
            f"the key file names {named}, the one given is {_kek_id(kek)}; give the KEK that wrapped it"
        )
    materials: dict[int, SecretBytes] = {}
    broken: list[int] = []
    for key in file.keys:
        if key.state is KeyState.DESTROYED and not key.wrapped:
            continue
        material = _find_material(file.keyset, key, kek)
        if material is None:
            broken.append(key.id)
        else:
            materials[key.id] = material
    if broken:
        named = ", ".join(map(str, broken))
        raise KeyFileUnusable(f"the key file was edited: key {named} can't be unwrapped; {_RESTORE}")
    # Both: that the authenticator holds, and that nothing (white space, a name twice) stands beside what it covers.
    sealed = hmac.compare_digest(file.seal.encode("utf-8", "surrogatepass"), _seal(file, kek).encode())
    if not sealed or _render(file) != data:
        raise KeyFileUnusable(f"the key file was edited: its seal does not hold; {_RESTORE}")
    keys = tuple(Key(key.id, key.state, key.created_s) for key in file.keys)
    try:
        return Keyset(file.keyset, keys, file.primary, materials)
    except ValueError as err:
        raise KeyFileUnusable(f"the key file contradicts itself: {err}") from None


def _parse(data: bytes) -> _File:
    if len(data) > MAX_FILE_BYTES:
        raise KeyFileUnusable(f"the key file is larger than {MAX_FILE_BYTES} bytes, so it is none")
    head = _find_decoded(data, _Head)
    if head is None:
        raise KeyFileUnusable(f"the key file is empty, truncated or no key file; {_RESTORE}")
    if head.format != FORMAT:
        raise KeyFileUnusable(f"this is no key file: its 'format' is not '{FORMAT}'")
    if head.version > VERSION:
        raise KeyFileUnusable(
            f"the key file has format version {head.version}, this Gharial reads up to {VERSION}; use a newer Gharial"
        )
    file = _find_decoded(data, _File)
    if file is None or file.version != VERSION:
        raise KeyFileUnusable(f"the key file was edited: it is not of format version {VERSION}; {_RESTORE}")
    return file


def _find_decoded(data: bytes, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _find_material(keyset_id: str, key: _FileKey, kek: bytes) -> SecretBytes | None:
    blob = find_base64url(key.wrapped)
    if blob is None or len(blob) <= _NONCE_BYTES:
        return None
    aead = AESGCMSIV(_from_kek(kek, "wrap", keyset_id, KEY_BYTES))
    try:
        return SecretBytes(aead.decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], _binding(keyset_id, key.id)))
    except InvalidTag:
        return None


def _render(file: _File) -> bytes:
    """The one spelling of a key file. By hand over `json`, so that no library's new number format edits old files."""
    return (json.dumps(msgspec.to_builtins(file), indent=2) + "\n").encode("ascii")


def _seal(file: _File, kek: bytes) -> str:
    unsealed = _render(msgspec.structs.replace(file, seal=""))
    return to_base64url(hmac.digest(_from_kek(kek, "seal", file.keyset, KEY_BYTES), unsealed, "sha256"))


def _binding(keyset_id: str, key_id: int) -> bytes:
    return encode_parts(FORMAT, str(VERSION), keyset_id, str(key_id))


def _kek_id(kek: bytes) -> str:
    """Eight hexadecimal digits that tell one KEK from another; nothing of the KEK can be learnt from them."""
    return bytes(_from_kek(kek, "id", "", 4)).hex()


def _from_kek(kek: bytes, use: str, keyset_id: str, length: int) -> SecretBytes:
    info = encode_parts("gharial/kek/v1", use, keyset_id, str(length))
    return SecretBytes(HKDF(hashes.SHA256(), length=length, salt=None, info=info).derive(kek))


def _get_kek(kek: bytes) -> SecretBytes:
    if len(kek) != KEY_BYTES:
        raise KeyFileUnusable(f"the KEK has {len(kek)} bytes instead of {KEY_BYTES}")
    return SecretBytes(kek)
