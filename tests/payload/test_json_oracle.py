"""The reader against a slow, independent executor, on random documents and random plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.documents import documents, pages, plans
from support.effort import examples
from support.json_oracle import Oracle, Refused
from support.plans import transforms_of

from gharial.model.errors import GharialError
from gharial.model.finding import Limits
from gharial.model.plan import Plan
from gharial.payload.json_reader import JsonReader
from gharial.payload.reference_reader import ReferenceReader

LIMITS = Limits()
MANY = settings(max_examples=examples(600), suppress_health_check=[HealthCheck.too_slow])


EXECUTORS = pytest.mark.parametrize("executor", [JsonReader, ReferenceReader])


def surveyed(executor: type[JsonReader | ReferenceReader], plan: Plan, text: str) -> JsonReader | ReferenceReader:
    reader = executor(plan, LIMITS)
    reader.feed(text.encode())
    reader.survey()
    return reader


def refusal(work: Callable[[], object]) -> str:
    """The code of the error that `work` ends with."""
    with pytest.raises((GharialError, Refused)) as caught:
        work()
    return caught.value.code if isinstance(caught.value, GharialError) else str(caught.value)


@EXECUTORS
@MANY
@given(st.one_of(documents(), pages()), plans(), st.data())
def test_the_reader_agrees_with_the_oracle_byte_for_byte(
    executor: type[JsonReader | ReferenceReader], text: str, plan: Plan, data: Any
) -> None:
    """Scopes, body, counts, unlisted and places are those of the plain executor, or both refuse alike."""
    try:
        oracle = Oracle(plan, text)
    except Refused as refused:
        code = str(refused)
        assert refusal(lambda: surveyed(executor, plan, text)) == code
        return
    reader = surveyed(executor, plan, text)
    assert [(set(s.cells), list(s.subjects), list(s.values)) for s in reader.survey()] == [
        (oracle.seen[at].cells, oracle.seen[at].subjects, oracle.seen[at].values) for at in oracle.reported
    ]
    variants = [data.draw(st.integers(0, len(plan.variants) - 1)) for _ in oracle.reported]
    try:
        want = oracle.finish(variants, transforms_of(plan))
    except Refused as refused:
        code = str(refused)
        assert refusal(lambda: reader.finish(variants, transforms_of(plan))) == code
        return
    for want_places in (False, True):
        got = reader.finish(variants, transforms_of(plan), want_places=want_places)
        assert got.body.decode() == want.text
        assert (got.changed, got.counts, got.unlisted) == (want.changed, want.counts, want.unlisted)
        if want_places:
            assert {(f.place, f.step, f.scope) for f in got.findings} == want.places
            assert len(got.findings) == sum(got.counts.values())
