"""The plan of a request's body: where tokens become real values, and where nothing but tokens may come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from gharial.model.errors import PolicyInvalid
from gharial.model.plan import NONE, NOWHERE, PLAN_FORMAT, Cell, Mode, Node, Op, Plan, Step, Unlisted
from gharial.policy.automaton import Automaton, Move, Positions
from gharial.policy.document import Policy
from gharial.policy.layout import MAX_LINKS, MAX_NODES, too_large
from gharial.policy.minimal import merge_alike
from gharial.policy.tags import Tag

BODIES = "bodies of requests"
OPENED = "request:opened"
DEMANDED = "request:only_tokens"
"""The rules of the steps of such a plan: tokens are opened; nothing else may come, whether or not they are."""


def reads_requests(policy: Policy) -> bool:
    """True if there may be a caller of whose requests the bodies are read."""
    opened = frozenset[str]().union(*(grant.reidentify for grant in policy.grants))
    demanded = frozenset[str]().union(*(guardrail.token_tags for guardrail in policy.never))
    return any(_is_read(policy.tags[name], demanded) for name in opened | demanded)


def incoming_plan(
    policy: Policy, route: str, grants: tuple[str, ...], opened: frozenset[str], demanded: frozenset[str]
) -> Plan | None:
    """Return how the bodies of requests are read for callers who may send back tokens of the tags `opened`.

    `demanded` are tags in whose places nothing but tokens may come. None if no path finds any of them in a body.
    Raises PolicyInvalid if the plan would be too large.
    """
    tags = [tag for name, tag in sorted(policy.tags.items()) if name in opened | demanded and _is_read(tag, demanded)]
    if not tags:
        return None
    layout = _Layout(policy, opened, demanded)
    nodes = layout.nodes(tags)
    return Plan(
        format=PLAN_FORMAT,
        policy=policy.name,
        version=policy.version,
        route=route,
        mode=Mode.ENFORCE,
        grants=grants,
        unlisted=Unlisted.PASS,
        nodes=nodes,
        cells=tuple(layout.cells),
        steps=tuple(layout.steps),
        json_in_strings=policy.json_in_strings,
        needs_reference=f"JSON in strings is opened, {policy.json_in_strings} deep" if policy.json_in_strings else "",
    )


def _is_read(tag: Tag, demanded: frozenset[str]) -> bool:
    """True if bodies are read because of a tag.

    XML is not read in requests. Where only tokens may come in a place in XML, the plan has nothing to look for, but
    because of it bodies must be JSON or forms.
    """
    return bool(tag.body_paths or (tag.xml_paths and tag.name in demanded))


def tags_opened(plan: Plan) -> frozenset[str]:
    """Return the tags whose tokens become real values in the bodies of requests."""
    return _named(plan, "tags")


def tags_demanded(plan: Plan) -> frozenset[str]:
    """Return the tags in whose places in the bodies of requests nothing but tokens may come."""
    return _named(plan, "demanded")


def places_opened(plan: Plan) -> set[tuple[str, str]]:
    """Return (place, tag) of all tokens that become real values, as places are told to people."""
    params = {(p.place, tag) for p in plan.params if p.reidentify for tag in p.tags if tag not in p.closed}
    return params | {(BODIES, tag) for tag in tags_opened(plan)}


def places_demanded(plan: Plan) -> set[tuple[str, str]]:
    """Return (place, tag) of what may be nothing but a token."""
    params = {(p.place, p.tags[0]) for p in plan.params if p.only_tokens}
    return params | {(BODIES, tag) for tag in tags_demanded(plan)}


def wants_only_tokens(plan: Plan) -> bool:
    """True if there are requests that the plan refuses for what is no token."""
    return bool(places_demanded(plan))


def _named(plan: Plan, arg: str) -> frozenset[str]:
    steps = () if plan.incoming is None else plan.incoming.steps
    return frozenset(tag for step in steps for tag in str(step.arg(arg, "")).split())


_Place = tuple[Positions, frozenset[str]]


class _Layout:
    """Numbers nodes and cells in the order in which they are met, breadth first; see `layout.Layout`."""

    def __init__(self, policy: Policy, opened: frozenset[str], demanded: frozenset[str]) -> None:
        self._policy = policy
        self._opened, self._demanded = opened, demanded
        self._numbers: dict[frozenset[str], int] = {}
        self.cells: list[Cell] = []
        self.steps: list[Step] = []

    def nodes(self, tags: Iterable[Tag]) -> tuple[Node, ...]:
        automaton = Automaton.of((tag.name, path) for tag in tags for path in tag.body_paths)
        numbers: dict[_Place, int] = {_land(frozenset(), automaton.start()): 0}
        queue = deque(numbers)
        nodes: list[Node] = []
        links = 0

        def number(place: _Place) -> int:
            if not place[0] and not place[1]:
                return NOWHERE
            if place not in numbers:
                numbers[place] = len(numbers)
                queue.append(place)
            return numbers[place]

        while queue:
            positions, found = queue.popleft()
            moves = automaton.moves(positions)
            links += len(moves.names) + len(moves.indexes)
            if len(numbers) > MAX_NODES or links > MAX_LINKS:
                raise PolicyInvalid([too_large(self._policy)])
            nodes.append(
                Node(
                    names={name: number(_land(found, move)) for name, move in moves.names.items()},
                    indexes={index: number(_land(found, move)) for index, move in moves.indexes.items()},
                    other_name=number(_land(found, moves.other_name)),
                    other_index=number(_land(found, moves.other_index)),
                    cell=self._cell(found) if found else NONE,
                )
            )
        return merge_alike(nodes)

    def _cell(self, tags: frozenset[str]) -> int:
        """One cell per set of tags; its step names those whose tokens are opened."""
        if tags not in self._numbers:
            self._numbers[tags] = len(self.cells)
            opened, demanded = (" ".join(sorted(tags & some)) for some in (self._opened, self._demanded))
            args = (("demanded", demanded), ("tags", opened)) if demanded else (("tags", opened),)
            self.cells.append(Cell(min(tags), (len(self.steps),)))
            self.steps.append(Step(Op.TOKEN, min(tags), DEMANDED if demanded else OPENED, args))
        return self._numbers[tags]


def _land(around: frozenset[str], move: Move) -> _Place:
    """A tag holds for the value that it finds and everything below it."""
    return move.positions, around | move.found
