"""Tests of policies, made ready to run: who asks, which body, and whether what came is what was wanted."""

from __future__ import annotations

from typing import Any

import pytest
from support.policies import read

from gharial.model.plan import Op, Redaction, Step
from gharial.policy.case_syntax import Want
from gharial.policy.cases import (
    ABSENT,
    CaseProblem,
    body_of_case,
    facts_of_case,
    find_value,
    judge,
    path_text,
)
from gharial.policy.document import Policy
from gharial.policy.samples import caller_of

BASE: dict[str, Any] = {
    "policy": "p",
    "version": 1,
    "tags": {
        "person": {"find": "$.customers[*].id", "subject": "customer"},
        "email": {"find": "$..email"},
        "birth": {"find": "$.customers[*].dob"},
    },
    "who": {
        "anyone": {},
        "care": {"role": ["care", "desk"], "claim.amr": "mfa"},
        "partner": {"client": "acme-*"},
        "nobody": {"team": {"not": "*"}},
        "grown": {"claim.age": 18, "claim.ok": True},
    },
    "grants": [{"grant": "g", "to": "care", "show": {"email": "clear"}}],
}


def a_policy(**case: Any) -> Policy:
    return read(BASE | {"tests": [{"as": "anyone", "give": {"email": "a"}, "want": {"email": "redacted"}} | case]})


def facts(**case: Any) -> dict[str, Any]:
    policy = a_policy(**case)
    return dict(facts_of_case(policy, policy.tests[0]))


def body(**case: Any) -> object:
    policy = a_policy(**case)
    return body_of_case(policy, policy.tests[0]).document


def test_a_caller_is_made_up_that_is_just_what_the_name_says():
    """Every condition of the who is met by one value, and nothing else is claimed that a rule could see."""
    made = facts(**{"as": "care", "for": "support", "in": "US"})
    assert made["role"] in (("care",), ("desk",))
    assert made["claim.amr"] == ("mfa",)
    assert made["purpose"] == ("support",)
    assert made["country"] == ("US",)
    assert "client" not in made


def test_globs_numbers_and_truth_values_are_met():
    """A glob gets a text that fits it, a number stays a number, true stays true."""
    assert facts(**{"as": "partner"})["client"] == ("acme-x",)
    grown = facts(**{"as": "grown"})
    assert (grown["claim.age"], grown["claim.ok"]) == ((18,), (True,))


def test_a_who_that_nobody_can_be_is_a_problem():
    """A name whose conditions contradict each other can't be tested by name."""
    with pytest.raises(CaseProblem, match="'nobody'"):
        facts(**{"as": "nobody"})


def test_facts_are_taken_as_they_are_written():
    """With facts instead of a name the caller has these, and a neutral team for tokens where no rule reads one."""
    made = facts(**{"as": {"role": ["care", "x"], "claim.n": 3}})
    assert (made["role"], made["claim.n"]) == (("care", "x"), (3,))
    caller, _ = caller_of(made)
    assert (caller.roles, caller.claims["n"]) == (("care", "x"), 3)


def test_fields_stand_where_their_tags_find_them():
    """A field that a tag finds in a record only is put there, and what may stand anywhere goes along."""
    assert body(give={"email": "a", "dob": "1990-01-01", "id": 7}) == {
        "customers": [{"email": "a", "dob": "1990-01-01", "id": 7}]
    }
    assert body(give={"email": "a"}) == {"email": "a"}
    assert body(give={"customers": [{"email": "a"}]}, want={"$.customers[0].email": "redacted"}) == {
        "customers": [{"email": "a"}]
    }


def test_a_wanted_value_is_looked_for_where_its_field_went():
    """`want` speaks of `give`, wherever the fields were put."""
    policy = a_policy(give={"dob": "1990-01-01"}, want={"dob": "redacted"})
    made = body_of_case(policy, policy.tests[0])
    place = made.find_place(policy.tests[0].want[0].path)
    assert path_text(place) == "$.customers[0].dob"
    assert find_value(made.document, place) == "1990-01-01"


def want(op: Op | None, literal: Any = None, args: Any = None) -> Want:
    return Want(("x",), op, args, literal, 1, 1)


@pytest.mark.parametrize(
    ("wanted", "given", "came", "step", "passes"),
    [
        (want(Op.CLEAR), "a", "a", Op.CLEAR, True),
        (want(Op.CLEAR), "a", "***", Op.CLEAR, False),
        (want(Op.CLEAR), 1, True, Op.CLEAR, False),
        (want(Op.MASK), "abcdef", "***", Op.MASK, True),
        (want(Op.MASK, args=(("last", 4),)), "abcdef", "***", Op.MASK, False),
        (want(Op.REDACT), "a", "[redacted]", Op.REDACT, True),
        (want(Op.REDACT), "a", "a", Op.REDACT, False),
        (want(Op.REDACT), "a", "tok_", Op.TOKEN, False),
        (want(Op.TOKEN), "a", "tok_abc", Op.TOKEN, True),
        (want(Op.TOKEN), "a", "[redacted]", Op.TOKEN, False),
        (want(Op.NULL), "a", None, Op.NULL, True),
        (want(Op.DROP), "a", ABSENT, None, True),
        (want(Op.DROP), "a", "a", None, False),
        (want(None, "***"), "abc", "***", Op.MASK, True),
        (want(None, 1), 1, True, Op.CLEAR, False),
        (want(None, "x"), "abc", ABSENT, None, False),
    ],
)
def test_a_word_needs_both_the_technique_and_the_look_of_it(
    wanted: Want, given: Any, came: Any, step: Op | None, passes: bool
):
    """A technique that was decided and not carried out fails a test as surely as another technique."""
    done = Step(step, "x", "grant:g") if step else None
    assert judge(wanted, ("x",), given, came, done, Op.DROP, Redaction()).passed is passes


def test_facts_of_a_person_cant_be_put_into_a_list():
    """A list is of several people, so a fact of "the" person has no place: the author is asked, nothing is guessed."""
    policy = read(
        BASE
        | {
            "tags": BASE["tags"] | {"home": {"find": "$..home", "fact": "residency"}},
            "tests": [
                {
                    "as": "anyone",
                    "subject": {"residency": "US"},
                    "give": [{"email": "a"}],
                    "want": [{"email": "redacted"}],
                }
            ],
        }
    )
    with pytest.raises(CaseProblem, match="is a list"):
        body_of_case(policy, policy.tests[0])


def test_facts_of_a_person_stand_where_their_tags_find_them():
    """The residency of `subject` is put into the record, and what `give` says itself stays."""
    tags = BASE["tags"] | {"home": {"find": "$.customers[*].address.home", "fact": "residency"}}
    case = {"as": "anyone", "subject": {"residency": "US"}, "give": {"id": 7}, "want": {"id": "redacted"}}
    policy = read(BASE | {"tags": tags, "tests": [case]})
    assert body_of_case(policy, policy.tests[0]).document == {"customers": [{"id": 7, "address": {"home": "US"}}]}
    told = case | {"give": {"id": 7, "home": "FR"}}
    policy = read(BASE | {"tags": tags, "tests": [told]})
    with pytest.raises(CaseProblem, match="already"):
        body_of_case(policy, policy.tests[0])


def test_an_expression_is_met_by_the_texts_in_it():
    """A who with `cel` is tried with the values that the expression spells out."""
    who = BASE["who"] | {"night": {"cel": "hour >= 22 && 'owl' in roles"}}
    case = {"as": "night", "give": {"email": "a"}, "want": {"email": "redacted"}}
    policy = read(BASE | {"who": who, "tests": [case]})
    made = facts_of_case(policy, policy.tests[0])
    assert made["role"] == ("owl",)
    assert made["time.hour"][0] >= 22
