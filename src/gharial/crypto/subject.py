"""Keys of people: random, kept wrapped, so that destroying one ends every token and ciphertext of that person.

What is made with one names the person's key by a handle, which is itself encrypted, for its recipient and for this very
value: two tokens have nothing in common that tells they are of one person. Layout in docs/keys-and-tokens.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gharial.crypto import envelope
from gharial.crypto.digest import person_digest
from gharial.crypto.encoding import encode_parts, find_base64url, to_base64url
from gharial.crypto.keyset import KEY_BYTES, Keyset, KeyState, Purpose, Random, draw, set_state
from gharial.crypto.seal import SIV_BYTES, get_siv
from gharial.crypto.secret import SecretBytes
from gharial.crypto.token import KIND_BYTE, KIND_OF, PREFIX, Binding
from gharial.model.errors import KeyUnknown, TokenRefused
from gharial.model.finding import Kind

HANDLE_BYTES = 16
TOKEN_VERSION = b"\x03"
ENVELOPE_VERSION = b"\x02"
_WRAP_VERSION = b"\x01"
_LABEL = "gharial/subject/v1"
_HEADER_BYTES = 5
_NONCE_BYTES = 12
_TAG_BYTES = 16
_SEALED_HANDLE_BYTES = SIV_BYTES + HANDLE_BYTES
WRAPPED_BYTES = _HEADER_BYTES + _NONCE_BYTES + KEY_BYTES + _TAG_BYTES


@dataclass(frozen=True, slots=True)
class PersonKey:
    """A row of the key store. `person` is a digest, `handle` random (16 bytes), `wrapped` the key, encrypted.

    `wrapped` is empty and `erased_s` set where the key was destroyed. Times are in seconds since the epoch.
    """

    person: str
    handle: bytes = field(repr=False)
    wrapped: bytes = field(repr=False)
    created_s: float
    erased_s: float | None = None


class Subject:
    """A person's key, ready for use. It prints nothing of itself."""

    __slots__ = ("_aead", "_siv", "handle")

    def __init__(self, handle: bytes, material: bytes) -> None:
        """`material` are the 32 random bytes of the person's key."""
        self.handle = handle
        self._siv = AESSIV(_expand(material, "token", 64))
        self._aead = AESGCMSIV(_expand(material, "encrypt", 32))

    def seal(self, plain: bytes, aad: bytes) -> bytes:
        """Encrypt so that equal values have equal results: SIV (16 bytes), ciphertext."""
        return self._siv.encrypt(plain, [aad])

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Return what `seal` sealed. Raises InvalidTag."""
        return self._siv.decrypt(sealed, [aad])

    def encrypt(self, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
        """Encrypt under a nonce (12 bytes): ciphertext, tag (16)."""
        return self._aead.encrypt(nonce, plain, aad)

    def decrypt(self, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        """Return what `encrypt` encrypted. Raises InvalidTag."""
        return self._aead.decrypt(nonce, sealed, aad)


def _expand(material: bytes, use: str, length: int) -> bytes:
    info = encode_parts(_LABEL, use, str(length))
    return SecretBytes(HKDF(hashes.SHA256(), length=length, salt=None, info=info).derive(material))


# --- rows -------------------------------------------------------------------------------------------------------


def new_person_key(keyset: Keyset, tenant: str, person: str, random: Random, now_s: float) -> PersonKey:
    """Return a new row with a random key, wrapped by one of the oldest enabled key.

    As everything that a rotation must not change (decision 0014); the digest of the person hangs on it too.
    """
    handle = bytes(draw(random, HANDLE_BYTES))
    nonce = bytes(draw(random, _NONCE_BYTES))
    key_id = keyset.oldest_enabled_id
    head = _WRAP_VERSION + key_id.to_bytes(4, "big")
    sealed = _wrapper(keyset, tenant, key_id).encrypt(nonce, draw(random, KEY_BYTES), _wrap_aad(tenant, person, handle))
    return PersonKey(person, handle, head + nonce + sealed, now_s)


def find_subject(keyset: Keyset, tenant: str, row: PersonKey) -> Subject | None:
    """Return the key of a row. None if it is destroyed, of a key that is not enabled, altered or another person's."""
    data = row.wrapped
    if row.erased_s is not None or len(data) != WRAPPED_BYTES or data[:1] != _WRAP_VERSION:
        return None
    nonce, sealed = data[_HEADER_BYTES:][:_NONCE_BYTES], data[_HEADER_BYTES + _NONCE_BYTES :]
    try:
        wrapper = _wrapper(keyset, tenant, int.from_bytes(data[1:_HEADER_BYTES], "big"))
        material = SecretBytes(wrapper.decrypt(nonce, sealed, _wrap_aad(tenant, row.person, row.handle)))
    except (KeyUnknown, InvalidTag):
        return None
    return Subject(row.handle, material)


def person_digests(keyset: Keyset, tenant: str, space: str, text: str) -> tuple[str, ...]:
    """Return all digests under which a person's key may be kept: of each key that can still become the oldest."""
    for key in keyset.keys:
        if key.state is KeyState.DISABLED:
            keyset = set_state(keyset, key.id, KeyState.ENABLED)
    living = (key.id for key in keyset.keys if key.state is not KeyState.DESTROYED)
    return tuple(person_digest(keyset, tenant, space, text, key_id) for key_id in living)


def _wrapper(keyset: Keyset, tenant: str, key_id: int) -> AESGCMSIV:
    return keyset.remember(
        (AESGCMSIV, Purpose.PERSON_KEY, tenant, key_id),
        lambda: AESGCMSIV(keyset.derive(Purpose.PERSON_KEY, tenant, "", KEY_BYTES, key_id)),
    )


def _wrap_aad(tenant: str, person: str, handle: bytes) -> bytes:
    return encode_parts(tenant, person) + handle


# --- tokens and envelopes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sealed:
    """A token or an envelope whose handle is authentic for who asks: the key's handle, and the value under that key."""

    handle: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    value: bytes = field(repr=False)
    aad: bytes = field(repr=False)


class SubjectSealer:
    """Makes tokens of one binding, each under the key of its person."""

    __slots__ = ("_aad", "_head", "_siv")

    def __init__(self, keyset: Keyset, binding: Binding) -> None:
        """Raises KeyUnknown."""
        key_id = keyset.oldest_enabled_id
        self._head = TOKEN_VERSION + key_id.to_bytes(4, "big")
        self._siv = get_siv(keyset, Purpose.HANDLE, binding.tenant, binding.tag, key_id)
        self._aad = binding.aad()

    def token(self, subject: Subject, kind: Kind, data: bytes) -> str:
        """Return the token of a value (its UTF-8); the same value of the same person has the same one."""
        value = subject.seal(KIND_BYTE[kind] + data, self._aad)
        return PREFIX + to_base64url(self._head + self._siv.encrypt(subject.handle, [self._aad, value]) + value)


class SubjectEncrypter:
    """Makes envelopes of one tenant and tag, each under the key of its person."""

    __slots__ = ("_aad", "_head", "_random", "_siv")

    def __init__(self, keyset: Keyset, tenant: str, tag: str, random: Random) -> None:
        """`random` gives the nonces. Raises KeyUnknown."""
        key_id = keyset.oldest_enabled_id
        self._head = ENVELOPE_VERSION + key_id.to_bytes(4, "big")
        self._siv = get_siv(keyset, Purpose.HANDLE, tenant, tag, key_id)
        self._aad = encode_parts(tenant, tag)
        self._random = random

    def envelope(self, subject: Subject, kind: Kind, data: bytes) -> str:
        """Return an envelope of a value (its UTF-8); each time another one."""
        nonce = bytes(draw(self._random, _NONCE_BYTES))
        value = subject.encrypt(nonce, KIND_BYTE[kind] + data, self._aad)
        handle = self._siv.encrypt(subject.handle, [self._aad, nonce + value])
        return envelope.PREFIX + to_base64url(self._head + nonce + handle + value)


def is_subject_token(text: str) -> bool:
    """Return whether the text has the form of a token under a person's key. Cheap."""
    return _parts(text, PREFIX, TOKEN_VERSION) is not None


def key_id_of(text: str) -> int:
    """Return the id of the keyset's key that a token under a person's key names; 0 for any other text."""
    data = _parts(text, PREFIX, TOKEN_VERSION)
    return 0 if data is None else int.from_bytes(data[1:_HEADER_BYTES], "big")


def is_subject_envelope(text: str) -> bool:
    """Return whether the text has the form of an envelope under a person's key. Cheap."""
    return _parts(text, envelope.PREFIX, ENVELOPE_VERSION) is not None


def find_sealed_token(keyset: Keyset, bindings: Sequence[Binding], text: str) -> tuple[Binding, Sealed] | None:
    """Return the binding that a token was made for, and whose key opens it; None if for none of these.

    It was made by this keyset then, for this recipient: the handle is authentic, and bound to the value.
    """
    data = _parts(text, PREFIX, TOKEN_VERSION)
    if data is None:
        return None
    key_id = int.from_bytes(data[1:_HEADER_BYTES], "big")
    handle, value = data[_HEADER_BYTES:][:_SEALED_HANDLE_BYTES], data[_HEADER_BYTES + _SEALED_HANDLE_BYTES :]
    for binding in bindings:
        aad = binding.aad()
        opened = _open_handle(keyset, binding.tenant, binding.tag, key_id, handle, [aad, value])
        if binding.sound and opened is not None:
            return binding, Sealed(opened, b"", value, aad)
    return None


def find_sealed_envelope(keyset: Keyset, tenant: str, tag: str, text: str) -> Sealed | None:
    """Return whose key opens an envelope; None if it is none of this tenant and tag."""
    data = _parts(text, envelope.PREFIX, ENVELOPE_VERSION)
    if data is None:
        return None
    nonce, rest = data[_HEADER_BYTES:][:_NONCE_BYTES], data[_HEADER_BYTES + _NONCE_BYTES :]
    handle, value = rest[:_SEALED_HANDLE_BYTES], rest[_SEALED_HANDLE_BYTES:]
    aad = encode_parts(tenant, tag)
    key_id = int.from_bytes(data[1:_HEADER_BYTES], "big")
    opened = _open_handle(keyset, tenant, tag, key_id, handle, [aad, nonce + value])
    return None if opened is None else Sealed(opened, nonce, value, aad)


def open_with_subject(subject: Subject, sealed: Sealed) -> tuple[Kind, str]:
    """Return type and text of the value. Raises TokenRefused if it is not of this person's key."""
    try:
        if sealed.nonce:
            plain = subject.decrypt(sealed.nonce, sealed.value, sealed.aad)
        else:
            plain = subject.open(sealed.value, sealed.aad)
    except InvalidTag:
        plain = b""
    kind = KIND_OF.get(plain[:1])
    if kind is None:
        raise TokenRefused
    return kind, plain[1:].decode("utf-8")


def _parts(text: str, prefix: str, version: bytes) -> bytes | None:
    data = find_base64url(text[len(prefix) :]) if text.startswith(prefix) else None
    least = _HEADER_BYTES + _SEALED_HANDLE_BYTES + SIV_BYTES
    if data is None or data[:1] != version or len(data) <= least + (_NONCE_BYTES if version == ENVELOPE_VERSION else 0):
        return None
    return data


def _open_handle(keyset: Keyset, tenant: str, tag: str, key_id: int, handle: bytes, aad: list[bytes]) -> bytes | None:
    try:
        opened = get_siv(keyset, Purpose.HANDLE, tenant, tag, key_id).decrypt(handle, aad)
    except (KeyUnknown, InvalidTag):
        return None
    return opened if len(opened) == HANDLE_BYTES else None
