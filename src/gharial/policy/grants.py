"""`grants`: who may see what, for which purposes, of how many people. Reads them; compiles nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gharial.model.plan import Op
from gharial.model.yaml_text import Items, Node, Scalar
from gharial.policy.conditions import Conditions, Vocabulary, parse_conditions
from gharial.policy.durations import parse_rate
from gharial.policy.reading import Notes, distinct, entries_of, items_of, keyed, name_of, one_or_list, text_of
from gharial.policy.suggest import did_you_mean
from gharial.policy.tags import Group, Tag
from gharial.policy.technique import Technique
from gharial.policy.technique_syntax import TechniqueError, parse_technique

MAX_GRANTS = 2_000
"""Grants of one policy."""
GRANT_KEYS = ("grant", "to", "for", "needs", "show", "reidentify", "reveal", "budget", "min_group")
"""The keys of a grant."""
MAX_GROUP = 1_000_000
"""The largest `min_group`."""


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

    `shown` maps single tags to techniques, groups being resolved (the narrower name wins); `reidentify` and `reveal`
    hold single tags too. `show` is what the author wrote. `budgets` are sorted by window. `needs` all hold together.
    With `min_group` above 0 the grant holds only in answers about so many people who look the same.
    """

    name: str
    to: tuple[str, ...]
    purposes: tuple[str, ...] | None
    show: tuple[Show, ...]
    shown: Mapping[str, Technique]
    reidentify: frozenset[str]
    reveal: frozenset[str]
    budgets: tuple[BudgetRule, ...]
    needs: Conditions
    min_group: int
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


def parse_grants(node: Node, names: Names, words: Vocabulary, notes: Notes) -> tuple[Grant, ...]:
    """Read the list under `grants`; sorted by name, for the order of writing never matters."""
    if isinstance(node, Items) and not node.items:
        return ()
    items = items_of(node, "grants", notes)
    if len(items) > MAX_GRANTS:
        notes.add(items[MAX_GRANTS], f"more than {MAX_GRANTS} grants")
        return ()
    found: dict[str, Grant] = {}
    for item in items:
        grant = _parse_grant(item, names, words, notes)
        if grant is None:
            continue
        if grant.name in found:
            first = found[grant.name].line
            notes.add(item, f"the grant '{grant.name}' stands here a second time; the first is in line {first}")
        else:
            found[grant.name] = grant
    return tuple(found[name] for name in sorted(found))


def _parse_grant(node: Node, names: Names, words: Vocabulary, notes: Notes) -> Grant | None:
    keys = keyed(node, "a grant", notes, known=GRANT_KEYS, required=("grant", "to"))
    if not keys:
        return None
    if keys.keys().isdisjoint(("show", "reidentify", "reveal")):
        notes.add(node, "a grant needs the key 'show' (or only 'reidentify' or 'reveal')")
    name = name_of(keys["grant"].value, "the name of a grant", notes) if "grant" in keys else ""
    show = tuple(_parse_show(keys["show"].value, names, notes)) if "show" in keys else ()
    grant = Grant(
        name=name,
        to=_parse_to(keys["to"].value, names, notes) if "to" in keys else (),
        purposes=parse_purposes(keys["for"].value, notes) if "for" in keys else None,
        show=show,
        shown=_resolve(show, names, notes),
        reidentify=parse_leaves(keys["reidentify"].value, "a tag", names, notes)
        if "reidentify" in keys
        else frozenset(),
        reveal=parse_leaves(keys["reveal"].value, "a tag", names, notes) if "reveal" in keys else frozenset(),
        budgets=_parse_budgets(keys["budget"].value, notes) if "budget" in keys else (),
        needs=parse_conditions(keys["needs"].value, "'needs'", words, notes) if "needs" in keys else Conditions(),
        min_group=_parse_min_group(keys["min_group"].value, notes) if "min_group" in keys else 0,
        line=node.line,
        column=node.column,
    )
    if grant.reidentify and (grant.needs.person or grant.min_group):
        what = "a token comes back before anybody's record is read; make 'reidentify' a grant of its own"
        notes.add(keys["reidentify"], what)
    if grant.reveal and (grant.needs.person or grant.min_group):
        what = "a value that is sent to be revealed is nobody's that is known; make 'reveal' a grant of its own"
        notes.add(keys["reveal"], what)
    return grant if name else None


def _parse_to(node: Node, names: Names, notes: Notes) -> tuple[str, ...]:
    found = distinct(one_or_list(node, "to", notes), lambda item: text_of(item, "to", notes), notes)
    for name, item in found:
        if name not in names.who:
            notes.add(item, f"unknown who {did_you_mean(name, names.who)}")
    return tuple(sorted(name for name, _ in found))


def _parse_min_group(node: Node, notes: Notes) -> int:
    value = node.value if isinstance(node, Scalar) and not node.quoted else None
    if isinstance(value, int) and not isinstance(value, bool) and 2 <= value <= MAX_GROUP:
        return value
    notes.add(node, f"min_group is a number of people, 2 to {MAX_GROUP:,}")
    return 0


def parse_purposes(node: Node, notes: Notes) -> tuple[str, ...]:
    """Read one purpose or a list; sorted."""
    found = distinct(one_or_list(node, "for", notes), lambda item: text_of(item, "a purpose", notes), notes)
    for purpose, item in found:
        if "*" in purpose:
            notes.add(item, "purposes are written out; without 'for' it holds for any purpose and for none")
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
        technique = parse_shown_as(entry.value, notes)
        if leaves is not None and technique is not None:
            yield Show(entry.name, technique, entry.key.line, entry.key.column)


def parse_shown_as(node: Node, notes: Notes) -> Technique | None:
    """Read a technique."""
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


def parse_leaves(node: Node, what: str, names: Names, notes: Notes) -> frozenset[str]:
    """Read one tag or group, or a list of them, and return the single tags."""
    found: set[str] = set()
    for name, item in distinct(one_or_list(node, what, notes), lambda i: text_of(i, what, notes), notes):
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
    rate = parse_rate(keys["people"].value, "people", "people", notes) if "people" in keys else None
    then = parse_shown_as(keys["then"].value, notes) if "then" in keys else None
    if then is not None and then.op is Op.CLEAR:
        notes.add(keys["then"].value, "'then' can't be clear: beyond the budget nothing is shown in clear")
        return None
    if rate is None or then is None:
        return None
    return BudgetRule(*rate, then, node.line, node.column)
