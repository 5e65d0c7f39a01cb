"""`grants`: who may see what, for which purposes, of how many people. Reads them; compiles nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gharial.model.plan import Op
from gharial.model.yaml_text import Items, Node, Scalar
from gharial.policy.reading import Notes, distinct, entries_of, items_of, keyed, name_of, one_or_list, text_of
from gharial.policy.suggest import did_you_mean
from gharial.policy.tags import Group, Tag
from gharial.policy.technique import CLEAR, Technique, TechniqueError, parse_technique

MAX_GRANTS = 500
"""Grants of one policy."""
MAX_PEOPLE = 10_000_000
"""The largest limit of a budget."""
MAX_WINDOW_S = 35 * 86_400
"""The longest window of a budget: digests of persons are comparable for at least so long."""
_UNITS_S = {"min": 60, "h": 3_600, "hour": 3_600, "d": 86_400, "day": 86_400}
_RATE = re.compile(r"([0-9]{1,12})/([0-9]{0,6})([a-z]+)")
_LATER = ("needs", "min_group", "cel", "when")


@dataclass(frozen=True, slots=True)
class Show:
    """One line of `show`: a single tag or a group, and how it is shown."""

    target: str
    technique: Technique
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """How many people may be shown in clear within a window, and what the further ones get instead."""

    people: int
    window_s: int
    then: Technique
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What some callers may see. `purposes` None: for any purpose, and without one.

    `shown` maps single tags to techniques, groups being resolved (the narrower name wins); `reidentify` holds single
    tags too. `show` is what the author wrote. `budgets` are sorted by window.
    """

    name: str
    to: tuple[str, ...]
    purposes: tuple[str, ...] | None
    show: tuple[Show, ...]
    shown: Mapping[str, Technique]
    reidentify: frozenset[str]
    budgets: tuple[BudgetRule, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Names:
    """What grants may name."""

    tags: Mapping[str, Tag]
    groups: Mapping[str, Group]
    who: frozenset[str]

    def find_leaves(self, name: str) -> frozenset[str] | None:
        """The single tags that a name stands for, or None if there is no such tag or group."""
        if name in self.groups:
            return self.groups[name].leaves
        return frozenset([name]) if name in self.tags else None


def parse_grants(node: Node, names: Names, notes: Notes) -> tuple[Grant, ...]:
    """Read the list under `grants`; sorted by name, for the order of writing never matters."""
    if isinstance(node, Items) and not node.items:
        return ()
    items = items_of(node, "grants", notes)
    if len(items) > MAX_GRANTS:
        notes.add(items[MAX_GRANTS], f"more than {MAX_GRANTS} grants")
        return ()
    found: dict[str, Grant] = {}
    for item in items:
        grant = _parse_grant(item, names, notes)
        if grant is None:
            continue
        if grant.name in found:
            first = found[grant.name].line
            notes.add(item, f"the grant '{grant.name}' stands here a second time; the first is in line {first}")
        else:
            found[grant.name] = grant
    return tuple(found[name] for name in sorted(found))


def _parse_grant(node: Node, names: Names, notes: Notes) -> Grant | None:
    known = ("grant", "to", "for", "show", "reidentify", "budget")
    keys = keyed(node, "a grant", notes, known=known, required=("grant", "to"), later=_LATER)
    if not keys:
        return None
    if "show" not in keys and "reidentify" not in keys:
        notes.add(node, "a grant needs the key 'show' (or only 'reidentify')")
    name = name_of(keys["grant"].value, "the name of a grant", notes) if "grant" in keys else ""
    show = tuple(_parse_show(keys["show"].value, names, notes)) if "show" in keys else ()
    grant = Grant(
        name=name,
        to=_parse_to(keys["to"].value, names, notes) if "to" in keys else (),
        purposes=_parse_for(keys["for"].value, notes) if "for" in keys else None,
        show=show,
        shown=_resolve(show, names, notes),
        reidentify=_parse_reidentify(keys["reidentify"].value, names, notes) if "reidentify" in keys else frozenset(),
        budgets=_parse_budgets(keys["budget"].value, notes) if "budget" in keys else (),
        line=node.line,
        column=node.column,
    )
    if "budget" in keys and "show" in keys and all(s.technique != CLEAR for s in show):
        notes.add(keys["budget"], "this grant shows nothing clear, so there is nothing to count; remove the budget")
    return grant if name else None


def _parse_to(node: Node, names: Names, notes: Notes) -> tuple[str, ...]:
    found = distinct(one_or_list(node, "to", notes), lambda item: text_of(item, "to", notes), notes)
    for name, item in found:
        if name not in names.who:
            notes.add(item, f"unknown who {did_you_mean(name, names.who)}")
    return tuple(sorted(name for name, _ in found))


def _parse_for(node: Node, notes: Notes) -> tuple[str, ...]:
    found = distinct(one_or_list(node, "for", notes), lambda item: text_of(item, "a purpose", notes), notes)
    for purpose, item in found:
        if "*" in purpose:
            notes.add(item, "purposes are written out; without 'for' a grant holds for any purpose and for none")
    return tuple(sorted(purpose for purpose, _ in found))


def _parse_show(node: Node, names: Names, notes: Notes) -> Iterator[Show]:
    entries = entries_of(node, "show", notes)
    if not entries and not isinstance(node, (Scalar, Items)):
        notes.add(node, "show names no tag")
    for entry in entries:
        if entry.name.endswith(")") and isinstance(entry.value, Scalar) and not entry.value.text:
            # The rest of `mask(keep=domain, last=4)` after YAML cut it at the comma; noted at its first half.
            continue
        leaves = names.find_leaves(entry.name)
        if leaves is None:
            notes.add(entry, f"unknown tag {did_you_mean(entry.name, [*names.tags, *names.groups])}")
        technique = _parse_technique(entry.value, notes)
        if leaves is not None and technique is not None:
            yield Show(entry.name, technique, entry.key.line, entry.key.column)


def _parse_technique(node: Node, notes: Notes) -> Technique | None:
    # Not text_of: YAML reads the technique `null` as no value, and its text is still there.
    text = node.text if isinstance(node, Scalar) else ""
    try:
        return parse_technique(text)
    except TechniqueError as error:
        notes.add(node, str(error))
        return None


def _resolve(show: tuple[Show, ...], names: Names, notes: Notes) -> dict[str, Technique]:
    """Give each single tag the technique of the narrowest name that holds it: itself, else the smallest group."""
    best: dict[str, tuple[int, Show]] = {}
    clashes: dict[tuple[str, str], str] = {}
    for line in sorted(show, key=lambda s: s.target):
        leaves = names.find_leaves(line.target) or frozenset()
        breadth = len(leaves) if line.target in names.groups else 0
        for leaf in sorted(leaves):
            held = best.get(leaf)
            if held is None or breadth < held[0]:
                best[leaf] = (breadth, line)
    for line in show:
        leaves = names.find_leaves(line.target) or frozenset()
        if line.target not in names.groups:
            continue
        for leaf in sorted(leaves):
            breadth, winner = best[leaf]
            if breadth == len(leaves) and winner.technique != line.technique:
                clashes.setdefault((winner.target, line.target), leaf)
    lines = {line.target: line for line in show}
    for (one, other), leaf in clashes.items():
        later = max(lines[one], lines[other], key=lambda s: (s.line, s.column))
        what = f"'{leaf}' is in '{one}' and in '{other}', which are equally broad; say how '{leaf}' itself is shown"
        notes.add(Scalar(None, "", later.line, later.column), what)
    return {leaf: line.technique for leaf, (_, line) in sorted(best.items())}


def _parse_reidentify(node: Node, names: Names, notes: Notes) -> frozenset[str]:
    found: set[str] = set()
    for name, item in distinct(one_or_list(node, "reidentify", notes), lambda i: text_of(i, "a tag", notes), notes):
        leaves = names.find_leaves(name)
        if leaves is None:
            notes.add(item, f"unknown tag {did_you_mean(name, [*names.tags, *names.groups])}")
        found |= leaves or frozenset()
    return frozenset(found)


def _parse_budgets(node: Node, notes: Notes) -> tuple[BudgetRule, ...]:
    found: dict[int, BudgetRule] = {}
    for item in one_or_list(node, "budget", notes):
        rule = _parse_budget(item, notes)
        if rule is None:
            continue
        if rule.window_s in found:
            notes.add(item, f"a budget over the same window stands in line {found[rule.window_s].line}")
        else:
            found[rule.window_s] = rule
    return tuple(found[window_s] for window_s in sorted(found))


def _parse_budget(node: Node, notes: Notes) -> BudgetRule | None:
    keys = keyed(node, "a budget", notes, known=("people", "then"), required=("people", "then"))
    rate = _parse_rate(keys["people"].value, notes) if "people" in keys else None
    then = _parse_technique(keys["then"].value, notes) if "then" in keys else None
    if then is not None and then.op is Op.CLEAR:
        notes.add(keys["then"].value, "'then' can't be clear: beyond the budget nothing is shown in clear")
        return None
    if rate is None or then is None:
        return None
    return BudgetRule(*rate, then, node.line, node.column)


def _parse_rate(node: Node, notes: Notes) -> tuple[int, int] | None:
    """Read `60/h` or `5000/30d` as (people, seconds)."""
    text = text_of(node, "people", notes)
    if not text:
        return None
    match = _RATE.fullmatch(text)
    if match is None:
        notes.add(node, "people is a number per time, like 60/h, 500/day or 5000/30d")
        return None
    if match[3] not in _UNITS_S:
        notes.add(node, f"unknown unit of time {did_you_mean(match[3], _UNITS_S)} (there are min, h, day)")
        return None
    people, window_s = int(match[1]), int(match[2] or 1) * _UNITS_S[match[3]]
    if not 1 <= people <= MAX_PEOPLE:
        notes.add(node, f"a budget is of 1 to {MAX_PEOPLE:,} people")
        return None
    if not 1 <= window_s <= MAX_WINDOW_S:
        notes.add(node, f"a window is at most {MAX_WINDOW_S // 86_400} days, and longer than nothing")
        return None
    return people, window_s
