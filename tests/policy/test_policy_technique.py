"""Techniques: how they are written, and the laws of their order."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.model.plan import Op
from gharial.policy.technique import Technique, compare, find_most_open, find_strictest, join, strictness
from gharial.policy.technique_syntax import TECHNIQUES, TechniqueError, parse_technique

ALL = [
    "clear", "mask", "mask(last=4)", "mask(first=1)", "mask(keep=domain)", "mask(keep=domain, first=1)", "mask(last=2)",
    "mask(first=1, last=4)", "month", "year", "band(10y)", "band(20y)", "band(5)", "band(10)", "bucket(18)",
    "bucket(18, 65)", "bucket(18, 30, 65)", "bucket(-5, 0)", "round(100)", "round(0.01)", "truncate(4)", "truncate(2)",
    "postcode(3)", "date_shift(30)", "date_shift(60, scope=all)", "date_shift(30, scope=team)", "token",
    "token(scope=team)", "token(scope=all)", "token(from=vault)", "token(from=vault, scope=team)",
    "token(from=vault, scope=all)", "token(per=subject)", "token(per=subject, scope=team)",
    "token(per=subject, scope=all)", "encrypt(per=subject)", "fpe", "fpe(scope=all)", "fpe(check=luhn)",
    "fpe(alphabet=alnum)",
    "fpe(alphabet=0123456789ABCDEF, length=8, scope=team)", "encrypt", "pseudonym", "pseudonym(scope=team)",
    "substitute(cities)", "substitute(names)", "substitute(names, scope=all)", "redact", "null", "drop",
]  # fmt: skip
some_technique = st.sampled_from([parse_technique(text) for text in ALL])


@pytest.mark.parametrize("text", ALL)
def test_printing_reads_back(text: str):
    """What a technique prints, in explanations and messages, is what an author may write."""
    assert parse_technique(str(parse_technique(text))) == parse_technique(text)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("mask( last = 4 )", Technique(Op.MASK, (("last", 4),))),
        ("mask(last=4, first=1)", Technique(Op.MASK, (("first", 1), ("last", 4)))),
        ("mask(first=0)", Technique(Op.MASK)),
        ("token", Technique(Op.TOKEN, (("scope", "client"),))),
        ("token(scope=all,from=vault)", Technique(Op.TOKEN, (("from", "vault"), ("scope", "all")))),
        ("token(scope=team, per=subject)", Technique(Op.TOKEN, (("per", "subject"), ("scope", "team")))),
        ("encrypt(per=subject)", Technique(Op.ENCRYPT, (("per", "subject"),))),
        ("band(10y)", Technique(Op.BAND, (("unit", "y"), ("width", 10)))),
        ("band(10)", Technique(Op.BAND, (("width", 10),))),
    ],
)
def test_one_meaning_has_one_form(text: str, want: Technique):
    """Order, spaces, defaults and parameters that change nothing make no difference."""
    assert parse_technique(text) == want


@pytest.mark.parametrize(
    "text",
    ["", "CLEAR", "mask()", "mask(last=4", "mask(last=4))", "mask(last=-1)", "mask(last=²)", "band", "band(1)",
     "band(0y)", "band(10m)", "bucket", "bucket(30, 18)", "bucket(18, 19)", "bucket(1.5)", "round(0)", "round(0.5)",
     "round", "truncate", "truncate(0)", "postcode(9)", "date_shift", "date_shift(0)", "date_shift(30, days=3)",
     "fpe(alphabet=aa)", "fpe(alphabet=1)", "fpe(check=crc)", "fpe(check=luhn, alphabet=alnum)", "fpe(length=5)",
     "fpe(length=6, check=luhn)", "fpe(alphabet=+-)", "encrypt(scope=all)", "pseudonym()", "substitute",
     "substitute(scope=all)", "substitute(a b)", "token(client)", "token(from=store)", "token(from)",
     "token(random=true)", "token(per=person)", "token(from=vault, per=subject)", "encrypt()", "encrypt(per=value)",
     "clear(x=1)", "drop()",
     "mask(last=4) x", "null(a)", "~"],
)  # fmt: skip
def test_other_texts_are_mistakes(text: str):
    """A technique is read completely or not at all."""
    with pytest.raises(TechniqueError):
        parse_technique(text)


@given(st.text(max_size=30) | st.sampled_from(TECHNIQUES).flatmap(lambda n: st.text("()=,a1y ").map(n.__add__)))
def test_any_text_is_read_or_refused(text: str):
    """No text raises anything but TechniqueError."""
    with contextlib.suppress(TechniqueError):
        assert parse_technique(text)


@pytest.mark.parametrize(
    ("open_one", "strict_one"),
    [
        ("clear", "mask(first=100, last=100)"), ("mask(last=4)", "mask(last=2)"), ("mask(last=4)", "mask"),
        ("mask(keep=domain)", "mask"), ("mask(keep=domain, last=1)", "mask(keep=domain)"), ("mask", "year"),
        ("year", "band(10y)"), ("band(10)", "band(100)"), ("band(20y)", "token(scope=all)"),
        ("month", "year"), ("bucket(18, 65)", "bucket(18)"), ("round(10)", "round(100)"), ("round(0.1)", "round(1)"),
        ("truncate(4)", "truncate(2)"), ("date_shift(30)", "date_shift(60)"), ("date_shift(60)", "token(scope=all)"),
        ("token(scope=all)", "token(scope=team)"), ("token(scope=team)", "token"), ("token", "fpe"), ("fpe", "encrypt"),
        ("token", "token(from=vault)"), ("token(scope=all)", "token(from=vault, scope=all)"),
        ("token(from=vault, scope=all)", "token(from=vault, scope=team)"), ("token(scope=team)", "token(from=vault)"),
        ("token(from=vault)", "fpe"), ("token(from=vault, scope=all)", "fpe(scope=team)"),
        ("token", "token(per=subject)"), ("token(from=vault)", "token(per=subject)"), ("token(per=subject)", "fpe"),
        ("encrypt", "encrypt(per=subject)"), ("fpe", "encrypt(per=subject)"),
        ("encrypt(per=subject)", "pseudonym(scope=all)"),
        ("token(scope=team)", "fpe"), ("fpe(scope=team)", "fpe"), ("encrypt", "pseudonym(scope=all)"),
        ("pseudonym", "substitute(cities)"), ("substitute(cities)", "redact"), ("token", "redact"),
        ("redact", "null"), ("null", "drop"),
    ],
)  # fmt: skip
def test_the_scale(open_one: str, strict_one: str):
    """The order that the documentation states, in both directions."""
    a, b = parse_technique(open_one), parse_technique(strict_one)
    assert (compare(a, b), compare(b, a)) == (-1, 1)
    assert find_most_open([b, a]) == a
    assert find_strictest([a, b]) == b


@pytest.mark.parametrize(
    ("one", "other"),
    [("mask(last=4)", "mask(keep=domain)"), ("mask(first=1)", "mask(last=1)"), ("year", "band(10)"),
     ("band(10y)", "band(10)"), ("month", "date_shift(30)"), ("bucket(18, 65)", "bucket(30)"),
     ("round(10)", "band(10)"),
     ("fpe", "fpe(alphabet=alnum)"), ("fpe(scope=all)", "token"), ("token(from=vault, scope=all)", "token"),
     ("fpe(scope=team)", "token(from=vault)"), ("date_shift(60, scope=all)", "date_shift(30)"),
     ("substitute(cities)", "substitute(names)")],
)  # fmt: skip
def test_what_cannot_be_told(one: str, other: str):
    """Two techniques that show different parts are not ordered; nobody guesses."""
    a, b = parse_technique(one), parse_technique(other)
    assert compare(a, b) is None
    assert find_most_open([a, b]) is None
    assert find_strictest([a, b]) is None


def test_a_third_may_decide():
    """Where one is more open than two that can't be ordered, it is the most open of all."""
    a, b, c = map(parse_technique, ("mask(last=4)", "mask(keep=domain)", "clear"))
    assert find_most_open([a, b, c]) == c


@given(some_technique, some_technique, some_technique)
def test_it_is_a_partial_order(a: Technique, b: Technique, c: Technique):
    """Equal means the same technique; swapping the two turns the sign; what is stricter twice is stricter."""
    assert (compare(a, b) == 0) is (a == b)
    swapped = compare(b, a)
    assert compare(a, b) == (None if swapped is None else -swapped)
    if compare(a, b) == -1 and compare(b, c) == -1:
        assert compare(a, c) == -1


@given(some_technique, some_technique, some_technique)
def test_join_is_the_least_upper_bound(a: Technique, b: Technique, c: Technique):
    """Joining is at least as strict as each, never stricter than any other bound, and its order does not matter."""
    joined = join(a, b)
    assert compare(joined, a) in (0, 1)
    assert compare(joined, b) in (0, 1)
    assert joined == join(b, a)
    assert join(joined, c) == join(a, join(b, c))
    if compare(c, a) in (0, 1) and compare(c, b) in (0, 1):
        assert compare(c, joined) in (0, 1)


@given(some_technique, some_technique)
def test_sorting_follows_the_order(a: Technique, b: Technique):
    """The key that sorts techniques never puts a stricter one first, and tells all different ones apart."""
    if compare(a, b) == -1:
        assert strictness(a) < strictness(b)
    assert (strictness(a) == strictness(b)) is (a == b)
