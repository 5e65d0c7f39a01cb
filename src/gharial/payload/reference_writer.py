"""Pass two of the reference executor: writes the new body from what pass one found. Rules: `reference_reader`."""

from __future__ import annotations

from collections.abc import Sequence

from gharial.model.errors import DuplicateName
from gharial.model.finding import Finding, Kind, Transform
from gharial.model.plan import NONE, Op, Unlisted
from gharial.payload.json_text import decode_leaf, encode_leaf, encode_string, name_path
from gharial.payload.json_tree import OBJECT, Value
from gharial.payload.program import Act
from gharial.payload.reference_survey import OpenScope, ReferenceProgram, Seen

_STRICTNESS = {op: at for at, op in enumerate(Op)}
"""The operations are listed from the most open to the strictest."""


class Writer:
    """Collects the pieces of the new body, whether anything changed, and what was counted."""

    def __init__(
        self,
        reference: ReferenceProgram,
        seen: dict[Value, Seen],
        variants: Sequence[int],
        transforms: Sequence[Transform],
        by_scope: Sequence[Sequence[Transform]] | None,
        *,
        want_places: bool,
    ) -> None:
        self._plan = reference.plan
        self._program = reference.program
        self._finder = reference.finder
        self._seen = seen
        self._variants = variants
        self._transforms = transforms
        self._by_scope = by_scope
        self._places = want_places
        self._acts: dict[tuple[frozenset[int], int], tuple[Act, int]] = {}
        self.parts: list[bytes] = []
        self.changed = False
        self.counts = [0] * len(self._plan.steps)
        self.unlisted = 0
        self.findings: list[Finding] = []

    def document(self, root: Value) -> None:
        """Write the whole document; where the root would go, an empty value of its type stays."""
        if not self._value(root, "$"):
            self.parts.append(_empty(root))

    def _value(self, value: Value, path: str) -> bool:
        """Write a value; return False if it goes."""
        seen = self._seen[value]
        act, step = self._act(value, seen)
        if seen.opened and not (seen.cells and act is Act.DROP):
            return self._container(value, seen, path)
        if act is Act.DROP:
            self._count(step, seen.scope, path)
            self.changed = True
            return False
        if act is Act.COPY:
            self._count(step, seen.scope, path)
            self.parts.append(value.raw)
        else:
            self._replace(value, act, step, seen.scope, path)
        return True

    def _act(self, value: Value, seen: Seen) -> tuple[Act, int]:
        looks = self._plan.unlisted is Unlisted.DETECT and not value.form
        if not seen.cells:
            if looks and not self._finder.detects_more(*value.leaf()):
                return Act.COPY, NONE
            return self._program.unlisted_act, NONE
        act, step = self._act_of(seen.cells, seen.scope)
        # A text with an address that may be shown may hold a card number as well.
        open_step = _STRICTNESS[self._plan.steps[step].op] < _STRICTNESS[Op.REDACT]
        if looks and seen.detected and open_step and self._finder.detects_more(*value.leaf()):
            return self._program.unlisted_act, NONE
        return act, step

    def _act_of(self, cells: frozenset[int], scope: OpenScope) -> tuple[Act, int]:
        """Return what is done where these cells meet: the step of the highest rank."""
        variant = self._variants[scope.index]
        known = self._acts.get((cells, variant))
        if known is None:
            steps = self._plan.steps
            numbers = [self._plan.cells[cell].steps[variant] for cell in cells]
            # Equal ranks are equally strict for whoever made the plan; should they not be, the stricter operation.
            step = max(numbers, key=lambda at: (steps[at].rank, _STRICTNESS[steps[at].op], -at))
            known = self._acts[cells, variant] = (self._program.step_acts[step], step)
        return known

    def _container(self, value: Value, seen: Seen, path: str) -> bool:
        """Write an opened container, in a string if it stood in one; return False if it goes."""
        if not value.wrapped:
            return self._opened(value, seen, path)
        around, around_changed = self.parts, self.changed
        self.parts, self.changed = [], False
        stays = self._opened(value, seen, path)
        inner, inner_changed = self.parts, self.changed
        self.parts, self.changed = around, around_changed or inner_changed
        if stays:
            self.parts.append(encode_string(b"".join(inner).decode("utf-8")) if inner_changed else value.wrapped)
        return stays

    def _opened(self, value: Value, seen: Seen, path: str) -> bool:
        start = len(self.parts)
        if value.form == OBJECT:
            self._members(value, seen, path)
        else:
            self._elements(value, path, keeps=seen.state.keeps)
        if len(self.parts) > start:
            first, opening, closing = bytes(self.parts[start]), b"[", b"]"
            if value.form == OBJECT:
                opening, closing = b"{", b"}"
            self.parts[start] = opening + first[1:]
            self.parts.append(closing)
            return True
        came_empty = not value.children
        tagged = bool(seen.cells or seen.names)
        stays = tagged or seen.state.explicit or (came_empty and value.form != OBJECT)
        if self._program.drops_unlisted and not stays:
            self.changed = True
            self.unlisted += came_empty
            return False
        self.parts.append(b"{}" if value.form == OBJECT else b"[]")
        return True

    def _elements(self, value: Value, path: str, *, keeps: bool) -> None:
        for at, child in enumerate(value.children):
            mark = len(self.parts)
            self.parts.append(b",")
            if not self._value(child, f"{path}[{at}]" if self._places else ""):
                self.parts[mark:] = [b",", _empty(child)] if keeps else []

    def _members(self, value: Value, seen: Seen, path: str) -> None:
        meets = bool(seen.names and value.children)
        act, step = self._act_of(seen.names, seen.scope) if meets else (Act.COPY, NONE)
        names = _Names()
        for at, child in enumerate(value.children):
            below = name_path(path, value.names[at]) if self._places else ""
            mark, told = len(self.parts), len(self.findings)
            if seen.names and act is Act.DROP:
                self._count(step, seen.scope, below + "~")
                self.changed = True
                continue
            self.parts.append(b"")
            if not self._value(child, below):
                del self.parts[mark:]
                continue
            name = value.written[at]
            if seen.names:
                later = self.findings[told:]
                del self.findings[told:]
                self._count(step, seen.scope, below + "~")
                self.findings += later
                if act is not Act.COPY:
                    name = encode_string(
                        names.take(_name_text(*self._transforms_of(seen.scope)[step](Kind.STRING, value.names[at])))
                    )
                    self.changed |= name != value.written[at]
            self.parts[mark] = b"," + name + b":"

    def _replace(self, value: Value, act: Act, step: int, scope: OpenScope, path: str) -> None:
        """Write the replacement of a scalar, or of each scalar within a container that is not opened."""
        if not value.form:
            clear = value.raw
            kind, text = decode_leaf(clear)
            new = self._program.blanks[kind] if act is Act.BLANK else self._transformed(scope, step, kind, text)
            self.changed |= new != clear
            self._count(step, scope, path)
            self.parts.append(new)
            return
        if len(set(value.names)) < len(value.names):
            raise DuplicateName
        is_object = value.form == OBJECT
        self.parts.append(b"{" if is_object else b"[")
        for at, child in enumerate(value.children):
            before = b"," if at else b""
            self.parts.append(before + value.written[at] + b":" if is_object else before)
            below = ""
            if self._places:
                below = name_path(path, value.names[at]) if is_object else f"{path}[{at}]"
            self._replace(child, act, step, scope, below)
        self.parts.append(b"}" if is_object else b"]")

    def _transformed(self, scope: OpenScope, step: int, kind: Kind, text: str) -> bytes:
        return encode_leaf(*self._transforms_of(scope)[step](kind, text))

    def _transforms_of(self, scope: OpenScope) -> Sequence[Transform]:
        return self._transforms if self._by_scope is None else self._by_scope[scope.index]

    def _count(self, step: int, scope: OpenScope, path: str) -> None:
        if step == NONE:
            self.unlisted += 1
            return
        self.counts[step] += 1
        if self._places:
            self.findings.append(Finding(path, step, scope.index))


class _Names:
    """The new names of one object: no two are equal."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def take(self, name: str) -> str:
        """Return the name, with `#2`, `#3` and so on after it if it is taken."""
        chosen, number = name, self._next.get(name, 2)
        while chosen in self._taken:
            chosen, number = f"{name}#{number}", number + 1
        self._next[name] = number
        self._taken.add(chosen)
        return chosen


def _name_text(kind: Kind, text: str) -> str:
    return "null" if kind is Kind.NULL else text


def _empty(root: Value) -> bytes:
    """Return what stays of a root that would go."""
    empty = {0: b"null", OBJECT: b"{}"}.get(root.form, b"[]")
    return encode_string(empty.decode()) if root.wrapped else empty
