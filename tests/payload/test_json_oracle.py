"""The reader against a slow, independent executor, on random documents and random plans."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.documents import documents, plans
from support.json_oracle import Oracle, Refused
from support.plans import transforms_of

from gharial.model.errors import GharialError
from gharial.model.finding import Limits
from gharial.model.plan import Plan
from gharial.payload.json_reader import JsonReader

LIMITS = Limits()
MANY = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def surveyed(plan: Plan, text: str) -> JsonReader:
    reader = JsonReader(plan, LIMITS)
    reader.feed(text.encode())
    reader.survey()
    return reader


@MANY
@given(documents(), plans(), st.data())
def test_the_reader_agrees_with_the_oracle_byte_for_byte(text: str, plan: Plan, data: Any) -> None:
    """Scopes, body, counts, unlisted and places are those of the plain executor, or both refuse alike."""
    try:
        oracle = Oracle(plan, text)
    except Refused as refused:
        reader = JsonReader(plan, LIMITS)
        reader.feed(text.encode())
        try:
            reader.survey()
        except GharialError as error:
            assert error.code == str(refused)
            return
        raise AssertionError("only the oracle refused") from None
    reader = surveyed(plan, text)
    assert [(set(s.cells), list(s.subjects)) for s in reader.survey()] == [
        (oracle.seen[at].cells, oracle.seen[at].subjects) for at in oracle.reported
    ]
    variants = [data.draw(st.integers(0, len(plan.variants) - 1)) for _ in oracle.reported]
    try:
        want = oracle.finish(variants, transforms_of(plan))
    except Refused as refused:
        try:
            reader.finish(variants, transforms_of(plan))
        except GharialError as error:
            assert error.code == str(refused)
            return
        raise AssertionError("only the oracle refused") from None
    for want_places in (False, True):
        got = reader.finish(variants, transforms_of(plan), want_places=want_places)
        assert got.body.decode() == want.text
        assert (got.changed, got.counts, got.unlisted) == (want.changed, want.counts, want.unlisted)
        if want_places:
            assert {(f.place, f.step, f.scope) for f in got.findings} == want.places
            assert len(got.findings) == sum(got.counts.values())
