"""One-way and keyed: pseudonyms, the choice of a substitute, and by how many days a person's dates move.

All of it is HMAC-SHA256 under keys of the oldest enabled key: none of the results names its key, and what a recipient
has joined over years must not fall apart when the primary rotates.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from gharial.crypto.encoding import encode_parts, find_utf8, to_base64url
from gharial.crypto.keyset import Keyset, Purpose
from gharial.crypto.token import KIND_BYTE, Binding
from gharial.model.finding import Kind

PREFIX = "psn_"
_KEY_BYTES = 32
_SHOWN_BYTES = 16
_ALL_TAGS = ""
_HEX_LABEL = b"hex-mask"
_HEX_CHARS = 32

Keyed = Callable[[Kind, str], str | None]


def pseudonymiser(keyset: Keyset, binding: Binding) -> Keyed:
    """Return a function from type and text to a pseudonym of 22 characters; None for text that has no UTF-8.

    Raises ValueError if the binding is not sound.
    """
    key, aad = _key(keyset, Purpose.PSEUDONYM, binding)

    def run(kind: Kind, text: str) -> str | None:
        data = find_utf8(text)
        if data is None:
            return None
        return PREFIX + to_base64url(hmac.digest(key, aad + KIND_BYTE[kind] + data, "sha256")[:_SHOWN_BYTES])

    return run


def hex_masker(keyset: Keyset, binding: Binding, *, same_length: bool) -> Keyed:
    """Return a function from type and text to digits of base 16: 32 of them, or as many as the text has characters.

    None for text that has no UTF-8. Short ones are no identifiers: of 256 texts two share the same two digits. Raises
    ValueError if the binding is not sound.
    """
    key, aad = _key(keyset, Purpose.PSEUDONYM, binding)

    def run(kind: Kind, text: str) -> str | None:
        data = find_utf8(text)
        if data is None:
            return None
        chars = len(text) if same_length else _HEX_CHARS
        digits = ""
        while len(digits) < chars:
            # Another input than a pseudonym's, so that the two can't be compared.
            head = _HEX_LABEL + len(digits).to_bytes(8, "big")
            digits += hmac.digest(key, head + aad + KIND_BYTE[kind] + data, "sha256").hex()
        return digits[:chars]

    return run


def substituter(keyset: Keyset, binding: Binding, choices: Sequence[str]) -> Keyed:
    """Return a function that chooses one of `choices` for a value, always the same one, and never the value itself.

    None for text that has no UTF-8. Raises ValueError for fewer than two choices, for two that are the same, and for a
    binding that is not sound.
    """
    # With one choice, or two that are the same, the value itself could not be avoided.
    if len({choice.casefold() for choice in choices}) < max(2, len(choices)):
        raise ValueError("a substitute needs two texts or more to choose from, all different")
    key, aad = _key(keyset, Purpose.SUBSTITUTE, binding)

    def run(kind: Kind, text: str) -> str | None:
        data = find_utf8(text)
        if data is None:
            return None
        at = int.from_bytes(hmac.digest(key, aad + KIND_BYTE[kind] + data, "sha256"), "big") % len(choices)
        return choices[at] if choices[at].casefold() != text.casefold() else choices[at - 1]

    return run


def shift_of(keyset: Keyset, binding: Binding, person: str, days: int) -> int:
    """Return by how many days the dates of a person move for this recipient: 1 to `days`, forth or back, never 0.

    The same for all tags, so that the time between two dates of a person stays what it is. `person` is anything that
    stands for the person and no other. Raises ValueError if the binding is not sound.
    """
    key, aad = _key(keyset, Purpose.SHIFT, Binding(binding.tenant, _ALL_TAGS, binding.scope, binding.recipient))
    number = int.from_bytes(hmac.digest(key, aad + encode_parts(str(days), person), "sha256"), "big") % (2 * days)
    return number + 1 if number < days else days - number - 1


def _key(keyset: Keyset, purpose: Purpose, binding: Binding) -> tuple[bytes, bytes]:
    if not binding.sound:
        raise ValueError("a keyed technique needs a named recipient, or scope all and none")
    key_id = keyset.oldest_enabled_id
    key = keyset.remember(
        (hmac.digest, purpose, binding.tenant, binding.tag, key_id),
        lambda: keyset.derive(purpose, binding.tenant, binding.tag, _KEY_BYTES, key_id),
    )
    return key, binding.aad()
