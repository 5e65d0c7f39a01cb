"""Bodies of rows: what a row becomes is what it would become as a document, and a broken one refuses all."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.documents import documents, path_plans
from support.plans import make_plan, transforms_of

from gharial.model.errors import (
    BodyMalformed,
    BodyTooDeep,
    BodyTooLarge,
    DuplicateName,
    GharialError,
    MediaUnreadable,
    TooManyValues,
)
from gharial.model.finding import Limits, Rewritten, Scope
from gharial.model.plan import Extra, Op, Plan, Unlisted
from gharial.payload.json_reader import JsonReader
from gharial.payload.media import Format, Media
from gharial.payload.program import Layout
from gharial.payload.reference_reader import ReferenceReader
from gharial.payload.rewrite import open_body
from gharial.payload.rows_reader import RowsReader
from gharial.payload.sequence import Events, Lines, TextSequence

PLAN = make_plan({"$.id": Op.CLEAR, "$..email": Op.MASK}, subjects={"$.id": "customer"})
SEQUENCES = (Format.LINES, Format.SEQUENCE, Format.EVENTS)


def framed(form: Format, rows: list[str]) -> bytes:
    """Rows as one of the formats has them."""
    match form:
        case Format.LINES:
            text = "".join(row.replace("\n", " ") + "\r\n" for row in rows)
        case Format.SEQUENCE:
            text = "".join("\x1e" + row + "\n" for row in rows)
        case _:
            text = "".join("".join(f"data: {line}\n" for line in row.split("\n")) + "\n" for row in rows)
    return text.encode()


def unframed(form: Format, body: bytes) -> list[bytes]:
    """The rows of what leaves."""
    match form:
        case Format.LINES:
            return [line.strip() for line in body.split(b"\n") if line.strip()]
        case Format.SEQUENCE:
            return [text.strip() for text in body.split(b"\x1e") if text.strip()]
        case _:
            events = [event for event in body.split(b"\n\n") if event.strip()]
            return [b"\n".join(line.removeprefix(b"data: ") for line in event.split(b"\n")) for event in events]


def read(
    form: Format, body: bytes, plan: Plan = PLAN, limits: Limits | None = None
) -> tuple[Rewritten, tuple[Scope, ...]]:
    reader = open_body(plan, Media(form), body, limits or Limits())
    scopes = reader.survey()
    return reader.finish([0] * len(scopes), transforms_of(plan)), scopes


def alone(row: str, plan: Plan) -> bytes:
    """What a row becomes as a document."""
    reader = JsonReader(plan, Limits())
    reader.feed(row.encode())
    return reader.finish([0] * len(reader.survey()), transforms_of(plan)).body


@given(path_plans(), st.lists(documents(), max_size=5), st.sampled_from(SEQUENCES))
def test_a_row_becomes_what_it_would_become_as_a_document(plan: Plan, rows: list[str], form: Format) -> None:
    """The same values, or all is refused where one of the rows would be."""
    rows = [row for row in rows if row.strip()]
    wanted: list[object] | None
    try:
        wanted = [json.loads(alone(row, plan)) for row in rows]
    except GharialError:
        wanted = None
    try:
        found = read(form, framed(form, rows), plan)[0]
    except GharialError:
        assert wanted is None
        return
    assert [json.loads(row) for row in unframed(form, found.body)] == wanted


@given(path_plans(), st.lists(documents(), max_size=5))
def test_both_executors_read_rows_alike(plan: Plan, rows: list[str]) -> None:
    """The same scopes, bytes, counts and findings, or the same refusal."""
    told = []
    for executor in (JsonReader, ReferenceReader):
        reader = RowsReader(plan, Limits(), Lines())
        reader._reader = executor(plan, Limits(), Layout.ROWS)
        try:
            reader.feed(framed(Format.LINES, rows))
            scopes = reader.survey()
            found = reader.finish([0] * len(scopes), transforms_of(plan), want_places=True)
        except GharialError as refused:
            told.append(refused.code)
            continue
        told.append((scopes, found.body, found.counts, found.unlisted, found.findings))
    assert told[0] == told[1]


@given(st.lists(documents(), max_size=4), st.sampled_from(SEQUENCES), st.data())
def test_chunk_boundaries_do_not_matter(rows: list[str], form: Format, data: st.DataObject) -> None:
    """However the bytes come, in the middle of a character or of a line end, the same leaves or is refused."""
    body = framed(form, rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    outcomes = []
    for pieces in ([body], [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]):
        reader = RowsReader(PLAN, Limits(), {Format.LINES: Lines, Format.SEQUENCE: TextSequence}.get(form, Events)())
        try:
            for piece in pieces:
                reader.feed(piece)
            outcomes.append(reader.finish([0] * len(reader.survey()), transforms_of(PLAN)).body)
        except GharialError as refused:
            outcomes.append(refused.code)
    assert outcomes[0] == outcomes[1]


@given(st.binary(max_size=80), st.sampled_from([*SEQUENCES, Format.CSV, Format.TSV]))
def test_any_bytes_are_read_or_refused(body: bytes, form: Format) -> None:
    """Rubbish raises what is expected and nothing else."""
    with contextlib.suppress(GharialError):
        read(form, body)


@pytest.mark.parametrize("form", SEQUENCES)
def test_each_row_is_a_record_of_its_own(form: Format) -> None:
    """A row that names a person is that person's, one that names nobody is somebody unknown."""
    _, scopes = read(form, framed(form, ['{"id":1,"email":"a"}', '{"email":"b"}', '{"id":2}', '{"email":"c"}']))
    assert [scope.subjects for scope in scopes] == [(("customer", "1"),), (), (("customer", "2"),), ()]


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("form", SEQUENCES)
@pytest.mark.parametrize("row", ['{"list":[%s]}', "[%s]", '{"a":{"list":[%s]}}', '[{"list":[9]},%s]'])
def test_a_list_in_a_row_that_names_nobody_is_one_of_records(form: Format, reference: bool, row: str) -> None:
    """Each element of the first list in it is a person, as in a document: one row is no way around a budget."""
    plan = msgspec.structs.replace(PLAN, needs_reference=reference)
    people = ",".join(f'{{"email":"{n}","more":[{{"email":"x"}}]}}' for n in range(10))
    _, scopes = read(form, framed(form, [row % people, '{"email":"x"}', row % people]), plan)
    assert len(scopes) == 21
    owner = '{"id":1,"list":[%s]}'
    _, scopes = read(form, framed(form, [owner % people] * 2), plan)
    assert [scope.subjects for scope in scopes] == [(("customer", "1"),)] * 2


@pytest.mark.parametrize("form", SEQUENCES)
def test_a_plan_that_asks_which_row_it_is_reads_none(form: Format) -> None:
    """Where there is no trie for rows, bodies of rows are refused."""
    plan = make_plan({"$[0].email": Op.CLEAR})
    plan = msgspec.structs.replace(plan, row_nodes=None)
    with pytest.raises(MediaUnreadable):
        read(form, framed(form, ['{"email":"ann@ex.org"}']), plan)


@pytest.mark.parametrize("unlisted", [Unlisted.DROP, Unlisted.PASS])
def test_extras_find_in_the_list_and_in_each_row(unlisted: Unlisted) -> None:
    """A general path finds what it would find with the row as the document, and as one of a list."""
    plan = make_plan({"$..id": Op.CLEAR, "$.nothing": Op.MASK}, unlisted=unlisted)
    for path in ("$[?@.kind=='mail'].value", "$.list[?@.kind=='mail'].value", "$..[?@.kind=='mail'].value"):
        extra = Extra(cell=1, path=path, general=True)
        general = msgspec.structs.replace(plan, extras=(extra,), needs_reference="x")
        row = '{"list":[{"kind":"mail","value":"ann@ex.org"}],"kind":"mail","value":"ann@ex.org","id":1}'
        found, _ = read(Format.LINES, framed(Format.LINES, [row]), general)
        left = json.loads(found.body)
        if "list" in path:
            assert left["list"][0]["value"] == "***"
        elif ".." in path:
            assert b"ann" not in found.body
        else:
            assert left["value"] == "***"


def test_a_row_cannot_go() -> None:
    """What would drop a whole row leaves an empty one: rows stay in their places, as roots do."""
    plan = make_plan({"$": Op.DROP})
    assert read(Format.LINES, b'{"a":1}\n[1]\n5\n"x"\n', plan)[0].body == b"{}\n[]\nnull\nnull\n"
    assert read(Format.LINES, b'{"x":1}\n[{"x":1}]\n', PLAN)[0].body == b"{}\n[]\n"


# --- lines -------------------------------------------------------------------------------------------------------


def test_lines_come_in_every_form() -> None:
    """CRLF, blank lines, white space, no last line end, a byte order mark, U+2028 in a text: one row a line."""
    body = '\ufeff{"id":1}\r\n\r\n   \t\r\n {"id": 2} \n\n\n{"id":3,"email":"\u2028"}'.encode()
    found, scopes = read(Format.LINES, body)
    assert found.body == b'{"id":1}\n{"id":2}\n{"id":3,"email":"***"}\n'
    assert len(scopes) == 3


def test_unchanged_lines_leave_as_they_came() -> None:
    """Where nothing changes, neither do white space and line ends; a byte order mark goes."""
    body = b'{"id": 1}\r\n\r\n{"id":2}'
    assert (read(Format.LINES, body)[0].body, read(Format.LINES, body)[0].changed) == (body, False)
    marked = read(Format.LINES, b"\xef\xbb\xbf" + body)[0]
    assert (marked.body, marked.changed) == (body, True)
    assert read(Format.LINES, b"")[0].body == b""


@pytest.mark.parametrize(
    "bad",
    [
        b'{"id":1',
        b'{"id":1}{"id":2}',
        b'{"id":1},{"id":2}',
        b"]",
        b'],[{"email":"ann@ex.org"}',
        b"x",
        b"NaN",
        b'{"email":"\xff"}',
        b'\xef\xbb\xbf{"id":1}',
        b"\x1e{}",
        b"# comment",
    ],
)
@pytest.mark.parametrize("at", [0, 500, 1000])
def test_one_broken_line_in_a_thousand_refuses_the_body(bad: bytes, at: int) -> None:
    """Also where two halves would be whole once they stand in one list."""
    lines = [b'{"id":1,"email":"a"}'] * 1000
    lines.insert(at, bad)
    if at == 0 and bad.startswith(b"\xef\xbb\xbf"):
        lines.insert(0, b"{}")
    with pytest.raises(BodyMalformed):
        read(Format.LINES, b"\n".join(lines))


def test_a_document_over_two_lines_is_refused() -> None:
    """A line is a document; halves of one are none."""
    for halves in (b'{"id":1,\n"email":"x"}', b'{"id":1\n,"email":"x"}', b'[\n{"id":1}\n]'):
        with pytest.raises(BodyMalformed):
            read(Format.LINES, halves)


def test_limits_hold_over_all_rows() -> None:
    """Size and values are those of the body, the depth is that of a row; each is exact."""
    body = b'{"id":[1]}\n' * 10
    read(Format.LINES, body, limits=Limits(body_bytes=110, depth=2, values=30))
    for limits, error in (
        (Limits(body_bytes=109), BodyTooLarge),
        (Limits(depth=1), BodyTooDeep),
        (Limits(values=29), TooManyValues),
        (Limits(values=9), TooManyValues),
    ):
        with pytest.raises(error):
            read(Format.LINES, body, limits=limits)
    with pytest.raises(BodyTooDeep):
        read(Format.LINES, b"[" * 100_000 + b"\n")
    with pytest.raises(DuplicateName):
        read(Format.LINES, b'{"id":1}\n{"email":1,"\\u0065mail":2}\n')


def test_a_crowd_of_blank_lines_costs_nothing() -> None:
    """Lines without a row take neither memory nor time that counts."""
    assert read(Format.LINES, b"\n" * 5_000_000 + b'{"id":1,"x":2}')[0].body == b'{"id":1}\n'


# --- text sequences ----------------------------------------------------------------------------------------------


def test_a_text_sequence_keeps_its_frame() -> None:
    """Separators with nothing between them are no elements; texts may have line breaks."""
    body = b'\x1e\x1e{\n"id": 1, "email":"x"}\n\x1e \n\x1e{"id":2}\n'
    assert read(Format.SEQUENCE, body)[0].body == b'\x1e{"id":1,"email":"***"}\n\x1e{"id":2}\n'
    assert read(Format.SEQUENCE, b"")[0].body == b""


@pytest.mark.parametrize(
    "bad",
    [
        b'{"id":1}\n',
        b'x\x1e{"id":1}\n',
        b'\x1e{"id":1}',
        b'\x1e12\x1e{"id":1}\n',
        b"\x1e{\n",
        b'\x1e{"a":"\x1e"}\n',
        b"\n",
    ],
)
def test_a_cut_or_unframed_text_is_refused(bad: bytes) -> None:
    """A text without its separator, or without the line feed that shows that it was not cut."""
    with pytest.raises(BodyMalformed):
        read(Format.SEQUENCE, bad)


# --- events ------------------------------------------------------------------------------------------------------


def test_events_keep_what_cannot_be_data() -> None:
    """Data over several lines is one document; ids, comments and unknown fields go, as do events without data."""
    body = (
        b'\xef\xbb\xbf: ann@ex.org\r\nid: ann@ex.org\revent: updated\nretry: 3000\ndata: {"id":1,\ndata:"email":\n'
        b'data: "ann"}\r\n\r\nevent: ann@ex.org\ndata: {"id":2}\n\nevent: ping\n\ndata\n\nname: ann\n'
        b"retry: 447700900123\ndata: 5\n\ndata: [DONE]\n\n: bye\n"
    )
    assert read(Format.EVENTS, body)[0].body == (
        b'event: updated\nretry: 3000\ndata: {"id":1,"email":"***"}\n\ndata: {"id":2}\n\ndata: null\n\ndata: [DONE]\n\n'
    )


def test_copied_data_with_line_breaks_stays_data() -> None:
    """A line break within a value that is copied begins another line of data, and no field."""
    plan = make_plan({"$.id": Op.MASK}, unlisted=Unlisted.PASS)
    body = b'data: {"id":1,"x":[1,\ndata: 2]}\n\n'
    assert read(Format.EVENTS, body, plan)[0].body == b'data: {"id":"***","x":[1,\ndata: 2]}\n\n'


@pytest.mark.parametrize(
    "bad",
    [
        b'data: {"email":"ann@ex.org"}',
        b'data: {"email":"ann@ex.org"}\n',
        b"data: ann@ex.org\n\n",
        b"data: [DONE] ann@ex.org\n\n",
        b'data: {"id":1}\ndata: {"id":2}\n\n',
        b'data: {"id":1}\n\ndata: {"id":\n\n',
        b'data: {"a":"\xff"}\n\n',
    ],
)
def test_an_event_that_is_cut_or_no_json_refuses_the_body(bad: bytes) -> None:
    """Clients drop the last event without its blank line; here it refuses the answer."""
    with pytest.raises(BodyMalformed):
        read(Format.EVENTS, bad)


def test_a_crowd_of_fields_takes_bounded_time() -> None:
    """Fields that repeat without end are read once each."""
    assert read(Format.EVENTS, b"event: a\n" * 300_000 + b"data: 5\n\n", make_plan({"$": Op.CLEAR}))[0].body == (
        b"event: a\ndata: 5\n\n"
    )
