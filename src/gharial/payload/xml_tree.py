"""An XML document as a small tree, read by expat: no DTD, no entities but the five, and limits while it is read.

Names are compared folded, like JSON's. Comments and processing instructions are not in the tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from gharial.model.errors import BodyMalformed, BodyTooDeep, TooManyValues
from gharial.model.finding import Limits
from gharial.model.place import fold_name

XML = "http://www.w3.org/XML/1998/namespace"
XSI = "http://www.w3.org/2001/XMLSchema-instance"


@dataclass(slots=True)
class Name:
    """The name of an element or attribute.

    `written` is as it stands in the document, with its prefix. `local` is folded, with `@` in front if it is an
    attribute's; `full` likewise, with its `{uri}`, and the same as `local` if it has no namespace. `of_schema`: it
    belongs to XML itself or to XML Schema (`xml:lang`, `xsi:type`, `xsi:nil`).
    """

    written: str
    local: str
    full: str
    of_schema: bool


@dataclass(slots=True, eq=False)
class Element:
    """An element. `declares` are its namespaces (prefix, uri); `content` its texts and elements, in their order.

    No two texts stand beside each other.
    """

    name: Name
    declares: list[tuple[str, str]]
    attributes: list[tuple[Name, str]]
    content: list[Element | str] = field(default_factory=list)

    @property
    def children(self) -> list[Element]:
        """The elements in it."""
        return [item for item in self.content if not isinstance(item, str)]


@dataclass(slots=True)
class Document:
    """A document. `declaration` is its XML declaration as it is written again, "" if it had none.

    `bare`: it had no comment and no processing instruction.
    """

    root: Element
    declaration: str
    bare: bool


# What may stand before the root element; a DTD would come after it. Possessive, so that it is linear.
_PROLOG = re.compile(r"(?:[ \t\r\n]++|<\?(?:(?!\?>).)*+\?>|<!--(?:(?!-->).)*+-->)*+", re.DOTALL)
_ATTRIBUTE = re.compile(r"=[ \t\r\n]*+[\"']")
_SEPARATOR = "}"


def parse_document(text: str, limits: Limits) -> Document:
    """Read a whole document.

    Raises BodyMalformed for what is not one well-formed XML 1.0 document with namespaces, or has a DTD; BodyTooDeep
    and TooManyValues where elements, attributes and texts are more than `limits` say. An attribute counts as soon as
    something looks like one, for expat would collect them before they could be counted.
    """
    if text.startswith("<!DOCTYPE", _end_of(_PROLOG, text)):
        raise BodyMalformed("a DTD is not read")
    most = limits.values
    if text.count("=") > most and sum(1 for _ in _ATTRIBUTE.finditer(text)) > most:
        raise TooManyValues(f"more than {most} values")
    builder = _Builder(limits)
    parser = expat.ParserCreate("utf-8", _SEPARATOR)
    parser.namespace_prefixes = True
    parser.ordered_attributes = True
    parser.buffer_text = True
    parser.XmlDeclHandler = builder.declaration
    parser.StartNamespaceDeclHandler = builder.namespace
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.CommentHandler = builder.comment
    parser.ProcessingInstructionHandler = builder.instruction
    parser.StartDoctypeDeclHandler = builder.refuse
    parser.EntityDeclHandler = builder.refuse
    parser.SkippedEntityHandler = builder.refuse
    parser.ExternalEntityRefHandler = builder.refuse_entity
    try:
        parser.Parse(text.encode("utf-8"), True)
    except expat.ExpatError:
        raise BodyMalformed("not one XML document") from None
    if builder.root is None:
        raise BodyMalformed("there is no root element")
    return Document(builder.root, builder.declared, builder.bare)


def _end_of(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.match(text)
    return found.end() if found else 0


class _Builder:
    """What expat calls."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._count = 0
        self._open: list[Element] = []
        self._declares: list[tuple[str, str]] = []
        self._names: dict[tuple[str, str], Name] = {}
        self._text: list[str] = []
        self.root: Element | None = None
        self.declared = ""
        self.bare = True

    def declaration(self, version: str, encoding: str | None, standalone: int) -> None:  # noqa: ARG002 - what expat calls it with
        if version != "1.0":
            raise BodyMalformed("only XML 1.0 is read")
        alone = {0: ' standalone="no"', 1: ' standalone="yes"'}.get(standalone, "")
        self.declared = f'<?xml version="1.0" encoding="UTF-8"{alone}?>'

    def namespace(self, prefix: str | None, uri: str | None) -> None:
        if _SEPARATOR in (uri or ""):
            raise BodyMalformed("the name of a namespace can't be told from that of an element")
        self._declares.append((prefix or "", uri or ""))

    def start(self, name: str, attributes: list[str]) -> None:
        self._end_text()
        self._take(1 + len(attributes) // 2 + len(self._declares))
        if len(self._open) >= self._limits.depth:
            raise BodyTooDeep(f"nested deeper than {self._limits.depth}")
        pairs = zip(attributes[::2], attributes[1::2], strict=True)
        element = Element(self._name(name, ""), self._declares, [(self._name(raw, "@"), value) for raw, value in pairs])
        self._declares = []
        if self._open:
            self._open[-1].content.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, name: str) -> None:  # noqa: ARG002 - what expat calls it with
        self._end_text()
        self._open.pop()

    def text(self, text: str) -> None:
        self._text.append(text)

    def comment(self, text: str) -> None:  # noqa: ARG002 - what expat calls it with
        self.bare = False

    def instruction(self, target: str, text: str) -> None:  # noqa: ARG002 - what expat calls it with
        self.bare = False

    def refuse(self, *_: object) -> None:
        raise BodyMalformed("a DTD is not read")

    def refuse_entity(self, *_: object) -> int:
        raise BodyMalformed("a DTD is not read")

    def _end_text(self) -> None:
        if self._text:
            self._take(1)
            self._open[-1].content.append("".join(self._text))
            self._text = []

    def _take(self, count: int) -> None:
        self._count += count
        if self._count > self._limits.values:
            raise TooManyValues(f"more than {self._limits.values} values")

    def _name(self, told: str, sign: str) -> Name:
        known = self._names.get((told, sign))
        if known is None:
            known = self._names[told, sign] = _name(told, sign)
        return known


def _name(told: str, sign: str) -> Name:
    """Take apart what expat tells: `local`, `uri}local` or `uri}local}prefix`."""
    parts = told.split(_SEPARATOR)
    if len(parts) == 1:
        folded = sign + fold_name(told)
        return Name(told, folded, folded, of_schema=False)
    uri, local = parts[:2]
    written = f"{parts[2]}:{local}" if len(parts) > 2 else local
    # Folded as a whole, as the names of a plan are.
    return Name(written, sign + fold_name(local), fold_name(f"{sign}{{{uri}}}{local}"), of_schema=uri in (XML, XSI))
