"""Where a value is: body paths (the regular subset of JSONPath, RFC 9535), any other JSONPath, paths into XML, and what
else of a request carries values: parameters of path and query, headers, cookies.

`parse_place` reads what people write in `tags … find`. Selectors of the subset: `.name`, `['name']`, `[3]`, `.*`,
`[*]`, and each of them after `..`. Everything else (filters, slices, unions, functions) is not of the subset and is
an error with its position, never skipped; the policy room reads it as a `GeneralPath` then.

A path into XML is a small part of XPath: steps after `/` (a child) or `//` (at any depth), each `Name`, `{uri}Name`
(only in that namespace) or `*`; the last one may be `@name`, `@{uri}name` or `@*`, an attribute. A name without a uri
is found in every namespace, so no prefixes are written.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass


class Select(enum.StrEnum):
    """What one segment of a body path selects."""

    NAME = "name"
    INDEX = "index"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a body path; `deep` means at any depth below (`..`)."""

    select: Select
    name: str = ""
    index: int = 0
    deep: bool = False


@dataclass(frozen=True, slots=True)
class BodyPath:
    """A path into a body, e.g. `$..lines[*].msisdn`. No segments: the whole body."""

    segments: tuple[Segment, ...]

    def __str__(self) -> str:
        return "$" + "".join(map(_print_segment, self.segments))


@dataclass(frozen=True, slots=True)
class PathParam:
    """The parameter `{name}` of a route's template."""

    name: str

    def __str__(self) -> str:
        return f"path:{self.name}"


class Carrier(enum.StrEnum):
    """What part of a request, beside its body, carries a value."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    COOKIE = "cookie"


@dataclass(frozen=True, slots=True)
class RequestField:
    """A parameter of the query, a header (its name in lower case) or a cookie of a request. `carrier` is never PATH."""

    carrier: Carrier
    name: str

    def __str__(self) -> str:
        return f"{self.carrier}:{self.name}"


@dataclass(frozen=True, slots=True)
class GeneralPath:
    """A JSONPath (RFC 9535) beyond the regular subset, as written: filters, slices, unions. Names are verbatim."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class XmlPath:
    """A path into an XML body, e.g. `//Customer/@id`; at least one segment, none with an index.

    The name of a segment is a local name, or `{uri}` and a local name; that of an attribute has `@` in front. ANY with
    the name `@` is any attribute, with none any element.
    """

    segments: tuple[Segment, ...]

    def __str__(self) -> str:
        return "".join(map(_print_xml_segment, self.segments))


Place = BodyPath | PathParam | RequestField | GeneralPath | XmlPath

MAX_FIELD_NAME = 200
"""Characters of the name of a parameter, header or cookie."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")
_COOKIE_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NO_HEADERS = re.compile(
    r"(?:host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|range|authorization|cookie|set-cookie"
    r"|content-.*|accept-encoding|if-.*|proxy-.*|forwarded|x-forwarded-.*|x-envoy-.*|x-original-.*|x-rewrite-.*"
    r"|(?:x-)?gharial-.*)"
)
"""Headers that mean something to the proxy or the gate, or are written by them: no policy may change those."""


class PlaceError(ValueError):
    """A place can't be read; `offset` (from 0) is where in the text, the message says what and what to do.

    `beyond` tells that the subset ends here, and that the rest may still be a JSONPath.
    """

    def __init__(self, what: str, offset: int, *, beyond: bool = False) -> None:
        super().__init__(what)
        self.offset = offset
        self.beyond = beyond


def fold_name(name: str) -> str:
    """Return the form under which names are compared: NFC, then case folded, so that `EMAIL` meets `email`."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def fold_fact(text: str) -> str:
    """Return the form under which values of facts are compared: NFC, case folded, without white space around it."""
    return unicodedata.normalize("NFC", text).strip().casefold()


def parse_place(text: str) -> Place:
    """Read one entry of `find`. Raises PlaceError with the offset of the first mistake."""
    if text.startswith("$"):
        return BodyPath(_Scanner(text).segments())
    kind, colon, name = text.partition(":")
    if colon and kind == "path":
        if not name.isidentifier():
            raise PlaceError("a path parameter is written as in the route's template, e.g. path:id", len("path:"))
        return PathParam(name)
    if colon and kind in ("query", "header", "cookie"):
        return RequestField(Carrier(kind), _field_name(kind, name))
    if text.startswith("/"):
        return XmlPath(tuple(_xml_segments(text)))
    what = "a place is a JSONPath that begins with '$', an XML path that begins with '/', or path:, query:, header: or "
    raise PlaceError(f"{what}cookie: and a name", 0)


_XML_STEP = re.compile(r"(//?)(@?)(?:(\*)|(?:\{([^{}\s]+)\})?([^\W\d][\w.·-]*))")


def _xml_segments(text: str) -> Iterator[Segment]:
    """Read the steps of a path into XML. Raises PlaceError at the first that is not of the subset."""
    at = 0
    while at < len(text):
        found = _XML_STEP.match(text, at)
        if found is None:
            if text[at] != "/":
                raise PlaceError(_no_xml_step(text[at]), at)
            what = "expected a name, {uri}name, '*' or (last) an attribute: @name, @{uri}name, @*"
            raise PlaceError(what, at + (2 if text.startswith("//", at) else 1))
        slashes, sign, star, uri, name = found.groups(default="")
        if sign and found.end() < len(text) and text[found.end()] != ":":
            raise PlaceError("nothing comes after an attribute", found.end())
        if sign and not at and slashes == "/":
            raise PlaceError("a document has no attributes; name the element too, or write //@", 0)
        deep = slashes == "//"
        if star:
            yield Segment(Select.ANY, name=sign, deep=deep)
        else:
            yield Segment(Select.NAME, name=sign + (f"{{{uri}}}" if uri else "") + name, deep=deep)
        at = found.end()


def _no_xml_step(char: str) -> str:
    if char == ":":
        return "write names without a prefix; to ask for a namespace write {uri}Name"
    if char in "[(":
        return "XML paths have no conditions and no functions: only names, '*' and attributes"
    return "expected '/' or '//' here"


def _field_name(kind: str, name: str) -> str:
    """Return the name as requests are searched for it."""
    at = len(kind) + 1
    if not name or len(name) > MAX_FIELD_NAME:
        raise PlaceError(f"expected a name here, of at most {MAX_FIELD_NAME} characters", at)
    if kind == Carrier.QUERY:
        if any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in name) or name != name.strip():
            raise PlaceError(
                "a parameter's name is written as it is after percent-decoding, without control characters", at
            )
        return name
    if kind == Carrier.COOKIE:
        if not _COOKIE_NAME.fullmatch(name):
            raise PlaceError("the name of a cookie holds letters, digits and a few signs, no space", at)
        return name
    if not _HEADER_NAME.fullmatch(name):
        raise PlaceError("the name of a header holds letters, digits and '-'; the proxy refuses names with '_'", at)
    if _NO_HEADERS.fullmatch(name.lower()):
        hint = "; for a cookie write cookie:NAME" if name.lower() == "cookie" else ""
        raise PlaceError(f"the header {name} belongs to the gateway or the connection{hint}", at)
    return name.lower()


def _print_segment(segment: Segment) -> str:
    dots = ".." if segment.deep else ""
    if segment.select is Select.ANY:
        return f"{dots}[*]"
    if segment.select is Select.INDEX:
        return f"{dots}[{segment.index}]"
    if segment.name.isidentifier():
        return f"{dots or '.'}{segment.name}"
    quoted = segment.name.replace("\\", "\\\\").replace("'", "\\'")
    return f"{dots}['{quoted}']"


def _print_xml_segment(segment: Segment) -> str:
    return f"{'//' if segment.deep else '/'}{segment.name}{'*' if segment.select is Select.ANY else ''}"


_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/", "\\": "\\", "'": "'", '"': '"'}


class _Scanner:
    """Reads the segments of one JSONPath, left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 1

    def segments(self) -> tuple[Segment, ...]:
        found: list[Segment] = []
        while self.at < len(self.text):
            found.append(self._segment())
        return tuple(found)

    def _segment(self) -> Segment:
        deep = self.text.startswith("..", self.at)
        if deep:
            self.at += 2
            if self._peek() == "[":
                return self._bracket(deep=True)
            return self._dotted(deep=True)
        if self._peek() == ".":
            self.at += 1
            return self._dotted(deep=False)
        if self._peek() == "[":
            return self._bracket(deep=False)
        raise PlaceError("expected '.', '..' or '[' here", self.at)

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _dotted(self, *, deep: bool) -> Segment:
        if self._peek() == "*":
            self.at += 1
            return Segment(Select.ANY, deep=deep)
        start = self.at
        while self.at < len(self.text) and (
            self.text[self.at] == "_" or self.text[self.at].isalnum() or ord(self.text[self.at]) >= 0x80
        ):
            self.at += 1
        name = self.text[start : self.at]
        if not name or (name[0].isdigit() and name[0].isascii()):
            raise PlaceError("expected a name or '*' here; other names go in brackets: ['…']", start)
        return Segment(Select.NAME, name=name, deep=deep)

    def _bracket(self, *, deep: bool) -> Segment:
        self.at += 1
        first = self._peek()
        if first == "*":
            self.at += 1
            segment = Segment(Select.ANY, deep=deep)
        elif first in ("'", '"') and first:
            segment = Segment(Select.NAME, name=self._quoted(first), deep=deep)
        elif first.isdigit() and first.isascii():
            segment = Segment(Select.INDEX, index=self._index(), deep=deep)
        else:
            raise PlaceError("expected a quoted name, an index or '*' here", self.at, beyond=True)
        if self._peek() != "]":
            raise PlaceError("expected ']' here", self.at, beyond=True)
        self.at += 1
        return segment

    def _index(self) -> int:
        start = self.at
        while self._peek().isdigit() and self._peek().isascii():
            self.at += 1
        digits = self.text[start : self.at]
        if len(digits) > 9 or (len(digits) > 1 and digits[0] == "0"):
            raise PlaceError("an index is a whole number without leading zeros, below 10^9", start)
        return int(digits)

    def _quoted(self, quote: str) -> str:
        start = self.at
        self.at += 1
        out: list[str] = []
        while (char := self._peek()) != quote:
            if not char:
                raise PlaceError("the quote that begins here is not closed", start)
            self.at += 1
            if char != "\\":
                out.append(char)
                continue
            escape = self._peek()
            self.at += 1
            if escape == "u":
                out.append(self._unicode())
            elif escape in _ESCAPES and escape:
                out.append(_ESCAPES[escape])
            else:
                raise PlaceError("unknown escape in a quoted name", self.at - 2)
        self.at += 1
        return "".join(out)

    def _unicode(self) -> str:
        digits = self.text[self.at : self.at + 4]
        if len(digits) != 4 or any(d not in "0123456789abcdefABCDEF" for d in digits):
            raise PlaceError("\\u wants four hexadecimal digits", self.at)
        self.at += 4
        code = int(digits, 16)
        if 0xD800 <= code <= 0xDFFF:
            raise PlaceError("write a character beyond U+FFFF as itself, not as surrogates", self.at - 6)
        return chr(code)
