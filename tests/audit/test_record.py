"""What an audit line holds, and what it can never hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.audit.record import MAX_PEOPLE_LISTED, ExchangeRecord, exchange_record, parse_record
from gharial.model.caller import Caller
from gharial.model.plan import PLAN_FORMAT, Mode, Node, Plan, Unlisted

EXEMPLARS = Path(__file__).parent.parent / "exemplars" / "audit" / "v1"

CALLER = Caller(
    "default",
    client="acme-support",
    user="u-7",
    team="care",
    roles=("care", "lead"),
    claims={"email": "planted@example.org"},
    purpose="support",
    issuer="https://idp.example",
    credential_id="k7",
    source="api_key",
)
PLAN = Plan(
    format=PLAN_FORMAT,
    policy="customer-data",
    version=7,
    route="customer",
    mode=Mode.ENFORCE,
    grants=("basics", "support-view"),
    unlisted=Unlisted.DROP,
    nodes=(Node(),),
    cells=(),
    steps=(),
    digest="d1ge57",
)


def a_line(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "time": "2026-11-20T10:00:00.000Z",
        "exchange_id": "ex1",
        "caller": CALLER,
        "route": "customer",
        "method": "GET",
        "plan": PLAN,
        "status": 200,
        "outcome": "forward",
        "techniques": {"email": {"clear": 60, "mask": 40}, "birth": {"year": 100}},
        "unlisted": 3,
        "people_clear": ("p1", "p2"),
        "people_protected": ("p3",),
        "budgets_crossed": ("support-view", "support-view"),
        "reidentified": {"account": 1},
        "duration_ms": 1.23456,
    }
    return exchange_record(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_record_is_the_exemplar():
    """The line is, byte for byte, what version 1 promised."""
    assert a_line() == (EXEMPLARS / "forward.json").read_bytes().rstrip(b"\n")


def test_a_refusal_is_the_exemplar():
    """A refusal before anything was decided keeps every member, empty."""
    line = a_line(
        caller=Caller("default"),
        plan=None,
        route="",
        status=401,
        outcome="refuse",
        error="identity.unknown_credential",
        techniques={},
        unlisted=0,
        people_clear=(),
        people_protected=(),
        budgets_crossed=(),
        reidentified={},
    )
    assert line == (EXEMPLARS / "refuse.json").read_bytes().rstrip(b"\n")


@pytest.mark.parametrize("path", sorted(EXEMPLARS.iterdir()), ids=lambda path: path.name)
def test_lines_that_releases_wrote_can_be_read(path):
    """Whatever version 1 ever wrote is read by this version."""
    assert isinstance(parse_record(path.read_bytes()), ExchangeRecord)


def test_what_is_written_is_read_back():
    """Every member comes back; a budget is named once."""
    record = parse_record(a_line())
    assert record.client == "acme-support"
    assert record.roles == ("care", "lead")
    assert record.plan == "d1ge57"
    assert record.techniques == {"email": {"clear": 60, "mask": 40}, "birth": {"year": 100}}
    assert record.unlisted == {"drop": 3}
    assert record.people.clear == ("p1", "p2")
    assert record.budgets_crossed == ("support-view",)
    assert record.error is None
    assert record.ms == 1.235


def test_claims_are_not_written():
    """A token's claims can hold anything; the audit names facts, not claims."""
    assert b"planted" not in a_line()
    assert b"idp.example" not in a_line()


def test_lists_of_people_are_cut_and_counts_are_not():
    """A page of 5,000 people leaves a line of bounded size with the true number."""
    record = parse_record(a_line(people_clear=tuple(f"p{n}" for n in range(5000))))
    assert record.people.clear_count == 5000
    assert record.people.clear == tuple(f"p{n}" for n in range(MAX_PEOPLE_LISTED))
    assert record.people.protected_count == 1


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_a_name_holds_a_record_is_one_line_of_json(text):
    """Line breaks, quotes and control characters in a fact can't forge a second record."""
    line = a_line(caller=Caller("t", client=text, user=text, roles=(text,)), method=text)
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line)["client"] == text
    assert parse_record(line).roles == (text,)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_other_lines_are_refused_without_quoting_them(data):
    """The reader says that it is no record, and nothing of what it read."""
    with pytest.raises(ValueError, match=r"^not an audit record$") as caught:
        parse_record(data)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "line",
    [a_line().replace(b'"v":1', b'"v":2'), a_line().replace(b'"forward"', b'"leaked"'), a_line()[:-1], b"[" * 100_000],
    ids=["version", "outcome", "cut", "brackets"],
)
def test_records_of_another_kind_are_refused(line):
    """Another version, an unknown outcome, a torn line, hostile nesting."""
    with pytest.raises(ValueError, match="audit record"):
        parse_record(line)


def test_members_of_later_releases_are_ignored():
    """A reader of this release reads lines with more members."""
    assert parse_record(a_line()[:-1] + b',"later":{"x":[1]}}').client == "acme-support"
