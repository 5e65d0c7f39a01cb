"""Which fields of a JSON document no tag names: their names, for those who keep a policy up to date."""

from __future__ import annotations

import re

import msgspec

from gharial.model.place import fold_name
from gharial.model.plan import NONE, NOWHERE, Plan

MAX_NAMED = 20
OTHER = "?"
"""Stands for a name that may be a value: with other characters than names of fields mostly have, or long."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def find_unlisted(plan: Plan, body: bytes) -> tuple[str, ...]:
    """Return the names of fields that the plan's trie does not cover, each once, at most MAX_NAMED, in their order.

    `body` has been read already, so it is JSON of bounded depth. What a detector or filter of the plan covers besides
    is named too.
    """
    found: dict[str, None] = {}
    waiting: list[tuple[object, int, bool, str]] = [(msgspec.json.decode(body), 0, False, "")]
    while waiting and len(found) < MAX_NAMED:
        value, at, covered, name = waiting.pop()
        node = plan.nodes[at] if at != NOWHERE else None
        covered = covered or (node is not None and node.cell != NONE)
        if covered:
            continue
        if isinstance(value, dict):
            ways = [
                (inner, NOWHERE if node is None else node.names.get(fold_name(key), node.other_name), covered, key)
                for key, inner in value.items()
            ]
        elif isinstance(value, list):
            ways = [
                (inner, NOWHERE if node is None else node.indexes.get(index, node.other_index), covered, name)
                for index, inner in enumerate(value)
            ]
        else:
            found[name if _NAME.fullmatch(name) else OTHER] = None
            continue
        waiting.extend(reversed(ways))
    return tuple(found)
