"""Pass one of the reference executor: what meets each value of a tree, and whose it is. Rules: `reference_reader`."""

from __future__ import annotations

from dataclasses import dataclass, field

from gharial.model.errors import DuplicateName
from gharial.model.finding import Kind, Limits, Scope
from gharial.model.names import is_blank
from gharial.model.place import fold_name
from gharial.model.plan import NONE, Plan
from gharial.payload.extras import NO_CELLS, Cells, Finder
from gharial.payload.json_tree import ARRAY, OBJECT, Value, check_names, walk_values
from gharial.payload.program import Layout, Program, State, looks_everywhere, plan_of_rows


@dataclass(slots=True, eq=False)
class OpenScope:
    """A scope while it is filled. `index` is NONE unless it is reported."""

    subjects: tuple[tuple[str, str], ...] = ()
    cells: set[int] = field(default_factory=set)
    values: list[tuple[int, Kind, str]] = field(default_factory=list)
    index: int = NONE


@dataclass(slots=True, eq=False)
class Seen:
    """What pass one found about a value.

    `cells` meet it, `entering` are those of them that begin here, `above` those of extras that find it or what it is
    in. `names` meet the names of its members. `detected`: its cells are those of detectors.
    """

    state: State
    cells: frozenset[int]
    entering: frozenset[int]
    above: frozenset[int]
    names: frozenset[int]
    opened: bool
    detected: bool
    scope: OpenScope


class ReferenceProgram:
    """One plan made ready for the reference executor. Raises ValueError if it is not consistent in itself."""

    def __init__(self, plan: Plan, layout: Layout = Layout.DOCUMENT) -> None:
        self.plan = plan if layout is Layout.DOCUMENT else plan_of_rows(plan)
        self.program = Program(self.plan, reference=True)
        self.layout = layout
        self.start = self.program.start(layout)
        self.finder = Finder(plan)
        self.opens_all = looks_everywhere(plan)

    def find(self, root: Value, limits: Limits) -> tuple[Cells, Cells]:
        """Return what `Finder.find` does, for a text of this layout."""
        return self.finder.find(root, limits, rows=self.layout is Layout.ROWS)


class Survey:
    """What pass one found in one tree."""

    def __init__(self, reference: ReferenceProgram, root: Value, limits: Limits) -> None:
        """Raises DuplicateName and TooManyValues."""
        self._reference = reference
        self._program = reference.program
        self._cells = reference.plan.cells
        if reference.opens_all:
            check_names(root)
        self._found, self._names = reference.find(root, limits)
        self._scopes = [OpenScope()]
        self.seen: dict[Value, Seen] = {}
        self._place(root, reference.start, NO_CELLS, self._scopes[0])
        self._visit(root, self._scopes[0], records=True, is_member=False)

    def report(self) -> tuple[Scope, ...]:
        """Return the scopes that a cell meets, and give them their numbers."""
        reported: list[Scope] = []
        for scope in self._scopes:
            if scope.cells:
                scope.index = len(reported)
                reported.append(Scope(frozenset(scope.cells), scope.subjects, tuple(scope.values)))
                scope.values = []
        return tuple(reported)

    def _place(self, value: Value, state: State, above: frozenset[int], scope: OpenScope) -> Seen:
        """Work out which cells meet a value."""
        found = self._found.get(value, NO_CELLS)
        entering = found - above
        cells = above | found
        if state.cell != NONE:
            cells |= {state.cell}
        detected = False
        if not cells and not value.form:
            cells = entering = self._reference.finder.detect(*value.leaf())
            detected = bool(cells)
        seen = Seen(
            state,
            cells,
            entering,
            above | found,
            self._names.get(value, NO_CELLS),
            bool(value.form) and (self._reference.opens_all or state.opens),
            detected,
            scope,
        )
        self.seen[value] = seen
        return seen

    def _subjects(self, value: Value, seen: Seen) -> list[tuple[str, str]]:
        """Return (id space, text) for each id space in which a scalar names a person."""
        spaces = [self._cells[cell].subject for cell in sorted(seen.entering)]
        spaces = [space for space in dict.fromkeys([seen.state.subject, *spaces]) if space]
        if not spaces or value.form:
            return []
        kind, text = value.leaf()
        if is_blank(text):
            return []
        return [(space, text) for space in spaces if kind in (Kind.STRING, Kind.NUMBER)]

    def _visit(self, value: Value, scope: OpenScope, *, records: bool, is_member: bool) -> None:
        seen = self.seen[value]
        if not is_member and (subjects := self._subjects(value, seen)):
            scope = self._new_scope(subjects)
        if seen.opened:
            self._place_children(value, seen, scope)
            if value.form == OBJECT and (subjects := self._held_subjects(value, seen)):
                scope, records = self._new_scope(subjects), False
        seen.scope = scope
        scope.cells |= seen.cells
        if not seen.opened:
            self._report(value, seen.cells, scope)
            return
        for at, child in enumerate(value.children):
            if value.form == ARRAY:
                inner = records and seen.state is self._program.rows
                self._visit(child, self._new_scope([]) if records else scope, records=inner, is_member=False)
                continue
            if seen.names:
                scope.cells |= seen.names
                told = [cell for cell in sorted(seen.names) if self._cells[cell].report]
                scope.values += [(cell, Kind.STRING, value.names[at]) for cell in told]
            self._visit(child, scope, records=records, is_member=True)

    def _place_children(self, value: Value, seen: Seen, scope: OpenScope) -> None:
        if value.form == OBJECT and len(set(value.names)) < len(value.names):
            raise DuplicateName
        ways = self._program.resolve(seen.state)
        for at, child in enumerate(value.children):
            if value.form == OBJECT:
                state = ways.get(fold_name(value.names[at]), seen.state.other_name)
            else:
                state = seen.state.indexes.get(at, seen.state.other_index)
            self._place(child, state, seen.above, scope)

    def _held_subjects(self, value: Value, seen: Seen) -> list[tuple[str, str]]:
        """Return the subjects that an object directly holds, names among them, in document order."""
        spaces = dict.fromkeys(self._cells[cell].subject for cell in sorted(seen.names))
        found: list[tuple[str, str]] = []
        for name, child in zip(value.names, value.children, strict=True):
            found += [(space, name) for space in spaces if space and not is_blank(name)]
            found += self._subjects(child, self.seen[child])
        return found

    def _report(self, value: Value, cells: frozenset[int], scope: OpenScope) -> None:
        told = [cell for cell in sorted(cells) if self._cells[cell].report]
        for leaf in walk_values(value) if told else ():
            if not leaf.form:
                scope.values += [(cell, *leaf.leaf()) for cell in told]

    def _new_scope(self, subjects: list[tuple[str, str]]) -> OpenScope:
        scope = OpenScope(tuple(subjects))
        self._scopes.append(scope)
        return scope
