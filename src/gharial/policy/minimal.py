"""Nodes of a plan that lead to the same results wherever one goes from them become one node (Moore, 1956)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

from gharial.model.plan import NOWHERE, Node

MAX_STEPS = 2_000_000
"""Links that are looked at, each time; beyond it the nodes stay as they are, which is as right. About half a second."""


def merge_alike(nodes: Sequence[Node], max_steps: int = MAX_STEPS) -> tuple[Node, ...]:
    """Return nodes of which no two are alike, numbered from the root as they are met, breadth first.

    Alike are two nodes with the same cell, if any, the same names and indexes, and ways on that lead to alike nodes.
    """
    ways = [(n.other_name, n.other_index, *n.names.values(), *n.indexes.values()) for n in nodes]
    links = sum(map(len, ways))
    # The last class is that of NOWHERE, which is -1.
    classes = [*_numbered([(n.cell, tuple(n.names), tuple(n.indexes)) for n in nodes]), -1]
    count = len(set(classes))
    while max_steps >= links:
        max_steps -= links
        finer = [
            *_numbered([(classes[at], *[classes[to] for to in own]) for at, own in enumerate(ways)]), -1,
        ]  # fmt: skip
        if len(set(finer)) == count:
            return _renumbered(nodes, classes)
        classes, count = finer, len(set(finer))
    return tuple(nodes)


def _numbered(keys: Sequence[Hashable]) -> list[int]:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _renumbered(nodes: Sequence[Node], classes: Sequence[int]) -> tuple[Node, ...]:
    """One node of each class, the first that stands for it."""
    firsts: dict[int, int] = {}
    for at in range(len(nodes)):
        firsts.setdefault(classes[at], at)
    numbers = {classes[0]: 0}
    queue = deque([0])
    found: list[Node] = []

    def number(to: int) -> int:
        if to == NOWHERE:
            return NOWHERE
        if classes[to] not in numbers:
            numbers[classes[to]] = len(numbers)
            queue.append(firsts[classes[to]])
        return numbers[classes[to]]

    while queue:
        node = nodes[queue.popleft()]
        found.append(
            Node(
                names={name: number(to) for name, to in node.names.items()},
                indexes={index: number(to) for index, to in node.indexes.items()},
                other_name=number(node.other_name),
                other_index=number(node.other_index),
                cell=node.cell,
            )
        )
    return tuple(found)
