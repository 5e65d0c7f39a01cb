"""XML (1.0, fifth edition, with namespaces) read by a plan; SOAP is XML like any other, its faults too.

What an executor of plans does with XML, exactly. What comes out has the same infoset as what came in, apart from the
steps, comments and processing instructions; where nothing changed, it is the very bytes.

**Accepted.** UTF-8, UTF-16, US-ASCII, ISO-8859-1 and windows-1252, as `xml_text.decode_document` says. No DTD of any
kind, so no entities but the five of XML; nothing is fetched and nothing included (an `xi:include` is an element like
any other). A plan without `xml_nodes` reads no XML: MediaUnreadable. What leaves is UTF-8, with a declaration if there
was one. Comments and processing instructions never leave.

**Values.** All are strings. White space (space, tab, line ends) around one is no part of it and stays as it is.

* An attribute is a value. Declarations of namespaces are none; they stay with their element.
* An element without elements in it has one value, its text (CDATA likewise, and as if no comment stood in it): if there
  is one beside white space, or the element has no attributes.
* In an element with elements in it, each text between them is a value, unless it is white space.

**States.** As in `json_reader`, along `Plan.xml_nodes`, from node 0, the document. An element or attribute is looked up
by `{uri}` and local name, then by local name, folded, then it is `other_name` or `other_index`. Values of an element
have its state. An attribute that belongs to XML itself or XML Schema (`xml:lang`, `xsi:type`, `xsi:nil`) goes where it
is not copied, unless it was reached by a name of the trie: whatever replaced it would mean something.

**Cells.** What meets a value is its effective cell. Where there is none, the detectors of `Plan.extras` are asked; of
several cells then the rules of `reference_reader` hold. Extras with paths are about JSON. So is `json_in_strings`.

**Scopes**, in document order; only those that a cell meets are reported.

* An element that directly holds subjects (its attributes; the elements in it without elements in them; not "") is a
  scope. So is the document if its root is a subject.
* Else, on each way down from the root: the elements of one name that first come more than once in one element are a
  scope each, without subjects.
* Else the document is one.

Elements, attributes and values that have a cell meet it in the innermost scope around them; an element that is a scope
belongs to its own. Values that meet a cell with `report` are told.

**Acts.**

* DROP of an element removes it as a whole; of an attribute, the attribute; of a text, the text. A root stays, empty.
  Where an element is removed, a text after it that is only white space is removed too.
* CLEAR, and `unlisted: pass`, copies a value. Any other step replaces it by what the transform gives for the string
  without the white space around it; null is no text. `unlisted: redact` puts `Plan.redaction.string`; `detect` does so
  where a detector recognises the value.
* Under `unlisted: drop` an element without a cell in which nothing is left (no attribute, value or element) is removed,
  unless it is the root, or was reached by a name of the trie and came with elements in it.

**Counting.** As in `json_reader`: each value, or removed element, once.

**Limits.** `depth` counts elements in one another; `values` elements, attributes, declarations of namespaces, texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gharial.model.errors import BodyTooDeep, BodyTooLarge, MediaUnreadable
from gharial.model.finding import Limits, Rewritten, Scope, Transform
from gharial.model.plan import Node, Plan, reads_xml
from gharial.payload.charset import Charset
from gharial.payload.extras import Finder
from gharial.payload.program import Kept, Program, check_transforms
from gharial.payload.xml_survey import Survey
from gharial.payload.xml_text import decode_document
from gharial.payload.xml_tree import Document, parse_document
from gharial.payload.xml_writer import Writer


class XmlProgram:
    """One plan made ready for XML. Raises ValueError if it is not consistent in itself."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        detectors = tuple(extra for extra in plan.extras if extra.detector)
        nodes = plan.xml_nodes or (Node(),)
        along = msgspec.structs.replace(plan, nodes=nodes, extras=detectors, json_in_strings=0)
        self.program = Program(along, reference=True)
        self.finder = Finder(along)


xml_program_of = Kept(XmlProgram).get
"""What was made of this very plan object. Raises ValueError as XmlProgram does."""


class XmlReader:
    """One XML body under one plan: `feed` it all, then `survey`, then `finish`, as with JsonReader."""

    def __init__(self, plan: Plan, limits: Limits, charset: Charset | None = None) -> None:
        """`charset` is what the header says. Raises ValueError if the plan is not consistent in itself."""
        self.plan = plan
        self._xml = xml_program_of(plan)
        self._limits = limits
        self._charset = charset
        self._chunks: list[bytes] = []
        self._size = 0
        self._body = b""
        self._found: tuple[Document, Survey] | None = None
        self._recoded = False
        self._reported: tuple[Scope, ...] | None = None

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

        Raises MediaUnreadable, BodyTooLarge, BodyMalformed, BodyTooDeep or TooManyValues; then nothing can be finished.
        """
        if self._reported is None:
            if not reads_xml(self._xml.plan):
                raise MediaUnreadable("the policy has no place in XML")
            if self._size > self._limits.body_bytes:
                raise BodyTooLarge(f"longer than {self._limits.body_bytes} bytes")
            self._body = b"".join(self._chunks)
            text, self._recoded = decode_document(self._body, self._charset)
            document = parse_document(text, self._limits)
            try:
                survey = Survey(self._xml.program, self._xml.finder, document.root)
            except RecursionError:
                raise BodyTooDeep("nested too deeply to be followed") from None
            self._found, self._reported = (document, survey), survey.report()
            self._chunks.clear()
        return self._reported

    def finish(
        self,
        variants: Sequence[int],
        transforms: Sequence[Transform],
        *,
        by_scope: Sequence[Sequence[Transform]] | None = None,
        want_places: bool = False,
    ) -> Rewritten:
        """Pass two: return the body as it may leave. Arguments and errors are those of JsonReader.finish.

        Places are written like XML paths, with `[n]` (from 1) after the names of elements of which there are several.
        Raises BodyMalformed where a replacement can't stand in XML.
        """
        reported = self.survey()
        plan = self._xml.plan
        if len(variants) != len(reported) or not all(0 <= variant < len(plan.variants) for variant in variants):
            raise ValueError("there must be one variant of the plan for each scope")
        check_transforms(plan, transforms, by_scope, len(reported))
        if self._found is None:
            raise RuntimeError("the survey did not end")
        document, survey = self._found
        writer = Writer(
            self._xml.program, self._xml.finder, survey, variants, transforms, by_scope, want_places=want_places
        )
        try:
            writer.document(document)
            written = "".join(writer.parts).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("a transform returned a lone surrogate") from None
        except RecursionError:
            raise BodyTooDeep("nested too deeply to be followed") from None
        changed = writer.changed or self._recoded or not document.bare
        return Rewritten(
            body=written if changed else self._body,
            changed=changed,
            counts={step: count for step, count in enumerate(writer.counts) if count},
            unlisted=writer.unlisted,
            findings=tuple(writer.findings),
        )
