"""One JSON body under one plan: what is refused, what stays as it was, what never leaves."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.documents import BY_PLACE, documents, pages, plans
from support.effort import examples, thorough_only
from support.plans import make_plan, stars, transforms_of

from gharial.model.errors import (
    BodyMalformed,
    BodyTooDeep,
    BodyTooLarge,
    DuplicateName,
    GharialError,
    KeyUnknown,
    TooManyValues,
)
from gharial.model.finding import Finding, Kind, Limits, Rewritten
from gharial.model.plan import Op, Plan, Unlisted
from gharial.payload.json_reader import JsonReader

MASK = make_plan({"$..email": Op.MASK, "$..id": Op.CLEAR}, subjects={"$..id": "customer"})
EVERYTHING = make_plan({"$": Op.CLEAR})
SLOW_OK = settings(suppress_health_check=[HealthCheck.too_slow])


def reader_of(plan: Plan, body: bytes | str, **limits: int) -> JsonReader:
    reader = JsonReader(plan, Limits(**limits))
    reader.feed(body.encode() if isinstance(body, str) else body)
    return reader


def rewritten(plan: Plan, body: bytes | str, **limits: int) -> Rewritten:
    reader = reader_of(plan, body, **limits)
    return reader.finish([0] * len(reader.survey()), transforms_of(plan))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"{",
        b'{"email":"a@b.org"',
        b'{"email":"a@b.org"} x',
        b'{"email":"a@b.org"}{}',
        b'{"email":"a@b.org"}\x00',
        b'{"email":"a@b.org"}]',
        b'{"email":"a@b.org",}',
        b"[1,]",
        b"[1 2]",
        b"{'email':'a@b.org'}",
        b'{email:"a@b.org"}',
        b'{"x":NaN}',
        b'{"x":-Infinity}',
        b'{"x":0x10}',
        b'{"x":01}',
        b'{"x":-}',
        b'{"x":1.}',
        b'{"x":.5}',
        b'{"x":+1}',
        b'{"x":1e}',
        b'{"x":1_0}',
        b'{"x":nul}',
        b'{"x":True}',
        b'{"x":"\x01"}',
        b'{"x":"a\nb"}',
        b'{"x":"\\x41"}',
        b'{"x":"\\u12"}',
        b'{"x":"\\ud800"}',
        b'{"x":"\\udc00\\ud800"}',
        b'{"x":"\\ud800\\u0041"}',
        b'{"\\ud800":1}',
        b'{"x":"\xff"}',
        b'{"\xff":1}',
        b'{"x":"\xc0\x80"}',
        b'{"x":"\xed\xa0\x80"}',
        b'{"x":"\xf4\x90\x80\x80"}',
        b"\xa0{}",
        b"\x0c{}",
        b"/* x */{}",
        b'{"x":/**/1}',
        '{"email":"a@b.org"}'.encode("utf-16"),
        '{"email":"a@b.org"}'.encode("utf-16-le"),
        '{"email":"a@b.org"}'.encode("utf-32"),
        b"<html>",
        b"data: {}",
        b'{"email":"a@b.org"}\n{"email":"c@d.org"}',
        b'\x1e{"a":1}',
    ],
)
@pytest.mark.parametrize("plan", [MASK, EVERYTHING, make_plan({"$.y": Op.CLEAR}, unlisted=Unlisted.PASS)])
@pytest.mark.parametrize("wrap", [b"%s", b'{"deep":[%s]}', b'{"y":[{"z":%s}]}'])
def test_what_is_not_one_document_is_refused(body: bytes, plan: Plan, wrap: bytes) -> None:
    """No plan, not even one that copies everything unopened, forwards what is not JSON; wherever in the body it is."""
    if body.startswith(b"\xef\xbb\xbf{}") or (wrap != b"%s" and body in (b"[1,]", b" \n", b"")):
        wrap = b"%s"
    with pytest.raises(BodyMalformed) as caught:
        rewritten(plan, wrap % body)
    assert "org" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("number", ["1.10", "1e5", "1E+05", "-0", "-0.0", "1E400", "9" * 5000, "0." + "1" * 5000])
def test_numbers_stay_digit_for_digit(number: str) -> None:
    """A number is never parsed, whatever its size, where it is copied."""
    plan = make_plan({"$..keep": Op.CLEAR, "$..email": Op.MASK})
    body = f'{{"keep":{number},"email":"x","deep":[{{"keep":[{number}]}}]}}'
    assert rewritten(plan, body).body.decode() == body.replace('"x"', '"***"')


def test_names_and_strings_keep_their_escapes() -> None:
    """Names are matched as decoded and written as they came."""
    body = r'{"\u0065mail":"a@b.org","\u001F":1,"\u001f\/":"\u00e9\/\ud83d\ude00","k":{"\"":"\b"}}'
    plan = make_plan({"$..email": Op.MASK}, unlisted=Unlisted.PASS)
    assert rewritten(plan, body).body.decode() == body.replace("a@b.org", "***")


@pytest.mark.parametrize("name", ["\\u001F", "\\u001f", "\\u000A", "\\n", "\\/", "\\u0041"])
def test_a_name_with_an_escape_is_written_as_it_came(name: str) -> None:
    """Also where it is as long as the way in which this product would write it."""
    plan = make_plan({"$..email": Op.MASK}, unlisted=Unlisted.PASS)
    for frame in ('{"%s":1,"email":"x"}', '[{"%s":1,"email":"x"}]'):
        body = frame.replace("%s", name)
        assert rewritten(plan, body).body.decode() == body.replace('"x"', '"***"')


@pytest.mark.parametrize("pair", [("\\u001F", "\\u001f"), ("\\u000a", "\\n"), ("\\/", "/"), ("\\u00E9", "é")])
def test_one_name_spelled_twice_is_a_duplicate(pair: tuple[str, str]) -> None:
    """However two names are spelled, equal ones are refused."""
    with pytest.raises(DuplicateName):
        rewritten(MASK, f'[{{"{pair[0]}":1,"{pair[1]}":2}}]')


@pytest.mark.parametrize(
    "body",
    [
        '{"a":1,"a":1}',
        '[{"a":1,"b":2},{"a":1,"a":2}]',
        '[{"a":"xx","a":""},{"a":1}]',
        '{"a":"\\",\\"b\\":2","b":2,"a":1}',
        '{ "a" : {} , "a" : {} }',
        '{"x":{"a":[1],"a":[1]}}',
        '{"a":12,"b":3,"a":1}',
        '{"a":"x:y","a":"z"}',
        '{"":1,"":2}',
    ],
)
def test_duplicates_are_found_in_every_shape(body: str) -> None:
    """Length, white space, escapes and order of the equal names do not matter."""
    with pytest.raises(DuplicateName):
        rewritten(MASK, body)


@given(st.one_of(documents(), pages()))
@SLOW_OK
def test_a_plan_that_shows_everything_changes_nothing(text: str) -> None:
    """Clear everywhere, or `unlisted: pass`, gives the same bytes, unless a name that is opened occurs twice."""
    for plan in (
        EVERYTHING,
        make_plan({"$..*": Op.CLEAR, "$": Op.CLEAR}),
        make_plan({"$..nothing": Op.MASK}, unlisted=Unlisted.PASS),
    ):
        with contextlib.suppress(DuplicateName):
            result = rewritten(plan, text)
            assert result.body == text.encode()
            assert not result.changed


@given(st.one_of(documents(), pages()), plans(), st.data())
@SLOW_OK
def test_chunk_boundaries_do_not_matter(text: str, plan: Plan, data: Any) -> None:
    """Bytes may come in any pieces, cut within a character or an escape too."""
    body = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = JsonReader(plan, Limits())
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        pieces.feed(body[start:end])
    with contextlib.suppress(DuplicateName):
        whole = reader_of(plan, body)
        scopes = whole.survey()
        assert pieces.survey() == scopes
        variants = [data.draw(st.integers(0, len(plan.variants) - 1)) for _ in scopes]
        assert pieces.finish(variants, transforms_of(plan)) == whole.finish(variants, transforms_of(plan))


SECRET = "SeCrEt-7f3a"
_PLANTED = st.sampled_from(["email", "EMAIL", r"\u0065mail", r"\u0045m\u0061IL", "prénom", "pre\u0301nom", "PRÉNOM"])
_SECRETS = st.sampled_from(
    [
        f'"{SECRET}"',
        f'"x{SECRET}y"',
        '"\\u0053eCrEt-7f3a"',
        f'["{SECRET}",{{"a":"{SECRET}"}}]',
        f'{{"v":"{SECRET}"}}',
    ]
)


@given(
    st.lists(st.tuples(_PLANTED, _SECRETS), min_size=1, max_size=3, unique_by=lambda pair: json.loads(f'"{pair[0]}"')),
    st.sampled_from([Op.MASK, Op.REDACT, Op.NULL, Op.DROP]),
    st.sampled_from(BY_PLACE),
    st.sampled_from(['%s', '[%s,%s]', '{"x":%s}', '{"x":[[{"id":1,"y":%s}]]}', ' { "x" : %s } ']),
)  # fmt: skip
def test_a_planted_value_never_leaves(members: list[tuple[str, str]], op: Op, unlisted: Unlisted, frame: str) -> None:
    """However its name is written and wherever it stands, a value that is not shown in clear is not in the output."""
    inner = "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}"
    body = frame.replace("%s", inner)
    plan = make_plan({"$..email": op, "$..prénom": op}, unlisted=unlisted)
    out = rewritten(plan, body).body
    assert SECRET.encode() not in out
    assert SECRET not in json.dumps(json.loads(out))


@given(st.binary(max_size=8), st.integers(0, 200), st.integers(0, 4), st.booleans())
@settings(max_examples=examples(800))
def test_a_damaged_document_is_refused_or_still_protected(patch: bytes, at: int, cut: int, insert: bool) -> None:
    """Whatever bytes are put into a document: a refusal, or JSON in which the planted value is not."""
    good = b'{"rows":[{"id":1,"email":"SeCrEt-7f3a","n":1.5},{"\\u0065mail":["SeCrEt-7f3a"],"id":"2"}],"email":null}'
    at %= len(good)
    body = good[:at] + patch + good[at + (0 if insert else cut) :]
    plan = make_plan({"$..email": Op.MASK, "$..id": Op.REDACT}, subjects={"$..id": "customer"})
    try:
        told = rewritten(plan, body).body.decode()
        json.loads(told)
    except GharialError as error:
        told = str(error)
    assert "SeCrEt" not in told


@given(st.text(alphabet='{}[]",:\\ \n0123456789.eE+-truefalsn\u00e9\x01ud8', max_size=40))
@settings(max_examples=examples(2000))
def test_the_grammar_is_that_of_the_standard_library(text: str) -> None:
    """What is accepted, opened or not, is what `json` accepts too; without its own liberties."""

    def reject(_: str) -> object:
        raise ValueError

    for plan in (EVERYTHING, MASK):
        try:
            rewritten(plan, text)
        except (BodyMalformed, DuplicateName):
            continue
        json.loads(text, parse_constant=reject)


@pytest.mark.parametrize(
    "value", ["0", "-1.5e-3", '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00"', "true", "null", "[]", "{}", '" "']
)
def test_valid_values_are_accepted(value: str) -> None:
    """What RFC 8259 allows passes."""
    for frame in ("%s", "[%s]", '{"a":%s}', " \t\r\n[ %s , %s ] "):
        body = frame.replace("%s", value)
        assert rewritten(EVERYTHING, body).body.decode() == body


def reported(plan: Plan, body: str) -> list[list[tuple[int, str, str]]]:
    return [[(cell, str(kind), text) for cell, kind, text in scope.values] for scope in reader_of(plan, body).survey()]


def test_values_are_reported_with_the_person_they_belong_to() -> None:
    """Each record's facts are its own, in the order of the document; what no cell reports is not handed out."""
    plan = make_plan(
        {"$..id": Op.CLEAR, "$..country": Op.MASK, "$..email": Op.MASK},
        subjects={"$..id": "customer"},
        reports=["$..country"],
    )
    rows = '{"country":"DE","id":1,"email":"x"},{"id":2,"Country":null,"home":{"COUNTRY":1.50,"x":[{"country":"fr"}]}}'
    records = [[(1, "s", "DE")], [(1, "0", ""), (1, "n", "1.50"), (1, "s", "fr")]]
    for body in (f"[{rows}]", f'{{"rows":[{rows}]}}'):
        assert reported(plan, body) == records
    assert "DE" not in repr(reader_of(plan, f"[{rows}]").survey())


def test_scalars_in_a_container_that_is_not_opened_are_reported_each() -> None:
    """A list of facts tells each of them, escapes decoded; of a name that occurs twice in there, both values."""
    plan = make_plan({"$.facts": Op.CLEAR, "$.x": Op.MASK}, reports=["$.facts"])
    body = r'{"x":1,"facts":["\u0044E",{"a":"FR","a" : "US","[\"":[true,-1e5,null,{}]}]}'
    told = [(0, "s", "DE"), (0, "s", "FR"), (0, "s", "US"), (0, "b", "true"), (0, "n", "-1e5"), (0, "0", "")]
    assert reported(plan, body) == [told]


def timed(work: Any) -> float:
    started = time.perf_counter()
    with pytest.raises(GharialError):
        work()
    return time.perf_counter() - started


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000]
)
@pytest.mark.parametrize("plan", [MASK, EVERYTHING])
def test_brackets_without_end_are_refused_at_once(body: bytes, plan: Plan) -> None:
    """100,000 brackets take milliseconds and no stack."""
    with pytest.raises(BodyTooDeep):
        rewritten(plan, body)
    assert min(timed(lambda: rewritten(plan, body)) for _ in range(5)) < 5


def test_many_side_by_side_brackets_in_a_string_are_no_depth() -> None:
    """Brackets in strings do not count."""
    body = json.dumps({"email": "[{" * 10_000, "id": "{" * 100})
    assert rewritten(MASK, body).body == b'{"email":"***","id":"' + b"{" * 100 + b'"}'


@pytest.mark.parametrize("make", [lambda n: "[" * n + "]" * n, lambda n: '{"id":' * n + "1" + "}" * n])
@pytest.mark.parametrize("plan", [MASK, EVERYTHING, make_plan({"$.id": Op.MASK}), make_plan({"$.no": Op.CLEAR})])
def test_the_depth_limit_is_exact(make: Any, plan: Plan) -> None:
    """As deep as the limit passes, one deeper does not; opened or not."""
    rewritten(plan, make(64))
    with pytest.raises(BodyTooDeep):
        rewritten(plan, make(65))


def test_the_sensitive_field_below_the_depth_limit_stops_the_whole_body() -> None:
    """There is no 'not inspected'."""
    body = '{"a":' * 4 + '{"email":"a@b.org"}' + "}" * 4
    assert b"***" in rewritten(MASK, body, depth=5).body
    with pytest.raises(BodyTooDeep):
        rewritten(MASK, body, depth=4)


def test_depth_beyond_what_python_can_follow_is_refused() -> None:
    """A limit set too high ends in a refusal, never in a RecursionError."""
    body = "[" * 700 + "]" * 700
    for plan in (MASK, make_plan({"$": Op.MASK}), make_plan({"$[0]": Op.MASK}), EVERYTHING):
        with contextlib.suppress(BodyTooDeep):
            rewritten(plan, body, depth=100_000)
    with pytest.raises(BodyTooDeep):
        rewritten(MASK, "[" * 2000 + "]" * 2000, depth=100_000)


@given(documents(), st.integers(1, 12))
@SLOW_OK
def test_the_values_limit_is_exact(text: str, limit: int) -> None:
    """As many values as the limit pass, one more does not."""

    def count(value: object) -> int:
        below = [v for _, v in value] if isinstance(value, tuple) else value if isinstance(value, list) else []
        return 1 + sum(map(count, below))

    values = count(json.loads(text, object_pairs_hook=tuple, parse_int=str, parse_float=str))
    reader = reader_of(EVERYTHING, text, values=limit)
    if values <= limit:
        reader.survey()
    else:
        with pytest.raises(TooManyValues):
            reader.survey()


@pytest.mark.parametrize(
    "body", ["[0,0,0,0,0]", "[[],[],[],[],[]]", "[[[[[[]]]]]]", "[{},{},0,[0]]", '{"":[0,0,0,{}]}']
)
def test_the_values_limit_is_exact_for_the_densest_bodies(body: str) -> None:
    """Bodies with as many values as their length can hold: six each."""
    rewritten(EVERYTHING, body, values=6)
    with pytest.raises(TooManyValues):
        rewritten(EVERYTHING, body, values=5)


def test_many_values_are_refused_quickly() -> None:
    """A million small fields end at the limit, in bounded time."""
    body = b"[" + b",".join([b'{"a":1}'] * 500_000) + b"]"
    assert timed(lambda: rewritten(MASK, body)) < 30


@thorough_only
def test_an_object_of_many_members_is_read_in_bounded_time() -> None:
    """A hundred thousand members, each protected."""
    body = json.dumps({f"k{at}": {"email": "a@b.org"} if at % 10 == 0 else at for at in range(100_000)})
    started = time.perf_counter()
    result = rewritten(MASK, body)
    assert time.perf_counter() - started < 60
    assert result.counts == {0: 10_000}
    assert b"a@b" not in result.body


def test_one_long_name_is_read_in_bounded_time() -> None:
    """A name of ten megabytes."""
    started = time.perf_counter()
    assert rewritten(MASK, '{"' + "n" * 10_000_000 + '":{"email":"a@b.org"}}').counts == {0: 1}
    assert time.perf_counter() - started < 60


def test_the_size_limit_is_exact_over_several_chunks() -> None:
    """The first byte beyond the limit is refused as it comes, and nothing can be done with the rest."""
    body = b'{"email":"a@b.org"}'
    assert rewritten(MASK, body, body_bytes=len(body)).body == b'{"email":"***"}'
    reader = JsonReader(MASK, Limits(body_bytes=len(body) - 1))
    reader.feed(body[:10])
    with pytest.raises(BodyTooLarge):
        reader.feed(body[10:])
    with pytest.raises(BodyTooLarge):
        reader.survey()
    with pytest.raises(BodyTooLarge):
        reader.finish([], transforms_of(MASK))


def test_a_failed_survey_can_not_be_finished() -> None:
    """Whoever goes on after an error gets it again."""
    reader = reader_of(MASK, '{"email":"a@b.org","email":1}')
    for _ in range(2):
        with pytest.raises(DuplicateName):
            reader.survey()
    with pytest.raises(DuplicateName):
        reader.finish([], transforms_of(MASK))


def test_nothing_can_be_fed_after_the_survey() -> None:
    """What comes late was not surveyed."""
    reader = reader_of(MASK, "{}")
    reader.survey()
    with pytest.raises(RuntimeError):
        reader.feed(b"{}")


@pytest.mark.parametrize("variants", [[], [0, 0], [-1], [1]])
def test_wrong_variants_are_refused(variants: list[int]) -> None:
    """Each scope has one variant of the plan; a negative one does not mean the last."""
    with pytest.raises(ValueError, match="variant"):
        reader_of(MASK, '{"id":1}').finish(variants, transforms_of(MASK))


def test_wrong_transforms_are_refused() -> None:
    """There is one transform for each step."""
    with pytest.raises(ValueError, match="transform"):
        reader_of(MASK, '{"id":1}').finish([0], [stars])


@pytest.mark.parametrize(
    "bad",
    [
        (Kind.NUMBER, "NaN"),
        (Kind.NUMBER, "1 "),
        (Kind.NUMBER, "\u0663"),
        (Kind.BOOLEAN, "True"),
        (Kind.STRING, "\ud800"),
    ],
)
@pytest.mark.parametrize("body", ['{"email":"a@b.org"}', '[{"email":"a@b.org"}]', '{"email":["a@b.org"]}'])
def test_a_transform_can_not_break_the_document(bad: tuple[Kind, str], body: str) -> None:
    """A replacement that is no JSON is a bug that stops the body, and is not quoted."""
    reader = reader_of(MASK, body)
    variants = [0] * len(reader.survey())
    with pytest.raises(ValueError, match=r"replacement|surrogate") as caught:
        reader.finish(variants, [lambda *_: bad, stars])
    assert "a@b" not in str(caught.value)


@pytest.mark.parametrize("body", ['{"email":"a@b.org"}', '[{"email":"a@b.org"}]'])
def test_the_error_of_a_transform_stops_the_body(body: str) -> None:
    """A missing key refuses the whole body."""

    def no_key(kind: Kind, text: str) -> tuple[Kind, str]:
        raise KeyUnknown

    reader = reader_of(MASK, body)
    reader.survey()
    with pytest.raises(KeyUnknown):
        reader.finish([0], [no_key, stars])


def test_values_are_not_in_any_repr() -> None:
    """Neither scope nor result shows a value when printed."""
    reader = reader_of(MASK, '{"id":"C-4711","email":"a@b.org","x":"C-4711"}')
    scopes = reader.survey()
    assert "4711" not in repr(scopes)
    assert "4711" not in repr(reader.finish([0], transforms_of(MASK)))
    assert "4711" not in repr(reader)


def test_places_are_told_only_where_they_are_asked_for() -> None:
    """Paths quote names of the body, so the usual result holds none."""
    reader = reader_of(MASK, '{"rows":[{"id":1},{"id":2,"email":"x"}],"it\'s a":{"email":["y"]}}')
    scopes = reader.survey()
    assert reader.finish([0] * len(scopes), transforms_of(MASK)).findings == ()
    assert reader.finish([0] * len(scopes), transforms_of(MASK), want_places=True).findings == (
        Finding("$.rows[0].id", 1, 1),
        Finding("$.rows[1].id", 1, 2),
        Finding("$.rows[1].email", 0, 2),
        Finding("$['it\\'s a'].email[0]", 0, 3),
    )


def test_scopes_are_told_in_the_order_of_the_body() -> None:
    """An object's scope comes before those within it, even where its subject is written last."""
    reader = reader_of(MASK, '{"rows":[{"id":1},{"email":"x"}],"id":9}')
    assert [scope.subjects for scope in reader.survey()] == [(("customer", "9"),), (("customer", "1"),)]


def test_a_bad_decode_is_refused_without_its_text() -> None:
    """The text of the library's error, which may name keys of the body, is replaced."""
    with pytest.raises(BodyMalformed) as caught:
        rewritten(MASK, '{"4929-1234":tru}')
    assert str(caught.value) == "not one JSON document in UTF-8"
