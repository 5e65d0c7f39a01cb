"""Steps made runnable: every technique on every type, and nothing clear but by CLEAR."""

from __future__ import annotations

import random
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.crypto.envelope import open_envelope
from gharial.crypto.fpe import Format, Fpe
from gharial.crypto.keyset import create_keyset, rotate
from gharial.crypto.token import Binding, open_token, seal_token
from gharial.crypto.transform import Recipient, transforms_by_scope, transforms_for
from gharial.model.finding import Kind
from gharial.model.plan import PLAN_FORMAT, Mode, Op, Plan, Redaction, Step, Unlisted

KEYSET = rotate(create_keyset(random.Random(41).randbytes, 1.0), random.Random(42).randbytes, 2.0)
NONCES = random.Random(43).randbytes
BINDING = Binding("default", "account", "client", "acme-billing")
RECIPIENT = Recipient("default", "acme-billing", "finance")
REDACTION = Redaction(string="(hidden)", number="-1", boolean="true")
REDACTED = {
    Kind.STRING: (Kind.STRING, "(hidden)"),
    Kind.NUMBER: (Kind.NUMBER, "-1"),
    Kind.BOOLEAN: (Kind.BOOLEAN, "true"),
    Kind.NULL: (Kind.NULL, ""),
}


def step(op: Op, **args: str | int) -> Step:
    return Step(op, "account", "grant:g", tuple(args.items()))


def compiled(*steps: Step, recipient: Recipient = RECIPIENT):
    lists = {"cities": ("Springfield", "Riverton"), "one": ("Springfield",)}
    plan = Plan(
        PLAN_FORMAT, "p", 1, "r", Mode.ENFORCE, (), Unlisted.DROP, (), (), steps, redaction=REDACTION, lists=lists
    )
    return transforms_for(plan, KEYSET, recipient, NONCES)


def run(one: Step, kind: Kind, text: str, recipient: Recipient = RECIPIENT):
    (transform,) = compiled(one, recipient=recipient)
    return transform(kind, text)


def token(kind: Kind, text: str, scope: str = "client", recipient: str = "acme-billing"):
    return Kind.STRING, seal_token(KEYSET, Binding("default", "account", scope, recipient), kind, text)


@pytest.mark.parametrize(
    ("one", "kind", "text", "want"),
    [
        (step(Op.CLEAR), Kind.STRING, "ann", (Kind.STRING, "ann")),
        (step(Op.CLEAR), Kind.NUMBER, "1.10", (Kind.NUMBER, "1.10")),
        (step(Op.CLEAR), Kind.BOOLEAN, "false", (Kind.BOOLEAN, "false")),
        (step(Op.MASK), Kind.STRING, "ann", (Kind.STRING, "***")),
        (step(Op.MASK), Kind.NUMBER, "12345678", (Kind.STRING, "***")),
        (step(Op.MASK, last=4), Kind.STRING, "12345678", (Kind.STRING, "***5678")),
        (step(Op.MASK, last=4), Kind.NUMBER, "12345678", (Kind.STRING, "***5678")),
        (step(Op.MASK, first=1, keep="domain"), Kind.STRING, "ann@ex.org", (Kind.STRING, "a***@ex.org")),
        (step(Op.MASK), Kind.BOOLEAN, "false", REDACTED[Kind.BOOLEAN]),
        (step(Op.YEAR), Kind.STRING, "1990-12-31", (Kind.STRING, "1990")),
        (step(Op.YEAR), Kind.STRING, "Ann", REDACTED[Kind.STRING]),
        (step(Op.YEAR), Kind.NUMBER, "1990", REDACTED[Kind.NUMBER]),
        (step(Op.YEAR), Kind.BOOLEAN, "false", REDACTED[Kind.BOOLEAN]),
        (step(Op.BAND, width=10, unit="y"), Kind.STRING, "1990-12-31", (Kind.STRING, "1990-1999")),
        (step(Op.BAND, width=10, unit="y"), Kind.NUMBER, "1990", REDACTED[Kind.NUMBER]),
        (step(Op.BAND, width=10, unit=""), Kind.STRING, "34", (Kind.STRING, "30-39")),
        (step(Op.BAND, width=10), Kind.NUMBER, "34.5", (Kind.STRING, "30-39")),
        (step(Op.BAND, width=10), Kind.STRING, "Ann", REDACTED[Kind.STRING]),
        (step(Op.BAND, width=10), Kind.BOOLEAN, "false", REDACTED[Kind.BOOLEAN]),
        (step(Op.TOKEN, scope="client"), Kind.STRING, "ann", token(Kind.STRING, "ann")),
        (step(Op.TOKEN), Kind.STRING, "ann", token(Kind.STRING, "ann")),
        (step(Op.TOKEN, scope="client"), Kind.NUMBER, "1.10", token(Kind.NUMBER, "1.10")),
        (step(Op.TOKEN, scope="client"), Kind.BOOLEAN, "true", token(Kind.BOOLEAN, "true")),
        (step(Op.TOKEN, scope="team"), Kind.STRING, "ann", token(Kind.STRING, "ann", "team", "finance")),
        (step(Op.TOKEN, scope="all"), Kind.STRING, "ann", token(Kind.STRING, "ann", "all", "")),
        (step(Op.TOKEN, scope="all"), Kind.STRING, "\ud800", REDACTED[Kind.STRING]),
        (step(Op.FPE), Kind.BOOLEAN, "true", REDACTED[Kind.BOOLEAN]),
        (step(Op.FPE), Kind.NUMBER, "12345", REDACTED[Kind.NUMBER]),
        (step(Op.FPE, type="number"), Kind.NUMBER, "-12345678", REDACTED[Kind.NUMBER]),
        (step(Op.ENCRYPT), Kind.STRING, "\ud800", REDACTED[Kind.STRING]),
        (step(Op.PSEUDONYM), Kind.STRING, "\ud800", REDACTED[Kind.STRING]),
        (step(Op.SUBSTITUTE, list="cities"), Kind.STRING, "Riverton", (Kind.STRING, "Springfield")),
        (step(Op.DATE_SHIFT, days=30), Kind.STRING, "1990-12-31", REDACTED[Kind.STRING]),
        (step(Op.DATE_SHIFT, days=30, type="date"), Kind.STRING, "1990-12-31", (Kind.STRING, "0001-01-01")),
        (step(Op.MASK, type="number"), Kind.BOOLEAN, "true", REDACTED[Kind.BOOLEAN]),
        (step(Op.YEAR, type="number"), Kind.STRING, "12.5", (Kind.STRING, "-1")),
        (step(Op.REDACT, type="number"), Kind.STRING, "12.5", (Kind.STRING, "-1")),
        (step(Op.REDACT, type="number"), Kind.STRING, "Ann", REDACTED[Kind.STRING]),
        (step(Op.REDACT, type="boolean"), Kind.STRING, "false", (Kind.STRING, "true")),
        (step(Op.NULL), Kind.STRING, "ann", (Kind.NULL, "")),
        (step(Op.NULL), Kind.NUMBER, "1", (Kind.NULL, "")),
    ],
)
def test_techniques(one, kind, text, want):
    """Each technique gives what the docs show; a value that it does not fit comes out redacted."""
    assert run(one, kind, text) == want


@pytest.mark.parametrize("op", [Op.REDACT, Op.DROP])
@pytest.mark.parametrize("kind", list(Kind))
def test_redact_and_drop_give_the_plans_redaction(op, kind):
    """Redact gives the plan's replacement for the type; so does drop, should a reader ever ask for it."""
    assert run(step(op), kind, "ann") == REDACTED[kind]


@pytest.mark.parametrize("op", list(Op))
def test_null_stays_null(op):
    """Null says nothing about anybody, and a token of it would say that there is something to hide."""
    assert run(step(op), Kind.NULL, "") == (Kind.NULL, "")


@pytest.mark.parametrize(
    "one",
    [
        step(Op.MASK, last=4, show="all"),
        step(Op.MASK, keep="user"),
        step(Op.MASK, last=-4),
        step(Op.MASK, last="4"),
        step(Op.BAND, width="10"),
        step(Op.BAND, unit="y"),
        step(Op.BAND, width=10, unit="m"),
        step(Op.BAND, width=10, offset=3),
        step(Op.TOKEN, scope="world"),
        step(Op.TOKEN, scope=""),
        step(Op.TOKEN, scope="client", expires=3600),
        step(Op.MONTH, day=1),
        step(Op.YEAR, offset=1),
        step(Op.BUCKET),
        step(Op.BUCKET, bounds="65,18"),
        step(Op.BUCKET, bounds="a"),
        step(Op.ROUND),
        step(Op.ROUND, to=0),
        step(Op.ROUND, to="NaN"),
        step(Op.ROUND, to="-1"),
        step(Op.TRUNCATE),
        step(Op.TRUNCATE, chars="2"),
        step(Op.POSTCODE, chars=-2),
        step(Op.DATE_SHIFT, scope="client"),
        step(Op.DATE_SHIFT, days=30, scope="world"),
        step(Op.FPE, scope="world"),
        step(Op.FPE, alphabet="aa"),
        step(Op.FPE, check="crc"),
        step(Op.FPE, length="8"),
        step(Op.FPE, version=2),
        step(Op.ENCRYPT, scope="all"),
        step(Op.PSEUDONYM, scope="world"),
        step(Op.SUBSTITUTE),
        step(Op.SUBSTITUTE, list="unknown"),
        step(Op.SUBSTITUTE, list="one"),
    ],
)
@pytest.mark.parametrize(("kind", "text"), [(Kind.STRING, "1990-12-31"), (Kind.NUMBER, "12345678")])
def test_parameters_that_are_not_known_redact(one, kind, text):
    """A step with a parameter of a later version, or of the wrong type, redacts instead of leaving it out."""
    assert run(one, kind, text) == REDACTED[kind]


def test_team_tokens_for_a_caller_without_a_team_redact():
    """All who have no team must not share the tokens of an empty team."""
    nobody = Recipient("default", "acme-billing", "")
    assert run(step(Op.TOKEN, scope="team"), Kind.STRING, "ann", nobody) == REDACTED[Kind.STRING]
    assert run(step(Op.TOKEN, scope="client"), Kind.STRING, "ann", nobody) == token(Kind.STRING, "ann")


def test_tokens_differ_by_recipient_and_open_for_theirs():
    """Two clients, two teams, two tenants and two tags get different tokens; those of scope all are the same."""
    other = Recipient("default", "other", "sales")
    for scope in ("client", "team"):
        assert run(step(Op.TOKEN, scope=scope), Kind.STRING, "a") != run(
            step(Op.TOKEN, scope=scope), Kind.STRING, "a", other
        )
    for_all = step(Op.TOKEN, scope="all")
    assert run(for_all, Kind.STRING, "a") == run(for_all, Kind.STRING, "a", other)
    assert run(for_all, Kind.STRING, "a") != run(for_all, Kind.STRING, "a", Recipient("t2", "acme-billing", "finance"))
    assert run(Step(Op.TOKEN, "iban", "r"), Kind.STRING, "a") != run(step(Op.TOKEN), Kind.STRING, "a")
    _, sealed = run(step(Op.TOKEN, scope="team"), Kind.NUMBER, "7")
    assert open_token(KEYSET, Binding("default", "account", "team", "finance"), sealed) == (Kind.NUMBER, "7")


def test_there_is_one_function_per_step():
    """The functions stand in the order of the plan's steps."""
    functions = compiled(step(Op.CLEAR), step(Op.REDACT), step(Op.MASK), step(Op.CLEAR))
    assert [f(Kind.STRING, "a")[1] for f in functions] == ["a", "(hidden)", "***", "a"]
    assert compiled() == ()


def test_keyed_techniques_give_what_their_modules_give():
    """fpe, encrypt, pseudonym and substitute, on strings and numbers; a number stays one where the tag says so."""
    assert run(step(Op.FPE), Kind.STRING, "12345678") == (Kind.STRING, Fpe(KEYSET, BINDING, Format()).seal("12345678"))
    sealed = Fpe(KEYSET, BINDING, Format()).seal_number("12345678")
    assert run(step(Op.FPE, type="number"), Kind.NUMBER, "12345678") == (Kind.NUMBER, sealed)
    kind, envelope = run(step(Op.ENCRYPT), Kind.NUMBER, "1.10")
    assert (kind, open_envelope(KEYSET, "default", "account", envelope)) == (Kind.STRING, (Kind.NUMBER, "1.10"))
    assert run(step(Op.ENCRYPT), Kind.NUMBER, "1.10") != (kind, envelope)
    assert run(step(Op.PSEUDONYM), Kind.STRING, "ann")[1].startswith("psn_")
    assert run(step(Op.PSEUDONYM), Kind.STRING, "1") != run(step(Op.PSEUDONYM), Kind.NUMBER, "1")


def test_results_for_one_recipient_are_of_no_use_to_another():
    """Every technique with a scope gives another client other results, and scope all the same."""
    other = Recipient("default", "globex", "sales")
    for op in (Op.FPE, Op.PSEUDONYM):
        own = run(step(op), Kind.STRING, "1234567890123456")
        assert own != run(step(op), Kind.STRING, "1234567890123456", other)
        for_all = step(op, scope="all")
        assert run(for_all, Kind.STRING, "1234567890123456") == run(for_all, Kind.STRING, "1234567890123456", other)
        team = step(op, scope="team")
        assert run(team, Kind.STRING, "123456789", Recipient("default", "acme", "")) == REDACTED[Kind.STRING]


def test_dates_move_by_person():
    """All dates of one person move alike, those of another otherwise; of nobody they are redacted."""
    transforms = compiled(step(Op.DATE_SHIFT, days=3000, type="date"), step(Op.CLEAR))
    ann, bob, nobody = transforms_by_scope(transforms, ["ann", "bob", ""])
    first, second = (date.fromisoformat(ann[0](Kind.STRING, text)[1]) for text in ("1990-12-31", "2000-02-29"))
    assert second - first == date(2000, 2, 29) - date(1990, 12, 31)
    assert first != date(1990, 12, 31)
    assert ann[0](Kind.STRING, "1990-12-31") != bob[0](Kind.STRING, "1990-12-31")
    assert nobody[0](Kind.STRING, "1990-12-31") == (Kind.STRING, "0001-01-01")
    assert ann[0](Kind.STRING, "03/04/1990")[1] == "01/01/0001"
    assert ann[1](Kind.STRING, "a") == (Kind.STRING, "a")
    assert transforms_by_scope(compiled(step(Op.CLEAR)), ["ann"]) is None


STEPS = st.builds(
    step,
    st.sampled_from([op for op in Op if op is not Op.CLEAR]),
) | st.sampled_from(
    [
        step(Op.MASK, first=1),
        step(Op.MASK, first=2, last=2),
        step(Op.MASK, keep="domain"),
        step(Op.BAND, width=5, unit="y"),
        step(Op.BAND, width=5),
        step(Op.TOKEN, scope="team"),
        step(Op.TOKEN, scope="nobody"),
        step(Op.TRUNCATE, chars=3),
        step(Op.POSTCODE, chars=2),
        step(Op.SUBSTITUTE, list="cities"),
        step(Op.FPE, alphabet="alnum"),
        step(Op.ROUND, to=10),
        step(Op.BUCKET, bounds="18,65"),
    ]
)


@given(STEPS, st.sampled_from([Kind.STRING, Kind.NUMBER]), st.text(min_size=1).map("PLANTED-{}-71".format))
def test_nothing_but_clear_shows_a_value(one, kind, text):
    """No technique raises, and none gives the value itself, whatever the value is."""
    got, shown = run(one, kind, text)
    assert got in Kind
    assert "PLANTED" not in shown
    assert shown != text
