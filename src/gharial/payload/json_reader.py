"""JSON (RFC 8259) read by a plan: pass one finds persons and the cells that meet them, pass two writes the new body.

What an executor of plans does with JSON, exactly. Another executor must give the same bytes for the same plan,
variants and transforms.

**States.** A value has a state: a node of the trie or NOWHERE, and its *effective cell*: its node's cell, else the one
inherited from the value around it, else none. The root's node is 0. A member is looked up by its decoded name, folded
(`fold_name`), in `names`, else `other_name`; an element by `indexes`, else `other_index`. A state *opens* if its node
is not NOWHERE and it has no cell, or some node reachable from its node has a cell other than its own. Only containers
in opening states are opened, and in pass two those whose leaves get replaced.

**Opened** objects must not hold a name twice (compared as decoded, not folded): DuplicateName. In a container that is
not opened duplicates are legal.

**Scopes**, in the order in which their first character stands in the body; only those that a cell meets are reported.

* An object that directly holds a subject (a string other than "", or a number, whose own node brings in a cell with
  `subject`; an inherited cell does not count) is a scope. So is an array's element, or the root, that is a subject.
* Else each element of the first array met on the way down from the root, no such object around it, is a scope
  without subjects.
* Else the whole document is one.

A value belongs to the innermost scope around it; an opened object that is a scope belongs to its own. Every member,
element and root that is reached through opened containers and has a cell, meets that cell in its scope.

**Acts.** A value with a cell gets the cell's step in the variant of its scope; a value without one gets `unlisted`.

* DROP: the member or element goes, as a whole, opened or not. The root can't go: it becomes `{}`, `[]` or `null`.
* CLEAR (and `unlisted: pass`): a scalar, and a container that is not opened, is copied verbatim.
* Any other step (and `unlisted: redact`): a scalar is replaced; in a container that is not opened each scalar is
  replaced, the containers are kept and written compactly. `unlisted: redact` puts `Plan.redaction` by type; null stays.
* An opened container is kept, and each of its values gets its own act. One exception: under `unlisted: drop`, a
  container without a cell of which nothing is left is removed, unless it is the root, or was reached by a name or index
  of the trie (not by `other_name` or `other_index`), or is an array that came empty.

**Writing.** If no value was removed and every replacement equals what it replaces byte for byte, the body goes out as
it came. Else opened containers are written without white space, names and copied values as they were written, replaced
strings as `encode_string` writes them; white space around the document goes. A byte order mark is always removed, which
counts as a change; the same rule then holds for what follows it.

**Counting.** A step counts once for each value removed, copied or replaced by it; a container counts as one value if it
is removed or copied, its scalars count if they are replaced, and an opened one that stays does not count. `unlisted`
counts in the same way what no cell covers; of containers that go because nothing is left, only those that came empty.

**Limits.** `body_bytes` is exact. `depth` counts containers inside one another, the root as 1, opened or not; `values`
counts scalars and containers, not names. A body nested so deep that Python can't follow (about 900) is too deep.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gharial.model.errors import BodyMalformed, BodyTooDeep, BodyTooLarge, TooManyValues
from gharial.model.finding import Limits, Rewritten, Scope, Transform
from gharial.model.plan import NONE, Plan
from gharial.payload.json_levels import (
    ARRAY,
    OBJECT,
    Array,
    Entry,
    Object,
    OpenScope,
    Shape,
    decode_array,
    decode_object,
    first_byte,
    subject_text,
)
from gharial.payload.json_text import WHITE_SPACE, count_values, is_deeper, scan_names
from gharial.payload.json_writer import Writer
from gharial.payload.program import State, program_of

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_check_document = msgspec.json.Decoder(msgspec.Raw).decode


class JsonReader:
    """One JSON body under one plan: `feed` it all, then `survey`, then `finish`. See the module's text."""

    def __init__(self, plan: Plan, limits: Limits) -> None:
        """Raises ValueError if the plan is not consistent in itself."""
        self._program = program_of(plan)
        self._limits = limits
        self._chunks: list[bytes] = []
        self._size = 0
        self._body = b""
        self._marked = False
        self._root: Entry | None = None
        self._root_scope = OpenScope(())
        self._scopes: list[OpenScope] = []
        self._reported: tuple[Scope, ...] | None = None
        self._shapes: dict[State, dict[tuple[str, ...], Shape]] = {}
        self._opened = 0
        self._deepest = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises BodyTooLarge as soon as there are more than `limits.body_bytes`."""
        if self._reported is not None:
            raise RuntimeError("the body was surveyed already")
        self._size += len(chunk)
        if self._size > self._limits.body_bytes:
            self._chunks.clear()
            raise BodyTooLarge(f"longer than {self._limits.body_bytes} bytes")
        self._chunks.append(bytes(chunk))

    def survey(self) -> tuple[Scope, ...]:
        """Pass one: return the scopes that a cell of the plan meets, in document order.

        Raises BodyTooLarge, BodyMalformed, BodyTooDeep, TooManyValues or DuplicateName; then nothing can be finished.
        """
        if self._reported is None:
            if self._size > self._limits.body_bytes:
                raise BodyTooLarge(f"longer than {self._limits.body_bytes} bytes")
            body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._marked = body.startswith(_BYTE_ORDER_MARK)
            self._body = body[len(_BYTE_ORDER_MARK) :] if self._marked else body
            try:
                self._survey(self._body)
            except (msgspec.DecodeError, UnicodeDecodeError):
                # Their texts may quote the body.
                raise BodyMalformed("not one JSON document in UTF-8") from None
            except RecursionError:
                raise BodyTooDeep("nested too deeply to be followed") from None
            reported: list[Scope] = []
            for scope in self._scopes:
                if scope.cells:
                    scope.index = len(reported)
                    reported.append(Scope(frozenset(scope.cells), scope.subjects))
            self._reported = tuple(reported)
            self._chunks.clear()
        return self._reported

    def finish(
        self, variants: Sequence[int], transforms: Sequence[Transform], *, want_places: bool = False
    ) -> Rewritten:
        """Pass two: return the body as it may leave.

        `variants[i]` is the variant of scope i of `survey`, `transforms[i]` the function of step i of the plan. With
        `want_places` each finding's JSONPath is returned too; it quotes the names of the body, which may be personal
        data, so it is for whoever may see the body. Raises DuplicateName for an object that only this pass opens,
        whatever a transform raises, ValueError if variants or transforms do not belong to this plan and body.
        """
        reported = self.survey()
        if len(variants) != len(reported) or not all(0 <= variant < self._program.variants for variant in variants):
            raise ValueError("there must be one variant of the plan for each scope")
        if len(transforms) != len(self._program.plan.steps):
            raise ValueError("there must be one transform for each step of the plan")
        for scope in self._scopes:
            # A scope that no cell meets has only unlisted values, which are the same in all variants.
            scope.variant = variants[scope.index] if scope.index != NONE else 0
        if self._root is None:
            raise RuntimeError("the survey did not end")
        writer = Writer(self._program, transforms, want_places=want_places)
        try:
            writer.document(self._root, self._program.root, self._root_scope)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BodyMalformed("not one JSON document in UTF-8") from None
        except RecursionError:
            raise BodyTooDeep("nested too deeply to be followed") from None
        return Rewritten(
            body=b"".join(writer.parts) if writer.changed else self._body,
            changed=writer.changed or self._marked,
            counts={step: count for step, count in enumerate(writer.counts) if count},
            unlisted=writer.unlisted,
            findings=tuple(writer.findings),
        )

    def _survey(self, body: bytes) -> None:
        if not body.isascii():
            body.decode("utf-8")  # msgspec does not look at the encoding of what it skips
        text = body.strip(WHITE_SPACE)
        if not text:
            raise BodyMalformed("there is no JSON document")
        # The grammar of the whole document, before anything is concluded from a part of it.
        _check_document(text)
        brackets = text.count(b"[") + text.count(b"{")
        # A value is the first one, or follows a comma, or is the first in a container.
        if 1 + text.count(b",") + brackets > self._limits.values and count_values(text) > self._limits.values:
            raise TooManyValues(f"more than {self._limits.values} values")
        scope = OpenScope(())
        self._scopes, self._opened, self._deepest = [scope], 0, 0
        self._root, self._root_scope = self._entry(text, self._program.root, scope, records=True, depth=1)
        # Brackets that were not opened may all be one in another, below the deepest level that was.
        unopened = brackets - self._opened
        if self._deepest + unopened > self._limits.depth and is_deeper(text, self._limits.depth):
            raise BodyTooDeep(f"nested deeper than {self._limits.depth}")

    def _object(self, raw: bytes | msgspec.Raw, state: State, scope: OpenScope, *, records: bool, depth: int) -> Object:
        self._go_down(depth)
        members = decode_object(raw)
        values = list(members.values())
        shape = self._shape(state, members)
        text = bytes(raw)
        # Exactly the bytes of distinct names without escapes and of nothing between the tokens; else look closer.
        plain = shape.name_bytes + sum(map(len, values)) == len(text)
        prefixes = shape.prefixes if plain else scan_names(text, values)
        if shape.subjects and (subjects := shape.subjects_of(values)):
            scope, records = OpenScope(subjects), False
            self._scopes.append(scope)
        level = Object(state, scope, shape, values, prefixes)
        if not shape.opening or (text.count(b"{") == 1 and b"[" not in text):
            scope.cells |= shape.cells
        else:
            del text  # a copy; levels below must not hold one each
            scope.cells |= shape.settled_cells
            children: dict[int, Object | Array] = {}
            for at, below in shape.opening:
                value = values[at]
                first = first_byte(value)
                if first == OBJECT:
                    child: Object | Array = self._object(value, below, scope, records=records, depth=depth + 1)
                elif first == ARRAY:
                    child = self._array(value, below, scope, records=records, depth=depth + 1)
                else:
                    if below.cell != NONE:
                        scope.cells.add(below.cell)
                    continue
                children[at] = child
            level.children = children or None
        if state.cell != NONE:
            scope.cells.add(state.cell)
        return level

    def _array(self, raw: bytes | msgspec.Raw, state: State, scope: OpenScope, *, records: bool, depth: int) -> Array:
        self._go_down(depth)
        self._program.resolve(state)
        found = decode_array(raw)
        items: list[Entry] = list(found)
        level = Array(state, scope, items)
        if state.cell != NONE:
            scope.cells.add(state.cell)
        indexes, below = state.indexes, state.other_index
        if not indexes and not below.opens and below.cell == NONE:
            return level
        scopes: list[OpenScope] = []
        for at, item in enumerate(found):
            if indexes:
                below = indexes.get(at, state.other_index)
            own = scope
            if records:
                own = OpenScope(())
                self._scopes.append(own)
            items[at], own = self._entry(item, below, own, records=False, depth=depth + 1)
            scopes.append(own)
        level.scopes = scopes
        return level

    def _entry(
        self, raw: bytes | msgspec.Raw, state: State, scope: OpenScope, *, records: bool, depth: int
    ) -> tuple[Entry, OpenScope]:
        """Survey an element or the root, which may be a subject itself; return it and the scope that it belongs to."""
        first = first_byte(raw)
        if first == OBJECT and state.opens:
            child = self._object(raw, state, scope, records=records, depth=depth)
            return child, child.scope
        if first == ARRAY and state.opens:
            return self._array(raw, state, scope, records=records, depth=depth), scope
        if state.subject and (text := subject_text(raw)):
            scope = OpenScope(((state.subject, text),))
            self._scopes.append(scope)
        if state.cell != NONE:
            scope.cells.add(state.cell)
        return raw, scope

    def _shape(self, state: State, members: dict[str, msgspec.Raw]) -> Shape:
        """Return what the plan says of these names at this state: records of one kind share one answer."""
        names = tuple(members)
        shapes = self._shapes.setdefault(state, {})
        if (shape := shapes.get(names)) is None:
            shape = Shape(self._program, state, names)
            shapes[names] = shape
        return shape

    def _go_down(self, depth: int) -> None:
        if depth > self._limits.depth:
            raise BodyTooDeep(f"nested deeper than {self._limits.depth}")
        self._opened += 1
        if depth > self._deepest:
            self._deepest = depth
