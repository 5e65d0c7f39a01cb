"""Tables: cells protected by the header of their column, in a grammar that all readers share, or refused."""

from __future__ import annotations

import contextlib
import csv
import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import make_plan, transforms_of

from gharial.model.errors import (
    BodyMalformed,
    BodyTooLarge,
    DuplicateName,
    GharialError,
    MediaUnreadable,
    TooManyValues,
)
from gharial.model.finding import Kind, Limits, Rewritten, Scope, Transform
from gharial.model.plan import Op, Plan, Redaction, Unlisted
from gharial.payload.media import Format, Media, choose_reader
from gharial.payload.rewrite import open_body
from gharial.payload.table import MAX_NAME_CHARS

PLAN = make_plan({"$..id": Op.CLEAR, "$..email": Op.MASK}, subjects={"$..id": "customer"})
REDACT = make_plan({"$..id": Op.CLEAR, "$..email": Op.MASK}, unlisted=Unlisted.REDACT)
CSV = Media(Format.CSV)
TSV = Media(Format.TSV)
DECLARED = Media(Format.CSV, header=True)


def read(
    body: bytes | str,
    plan: Plan = PLAN,
    media: Media = CSV,
    *,
    limits: Limits | None = None,
    variants: list[int] | None = None,
    transforms: list[Transform] | None = None,
) -> tuple[Rewritten, tuple[Scope, ...]]:
    reader = open_body(plan, media, body.encode() if isinstance(body, str) else body, limits or Limits())
    scopes = reader.survey()
    chosen = [0] * len(scopes) if variants is None else variants
    return reader.finish(chosen, transforms or transforms_of(plan)), scopes


def text(body: bytes | str, plan: Plan = PLAN, media: Media = CSV) -> str:
    return read(body, plan, media)[0].body.decode()


def test_columns_are_found_by_their_header_and_not_by_their_place() -> None:
    """Wherever a column stands, in whatever case its name is written, with quotes or without."""
    assert text("id,email,note\r\n1,ann@ex.org,x\r\n2,bob@ex.org,y\r\n") == "id,email\r\n1,***\r\n2,***\r\n"
    assert text('note,"EMAIL",ID\nx,"ann@ex.org",1\n') == "EMAIL,ID\n***,1\n"


def test_a_row_is_a_record_of_its_own() -> None:
    """Each row is the person's whom it names; an empty cell names nobody."""
    _, scopes = read("id,email\n1,a\n,b\n2,c\n1,d\n")
    assert [scope.subjects for scope in scopes] == [
        (("customer", "1"),),
        (),
        (("customer", "2"),),
        (("customer", "1"),),
    ]


@pytest.mark.parametrize("blank", ["", '" "', "\xa0", "\u2003", "\u200b", '"\u200d \ufeff"'])
def test_a_blank_cell_names_nobody(blank: str) -> None:
    """Rows whose id is blank are somebody each, and not one person together."""
    _, scopes = read(f"id,email\n{blank},a\n{blank},b\n")
    assert [scope.subjects for scope in scopes] == [(), ()]


@pytest.mark.parametrize("path", ["$.email", "$..email", "$.*"])
def test_paths_of_records_find_columns(path: str) -> None:
    """A row is the object of its columns, in a list of records."""
    plan = make_plan({"$.id": Op.CLEAR, path: Op.MASK})
    assert text("id,email\n1,ann@ex.org\n", plan, DECLARED).endswith(",***\n")


def test_what_no_tag_names_goes_or_is_redacted_column_by_column() -> None:
    """`drop` takes the columns away, header included; `redact` keeps declared ones; empty cells stay empty."""
    assert text("x,id,y\n1,2,3\n") == "id\n2\n"
    assert text("x,id,y\n1,2,\n", REDACT, DECLARED) == "x,id,y\n[redacted],2,\n"


@pytest.mark.parametrize("plan", [REDACT, make_plan({"$.email": Op.MASK, "$.*": Op.MASK}, unlisted=Unlisted.REDACT)])
def test_a_first_record_never_leaves_as_a_header(plan: Plan) -> None:
    """One of its words may be a field's name by chance: without a declared header the others go."""
    assert text("email,Ann,DE02\nbob,Bob,DE03\n", plan) == "email\n***\n"
    assert text("email,Ann,DE02\n", plan) == "email\n"
    assert text("email,Ann,DE02\n,,\n", plan) == 'email\n""\n'
    assert text("email\tAnn\tDE02\nbob\tBob\tDE03\n", plan, TSV) == "email\n***\n"


@pytest.mark.parametrize(
    "header", ["id, email", "id,email ", "id|email", "id,a|b", 'id,"a;b"', 'id,"a,b"', "id,\xa0email", "id,a\x1fb"]
)
@pytest.mark.parametrize("media", [CSV, DECLARED])
def test_a_name_that_may_be_another_one_or_several_is_refused(header: str, media: Media) -> None:
    """White space around it, or a delimiter in it: what the policy says of the name would not be found."""
    cells = ",".join("1" for _ in next(csv.reader([header])))
    with pytest.raises(BodyMalformed, match="column"):
        read(f"{header}\n{cells}\n", REDACT, media)
    with pytest.raises(BodyMalformed, match="column"):
        read("id,email\n1,2\n", REDACT, Media(Format.TSV, header=media.header))


def test_a_column_stays_if_anybody_may_see_it_and_is_empty_for_others() -> None:
    """Which columns there are says nothing of the people in this table; a row of which all is gone goes."""
    plan = make_plan({"$..email": [Op.CLEAR, Op.DROP], "$..id": [Op.CLEAR, Op.CLEAR]}, variants=2)
    for variants, rows in (([0, 1], "1,a\n2,\n"), ([1, 1], "1,\n2,\n"), ([0, 0], "1,a\n2,b\n")):
        assert read("id,email,x\n1,a,\n2,b,\n", plan, variants=variants)[0].body.decode() == "id,email\n" + rows
    only = make_plan({"$..email": [Op.CLEAR, Op.DROP]}, variants=2)
    assert read("id,email\n1,a\n2,b\n", only, variants=[1, 0])[0].body == b"email\nb\n"


def test_a_table_without_rows_shows_the_columns_that_it_would_show() -> None:
    """Names that no tag names go also where there is nothing else; what never leaves has no column."""
    assert text("id,email,note\r\n") == "id,email\r\n"
    assert text("id,email\n", make_plan({"$..id": Op.DROP, "$..email": Op.MASK})) == "email\n"
    assert text("id\n", make_plan({"$..id": Op.DROP})) == ""


def test_an_unchanged_table_leaves_as_it_came() -> None:
    """Quotes, line ends and delimiters stay where nothing changes; a byte order mark goes."""
    plan = make_plan({"$..id": Op.CLEAR, "$..email": Op.CLEAR})
    body = '"id";email\n"1";"a;b"\n2;""'
    assert read(body, plan)[0].body.decode() == body
    assert read(body, plan)[0].changed is False
    marked = read("\ufeff" + body, plan)[0]
    assert (marked.body.decode(), marked.changed) == (body, True)


@pytest.mark.parametrize(("delimiter", "media"), [(",", CSV), (";", CSV), ("\t", CSV), ("\t", TSV)])
@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")), st.text("\"',;\t\n x=")),
        max_size=5,
    )
)
def test_whatever_the_cells_hold_they_are_protected_and_read_back(
    delimiter: str, media: Media, rows: list[tuple[str, str]]
) -> None:
    """What Python's csv module writes is read; of what leaves it reads the same rows, less what is protected."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "note", "email"), *((one, two, f"secret{two}") for one, two in rows)])
    plan = make_plan({"$..id": Op.CLEAR, "$..email": Op.REDACT})
    found = text(out.getvalue(), plan, media)
    assert "secret" not in found
    back = list(csv.reader(io.StringIO(found, newline=""), delimiter=delimiter, strict=True))
    assert back == [["id", "email"], *([one, "[redacted]"] for one, _ in rows)]


@given(
    st.binary(max_size=100),
    st.sampled_from([b"id,email\n", b"id;email\r\n", b"email\n", b""]),
    st.sampled_from([CSV, TSV]),
)
def test_any_bytes_are_read_or_refused(body: bytes, header: bytes, media: Media) -> None:
    """Rubbish raises what is expected and nothing else."""
    with contextlib.suppress(GharialError):
        read(header + body, media=media)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "\n",
        "id,email\n1\n",
        "id,email\n1,2,3\n",
        "id,email\n1,2\n\n",
        "id,email\n\n1,2\n",
        "id,email\n1,2,",
        'id,email\n1,"ann\n',
        'id,email\n1,an"n\n',
        'id,email\n1,"ann"x\n',
        'id,email\n1, "ann"\n',
        'id,email\n1,"ann" \n',
        'id,email\n1,"a"b"\n',
        "id,email\n1,a\rb\n",
        "id,email\r1,a\r",
        "id,email;note\n1,a;b\n",
        'id,email\n1,"a""\n',
    ],
)
def test_what_readers_read_differently_is_refused(body: str) -> None:
    """Ragged rows, quotes within cells or left open, bare CR, two delimiters: no guess is made."""
    with pytest.raises(BodyMalformed):
        read(body)


def test_latin_1_is_refused() -> None:
    """Tables are in UTF-8."""
    with pytest.raises(BodyMalformed):
        read("id,email\n1,é\n".encode("latin-1"))
    with pytest.raises(MediaUnreadable):
        choose_reader([("content-type", "text/csv; charset=iso-8859-1")])
    with pytest.raises(MediaUnreadable):
        choose_reader([("content-type", "text/csv; charset=utf-16")])


@pytest.mark.parametrize("header", ["id,id,email", "id,ID,email", 'id,"id"'])
def test_a_column_that_comes_twice_is_refused(header: str) -> None:
    """Readers take the first or the last one; names that are one to a policy are one here."""
    width = header.count(",") + 1
    with pytest.raises(DuplicateName):
        read(f"{header}\n" + ",".join("1" * width) + "\n")


def test_data_is_never_taken_for_a_header() -> None:
    """Without a header the first record would be names, which pass: one column must be known, or a header declared."""
    for plan in (PLAN, REDACT):
        for body in ("1,ann@ex.org\n2,bob@ex.org\n", "Ann,Smith\n"):
            with pytest.raises(BodyMalformed, match="header"):
                read(body, plan)
    for kind in ("text/csv", "text/tab-separated-values"):
        with pytest.raises(MediaUnreadable):
            choose_reader([("content-type", f"{kind}; header=absent")])
    declared = choose_reader([("content-type", "text/csv; header=present")])
    assert text("x,y\n1,2\n", REDACT, declared) == "x,y\n[redacted],[redacted]\n"
    assert text("x,y\n1,2\n", PLAN, declared) == ""


@pytest.mark.parametrize("unlisted", [Unlisted.PASS, Unlisted.DETECT])
def test_a_policy_that_lets_pass_what_it_does_not_name_reads_no_tables(unlisted: Unlisted) -> None:
    """Columns seldom have the names of fields; `customer.email` would pass."""
    plan = make_plan({"$..email": Op.MASK}, unlisted=unlisted)
    with pytest.raises(MediaUnreadable):
        read("email,customer.email\na,b\n", plan)


@pytest.mark.parametrize("result", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\uff1dx"])
def test_no_result_newly_begins_like_a_formula(result: str) -> None:
    """Spreadsheets would run it; a text that came as one stays one."""
    made: list[Transform] = [lambda kind, clear: (kind, clear), lambda kind, clear: (Kind.STRING, result)]
    assert read("id,email\n1,ann\n2,\n", transforms=made)[0].body == b"id,email\n1,[redacted]\n2,[redacted]\n"
    came = read("id,email\n=2+2,-5\n", transforms=made)[0].body.decode()
    assert came.startswith("id,email\n=2+2,")
    assert result in came
    odd = msgspec.structs.replace(PLAN, redaction=Redaction(string="--"))
    assert read("id,email\n1,ann\n", odd, transforms=made)[0].body == b"id,email\n1,\n"


def test_results_of_other_types_are_written_as_texts() -> None:
    """Null is an empty cell, numbers and booleans are their literals, and what needs quotes gets them."""
    for given_, cell in (((Kind.NULL, ""), ""), ((Kind.NUMBER, "12.50"), "12.50"), ((Kind.BOOLEAN, "true"), "true")):
        made: list[Transform] = [lambda kind, clear: (kind, clear), lambda kind, clear, to=given_: to]
        assert read("id,email\n1,ann\n", transforms=made)[0].body.decode() == f"id,email\n1,{cell}\n"
    made = [lambda kind, clear: (kind, clear), lambda kind, clear: (Kind.STRING, 'a,"b"\n')]
    assert read("id,email\n1,ann\n", transforms=made)[0].body == b'id,email\n1,"a,""b""\n"\n'


def test_limits_are_exact() -> None:
    """A row counts as its cells and itself; the bytes are those of the table."""
    body = "id,email\n" + "1,a\n" * 10
    read(body, limits=Limits(body_bytes=len(body), depth=1, values=30))
    with pytest.raises(TooManyValues):
        read(body, limits=Limits(values=29))
    with pytest.raises(BodyTooLarge):
        read(body, limits=Limits(body_bytes=len(body) - 1))
    with pytest.raises(TooManyValues):
        read("id" + "," * 1000 + "\n", limits=Limits(values=100))


def test_long_names_in_many_rows_are_refused_before_they_are_repeated() -> None:
    """What a table becomes inside is bounded by its size too."""
    with pytest.raises(BodyMalformed, match="characters"):
        read("id," + "x" * (MAX_NAME_CHARS + 1) + "\n1,2\n")
    wide = "id," + ",".join(f"{n:0{MAX_NAME_CHARS}d}" for n in range(1000)) + "\n"
    with pytest.raises(BodyTooLarge):
        read(wide + ("," * 1000 + "\n") * 190, limits=Limits(body_bytes=500_000))
