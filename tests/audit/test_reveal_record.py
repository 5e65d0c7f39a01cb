"""What an audit line of the reveal API holds, and what it can never hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gharial.audit.record import parse_record
from gharial.audit.reveal_record import RevealedValue, RevealRecord, parse_reveal_record, reveal_record
from gharial.model.caller import Caller

EXEMPLARS = Path(__file__).parent.parent / "exemplars" / "reveal_record" / "v1"

CALLER = Caller(
    "default",
    client="acme-support",
    user="u-7",
    team="care",
    roles=("care", "lead"),
    claims={"email": "planted@example.org"},
    purpose="support",
    credential_id="k7",
    source="api_key",
)


def a_line() -> bytes:
    return reveal_record(
        time="2026-11-20T10:00:00.000Z",
        exchange_id="ex1",
        caller=CALLER,
        status=200,
        revealed=[RevealedValue("account", "d1ge57", "customer-data", 7, "grant:look-up")],
        refused=2,
        budgets_crossed=("look-up", "look-up"),
        duration_ms=1.23456,
    )


def test_the_line_is_the_one_that_releases_wrote():
    """Version 1 stays as it is, to the byte."""
    assert a_line() == (EXEMPLARS / "forward.json").read_bytes().rstrip(b"\n")


@pytest.mark.parametrize("path", sorted(EXEMPLARS.iterdir()), ids=lambda path: path.name)
def test_lines_that_releases_wrote_can_be_read(path: Path):
    """Whatever version 1 ever wrote is read, and never taken for an exchange."""
    line = path.read_bytes()
    assert isinstance(parse_reveal_record(line), RevealRecord)
    with pytest.raises(ValueError, match="not an audit record"):
        parse_record(line)


def test_claims_are_not_written_and_members_of_later_versions_are_ignored():
    """A claim may be a value; what is unknown is passed over."""
    assert b"planted" not in a_line()
    assert parse_reveal_record(a_line()[:-1] + b',"later":{}}').refused == 2


@pytest.mark.parametrize("change", [{"v": 2}, {"kind": "other"}, {"revealed": "all"}])
def test_what_is_no_such_line_is_refused_without_its_text(change: dict[str, object]):
    """Another version, another kind, another shape."""
    line = json.dumps({**json.loads(a_line()), **change, "note": "planted"}).encode()
    with pytest.raises(ValueError, match="record") as caught:
        parse_reveal_record(line)
    assert "planted" not in str(caught.value)
