"""JSON whose strings stand in single quotes, as some clients send it: read in one way, and written as JSON.

Strings stand in single or in double quotes. In single quotes an escape is one of JSON's or `\\'`; an apostrophe without
one closes the string where the next character that is no white space is one of `, : } ]`, or there is none, and is a
letter anywhere else (`O'Brien`). So every text has one reading at most. All but the strings is left as it came.
"""

from __future__ import annotations

import re

from gharial.model.errors import BodyMalformed

# One run each, so that a text takes time in proportion to its length.
_OUTSIDE = re.compile(r"[^'\"]*")
_DOUBLE = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
# The same, or one without an end: looking for the end again from each quote inside of it would be quadratic.
_DOUBLE_OR_OPEN = re.compile(r'"(?:[^"\\]|\\(?:.|\Z))*+(?:"|\Z)', re.DOTALL)
_PLAIN = re.compile(r"[^'\"\\]*")
_CLOSES = re.compile(r"'[ \t\r\n]*(?:[,:}\]]|\Z)")
_ESCAPED = frozenset('"\\/bfnrtu')


def is_quoted_singly(text: str) -> bool:
    """Say whether an apostrophe stands outside of strings in double quotes; JSON has none there.

    A string without an end goes on to the end of the text; so it is JSON's business to refuse it.
    """
    return "'" in _DOUBLE_OR_OPEN.sub("", text)


def to_json(text: str) -> str:
    """Return the text with its strings in double quotes. Raises BodyMalformed.

    What comes out need not be JSON: whoever reads it finds that.
    """
    out: list[str] = []
    at = 0
    while True:
        found = _OUTSIDE.match(text, at)
        assert found is not None  # noqa: S101 - it matches the empty text
        out.append(found[0])
        at = found.end()
        if at == len(text):
            return "".join(out)
        if text[at] == '"':
            whole = _DOUBLE.match(text, at)
            if whole is None:
                raise BodyMalformed("a string has no end")
            out.append(whole[0])
            at = whole.end()
        else:
            at = _string(text, at + 1, out)


def _string(text: str, at: int, out: list[str]) -> int:
    """Write the string whose first character stands at `at`; return where the text goes on behind it."""
    out.append('"')
    while True:
        found = _PLAIN.match(text, at)
        assert found is not None  # noqa: S101 - it matches the empty text
        out.append(found[0])
        at = found.end()
        match text[at : at + 1]:
            case "":
                raise BodyMalformed("a string has no end")
            case "'" if _CLOSES.match(text, at):
                out.append('"')
                return at + 1
            case "'":
                out.append("'")
                at += 1
            case '"':
                out.append('\\"')
                at += 1
            case _:
                escaped = text[at + 1 : at + 2]
                if escaped != "'" and escaped not in _ESCAPED:
                    raise BodyMalformed("a string holds an escape that JSON does not know")
                out.append("'" if escaped == "'" else f"\\{escaped}")
                at += 2
