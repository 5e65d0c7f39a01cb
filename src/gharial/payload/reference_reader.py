"""JSON read by a plan that needs more than its trie: the reference executor, a plain walk over a tree.

What it does, exactly; another executor must give the same. Without extras, `json_in_strings` and `unlisted: detect` a
plan means what `json_reader` says, and this executor gives the same scopes, bytes, counts and findings. With any of
them the rules there hold too, with these changes.

**Opening.** Every container is opened, whatever the trie says of it. So a name that occurs twice in any object is
refused: DuplicateName.

**Strings that hold JSON.** With `json_in_strings`, a string whose text, white space around it aside, is a JSON object
or array (RFC 8259) is that container, in all rules: states, scopes, depth, numbers of values, paths. Strings within it
likewise, `json_in_strings` levels in all; one more level of them is refused: BodyTooDeep. Any other string is a scalar,
except that BodyMalformed refuses a text which only lenient readers take for JSON (NaN, Infinity, half a surrogate pair;
a byte order mark or NUL before it), and one that is a JSON string in which, however often it is decoded, such a
container stands. If nothing in such a container changed, then the string is copied as it was written, else it is the
compact inner text as `encode_string` writes it. Where the root stays though it should go, and was a string, it becomes
`"{}"` or `"[]"`.

**Extras.** Extras find values in the document as it is after strings were opened, all before scopes are made.

* A regular path finds what it would find through the trie: names folded, at any depth after `..`.
* A general path finds the nodes of its RFC 9535 query, names verbatim. Two numbers without fraction and exponent are
  compared exactly, others as doubles. match() and search() take I-Regexp (RFC 9485) as `iregexp` says. One path may
  take STEPS_PER_VALUE steps for each of `limits.values`; beyond that TooManyValues.
* `where`: only what is a member is found, and only if the object that holds it has, for each (name, texts), a member
  of that folded name whose text, in NFC and case-folded, is one of the texts likewise. The text of a number is its
  literal, of a boolean `true` or `false`; null and containers have none. Of several members of that name one is enough.
* `keys`: what is found are the names of the members, if the value is an object.
* `detector`: finds the string leaves that it recognises (`card`: numbers too), of those that no other cell meets.

**Rows.** In a body of rows (`json_reader`) a path finds what it would find in the list of all rows, and in each row as
a document.

**Cells.** A cell that finds a value also meets everything below it. What meets a value are these cells of extras and
the effective cell of the trie; the scope's `cells` get all of them. Where several meet it, the step in the variant of
the scope that has the highest rank holds; of equal ranks that of the strictest operation (the order of Op), then that
of the lowest number. "Without a cell" in the rules of `json_reader` means that none meets.

**Persons.** A scalar names a person in the id space of every cell that begins to meet it here, the trie's first, then
by number, each space once. Reported values are told for each reporting cell that meets them, by number.

**Names.** The names of an object's members that a cell finds are met in the object's own scope and reported, each
before what is in its member. If the cell has an id space, they are subjects that the object holds. The step that holds
for them is found as for a value:

* DROP removes the members, as a whole; each counts once.
* CLEAR copies the names as they were written.
* Any other step replaces the names of the members that stay, in order, by the text of what the transform gives for the
  name as a string (`null` for null), written by `encode_string`. A name that this object got already becomes `name#2`,
  or the next number that is free.

Each name that stays counts once; its place is the member's with `~` after it. Names do not get what is done to values,
nor the other way round. An object of which a cell found the names is not removed for being empty.

**Detect.** Under `unlisted: detect` a leaf that no cell meets is redacted as under `redact` if any detector recognises
it, else copied; it counts as unlisted. Likewise a leaf that only detectors found, if one that belongs to no extra
recognises it too and the step that holds is more open than redaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from gharial.model.errors import BodyMalformed, BodyTooDeep, BodyTooLarge, TooManyValues
from gharial.model.finding import Limits, Rewritten, Scope, Transform
from gharial.model.plan import Plan
from gharial.payload.json_text import WHITE_SPACE, count_values, is_deeper
from gharial.payload.json_tree import Value, check_document, open_strings, parse_tree
from gharial.payload.program import Kept, Layout, check_transforms
from gharial.payload.reference_survey import ReferenceProgram, Survey
from gharial.payload.reference_writer import Writer

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

reference_program_of = {layout: Kept(partial(ReferenceProgram, layout=layout)).get for layout in Layout}
"""What was made of this very plan object for each layout. Raises ValueError as ReferenceProgram does."""


class ReferenceReader:
    """One JSON body under one plan: `feed` it all, then `survey`, then `finish`, as with JsonReader."""

    def __init__(self, plan: Plan, limits: Limits, layout: Layout = Layout.DOCUMENT) -> None:
        """Raises ValueError if the plan is not consistent in itself, or an extra's path or pattern can't be read, or it
        can't read this layout.
        """
        self._reference = reference_program_of[layout](plan)
        self._limits = limits
        self._chunks: list[bytes] = []
        self._size = 0
        self._body = b""
        self._marked = False
        self._found: tuple[Value, Survey] | None = None
        self._reported: tuple[Scope, ...] | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises BodyTooLarge as soon as there are more than `limits.body_bytes`."""
        if self._reported is not None:
            raise RuntimeError("the body was surveyed already")
        self._size += len(chunk)
        self._check_size()
        self._chunks.append(bytes(chunk))

    def survey(self) -> tuple[Scope, ...]:
        """Pass one: return the scopes that a cell of the plan meets, in document order.

        Raises BodyTooLarge, BodyMalformed, BodyTooDeep, TooManyValues or DuplicateName; then nothing can be finished.
        """
        if self._reported is None:
            self._check_size()
            body = b"".join(self._chunks)
            self._marked = body.startswith(_BYTE_ORDER_MARK)
            self._body = body[len(_BYTE_ORDER_MARK) :] if self._marked else body
            try:
                root = self._tree()
                survey = Survey(self._reference, root, self._limits)
            except (msgspec.DecodeError, UnicodeDecodeError):
                # Their texts may quote the body.
                raise BodyMalformed("not one JSON document in UTF-8") from None
            except RecursionError:
                raise BodyTooDeep("nested too deeply to be followed") from None
            self._found, self._reported = (root, survey), survey.report()
            self._chunks.clear()
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
        """Pass two: return the body as it may leave. Arguments and errors are those of JsonReader.finish."""
        reported = self.survey()
        plan = self._reference.plan
        if len(variants) != len(reported) or not all(0 <= variant < len(plan.variants) for variant in variants):
            raise ValueError("there must be one variant of the plan for each scope")
        check_transforms(plan, transforms, by_scope, len(reported))
        if self._found is None:
            raise RuntimeError("the survey did not end")
        root, survey = self._found
        writer = Writer(self._reference, survey.seen, variants, transforms, by_scope, want_places=want_places)
        try:
            writer.document(root)
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

    def _check_size(self) -> None:
        if self._size > self._limits.body_bytes:
            self._chunks.clear()
            raise BodyTooLarge(f"longer than {self._limits.body_bytes} bytes")

    def _tree(self) -> Value:
        if not self._body.isascii():
            self._body.decode("utf-8")  # msgspec does not look at the encoding of what it skips
        text = self._body.strip(WHITE_SPACE)
        if not text:
            raise BodyMalformed("there is no JSON document")
        check_document(text)
        if count_values(text) > self._limits.values:
            raise TooManyValues(f"more than {self._limits.values} values")
        if is_deeper(text, self._limits.depth):
            raise BodyTooDeep(f"nested deeper than {self._limits.depth}")
        root = parse_tree(text)
        if self._reference.plan.json_in_strings:
            open_strings(root, self._reference.plan.json_in_strings, self._limits)
        return root
