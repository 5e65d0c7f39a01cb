"""Format-preserving encryption: a value of the same length and alphabet, with FF1 (NIST SP 800-38G).

FF1 is libffx's, or fastfpe's where that is installed (the extra `fast`): the same results, several times faster.
It has no integrity and tells equality, length and format; who may see it knows nothing else. Value in, value out: the
key is not named in it, so it is always the oldest enabled one, and a value can be opened as long as that key lives.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from ffx import FF1

try:
    import fastfpe.ff1 as fast_ff1
except ImportError:  # the extra `fast` is not installed
    fast_ff1 = None

from gharial.crypto.keyset import Keyset, Purpose
from gharial.crypto.token import Binding
from gharial.model.alphabets import MAX_FPE_CHARS, MIN_FPE_DOMAIN, written_out

KEY_BYTES = 32
_TWEAK_BYTES = 16
_SEPARATORS = frozenset(" -./_+():")
"""What is no part of a value but of its form: it stays where it stands."""
_MAX_WALK = 1_000
_IBAN_HEAD = 4


class Cipher(Protocol):
    """FF1 over one alphabet."""

    def encrypt(self, plaintext: str, /, *, tweak: bytes) -> str:
        """Return as many characters of the same alphabet."""

    def decrypt(self, ciphertext: str, /, *, tweak: bytes) -> str:
        """Undo `encrypt`."""


@dataclass(frozen=True, slots=True)
class Format:
    """What values look like: their alphabet (a name, or written out), whose check digits they carry
    ("luhn", "iban" or ""), and how many characters they have without separators (0: any number).
    """

    alphabet: str = "digits"
    check: str = ""
    length: int = 0

    @property
    def characters(self) -> str:
        """The alphabet, written out."""
        return written_out(self.alphabet)

    @property
    def sound(self) -> bool:
        """False for an alphabet or a check that FF1 or this module can't work with."""
        known = self.check in ("", "luhn", "iban") and (not self.check or self.alphabet == "digits")
        return known and 2 <= len(self.characters) == len(set(self.characters)) and self.length >= 0


class Fpe:
    """FF1 for one key, tag, recipient and format."""

    def __init__(self, keyset: Keyset, binding: Binding, form: Format) -> None:
        """Raises KeyUnknown if the keyset has no enabled key, ValueError if format or binding are not sound."""
        if not form.sound or not binding.sound:
            raise ValueError("the format or the recipient of fpe is not sound")
        self._form = form
        self._known = frozenset(form.characters)
        self._cipher = _cipher_of(keyset, binding, form.characters)
        # Of one length, as FF1's work depends on it; the recipient is in it, so that two of them can't compare.
        self._tweak = hashlib.sha256(binding.aad()).digest()[:_TWEAK_BYTES]

    def seal(self, text: str) -> str | None:
        """Return the encrypted text, or None if it does not have the format or is too short for it."""
        return self._run(text, self._cipher.encrypt)

    def open(self, text: str) -> str | None:
        """Return what `seal` was given, or None if no such text can come out of it. It can't be told from a guess."""
        return self._run(text, self._cipher.decrypt)

    def seal_number(self, text: str) -> str | None:
        """The same for the literal of a whole number that is not negative; the result is such a literal too."""
        return self._walk(text, self._cipher.encrypt)

    def open_number(self, text: str) -> str | None:
        """Undo `seal_number`."""
        return self._walk(text, self._cipher.decrypt)

    def _walk(self, text: str, step: _Step) -> str | None:
        """Encrypt until no zero leads: a literal can't begin with one. The way back meets the same steps."""
        if not text.isascii() or not text.isdigit() or text.startswith("0"):
            return None
        for _ in range(_MAX_WALK):
            found = self._run(text, step)
            if found is None or not found.startswith("0"):
                return found
            text = found
        return None

    def _run(self, text: str, step: _Step) -> str | None:
        if self._form.check == "iban":
            return self._run_iban(text, step)
        places = [at for at, character in enumerate(text) if character in self._known]
        if len(places) != len(text) and any(c not in self._known and c not in _SEPARATORS for c in text):
            return None
        if self._form.length and len(places) != self._form.length:
            return None
        inner = "".join(text[at] for at in places)
        if self._form.check == "luhn":
            if not inner or luhn_digit(inner[:-1]) != inner[-1]:
                return None
            changed = self._change(inner[:-1], step)
            changed = None if changed is None else changed + luhn_digit(changed)
        else:
            changed = self._change(inner, step)
        return None if changed is None else _put(text, places, changed)

    def _run_iban(self, text: str, step: _Step) -> str | None:
        """The digits of the account part change; country and letters stay, check digits are made anew."""
        plain = text.replace(" ", "").upper()
        if (self._form.length and len(plain) != self._form.length) or not is_iban(plain):
            return None
        inner = plain[_IBAN_HEAD:]
        at_digits = [at for at, character in enumerate(inner) if character in self._known]
        changed = self._change("".join(inner[at] for at in at_digits), step)
        if changed is None:
            return None
        account = _put(inner, at_digits, changed)
        new = iban_of(plain[:2], account)
        return _put(text, [at for at, character in enumerate(text) if character != " "], new)

    def _change(self, inner: str, step: _Step) -> str | None:
        if len(inner) > MAX_FPE_CHARS or len(self._form.characters) ** len(inner) < MIN_FPE_DOMAIN:
            return None
        return step(inner, tweak=self._tweak)


class _Step(Protocol):
    def __call__(self, text: str, /, *, tweak: bytes) -> str: ...


def luhn_digit(digits: str) -> str:
    """Return the check digit that follows these digits (ISO/IEC 7812-1, annex B)."""
    doubled = [int(digit) * (2 - at % 2) for at, digit in enumerate(reversed(digits))]
    return str(-sum(number // 10 + number % 10 for number in doubled) % 10)


def is_iban(text: str) -> bool:
    """Return whether a text without blanks is an IBAN: its form, and check digits that are right (ISO 13616-1)."""
    formed = text.isascii() and text.isalnum() and text[:2].isalpha() and text[2:_IBAN_HEAD].isdigit()
    # 15 to 34 characters.
    return formed and 15 <= len(text) <= 34 and iban_of(text[:2], text[_IBAN_HEAD:]) == text


def iban_of(country: str, account: str) -> str:
    """Return country, check digits and account (ISO 7064, MOD 97-10)."""
    number = int("".join(str(int(character, 36)) for character in account + country + "00"))
    return f"{country}{98 - number % 97:02d}{account}"


def _cipher_of(keyset: Keyset, binding: Binding, alphabet: str) -> Cipher:
    key_id = keyset.oldest_enabled_id

    def make() -> Cipher:
        key = keyset.derive(Purpose.FPE, binding.tenant, binding.tag, KEY_BYTES, key_id)
        # fastfpe knows ASCII only.
        if fast_ff1 is not None and alphabet.isascii():
            return _FastFf1(key, alphabet)
        cipher: Cipher = FF1(key, alphabet=alphabet)
        return cipher

    return keyset.remember((Fpe, binding.tenant, binding.tag, alphabet, key_id), make)


class _FastFf1:
    """FF1 of fastfpe, which takes key and tweak as hexadecimal with every call; hence no text of the key is kept."""

    __slots__ = ("_alphabet", "_key")

    def __init__(self, key: bytes, alphabet: str) -> None:
        self._key = key
        self._alphabet = alphabet

    def encrypt(self, plaintext: str, /, *, tweak: bytes) -> str:
        done: str = fast_ff1.encrypt(self._key.hex(), tweak.hex(), self._alphabet, plaintext)
        return done

    def decrypt(self, ciphertext: str, /, *, tweak: bytes) -> str:
        done: str = fast_ff1.decrypt(self._key.hex(), tweak.hex(), self._alphabet, ciphertext)
        return done


def _put(text: str, places: list[int], characters: str) -> str:
    out = list(text)
    for at, character in zip(places, characters, strict=True):
        out[at] = character
    return "".join(out)
