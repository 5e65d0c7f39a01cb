"""Chooses the reader of a body by its headers, or refuses. What the label claims is never believed: the reader parses.

Reads `Content-Type` (RFC 9110, 8.3; suffixes `+json` and `+xml`: RFC 6839) and `Content-Encoding` (RFC 9110, 8.4).
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gharial.model.errors import CodingUnknown, MediaUnreadable
from gharial.payload.charset import CHARSETS, XML_CHARSETS, Charset
from gharial.payload.coding import MAX_CODINGS, Coding


class RequestFormat(enum.StrEnum):
    """The formats of a request's body. JSON_PATCH (RFC 6902) is JSON that names its fields in values."""

    JSON = "json"
    JSON_PATCH = "json-patch"
    FORM = "form"


class Format(enum.StrEnum):
    """The formats that there is a reader for."""

    JSON = "json"
    XML = "xml"
    LINES = "lines"
    SEQUENCE = "sequence"
    EVENTS = "events"
    CSV = "csv"
    TSV = "tsv"


@dataclass(frozen=True, slots=True)
class Media:
    """How a body is to be read: undo `codings`, the last one first, then read as `format`.

    `charset` is what the type's parameter names, None where it names none. The bytes must agree with it. `header` says
    that a table is declared to have one. `part` says that the body is some rows of a stream: they are always written
    anew, so that it makes no difference which of them came together.
    """

    format: Format = Format.JSON
    codings: tuple[Coding, ...] = ()
    charset: Charset | None = None
    header: bool = False
    part: bool = False

    @property
    def suffix(self) -> str:
        """What the content type of the new body needs besides the type: a table's charset is not UTF-8 by itself."""
        return "; charset=utf-8" if self.format in (Format.CSV, Format.TSV) else ""


_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_PARAMETER = rf"[ \t]*+;[ \t]*+(?:({_WORD})=({_WORD}|{_QUOTED}))?"
_MEDIA_TYPE = re.compile(rf"({_WORD})/({_WORD})((?:[ \t]*+;[ \t]*+(?:{_WORD}=(?:{_WORD}|{_QUOTED}))?)*+)[ \t]*+")
_PARAMETERS = re.compile(_PARAMETER)
_CODINGS = {**{coding.value: coding for coding in Coding}, "x-gzip": Coding.GZIP}


def choose_reader(headers: Iterable[tuple[str, str]]) -> Media:
    """Return how to read the body that comes with these headers (names may repeat).

    Call it only where there is a body: a missing content type is then a reason to refuse. Raises MediaUnreadable for
    everything but one type that there is a reader for: JSON in Unicode's encodings, XML in those of `XML_CHARSETS`, the
    others in UTF-8. Raises CodingUnknown for a coding that is not undone, or more than MAX_CODINGS of them.
    """
    types: list[str] = []
    codings: list[str] = []
    for name, value in headers:
        match name.lower():
            case "content-type":
                types.append(value)
            case "content-encoding":
                codings.append(value)
    applied = _read_codings(codings)
    # Two types, even equal ones, mean that somebody joined two messages or that a client may believe the other.
    if len(types) != 1:
        raise MediaUnreadable("no content type" if not types else "more than one content type")
    return replace(_read_type(types[0]), codings=applied)


def choose_request_format(headers: Iterable[tuple[str, str]]) -> RequestFormat:
    """Return how to read a request's body that comes with these headers (names may repeat).

    Raises MediaUnreadable for everything but one type, JSON or a form, in UTF-8, and CodingUnknown for every coding.
    """
    headers = tuple(headers)
    if _read_codings([value for name, value in headers if name.lower() == "content-encoding"]):
        raise CodingUnknown
    types = [value for name, value in headers if name.lower() == "content-type"]
    if len(types) != 1:
        raise MediaUnreadable("no content type" if not types else "more than one content type")
    found = _MEDIA_TYPE.fullmatch(types[0].strip(" \t"))
    if found is not None and f"{found[1]}/{found[2]}".lower() == "application/x-www-form-urlencoded":
        _insist_on_utf8(_read_charset(found[3]))
        return RequestFormat.FORM
    media = _read_type(types[0])
    _insist_on_utf8(media.charset)
    if media.format is not Format.JSON:
        raise MediaUnreadable("the content type is neither JSON nor a form")
    is_patch = found is not None and found[2].lower() == "json-patch+json"
    return RequestFormat.JSON_PATCH if is_patch else RequestFormat.JSON


def _insist_on_utf8(charset: Charset | None) -> None:
    if charset not in (None, Charset.UTF8):
        raise MediaUnreadable("the charset is not UTF-8")


def narrow_accept_encoding(values: Iterable[str]) -> str:
    """Return the client's `Accept-Encoding` narrowed to what the gate undoes: `gzip` or `identity`.

    Whatever is in doubt (no header, a broken weight, gzip listed both ways) is `identity`, which is always readable.
    """
    return _narrow(tuple(values))


@functools.lru_cache(maxsize=256)
def _narrow(values: tuple[str, ...]) -> str:
    weights: dict[str, list[bool]] = {}
    for value in values:
        for item in value.split(","):
            coding, _, weight = item.partition(";")
            weights.setdefault(coding.strip(" \t").lower(), []).append(_is_wanted(weight))
    named = weights.get("gzip", []) + weights.get("x-gzip", [])
    wanted = named or weights.get("*", [])
    return "gzip" if wanted and all(wanted) else "identity"


_WEIGHT = re.compile(r"[ \t]*(?:[qQ]=(?:0\.(?=\d*[1-9])\d{1,3}|1(?:\.0{0,3})?)[ \t]*)?")


def _is_wanted(weight: str) -> bool:
    """True for no weight, or one above 0 (RFC 9110, 12.4.2)."""
    return _WEIGHT.fullmatch(weight) is not None


@functools.lru_cache(maxsize=256)
def _read_type(content_type: str) -> Media:
    """Return what a content type says; the codings are not its business."""
    found = _MEDIA_TYPE.fullmatch(content_type.strip(" \t"))
    if found is None:
        raise MediaUnreadable("the content type is not one media type")
    kind, subtype, parameters = found[1].lower(), found[2].lower(), found[3]
    form = _find_format(kind, subtype)
    if form is None:
        raise MediaUnreadable("there is no reader for the content type")
    charset = _read_charset(parameters, XML_CHARSETS if form is Format.XML else CHARSETS)
    if form not in (Format.JSON, Format.XML):
        _insist_on_utf8(charset)
    return Media(form, (), charset, form in (Format.CSV, Format.TSV) and _has_header(parameters))


_FORMATS = {
    "application/json": Format.JSON,
    "text/json": Format.JSON,
    "application/xml": Format.XML,
    "text/xml": Format.XML,
    "application/x-ndjson": Format.LINES,
    "application/ndjson": Format.LINES,
    "application/jsonl": Format.LINES,
    "application/x-jsonl": Format.LINES,
    "application/jsonlines": Format.LINES,
    "application/x-jsonlines": Format.LINES,
    "application/json-seq": Format.SEQUENCE,
    "text/event-stream": Format.EVENTS,
    "text/csv": Format.CSV,
    "text/tab-separated-values": Format.TSV,
}
_SUFFIXES = {"+json": Format.JSON, "+json-seq": Format.SEQUENCE}


def _find_format(kind: str, subtype: str) -> Format | None:
    form = _FORMATS.get(f"{kind}/{subtype}")
    name, plus, suffix = subtype.rpartition("+")
    if form is not None or not name:
        return form
    if suffix == "xml":
        return Format.XML if kind == "application" else None
    return _SUFFIXES.get(plus + suffix)


def _has_header(parameters: str) -> bool:
    """True if the type declares a header (RFC 4180, 3). Raises MediaUnreadable where it says that there is none."""
    named = [_unquote(value).lower() for name, value in _PARAMETERS.findall(parameters) if name.lower() == "header"]
    if named not in ([], ["present"]):
        raise MediaUnreadable("the table has no header")
    return bool(named)


def _read_charset(parameters: str, known: Mapping[str, Charset] = CHARSETS) -> Charset | None:
    named = [value for name, value in _PARAMETERS.findall(parameters) if name.lower() == "charset"]
    if not named:
        return None
    charset = known.get(_unquote(named[0]).lower())
    if charset is None or len(named) > 1:
        raise MediaUnreadable("the charset is not read in this format, or named twice")
    return charset


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _read_codings(values: Iterable[str]) -> tuple[Coding, ...]:
    named = [item.strip(" \t").lower() for value in values for item in value.split(",")]
    applied = [coding for coding in named if coding not in ("", "identity")]
    if len(applied) > MAX_CODINGS or any(coding not in _CODINGS for coding in applied):
        raise CodingUnknown
    return tuple(_CODINGS[coding] for coding in applied)
