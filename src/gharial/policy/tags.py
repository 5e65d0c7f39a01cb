"""`tags`: what is sensitive and where to find it. Reads single tags, and resolves groups to the single tags in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gharial.model.place import BodyPath, PathParam, Place, PlaceError, parse_place
from gharial.model.yaml_text import Entries, Entry, Items, Node, Scalar
from gharial.policy.reading import Notes, distinct, entries_of, items_of, keyed, name_of, one_or_list, text_of
from gharial.policy.suggest import did_you_mean

MAX_TAGS = 2_000
"""Tags and groups of one policy."""
MAX_SEGMENTS = 64
"""Segments of one path."""
_LATER = ("detect", "type", "fact", "in", "same_as", "values", "population")


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a kind of sensitive data and its places, sorted. `subject` is the id space if it names a person."""

    name: str
    find: tuple[Place, ...]
    subject: str
    line: int
    column: int

    @property
    def body_paths(self) -> tuple[BodyPath, ...]:
        """Where in a body."""
        return tuple(place for place in self.find if isinstance(place, BodyPath))

    @property
    def params(self) -> tuple[str, ...]:
        """Which path parameters."""
        return tuple(place.name for place in self.find if isinstance(place, PathParam))


@dataclass(frozen=True, slots=True)
class Group:
    """A tag that stands for others. `leaves` are the single tags in it, through groups in groups."""

    name: str
    leaves: frozenset[str]
    line: int
    column: int


def parse_tags(node: Node, notes: Notes) -> tuple[dict[str, Tag], dict[str, Group]]:
    """Read the mapping under `tags`."""
    tags: dict[str, Tag] = {}
    groups: dict[str, Entry] = {}
    entries = entries_of(node, "tags", notes)
    if len(entries) > MAX_TAGS:
        notes.add(entries[MAX_TAGS], f"more than {MAX_TAGS:,} tags")
        return {}, {}
    for entry in entries:
        if not name_of(entry.key, "the name of a tag", notes):
            continue
        if isinstance(entry.value, Items):
            groups[entry.name] = entry
        elif isinstance(entry.value, Entries):
            tags[entry.name] = _parse_tag(entry, notes)
        else:
            notes.add(entry.value, "a tag is written { find: PLACE }, a group of tags as a list [a, b]")
            # Known all the same: one mistake, not one more for each use of the name.
            tags[entry.name] = Tag(entry.name, (), "", entry.key.line, entry.key.column)
    return tags, _resolve(groups, frozenset(tags), notes)


def _parse_tag(entry: Entry, notes: Notes) -> Tag:
    keys = keyed(entry.value, "a tag", notes, known=("find", "subject"), required=("find",), later=_LATER)
    places: set[Place] = set()
    if "find" in keys:
        for node in one_or_list(keys["find"].value, "find", notes):
            place = _parse_place(node, notes)
            if place in places:
                notes.add(node, f"the place {place} stands here a second time")
            elif place is not None:
                places.add(place)
    subject = name_of(keys["subject"].value, "subject", notes) if "subject" in keys else ""
    return Tag(entry.name, tuple(sorted(places, key=str)), subject, entry.key.line, entry.key.column)


def _parse_place(node: Node, notes: Notes) -> Place | None:
    text = text_of(node, "find", notes)
    if not text:
        return None
    try:
        place = parse_place(text)
    except PlaceError as error:
        quoted = isinstance(node, Scalar) and node.quoted
        notes.add(node, str(error), error.offset + quoted)
        return None
    if isinstance(place, BodyPath) and len(place.segments) > MAX_SEGMENTS:
        notes.add(node, f"a path has at most {MAX_SEGMENTS} segments")
        return None
    return place


def _resolve(groups: Mapping[str, Entry], tags: frozenset[str], notes: Notes) -> dict[str, Group]:
    """Replace groups in groups by their single tags. Without recursion: groups may be nested in long chains."""
    members = {name: _members(entry, tags, groups, notes) for name, entry in groups.items()}
    waiting = {name: [m for m in inside if m in groups] for name, inside in members.items()}
    users: dict[str, list[str]] = {name: [] for name in groups}
    for name, needed in waiting.items():
        for other in needed:
            users[other].append(name)
    missing = {name: len(needed) for name, needed in waiting.items()}
    ready = [name for name, count in missing.items() if count == 0]
    leaves: dict[str, frozenset[str]] = {}
    while ready:
        name = ready.pop()
        leaves[name] = frozenset().union(*(leaves[m] if m in groups else {m} for m in members[name]))
        for user in users[name]:
            missing[user] -= 1
            if missing[user] == 0:
                ready.append(user)
    _note_cycles([name for name in groups if name not in leaves], waiting, groups, notes)
    return {
        name: Group(name, leaves.get(name, frozenset()), entry.key.line, entry.key.column)
        for name, entry in groups.items()
    }


def _members(entry: Entry, tags: frozenset[str], groups: Mapping[str, Entry], notes: Notes) -> tuple[str, ...]:
    """The names in a group that exist, without repetition."""
    items = items_of(entry.value, f"the group '{entry.name}'", notes)
    found = distinct(items, lambda node: text_of(node, "the name of a tag", notes), notes)
    for name, node in found:
        if name not in tags and name not in groups:
            notes.add(node, f"unknown tag {did_you_mean(name, [*tags, *groups])}")
    return tuple(name for name, _ in found if name in tags or name in groups)


def _note_cycles(stuck: list[str], waiting: Mapping[str, list[str]], groups: Mapping[str, Entry], notes: Notes) -> None:
    """Note each cycle once, at the group of it that is written first. `stuck` are in a cycle or lead into one."""
    seen: set[str] = set()
    remaining = set(stuck)
    for start in stuck:
        path: list[str] = []
        name = start
        while name not in seen:
            seen.add(name)
            path.append(name)
            # Each stuck group waits for at least one other stuck group, so the walk ends in a cycle.
            name = next(m for m in waiting[name] if m in remaining)
        if name in path:
            cycle = path[path.index(name) :]
            first = min(cycle, key=lambda n: (groups[n].key.line, groups[n].key.column))
            at = cycle.index(first)
            shown = [*cycle[at:], *cycle[:at]]
            chain = " -> ".join([*shown[:5], *(["…"] if len(shown) > 5 else []), first])
            notes.add(groups[first], f"groups can't contain each other: {chain}")
