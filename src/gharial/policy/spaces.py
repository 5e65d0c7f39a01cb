"""Id spaces: which of them mean the same people (`same_as`), and how many people there are in each (`population`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gharial.model.yaml_text import Entries, Entry, Node, Scalar
from gharial.policy.reading import Notes
from gharial.policy.suggest import did_you_mean
from gharial.policy.tags import Tag

Same = tuple[tuple[str, ...], ...]
"""Classes of id spaces that mean the same people, two or more in each; all sorted."""


def find_same(tags: Iterable[Tag]) -> Same:
    """Return the classes of spaces that are the same, also through a third one."""
    classes: dict[str, set[str]] = {}
    for tag in tags:
        if tag.subject and tag.same_as:
            joined = classes.get(tag.subject, {tag.subject}) | classes.get(tag.same_as, {tag.same_as})
            classes.update(dict.fromkeys(joined, joined))
    return tuple(sorted({tuple(sorted(joined)) for joined in classes.values()}))


def find_populations(tags: Iterable[Tag]) -> Mapping[str, int]:
    """Return how many people there are said to be, by id space."""
    return dict(sorted((tag.subject, tag.population) for tag in tags if tag.subject and tag.population))


def note_spaces(node: Node, tags: Mapping[str, Tag], notes: Notes) -> None:
    """Note spaces that do not exist, and populations that contradict each other. `node` is the mapping under `tags`."""
    known = {tag.subject for tag in tags.values() if tag.subject}
    for entry in node.entries if isinstance(node, Entries) else ():
        tag, at = tags.get(entry.name), _find_key(entry, "same_as")
        if tag is None or at is None or not tag.same_as:
            continue
        if tag.same_as == tag.subject:
            notes.add(at, f"'{tag.same_as}' is the tag's own id space; same_as names another one")
        elif tag.same_as not in known:
            notes.add(at, f"no tag has the subject {did_you_mean(tag.same_as, known)}")
    said: dict[str, list[Tag]] = {}
    for tag in sorted(tags.values(), key=lambda t: (t.line, t.column)):
        if tag.population:
            said.setdefault(tag.subject, []).append(tag)
    for space, own in said.items():
        if len({tag.population for tag in own}) > 1:
            names = ", ".join(f"'{name}'" for name in sorted(tag.name for tag in own))
            what = f"{names} say different populations of '{space}'"
            notes.add(Scalar(None, "", own[-1].line, own[-1].column), what)


def _find_key(entry: Entry, name: str) -> Entry | None:
    inside = entry.value.entries if isinstance(entry.value, Entries) else ()
    return next((inner for inner in inside if inner.name == name), None)
