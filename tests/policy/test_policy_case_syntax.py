"""`tests` of a policy: what is read, and which mistakes are told."""

from __future__ import annotations

import pytest

from gharial.model.errors import PolicyInvalid
from gharial.model.plan import Op
from gharial.policy.case_syntax import PolicyCase
from gharial.policy.document import parse_policy

HEAD = "policy: p\nversion: 1\ntags: { email: { find: '$..email' } }\nwho: { care: { role: care } }\ntests:\n"


def case(text: str) -> PolicyCase:
    return parse_policy(f"{HEAD}  - {text}\n", "policy.yaml").tests[0]


def mistake(text: str) -> str:
    with pytest.raises(PolicyInvalid) as refused:
        case(text)
    return str(refused.value)


def test_a_case_says_who_asks_and_what_must_come_out():
    """All facts of a case are kept, the body as JSON reads it."""
    found = case(
        "{ as: care, for: support, in: US, network: tor, hour: 9, weekday: mon, subject: { consent: [a, b] },\n"
        "      give: { email: ann@ex.org, n: 1 }, want: { email: '***@ex.org' } }"
    )
    assert (found.as_who, found.as_facts, found.purpose, found.country) == ("care", (), "support", "US")
    assert (found.network, found.hour, found.weekday, found.subject) == ("tor", 9, "mon", (("consent", ("a", "b")),))
    assert found.give == {"email": "ann@ex.org", "n": 1}
    assert [(w.path, w.op, w.literal) for w in found.want] == [(("email",), None, "***@ex.org")]
    assert (found.line, found.column) == (6, 5)


def test_facts_may_stand_in_place_of_a_who():
    """A caller of no name is its facts; a claim keeps its type."""
    found = case("{ as: { role: [a, b], claim.level: 3, client: x }, give: { email: a }, want: { email: clear } }")
    assert found.as_who == ""
    assert found.as_facts == (("claim.level", (3,)), ("client", ("x",)), ("role", ("a", "b")))


@pytest.mark.parametrize(
    ("written", "op", "args", "literal"),
    [
        ("redacted", Op.REDACT, None, None), ("redact", Op.REDACT, None, None), ("token", Op.TOKEN, None, None),
        ("'token'", None, None, "token"), ("dropped", Op.DROP, None, None), ("masked", Op.MASK, None, None),
        ("mask(last=4)", Op.MASK, (("last", 4),), None), ("null", Op.NULL, None, None), ("7", None, None, 7),
        ("ann", None, None, "ann"), ("''", None, None, ""),
    ],
)  # fmt: skip
def test_outcomes_are_words_and_everything_else_is_literal(written: str, op: Op, args: object, literal: object):
    """A word without quotes says how a value is shown; quotes make it the very value."""
    want = case(f"{{ as: care, give: {{ email: a }}, want: {{ email: {written} }} }}").want[0]
    assert (want.op, want.args, want.literal) == (op, args, literal)


def test_want_follows_the_shape_of_give_or_a_path():
    """Nested objects, lists and paths lead to single values."""
    found = case(
        "{ as: care, give: { a: [{ b: 1 }, { b: 2 }] }, want: { a: [{ b: 0 }, { b: clear }], '$.a[1].b': 2 } }"
    )
    assert [w.path for w in found.want] == [("a", 0, "b"), ("a", 1, "b"), ("a", 1, "b")]
    found = case("{ as: care, give: [{ b: 1 }, { b: 2 }], want: { '$[1].b': redacted } }")
    assert [w.path for w in found.want] == [(1, "b")]
    found = case("{ as: care, give: { a: [{ b: 1 }] }, want: { a: { '$[0].b': redacted } } }")
    assert [w.path for w in found.want] == [("a", 0, "b")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{ as: car, give: { a: 1 }, want: { a: clear } }", "unknown who 'car'; did you mean 'care'?"),
        ("{ as: { rol: x }, give: { a: 1 }, want: { a: clear } }", "unknown fact 'rol'; did you mean 'role'?"),
        ("{ as: care, give: { a: 1 }, want: { b: clear } }", "6:41: 'give' has no 'b'"),
        ("{ as: care, give: { a: 1 }, want: {} }", "want says what becomes"),
        ("{ as: care, give: { a: 1 }, want: { a: } }", "a value is missing here"),
        ("{ as: care, give: 1, want: { a: clear } }", "give is a body"),
        ("{ as: care, give: { a: [1] }, want: { a: [1, 2] } }", "this list has 2 elements, the one in 'give' 1"),
        (
            "{ as: care, give: { a: [1] }, want: { a: { b: 2 } } }",
            "'give' has a list here: write what is wanted as a list too",
        ),
        ("{ as: care, give: { a: [1] }, want: { 'a[0]': 2 } }", "a path begins with '$': '$.a[0]'"),
        ("{ as: care, give: { a: 1 }, want: { a: { b: 2 } } }", "'give' has something of another shape here"),
        ("{ as: care, give: { a: [1] }, want: { '$.a[1]': 2 } }", "'give' has nothing at '$.a[1]'"),
        ("{ as: care, give: { a: [1] }, want: { '$..a': 2 } }", "leads to one value"),
        ("{ as: care, give: { a: 1 }, want: { a: mask(lst=4) } }", "mask has no parameter 'lst'"),
        ("{ as: care, in: Germany, give: { a: 1 }, want: { a: 1 } }", "unknown country 'Germany'"),
        ("{ as: care, hour: 24, give: { a: 1 }, want: { a: 1 } }", "hour is a whole number from 0 to 23"),
        ("{ as: care, weekday: monday, give: { a: 1 }, want: { a: 1 } }", "weekday is one of mon"),
        ("{ as: care, subject: { residence: US }, give: { a: 1 }, want: { a: 1 } }", "no tag has the fact 'residence'"),
        ("{ as: care, given: { a: 1 }, want: { a: 1 } }", "unknown key 'given'; did you mean 'give'?"),
    ],
)
def test_mistakes_of_cases(text: str, what: str):
    """A test that can't mean what its author meant is a mistake when the policy is read."""
    assert what in mistake(text)
