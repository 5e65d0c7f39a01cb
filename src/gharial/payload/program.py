"""Program: a plan made ready to run, with node numbers, folded names and step codes looked up beforehand.

It is checked once, so that a reader may follow it blindly: an index that points nowhere would be a way around.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from gharial.model.finding import Kind, Transform
from gharial.model.place import fold_name
from gharial.model.plan import NONE, NOWHERE, PLAN_FORMAT, Op, Plan, Unlisted
from gharial.payload.json_text import encode_leaf

if TYPE_CHECKING:
    from gharial.payload.json_levels import Shape


T = TypeVar("T")


class Act(enum.IntEnum):
    """What a writer does with a value."""

    COPY = 0
    DROP = 1
    CHANGE = 2
    BLANK = 3
    """Redact what no cell covers."""


class Layout(enum.Enum):
    """What a JSON text is: one document, or the list of the rows of a body."""

    DOCUMENT = enum.auto()
    ROWS = enum.auto()


_ACTS = {Op.CLEAR: Act.COPY, Op.DROP: Act.DROP}
_UNLISTED_ACTS = {
    Unlisted.DROP: Act.DROP,
    Unlisted.PASS: Act.COPY,
    Unlisted.REDACT: Act.BLANK,
    # What the detectors find; the reference executor, which alone has them, lets the rest pass.
    Unlisted.DETECT: Act.BLANK,
}


class State:
    """Where a reader stands in the trie: a node, the cell that covers it (its own or inherited), and how it got there.

    `cell` is the effective cell or NONE. `opens` says whether a container here is opened to look for what is listed.
    `explicit`: it was reached by a name or index of a path, not by a wildcard or a descent; or it is the root.
    `subject` is the id space if a scalar here names a person, else empty. `reports`: scalars here, and those of a
    container that is not opened, are handed to the gate. `acts` is what is done in each variant, with the index of the
    step or NONE. `keeps`: an element that would go leaves an empty value of its type, as a root does. `names`,
    `indexes`, `other_name` and `other_index` lead on; see `Program.resolve`.
    """

    __slots__ = (
        "acts",
        "cell",
        "explicit",
        "indexes",
        "keeps",
        "names",
        "node",
        "opens",
        "other_index",
        "other_name",
        "reports",
        "subject",
    )

    def __init__(
        self,
        node: int,
        cell: int,
        acts: tuple[tuple[Act, int], ...],
        *,
        opens: bool,
        explicit: bool,
        subject: str,
        reports: bool,
    ) -> None:
        self.node = node
        self.cell = cell
        self.acts = acts
        self.opens = opens
        self.explicit = explicit
        self.subject = subject
        self.reports = reports
        self.keeps = False
        self.names: dict[str, State] | None = None
        self.indexes: dict[int, State] = {}
        self.other_name: State = self
        self.other_index: State = self


class Program:
    """One plan, checked, with its states made as they are met. Of payloads it holds nothing but names of fields.

    `root` is where a document begins, `rows` the list of the rows of a body.

    `shapes` keeps what a reader has worked out for the names of an object, for the next body (`json_levels.shape_of`).

    Raises ValueError for a plan that is not consistent in itself; a compiler never makes one. So it does for a plan
    that only the reference executor can run, unless that is who asks (`reference`).
    """

    def __init__(self, plan: Plan, *, reference: bool = False) -> None:
        _check(plan)
        if not reference and (plan.needs_reference or looks_everywhere(plan)):
            raise ValueError("only the reference executor can run this plan")
        self.plan = plan
        self.variants = len(plan.variants)
        self.drops_unlisted = plan.unlisted is Unlisted.DROP
        self.blanks = {
            Kind.STRING: encode_leaf(Kind.STRING, plan.redaction.string),
            Kind.NUMBER: encode_leaf(Kind.NUMBER, plan.redaction.number),
            Kind.BOOLEAN: encode_leaf(Kind.BOOLEAN, plan.redaction.boolean),
            Kind.NULL: encode_leaf(Kind.NULL, ""),
        }
        self.unlisted_act = _UNLISTED_ACTS[plan.unlisted]
        self.step_acts = tuple(_ACTS.get(step.op, Act.CHANGE) for step in plan.steps)
        self._unlisted_acts = ((self.unlisted_act, NONE),) * self.variants
        self._cell_acts = tuple(tuple((self.step_acts[step], step) for step in cell.steps) for cell in plan.cells)
        self._states: dict[tuple[int, int, bool, bool], State] = {}
        self.shapes: dict[tuple[State, tuple[str, ...]], Shape] = {}
        self.root = self._state(0, NONE, explicit=True)
        self.rows = self._list_of(self.root)

    def start(self, layout: Layout) -> State:
        """Return the state of the whole text."""
        return self.root if layout is Layout.DOCUMENT else self.rows

    def _list_of(self, element: State) -> State:
        """Return the state of a list that no path speaks of: its elements are of this state, and never go."""
        state = State(NOWHERE, NONE, self._unlisted_acts, opens=True, explicit=True, subject="", reports=False)
        state.names, state.other_index, state.keeps = {}, element, True
        state.other_name = self._state(NOWHERE, NONE, explicit=False)
        return state

    def resolve(self, state: State) -> dict[str, State]:
        """Return `state.names`, after making sure that the state's ways on are looked up."""
        if state.names is not None:
            return state.names
        if state.node == NOWHERE:
            on = self._state(NOWHERE, state.cell, explicit=False)
            state.other_name = state.other_index = on
            state.names = {}
            return state.names
        node = self.plan.nodes[state.node]
        state.other_name = self._state(node.other_name, state.cell, explicit=False)
        state.other_index = self._state(node.other_index, state.cell, explicit=False)
        state.indexes = {at: self._state(to, state.cell, explicit=True) for at, to in node.indexes.items()}
        # Last: other threads take a state with names as resolved.
        state.names = {name: self._state(to, state.cell, explicit=True) for name, to in node.names.items()}
        return state.names

    def _state(self, node: int, inherited: int, *, explicit: bool) -> State:
        own = NONE if node == NOWHERE else self.plan.nodes[node].cell
        cell = inherited if own == NONE else own
        # What lies below a tagged value is covered by its cell, but only the value itself names a person.
        enters = cell != inherited
        key = (node, cell, explicit, enters)
        if (state := self._states.get(key)) is None:
            state = State(
                node,
                cell,
                self._unlisted_acts if cell == NONE else self._cell_acts[cell],
                opens=node != NOWHERE and (cell == NONE or self._leads_elsewhere(node, cell)),
                explicit=explicit,
                subject=self.plan.cells[cell].subject if enters else "",
                reports=cell != NONE and self.plan.cells[cell].report,
            )
            self._states[key] = state
        return state

    def _leads_elsewhere(self, node: int, cell: int) -> bool:
        """True if one or more steps lead from the node to one with another cell."""
        seen: set[int] = set()
        waiting = [node]
        while waiting:
            here = self.plan.nodes[waiting.pop()]
            for to in (here.other_name, here.other_index, *here.names.values(), *here.indexes.values()):
                if to != NOWHERE and to not in seen:
                    if self.plan.nodes[to].cell not in (NONE, cell):
                        return True
                    seen.add(to)
                    waiting.append(to)
        return False


def looks_everywhere(plan: Plan) -> bool:
    """True if the plan has what the trie can't say where to look for, so that every container is opened."""
    return bool(plan.extras or plan.json_in_strings or plan.unlisted is Unlisted.DETECT)


_KEPT = 256


class Kept(Generic[T]):
    """What was made of the last few hundred plans, by the very plan object."""

    def __init__(self, make: Callable[[Plan], T]) -> None:
        self._make = make
        self._kept: dict[int, tuple[Plan, T]] = {}

    def get(self, plan: Plan) -> T:
        """Return what was made of this plan, or make it. Raises what making it raises."""
        # By identity: a plan can't be hashed, and comparing two costs more than a small body does. The plan is kept
        # too, so the identity of a kept one is not given to another.
        kept = self._kept.get(id(plan))
        if kept is None or kept[0] is not plan:
            kept = (plan, self._make(plan))
            # `list` takes the keys in one go: readers may run in several threads.
            for oldest in list(self._kept)[: max(0, len(self._kept) - _KEPT + 1)]:
                self._kept.pop(oldest, None)
            self._kept[id(plan)] = kept
        return kept[1]


program_of = Kept(Program).get
"""The program of this very plan object. Raises ValueError as Program does."""


def plan_of_rows(plan: Plan) -> Plan:
    """Return the plan by which each row of a body is read as a document. Raises ValueError where there is none."""
    if plan.row_nodes is None:
        raise ValueError("the plan can't read rows")
    return msgspec.structs.replace(plan, nodes=plan.row_nodes) if plan.row_nodes else plan


row_program_of = Kept(lambda plan: Program(plan_of_rows(plan))).get
"""The program by which this very plan object reads rows. Raises ValueError as Program and `plan_of_rows` do."""


def check_transforms(
    plan: Plan, transforms: Sequence[Transform], by_scope: Sequence[Sequence[Transform]] | None, scopes: int
) -> None:
    """Raise ValueError unless there is one transform for each step, and one set of them for each scope if any."""
    if len(transforms) != len(plan.steps) or any(len(own) != len(plan.steps) for own in by_scope or ()):
        raise ValueError("there must be one transform for each step of the plan")
    if by_scope is not None and len(by_scope) != scopes:
        raise ValueError("there must be one set of transforms for each scope")


def _check(plan: Plan) -> None:
    if plan.format != PLAN_FORMAT:
        raise ValueError(f"plan format {plan.format} is not {PLAN_FORMAT}")
    if not plan.nodes or not plan.variants:
        raise ValueError("a plan has at least one node and one variant")
    for at, node in enumerate(plan.nodes):
        for to in (*node.names.values(), *node.indexes.values(), node.other_name, node.other_index):
            if not (to == NOWHERE or 0 <= to < len(plan.nodes)):
                raise ValueError(f"node {at} leads to {to}, which is no node")
        if not (node.cell == NONE or 0 <= node.cell < len(plan.cells)):
            raise ValueError(f"node {at} has cell {node.cell}, which is no cell")
        if any(fold_name(name) != name for name in node.names):
            raise ValueError(f"node {at} holds a name that is not folded; it would never match")
    for at, cell in enumerate(plan.cells):
        if len(cell.steps) != len(plan.variants):
            raise ValueError(f"cell {at} needs one step per variant")
        if any(not 0 <= step < len(plan.steps) for step in cell.steps):
            raise ValueError(f"cell {at} names a step that does not exist")
    for extra in plan.extras:
        if not 0 <= extra.cell < len(plan.cells):
            raise ValueError(f"an extra has cell {extra.cell}, which is no cell")
        if bool(extra.path) == bool(extra.detector) or (extra.detector and (extra.keys or extra.where)):
            raise ValueError("an extra has either a path or a detector")
