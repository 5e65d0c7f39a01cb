"""Pass one over an XML document: what meets each value, and whose it is. Rules: `xml_reader`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gharial.model.finding import Kind, Scope
from gharial.model.names import is_blank
from gharial.model.plan import NONE
from gharial.payload.extras import Finder
from gharial.payload.program import Program, State
from gharial.payload.reference_survey import OpenScope
from gharial.payload.xml_text import WHITE_SPACE
from gharial.payload.xml_tree import Element, Name


@dataclass(slots=True)
class Seen:
    """What pass one found about an element.

    `attributes` are the states of its attributes, in their order. `values` are the indexes in its content of its
    values; [-1] for the one of an element without content.
    """

    state: State
    attributes: list[State]
    values: list[int]
    scope: OpenScope


class Survey:
    """What pass one found in one document."""

    def __init__(self, program: Program, finder: Finder, root: Element) -> None:
        self._program = program
        self._finder = finder
        self._cells = program.plan.cells
        self._scopes = [OpenScope()]
        self.seen: dict[Element, Seen] = {}
        self._root = root
        self._place(root, self._way(program.root, root.name), self._scopes[0])
        self._visit(root, self._scopes[0], records=True)

    def report(self) -> tuple[Scope, ...]:
        """Return the scopes that a cell meets, and give them their numbers."""
        reported: list[Scope] = []
        for scope in self._scopes:
            if scope.cells:
                scope.index = len(reported)
                reported.append(Scope(frozenset(scope.cells), scope.subjects, tuple(scope.values)))
        return tuple(reported)

    def cells_of(self, state: State, text: str) -> frozenset[int]:
        """Return what meets a value: the cell of its state, else those of the detectors that recognise it."""
        return self._finder.detect(Kind.STRING, text) if state.cell == NONE else frozenset([state.cell])

    def _place(self, element: Element, state: State, scope: OpenScope) -> None:
        attributes = [self._way(state, name, attribute=True) for name, _ in element.attributes]
        self.seen[element] = Seen(state, attributes, values_of(element), scope)

    def _way(self, state: State, name: Name, *, attribute: bool = False) -> State:
        names = self._program.resolve(state)
        found = names.get(name.full) or names.get(name.local)
        if found is not None:
            return found
        return state.other_index if attribute else state.other_name

    def _visit(self, element: Element, scope: OpenScope, *, records: bool) -> None:
        seen = self.seen[element]
        children = element.children
        for child in children:
            self._place(child, self._way(seen.state, child.name), scope)
        if subjects := self._held(element, seen, children):
            scope, records = self._new_scope(subjects), False
        seen.scope = scope
        if seen.state.cell != NONE:
            scope.cells.add(seen.state.cell)
        for state, (_, text) in zip(seen.attributes, element.attributes, strict=True):
            self._meet(state, text.strip(WHITE_SPACE), scope)
        values = set(seen.values)
        repeated = _repeated(children) if records and len(children) > 1 else ()
        if -1 in values:
            self._meet(seen.state, "", scope)
        for at, item in enumerate(element.content):
            if isinstance(item, str):
                if at in values:
                    self._meet(seen.state, item.strip(WHITE_SPACE), scope)
            elif item.name.full in repeated:
                self._visit(item, self._new_scope([]), records=False)
            else:
                self._visit(item, scope, records=records)

    def _meet(self, state: State, text: str, scope: OpenScope) -> None:
        cells = self.cells_of(state, text)
        scope.cells |= cells
        scope.values += [(cell, Kind.STRING, text) for cell in sorted(cells) if self._cells[cell].report]

    def _held(self, element: Element, seen: Seen, children: list[Element]) -> list[tuple[str, str]]:
        """Return the subjects that an element directly holds, in document order."""
        found = [
            (state.subject, text.strip(WHITE_SPACE))
            for state, (_, text) in zip(seen.attributes, element.attributes, strict=True)
            if state.subject and not is_blank(text)
        ]
        for child in children:
            found += self._subjects(child)
        # Nothing is around the root that could hold what it is.
        return found + self._subjects(element) if element is self._root else found

    def _subjects(self, element: Element) -> list[tuple[str, str]]:
        """Return the subject that an element without elements in it is."""
        seen = self.seen[element]
        if not seen.state.subject or element.children:
            return []
        texts = [item for item in element.content if isinstance(item, str) and not is_blank(item)]
        return [(seen.state.subject, text.strip(WHITE_SPACE)) for text in texts]

    def _new_scope(self, subjects: list[tuple[str, str]]) -> OpenScope:
        scope = OpenScope(tuple(subjects))
        self._scopes.append(scope)
        return scope


def _repeated(children: list[Element]) -> frozenset[str]:
    """The names that several of these elements have."""
    return frozenset(name for name, count in Counter(child.name.full for child in children).items() if count > 1)


def values_of(element: Element) -> list[int]:
    """Return where in the content of an element its values stand; [-1] for "" where there is no content."""
    found = [at for at, item in enumerate(element.content) if isinstance(item, str) and item.strip(WHITE_SPACE)]
    if found or element.attributes or any(not isinstance(item, str) for item in element.content):
        return found
    return [0] if element.content else [-1]
