"""Recognises values by their look: email, phone, card, iban, ip. A hit needs more than digits wherever there is more.

A text is looked at as a reader would see it: compatibility forms (full-width digits, other scripts' digits), invisible
characters and dashes are made plain first (NFKC, UAX #15). Work is linear in the length of the text.

* email: an address of RFC 5321 with a domain of two labels or more, also with `[at]` and `(dot)` for `@` and dots.
* phone: `+` or `00`, a country code of ITU-T E.164 and 8 to 15 digits in all; `tel:`; North American and trunk-prefixed
  national numbers where they are written in groups. A run of digits alone is not one.
* card: 13 to 19 digits of a known issuer (ISO/IEC 7812) whose Luhn check digit fits, alone or in the usual groups.
* iban: a country and length of the ISO 13616 registry whose check digits (ISO 7064, mod 97-10) fit.
* ip: IPv4 in four decimal parts, IPv6 of RFC 4291.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable

from gharial.model.finding import Kind

_INVISIBLE = dict.fromkeys([0x00AD, 0x034F, 0x061C, 0x180E, 0x2060, 0xFEFF, *range(0x200B, 0x2010)])
_DASHES = dict.fromkeys([0x2212, 0xFE58, 0xFE63, 0xFF0D, *range(0x2010, 0x2016)], "-")
_PLAIN = {**_INVISIBLE, **_DASHES}


def recognises(detectors: Iterable[str], kind: Kind, text: str) -> frozenset[str]:
    """Return those of these detectors that recognise a leaf, alone or within free text.

    Strings are looked at by all of them, numbers by `card`. Raises KeyError for a detector that does not exist.
    """
    looks = [(name, DETECTORS[name]) for name in detectors]
    if kind is Kind.NUMBER:
        return frozenset(name for name, look in looks if look is _has_card and look(text))
    if kind is not Kind.STRING or not text:
        return frozenset()
    plain = _as_seen(text)
    return frozenset(name for name, look in looks if look(plain))


def _as_seen(text: str) -> str:
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKC", text.translate(_PLAIN)).translate(_PLAIN)
    if plain.isascii():
        return plain
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in plain)


_AT = re.compile(r"\s{0,3}[\[({<]\s{0,3}at\s{0,3}[\])}>]\s{0,3}", re.IGNORECASE)
_DOT = re.compile(r"\s{0,3}[\[({<]\s{0,3}(?:dot|punkt|point)\s{0,3}[\])}>]\s{0,3}", re.IGNORECASE)
_LOCAL = re.compile(r"[\w!#$%&'*+/=?^`{|}~.-]+\Z")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?:[^\W\d_]{2,63}|xn--[a-z0-9-]{2,59})", re.IGNORECASE)
_IMAGE = re.compile(r"[0-9.]+x\.[a-z]{3,4}\Z", re.IGNORECASE)
_LOCAL_CHARS = 64


def _has_email(text: str) -> bool:
    if "@" not in text:
        if "[" not in text and "(" not in text and "{" not in text and "<" not in text:
            return False
        text = _AT.sub("@", text)
    text = _DOT.sub(".", text)
    at = text.find("@")
    while at >= 0:
        if _LOCAL.search(text[max(0, at - _LOCAL_CHARS) : at]):
            domain = _DOMAIN.match(text, at + 1)
            # `icon@2x.png` is a file for dense screens.
            if domain and not _IMAGE.match(domain[0]):
                return True
        at = text.find("@", at + 1)
    return False


_COUNTRY = (
    r"(?:1|7|2(?:[07]|[1-69]\d)|3(?:[0-469]|[578]\d)|4(?:[013-9]|2\d)|5(?:[1-8]|[09]\d)|6(?:[0-6]|[789]\d)"
    r"|8(?:[1246]|[057]\d)|9(?:[0-58]|[679]\d))"
)
_INTERNATIONAL = re.compile(rf"(?<![\w+.])(?:\+|00[ -]?)(?={_COUNTRY})(\d(?:[ .()/-]{{0,3}}\d){{7,14}})(?![\w]|[.,]\d)")
_TEL = re.compile(r"(?<!\w)tel:[ ]?\+?\d(?:[ .()/-]{0,3}\d){5,14}(?!\d)", re.IGNORECASE)
_NORTH_AMERICAN = re.compile(
    r"(?<![\w.+/-])(?:1[ .-])?(?:\([2-9]\d\d\)[ ]?[2-9]\d\d[ .-]|[2-9]\d\d([.-])[2-9]\d\d\1)\d{4}(?![\w-]|[.,/]\d)"
)
_TRUNK = re.compile(
    r"(?<![\w.,+/-])(?<!\d )\(?0[1-9]\d{1,4}\)?(?:[ ]|[ ]?/[ ]?)\d{2,4}(?:[ -]?\d{2,4}){1,3}(?![\w-]|[.,/]\d)"
)


def _has_phone(text: str) -> bool:
    if _INTERNATIONAL.search(text) or _TEL.search(text) or _NORTH_AMERICAN.search(text):
        return True
    return any(9 <= sum(map(str.isdigit, found[0])) <= 12 for found in _TRUNK.finditer(text))


_CARD = re.compile(
    r"(?<![\w.+-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{4,5})"
    r"(?![\w-]|[.,]\d)"
)
_ISSUERS = (
    ("4", "4", (13, 16, 19)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("300", "305", (14, 16, 19)),
    ("3095", "3095", (14, 16, 19)),
    ("36", "36", (14, 16, 19)),
    ("38", "39", (14, 16, 19)),
    ("3528", "3589", (16, 17, 18, 19)),
    ("6011", "6011", (16, 17, 18, 19)),
    ("644", "659", (16, 17, 18, 19)),
    ("62", "62", (16, 17, 18, 19)),
    ("81", "82", (16,)),
    ("5018", "5018", (13, 14, 15, 16, 17, 18, 19)),
    ("5020", "5020", (13, 14, 15, 16, 17, 18, 19)),
    ("5038", "5038", (13, 14, 15, 16, 17, 18, 19)),
    ("5893", "5893", (13, 14, 15, 16, 17, 18, 19)),
    ("6304", "6304", (13, 14, 15, 16, 17, 18, 19)),
    ("6759", "6763", (13, 14, 15, 16, 17, 18, 19)),
    ("508", "508", (16,)),
    ("60", "60", (16,)),
    ("2200", "2204", (16, 17, 18, 19)),
    ("9792", "9792", (16,)),
)
"""First and last prefix of an issuer's range, and the lengths of its numbers."""


def _has_card(text: str) -> bool:
    return any(_is_card(found[0].replace(" ", "").replace("-", "")) for found in _CARD.finditer(text))


def _is_card(digits: str) -> bool:
    if not any(len(digits) in lengths and first <= digits[: len(first)] <= last for first, last, lengths in _ISSUERS):
        return False
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(twice - 9 * (twice > 9) for twice in doubled)) % 10 == 0


_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FK FO FI GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
_IBAN_HEAD = re.compile(r"(?<![^\W_])([a-z]{2})[ ]?\d[ ]?\d", re.IGNORECASE)
_IBAN_PIECE = re.compile(r"[ -]?([a-z0-9])", re.IGNORECASE)


def _has_iban(text: str) -> bool:
    return any(_is_iban(text, found) for found in _IBAN_HEAD.finditer(text))


def _is_iban(text: str, head: re.Match[str]) -> bool:
    length = _IBAN_LENGTHS.get(head[1].upper())
    if length is None:
        return False
    characters = [char for char in head[0] if char != " "]
    at = head.end()
    while len(characters) < length:
        piece = _IBAN_PIECE.match(text, at)
        if piece is None:
            return False
        characters.append(piece[1])
        at = piece.end()
    if text[at : at + 1].isalnum():
        return False
    turned = "".join(characters[4:] + characters[:4])
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


_PART = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![\w.])(?<!\d-){_PART}(?:\.{_PART}){{3}}(?![\w]|\.\w|-\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9a-f:]{2,39}(?:\.[0-9.]{3,11})?(?![\w:])", re.IGNORECASE)
_IPV6_PARTS = 2


def _has_ip(text: str) -> bool:
    if _IPV4.search(text):
        return True
    return any(_is_ipv6(found[0]) for found in _IPV6.finditer(text))


def _is_ipv6(text: str) -> bool:
    # `::` and `::1` name nobody, and stand in every second program text.
    if text.count(":") < _IPV6_PARTS or sum(bool(part) for part in text.split(":")) < _IPV6_PARTS:
        return False
    try:
        ipaddress.IPv6Address(text.rstrip("."))
    except ValueError:
        return False
    return True


DETECTORS: dict[str, Callable[[str], bool]] = {
    "email": _has_email,
    "phone": _has_phone,
    "card": _has_card,
    "iban": _has_iban,
    "ip": _has_ip,
}
"""The detectors by name: a text as a reader would see it in, whether it holds such a value out."""
