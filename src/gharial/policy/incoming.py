"""The plan of a request's body: where tokens become values, where nothing else may come, and what is protected."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from gharial.model.errors import PolicyInvalid
from gharial.model.plan import NONE, NOWHERE, PLAN_FORMAT, Cell, Mode, Node, Op, Plan, Step, Unlisted
from gharial.policy.automaton import Automaton, Move, Positions
from gharial.policy.document import Policy
from gharial.policy.layout import MAX_LINKS, MAX_NODES, join_verdicts, step_of, too_large
from gharial.policy.minimal import merge_alike
from gharial.policy.sent import Sent, combine
from gharial.policy.tags import Tag
from gharial.policy.technique import Technique
from gharial.policy.verdict import Verdict

BODIES = "bodies of requests"
OPENED = "request:opened"
DEMANDED = "request:only_tokens"
"""The rules of the steps of such a plan: tokens are opened; nothing else may come, whether or not they are."""


def reads_requests(policy: Policy) -> bool:
    """True if there may be a caller of whose requests the bodies are read."""
    opened = frozenset[str]().union(*(grant.reidentify for grant in policy.grants))
    demanded = frozenset[str]().union(*(guardrail.token_tags for guardrail in policy.never))
    spoken_of = any(_is_read(policy.tags[name], demanded) for name in opened | demanded)
    return spoken_of or any(tag.sent_in_body for tag in policy.tags.values())


def incoming_plan(
    policy: Policy,
    route: str,
    grants: tuple[str, ...],
    opened: frozenset[str],
    demanded: frozenset[str],
    sent: Mapping[str, Verdict],
) -> Plan | None:
    """Return how the bodies of requests are read for callers who may send back tokens of the tags `opened`.

    `demanded` are tags in whose places nothing but tokens may come, `sent` those whose values are protected on their
    way. None if no path finds any of them in a body. Raises PolicyInvalid if the plan would be too large.
    """
    tags = [
        tag
        for name, tag in sorted(policy.tags.items())
        if (name in opened | demanded and _is_read(tag, demanded)) or (name in sent and tag.sent_in_body)
    ]
    if not tags:
        return None
    layout = _Layout(policy, opened, demanded, sent)
    nodes = layout.nodes(tags)
    steps = tuple(layout.steps)
    named = sorted({str(step.arg("list", "")) for step in steps if step.op is Op.SUBSTITUTE})
    plan = Plan(
        format=PLAN_FORMAT,
        policy=policy.name,
        version=policy.version,
        route=route,
        mode=Mode.ENFORCE,
        grants=grants,
        unlisted=Unlisted.PASS,
        nodes=nodes,
        cells=tuple(layout.cells),
        steps=steps,
        lists={name: policy.lists[name] for name in named},
        json_in_strings=policy.json_in_strings,
        needs_reference=f"JSON in strings is opened, {policy.json_in_strings} deep" if policy.json_in_strings else "",
    )
    return plan if policy.redaction == plan.redaction else msgspec.structs.replace(plan, redaction=policy.redaction)


def _is_read(tag: Tag, demanded: frozenset[str]) -> bool:
    """True if bodies are read because of a tag.

    XML is not read in requests. Where only tokens may come in a place in XML, the plan has nothing to look for, but
    because of it bodies must be JSON or forms.
    """
    return bool(tag.body_paths or (tag.xml_paths and tag.name in demanded))


def is_sending(step: Step) -> bool:
    """True for a step of such a plan that protects a value on its way; the others are about tokens that come."""
    return step.rule not in (OPENED, DEMANDED)


def protects_bodies(plan: Plan) -> bool:
    """True if `plan`, an incoming one, sends a value otherwise than it came."""
    return any(is_sending(step) and step.op is not Op.CLEAR for step in plan.steps)


def places_sent(plan: Plan) -> dict[tuple[str, str], Technique]:
    """Return (place, tag) of what is protected on its way to the API, and how."""
    found = {(p.place, plan.steps[p.step].tag): _technique(plan.steps[p.step]) for p in plan.params if p.step != NONE}
    steps = () if plan.incoming is None else plan.incoming.steps
    # One tag within another may be sent in several ways; people are told the most open one, which comes first.
    for step in sorted((step for step in steps if is_sending(step)), key=lambda step: list(Op).index(step.op)):
        found.setdefault((BODIES, step.tag), _technique(step))
    return found


def _technique(step: Step) -> Technique:
    return Technique(step.op, tuple(pair for pair in step.args if pair[0] != "type"))


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


class _Place(NamedTuple):
    """A node before it has a number: tags of which tokens are spoken of, and how values are sent, around included."""

    positions: Positions
    tags: frozenset[str]
    sent: Sent | None


class _Layout:
    """Numbers nodes and cells in the order in which they are met, breadth first; see `layout.Layout`."""

    def __init__(
        self, policy: Policy, opened: frozenset[str], demanded: frozenset[str], sent: Mapping[str, Verdict]
    ) -> None:
        self._policy = policy
        self._opened, self._demanded, self._sent = opened, demanded, sent
        self._numbers: dict[tuple[frozenset[str], Sent | None], int] = {}
        self.cells: list[Cell] = []
        self.steps: list[Step] = []

    def nodes(self, tags: Iterable[Tag]) -> tuple[Node, ...]:
        finds = ((tag.name, path) for tag in tags for path in (tag.sent_paths or tag.body_paths))
        automaton = Automaton.of(finds)
        numbers: dict[_Place, int] = {self._land(_Place(frozenset(), frozenset(), None), automaton.start()): 0}
        queue = deque(numbers)
        nodes: list[Node] = []
        links = 0

        def number(place: _Place) -> int:
            if not place.positions and not place.tags and place.sent is None:
                return NOWHERE
            if place not in numbers:
                numbers[place] = len(numbers)
                queue.append(place)
            return numbers[place]

        while queue:
            here = queue.popleft()
            moves = automaton.moves(here.positions)
            links += len(moves.names) + len(moves.indexes)
            if len(numbers) > MAX_NODES or links > MAX_LINKS:
                raise PolicyInvalid([too_large(self._policy)])
            nodes.append(
                Node(
                    names={name: number(self._land(here, move)) for name, move in moves.names.items()},
                    indexes={index: number(self._land(here, move)) for index, move in moves.indexes.items()},
                    other_name=number(self._land(here, moves.other_name)),
                    other_index=number(self._land(here, moves.other_index)),
                    cell=self._cell(here.tags, here.sent) if here.tags or here.sent else NONE,
                )
            )
        return merge_alike(nodes)

    def _cell(self, tags: frozenset[str], sent: Sent | None) -> int:
        """One cell per set of tags and way of sending; its step names those whose tokens are opened."""
        if (tags, sent) not in self._numbers:
            step = self._step(tags, sent)
            self._numbers[tags, sent] = len(self.cells)
            self.cells.append(Cell(step.tag, (len(self.steps),)))
            self.steps.append(step)
        return self._numbers[tags, sent]

    def _step(self, tags: frozenset[str], sent: Sent | None) -> Step:
        """Where one is nested in the other: what is protected is not opened, and no token where only tokens may come.

        So nothing comes there at all.
        """
        demanded = " ".join(sorted(tags & self._demanded))
        if sent is not None and not demanded:
            return step_of(self._policy, sent.tag, sent.verdict)
        opened = "" if sent is not None else " ".join(sorted(tags & self._opened))
        args = (("demanded", demanded), ("tags", opened)) if demanded else (("tags", opened),)
        return Step(Op.TOKEN, min(tags), DEMANDED if demanded else OPENED, args)

    def _land(self, here: _Place, move: Move) -> _Place:
        """A tag holds for the value that it finds and everything below it; a narrower one names how it is sent."""
        tags = here.tags | (move.found & (self._opened | self._demanded))
        own = move.found & self._sent.keys()
        if not own:
            return _Place(move.positions, tags, here.sent)
        found = combine(self._sent, own)
        if here.sent is not None:
            found = Sent(found.tag, join_verdicts(found.verdict, here.sent.verdict))
        return _Place(move.positions, tags, found)
