"""Reading a YAML tree: each function gives what it found and notes every mistake, with its place, in one list."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gharial.model.errors import Problem
from gharial.model.yaml_text import Entries, Entry, Items, Node, Scalar, quote
from gharial.policy.suggest import did_you_mean

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Notes:
    """The mistakes of one file."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def add(self, node: Node | Entry, what: str, offset: int = 0) -> None:
        """Note a mistake at `node` (of an entry: at its key), `offset` characters to the right."""
        at = node.key if isinstance(node, Entry) else node
        self.problems.append(Problem(self.file, at.line, at.column + offset, what))


def entries_of(node: Node, what: str, notes: Notes) -> tuple[Entry, ...]:
    """The entries of a mapping; none, with a note, where it is something else. `what` begins the note: "tags"."""
    if isinstance(node, Entries):
        return node.entries
    notes.add(node, f"{what} must be a mapping (name: value)")
    return ()


def items_of(node: Node, what: str, notes: Notes) -> tuple[Node, ...]:
    """The items of a sequence that is not empty."""
    if isinstance(node, Items) and node.items:
        return node.items
    notes.add(node, f"{what} must be a list that is not empty")
    return ()


def one_or_list(node: Node, what: str, notes: Notes) -> tuple[Node, ...]:
    """The items of a sequence that is not empty, or one single node."""
    return items_of(node, what, notes) if isinstance(node, Items) else (node,)


def text_of(node: Node, what: str, notes: Notes) -> str:
    """A text that is not empty; "" with a note where it is something else. `60` and `true` count as texts."""
    if isinstance(node, Scalar) and node.text and (node.quoted or node.value is not None):
        return node.text
    notes.add(node, f"{what} must be a text")
    return ""


def name_of(node: Node, what: str, notes: Notes) -> str:
    """A name that people choose: a letter, then letters, digits, '_', '-', '.'; "" with a note otherwise."""
    text = text_of(node, what, notes)
    if not text or _NAME.fullmatch(text):
        return text
    notes.add(node, f"{what} must begin with a letter and hold only letters, digits, '_', '-' and '.'")
    return ""


def distinct(nodes: Iterable[Node], read: Callable[[Node], str], notes: Notes) -> tuple[tuple[str, Node], ...]:
    """Read a text from each node; one that comes a second time is a mistake. Unread ones ("") are left out."""
    found: dict[str, Node] = {}
    for node in nodes:
        text = read(node)
        if text in found:
            notes.add(node, f"{quote(text)} stands here a second time")
        elif text:
            found[text] = node
    return tuple(found.items())


def keyed(
    node: Node,
    what: str,
    notes: Notes,
    *,
    known: tuple[str, ...],
    required: tuple[str, ...] = (),
    later: tuple[str, ...] = (),
) -> dict[str, Entry]:
    """The entries of a mapping with fixed keys. Unknown, missing and not yet supported keys are noted."""
    found: dict[str, Entry] = {}
    for entry in entries_of(node, what, notes):
        if entry.name in known:
            found[entry.name] = entry
        elif entry.name in later:
            notes.add(entry, f"'{entry.name}' is not supported by this version")
        else:
            notes.add(entry, f"unknown key {did_you_mean(entry.name, known + later)}")
    if isinstance(node, Entries):
        for name in required:
            if name not in found:
                notes.add(node, f"{what} needs the key '{name}'")
    return found


def choice_of(node: Node, what: str, choices: Iterable[str], notes: Notes, *, later: tuple[str, ...] = ()) -> str:
    """One of the words in `choices`; "" with a note otherwise."""
    text = text_of(node, what, notes)
    known = tuple(choices)
    if text in later:
        notes.add(node, f"'{text}' is not supported by this version")
        return ""
    if text and text not in known:
        notes.add(node, f"{what} is one of {', '.join(known)}, not {did_you_mean(text, known)}")
        return ""
    return text


def is_null(node: Node) -> bool:
    """Nothing stands behind the key, or `~`, or `null`."""
    return isinstance(node, Scalar) and node.value is None
