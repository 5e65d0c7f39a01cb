"""Pass two over an XML document: writes it anew from what pass one found. Rules: `xml_reader`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gharial.model.finding import Finding, Kind, Transform
from gharial.model.plan import NONE, Op, Unlisted
from gharial.payload.extras import Finder
from gharial.payload.program import Act, Program, State
from gharial.payload.reference_survey import OpenScope
from gharial.payload.xml_survey import Seen, Survey
from gharial.payload.xml_text import WHITE_SPACE, check_characters, encode_attribute, encode_text
from gharial.payload.xml_tree import Document, Element, Name

_STRICTNESS = {op: at for at, op in enumerate(Op)}
"""The operations are listed from the most open to the strictest."""


class Writer:
    """Collects the pieces of the new document, whether anything changed, and what was counted."""

    def __init__(
        self,
        program: Program,
        finder: Finder,
        survey: Survey,
        variants: Sequence[int],
        transforms: Sequence[Transform],
        by_scope: Sequence[Sequence[Transform]] | None,
        *,
        want_places: bool,
    ) -> None:
        self._program = program
        self._plan = program.plan
        self._finder = finder
        self._survey = survey
        self._variants = variants
        self._transforms = transforms
        self._by_scope = by_scope
        self._places = want_places
        self.parts: list[str] = []
        self.changed = False
        self.counts = [0] * len(self._plan.steps)
        self.unlisted = 0
        self.findings: list[Finding] = []

    def document(self, document: Document) -> None:
        """Write the whole document; where the root would go, an empty element of its name stays."""
        if document.declaration:
            self.parts.append(document.declaration + "\n")
        root = document.root
        if not self._element(root, f"/{_told(root.name)}", is_root=True):
            self.parts.append(f"<{root.name.written}{_namespaces(root)}/>")

    def _element(self, element: Element, path: str, *, is_root: bool) -> bool:
        """Write an element; return False if it goes."""
        seen = self._survey.seen[element]
        cell = seen.state.cell
        if cell != NONE:
            step = self._plan.cells[cell].steps[self._variants[seen.scope.index]]
            if self._program.step_acts[step] is Act.DROP:
                self._count(step, seen.scope, path)
                self.changed = True
                return False
        mark = len(self.parts)
        self.parts.append(f"<{element.name.written}{_namespaces(element)}")
        kept = self._attributes(element, seen, path)
        self.parts.append(">")
        start = len(self.parts)
        kept += self._content(element, seen, path)
        came_with_elements = seen.state.explicit and bool(element.children)
        if self._program.drops_unlisted and not (kept or is_root or cell != NONE or came_with_elements):
            del self.parts[mark:]
            self.changed = True
            return False
        if len(self.parts) == start:
            self.parts[-1] = "/>"
        else:
            self.parts.append(f"</{element.name.written}>")
        return True

    def _attributes(self, element: Element, seen: Seen, path: str) -> int:
        """Write the attributes that stay; return how many."""
        kept = 0
        for (name, text), state in zip(element.attributes, seen.attributes, strict=True):
            # A replacement of xsi:type or xsi:nil would mean something to whoever reads it.
            below = f"{path}/@{_told(name)}" if self._places else ""
            new = self._value(text, state, seen.scope, below, only_copies=name.of_schema and not state.explicit)
            if new is not None:
                kept += 1
                self.parts.append(f' {name.written}="{encode_attribute(new)}"')
        return kept

    def _content(self, element: Element, seen: Seen, path: str) -> int:
        """Write what is in an element; return how many values and elements stayed."""
        values = set(seen.values)
        kept = 0
        names = _Numbers(element) if self._places else None
        # Once: in an element with many texts, looking at all its content for each of them would be quadratic.
        mixed = bool(element.children)
        texts = 0
        gone = False
        if -1 in values:
            kept += self._text("", seen, path)
        for at, item in enumerate(element.content):
            if not isinstance(item, str):
                gone = not self._element(item, f"{path}/{names.next(item)}" if names else "", is_root=False)
                kept += not gone
            elif at in values:
                texts += 1
                kept += self._text(item, seen, f"{path}/text()[{texts}]" if mixed else path)
            elif not gone:
                # White space after what went would tell how much went.
                self.parts.append(encode_text(item))
        return kept

    def _text(self, text: str, seen: Seen, path: str) -> int:
        new = self._value(text, seen.state, seen.scope, path if self._places else "")
        if new:
            self.parts.append(encode_text(new))
        return 0 if new is None else 1

    def _value(
        self, written: str, state: State, scope: OpenScope, path: str, *, only_copies: bool = False
    ) -> str | None:
        """Return what stands in place of a value, with the white space around it; None if it goes."""
        text = written.strip(WHITE_SPACE)
        act, step = self._act(state, text, scope)
        self._count(step, scope, path)
        if act is Act.COPY:
            return written
        if act is Act.DROP or only_copies:
            self.changed = True
            return None
        if act is Act.BLANK:
            new = self._plan.redaction.string
        else:
            transforms = self._transforms if self._by_scope is None else self._by_scope[scope.index]
            kind, new = transforms[step](Kind.STRING, text)
            if kind is Kind.NULL:
                self.changed |= bool(written)
                return ""
        self.changed |= new != text
        before = len(written) - len(written.lstrip(WHITE_SPACE))
        return written[:before] + check_characters(new) + written[before + len(text) :]

    def _act(self, state: State, text: str, scope: OpenScope) -> tuple[Act, int]:
        if state.cell != NONE:
            return state.acts[self._variants[scope.index]]
        looks = self._plan.unlisted is Unlisted.DETECT
        cells = self._survey.cells_of(state, text)
        if not cells:
            if looks and not self._finder.detects_more(Kind.STRING, text):
                return Act.COPY, NONE
            return self._program.unlisted_act, NONE
        steps, variant = self._plan.steps, self._variants[scope.index]
        numbers = [self._plan.cells[cell].steps[variant] for cell in cells]
        # Equal ranks are equally strict for whoever made the plan; should they not be, the stricter operation.
        step = max(numbers, key=lambda at: (steps[at].rank, _STRICTNESS[steps[at].op], -at))
        # A text with an address that may be shown may hold a card number as well.
        is_open = _STRICTNESS[steps[step].op] < _STRICTNESS[Op.REDACT]
        if looks and is_open and self._finder.detects_more(Kind.STRING, text):
            return self._program.unlisted_act, NONE
        return self._program.step_acts[step], step

    def _count(self, step: int, scope: OpenScope, path: str) -> None:
        if step == NONE:
            self.unlisted += 1
            return
        self.counts[step] += 1
        if self._places:
            self.findings.append(Finding(path, step, scope.index))


def _namespaces(element: Element) -> str:
    return "".join(
        f' xmlns{":" if prefix else ""}{prefix}="{encode_attribute(uri)}"' for prefix, uri in element.declares
    )


def _told(name: Name) -> str:
    return name.written.rpartition(":")[2]


class _Numbers:
    """The names of the elements in one element, with a number where there are several of a name."""

    def __init__(self, element: Element) -> None:
        self._many = Counter(_told(child.name) for child in element.children)
        self._met = Counter[str]()

    def next(self, child: Element) -> str:
        """Return how the next element is told."""
        name = _told(child.name)
        self._met[name] += 1
        return f"{name}[{self._met[name]}]" if self._many[name] > 1 else name
