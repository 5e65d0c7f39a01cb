"""JSON in Unicode's encodings: what comes out is UTF-8, or a refusal."""

from __future__ import annotations

import codecs
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import make_plan, transforms_of

from gharial.model.errors import BodyMalformed, BodyWrapped, GharialError, MediaUnreadable
from gharial.model.finding import Limits, Rewritten
from gharial.model.plan import Op, Unlisted
from gharial.payload.charset import CHARSETS, UTF8_MARK, Charset, json_in_utf8
from gharial.payload.media import Media
from gharial.payload.rewrite import open_body

MARKS = {
    "utf-8": UTF8_MARK,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
}
PLAN = make_plan({"$..email": Op.MASK}, unlisted=Unlisted.PASS)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=6,
)


def rewritten(body: bytes, charset: Charset | None = None) -> Rewritten:
    reader = open_body(PLAN, Media(charset=charset), body, Limits())
    return reader.finish([0] * len(reader.survey()), transforms_of(PLAN))


@given(documents, st.sampled_from(sorted(MARKS)), st.booleans(), st.booleans())
def test_every_document_is_read_in_every_encoding(document: object, encoding: str, marked: bool, escaped: bool) -> None:
    """With a mark or without, labelled or not, the text is the same; another label is refused."""
    text = json.dumps(document, ensure_ascii=escaped)
    body = (MARKS[encoding] if marked else b"") + text.encode(encoding)
    for named in (None, *CHARSETS.values()):
        if named is None or encoding.startswith(named.value):
            assert json_in_utf8(body, named).removeprefix(UTF8_MARK) == text.encode()
        else:
            with pytest.raises(MediaUnreadable):
                json_in_utf8(body, named)


@pytest.mark.parametrize("encoding", sorted(MARKS))
def test_a_value_is_protected_in_every_encoding(encoding: str) -> None:
    """What leaves is UTF-8 without a mark, and says that it is not what came."""
    text = '{"\\u0065mail": "ann@ex.org", "n": 1.50}'
    for body in (text.encode(encoding), MARKS[encoding] + text.encode(encoding)):
        found = rewritten(body)
        assert (found.body, found.changed) == (b'{"\\u0065mail":"***","n":1.50}', True)
    untouched = rewritten(MARKS[encoding] + b'{"n": 1}'.decode().encode(encoding))
    assert (untouched.body, untouched.changed) == (b'{"n": 1}', True)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe{\0}",
        '{"a":"\ud800"}'.encode("utf-16-le", "surrogatepass"),
        '{"a":"\udc00\ud800"}'.encode("utf-16-be", "surrogatepass"),
        '{"a":"\ud800"}'.encode("utf-32-le", "surrogatepass"),
        b'{\0\0\0"\0\0\0\0\0\x11\0}\0\0\0',
        b"\0{\0}\0",
        '\ufeff\ufeff{"a":1}'.encode("utf-16-le"),
        '{"a":1}\0'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-16-le") + b'{"email":"ann@ex.org"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\xaf"}',
        '{"a":1}'.encode("utf-7") + b"+AHs-",
        b"\xdd\x73\x66\x73{}",
    ],
)
def test_what_is_not_that_encoding_is_refused(body: bytes) -> None:
    """Half a unit, lone surrogates, values beyond Unicode, two marks, two encodings in one body, overlong forms."""
    with pytest.raises(BodyMalformed):
        rewritten(body)


@pytest.mark.parametrize(
    "before",
    [
        ")]}',\n",
        ")]}'",
        ")]}\n",
        "while(1);",
        "while (true) ;",
        "for(;;);",
        "for (;;) ;",
        "throw 1; <dont be evil>",
        "{}&&",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_prefix_against_scripts_is_refused_by_its_own_code(before: str, encoding: str) -> None:
    """It is not cut off, and not taken for broken JSON either."""
    for lead in ("", "\r\n "):
        if lead and encoding != "utf-8":
            continue
        with pytest.raises(BodyWrapped):
            rewritten(f'{lead}{before}{{"email":"ann@ex.org"}}'.encode(encoding))


@pytest.mark.parametrize("call", ["cb(", "/**/cb(", ";cb(", "a.b['c'](", "$_1 (", "jQuery123(", "// x\ncb("])
def test_jsonp_is_refused(call: str) -> None:
    """A call around the document would be run by a page; nobody wants a protected answer there."""
    with pytest.raises(BodyWrapped):
        rewritten(f'{call}{{"email":"ann@ex.org"}});'.encode())


@given(st.binary(max_size=60), st.sampled_from([None, *Charset]))
def test_any_bytes_are_read_or_refused(body: bytes, named: Charset | None) -> None:
    """Rubbish raises what is expected, and nothing that quotes it."""
    with contextlib.suppress(GharialError):
        rewritten(body, named)
