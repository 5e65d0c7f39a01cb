"""Keysets in the format of Tink (https://developers.google.com/tink/wire-format), as JSON: in clear or encrypted.

A Gharial key is what Tink calls a PRF key (HKDF-SHA256 without salt): `derive` is its `compute` with the same info.
What is derived for the tokens of one tag is an AES-SIV key, and a token's bytes are a ciphertext of Tink's under it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gharial.crypto.kek import NONCE_BYTES, LocalKek, from_kek
from gharial.crypto.keyset import KEY_BYTES, MAX_KEY_ID, Key, Keyset, KeyState, Purpose, Random, draw, living_materials
from gharial.crypto.secret import SecretBytes
from gharial.model.errors import KeyFileUnusable, KeyNeeded

PRF_TYPE = "type.googleapis.com/google.crypto.tink.HkdfPrfKey"
SIV_TYPE = "type.googleapis.com/google.crypto.tink.AesSivKey"
MAX_TINK_BYTES = 1_000_000
_MAX_KEYS = 10_000

# The protocol buffers of both types of key have one field of fixed length at the end, and before it what never varies:
# HkdfPrfKey { params = 2 { hash = 1: SHA256 (3) }, key_value = 3 }, AesSivKey { key_value = 2 }; `version` is 0.
_PRF_HEAD = b"\x12\x02\x08\x03\x1a\x20"
_SIV_HEAD = b"\x12\x40"
_TOKEN_KEY_BYTES = 64

_STATUS = {KeyState.ENABLED: "ENABLED", KeyState.DISABLED: "DISABLED", KeyState.DESTROYED: "DESTROYED"}
_STATUS_NUMBERS = {1: "ENABLED", 2: "DISABLED", 3: "DESTROYED"}
_PREFIX_NUMBERS = {1: "TINK", 2: "LEGACY", 3: "RAW", 4: "CRUNCHY"}
_SYMMETRIC = 1

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


@dataclass(frozen=True, slots=True)
class _TinkKey:
    """One key of a keyset; `value` is the serialised key, empty if it is destroyed."""

    key_id: int
    status: str
    type_url: str
    prefix: str
    value: SecretBytes = field(repr=False)


class _KeyData(msgspec.Struct, rename="camel"):
    type_url: str
    value: str
    key_material_type: str

    def __repr__(self) -> str:
        return "<_KeyData>"


class _JsonKey(msgspec.Struct, rename="camel"):
    status: Literal["ENABLED", "DISABLED", "DESTROYED"]
    key_id: _Id
    output_prefix_type: str
    key_data: _KeyData | None = None


class _JsonKeyset(msgspec.Struct, rename="camel"):
    primary_key_id: _Id
    key: list[_JsonKey]


class _JsonEncrypted(msgspec.Struct, rename="camel"):
    encrypted_keyset: str


def export_cleartext(keyset: Keyset) -> SecretBytes:
    """Return all keys as a Tink keyset of PRF keys, IN CLEAR: whoever reads it can do all that Gharial can."""
    return _to_json(keyset.primary_id, list(_prf_keys(keyset)))


def export_cleartext_tokens(keyset: Keyset, tenant: str, tag: str) -> SecretBytes:
    """Return what opens and makes the tokens of one tag, as a Tink keyset of AES-SIV keys, IN CLEAR.

    It holds a key for each that is enabled. Tink's DeterministicAead takes a token's bytes (base64url after `tok_`),
    with `parts(tenant, tag, scope, recipient)` as associated data.
    """
    return _to_json(keyset.primary_id, list(_siv_keys(keyset, tenant, tag)))


def export_encrypted(keyset: Keyset, kek: LocalKek, random: Random) -> bytes:
    """Return all keys as an encrypted Tink keyset of PRF keys.

    The keyset's protocol buffer is sealed by AES-256-GCM (nonce of 12 bytes before the ciphertext, no associated data)
    under `from(KEK, "tink", "", 32)`: what Tink's AES256_GCM_RAW with that key opens.
    """
    return _encrypted(keyset.primary_id, list(_prf_keys(keyset)), kek, random)


def export_encrypted_tokens(keyset: Keyset, tenant: str, tag: str, kek: LocalKek, random: Random) -> bytes:
    """Return what `export_cleartext_tokens` does, encrypted as by `export_encrypted`."""
    return _encrypted(keyset.primary_id, list(_siv_keys(keyset, tenant, tag)), kek, random)


def import_tink(data: bytes, kek: LocalKek | None, keyset_id: str, now_s: float, revision: int = 1) -> Keyset:
    """Read what `export_cleartext` or `export_encrypted` wrote, or Tink did: PRF keys of HKDF-SHA256 with 32 bytes.

    Tink knows no times: all keys are of `now_s`, in the order in which they stand. Raises KeyFileUnusable for another
    type of key, for one that Gharial can't have, and for an encrypted keyset without the KEK that encrypted it.
    """
    # It may hold keys in clear, and would stand in every traceback that shows local variables.
    data = SecretBytes(data)
    primary, keys = _read(data, kek)
    materials: dict[int, SecretBytes] = {}
    found: list[Key] = []
    for key in keys:
        state = KeyState(key.status.lower())
        if not 1 <= key.key_id <= MAX_KEY_ID:
            raise KeyFileUnusable(f"key {key.key_id} of the Tink keyset has an id that is not from 1 to 2**31 - 1")
        if state is not KeyState.DESTROYED:
            materials[key.key_id] = _prf_material(key)
        found.append(Key(key.key_id, state, int(now_s)))
    try:
        return Keyset(keyset_id, tuple(found), primary, materials, revision)
    except ValueError as err:
        raise KeyFileUnusable(f"the Tink keyset can't be a keyset: {err}") from None


def adopt(imported: Keyset, present: Keyset) -> Keyset:
    """Return imported keys as the next revision of the present keyset, with the times of keys that are in both.

    Raises KeyNeeded if one id stands for two keys.
    """
    ours, theirs = living_materials(present), living_materials(imported)
    other = [key_id for key_id, material in theirs.items() if key_id in ours and ours[key_id] != material]
    if other:
        raise KeyNeeded(f"key {', '.join(map(str, other))} of the Tink keyset is another one than that of the key file")
    times = {key.id: key.created_s for key in present.keys}
    keys = tuple(Key(key.id, key.state, times.get(key.id, key.created_s)) for key in imported.keys)
    return Keyset(present.keyset_id, keys, imported.primary_id, theirs, present.revision + 1)


def _prf_keys(keyset: Keyset) -> Iterator[_TinkKey]:
    materials = living_materials(keyset)
    for key in keyset.keys:
        value = _PRF_HEAD + materials[key.id] if key.id in materials else b""
        yield _TinkKey(key.id, _STATUS[key.state], PRF_TYPE, "RAW", SecretBytes(value))


def _siv_keys(keyset: Keyset, tenant: str, tag: str) -> Iterator[_TinkKey]:
    for key in keyset.keys:
        if key.state is KeyState.ENABLED:
            derived = keyset.derive(Purpose.TOKEN, tenant, tag, _TOKEN_KEY_BYTES, key.id)
            yield _TinkKey(key.id, "ENABLED", SIV_TYPE, "TINK", SecretBytes(_SIV_HEAD + derived))


def _prf_material(key: _TinkKey) -> SecretBytes:
    if key.type_url != PRF_TYPE:
        kind = "an AES-SIV key, which is derived for one tag" if key.type_url == SIV_TYPE else "of another type"
        raise KeyFileUnusable(f"key {key.key_id} of the Tink keyset is {kind}; Gharial's own are HKDF-SHA256 PRF keys")
    if not key.value.startswith(_PRF_HEAD) or len(key.value) != len(_PRF_HEAD) + KEY_BYTES:
        raise KeyFileUnusable(f"key {key.key_id} of the Tink keyset is not HKDF-SHA256 without salt, of 32 bytes")
    return SecretBytes(key.value[len(_PRF_HEAD) :])


# --- JSON -----------------------------------------------------------------------------------------------------------


def _to_json(primary: int, keys: list[_TinkKey]) -> SecretBytes:
    shown = [
        {
            **({"keyData": _json_data(key)} if key.value else {}),
            "status": key.status,
            "keyId": key.key_id,
            "outputPrefixType": key.prefix,
        }
        for key in keys
    ]
    return SecretBytes(_pretty({"primaryKeyId": primary, "key": shown}))


def _json_data(key: _TinkKey) -> dict[str, str]:
    text = base64.b64encode(key.value).decode("ascii")
    return {"typeUrl": key.type_url, "value": text, "keyMaterialType": "SYMMETRIC"}


def _pretty(content: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _read(data: bytes, kek: LocalKek | None) -> tuple[int, list[_TinkKey]]:
    if len(data) > MAX_TINK_BYTES:
        raise KeyFileUnusable(f"the Tink keyset is larger than {MAX_TINK_BYTES} bytes")
    sealed = _find_sealed(data)
    if sealed is None:
        found = _find_json(data)
    else:
        plain = _find_opened(sealed, kek)
        if plain is None:
            raise KeyFileUnusable("the Tink keyset is encrypted, and keys.kek (32 bytes) is not what encrypted it")
        found = _find_proto(plain)
    if found is None or len(found[1]) > _MAX_KEYS:
        raise KeyFileUnusable("this is no Tink keyset in JSON, in clear or encrypted")
    return found


def _find_sealed(data: bytes) -> bytes | None:
    try:
        return base64.b64decode(msgspec.json.decode(data, type=_JsonEncrypted).encrypted_keyset, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None


def _find_json(data: bytes) -> tuple[int, list[_TinkKey]] | None:
    try:
        found = msgspec.json.decode(data, type=_JsonKeyset)
        return found.primary_key_id, [_of_json(key) for key in found.key]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None


def _of_json(key: _JsonKey) -> _TinkKey:
    data = key.key_data
    if data is None:
        return _TinkKey(key.key_id, key.status, "", key.output_prefix_type, SecretBytes(b""))
    value = SecretBytes(base64.b64decode(data.value, validate=True))
    return _TinkKey(key.key_id, key.status, data.type_url, key.output_prefix_type, value)


# --- encrypted ------------------------------------------------------------------------------------------------------


def _encrypted(primary: int, keys: list[_TinkKey], kek: LocalKek, random: Random) -> bytes:
    nonce = bytes(draw(random, NONCE_BYTES))
    aead = AESGCM(from_kek(kek.key, "tink", "", KEY_BYTES))
    sealed = nonce + aead.encrypt(nonce, _to_proto(primary, keys), None)
    info = [
        {"typeUrl": key.type_url, "status": key.status, "keyId": key.key_id, "outputPrefixType": key.prefix}
        for key in keys
    ]
    content = {
        "encryptedKeyset": base64.b64encode(sealed).decode("ascii"),
        "keysetInfo": {"primaryKeyId": primary, "keyInfo": info},
    }
    return _pretty(content)


def _find_opened(sealed: bytes, kek: LocalKek | None) -> SecretBytes | None:
    if kek is None or len(sealed) <= NONCE_BYTES:
        return None
    try:
        aead = AESGCM(from_kek(kek.key, "tink", "", KEY_BYTES))
        return SecretBytes(aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None))
    except InvalidTag:
        return None


# --- the protocol buffer: Keyset { primary_key_id = 1, key = 2 { key_data = 1 { type_url = 1, value = 2,
# key_material_type = 3 }, status = 2, key_id = 3, output_prefix_type = 4 } } ------------------------------------------


def _to_proto(primary: int, keys: list[_TinkKey]) -> SecretBytes:
    out = bytearray(_number(1, primary))
    for key in keys:
        inner = bytearray()
        if key.value:
            data = _block(1, key.type_url.encode()) + _block(2, key.value) + _number(3, _SYMMETRIC)
            inner += _block(1, data)
        inner += _number(2, _number_of(_STATUS_NUMBERS, key.status)) + _number(3, key.key_id)
        inner += _number(4, _number_of(_PREFIX_NUMBERS, key.prefix))
        out += _block(2, bytes(inner))
    return SecretBytes(out)


def _find_proto(data: bytes) -> tuple[int, list[_TinkKey]] | None:
    try:
        primary = 0
        keys = []
        for number, value in _fields(data):
            if number == 1 and isinstance(value, int):
                primary = value
            elif number == 2 and isinstance(value, bytes):
                keys.append(_of_proto(value))
        return primary, keys
    except (ValueError, KeyError, IndexError):
        return None


def _of_proto(data: bytes) -> _TinkKey:
    found: dict[int, int | bytes] = dict(_fields(data))
    inner = found.get(1, b"")
    parts = dict(_fields(inner)) if isinstance(inner, bytes) else {}
    type_url, value = parts.get(1, b""), parts.get(2, b"")
    status, key_id, prefix = found.get(2), found.get(3), found.get(4)
    if not (isinstance(type_url, bytes) and isinstance(value, bytes) and isinstance(key_id, int)):
        raise ValueError("a field has another type")
    status_name, prefix_name = _STATUS_NUMBERS[_int(status)], _PREFIX_NUMBERS[_int(prefix)]
    return _TinkKey(key_id, status_name, type_url.decode("ascii", "replace"), prefix_name, SecretBytes(value))


def _int(value: int | bytes | None) -> int:
    if not isinstance(value, int):
        raise ValueError("a field has another type")
    return value


def _number_of(names: dict[int, str], name: str) -> int:
    return next(number for number, known in names.items() if known == name)


def _number(tag: int, value: int) -> bytes:
    return bytes([tag << 3]) + _varint(value)


def _block(tag: int, data: bytes) -> bytes:
    return bytes([tag << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field: varints as int, blocks as bytes. Raises ValueError for anything else."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a number is too long")

    while at < len(data):
        head = varint()
        if head & 7 == 0:
            yield head >> 3, varint()
        elif head & 7 == 2:
            length = varint()
            if length > len(data) - at:
                raise ValueError("a block is cut")
            at += length
            yield head >> 3, SecretBytes(data[at - length : at])
        else:
            raise ValueError("a field of another wire type")
