"""What a policy's tests touch."""

from __future__ import annotations

from typing import Any

from support.policies import read

from gharial.policy.coverage import cover

BASE: dict[str, Any] = {
    "policy": "p",
    "version": 1,
    "tags": {"email": {"find": "$..email"}, "note": {"find": "$.rows[*].note"}},
    "who": {"anyone": {}, "care": {"role": "care"}},
    "grants": [{"grant": "g", "to": "care", "for": "support", "show": {"email": "clear"}}],
}
GUARDED = BASE | {"never": [{"never": "n", "tag": "email", "when": {"country": {"not": "EEA"}}, "at_least": "redact"}]}


def touched(policy: dict[str, Any], **case: Any) -> set[tuple[str, str, str, str]]:
    base = {"as": "care", "for": "support", "give": {"email": "a"}, "want": {"email": "redacted"}}
    rows = cover(read(policy | {"tests": [base | case]})).rows
    return {(row.who, row.purpose, row.country, tag) for row in rows for tag in row.touched}


def test_without_tests_nothing_is_touched():
    """For each who and tag there is a cell, and one more for each purpose that a rule about both names."""
    found = cover(read(BASE))
    assert (found.cells, found.touched, found.percent) == (2 * 2 + 1, 0, 0.0)
    rows = {(row.who, row.purpose): row.untouched for row in found.rows}
    assert rows == {
        ("anyone", "-"): ("email", "note"), ("care", "-"): ("email", "note"), ("care", "support"): ("email",),
    }  # fmt: skip


def test_grants_to_everyone_count_for_each_who():
    """What a grant to everyone tells apart has to be tested for each of them."""
    found = cover(read(BASE | {"grants": [BASE["grants"][0] | {"to": "anyone"}]}))
    assert [(row.who, row.purpose) for row in found.rows if "email" in row.untouched] == [
        ("anyone", "support"), ("anyone", "-"), ("care", "support"), ("care", "-"),
    ]  # fmt: skip


def test_a_test_touches_what_it_wants_something_of():
    """Values that are merely given are not tested."""
    assert touched(BASE) == {("care", "support", "any", "email")}
    both = {"email": "a", "note": "b"}
    assert touched(BASE, give=both, want={"note": "redacted"}) == {("care", "-", "any", "note")}


def test_a_tag_of_requests_alone_is_not_counted():
    """A test is about an answer, in which such a tag finds nothing."""
    sending = BASE | {"tags": BASE["tags"] | {"note": {"find": "$.rows[*].note", "in": "request"}}}
    assert {tag for row in cover(read(sending)).rows for tag in row.untouched} == {"email"}
    assert touched(sending, give={"email": "a", "note": "b"}, want={"note": "dropped"}) == set()


def test_facts_count_for_every_name_they_fit():
    """A caller told by facts is whoever these facts make it; only one who is nobody else counts as anyone."""
    assert touched(BASE, **{"as": {"role": "care"}}) == {("care", "support", "any", "email")}
    assert touched(BASE, **{"as": {"role": "x"}}) == {("anyone", "-", "any", "email")}


def test_countries_are_those_that_the_policy_names():
    """A group that a condition names is a column, and so are all others, and no country at all."""
    assert touched(GUARDED, **{"in": "FR"}) == {("care", "support", "EEA", "email")}
    assert touched(GUARDED, **{"in": "US"}) == {("care", "support", "elsewhere", "email")}
    assert touched(GUARDED) == {("care", "support", "unknown", "email")}
    # Three countries for the guarded tag of each who, and of care for both purposes; one for the other tag.
    assert cover(read(GUARDED)).cells == 3 + 3 * 2 + 1 + 1
