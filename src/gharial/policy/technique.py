"""The techniques: how a value is shown, their parameters, and their order from open to strict.

The order is partial. `clear` < mask < generalised < token < redact < null < drop always holds; between two of one kind
the one that shows fewer characters, or is coarser, is stricter; for the rest it can't be told (`compare` gives None).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gharial.model.plan import Op
from gharial.policy.suggest import did_you_mean

Args = tuple[tuple[str, str | int], ...]

MAX_SHOWN_CHARS = 100
"""The most characters that mask leaves on either side."""
MAX_WIDTH = 1_000_000_000
"""The widest band."""


@dataclass(frozen=True, slots=True)
class Technique:
    """An operation and its literal parameters, in the order of their names, without those that change nothing.

    Two techniques are equal exactly where they do the same.
    """

    op: Op
    args: Args = ()

    def __str__(self) -> str:
        if not self.args:
            return str(self.op)
        values = dict(self.args)
        if self.op is Op.BAND:
            return f"band({values['width']}{values.get('unit', '')})"
        return f"{self.op}({', '.join(f'{name}={value}' for name, value in self.args)})"


CLEAR = Technique(Op.CLEAR)
REDACT = Technique(Op.REDACT)


class TechniqueError(ValueError):
    """A technique can't be read; the message says what and what to do."""


# The distances leave room for one-way techniques (4), which this version does not have.
_LEVELS = {
    Op.CLEAR: 0,
    Op.MASK: 1,
    Op.YEAR: 2,
    Op.BAND: 2,
    Op.TOKEN: 3,
    Op.REDACT: 5,
    Op.NULL: 6,
    Op.DROP: 7,
}
_TOKEN_FOR_ALL = Technique(Op.TOKEN, (("scope", "all"),))
_SCOPES = ("all", "team", "client")
_LATER = (
    "month", "bucket", "round", "truncate", "date_shift", "fpe", "encrypt", "pseudonym", "substitute",
)  # fmt: skip
_SHAPE = re.compile(r"\s*([A-Za-z_]+)\s*(?:\(([^()]*)\))?\s*")
_BAND = re.compile(r"([0-9]{1,10})(y?)")


def parse_technique(text: str) -> Technique:
    """Read what stands behind a tag in `show`, e.g. `mask(last=4)`. Raises TechniqueError."""
    if not text.strip():
        raise TechniqueError(f"a technique is missing here; there are {_listed()}")
    if text.count("(") > text.count(")"):
        raise TechniqueError("')' is missing; inside { … } put quotes around a technique that has a comma")
    shape = _SHAPE.fullmatch(text)
    name = shape[1] if shape else text.partition("(")[0].strip()
    if name in _LATER:
        raise TechniqueError(f"the technique '{name}' is not supported by this version")
    if name not in _PARSERS:
        raise TechniqueError(f"unknown technique {did_you_mean(name, _PARSERS)}")
    if shape is None:
        raise TechniqueError(f"{name} is written like {_EXAMPLES[name]}")
    return _PARSERS[name](name, shape[2])


def compare(a: Technique, b: Technique) -> int | None:
    """Return -1 where `a` is more open than `b`, 1 where it is stricter, 0 where equal, None where it can't be told."""
    if a == b:
        return 0
    if _LEVELS[a.op] != _LEVELS[b.op]:
        return -1 if _LEVELS[a.op] < _LEVELS[b.op] else 1
    if a.op is Op.MASK:
        return _compare_masks(a, b)
    if a.op is Op.TOKEN:
        return -1 if _SCOPES.index(_scope(a)) < _SCOPES.index(_scope(b)) else 1
    return _compare_generalised(a, b)


def strictness(technique: Technique) -> tuple[int, ...]:
    """Return a key that sorts techniques from open to strict; those that can't be ordered in a fixed order."""
    level = _LEVELS[technique.op]
    if technique.op is Op.MASK:
        shown = _shown(technique)
        return (level, -sum(shown), *(-part for part in shown))
    if technique.op is Op.TOKEN:
        return (level, _SCOPES.index(_scope(technique)))
    if technique.op in (Op.YEAR, Op.BAND):
        width, unit = _coarseness(technique)
        return (level, width, len(unit))
    return (level,)


def find_most_open(techniques: Iterable[Technique]) -> Technique | None:
    """Return the one that is more open than, or equal to, each of the others; None where it can't be told."""
    candidates = list(techniques)
    return next((a for a in candidates if all(compare(a, b) in (-1, 0) for b in candidates)), None)


def find_strictest(techniques: Iterable[Technique]) -> Technique | None:
    """Return the one that is stricter than, or equal to, each of the others; None where it can't be told."""
    candidates = list(techniques)
    return next((a for a in candidates if all(compare(a, b) in (1, 0) for b in candidates)), None)


def join(a: Technique, b: Technique) -> Technique:
    """Return the most open technique that is at least as strict as both: the stricter one, where that can be told.

    Else, of two masks the mask that shows only what both show; of two generalisations (years and numbers) what comes
    next on the scale, a token for all. A least upper bound, hence the order of joining does not matter, and joining
    one more never makes the result more open.
    """
    order = compare(a, b)
    if order is not None:
        return a if order >= 0 else b
    if a.op is Op.MASK:
        return _common_mask(a, b)
    return _TOKEN_FOR_ALL


def _listed() -> str:
    return ", ".join(_PARSERS)


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
        digits = given[side]
        if not re.fullmatch(r"[0-9]{1,3}", digits) or int(digits) > MAX_SHOWN_CHARS:
            raise TechniqueError(f"{side}= is a number of characters from 0 to {MAX_SHOWN_CHARS}")
        if int(digits):
            found[side] = int(digits)
    return Technique(Op.MASK, tuple(sorted(found.items())))


def _band(name: str, args: str | None) -> Technique:
    match = _BAND.fullmatch((args or "").strip())
    if match is None:
        raise TechniqueError(f"band needs a width: a number, or years, like {_EXAMPLES[name]}")
    width = int(match[1])
    if width < 2 or width > MAX_WIDTH:
        # A band of 1 shows every whole number as it is: clear under another name. Of years it is `year`.
        instead = "write year" if (width, match[2]) == (1, "y") else f"the width is a number from 2 to {MAX_WIDTH:,}"
        raise TechniqueError(f"band({match[0]}) is not possible; {instead}")
    return Technique(Op.BAND, (("unit", "y"), ("width", width)) if match[2] else (("width", width),))


def _token(name: str, args: str | None) -> Technique:
    scope = _named(name, args, ("scope",)).get("scope", "client")
    if scope not in _SCOPES:
        raise TechniqueError("the scope of a token is client, team or all")
    return Technique(Op.TOKEN, (("scope", scope),))


def _named(name: str, args: str | None, allowed: tuple[str, ...]) -> dict[str, str]:
    """Read `a=1, b=2`. Empty where there are no brackets."""
    if args is None:
        return {}
    found: dict[str, str] = {}
    for part in args.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise TechniqueError(f"the parameters of {name} are written like {_EXAMPLES[name]}")
        if key not in allowed:
            raise TechniqueError(f"{name} has no parameter {did_you_mean(key, allowed)}")
        if key in found:
            raise TechniqueError(f"{key}= stands here twice")
        found[key] = value
    return found


_PARSERS = {
    "clear": _plain,
    "mask": _mask,
    "year": _plain,
    "band": _band,
    "token": _token,
    "redact": _plain,
    "null": _plain,
    "drop": _plain,
}
TECHNIQUES = tuple(_PARSERS)
"""The names of all techniques of this version, the most open first."""
_EXAMPLES = {name: name for name in _PARSERS} | {
    "mask": "mask(keep=domain) or mask(first=1, last=2)",
    "band": "band(10) or band(10y)",
    "token": "token(scope=team)",
}


def _scope(token: Technique) -> str:
    return str(dict(token.args)["scope"])


def _shown(mask: Technique) -> tuple[int, int, int]:
    """What a mask leaves to see: domain or not, first, last."""
    args = dict(mask.args)
    return int("keep" in args), int(args.get("first", 0)), int(args.get("last", 0))


def _compare_masks(a: Technique, b: Technique) -> int | None:
    pairs = list(zip(_shown(a), _shown(b), strict=True))
    if all(left >= right for left, right in pairs):
        return -1
    if all(left <= right for left, right in pairs):
        return 1
    return None


def _common_mask(a: Technique, b: Technique) -> Technique:
    keep, first, last = (min(pair) for pair in zip(_shown(a), _shown(b), strict=True))
    found: list[tuple[str, str | int]] = []
    if first:
        found.append(("first", first))
    if keep:
        found.append(("keep", "domain"))
    if last:
        found.append(("last", last))
    return Technique(Op.MASK, tuple(found))


def _compare_generalised(a: Technique, b: Technique) -> int | None:
    (width_a, unit_a), (width_b, unit_b) = _coarseness(a), _coarseness(b)
    if unit_a != unit_b:
        return None
    return -1 if width_a < width_b else 1


def _coarseness(technique: Technique) -> tuple[int, str]:
    """Width and unit; a year is a band of one year."""
    if technique.op is Op.YEAR:
        return 1, "y"
    args = dict(technique.args)
    return int(args["width"]), str(args.get("unit", ""))
