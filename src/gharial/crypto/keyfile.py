"""The key file: a keyset wrapped under a KEK as one JSON text. Layout in docs/keys-and-tokens.md.

A data key of 32 random bytes wraps the keys, and the KEK wraps the data key (version 2). In version 1, which is still
read and no longer written, the KEK's 32 bytes took the place of the data key.

Whatever is not exactly what was written is found: one authenticator covers all of it, and it has one spelling only.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from gharial.crypto.encoding import encode_parts, find_base64url, to_base64url
from gharial.crypto.kek import NONCE_BYTES, Kek, LocalKek, WrappedKey, from_kek
from gharial.crypto.keyset import KEY_BYTES, MAX_KEY_ID, Key, Keyset, KeyState, Random, draw, living_materials
from gharial.crypto.secret import SecretBytes
from gharial.model.errors import KekUnavailable, KeyFileUnusable

FORMAT = "gharial.keyset"
VERSION = 2
MAX_FILE_BYTES = 1_000_000
_RESTORE = "restore it from a backup, byte for byte"
_KEK_ID = re.compile(r"[0-9a-f]{8}")
_T = TypeVar("_T")

# Bounded, so that no number of a hostile file is too long to be printed in an error.
_Version = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_KeyId = Annotated[int, msgspec.Meta(ge=1, le=MAX_KEY_ID)]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Text = Annotated[str, msgspec.Meta(max_length=8_192)]


class _Head(msgspec.Struct):
    format: str
    version: _Version


class _FileKey(msgspec.Struct, forbid_unknown_fields=True):
    id: _KeyId
    state: KeyState
    created_s: _Seconds
    wrapped: str


class _FileV1(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    version: _Version
    keyset: str
    kek: str
    primary: _KeyId
    keys: list[_FileKey]
    seal: str


class _FileKek(msgspec.Struct, forbid_unknown_fields=True):
    kind: _Text
    name: _Text
    parameters: dict[_Text, _Number | _Text]
    wrapped: _Text


class _FileV2(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    version: _Version
    keyset: str
    revision: _Number
    kek: _FileKek
    primary: _KeyId
    keys: list[_FileKey]
    seal: str


def wrap_keyset(keyset: Keyset, kek: Kek, random: Random) -> bytes:
    """Return the key file: clear metadata, each key's material wrapped on its own, one authenticator over everything.

    Each file has a data key of its own. Each material is AES-256-GCM-SIV (RFC 8452) under a random nonce and a key that
    is derived from the data key, bound to format, keyset id and key id. Raises what the KEK raises.
    """
    data_key = draw(random, KEY_BYTES)
    wrapped = kek.wrap(data_key, _data_key_binding(keyset.keyset_id), random)
    materials = living_materials(keyset)
    aead = AESGCMSIV(from_kek(data_key, "wrap", keyset.keyset_id, KEY_BYTES))
    keys: list[_FileKey] = []
    for key in keyset.keys:
        text = ""
        if key.id in materials:
            nonce = bytes(draw(random, NONCE_BYTES))
            sealed = aead.encrypt(nonce, materials[key.id], _binding(VERSION, keyset.keyset_id, key.id))
            text = to_base64url(nonce + sealed)
        keys.append(_FileKey(key.id, key.state, key.created_s, text))
    file_kek = _FileKek(wrapped.kind, wrapped.name, dict(wrapped.parameters), wrapped.wrapped)
    file = _FileV2(FORMAT, VERSION, keyset.keyset_id, keyset.revision, file_kek, keyset.primary_id, keys, "")
    file.seal = _seal(file, data_key)
    return _render(file)


def unwrap_keyset(data: bytes, kek: Kek) -> Keyset:
    """Read a key file of any version.

    Raises KeyFileUnusable if the file is truncated, edited in any byte, of a newer format, or wrapped by another KEK;
    KekUnavailable if the KEK can't be asked.
    """
    file = _parse(data)
    if isinstance(file, _FileV1):
        data_key, revision = _kek_of_v1(file, kek), 0
    else:
        data_key, revision = _data_key_of(file, kek), file.revision
    materials = _open_materials(file.version, file.keyset, file.keys, data_key)
    # Both: that the authenticator holds, and that nothing (white space, a name twice) stands beside what it covers.
    sealed = hmac.compare_digest(file.seal.encode("utf-8", "surrogatepass"), _seal(file, data_key).encode())
    if not sealed or _render(file) != data:
        raise KeyFileUnusable(f"the key file was edited: its seal does not hold; {_RESTORE}")
    keys = tuple(Key(key.id, key.state, key.created_s) for key in file.keys)
    try:
        return Keyset(file.keyset, keys, file.primary, materials, revision)
    except ValueError as err:
        raise KeyFileUnusable(f"the key file contradicts itself: {err}") from None


def _parse(data: bytes) -> _FileV1 | _FileV2:
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
    file: _FileV1 | _FileV2 | None
    file = _find_decoded(data, _FileV1) if head.version == 1 else _find_decoded(data, _FileV2)
    if file is None or file.version != head.version:
        raise KeyFileUnusable(f"the key file was edited: it is not of format version {head.version}; {_RESTORE}")
    return file


def _find_decoded(data: bytes, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _kek_of_v1(file: _FileV1, kek: Kek) -> SecretBytes:
    if not isinstance(kek, LocalKek):
        raise KeyFileUnusable(
            f"the key file is of format version 1, which 32 bytes wrap, and keys.kek is of kind {kek.kind}; give the "
            "KEK that wrapped it, or 'gharial keys rewrap'"
        )
    if not hmac.compare_digest(file.kek.encode("utf-8", "surrogatepass"), kek.kek_id.encode()):
        named = f"KEK {file.kek}" if _KEK_ID.fullmatch(file.kek) else "an unreadable KEK id"
        raise KeyFileUnusable(
            f"the key file names {named}, the one given is {kek.kek_id}; give the KEK that wrapped it"
        )
    return kek.key


def _data_key_of(file: _FileV2, kek: Kek) -> SecretBytes:
    wrapped = WrappedKey(file.kek.kind, file.kek.name, file.kek.wrapped, file.kek.parameters)
    data_key = SecretBytes(kek.unwrap(wrapped, _data_key_binding(file.keyset)))
    if len(data_key) != KEY_BYTES:
        raise KekUnavailable(f"{kek!r} unwrapped {len(data_key)} bytes instead of {KEY_BYTES}: that is no data key")
    return data_key


def _open_materials(
    version: int, keyset_id: str, keys: Sequence[_FileKey], data_key: SecretBytes
) -> dict[int, SecretBytes]:
    aead = AESGCMSIV(from_kek(data_key, "wrap", keyset_id, KEY_BYTES))
    materials: dict[int, SecretBytes] = {}
    broken: list[int] = []
    for key in keys:
        if key.state is KeyState.DESTROYED and not key.wrapped:
            continue
        material = _find_material(aead, key.wrapped, _binding(version, keyset_id, key.id))
        if material is None:
            broken.append(key.id)
        else:
            materials[key.id] = material
    if broken:
        named = ", ".join(map(str, broken))
        raise KeyFileUnusable(f"the key file was edited: key {named} can't be unwrapped; {_RESTORE}")
    return materials


def _find_material(aead: AESGCMSIV, text: str, binding: bytes) -> SecretBytes | None:
    blob = find_base64url(text)
    if blob is None or len(blob) <= NONCE_BYTES:
        return None
    try:
        return SecretBytes(aead.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], binding))
    except InvalidTag:
        return None


def _render(file: _FileV1 | _FileV2) -> bytes:
    """The one spelling of a key file. By hand over `json`, so that no library's new number format edits old files."""
    return (json.dumps(msgspec.to_builtins(file), indent=2) + "\n").encode("ascii")


def _seal(file: _FileV1 | _FileV2, data_key: bytes) -> str:
    unsealed = _render(msgspec.structs.replace(file, seal=""))
    return to_base64url(hmac.digest(from_kek(data_key, "seal", file.keyset, KEY_BYTES), unsealed, "sha256"))


def _binding(version: int, keyset_id: str, key_id: int) -> bytes:
    return encode_parts(FORMAT, str(version), keyset_id, str(key_id))


def _data_key_binding(keyset_id: str) -> bytes:
    return encode_parts(FORMAT, str(VERSION), keyset_id)
