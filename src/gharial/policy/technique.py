"""The techniques' order: from open to strict, as far as it can be told, and the join of two.

`clear` < mask < generalised < reversible < one-way < redact < null < drop always holds. Within a level:

* of one technique, what shows fewer characters, or is coarser, or is for fewer recipients, is stricter;
* month < year < bands of years, for they tell the same thing more and more coarsely;
* token < token(from=vault) < token(per=subject) < fpe < encrypt < encrypt(per=subject), as far as the recipients are
  the same: a token may be sent back by whom it was made for; one from the vault does not tell the value's length; one
  of a person's own key dies with that key; a value of fpe may be sent back by nobody, and an encrypted one does not
  even tell what is equal;
* pseudonym < substitute likewise: several values share a substitute.

For the rest it can't be told (`compare` gives None). How techniques are written stands in `technique_syntax`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from gharial.model.plan import Op

Args = tuple[tuple[str, str | int], ...]

SCOPES = ("all", "team", "client")
"""Whom the results of a keyed technique are made for, from open to strict."""


@dataclass(frozen=True, slots=True)
class Technique:
    """An operation and its literal parameters, in the order of their names, without those that change nothing.

    Two techniques are equal exactly where they do the same.
    """

    op: Op
    args: Args = ()

    def get(self, name: str, default: str | int = "") -> str | int:
        """Return the parameter `name`, or `default`."""
        return next((value for key, value in self.args if key == name), default)

    def __str__(self) -> str:
        shown = [
            _PRINTED.get((self.op, name), "{name}={value}").format(name=name, value=value) for name, value in self.args
        ]
        if self.op is Op.BAND:
            return f"band({self.get('width')}{self.get('unit')})"
        return f"{self.op}({', '.join(shown)})" if shown else str(self.op)


# What is written without its name, because the technique has one main parameter.
_PRINTED = {
    (Op.BUCKET, "bounds"): "{value}",
    (Op.ROUND, "to"): "{value}",
    (Op.TRUNCATE, "chars"): "{value}",
    (Op.POSTCODE, "chars"): "{value}",
    (Op.DATE_SHIFT, "days"): "{value}",
    (Op.SUBSTITUTE, "list"): "{value}",
}

CLEAR = Technique(Op.CLEAR)
REDACT = Technique(Op.REDACT)
GENERALISED = frozenset({Op.MONTH, Op.YEAR, Op.BAND, Op.BUCKET, Op.ROUND, Op.TRUNCATE, Op.POSTCODE})
"""What makes people of a group look alike. A shifted date does not: it is as fine as the date."""

_LEVELS = (
    {Op.CLEAR},
    {Op.MASK},
    GENERALISED | {Op.DATE_SHIFT},
    {Op.TOKEN, Op.FPE, Op.ENCRYPT},
    {Op.PSEUDONYM, Op.SUBSTITUTE},
    {Op.REDACT},
    {Op.NULL},
    {Op.DROP},
)
_LEVEL_OF: Mapping[Op, int] = {op: level for level, ops in enumerate(_LEVELS) for op in ops}
# The most open technique of the next level: what two of one level that can't be ordered are raised to.
_TOKEN_FOR_ALL = Technique(Op.TOKEN, (("scope", "all"),))


def compare(a: Technique, b: Technique) -> int | None:
    """Return -1 where `a` is more open than `b`, 1 where it is stricter, 0 where equal, None where it can't be told."""
    if a == b:
        return 0
    level_a, level_b = _LEVEL_OF[a.op], _LEVEL_OF[b.op]
    if level_a != level_b:
        return -1 if level_a < level_b else 1
    joined = join(a, b)
    if joined == b:
        return -1
    return 1 if joined == a else None


def strictness(technique: Technique) -> tuple[object, ...]:
    """Return a key that sorts techniques from open to strict; those that can't be ordered in a fixed order."""
    level = _LEVEL_OF[technique.op]
    return (level, *_SORT_KEYS[technique.op](technique), technique.args)


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

    Else what both have in common (a mask that shows only what both show, the bounds that two buckets share), or the
    most open technique of the next level. A least upper bound, hence the order of joining does not matter, and joining
    one more never makes the result more open.
    """
    level_a, level_b = _LEVEL_OF[a.op], _LEVEL_OF[b.op]
    if level_a != level_b:
        return a if level_a > level_b else b
    return _JOINS[level_a](a, b)


def _same(a: Technique, b: Technique) -> Technique:  # noqa: ARG001 - the shape of a join
    """Of a level with one technique that has no parameters."""
    return a


# --- masks ------------------------------------------------------------------------------------------------------


def shown_by_mask(mask: Technique) -> tuple[int, int, int]:
    """Return what a mask leaves to see: domain (1) or not (0), first, last."""
    return int(bool(mask.get("keep"))), int(mask.get("first", 0)), int(mask.get("last", 0))


def _join_masks(a: Technique, b: Technique) -> Technique:
    keep, first, last = (min(pair) for pair in zip(shown_by_mask(a), shown_by_mask(b), strict=True))
    found: list[tuple[str, str | int]] = []
    if first:
        found.append(("first", first))
    if keep:
        found.append(("keep", "domain"))
    if last:
        found.append(("last", last))
    return Technique(Op.MASK, tuple(found))


# --- generalised ------------------------------------------------------------------------------------------------


def _join_generalised(a: Technique, b: Technique) -> Technique:
    if _family(a) != _family(b):
        return _TOKEN_FOR_ALL
    if a.op is Op.BUCKET:
        common = [bound for bound in _bounds(a) if bound in _bounds(b)]
        return Technique(Op.BUCKET, (("bounds", ",".join(common)),)) if common else _TOKEN_FOR_ALL
    if a.op is Op.DATE_SHIFT:
        days = max(int(a.get("days")), int(b.get("days")))
        return Technique(Op.DATE_SHIFT, (("days", days), ("scope", _narrower_scope(a, b))))
    return max(a, b, key=_coarseness)


def _family(technique: Technique) -> str:
    """Techniques of one family tell the same thing, more and less coarsely."""
    of_dates = technique.op in (Op.MONTH, Op.YEAR) or (technique.op is Op.BAND and technique.get("unit") == "y")
    return "date" if of_dates else str(technique.op)


def _coarseness(technique: Technique) -> Decimal:
    """Months of a date; else the width of a number's band, or how few characters are shown."""
    match technique.op:
        case Op.MONTH:
            return Decimal(1)
        case Op.YEAR:
            return Decimal(12)
        case Op.BAND:
            return int(technique.get("width")) * Decimal(12 if technique.get("unit") == "y" else 1)
        case Op.ROUND:
            return Decimal(technique.get("to"))
        case Op.DATE_SHIFT:
            return Decimal(technique.get("days"))
        case Op.BUCKET:
            return Decimal(-len(_bounds(technique)))
        case _:
            return -Decimal(technique.get("chars"))


def _bounds(bucket: Technique) -> list[str]:
    return str(bucket.get("bounds")).split(",")


# --- keyed ------------------------------------------------------------------------------------------------------


def _scope(technique: Technique) -> int:
    return SCOPES.index(str(technique.get("scope", SCOPES[0])))


def is_per_subject(technique: Technique) -> bool:
    """Return whether its results are made with a key of the person's own, and die with it."""
    return technique.get("per") == "subject"


def _of_one_op(technique: Technique) -> int:
    """Return which of the tokens, or of the two ways to encrypt, it is: 0 the most open."""
    return 2 if is_per_subject(technique) else int(technique.get("from") == "vault")


def _narrower_scope(a: Technique, b: Technique) -> str:
    return SCOPES[max(_scope(a), _scope(b))]


def _with_scope(technique: Technique, scope: str) -> Technique:
    others = tuple(pair for pair in technique.args if pair[0] != "scope")
    return Technique(technique.op, tuple(sorted((*others, ("scope", scope)))))


def _join_keyed(stronger: Op, beyond: Technique) -> Callable[[Technique, Technique], Technique]:
    """Make the join of a level in which any two of `stronger` that differ in more than scope have none but `beyond`.

    Those of `beyond`'s own operation, and for each scope those of the weaker one, are a chain (`_of_one_op`).
    """

    def run(a: Technique, b: Technique) -> Technique:
        strictest = [technique for technique in (a, b) if technique.op is beyond.op]
        if strictest:
            return max(strictest, key=_of_one_op)
        scope = _narrower_scope(a, b)
        strong = {_with_scope(technique, scope) for technique in (a, b) if technique.op is stronger}
        if not strong:
            return _with_scope(max(a, b, key=_of_one_op), scope)
        return strong.pop() if len(strong) == 1 else beyond

    return run


_JOINS: tuple[Callable[[Technique, Technique], Technique], ...] = (
    _same,
    _join_masks,
    _join_generalised,
    _join_keyed(Op.FPE, Technique(Op.ENCRYPT)),
    _join_keyed(Op.SUBSTITUTE, REDACT),
    _same,
    _same,
    _same,
)


def _sort_generalised(technique: Technique) -> tuple[object, ...]:
    return (_family(technique), _coarseness(technique), _scope(technique))


def _sort_nothing(technique: Technique) -> tuple[object, ...]:  # noqa: ARG001 - the shape of a sort key
    return ()


def _sort_mask(technique: Technique) -> tuple[object, ...]:
    shown = shown_by_mask(technique)
    return (-sum(shown), *(-part for part in shown))


def _sort_keyed(rank: int) -> Callable[[Technique], tuple[object, ...]]:
    return lambda technique: (rank, _of_one_op(technique), _scope(technique))


_SORT_KEYS: Mapping[Op, Callable[[Technique], tuple[object, ...]]] = {
    **dict.fromkeys(Op, _sort_nothing),
    **dict.fromkeys(_LEVELS[2], _sort_generalised),
    Op.MASK: _sort_mask,
    Op.TOKEN: _sort_keyed(0),
    Op.FPE: _sort_keyed(1),
    Op.ENCRYPT: _sort_keyed(2),
    Op.PSEUDONYM: _sort_keyed(0),
    Op.SUBSTITUTE: _sort_keyed(1),
}
