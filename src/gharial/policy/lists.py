"""`lists`: made-up texts that `substitute` chooses from, by name."""

from __future__ import annotations

from gharial.model.yaml_text import Node
from gharial.policy.reading import Notes, distinct, entries_of, items_of, name_of, text_of

MAX_LISTS = 100
MAX_LIST_TEXTS = 10_000
MAX_LIST_TEXT_CHARS = 200
MIN_LIST_TEXTS = 10
"""A value never gets itself: of a list of two its substitute is simply the other one."""


def parse_lists(node: Node, notes: Notes) -> dict[str, tuple[str, ...]]:
    """Read the mapping under `lists`: name -> texts, in the order of writing, which decides who gets which."""
    entries = entries_of(node, "lists", notes)
    if len(entries) > MAX_LISTS:
        notes.add(entries[MAX_LISTS], f"more than {MAX_LISTS} lists")
        return {}
    return {
        entry.name: _parse_list(entry.value, entry.name, notes)
        for entry in entries
        if name_of(entry.key, "the name of a list", notes)
    }


def _parse_list(node: Node, name: str, notes: Notes) -> tuple[str, ...]:
    items = items_of(node, f"the list '{name}'", notes)
    if len(items) > MAX_LIST_TEXTS:
        notes.add(items[MAX_LIST_TEXTS], f"more than {MAX_LIST_TEXTS:,} texts")
        return ()
    # Folded, as a value must never get itself in other letters.
    distinct(items, lambda item: text_of(item, f"a text of '{name}'", notes).casefold(), notes)
    texts = tuple(text_of(item, f"a text of '{name}'", Notes(notes.file)) for item in items)
    for text, item in zip(texts, items, strict=True):
        if len(text) > MAX_LIST_TEXT_CHARS or any("\ud800" <= character <= "\udfff" for character in text):
            notes.add(item, f"a text of at most {MAX_LIST_TEXT_CHARS} characters is wanted here")
    if 0 < len(items) < MIN_LIST_TEXTS:
        what = f"the list '{name}' needs {MIN_LIST_TEXTS} texts or more: of few, what is not chosen tells the value"
        notes.add(node, what)
    return texts
