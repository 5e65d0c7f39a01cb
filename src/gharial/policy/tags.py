"""`tags`: what is sensitive and where to find it. Reads single tags, and resolves groups to the single tags in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gharial.model.place import (
    BodyPath,
    Carrier,
    GeneralPath,
    PathParam,
    Place,
    PlaceError,
    RequestField,
    Select,
    XmlPath,
    fold_name,
    parse_place,
)
from gharial.model.yaml_text import Entries, Entry, Items, Node, Scalar
from gharial.policy.reading import (
    Notes,
    choice_of,
    distinct,
    entries_of,
    is_null,
    items_of,
    keyed,
    name_of,
    one_or_list,
    text_of,
)
from gharial.policy.selectors import last_names, parse_general
from gharial.policy.suggest import did_you_mean

MAX_TAGS = 2_000
"""Tags and groups of one policy."""
MAX_SEGMENTS = 64
"""Segments of one path."""
TAG_KEYS = ("find", "subject", "same_as", "population", "fact", "type", "detect", "where", "keys", "in")
"""The keys of a tag."""
TYPES = ("date", "number", "string", "boolean")
DETECTORS = ("email", "phone", "card", "iban", "ip")
"""What values may be recognised by, wherever they stand."""
MAX_WHERE_VALUES = 100
MAX_POPULATION = 10_000_000_000
"""The most people that an id space may be said to have."""
_DIRECTIONS = ("response", "request")
_RESERVED_FACTS = ("consent", "group")
_LATER = ("values",)

Where = tuple[tuple[str, tuple[str, ...]], ...]
"""(member, texts): the object that holds what is found must have one of these texts there; all folded, sorted."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for a kind of sensitive data and its places, sorted.

    `subject` is the id space if it names a person, `same_as` another one of the same people, `population` how many
    there are (0: not said); `fact` is the name of what it tells about a person, `type` the type of its values; each may
    be empty. `detect` is the detector that recognises its values anywhere. With `keys` the names
    of the found objects' members are the values. `response` and `request` are the directions in which its values are
    protected.
    """

    name: str
    find: tuple[Place, ...]
    subject: str
    line: int
    column: int
    fact: str = ""
    type: str = ""
    detect: str = ""
    where: Where = ()
    keys: bool = False
    same_as: str = ""
    population: int = 0
    response: bool = True
    request: bool = False

    @property
    def body_paths(self) -> tuple[BodyPath, ...]:
        """Where in the body of an answer, as far as a trie can say it."""
        if self.where or self.keys or not self.response:
            return ()
        return tuple(place for place in self.find if isinstance(place, BodyPath))

    @property
    def xml_paths(self) -> tuple[XmlPath, ...]:
        """Where in the body of an answer in XML."""
        return tuple(place for place in self.find if isinstance(place, XmlPath)) if self.response else ()

    @property
    def sent_paths(self) -> tuple[BodyPath, ...]:
        """Where in the body of a request its values are protected."""
        return tuple(place for place in self.find if isinstance(place, BodyPath)) if self.request else ()

    @property
    def sent_in_body(self) -> bool:
        """True if its values may stand in the body of a request, read or not (XML is not), and are protected there."""
        return self.request and any(isinstance(place, BodyPath | XmlPath) for place in self.find)

    @property
    def extra_paths(self) -> tuple[BodyPath | GeneralPath, ...]:
        """Where in the body of an answer, as far as only the reference executor finds it."""
        slow = bool(self.where or self.keys)
        return tuple(p for p in self.find if isinstance(p, GeneralPath) or (slow and isinstance(p, BodyPath)))

    @property
    def field_names(self) -> frozenset[str]:
        """The folded names of the fields that the tag's paths end with, of its query's parameters, and of `where`."""
        found = {fold_name(name) for place in self.find for name in _last_names(place)}
        return frozenset(found.union(*(texts for _, texts in self.where)))

    @property
    def params(self) -> tuple[str, ...]:
        """Which path parameters."""
        return tuple(place.name for place in self.find if isinstance(place, PathParam))

    @property
    def fields(self) -> tuple[RequestField, ...]:
        """Which parameters of the query, headers and cookies."""
        return tuple(place for place in self.find if isinstance(place, RequestField))


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
    _note_shared_detectors(tags, notes)
    return tags, _resolve(groups, frozenset(tags), notes)


def _parse_tag(entry: Entry, notes: Notes) -> Tag:
    keys = keyed(entry.value, "a tag", notes, known=TAG_KEYS, later=_LATER)
    if "find" not in keys and "detect" not in keys:
        notes.add(entry.value, "a tag needs the key 'find'")
    places: set[Place] = set()
    if "find" in keys:
        for node in one_or_list(keys["find"].value, "find", notes):
            place = _parse_place(node, notes)
            if place in places:
                notes.add(node, f"the place {place} stands here a second time")
            elif place is not None:
                places.add(place)
    directions = _parse_in(keys["in"].value, notes) if "in" in keys else frozenset(["response"])
    tag = Tag(
        name=entry.name,
        find=tuple(sorted(places, key=str)),
        subject=name_of(keys["subject"].value, "subject", notes) if "subject" in keys else "",
        line=entry.key.line,
        column=entry.key.column,
        fact=_parse_fact(keys["fact"].value, notes) if "fact" in keys else "",
        type=choice_of(keys["type"].value, "type", TYPES, notes) if "type" in keys else "",
        detect=choice_of(keys["detect"].value, "detect", DETECTORS, notes) if "detect" in keys else "",
        where=_parse_where(keys["where"].value, notes) if "where" in keys else (),
        keys=_parse_keys(keys["keys"].value, notes) if "keys" in keys else False,
        same_as=name_of(keys["same_as"].value, "same_as", notes) if "same_as" in keys else "",
        population=_parse_population(keys["population"].value, notes) if "population" in keys else 0,
        response="response" in directions,
        request="request" in directions,
    )
    _check_combination(tag, keys, notes)
    return tag


def _check_combination(tag: Tag, keys: Mapping[str, Entry], notes: Notes) -> None:
    """Note keys that say nothing, or nothing safe, beside each other."""
    for name in ("same_as", "population"):
        if name in keys and "subject" not in keys:
            notes.add(keys[name], f"'{name}' is about the people whom a tag names: it stands beside 'subject'")
    if tag.fact and (tag.params or tag.fields):
        notes.add(
            keys["fact"], "a fact about a person stands in the body; in a request it is not supported by this version"
        )
    if tag.keys:
        for other in ("subject", "fact", "where", "detect", "type"):
            if other in keys:
                notes.add(keys[other], f"'{other}' says nothing about names of members; make it a tag of its own")
        if tag.params or tag.fields or any(isinstance(place, GeneralPath | XmlPath) for place in tag.find):
            notes.add(keys["keys"], "'keys' is about objects found by a plain path: names, indexes, '*' and '..'")
    if tag.where:
        plain = [place for place in tag.find if isinstance(place, BodyPath)]
        if len(plain) < len(tag.find) or any(not p.segments or p.segments[-1].select is Select.INDEX for p in plain):
            notes.add(keys["where"], "'where' is about members of objects, found by a plain path that ends with a name")
    if tag.request:
        _check_request(tag, keys, notes)
    if tag.detect and (tag.subject or tag.fact):
        other = "subject" if tag.subject else "fact"
        notes.add(keys["detect"], f"a value that is found by its look can't be a '{other}'")


def _check_request(tag: Tag, keys: Mapping[str, Entry], notes: Notes) -> None:
    """Note what would not be protected on its way to the API."""
    for other in ("where", "keys", "detect"):
        if other in keys:
            notes.add(keys[other], f"'{other}' finds nothing in requests: in a tag with 'in: [request]' it can't stand")
    if tag.params:
        what = "a path is not protected on its way to the API: find path parameters by a tag without 'in: [request]'"
        notes.add(keys["in"], what)
    if any(isinstance(place, GeneralPath) for place in tag.find):
        notes.add(keys["in"], "in requests values are found by plain paths only: names, indexes, '*' and '..'")
    if not tag.response:
        for other in ("subject", "fact"):
            if other in keys:
                notes.add(keys[other], f"'{other}' is about answers, and this tag is 'in: [request]' alone")


def _parse_place(node: Node, notes: Notes) -> Place | None:
    text = text_of(node, "find", notes)
    if not text:
        return None
    try:
        place = _read_place(text)
    except PlaceError as error:
        quoted = isinstance(node, Scalar) and node.quoted
        notes.add(node, str(error), error.offset + quoted)
        return None
    if isinstance(place, BodyPath | XmlPath) and len(place.segments) > MAX_SEGMENTS:
        notes.add(node, f"a path has at most {MAX_SEGMENTS} segments")
        return None
    return place


def _read_place(text: str) -> Place:
    try:
        return parse_place(text)
    except PlaceError as error:
        if not error.beyond:
            raise
    return parse_general(text)


def _last_names(place: Place) -> Sequence[str]:
    if isinstance(place, GeneralPath):
        return last_names(place)
    if isinstance(place, RequestField):
        return (place.name,) if place.carrier is Carrier.QUERY else ()
    if isinstance(place, BodyPath):
        return next(((s.name,) for s in reversed(place.segments) if s.select is Select.NAME), ())
    if isinstance(place, XmlPath):
        # Whoever filters writes no namespace and no sign of an attribute.
        return next((re.split(r"[@}]", s.name)[-1:] for s in reversed(place.segments) if s.name.strip("@")), ())
    return ()


def _parse_in(node: Node, notes: Notes) -> frozenset[str]:
    found: set[str] = set()
    for text, item in distinct(one_or_list(node, "in", notes), lambda i: text_of(i, "in", notes), notes):
        if text in _DIRECTIONS:
            found.add(text)
        else:
            notes.add(item, f"in is response, request or both, not {did_you_mean(text, _DIRECTIONS)}")
    return frozenset(found or {"response"})


def _parse_fact(node: Node, notes: Notes) -> str:
    name = name_of(node, "fact", notes)
    if name in _RESERVED_FACTS:
        notes.add(node, f"'{name}' is not told by a body; choose another name for this fact")
        return ""
    return name


def _parse_keys(node: Node, notes: Notes) -> bool:
    if not isinstance(node, Scalar) or node.value is not True:
        notes.add(node, "keys is true, or not there")
        return False
    return True


def _parse_population(node: Node, notes: Notes) -> int:
    value = node.value if isinstance(node, Scalar) and not node.quoted else None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_POPULATION:
        return value
    notes.add(node, f"population is a number of people, 1 to {MAX_POPULATION:,}")
    return 0


def _parse_where(node: Node, notes: Notes) -> Where:
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries_of(node, "where", notes):
        member = fold_name(entry.name)
        if member in found:
            notes.add(entry, f"'{entry.name}' stands here a second time")
        nodes = one_or_list(entry.value, f"'{entry.name}'", notes)
        if len(nodes) > MAX_WHERE_VALUES:
            notes.add(entry.value, f"more than {MAX_WHERE_VALUES} texts")
            nodes = ()
        texts = distinct(nodes, lambda item: fold_name(text_of(item, "a text of 'where'", notes)), notes)
        found[member] = tuple(sorted(text for text, _ in texts))
    if not found and not is_null(node):
        notes.add(node, "where is a mapping of members to their texts, like { name: msisdn }")
    return tuple(sorted(found.items()))


def _note_shared_detectors(tags: Mapping[str, Tag], notes: Notes) -> None:
    owners: dict[str, list[Tag]] = {}
    for tag in tags.values():
        if tag.detect:
            owners.setdefault(tag.detect, []).append(tag)
    for detector, own in owners.items():
        names = ", ".join(f"'{name}'" for name in sorted(tag.name for tag in own))
        for tag in sorted(own, key=lambda t: (t.line, t.column))[1:]:
            what = f"what looks like '{detector}' is one tag only, and here are {names}"
            notes.add(Scalar(None, "", tag.line, tag.column), what)


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
    """Note cycles, each once, at the group in it whose name comes first. `stuck` are in a cycle or lead into one."""
    seen: set[str] = set()
    remaining = set(stuck)
    # In the order of names: which of several cycles that share a group is told must not hang on the order of writing.
    for start in sorted(stuck):
        path: list[str] = []
        name = start
        while name not in seen:
            seen.add(name)
            path.append(name)
            # Each stuck group waits for at least one other stuck group, so the walk ends in a cycle.
            name = min(m for m in waiting[name] if m in remaining)
        if name in path:
            cycle = path[path.index(name) :]
            at = cycle.index(min(cycle))
            shown = [*cycle[at:], *cycle[:at]]
            chain = " -> ".join([*shown[:5], *(["…"] if len(shown) > 5 else []), shown[0]])
            notes.add(groups[shown[0]], f"groups can't contain each other: {chain}")
