"""How queries, headers and cookies carry values: found as an upstream would find them, written back as exactly one.

Servers differ in what they take for one and the same name: some fold its case, decode it twice, cut it at `[` or at a
null byte, or split at `;`. What only some of them would find is not opened here, for that would be a guess; nor does it
pass by in silence where it matters (`Change.refuse_alike`).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol
from urllib.parse import quote, unquote_to_bytes

from gharial.gate.headers import all_values
from gharial.gate.outcome import Headers
from gharial.gate.sending import GONE, Gone
from gharial.model.errors import GharialError, RequestMalformed, TokenRefused
from gharial.model.place import fold_name
from gharial.model.plan import NONE, Param

MAX_PARAMETERS = 1_000
"""Parameters of a query or form, and cookies of a request, that are looked at; with more it is refused.

Separators that only some servers heed count too.
"""
MAX_DECODINGS = 5
"""How often a name is percent-decoded to see what some server may take it for."""


class Change(Protocol):
    """What is done with the values that are found."""

    def resolve(self, param: Param, text: str) -> str | Gone | None:
        """Return what stands in place of a value; None: it stays, GONE: it goes, and its name too.

        Raises TokenRefused.
        """

    def refuse_alike(self, param: Param, text: str, *, same: bool) -> None:
        """Raise if this value may not stand where some servers would find `param`.

        `same` is true if they would take its name for the very name, and false for one that is made of it (`email[gte]`
        is of `email`).
        """


def rewrite_query(
    query: str,
    params: Mapping[str, Param],
    change: Change,
    find: Callable[[str], Param | None] | None = None,
) -> str | None:
    """Return the query (or form) with the values of these parameters changed, or None if nothing was.

    `find` gives the parameter of a decoded name, or None; by default the one that has this very name. What is changed
    is written percent-encoded, as one parameter; everything else keeps its spelling. Raises RequestMalformed for more
    than MAX_PARAMETERS, and for a name or tagged value that is not UTF-8.
    """
    if not query:
        return None
    if query.count("&") + query.count(";") >= MAX_PARAMETERS:
        raise RequestMalformed("there are too many parameters to be judged")
    find = find or params.get
    parts = query.split("&")
    gone: set[int] = set()
    changed = False
    for at, part in enumerate(parts):
        raw_name, _, raw_value = part.partition("=")
        param = find(_decoded(raw_name))
        pieces = part.split(";")
        if param is None or len(pieces) > 1:
            for piece in pieces:
                name, _, value = piece.partition("=")
                _judge_alike(_decoded(name), value.replace("+", " "), params, change)
        if param is None:
            continue
        text = change.resolve(param, _decoded(raw_value))
        if text is GONE:
            gone.add(at)
        elif text is not None:
            changed = True
            parts[at] = f"{raw_name}={quote(_printable(text, param), safe='')}"
    return "&".join(part for at, part in enumerate(parts) if at not in gone) if changed or gone else None


def rewrite_headers(headers: Headers, params: Mapping[str, Param], removed: Collection[str], change: Change) -> Headers:
    """Return the headers to set, one for each name of which a value changed; "" where nothing of it is left.

    Several values of one name are joined by commas, which means the same (RFC 9110, section 5.2). Raises TokenRefused
    (RequestMalformed for one that is protected) for a value that can't be one header's: empty, with control characters,
    blanks around it, or a comma.
    """
    found: list[tuple[str, str]] = []
    for name, param in params.items():
        if name in removed:
            continue
        values = all_values(headers, name)
        texts = [change.resolve(param, value.strip(" \t")) for value in values]
        if any(text is not None for text in texts):
            pairs = [(value, text) for value, text in zip(values, texts, strict=True) if not isinstance(text, Gone)]
            written = [value if text is None else _header_value(text, param) for value, text in pairs]
            found.append((name, ", ".join(written)))
    for name, value in headers:
        # To a server that hands headers on as variables, `x_account` and `x-account` are one.
        alike = params.get(name.replace("_", "-"))
        if alike is not None and alike.name != name:
            change.refuse_alike(alike, value.strip(" \t"), same=True)
    return tuple(found)


def rewrite_cookies(headers: Headers, params: Mapping[str, Param], change: Change) -> Headers:
    """Return the one `cookie` header to set, "" if no cookie is left, or nothing if no cookie changed.

    Raises TokenRefused (RequestMalformed for one that is protected) for a value that can't be a cookie's (RFC 6265,
    section 4.1.1, or empty), and RequestMalformed for more than MAX_PARAMETERS cookies.
    """
    joined = ";".join(all_values(headers, "cookie"))
    if joined.count(";") + joined.count(",") >= MAX_PARAMETERS:
        raise RequestMalformed("there are too many cookies to be judged")
    parts = [part.strip(" \t") for part in joined.split(";")]
    gone: set[int] = set()
    changed = False
    for at, part in enumerate(parts):
        raw_name, _, raw_value = part.partition("=")
        name = raw_name.strip(" \t")
        param = params.get(name)
        pieces = part.split(",")
        if param is None or len(pieces) > 1:
            for piece in pieces:
                alike, _, value = piece.partition("=")
                _judge_alike(alike.strip(' \t"'), value, params, change)
        if param is None:
            continue
        text = change.resolve(param, raw_value.strip(" \t"))
        if text is GONE:
            gone.add(at)
        elif text is not None:
            changed = True
            parts[at] = f"{name}={_cookie_value(text, param)}"
    left = [part for at, part in enumerate(parts) if at not in gone]
    return (("cookie", "; ".join(left)),) if changed or gone else ()


# --- reading ------------------------------------------------------------------------------------------------------


def _decoded(text: str) -> str:
    """Decode a name or value of a query once, as `application/x-www-form-urlencoded` is.

    The text holds bytes, as latin-1: what was sent raw is read as UTF-8, as an upstream would.
    """
    if "%" not in text and text.isascii():
        return text.replace("+", " ")
    try:
        return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode("utf-8")
    except UnicodeError:
        raise RequestMalformed("a parameter is not UTF-8") from None


def readings(text: str) -> frozenset[str]:
    """Return what servers may take a piece of a query for, as it was sent; all folded.

    Bytes may be UTF-8, with what is none left out, or latin-1; escapes are decoded as often as anybody would, and what
    is left of percent signs stands there or not.
    """
    text = text.replace("+", " ")
    if "%" not in text and text.isascii():
        return frozenset([fold_name(text)])
    raw = unquote_to_bytes(text.encode("latin-1", "ignore"))
    decoded = {_settled(raw.decode("utf-8", "ignore")), _settled(raw.decode("latin-1"))}
    folded = {fold_name(unicodedata.normalize("NFKC", one)) for one in decoded}
    return frozenset(folded | {one.replace("%", "") for one in folded})


def _judge_alike(name: str, value: str, params: Mapping[str, Param], change: Change) -> None:
    folded = _fold(name)
    words = set(_words_of(folded))
    head = re.split(r"[\[\0]", folded, maxsplit=1)[0]
    wholes = (_joined(head), _joined(folded))
    for tagged, param in params.items():
        own = _joined_name(tagged)
        if own in wholes:
            change.refuse_alike(param, _settled(value), same=True)
        elif own in words:
            change.refuse_alike(param, _settled(value), same=False)


_U_ESCAPE = re.compile(r"%u([0-9a-fA-F]{4})")
_NO_WORD = re.compile(r"\W+")
_OPERATORS = re.compile(
    r"_(?:eq|ne|neq|not|gte?|lte?|in|nin|any|all|contains?|icontains?|cont|exact|iexact|like|ilike|matches|regex|search"
    r"|startswith|istartswith|starts_with|start|endswith|iendswith|ends_with|end|range|between|from|to|min|max|is|null)$"
)


def _settled(text: str) -> str:
    """Decode until nothing changes: what a server could make of it that decodes more than once."""
    for _ in range(MAX_DECODINGS):
        if "%" not in text:
            break
        decoded = unquote_to_bytes(_U_ESCAPE.sub(lambda m: chr(int(m[1], 16)), text)).decode("utf-8", "ignore")
        if decoded == text:
            break
        text = decoded
    return text


def _fold(name: str) -> str:
    """Return a name as the most forgiving server would read it."""
    return fold_name(unicodedata.normalize("NFKC", _settled(name)).replace("%", "").strip())


@functools.lru_cache(maxsize=1_024)
def _joined_name(name: str) -> str:
    """Return what a tagged name is compared by; policies have few of them."""
    return _joined(_fold(name))


def _joined(name: str) -> str:
    return _NO_WORD.sub("_", name).strip("_")


def _words_of(name: str) -> Iterator[str]:
    """Yield the parts of a name of which frameworks make a filter: `email[gte]`, `filter.email`, `email__lt`."""
    for word in re.split(r"\W+|__+", name):
        if word:
            yield word
            yield _OPERATORS.sub("", word)


# --- writing ------------------------------------------------------------------------------------------------------


def _printable(text: str, param: Param) -> str:
    """Return the text, which holds no control characters. Raises TokenRefused."""
    if any(char < " " or "\x7f" <= char < "\xa0" or "\ud800" <= char < "\ue000" for char in text):
        raise _unwritable(param, "holds control characters")
    return text


def _unwritable(param: Param, why: str) -> GharialError:
    """Return what is wrong with a value that can't be sent: a token's, or one that is protected on its way."""
    if param.step != NONE:
        return RequestMalformed(f"what stands for a protected value {why}")
    return TokenRefused(f"a resolved token {why}")


def _header_value(text: str, param: Param) -> str:
    """Return the text as a header's value, its UTF-8 bytes spelled as latin-1."""
    if not text or text != text.strip() or "," in text:
        raise _unwritable(param, "can't be written as one header value")
    return _printable(text, param).encode("utf-8").decode("latin-1")


_COOKIE_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]+")


def _cookie_value(text: str, param: Param) -> str:
    if not _COOKIE_VALUE.fullmatch(text):
        raise _unwritable(param, "can't be written as a cookie's value")
    return text
