"""JSONPath beyond the trie: what may be written, and patterns that can't blow up."""

from __future__ import annotations

import contextlib
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples

from gharial.model.errors import PolicyInvalid
from gharial.model.place import GeneralPath, PlaceError
from gharial.policy.document import parse_policy
from gharial.policy.selectors import find_pattern_fault, last_names, parse_general


@pytest.mark.parametrize(
    ("path", "names"),
    [("$.a[?@.b == 'x'].c", ("c",)), ("$[0:2]", ()), ("$['a', 'b']", ("a", "b")), ("$.a[-1]", ("a",)),
     ("$..[?match(@.a, '[a-z]+')]", ()), ("$.x[?count(@.*) > 1].y[*]", ("y",)), ("$.a[?!@.b].C", ("C",))],
)  # fmt: skip
def test_paths_of_the_standard(path: str, names: tuple[str, ...]):
    """Filters, slices, unions and functions of RFC 9535 are read, and say which fields they end with."""
    assert parse_general(path) == GeneralPath(path)
    assert last_names(GeneralPath(path)) == names


@pytest.mark.parametrize(
    ("path", "offset", "what"),
    [
        ("$.a | $.b", 4, "unexpected token"), ("$.a[", 4, "unexpected end"), ("$[?@.a =~ /x/]", 7, "unexpected token"),
        ("$[?foo(@.a)]", 3, "'foo' is not defined"), ("$[?1 == 2]", 2, "two constants"), ("$[5:2]", 2, "nothing"),
        ("$[::0]", 2, "nothing"), ("$[-1:-3]", 2, "nothing"), ("$[2:5:-1]", 2, "nothing"),
        ("$[?search(@.a, @.b)]", 2, "written out"), ("$[?match(@.a, '(a+)+')]", 2, "repeats a group"),
        ("$[?@[?match(@.a, '(a|b)*')]]", 5, "repeats a group"), ("$.x[?@.y == 1e400]", 0, "not a JSONPath"),
        ("$" + "['a']" * 200 + "[0,1]", 0, "at most 1,000"),
    ],
)  # fmt: skip
def test_what_is_no_path_or_selects_nothing(path: str, offset: int, what: str):
    """A mistake is told with its place in the text; so is a path that can't find anything."""
    with pytest.raises(PlaceError, match=re.escape(what)) as refused:
        parse_general(path)
    assert refused.value.offset == offset


@settings(max_examples=examples(300))
@given(st.text("$.[]?@'\"*:,0123-ab=<>&|!() ", max_size=25).map("$".__add__))
def test_any_text_is_read_or_refused(text: str):
    """No text raises anything but PlaceError."""
    with contextlib.suppress(PlaceError):
        assert parse_general(text)


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+", "(a*)*", "(a|a)*", "(a|aa)+", "((ab)*c)+", "(.*)*x", "([a-z]+)*", "(a?b)+", "(a{1,3})+", "(x(y|z))*",
     "a*b*c*d*", ".*.*.*.*=", "a{1,1000}", "[[a]",
      "(?=a)b", "(?P<x>a)", r"(a)\1", "a++", r"\bx", "a{,5}", "[", "a)", "x" * 201],
)  # fmt: skip
def test_patterns_that_are_refused(pattern: str):
    """Repetition in repetition, long patterns, and what I-Regexp does not have."""
    assert find_pattern_fault(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["[a-z]+@[a-z]+", r"\d{3}-\d+", "(ab)+", "(a|b)c", "[]()+*]+", r"\(a\+\)\+", "(ab){2,5}", "a+?", ".*", ""],
)
def test_patterns_that_are_fine(pattern: str):
    """What people write to tell values apart."""
    assert find_pattern_fault(pattern) == ""


@settings(max_examples=examples(300))
@given(st.text("ab.*+?|(){},1[]^\\d", max_size=14))
def test_no_pattern_that_is_accepted_blows_up(pattern: str):
    """Whatever passes ends soon against texts that are made to make it try everything."""
    if find_pattern_fault(pattern):
        return
    compiled = re.compile(pattern)
    began = time.process_time()
    for text in ("a" * 150 + "!", "ab" * 75 + "!", "1" * 150 + "!"):
        compiled.fullmatch(text)
    assert time.process_time() - began < 2


def test_a_path_in_a_policy_has_its_place():
    """The mistake of a general path is told where it stands in the file."""
    with pytest.raises(PolicyInvalid, match=r"policy\.yaml:3:28: the pattern of match\(\) repeats"):
        parse_policy(
            "policy: p\nversion: 1\ntags: { a: { find: [ '$..b[?match(@.c, \"(a+)+\")]' ] } }\n", "policy.yaml"
        )
