"""XML beyond what the corpus can hold: encodings, limits, hostile bytes, and laws for any document and plan."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.plans import transforms_of
from support.xml_plans import xml_plan

from gharial.model.errors import (
    BodyMalformed,
    BodyTooDeep,
    BodyTooLarge,
    GharialError,
    MediaUnreadable,
    TooManyValues,
)
from gharial.model.finding import Kind, Limits, Rewritten
from gharial.model.plan import Plan
from gharial.payload.charset import Charset
from gharial.payload.media import Format, Media
from gharial.payload.rewrite import check_format, check_plan, open_body
from gharial.payload.xml_reader import XmlReader
from gharial.payload.xml_tree import Element

MASKED = xml_plan({"//n": "mask", "//m": "clear"})
MARK = "Zq81"


def run(plan: Plan, body: bytes | str, limits: Limits | None = None, charset: Charset | None = None) -> Rewritten:
    reader = XmlReader(plan, limits or Limits(), charset)
    reader.feed(body if isinstance(body, bytes) else body.encode())
    scopes = reader.survey()
    return reader.finish([0] * len(scopes), transforms_of(plan), want_places=True)


@pytest.mark.parametrize("blank", [" ", "\xa0", "\u2003", "\u200b", "\ufeff"])
@pytest.mark.parametrize("record", ["<r><id>%s</id><n>x</n></r>", '<r id="%s"><n>x</n></r>'])
def test_a_blank_id_names_nobody(blank: str, record: str):
    """Records whose id is blank are somebody each, and not one person together."""
    plan = xml_plan({"//id": "clear", "//@id": "clear", "//n": "mask"}, subjects={"//id": "c", "//@id": "c"})
    reader = XmlReader(plan, Limits(), None)
    reader.feed(("<a>" + record % blank * 3 + record % "7" + "</a>").encode())
    assert [scope.subjects for scope in reader.survey()] == [(), (), (), (("c", "7"),)]


# --- encodings --------------------------------------------------------------------------------------------------------


def declared(encoding: str, text: str = "<a><n>Zq81</n><m>\xfc</m></a>") -> str:
    return f'<?xml version="1.0" encoding="{encoding}"?>{text}'


MASKED_UTF8 = '<?xml version="1.0" encoding="UTF-8"?>\n<a><n>***</n><m>\xfc</m></a>'.encode()
PLAIN = "<a><n>Zq81</n><m>\xfc</m></a>"


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        (declared("UTF-8").encode(), None),
        (declared("utf-8").encode("utf-8-sig"), Charset.UTF8),
        (declared("UTF-16").encode("utf-16"), None),
        (declared("utf-16").encode("utf-16-le"), None),
        (declared("UTF-16BE").encode("utf-16-be"), None),
        (declared("UTF-16").encode("utf-16"), Charset.UTF16),
        (declared("UTF-16LE").encode("utf-16-le"), Charset.UTF16),
        (b"\xfe\xff" + declared("UTF-16").encode("utf-16-be"), Charset.UTF16_BIG),
        (declared("ISO-8859-1").encode("iso-8859-1"), None),
        (declared("iso-8859-1").encode("iso-8859-1"), Charset.LATIN1),
        (declared("windows-1252").encode("windows-1252"), None),
        (declared("us-ascii").replace("\xfc", "&#xfc;").encode(), None),
    ],
)
def test_encodings_that_header_mark_and_declaration_agree_on(body: bytes, charset: Charset | None) -> None:
    """Whatever it came in, it leaves in UTF-8, says so, and is changed."""
    assert run(MASKED, body, charset=charset).body == MASKED_UTF8


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        (PLAIN.encode("utf-16"), None),
        (PLAIN.encode("utf-8-sig"), None),
        (PLAIN.encode("iso-8859-1"), Charset.LATIN1),
        (PLAIN.encode("utf-16-be"), Charset.UTF16),
    ],
)
def test_without_a_declaration_none_is_written(body: bytes, charset: Charset | None) -> None:
    """A mark or the header is enough."""
    assert run(MASKED, body, charset=charset).body == "<a><n>***</n><m>\xfc</m></a>".encode()


def test_another_encoding_is_a_change_even_where_no_value_changes() -> None:
    """The header's charset does not leave, so what leaves must be UTF-8."""
    found = run(MASKED, "<m>\xfc</m>".encode("iso-8859-1"), charset=Charset.LATIN1)
    assert (found.body, found.changed) == ("<m>\xfc</m>".encode(), True)


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        (declared("UTF-8").encode(), Charset.LATIN1),
        (declared("ISO-8859-1").encode("iso-8859-1"), Charset.UTF8),
        (declared("ISO-8859-1").encode("utf-8-sig"), None),
        (declared("UTF-8").encode("utf-16"), None),
        (declared("UTF-16").encode(), None),
        (declared("UTF-16BE").encode("utf-16-le"), None),
        (PLAIN.encode("utf-16"), Charset.UTF8),
        (PLAIN.encode("utf-16-le"), None),
        (PLAIN.encode(), Charset.UTF16),
        (declared("UTF-7").encode("utf-7"), None),
        (declared("ibm037").encode(), None),
        (declared("UTF-32").encode(), None),
        (declared("x-mac-roman").encode(), None),
        (declared("").encode(), None),
    ],
)
def test_encodings_that_contradict_each_other_or_are_unknown_are_refused(body: bytes, charset: Charset | None) -> None:
    """A client might believe the other one: nothing leaves, and the error names nothing of the body."""
    with pytest.raises((MediaUnreadable, BodyMalformed)) as caught:
        run(MASKED, body, charset=charset)
    assert MARK not in repr(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        declared("ibm037").encode("cp037"),
        PLAIN.encode("utf-32"),
        PLAIN.encode("utf-7").replace(b"<", b"+ADw-"),
        PLAIN.encode("iso-8859-1"),
        b"<a>\x81</a>",
        declared("windows-1252").encode()[:-14] + b"\x81</a>",
        b"\xff\xfe<\x00a\x00>",
        b"<a>\x00</a>",
        b"<a>&#0;</a>",
        b"<a>&#xD800;</a>",
        b"<a>&#xFFFE;</a>",
        "<a>\ufffe</a>".encode(),
        b"<a>\xed\xa0\x80</a>",
        b"<a>\xc0\xbc</a>",
    ],
)
def test_bytes_that_are_no_text_of_their_encoding_are_refused(body: bytes) -> None:
    """EBCDIC, UTF-7, UTF-32, half characters and characters that XML does not have."""
    with pytest.raises((MediaUnreadable, BodyMalformed)):
        run(MASKED, body)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_the_limits_are_exact() -> None:
    """Bytes, depth and values: what is just within passes, one more is refused."""
    assert run(MASKED, "<a><b><n>1</n></b></a>", Limits(depth=3)).body == b"<a><b><n>***</n></b></a>"
    with pytest.raises(BodyTooDeep):
        run(MASKED, "<a><b><n>1</n></b></a>", Limits(depth=2))
    # Three elements, an attribute, a namespace, and a text.
    assert run(MASKED, '<a xmlns:p="u"><b k="1"/><n>1</n></a>', Limits(values=6)).changed
    with pytest.raises(TooManyValues):
        run(MASKED, '<a xmlns:p="u"><b k="1"/><n>1</n></a>', Limits(values=5))
    assert run(MASKED, "<a/>", Limits(body_bytes=4)).body == b"<a/>"
    with pytest.raises(BodyTooLarge):
        run(MASKED, "<a />", Limits(body_bytes=4))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("<a>" * 300_000, BodyTooDeep),
        ("<a>" * 900 + "</a>" * 900, BodyTooDeep),
        ("<a>" + "<b/>" * 300_000 + "</a>", TooManyValues),
        ("<a " + " ".join(f'k{n}="1"' for n in range(210_000)) + "/>", TooManyValues),
        ("<a " + " ".join(f'xmlns:k{n}="u"' for n in range(210_000)) + "/>", TooManyValues),
        ("<a>" + "<!---->" * 300_000, BodyMalformed),
        ("<!--" + "-" * 300_000, BodyMalformed),
        ("<?p " * 100_000, BodyMalformed),
        ("<!DOCTYPE a [" + "<!ENTITY a 'b'>" * 100_000, BodyMalformed),
    ],
    ids=range(9),
)
def test_what_is_built_to_cost_much_is_refused_soon(body: str, error: type[GharialError]) -> None:
    """Deep, wide and endless documents are refused by count, before a tree of them stands."""
    with pytest.raises(error):
        run(MASKED, body)


def test_one_long_value_and_many_pieces_of_one_are_fine() -> None:
    """A text of megabytes, and one that comments cut into a hundred thousand pieces, are one value each."""
    assert run(MASKED, f'<n k="{"x" * 3_000_000}"/>').body == b'<n k="***"/>'
    assert run(MASKED, f"<n>{'x<!---->' * 100_000}</n>").body == b"<n>***</n>"


def test_nested_as_deep_as_a_limit_allows_never_breaks() -> None:
    """Where somebody raises the limit beyond what can be followed, it is still a refusal."""
    with pytest.raises(BodyTooDeep):
        run(MASKED, "<a>" * 5000 + "</a>" * 5000, Limits(depth=10_000))


# --- what a plan can hold ---------------------------------------------------------------------------------------------


def test_a_replacement_that_xml_cannot_hold_is_refused() -> None:
    """No document with a character that would break it at the client."""
    reader = XmlReader(MASKED, Limits())
    reader.feed(b"<n>1</n>")
    reader.survey()
    broken = [lambda kind, text: (kind, "\x01")] * len(MASKED.steps)
    with pytest.raises(BodyMalformed):
        reader.finish([0], broken)


def test_a_replacement_is_text_and_never_markup() -> None:
    """What a transform gives stands between the tags as characters."""
    reader = XmlReader(MASKED, Limits())
    reader.feed(b'<n k="1">1</n>')
    reader.survey()
    wild = [lambda kind, text: (Kind.STRING, '"</n>&\r<m/>]]>')] * len(MASKED.steps)
    root = ET.fromstring(reader.finish([0], wild).body)
    assert (root.tag, root.text, root.get("k"), len(root)) == ("n", '"</n>&\r<m/>]]>', '"</n>&\r<m/>]]>', 0)


def test_a_plan_reads_only_the_formats_in_which_it_has_places() -> None:
    """`pass` is said of fields, not of formats; tags with places in one format do nothing in the other."""
    in_json, in_both = xml_plan({"$..n": "mask"}), xml_plan({"//n": "mask", "$..n": "mask"})
    for form, good, bad in ((Format.XML, MASKED, in_json), (Format.JSON, in_json, MASKED)):
        check_format(good, form)
        check_format(in_both, form)
        with pytest.raises(MediaUnreadable):
            check_format(bad, form)
        with pytest.raises(MediaUnreadable):
            open_body(bad, Media(form), b"<n/>" if form is Format.XML else b"{}", Limits())


def test_a_plan_whose_xml_part_is_broken_is_found_before_a_body() -> None:
    """An index that points nowhere would be a way around."""
    nodes = (msgspec.structs.replace(MASKED.xml_nodes[0], other_name=99), *MASKED.xml_nodes[1:])
    with pytest.raises(ValueError, match="99"):
        check_plan(msgspec.structs.replace(MASKED, xml_nodes=nodes))


# --- laws -------------------------------------------------------------------------------------------------------------

NAMES = ("n", "m", "row", "p:n", "Name", "q")
ATTRIBUTES = ("id", "n", "p:k", "xml:lang", "xsi:type")
TECHNIQUES = ("clear", "mask", "redact", "null", "drop")
PLACES = (
    "//n", "/row/n", "//row/*", "//@id", "//row/@*", "//{urn:p}n", "/*/*/m", "//name", "//m/@n", "/row", "//q//m",
    "//@type",
)  # fmt: skip
_TEXTS = st.text(st.sampled_from("ab<&>\"' \n\t\r\xfc\U0001f40a]"), max_size=6)


@st.composite
def elements(draw: st.DrawFn, depth: int = 0) -> ET.Element:
    """A tree in which every value holds the mark."""
    element = ET.Element(draw(st.sampled_from(NAMES)))
    for name in draw(st.lists(st.sampled_from(ATTRIBUTES), max_size=3, unique=True)):
        element.set(name, draw(_TEXTS) + MARK)
    element.text = draw(st.sampled_from(("", " \n"))) if draw(st.booleans()) else draw(_TEXTS) + MARK
    if depth < 4:
        for child in draw(st.lists(elements(depth + 1), max_size=3)):  # type: ignore[no-untyped-call]
            child.tail = draw(st.sampled_from(("", "\n", MARK + " tail")))
            element.append(child)
    return element


def written(root: ET.Element) -> bytes:
    for prefix, uri in (("p", "urn:p"), ("xsi", "http://www.w3.org/2001/XMLSchema-instance")):
        root.set(f"xmlns:{prefix}", uri)
    # ElementTree writes \r as it is, which every parser would turn into \n.
    return ET.tostring(root).replace(b"\r", b"&#13;")


def plans(unlisted: tuple[str, ...], techniques: tuple[str, ...]) -> st.SearchStrategy[Plan]:
    shows = st.dictionaries(st.sampled_from(PLACES), st.sampled_from(techniques), min_size=1, max_size=4)
    subjects = st.sampled_from(({}, {"//@id": "customer"}, {"//n": "customer"}))
    return st.builds(
        lambda show, out, named: xml_plan(show, unlisted=out, subjects={k: v for k, v in named.items() if k in show}),
        shows,
        st.sampled_from(unlisted),
        subjects,
    )


def infoset(root: ET.Element) -> Any:
    return [(e.tag, sorted(e.attrib.items()), e.text or "", e.tail or "") for e in root.iter()]


@settings(max_examples=examples(2000), deadline=None)
@given(elements(), plans(("drop", "redact"), TECHNIQUES[1:]))
def test_no_value_leaves_where_nothing_is_clear(root: ET.Element, plan: Plan) -> None:
    """Whatever the document and the plan: without a clear step nothing of any value is in what leaves."""
    found = run(plan, written(root))
    assert MARK.encode() not in found.body
    ET.fromstring(found.body)
    assert MARK not in repr(found)


@settings(max_examples=examples(2000), deadline=None)
@given(elements(), plans(("pass",), ("clear",)))
def test_nothing_changes_where_all_is_clear(root: ET.Element, plan: Plan) -> None:
    """Then it is the very bytes; and where only a comment goes, the same infoset."""
    body = written(root)
    assert run(plan, body).body == body
    commented = run(plan, b"<!-- x -->" + body)
    assert commented.body != body or commented.changed
    assert infoset(ET.fromstring(commented.body)) == infoset(ET.fromstring(body))


@settings(max_examples=examples(2000), deadline=None)
@given(elements(), plans(("pass", "redact"), ("clear", "mask", "redact", "null")))
def test_the_shape_stays_where_nothing_is_dropped(root: ET.Element, plan: Plan) -> None:
    """Elements, and attributes beside those of XML and XML Schema, are those that came, in their order."""

    def shape(body: bytes) -> list[tuple[str, list[str]]]:
        return [(e.tag, [k for k in e.attrib if "w3.org" not in k]) for e in ET.fromstring(body).iter()]

    body = written(root)
    found = run(plan, body)
    assert shape(found.body) == shape(body)
    again = run(plan, found.body)
    assert len(again.findings) <= len(found.findings)


@settings(max_examples=examples(2000), deadline=None)
@given(elements(), plans(("drop", "redact", "pass"), TECHNIQUES), st.data())
def test_chunks_do_not_matter(root: ET.Element, plan: Plan, data: st.DataObject) -> None:
    """However a body comes in, what leaves is the same."""
    body = written(root)
    at = data.draw(st.integers(0, len(body)))
    reader = XmlReader(plan, Limits())
    reader.feed(body[:at])
    reader.feed(body[at:])
    scopes = reader.survey()
    assert reader.finish([0] * len(scopes), transforms_of(plan), want_places=True) == run(plan, body)


# --- hostile bytes ----------------------------------------------------------------------------------------------------

SEED = (
    b'<?xml version="1.0" encoding="UTF-8"?><!-- c --><a xmlns:p="urn:p" k="Zq81"><p:n>Zq81</p:n><?pi Zq81?>'
    b"<m>ok</m><n><![CDATA[Zq81]]>&amp;&#65;</n><note>Zq81 <b>x</b> Zq81</note></a>"
)
PIECES = (
    b"<", b">", b"&", b"]]>", b"<![CDATA[", b"<!--", b"-->", b"<!DOCTYPE a>", b"&e;", b"<!ENTITY", b"\x00", b"\xff",
    b"xmlns=",
    b'"', b"'", b"<?", b"?>", b"</n>", b"<n>", b"\xef\xbb\xbf", b"encoding='utf-16'", b" k='1'", b"&#x0;", b"p:",
)  # fmt: skip


@settings(max_examples=examples(3000), deadline=None)
@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join)))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Nothing but the expected errors, and no text of a body in them."""
    _read_or_refuse(body)


@pytest.mark.parametrize("seed", range(examples(200)))
def test_a_document_with_a_piece_more_or_less_is_read_or_refused(seed: int) -> None:
    """Fifty mutations each: what is marked leaves through none of them."""
    chance = random.Random(seed)
    for _ in range(50):
        body = bytearray(SEED)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(body))
            body[at : at + chance.choice((0, 0, 1, 4))] = chance.choice(PIECES)
        _read_or_refuse(bytes(body))


def _read_or_refuse(body: bytes) -> None:
    plan = xml_plan({"//n": "mask", "//m": "mask"})
    refusal: GharialError | None = None
    try:
        told = run(plan, body).body
    except GharialError as error:
        refusal, told = error, repr(error).encode()
    assert MARK.encode() not in told
    # What caused it could quote the body.
    assert refusal is None or refusal.__suppress_context__ or refusal.__context__ is None


@pytest.mark.parametrize("piece", ["x<b/>", "<b/>", "<n>x</n>y", "<b>x<c/>y</b>"])
def test_the_work_on_one_element_grows_with_its_content_only(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many pieces in one element are twice the items looked at, not four times."""

    def looked_at(times: int) -> int:
        looked = 0

        def children(element: Element) -> list[Element]:
            nonlocal looked
            looked += len(element.content)
            return [item for item in element.content if not isinstance(item, str)]

        with monkeypatch.context() as patch:
            patch.setattr(Element, "children", property(children))
            run(MASKED, f"<a>{piece * times}</a>")
        return looked

    assert 0 < looked_at(200) <= 2 * looked_at(100)
