"""How a query is searched and written: the laws that hold for any names and values."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gharial.gate.carriers import rewrite_cookies, rewrite_headers, rewrite_query
from gharial.model.errors import RequestMalformed, TokenRefused
from gharial.model.place import Carrier
from gharial.model.plan import NONE, Param

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)


class Swap:
    """Puts one text in the place of another, and notes what is alike."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new
        self.alike: list[str] = []

    def resolve(self, param: Param, text: str) -> str | None:
        return self.new if text == self.old else None

    def refuse_alike(self, param: Param, text: str, *, same: bool) -> None:
        self.alike.append(text)


def of(name: str, carrier: Carrier = Carrier.QUERY) -> dict[str, Param]:
    return {name: Param(name, ("t",), NONE, reidentify=True, carrier=carrier)}


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5), TEXTS)
def test_one_value_changes_and_all_else_is_read_as_before(pairs: list[tuple[str, str]], new: str):
    """Whatever else a query holds, and whatever the new value is, the upstream reads only that value differently."""
    assume(all(name != "account" for name, _ in pairs))
    sent = [*pairs, ("account", "old"), *pairs]
    rewritten = rewrite_query(urlencode(sent), of("account"), Swap("old", new))
    assert rewritten is not None
    assert parse_qsl(rewritten, keep_blank_values=True) == [*pairs, ("account", new), *pairs]


@given(st.text(st.characters(codec="ascii"), max_size=30))
def test_a_query_without_the_value_stays_as_it_is(query: str):
    """No spelling of a query makes the gate write anything where there is nothing to change, or fail unexpectedly."""
    try:
        assert rewrite_query(query, of("account"), Swap("no such value ", "new")) is None
    except RequestMalformed:
        assert "%" in query


@given(st.integers(0, 7), st.integers(1, 6))
def test_a_name_that_is_encoded_more_than_once_is_noticed(at: int, times: int):
    """However often a character of the name is encoded beyond once, up to five times, it is told as alike."""
    name = "account"
    piece = "%" + format(ord(name[at % len(name)]), "02x")
    for _ in range(times - 1):
        piece = quote(piece)
    spelled = name[: at % len(name)] + piece + name[at % len(name) + 1 :]
    swap = Swap("old", "new")
    changed = rewrite_query(f"{spelled}=old", of("account"), swap)
    assert (changed is not None) == (times == 1)
    assert swap.alike == ([] if times == 1 else ["old"])


@pytest.mark.parametrize("name", ["account_type", "accounts", "accountant", "discount", "acc", "my_account", "a[b]"])
def test_other_names_are_other_names(name: str):
    """A name that merely holds the tagged one, or a part of it, is not alike."""
    swap = Swap("old", "new")
    assert rewrite_query(f"{name}=old", of("account"), swap) is None
    assert swap.alike == []


def test_a_tagged_name_with_brackets_is_found_as_it_is():
    """`filter[account]` may be tagged itself, and is then found however it is encoded."""
    for spelled in ("filter[account]", "filter%5Baccount%5D", "filter%5baccount]"):
        assert rewrite_query(f"{spelled}=old", of("filter[account]"), Swap("old", "n w")) == f"{spelled}=n%20w"


@given(TEXTS)
def test_a_header_is_one_line_and_one_value(new: str):
    """What is written as a header has no line end and no comma, and is the value's UTF-8."""
    try:
        ((_, value),) = rewrite_headers((("x-a", "old"),), of("x-a", Carrier.HEADER), (), Swap("old", new))
    except TokenRefused:
        return
    assert value.encode("latin-1").decode("utf-8") == new
    assert not set(value) & set("\r\n\0,")


@given(TEXTS)
def test_a_cookie_is_one_cookie(new: str):
    """What is written as a cookie can't end it."""
    headers = (("cookie", "s=1; a=old; t=2"),)
    try:
        ((_, value),) = rewrite_cookies(headers, of("a", Carrier.COOKIE), Swap("old", new))
    except TokenRefused:
        return
    assert value.split("; ") == ["s=1", f"a={new}", "t=2"]
