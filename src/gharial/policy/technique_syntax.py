"""How techniques are written in a policy: `mask(last=4)`, `fpe(check=luhn)`; read completely or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from gharial.model.alphabets import ALPHABETS, MAX_FPE_CHARS, MIN_FPE_DOMAIN, written_out
from gharial.model.plan import Op
from gharial.policy.suggest import did_you_mean
from gharial.policy.technique import SCOPES, Technique

MAX_SHOWN_CHARS = 100
"""The most characters that mask and truncate leave on either side."""
MAX_WIDTH = 1_000_000_000
"""The widest band, and the coarsest rounding."""
MAX_BOUNDS = 20
MAX_SHIFT_DAYS = 3_650
MAX_POSTCODE_CHARS = 5
MAX_ALPHABET_CHARS = 256
_CHECKS = ("luhn", "iban")
_SHAPE = re.compile(r"\s*([A-Za-z_]+)\s*(?:\(([^()]*)\))?\s*")
_BAND = re.compile(r"([0-9]{1,10})(y?)")
_BOUND = re.compile(r"-?(?:0|[1-9][0-9]{0,14})")
_ROUND = re.compile(r"0\.0{0,8}1|[1-9][0-9]{0,9}")
_LIST = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class TechniqueError(ValueError):
    """A technique can't be read; the message says what and what to do."""


def parse_technique(text: str) -> Technique:
    """Read what stands behind a tag in `show`, e.g. `mask(last=4)`. Raises TechniqueError."""
    if not text.strip():
        raise TechniqueError(f"a technique is missing here; there are {', '.join(TECHNIQUES)}")
    if text.count("(") > text.count(")"):
        raise TechniqueError("')' is missing; inside { … } put quotes around a technique that has a comma")
    shape = _SHAPE.fullmatch(text)
    name = shape[1] if shape else text.partition("(")[0].strip()
    if name not in _PARSERS:
        raise TechniqueError(f"unknown technique {did_you_mean(name, _PARSERS)}")
    if shape is None:
        raise TechniqueError(f"{name} is written like {EXAMPLES[name]}")
    return _PARSERS[name](name, shape[2])


def _plain(name: str, args: str | None) -> Technique:
    if args is not None:
        raise TechniqueError(f"{name} takes no parameters")
    return Technique(Op(name))


def _mask(name: str, args: str | None) -> Technique:
    given = _named(name, args, ("keep", "first", "last"))
    found: dict[str, str | int] = {}
    if "keep" in given:
        if given["keep"] != "domain":
            raise TechniqueError("mask knows only keep=domain (what follows the @ of an address)")
        found["keep"] = "domain"
    for side in ("first", "last"):
        if side not in given:
            continue
        count = _whole(given[side])
        if count is None or count > MAX_SHOWN_CHARS:
            raise TechniqueError(f"{side}= is a number of characters from 0 to {MAX_SHOWN_CHARS}")
        if count:
            found[side] = count
    return Technique(Op.MASK, tuple(sorted(found.items())))


def _band(name: str, args: str | None) -> Technique:
    match = _BAND.fullmatch((args or "").strip())
    if match is None:
        raise TechniqueError(f"band needs a width: a number, or years, like {EXAMPLES[name]}")
    width = int(match[1])
    if width < 2 or width > MAX_WIDTH:
        # A band of 1 shows every whole number as it is: clear under another name. Of years it is `year`.
        instead = "write year" if (width, match[2]) == (1, "y") else f"the width is a number from 2 to {MAX_WIDTH:,}"
        raise TechniqueError(f"band({match[0]}) is not possible; {instead}")
    return Technique(Op.BAND, (("unit", "y"), ("width", width)) if match[2] else (("width", width),))


def _bucket(name: str, args: str | None) -> Technique:
    texts = [part.strip() for part in (args or "").split(",")]
    if not all(_BOUND.fullmatch(text) for text in texts) or "-0" in texts:
        raise TechniqueError(f"bucket needs the numbers at which a new bucket begins, like {EXAMPLES[name]}")
    if len(texts) > MAX_BOUNDS:
        raise TechniqueError(f"bucket has at most {MAX_BOUNDS} bounds")
    numbers = [int(text) for text in texts]
    if any(low >= high for low, high in pairwise(numbers)):
        raise TechniqueError("the bounds of bucket rise")
    if any(high - low < 2 for low, high in pairwise(numbers)):
        raise TechniqueError("a bucket of one number would show it as it is; leave a bound out")
    return Technique(Op.BUCKET, (("bounds", ",".join(texts)),))


def _round(name: str, args: str | None) -> Technique:
    text = (args or "").strip()
    if not _ROUND.fullmatch(text) or (text.isdigit() and int(text) > MAX_WIDTH):
        raise TechniqueError(f"round needs what numbers are rounded to, like {EXAMPLES[name]}")
    return Technique(Op.ROUND, (("to", int(text) if text.isdigit() else text),))


def _chars(most: int) -> Callable[[str, str | None], Technique]:
    def run(name: str, args: str | None) -> Technique:
        count = _whole((args or "").strip())
        if not count or count > most:
            raise TechniqueError(f"{name} needs how many characters are shown, 1 to {most}, like {EXAMPLES[name]}")
        return Technique(Op(name), (("chars", count),))

    return run


def _date_shift(name: str, args: str | None) -> Technique:
    first, _, rest = (args or "").partition(",")
    days = _whole(first.strip())
    if not days or days > MAX_SHIFT_DAYS:
        raise TechniqueError(
            f"date_shift needs by how many days a date moves at most, 1 to {MAX_SHIFT_DAYS:,}, like {EXAMPLES[name]}"
        )
    given = _named(name, rest or None, ("scope",))
    return Technique(Op.DATE_SHIFT, (("days", days), ("scope", _scope(name, given))))


def _scoped(name: str, args: str | None) -> Technique:
    return Technique(Op(name), (("scope", _scope(name, _named(name, args, ("scope",)))),))


def _token(name: str, args: str | None) -> Technique:
    given = _named(name, args, ("from", "per", "scope"))
    scope = ("scope", _scope(name, given))
    per = _per(name, given)
    if "from" not in given:
        return Technique(Op.TOKEN, (*per, scope))
    if given["from"] != "vault":
        raise TechniqueError("token knows only from=vault (random tokens); without it tokens are computed")
    if per:
        raise TechniqueError("a token is from=vault or per=subject, not both: only per=subject dies with the person")
    return Technique(Op.TOKEN, (("from", "vault"), scope))


def _encrypt(name: str, args: str | None) -> Technique:
    return Technique(Op.ENCRYPT, _per(name, _named(name, args, ("per",))))


def _per(name: str, given: dict[str, str]) -> tuple[tuple[str, str | int], ...]:
    if given.get("per", "subject") != "subject":
        raise TechniqueError(f"{name} knows only per=subject (a key for each person, which can be destroyed)")
    return (("per", "subject"),) if "per" in given else ()


def _fpe(name: str, args: str | None) -> Technique:
    given = _named(name, args, ("alphabet", "check", "length", "scope"))
    alphabet = given.get("alphabet", "digits")
    found: dict[str, str | int] = {"alphabet": alphabet, "scope": _scope(name, given)}
    letters = written_out(alphabet)
    if len(set(letters)) < len(letters) or not 2 <= len(letters) <= MAX_ALPHABET_CHARS or not letters.isalnum():
        named = ", ".join(ALPHABETS)
        raise TechniqueError(f"alphabet= is {named}, or letters and digits, each once, like alphabet=0123456789ABCDEF")
    if "check" in given:
        if given["check"] not in _CHECKS:
            raise TechniqueError(f"check= is {' or '.join(_CHECKS)}: whose check digits stay right")
        if alphabet != "digits":
            raise TechniqueError("check= is about digits; leave alphabet= out")
        found["check"] = given["check"]
    if "length" in given:
        length = _whole(given["length"])
        if not length or length > MAX_FPE_CHARS:
            raise TechniqueError(f"length= is how many characters each value has, 1 to {MAX_FPE_CHARS}")
        free = length - {"luhn": 1, "iban": 4}.get(given.get("check", ""), 0)
        if len(letters) ** max(free, 0) < MIN_FPE_DOMAIN:
            raise TechniqueError(
                f"fpe of {length} characters out of {len(letters)} has too few possible values, fewer than "
                f"{MIN_FPE_DOMAIN:,}: whoever sees many would know them all; use token, pseudonym or redact"
            )
        found["length"] = length
    return Technique(Op.FPE, tuple(sorted(found.items())))


def _substitute(name: str, args: str | None) -> Technique:
    first, _, rest = (args or "").partition(",")
    chosen = first.strip().removeprefix("list=").strip()
    if not _LIST.fullmatch(chosen):
        raise TechniqueError(f"substitute needs the name of a list of 'lists', like {EXAMPLES[name]}")
    given = _named(name, rest or None, ("scope",))
    return Technique(Op.SUBSTITUTE, (("list", chosen), ("scope", _scope(name, given))))


def _scope(name: str, given: dict[str, str]) -> str:
    scope = given.get("scope", "client")
    if scope not in SCOPES:
        raise TechniqueError(f"the scope of {name} is client, team or all")
    return scope


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else None


def _named(name: str, args: str | None, allowed: tuple[str, ...]) -> dict[str, str]:
    """Read `a=1, b=2`. Empty where there are no brackets."""
    if args is None:
        return {}
    found: dict[str, str] = {}
    for part in args.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise TechniqueError(f"the parameters of {name} are written like {EXAMPLES[name]}")
        if key not in allowed:
            raise TechniqueError(f"{name} has no parameter {did_you_mean(key, allowed)}")
        if key in found:
            raise TechniqueError(f"{key}= stands here twice")
        found[key] = value
    return found


_PARSERS: dict[str, Callable[[str, str | None], Technique]] = {
    "clear": _plain,
    "mask": _mask,
    "month": _plain,
    "year": _plain,
    "band": _band,
    "bucket": _bucket,
    "round": _round,
    "truncate": _chars(MAX_SHOWN_CHARS),
    "postcode": _chars(MAX_POSTCODE_CHARS),
    "date_shift": _date_shift,
    "token": _token,
    "fpe": _fpe,
    "encrypt": _encrypt,
    "pseudonym": _scoped,
    "substitute": _substitute,
    "redact": _plain,
    "null": _plain,
    "drop": _plain,
}
TECHNIQUES = tuple(_PARSERS)
"""The names of all techniques, the most open first."""
EXAMPLES = {name: name for name in _PARSERS} | {
    "mask": "mask(keep=domain) or mask(first=1, last=2)",
    "band": "band(10) or band(10y)",
    "bucket": "bucket(18, 65)",
    "round": "round(100) or round(0.01)",
    "truncate": "truncate(4)",
    "postcode": "postcode(3)",
    "date_shift": "date_shift(30)",
    "token": "token(scope=team), token(from=vault) or token(per=subject)",
    "fpe": "fpe, fpe(check=luhn) or fpe(alphabet=alnum)",
    "encrypt": "encrypt or encrypt(per=subject)",
    "pseudonym": "pseudonym(scope=team)",
    "substitute": "substitute(cities)",
}
"""How each technique is written."""
