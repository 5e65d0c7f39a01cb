"""`watch`: what counts as abuse, read and checked. The watching room decides; nothing here does.

Three kinds, told apart by the key that only they have: people counted over windows (`people_per`), ids asked in order
(`ids_in_order`), and decoys (`ids`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gharial.model.yaml_text import Node, Scalar
from gharial.policy.durations import parse_duration_s, parse_rate
from gharial.policy.reading import Notes, choice_of, entries_of, keyed, name_of, one_or_list, text_of
from gharial.policy.suggest import did_you_mean

MAX_WATCHES = 100
"""Entries of `watch` of one policy."""
WATCH_KEYS = ("people_per", "over", "above", "floor", "ids_in_order", "ids", "do")
"""The keys of an entry."""
PRINCIPALS = ("client", "user", "team", "tenant", "route")
_OF_MANY = ("tenant", "route")
SEVERITIES = ("low", "medium", "high", "critical")
_ALERT, _BLOCK = "alert", "block"
MEASURES = (_ALERT, "throttle", "mask", "decoy", _BLOCK)
"""What may be done: `alert` or `alert:critical`, `block` or `block:1h`, and the others by their word."""
_BASELINE = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,2})?)x_baseline")
MAX_PEOPLE = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Measure:
    """One answer. `severity` belongs to alert, `for_s` to block (0: as long as it is set to by default)."""

    name: str
    severity: str = ""
    for_s: int = 0


@dataclass(frozen=True, slots=True)
class Watch:
    """One detector's setting. Which kind it is tells the field that is not empty: people_per, ids_in_order, or ids.

    `over_s` are windows in seconds, sorted. People above `baseline_factor` times the baseline, or above `people`
    (whichever is not 0), and never fewer than `floor`, are too many. `ids_in_order` is (ids, seconds). `ids` names
    where decoys come from (`file:…`); nothing is read here.
    """

    name: str
    people_per: str
    over_s: tuple[int, ...]
    baseline_factor: float
    people: int
    floor: int
    ids_in_order: tuple[int, int] | None
    ids: str
    do: tuple[Measure, ...]
    line: int
    column: int


def parse_watch(node: Node, notes: Notes) -> tuple[Watch, ...]:
    """Read the mapping under `watch`; sorted by name."""
    entries = entries_of(node, "watch", notes)
    if len(entries) > MAX_WATCHES:
        notes.add(entries[MAX_WATCHES], f"more than {MAX_WATCHES} entries")
        return ()
    found: list[Watch] = []
    for entry in entries:
        name = name_of(entry.key, "the name of a watch", notes)
        watch = _parse_one(name, entry.value, entry.key, notes)
        if name and watch is not None:
            found.append(watch)
    return tuple(sorted(found, key=lambda w: w.name))


_KINDS = {
    "people_per": ("people_per", "over", "above", "floor", "do"),
    "ids_in_order": ("ids_in_order", "do"),
    "ids": ("ids", "do"),
}
_NEEDED = {"people_per": ("over", "above", "do"), "ids_in_order": ("do",), "ids": ("do",)}


def _parse_one(name: str, node: Node, at: Scalar, notes: Notes) -> Watch | None:
    keys = keyed(node, "a watch", notes, known=WATCH_KEYS)
    kinds = [kind for kind in _KINDS if kind in keys]
    if len(kinds) != 1:
        notes.add(node, f"a watch has one of the keys {', '.join(_KINDS)}")
        return None
    kind = kinds[0]
    for key, entry in keys.items():
        if key not in _KINDS[kind]:
            notes.add(entry, f"'{key}' says nothing beside '{kind}'")
    for key in _NEEDED[kind]:
        if key not in keys:
            notes.add(node, f"a watch with '{kind}' needs the key '{key}'")
    do = _parse_do(keys["do"].value, notes) if "do" in keys else ()
    per = choice_of(keys["people_per"].value, "people_per", PRINCIPALS, notes) if "people_per" in keys else ""
    if per in _OF_MANY and any(measure.name != _ALERT for measure in do):
        notes.add(keys["do"], f"what is counted per {per} is the doing of many: only 'alert' fits")
    if "above" in keys and "floor" not in keys and "baseline" in text_or_empty(keys["above"].value):
        notes.add(
            keys["above"], "a baseline needs a 'floor', like floor: 200: it alone decides until the usual is known"
        )
    factor, people = _parse_above(keys["above"].value, notes) if "above" in keys else (0.0, 0)
    return Watch(
        name=name,
        people_per=per,
        over_s=_parse_windows(keys["over"].value, notes) if "over" in keys else (),
        baseline_factor=factor,
        people=people,
        floor=_parse_count(keys["floor"].value, "floor", notes) if "floor" in keys else 0,
        ids_in_order=_parse_ids_in_order(keys["ids_in_order"].value, notes) if "ids_in_order" in keys else None,
        ids=_parse_ids(keys["ids"].value, notes) if "ids" in keys else "",
        do=do,
        line=at.line,
        column=at.column,
    )


def text_or_empty(node: Node) -> str:
    """Return a scalar's text, "" for anything else."""
    return node.text if isinstance(node, Scalar) else ""


def _parse_windows(node: Node, notes: Notes) -> tuple[int, ...]:
    found: set[int] = set()
    for item in one_or_list(node, "over", notes):
        window_s = parse_duration_s(item, "over", notes)
        if window_s in found:
            notes.add(item, "the same window stands here a second time")
        elif window_s:
            found.add(window_s)
    return tuple(sorted(found))


def _parse_above(node: Node, notes: Notes) -> tuple[float, int]:
    text = text_of(node, "above", notes)
    match = _BASELINE.fullmatch(text)
    if match and float(match[1]) > 1:
        return float(match[1]), 0
    if text.isascii() and text.isdigit():
        return 0.0, _parse_count(node, "above", notes)
    if text:
        notes.add(node, "above is a number of people, or like 6x_baseline, with a factor above 1")
    return 0.0, 0


def _parse_count(node: Node, what: str, notes: Notes) -> int:
    value = node.value if isinstance(node, Scalar) and not node.quoted else None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_PEOPLE:
        return value
    notes.add(node, f"{what} is a number of people, 1 to {MAX_PEOPLE:,}")
    return 0


def _parse_ids_in_order(node: Node, notes: Notes) -> tuple[int, int] | None:
    return parse_rate(node, "ids_in_order", "ids", notes)


def _parse_ids(node: Node, notes: Notes) -> str:
    text = text_of(node, "ids", notes)
    if text and (not text.startswith("file:") or len(text) == len("file:")):
        notes.add(node, "ids says where decoys are listed: 'file:decoys.txt'")
        return ""
    return text


def _parse_do(node: Node, notes: Notes) -> tuple[Measure, ...]:
    found: dict[str, Measure] = {}
    for item in one_or_list(node, "do", notes):
        text = text_of(item, "do", notes)
        name, colon, rest = text.partition(":")
        if not text:
            continue
        if name not in MEASURES:
            notes.add(item, f"unknown measure {did_you_mean(name, MEASURES)}")
        elif name in found:
            notes.add(item, f"'{name}' stands here a second time")
        elif name == _ALERT and colon and rest not in SEVERITIES:
            notes.add(item, f"an alert is {', '.join(SEVERITIES)}, not {did_you_mean(rest, SEVERITIES)}")
        elif name == _BLOCK and colon:
            found[name] = Measure(name, for_s=parse_duration_s(_part(item, rest), "block", notes))
        elif colon and name != _ALERT:
            notes.add(item, f"'{name}' takes nothing behind a colon")
        else:
            found[name] = Measure(name, severity=rest)
    return tuple(found[name] for name in MEASURES if name in found)


def _part(node: Node, text: str) -> Scalar:
    return Scalar(text, text, node.line, node.column)
