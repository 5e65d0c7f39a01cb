"""Tables: comma and tab separated values (RFC 4180), each row an object whose members are the columns by their header.

Strict where readers differ: a header is needed, and must name something that the plan names; no column occurs twice;
every row has as many cells as the header; a quote stands around a whole cell or nowhere. Cells are texts, empty ones
null. What leaves has the same columns in the same order, but for those that go in every row, and for those whose name
the plan does not know, unless the content type says that there is a header.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from gharial.model.errors import BodyMalformed, BodyTooLarge, DuplicateName, TooManyValues
from gharial.model.place import fold_name
from gharial.payload.json_text import decode_leaf, encode_string
from gharial.payload.program import Act, Program

MAX_NAME_CHARS = 200
"""Characters of a column's name."""

MAX_NAMES_BYTES = 32_000_000
"""Bytes of all names in all rows: they are repeated in each row while a table is worked on."""

DELIMITERS = (",", ";", "\t")

_NO_NAME = re.compile(r"[,;|\x00-\x1f\x7f-\x9f]")
"""What stands in no column's name: such a name may be several, which were meant to be apart."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What spreadsheets take for the beginning of a formula, also in full width."""

_decode_rows = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


class Table:
    """The framing of a table. `program` is the plan's for rows; `delimiter` is empty where the header has to tell it.

    `header_declared`: the content type says that there is a header, so none of its names has to be known, and unknown
    ones may leave.
    """

    def __init__(self, program: Program, delimiter: str, *, header_declared: bool) -> None:
        self._program = program
        self._delimiter = delimiter
        self._declared = header_declared
        self._line_end = "\r\n"
        self._columns: list[str] = []
        self._may_leave: set[str] = set()
        self._cells: list[list[str]] = []

    @property
    def keeps_all(self) -> bool:
        """True if there are rows, without which nothing has looked at the columns yet, and no name has to go."""
        return bool(self._cells) and len(self._may_leave) == len(self._columns)

    def split(self, body: bytes, most: int) -> list[bytes]:
        """Return the rows as objects. Raises BodyMalformed, DuplicateName, TooManyValues."""
        text = body.decode("utf-8")
        delimiter = self._delimiter or _find_delimiter(text)
        self._delimiter = delimiter
        records = _records(text, delimiter, most)
        if not records:
            raise BodyMalformed("the table has no header")
        self._columns, self._cells = records[0], records[1:]
        self._line_end = "\r\n" if _ends_with_crlf(text) else "\n"
        self._check_header()
        # A row counts as its cells and itself, as an object does.
        if len(self._cells) * (len(self._columns) + 1) > most:
            raise TooManyValues(f"more than {most} values")
        names = [encode_string(name) + b":" for name in self._columns]
        if len(self._cells) * sum(map(len, names)) > MAX_NAMES_BYTES:
            raise BodyTooLarge("the names of the columns are too long for so many rows")
        return [_object(names, cells) for cells in self._cells]

    def _check_header(self) -> None:
        folded = [fold_name(name) for name in self._columns]
        if len(set(folded)) < len(folded):
            raise DuplicateName
        if any(len(name) > MAX_NAME_CHARS for name in self._columns):
            raise BodyMalformed(f"the name of a column has more than {MAX_NAME_CHARS} characters")
        if any(name != name.strip() or _NO_NAME.search(name) for name in self._columns):
            raise BodyMalformed("the name of a column has white space around it, or a delimiter in it")
        # Without a header the first person's data would be names, which nothing protects; one that happens to be the
        # name of a field makes none of the others a name.
        known = self._program.resolve(self._program.root)
        named = zip(self._columns, folded, strict=True)
        self._may_leave = {name for name, as_known in named if self._declared or as_known in known}
        if not self._declared and not self._may_leave:
            raise BodyMalformed("no column has a name that the policy names; is there a header?")

    def join(self, rows: Sequence[bytes]) -> bytes:
        """Return the table with these rows' cells; columns that are gone from all of them, and empty rows, go."""
        written = _decode_rows(b"[" + b",".join(rows) + b"]")
        stays = self._columns_that_stay().union(*written) if written else self._columns_that_stay()
        stays &= self._may_leave
        columns = [(at, name) for at, name in enumerate(self._columns) if name in stays]
        lines = [[name for _, name in columns]] if columns else []
        for cells, members in zip(self._cells, written, strict=True):
            if not stays.isdisjoint(members):
                lines.append([self._cell(cells[at], members.get(name)) for at, name in columns])
        return "".join(self._line(line) for line in lines).encode("utf-8")

    def _columns_that_stay(self) -> set[str]:
        """Return the columns that some variant shows, whoever is in this table: so that it tells nothing of anybody."""
        program = self._program
        known = program.resolve(program.root)
        found = set()
        for name in self._columns:
            state = known.get(fold_name(name), program.root.other_name)
            if any(act is not Act.DROP for act, _ in state.acts):
                found.add(name)
        return found

    def _cell(self, before: str, value: msgspec.Raw | None) -> str:
        """Return the text of a cell; one that was changed never begins like a formula where it did not before."""
        text = "" if value is None else decode_leaf(bytes(value))[1]
        if text != before and text.startswith(_FORMULA) and not before.startswith(_FORMULA):
            text = self._program.plan.redaction.string
            return "" if text.startswith(_FORMULA) else text
        return text

    def _line(self, cells: Sequence[str]) -> str:
        # A line with one empty cell would be a blank line, which many readers skip.
        quoted = ['""'] if list(cells) == [""] else [self._quote(cell) for cell in cells]
        return self._delimiter.join(quoted) + self._line_end

    def _quote(self, cell: str) -> str:
        if self._delimiter in cell or any(char in cell for char in '"\r\n') or cell != cell.strip():
            return '"' + cell.replace('"', '""') + '"'
        return cell


def _object(names: Sequence[bytes], cells: Sequence[str]) -> bytes:
    members = (name + (encode_string(cell) if cell else b"null") for name, cell in zip(names, cells, strict=True))
    return b"{" + b",".join(members) + b"}"


def _find_delimiter(text: str) -> str:
    """Return the one delimiter that the header line has outside quotes; a comma where it has none (one column)."""
    header = _UNQUOTED.sub("", _HEADER.match(text)[0])  # type: ignore[index]  # it matches the empty text too
    found = [delimiter for delimiter in DELIMITERS if delimiter in header]
    if len(found) > 1:
        raise BodyMalformed("the header line has more than one delimiter")
    return found[0] if found else ","


_UNQUOTED = re.compile(r'"[^"]*+"')
_HEADER = re.compile(r'(?:[^"\r\n]|"[^"]*+")*+')
_LINE = {
    delimiter: re.compile(rf'(?:"([^"]*+(?:""[^"]*+)*+)"|([^"\r\n{delimiter}]*+))({delimiter}|\r\n|\n|\Z)')
    for delimiter in DELIMITERS
}


def _ends_with_crlf(text: str) -> bool:
    end = text.find("\n")
    return end < 0 or text[end - 1 : end] == "\r"


def _records(text: str, delimiter: str, most: int) -> list[list[str]]:
    """Return the cells of all records, the header's first. Raises BodyMalformed, TooManyValues."""
    pattern = _LINE[delimiter]
    records: list[list[str]] = []
    record: list[str] = []
    at, left = 0, 2 * most + 1  # the header's cells are no values
    while text:
        found = pattern.match(text, at)
        if found is None:
            raise BodyMalformed("a cell has a quote or a line break that does not belong there")
        quoted, plain, end = found.groups()
        record.append(plain if quoted is None else quoted.replace('""', '"'))
        at = found.end()
        left -= 1
        if left < 0:
            raise TooManyValues(f"more than {most} values")
        if end == delimiter:
            continue
        records.append(record)
        if len(record) != len(records[0]):
            raise BodyMalformed("a row has not as many cells as the header")
        record = []
        if not end or at == len(text):
            break
    return records
