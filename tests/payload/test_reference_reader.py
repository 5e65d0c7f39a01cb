"""The reference executor: what only it finds, and what it refuses rather than let pass."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.documents import documents, plans
from support.effort import examples, thorough_only
from support.plans import make_plan, transforms_of
from support.reference import extra_plan
from support.rich_documents import FEATURES, rich_documents, rich_plans

from gharial.model.errors import BodyMalformed, BodyTooDeep, BodyTooLarge, DuplicateName, GharialError, TooManyValues
from gharial.model.finding import Kind, Limits, Rewritten
from gharial.model.plan import Extra, Op, Plan, Unlisted
from gharial.payload.json_reader import JsonReader
from gharial.payload.reference_reader import ReferenceReader

SLOW_OK = settings(suppress_health_check=[HealthCheck.too_slow])


def reader_of(plan: Plan, body: bytes | str, **limits: int) -> ReferenceReader:
    reader = ReferenceReader(plan, Limits(**limits))
    reader.feed(body.encode() if isinstance(body, str) else body)
    return reader


def rewritten(plan: Plan, body: bytes | str, **limits: int) -> Rewritten:
    reader = reader_of(plan, body, **limits)
    return reader.finish([0] * len(reader.survey()), transforms_of(plan), want_places=True)


def at(path: str, **more: Any) -> Extra:
    return Extra(0, path=path, **more)


def general(path: str) -> Extra:
    return Extra(0, path=path, general=True)


def looks_like(detector: str) -> Extra:
    return Extra(0, detector=detector)


# --- where ------------------------------------------------------------------------------------------------------

PAIRS = extra_plan([(at("$..value", where=(("name", ("msisdn", "straße")),)), Op.MASK)])


@pytest.mark.parametrize(
    "beside",
    [
        '"name":"msisdn"',
        '"NAME":"MSISDN"',
        r'"n\u0061me":"msis\u0064n"',
        '"name":"STRASSE"',
        '"Name":1,"name":"msisdn"',
    ],
)
def test_a_value_beside_a_name_is_found_however_the_name_is_written(beside: str) -> None:
    """Lists of name and value: escapes and case of member and text do not matter."""
    body = rewritten(PAIRS, f'{{"list":[{{"value":"+1",{beside}}},{{"name":"colour","value":"red"}}]}}').body
    assert b'"value":"***"' in body
    assert b'"value":"red"' in body


@pytest.mark.parametrize("beside", ['"name":null', '"name":["msisdn"]', '"label":"msisdn"', '"name":"msisdn2"'])
def test_a_value_beside_another_name_is_not_found(beside: str) -> None:
    """Null and containers have no text, other names and texts do not count."""
    body = f'[{{"value":"+1",{beside}}}]'
    assert rewritten(PAIRS, body).body.decode() == body


def test_all_members_of_where_must_stand_beside() -> None:
    """Conditions hold together; the text of a number is its literal, of a boolean its word."""
    plan = extra_plan([(at("$..value", where=(("kind", ("7",)), ("secret", ("true",)))), Op.MASK)])
    body = (
        '[{"kind":7,"secret":true,"value":1},{"kind":7,"secret":false,"value":2},{"kind":7.0,"secret":true,"value":3}]'
    )
    assert [row["value"] for row in json.loads(rewritten(plan, body).body)] == ["***", 2, 3]


def test_what_is_no_member_stands_beside_nothing() -> None:
    """The root and the elements of an array have no sibling members."""
    plan = extra_plan([(at("$..*", where=(("name", ("x",)),)), Op.MASK), (at("$", where=(("name", ("x",)),)), Op.MASK)])
    assert rewritten(plan, '["x",["x"]]').body == b'["x",["x"]]'


# --- several cells ----------------------------------------------------------------------------------------------


@given(st.permutations([Op.CLEAR, Op.MASK, Op.TOKEN, Op.REDACT, Op.NULL, Op.DROP]))
def test_of_several_cells_the_step_of_the_highest_rank_holds(ops: list[Op]) -> None:
    """Trie, extra on the value, extra around it: whichever has the strictest step decides, and all are reported."""
    plan = extra_plan([(general("$.a[?@]"), ops[1]), (general("$['a','b']"), ops[2])], {"$..x": ops[0]})
    reader = reader_of(plan, '{"a":{"x":"v"}}')
    assert reader.survey()[0].cells == {0, 1, 2}
    result = reader.finish([0], transforms_of(plan))
    strictest = max(ops[:3], key=list(Op).index)
    shown = {Op.CLEAR: "v", Op.MASK: "***", Op.TOKEN: "V", Op.REDACT: "[redacted]", Op.NULL: None}
    left = json.loads(result.body)
    if max(ops[1:3], key=list(Op).index) is Op.DROP:
        assert left in ({}, {"a": {}})
    else:
        assert left == {"a": {} if strictest is Op.DROP else {"x": shown[strictest]}}


def test_steps_are_chosen_for_each_variant() -> None:
    """Which of two cells is stricter may differ from person to person."""
    plan = extra_plan(
        [(general("$[*][?@.k].x"), [Op.MASK, Op.CLEAR])],
        {"$..x": [Op.CLEAR, Op.REDACT], "$..id": Op.CLEAR},
        subjects={"$..id": "c"},
        variants=2,
    )
    reader = reader_of(plan, '[{"id":1,"r":{"k":0,"x":"v"}},{"id":2,"r":{"k":0,"x":"v"}}]')
    out = json.loads(reader.finish([0] * len(reader.survey()), transforms_of(plan)).body)
    assert [row["r"]["x"] for row in out] == ["***", "***"]
    out = json.loads(reader.finish([1] * len(reader.survey()), transforms_of(plan)).body)
    assert [row["r"]["x"] for row in out] == ["[redacted]", "[redacted]"]


def test_without_ranks_the_stricter_operation_holds() -> None:
    """A plan whose steps were not ranked does not show what one of its cells hides."""
    plan = extra_plan([(general("$['x','y']"), Op.MASK)], {"$.x": Op.CLEAR})
    steps = tuple(msgspec.structs.replace(step, rank=0) for step in plan.steps)
    assert rewritten(msgspec.structs.replace(plan, steps=steps), '{"x":"v"}').body == b'{"x":"***"}'


# --- names ------------------------------------------------------------------------------------------------------

KEYS = extra_plan([(at("$.by", keys=True), Op.MASK)])


def test_names_are_replaced_and_stay_apart() -> None:
    """Equal results are numbered in document order, and never meet a name that stands there already."""
    body = '{"by":{"***#2":1,"+49":{"n":2},"+1":[3]},"other":{"+1":4}}'
    result = rewritten(KEYS, body)
    assert result.body == b'{"by":{"***":1,"***#2":{"n":2},"***#3":[3]},"other":{"+1":4}}'
    assert [finding.place for finding in result.findings] == ["$.by['***#2']~", "$.by['+49']~", "$.by['+1']~"]


@given(st.lists(st.sampled_from(["a", "a#2", "a#3", "A", "A#2", "a#2#2", "b"]), unique=True))
def test_no_two_names_become_equal(names: list[str]) -> None:
    """Whatever the technique makes of them, the object has as many members as before."""
    plan = extra_plan([(at("$", keys=True), Op.TOKEN)])
    out = json.loads(rewritten(plan, json.dumps(dict.fromkeys(names, 1))).body, object_pairs_hook=list)
    assert len({name for name, _ in out}) == len(names)


def test_dropped_names_take_their_members_along() -> None:
    """What belongs to a name that may not be seen goes with it."""
    plan = extra_plan([(at("$.by", keys=True), Op.DROP)], {"$..x": Op.CLEAR})
    result = rewritten(plan, '{"by":{"+49":{"x":"v"},"+1":2}}')
    assert (result.body, dict(result.counts)) == (b'{"by":{}}', {1: 2})


def test_names_that_name_people_are_subjects_of_their_object() -> None:
    """An object keyed by person is the record of all of them; the names are reported like values."""
    plan = extra_plan([(at("$.by", keys=True), Op.CLEAR)], subjects={"$.by": "c"}, reports=["$.by"])
    (scope,) = reader_of(plan, '{"by":{"C-1":{"x":1},"C-2":{}}}').survey()
    assert scope.subjects == (("c", "C-1"), ("c", "C-2"))
    assert scope.values == ((0, Kind.STRING, "C-1"), (0, Kind.STRING, "C-2"))
    assert rewritten(plan, r'{ "by":{"\u0043-1" : 1}}').body == rb'{ "by":{"\u0043-1" : 1}}'


def test_names_under_null_and_redaction_stay_names() -> None:
    """A name is always a string."""
    for op, name in ((Op.NULL, "null"), (Op.REDACT, "[redacted]")):
        plan = extra_plan([(at("$", keys=True), op)])
        assert json.loads(rewritten(plan, '{"a":1,"b":2}').body) == {name: 1, name + "#2": 2}


# --- JSON in strings --------------------------------------------------------------------------------------------

STRINGS = extra_plan([], {"$..email": Op.MASK, "$..id": Op.CLEAR}, subjects={"$..id": "c"}, strings=2)


def test_a_string_of_json_is_protected_as_if_it_stood_there() -> None:
    """Inner values are changed, inner numbers stay digit for digit, what is unchanged stays escape for escape."""
    inner = '{ "email" : "a@b.org", "n" : 1.10 }'
    body = json.dumps({"log": inner, "same": ' [1, "\\/"] ', "x": "[no json"}).replace("no", r"\u006eo")
    out = rewritten(STRINGS, body).body.decode()
    assert json.loads(out)["log"] == '{"email":"***","n":1.10}'
    assert out.endswith(r'"same":" [1, \"\\/\"] ","x":"[\u006eo json"}')


def test_strings_in_strings_are_opened_to_the_set_depth() -> None:
    """As deep as set it is protected, one deeper it is refused."""
    body = '{"email":"a@b.org"}'
    for _ in range(2):
        body = json.dumps([body])
        assert "a@b" not in rewritten(STRINGS, body).body.decode()
    with pytest.raises(BodyTooDeep):
        rewritten(STRINGS, json.dumps([body]))


def test_a_person_in_a_string_is_a_person() -> None:
    """Scopes do not end at a string."""
    reader = reader_of(STRINGS, json.dumps([json.dumps({"id": at}) for at in (1, 2)]))
    assert [scope.subjects for scope in reader.survey()] == [(("c", "1"),), (("c", "2"),)]


@pytest.mark.parametrize(
    ("inner", "error"),
    [
        ('{"a":1,"\\u0061":2}', DuplicateName),
        ('{"a":NaN}', BodyMalformed),
        ('{"a":"\\ud800"}', BodyMalformed),
        ("[" * 70 + "]" * 70, BodyTooDeep),
        ("[" * 5000 + "]" * 5000, BodyTooDeep),
        ("[" + "0," * 2000 + "0]", TooManyValues),
    ],
)
def test_what_is_refused_outside_is_refused_in_a_string(inner: str, error: type[GharialError]) -> None:
    """No limit and no doubt ends at a quote."""
    with pytest.raises(error):
        rewritten(STRINGS, json.dumps({"x": inner}), values=1000)


@pytest.mark.parametrize("inner", ["{", "[1,]", "{'a':1}", "[", '{"a":1} x', '{"a":01}', "{}{}", '"{"', "\ufeff{", ""])
def test_what_only_looks_like_json_is_a_text(inner: str) -> None:
    """It is copied as it was written, or replaced as a whole."""
    body = json.dumps({"x": inner})
    assert rewritten(STRINGS, body).body.decode() == body
    assert json.loads(rewritten(STRINGS, json.dumps({"email": inner})).body) == {"email": "***"}


def test_a_string_that_is_the_whole_body_stays_one() -> None:
    """The root can't go; what stood in a string still does."""
    plan = extra_plan([], {"$": Op.DROP}, strings=1)
    assert rewritten(plan, '"[1]"').body == b'"[]"'
    assert rewritten(plan, '"{}"').body == b'"{}"'


# --- detectors --------------------------------------------------------------------------------------------------


def test_what_a_detector_recognises_gets_its_tag_where_no_path_finds_it() -> None:
    """A listed place keeps its own step; a number can be a card."""
    plan = extra_plan([(looks_like("email"), Op.MASK), (looks_like("card"), Op.NULL)], {"$.shown": Op.CLEAR})
    body = '{"shown":"a@b.org","x":"write to a@b.org","n":4111111111111111,"m":41111,"y":"hello"}'
    assert rewritten(plan, body).body == b'{"shown":"a@b.org","x":"***","n":null,"m":41111,"y":"hello"}'


def test_detect_redacts_hits_and_passes_the_rest() -> None:
    """Nothing that a detector knows leaves, in no place."""
    plan = extra_plan([], {"$.shown": Op.CLEAR}, unlisted=Unlisted.DETECT)
    result = rewritten(plan, '{"shown":"a@b.org","x":[{"y":"call +49 171 1234567"},"a@b.org",7,null,{}]}')
    assert result.body == b'{"shown":"a@b.org","x":[{"y":"[redacted]"},"[redacted]",7,null,{}]}'
    assert (dict(result.counts), result.unlisted) == ({0: 1}, 4)


def test_a_text_that_holds_more_than_its_tag_may_show_is_redacted() -> None:
    """An address may be shown, the card number beside it may not."""
    plan = extra_plan([(looks_like("email"), Op.CLEAR)], unlisted=Unlisted.DETECT)
    body = '["a@b.org","a@b.org 4111 1111 1111 1111"]'
    assert json.loads(rewritten(plan, body).body) == ["a@b.org", "[redacted]"]


# --- as the fast reader -----------------------------------------------------------------------------------------


@given(documents(), plans(), st.data())
@SLOW_OK
def test_extras_that_find_nothing_hide_nothing_and_show_nothing(text: str, plan: Plan, data: Any) -> None:
    """Opening everything changes no value: the same values leave as through the fast reader."""
    variants = data.draw(st.integers(0, len(plan.variants) - 1))
    open_all = msgspec.structs.replace(plan, json_in_strings=1, needs_reference="to open everything")
    with contextlib.suppress(DuplicateName, BodyTooDeep):
        whole = reader_of(open_all, text)
        opened = whole.finish([variants] * len(whole.survey()), transforms_of(plan)).body
        fast = JsonReader(plan, Limits())
        fast.feed(text.encode())
        closed = fast.finish([variants] * len(fast.survey()), transforms_of(plan)).body
        assert _scalars(json.loads(opened)) == _scalars(json.loads(closed))


def _scalars(value: Any) -> list[Any]:
    if isinstance(value, str) and value[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, dict):
        return [scalar for name, below in value.items() for scalar in ((name, one) for one in _scalars(below))]
    if isinstance(value, list):
        return [scalar for below in value for scalar in _scalars(below)]
    return [value]


@given(st.lists(st.sampled_from(FEATURES), max_size=4, unique=True).flatmap(rich_plans), rich_documents(), st.data())
@settings(max_examples=examples(400), suppress_health_check=list(HealthCheck))
def test_any_plan_over_any_document_ends_in_json_or_a_refusal(plan: Plan, text: str, data: Any) -> None:
    """Every feature beside every other: JSON comes out, all that was done is told, and a second run does the same."""
    reader = reader_of(plan, text)
    try:
        scopes = reader.survey()
    except (DuplicateName, BodyTooDeep, BodyMalformed):
        return
    variants = [data.draw(st.integers(0, len(plan.variants) - 1)) for _ in scopes]
    with contextlib.suppress(DuplicateName):
        told = reader.finish(variants, transforms_of(plan), want_places=True)
        json.loads(told.body)
        assert told.changed or told.body == text.encode()
        assert len(told.findings) == sum(told.counts.values())
        assert all(0 <= finding.scope < len(scopes) for finding in told.findings)
        assert all(plan.cells[cell].report for scope in scopes for cell, _, _ in scope.values)
        quick = reader.finish(variants, transforms_of(plan))
        assert (quick.body, quick.counts, quick.unlisted) == (told.body, told.counts, told.unlisted)
        again = reader_of(plan, text)
        assert again.survey() == scopes


def test_the_fast_reader_refuses_what_it_can_not_do() -> None:
    """A plan with extras that runs without them would show what they hide."""
    for plan in (PAIRS, KEYS, STRINGS, extra_plan([], {"$.x": Op.CLEAR}, unlisted=Unlisted.DETECT)):
        for told in (plan, msgspec.structs.replace(plan, needs_reference="")):
            with pytest.raises(ValueError, match="reference"):
                JsonReader(told, Limits())
    with pytest.raises(ValueError, match="reference"):
        JsonReader(msgspec.structs.replace(make_plan({"$": Op.CLEAR}), needs_reference="why"), Limits())


@pytest.mark.parametrize(
    "extra",
    [
        general("$[?"),
        general("$.a | $.b"),
        general("$[?match(@.a, @.b)]"),
        general("$[?match(@.a, '(')]"),
        general("$[?@.a == 1e400]"),
        general("$[?" + "(" * 3000 + "@.a" + ")" * 3000 + "]"),
        at("$[?@.a]"),
        at("path:id"),
        looks_like("shoe_size"),
        Extra(0),
        Extra(0, path="$.a", detector="email"),
        Extra(0, keys=True, detector="email"),
    ],
)
def test_an_extra_that_can_not_be_read_stops_the_plan(extra: Extra) -> None:
    """There is no plan without it."""
    with pytest.raises(ValueError, match="a") as caught:
        ReferenceReader(extra_plan([(extra, Op.MASK)]), Limits())
    assert not isinstance(caught.value, GharialError)
    plan = extra_plan([(general("$[?@]"), Op.MASK)])
    with pytest.raises(ValueError, match="no cell"):
        ReferenceReader(msgspec.structs.replace(plan, extras=(Extra(7, path="$.a"),)), Limits())


# --- hostile ----------------------------------------------------------------------------------------------------

SECRET = "SeCrEt-7f3a"
HIDING = extra_plan(
    [
        (at("$..value", where=(("name", ("email",)),)), Op.MASK),
        (general("$..[?@.type == 'email' && search(@.v, '.')].v"), Op.MASK),
        (at("$..by", keys=True), Op.MASK),
        (looks_like("email"), Op.REDACT),
    ],
    {"$..email": Op.MASK, "$..id": Op.REDACT},
    subjects={"$..id": "customer"},
    strings=2,
)
GOOD = (
    b'{"rows":[{"id":1,"email":"SeCrEt-7f3a"},{"name":"\\u0065mail","value":["SeCrEt-7f3a"]},'
    b'{"type":"email","v":"SeCrEt-7f3a"}],"by":{"SeCrEt-7f3a":1},"m":"SeCrEt-7f3a@b.org",'
    b'"s":"{\\"email\\":\\"SeCrEt-7f3a\\"}"}'
)


def test_nothing_planted_leaves() -> None:
    """Each of the ways in which a value can be found hides it."""
    assert SECRET.encode() not in rewritten(HIDING, GOOD).body


@given(st.binary(max_size=8), st.integers(0, 400), st.integers(0, 4), st.booleans())
@settings(max_examples=examples(800))
def test_a_damaged_document_is_refused_or_still_json(patch: bytes, where: int, cut: int, insert: bool) -> None:
    """Whatever bytes are put into a document: an expected error, or JSON. Values of places that still stand are hid."""
    where %= len(GOOD)
    body = GOOD[:where] + patch + GOOD[where + (0 if insert else cut) :]
    told = ""
    with contextlib.suppress(GharialError):
        told = rewritten(HIDING, body).body.decode()
        json.loads(told)
    # One edit can undo one of the six ways in which a value is found here, never two.
    assert told.count("SeCrEt") <= 1


@pytest.mark.parametrize("before", ["\ufeff", "\0", " \ufeff\0 "])
@pytest.mark.parametrize("inner", ['{"email":"a@ex.org"}', '[{"email":"a@ex.org"}]'])
def test_json_that_hides_in_a_string_is_refused(inner: str, before: str) -> None:
    """Encoded twice or more, or with a byte order mark or NUL around it: what decodes it once more would see all."""
    twice = json.dumps(inner)
    for text in (before + inner, inner + "\0", twice, before + twice, json.dumps(twice), json.dumps(before + inner)):
        with pytest.raises(BodyMalformed):
            reader_of(STRINGS, json.dumps({"id": text})).survey()
    for text in ('"a"', '"', '"{"', "\ufeff", "\0a", before + "[x]", json.dumps("[x]"), '""'):
        assert reader_of(STRINGS, json.dumps({"id": text})).survey()


@pytest.mark.parametrize("body", [GOOD + b"x", GOOD[:-1], GOOD.replace(b"1,", b"NaN,"), GOOD.replace(b'"by"', b'"m"')])
def test_an_error_tells_nothing_of_the_body(body: bytes) -> None:
    """Neither its text nor what it was raised from."""
    with pytest.raises(GharialError) as caught:
        rewritten(HIDING, body)
    assert "SeCrEt" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text(alphabet='{}[]",:\\ \n019.eE+-truefalsn\u00e9\x01ud8', max_size=40))
@settings(max_examples=examples(1000))
def test_the_grammar_is_that_of_the_standard_library(text: str) -> None:
    """What is accepted is what `json` accepts too; without its own liberties."""

    def reject(_: str) -> object:
        raise ValueError

    for plan in (STRINGS, HIDING):
        try:
            rewritten(plan, text)
        except (BodyMalformed, DuplicateName, BodyTooDeep):
            continue
        json.loads(text, parse_constant=reject)


def timed(work: Any) -> float:
    started = time.perf_counter()
    with contextlib.suppress(GharialError):
        work()
    return time.perf_counter() - started


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        json.dumps("[" * 100_000 + "]" * 100_000).encode(),
        json.dumps({"a": '{"a":' * 100_000}).encode(),
    ],
)
def test_brackets_without_end_are_refused_at_once(body: bytes) -> None:
    """100,000 brackets take milliseconds and no stack, in strings too."""
    with pytest.raises(BodyTooDeep):
        rewritten(HIDING, body)
    assert min(timed(lambda: rewritten(HIDING, body)) for _ in range(3)) < 5


def test_strings_in_strings_without_end_are_refused() -> None:
    """Each level doubles the escapes; the third is not opened any more."""
    body = "[]"
    for _ in range(15):
        body = json.dumps([body])
    with pytest.raises(BodyTooDeep):
        rewritten(HIDING, body)


def test_depth_beyond_what_python_can_follow_is_refused() -> None:
    """A limit set too high ends in a refusal, never in a RecursionError."""
    for depth in (200, 700, 2000):
        with contextlib.suppress(BodyTooDeep):
            rewritten(HIDING, "[" * depth + "]" * depth, depth=100_000)
        with contextlib.suppress(BodyTooDeep):
            rewritten(make_plan({"$": Op.MASK}), "[" * depth + "]" * depth, depth=100_000)
    rewritten(HIDING, "[" * 200 + "]" * 200, depth=200)


@pytest.mark.parametrize(
    "body",
    [
        '{"' + "n" * 5_000_000 + '":{"email":"a@b.org"}}',
        json.dumps({"x" * 100_000: [{"type": "email", "v": "x"}] * 2000}),
        json.dumps({"by": {str(at): 1 for at in range(50_000)}}),
        json.dumps({"v": "a" * 2_000_000, "type": "email", "m": "@" * 1_000_000, "n": "1" * 1_000_000}),
        json.dumps([{"type": "email", "v": "a" * 100}] * 20_000),
    ],
)
@thorough_only
def test_large_bodies_take_bounded_time(body: str) -> None:
    """Huge names, many names, texts made for slow patterns."""
    assert timed(lambda: rewritten(HIDING, body)) < 60


@pytest.mark.parametrize(
    "path",
    [
        "$..[?$..[?$..[?@.a]]]",
        "$..[?count($..*) > count(@..*)]",
        "$..*..*..*..*..*..*",
        "$..[?@..[?@..[?@..x]]]",
        "$[?@ == $]..[?@ == $]",
        "$[?search(@, '(a|aa)+(a|aa)+(a|aa)+b')]",
        "$[?match(@, '((a*)*)*b')]",
        "$[?match(@, 'a{0,100}a{0,100}a{0,100}b')]",
    ],
)
def test_selectors_made_to_take_long_end(path: str) -> None:
    """Steps are counted, and patterns never go back."""
    plan = extra_plan([(general(path), Op.MASK)])
    nested: Any = "a" * 2000
    for _ in range(60):
        nested = [nested, "a" * 100, {"a": 1}]
    body = json.dumps([*nested, *["a" * 500] * 500, [[]] * 5000])
    assert timed(lambda: rewritten(plan, body, values=20_000)) < 60


def test_a_path_that_takes_too_many_steps_refuses_the_body() -> None:
    """There is no 'not looked at'; what a path of usual work takes is far from the limit."""
    rows = json.dumps([{"type": "email", "v": at} for at in range(2000)])
    usual = extra_plan([(general("$..[?@.type == 'email'].v"), Op.MASK)])
    assert rewritten(usual, rows, values=6001).counts == {0: 2000}
    nested: Any = 1
    for _ in range(60):
        nested = [nested, 1]
    cubic = extra_plan([(general("$..[?count(@..[?count(@..*) > 0]) > 1]"), Op.MASK)])
    with pytest.raises(TooManyValues):
        rewritten(cubic, json.dumps(nested), values=200)


def test_limits_are_exact_and_chunks_do_not_matter() -> None:
    """The same limits as the fast reader's, over any pieces."""
    body = b'{"email":["a@b.org"]}'
    assert rewritten(STRINGS, body, body_bytes=len(body), depth=2, values=3).changed
    for error, limit in ((BodyTooLarge, {"body_bytes": len(body) - 1}), (BodyTooDeep, {"depth": 1})):
        with pytest.raises(error):
            rewritten(STRINGS, body, **limit)
    with pytest.raises(TooManyValues):
        rewritten(STRINGS, body, values=2)
    pieces = ReferenceReader(STRINGS, Limits())
    for one in body:
        pieces.feed(bytes([one]))
    assert pieces.finish([0, 0], transforms_of(STRINGS)).body == b'{"email":["***"]}'
    with pytest.raises(RuntimeError):
        pieces.feed(b"x")


def test_a_byte_order_mark_goes() -> None:
    """And counts as a change."""
    result = rewritten(STRINGS, b"\xef\xbb\xbf[1]")
    assert (result.body, result.changed) == (b"[1]", True)


def test_nothing_of_a_body_is_in_a_repr() -> None:
    """What is kept while a body is read prints none of it."""
    reader = reader_of(HIDING, GOOD)
    assert "SeCrEt" not in repr(reader.survey()) + repr(reader) + repr(vars(reader)["_found"])
