"""General JSONPath over located values: what python-jsonpath finds, and RFC 9535 where they differ."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonpath import JSONPathEnvironment
from jsonpath.exceptions import JSONPathError
from support.effort import examples

from gharial.model.errors import TooManyValues
from gharial.payload.json_query import Query
from gharial.payload.json_tree import OBJECT, Value, parse_tree


class Library(JSONPathEnvironment):
    """python-jsonpath, less two faults: it slices strings, and takes true for 1 within containers."""

    def getitem(self, obj: Any, key: Any) -> Any:
        return [] if isinstance(obj, str) else super().getitem(obj, key)

    def _eq(self, left: Any, right: Any) -> bool:
        plain = (dict, list)
        if type(left) in plain and type(right) in plain:
            return repr(_tagged(left)) == repr(_tagged(right))
        return super()._eq(left, right)


def _tagged(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tagged(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_tagged(one) for one in value]
    return float(value) if type(value) is int else value


LIBRARY = Library(strict=True)


def where(value: Value) -> tuple[str | int, ...]:
    holder = value.parent
    if holder is None:
        return ()
    at = next(index for index, child in enumerate(holder.children) if child is value)
    return (*where(holder), holder.names[at] if holder.form == OBJECT else at)


def found(path: str, document: Any, steps: int = 1_000_000) -> set[tuple[str | int, ...]]:
    root = parse_tree(json.dumps(document, ensure_ascii=False).encode())
    nodes = Query(path).find(root, steps)
    assert len(set(nodes)) == len(nodes)
    return {where(node) for node in nodes}


_NAMES = ["a", "b", "é", "a b"]
_SCALARS = st.one_of(st.integers(-2, 3), st.sampled_from(["x", "xy", "", "7", True, False, None, 1.5, 1e3, 10**20]))
_DOCUMENTS = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4)
    ),
    max_leaves=14,
)  # fmt: skip
_SINGULAR = st.sampled_from(["@.a", "@['b']", "@[0]", "@[-1].a", "$.a", "@['a b'].b"])
_QUERIES = st.one_of(_SINGULAR, st.sampled_from(["@.*", "@..a", "$..b", "@[0:2]", "@..*", "@['a','b']", "@[?@.a]"]))
_VALUES = st.one_of(
    _SINGULAR,
    st.sampled_from(["1", "'x'", "null", "true", "1.5", "1000", "-2", "''"]),
    st.builds("length({})".format, _SINGULAR),
    st.builds("count({})".format, _QUERIES),
    st.builds("value({})".format, _QUERIES),
)
_COMPARED = st.builds(
    "{} {} {}".format, _VALUES, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), _VALUES
)  # fmt: skip
_TESTS = st.one_of(
    _QUERIES,
    _COMPARED,
    st.builds(
        "{}({}, '{}')".format, st.sampled_from(["match", "search"]), _SINGULAR, st.sampled_from(["x.", "x", "[0-9]+"])
    ),
)
_LOGIC = st.recursive(
    _TESTS,
    lambda inner: st.one_of(
        st.builds("!({})".format, inner),
        st.builds("({} && {})".format, inner, inner),
        st.builds("{} || {}".format, inner, inner),
    ),
    max_leaves=3,
)
_SELECTORS = st.one_of(
    st.sampled_from(["'a'", "'b'", "'é'", "*", "0", "-1", "2", "1:", ":-1", "::2", "::-1", "3:0:-2", "0:0", "::0"]),
    st.builds("?{}".format, _LOGIC),
)
_SEGMENTS = st.builds(
    "{}[{}]".format, st.sampled_from(["", "", ".."]), st.lists(_SELECTORS, min_size=1, max_size=3).map(",".join)
)
_PATHS = st.lists(_SEGMENTS, max_size=3).map(lambda segments: "$" + "".join(segments))


@given(_PATHS, _DOCUMENTS)
@settings(max_examples=examples(2000))
def test_it_finds_what_the_library_finds(path: str, document: Any) -> None:
    """Two walks over the same syntax agree."""
    try:
        library = LIBRARY.compile(path)
    except JSONPathError:
        with pytest.raises(ValueError, match="a path"):
            Query(path)
        return
    if not isinstance(document, (dict, list)):
        assert found(path, document) == ({()} if path == "$" else set())
        return
    assert found(path, document) == {match.parts for match in library.finditer(document)}


@pytest.mark.parametrize(
    ("path", "document", "want"),
    [
        ("$[?@]", [0, False, "", None, [], {}], {(0,), (1,), (2,), (3,), (4,), (5,)}),
        ("$[?!@]", [0, False, ""], set()),
        ("$[?@.a == @.b]", [{"a": [1], "b": [True]}, {"a": {"x": 1}, "b": {"x": 1.0}}], {(1,)}),
        ("$[?@ == $[0]]", [12345678901234567891, 12345678901234567890], {(0,)}),
        ("$[0][::2]", ["abc"], set()),
        ("$[?@.a == $.none]", [{"a": 1}, {}], {(1,)}),
        ("$[?@ < 'b']", ["a", "b", 1, None, "A"], {(0,), (4,)}),
        ("$[?match(@, 'a.c')]", ["abc", "a\nc", "xabc", 7, ["abc"]], {(0,)}),
        ("$[?search(@, 'b')]", ["abc", "ac", True], {(0,)}),
        ("$['a','a',0]", {"a": 1}, {("a",)}),
        ("$..a..b", {"a": {"a": {"b": 1}}}, {("a", "a", "b")}),
        ("$", "x", {()}),
        ("$..*", "x", set()),
    ],
)
def test_it_follows_the_rfc(path: str, document: Any, want: set[tuple[str | int, ...]]) -> None:
    """Existence is not truth, types are not mixed, large whole numbers are exact."""
    assert found(path, document) == want


def test_numbers_of_any_size_are_compared() -> None:
    """Thousands of digits, and what no double holds, neither fail nor take long."""
    huge = "9" * 5000
    root = parse_tree(f"[{huge},1E999,-1E999,0.1,{huge}.5]".encode())
    assert len(Query("$[?@ > 1]").find(root, 1000)) == 3
    assert len(Query("$[?@ < 1]").find(root, 1000)) == 2


@pytest.mark.parametrize("number", ["9007199254740993", "-9007199254740993", "1e400", "12345678901234567891"])
def test_a_number_that_a_double_does_not_hold_is_no_literal(number: str) -> None:
    """It would be compared as another number, and what it names would not be found."""
    with pytest.raises(ValueError, match="a "):
        Query(f"$[?@.id == {number}]")


def test_steps_are_bounded() -> None:
    """A path of much work ends with an error, not with a part of what it should find."""
    document = [[1] * 30] * 30
    assert len(found("$..[?count($..*) > 1]", document)) == 930
    with pytest.raises(TooManyValues):
        found("$..[?count(@..*) >= 0]", document, steps=500)
