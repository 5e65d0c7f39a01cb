"""JSON (RFC 8259) read by a plan: pass one finds persons and the cells that meet them, pass two writes the new body.

What an executor of plans does with JSON, exactly. Another executor must give the same bytes for the same plan,
variants and transforms.

**States.** A value has a state: a node of the trie or NOWHERE, and its *effective cell*: its node's cell, else the one
inherited from the value around it, else none. The root's node is 0. A member is looked up by its decoded name, folded
(`fold_name`), in `names`, else `other_name`; an element by `indexes`, else `other_index`. A state *opens* if its node
is not NOWHERE and it has no cell, or some node reachable from its node has a cell other than its own. Only containers
in opening states are opened, and in pass two those whose leaves get replaced.

**Rows.** A body of rows is read as a list of them, `[row,row]`, that no path speaks of: each row has the state of a
root in the trie `Plan.row_nodes`, is a record, and can't go, like a root. Within it the rules of scopes begin anew:
where it names nobody, each element of the first array in it is a scope.

**Opened** objects must not hold a name twice (compared as decoded, not folded): DuplicateName. In a container that is
not opened duplicates are legal.

**Scopes**, in the order in which their first character stands in the body; only those that a cell meets are reported.

* An object that directly holds a subject (a string that is not blank, `is_blank`, or a number, whose own node brings
  in a cell with `subject`; an inherited cell does not count) is a scope. So is an array's element, or the root, that is
  a subject.
* Else each element of the first array met on the way down from the root, no such object around it, is a scope
  without subjects.
* Else the whole document is one.

A value belongs to the innermost scope around it; an opened object that is a scope belongs to its own. Every member,
element and root that is reached through opened containers and has a cell, meets that cell in its scope.

**Reported values.** A scalar that meets a cell with `report` is reported with its scope, null and empty strings too. Of
a container that meets one and is not opened each scalar is, in the scope of the container; where a name occurs twice in
there, the values of both. All of one scope are in document order.

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

import re
from collections.abc import Sequence

import msgspec

from gharial.model.errors import BodyMalformed, BodyTooDeep, BodyTooLarge, TooManyValues
from gharial.model.finding import Kind, Limits, Rewritten, Scope, Transform
from gharial.model.plan import NONE, Plan
from gharial.payload.json_levels import (
    ARRAY,
    OBJECT,
    Array,
    Entry,
    Level,
    Object,
    OpenScope,
    Records,
    Shape,
    decode_array,
    decode_object,
    decode_records,
    first_byte,
    shape_of,
    subject_text,
)
from gharial.payload.json_text import (
    WHITE_SPACE,
    count_values,
    decode_leaf,
    is_deeper,
    is_plain,
    scan_names,
    scan_scalars,
)
from gharial.payload.json_writer import Writer
from gharial.payload.program import Layout, State, check_transforms, program_of, row_program_of

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# An array whose first element is an object without brackets inside: worth a try as a page of records.
_FLAT_RECORD = re.compile(rb"\[[ \t\n\r]*+\{[^][{}]*+\}")


def _brackets(text: bytes | msgspec.Raw) -> int:
    """Count the opening brackets in a text, those within strings too."""
    text = bytes(text)
    return text.count(b"[") + text.count(b"{")


_check_document = msgspec.json.Decoder(msgspec.Raw).decode


class JsonReader:
    """One JSON body under one plan: `feed` it all, then `survey`, then `finish`. See the module's text."""

    def __init__(self, plan: Plan, limits: Limits, layout: Layout = Layout.DOCUMENT) -> None:
        """Raises ValueError if the plan is not consistent in itself, or can't read this layout."""
        self._program = program_of(plan) if layout is Layout.DOCUMENT else row_program_of(plan)
        self._start = self._program.start(layout)
        self._limits = limits
        self._chunks: list[bytes] = []
        self._size = 0
        self._body = b""
        self._marked = False
        self._root: Entry | None = None
        self._root_scope = OpenScope(())
        self._values: dict[OpenScope, list[tuple[int, Kind, str]]] = {}
        self._scopes: list[OpenScope] = []
        self._reported: tuple[Scope, ...] | None = None
        self._shapes: dict[tuple[State, tuple[str, ...]], Shape] = {}
        self._brackets = 0
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
                    reported.append(Scope(scope.cells, scope.subjects, tuple(self._values.get(scope, ()))))
            self._reported = tuple(reported)
            self._chunks.clear()
            self._values.clear()
        return self._reported

    def finish(
        self,
        variants: Sequence[int],
        transforms: Sequence[Transform],
        *,
        by_scope: Sequence[Sequence[Transform]] | None = None,
        want_places: bool = False,
        anew: bool = False,
    ) -> Rewritten:
        """Pass two: return the body as it may leave.

        `variants[i]` is the variant of scope i of `survey`, `transforms[i]` the function of step i of the plan; where
        steps depend on the person, `by_scope[i]` are the functions for scope i, and hold instead. With `want_places`
        each finding's JSONPath is returned too; it quotes the names of the body, which may be personal data, so it is
        for whoever may see the body. `anew` writes the body as if something had changed. Raises DuplicateName for an
        object that only this pass opens, whatever a transform raises, ValueError if variants or transforms do not
        belong to this plan and body.
        """
        reported = self.survey()
        if len(variants) != len(reported) or not all(0 <= variant < self._program.variants for variant in variants):
            raise ValueError("there must be one variant of the plan for each scope")
        check_transforms(self._program.plan, transforms, by_scope, len(reported))
        for scope in self._scopes:
            # A scope that no cell meets has only unlisted values, which are the same in all variants.
            scope.variant = variants[scope.index] if scope.index != NONE else 0
        if self._root is None:
            raise RuntimeError("the survey did not end")
        writer = Writer(self._program, transforms, by_scope, want_places=want_places)
        try:
            writer.document(self._root, self._start, self._root_scope)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BodyMalformed("not one JSON document in UTF-8") from None
        except UnicodeEncodeError:
            raise ValueError("a transform returned a lone surrogate") from None
        except RecursionError:
            raise BodyTooDeep("nested too deeply to be followed") from None
        return Rewritten(
            body=b"".join(writer.parts) if writer.changed or anew else self._body,
            changed=writer.changed or anew or self._marked,
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
        self._brackets = _brackets(text)
        # Cheap bounds first: a value takes two bytes, brackets or itself and a comma; and each but the first one
        # follows a comma or an opening bracket.
        most = self._limits.values
        if len(text) // 2 + 1 > most and 1 + text.count(b",") + self._brackets > most:
            _check_document(text)
            if count_values(text) > most:
                raise TooManyValues(f"more than {most} values")
        self._scopes, self._opened, self._deepest = [], 0, 0
        state, scope = self._start, self._new_scope(())
        if text[0] == OBJECT and state.opens:
            self._root = self._object(text, state, scope, True, 1)
        elif text[0] == ARRAY and state.opens:
            self._root = self._array(text, state, scope, records=True, depth=1)
        else:
            _check_document(text)
            self._root, scope = text, self._settled(text, state, scope)
        self._root_scope = scope
        # Brackets that were not opened may all be one in another, below the deepest level that was.
        unopened = self._brackets - self._opened
        if self._deepest + unopened > self._limits.depth and is_deeper(text, self._limits.depth):
            raise BodyTooDeep(f"nested deeper than {self._limits.depth}")

    def _object(
        self,
        raw: bytes | msgspec.Raw,
        state: State,
        scope: OpenScope | None,
        records: bool,
        depth: int,
        flat: bool = False,
    ) -> Object:
        """Open an object. `scope` None: it is a record, which is a scope of its own; `flat`: no bracket is in it."""
        if depth > self._deepest:
            self._go_down(depth)
        self._opened += 1
        members = decode_object(raw)
        values = list(members.values())
        names = tuple(members)
        shape = self._shapes.get((state, names)) or self._new_shape(state, names)
        # Exactly the bytes of distinct names without escapes and of nothing between the tokens; else look closer.
        if shape.name_bytes + sum(map(len, values)) == len(raw):
            prefixes = shape.prefixes
        else:
            text = bytes(raw)
            prefixes = shape.prefixes if is_plain(text, len(values)) else scan_names(text, values)
        if shape.subjects and (subjects := shape.subjects_of(members)):
            scope, records = self._new_scope(subjects), False
        elif scope is None:
            scope = self._new_scope(())
        level = Object(state, scope, shape, values, prefixes)
        if state.cell != NONE:
            scope.meets(state.cell)
        if not shape.opening or (flat and not shape.reports):
            cells = scope.cells
            scope.cells = cells | shape.cells if cells else shape.cells
            return level
        scope.cells |= shape.settled_cells
        children: dict[int, Level] = {}
        for at, below in shape.opening:
            value = values[at]
            first = first_byte(value)
            if first == OBJECT and below.opens:
                children[at] = self._object(value, below, scope, records, depth + 1)
            elif first == ARRAY and below.opens:
                children[at] = self._array(value, below, scope, records=records, depth=depth + 1)
            elif below.cell != NONE:
                scope.meets(below.cell)
                if below.reports:
                    self._report(value, below, scope)
        level.children = children or None
        return level

    def _array(self, raw: bytes | msgspec.Raw, state: State, scope: OpenScope, *, records: bool, depth: int) -> Level:
        """Open an array. `records`: its elements are records, unless they hold or are subjects."""
        if depth > self._deepest:
            self._go_down(depth)
        self._opened += 1
        self._program.resolve(state)
        if state.cell != NONE:
            scope.meets(state.cell)
        indexes, below = state.indexes, state.other_index
        outer = None if records else scope
        # A row is a record; where it names nobody, the first list in it may still be one of records.
        inner = records and state is self._program.rows
        if below.opens and below.cell == NONE and not indexes and _FLAT_RECORD.match(raw):
            page = self._records(raw, state, scope, outer, depth)
            if page is not None:
                return page
        found = decode_array(raw)
        items: list[Entry] = list(found)
        level = Array(state, scope, items)
        if not indexes and not below.opens and below.cell == NONE:
            return level
        heads = [bytes(item)[0] for item in found]
        # Without more brackets than those of the elements there is nothing to open inside these.
        containers = heads.count(OBJECT) + heads.count(ARRAY)
        flat = self._brackets == self._opened + containers or _brackets(raw) == 1 + containers
        scopes: list[OpenScope] = []
        for at, head in enumerate(heads):
            if indexes:
                below = indexes.get(at, state.other_index)
            if head == OBJECT and below.opens:
                items[at] = entry = self._object(found[at], below, outer, inner, depth + 1, flat)
                scopes.append(entry.scope)
                continue
            own = outer or self._new_scope(())
            if head == ARRAY and below.opens:
                items[at] = self._array(found[at], below, own, records=inner, depth=depth + 1)
            else:
                own = self._settled(found[at], below, own)
            scopes.append(own)
        level.scopes = scopes
        return level

    def _records(
        self, raw: bytes | msgspec.Raw, state: State, scope: OpenScope, outer: OpenScope | None, depth: int
    ) -> Records | None:
        """Open an array that holds only plainly written objects of scalars; return None if it is another one."""
        try:
            found = decode_records(raw)
        except msgspec.ValidationError:
            return None  # not only objects
        # Without more brackets than those of the records there is nothing to open inside these.
        if self._brackets != self._opened + len(found) and _brackets(raw) != 1 + len(found):
            return None
        below, shapes, known = state.other_index, [], self._shapes
        size = 1 + len(found)  # brackets and commas
        for members in found:
            names = tuple(members)
            shape = known.get((below, names)) or self._new_shape(below, names)
            shapes.append(shape)
            size += shape.name_bytes + sum(map(len, members.values()))
        if size != len(raw) and not is_plain(bytes(raw), sum(map(len, found))):
            return None
        if depth + 1 > self._deepest:
            self._go_down(depth + 1)
        self._opened += len(found)
        scopes = []
        for members, shape in zip(found, shapes, strict=True):
            if shape.subjects and (subjects := shape.subjects_of(members)):
                own = self._new_scope(subjects)
            else:
                own = outer or self._new_scope(())
            own.cells = own.cells | shape.cells if own.cells else shape.cells
            scopes.append(own)
            for at, member in shape.reports:
                self._report(members[shape.names[at]], member, own)
        return Records(state, scope, below, found, shapes, scopes)

    def _settled(self, raw: bytes | msgspec.Raw, state: State, scope: OpenScope) -> OpenScope:
        """Return the scope of an element, or of the root, that is not opened: its own if it is a subject itself."""
        if state.subject and (text := subject_text(raw)):
            scope = self._new_scope(((state.subject, text),))
        if state.cell != NONE:
            scope.meets(state.cell)
            if state.reports:
                self._report(raw, state, scope)
        return scope

    def _report(self, raw: bytes | msgspec.Raw, state: State, scope: OpenScope) -> None:
        """Keep each scalar of a value that is not opened for whoever decides about this scope."""
        found = self._values.setdefault(scope, [])
        found.extend((state.cell, *decode_leaf(scalar)) for scalar in scan_scalars(bytes(raw)))

    def _new_scope(self, subjects: tuple[tuple[str, str], ...]) -> OpenScope:
        scope = OpenScope(subjects)
        self._scopes.append(scope)
        return scope

    def _new_shape(self, state: State, names: tuple[str, ...]) -> Shape:
        """Look up what the plan says of these names at this state: records of one kind share one answer."""
        shape = self._shapes[(state, names)] = shape_of(self._program, state, names)
        return shape

    def _go_down(self, depth: int) -> None:
        if depth > self._limits.depth:
            raise BodyTooDeep(f"nested deeper than {self._limits.depth}")
        self._deepest = depth
