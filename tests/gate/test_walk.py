"""The walk along a body for recordings agrees with the reader about records and cells, and tells no data."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.documents import documents, pages, plans
from support.effort import examples
from support.plans import make_plan, transforms_of

from gharial.gate.walk import MAX_ALIKE, walk
from gharial.model.errors import GharialError
from gharial.model.finding import Limits
from gharial.model.plan import NONE, Op, Plan
from gharial.model.recording import JsonType
from gharial.payload.json_reader import JsonReader
from gharial.payload.program import program_of

DETECTORS = ("card", "email", "iban", "ip", "phone")


@given(plans(), st.one_of(documents(), pages()))
@settings(max_examples=examples(400))
def test_the_walk_finds_the_scopes_that_the_reader_finds(plan: Plan, text: str):
    """Same number, same order, same cells, and named or not alike: else facts would go to the wrong people."""
    reader = JsonReader(plan, Limits())
    reader.feed(text.encode("utf-8", "surrogatepass"))
    try:
        scopes = reader.survey()
    except GharialError:
        return
    found = walk(program_of(plan), text.encode(), max_places=10**6)
    mine = [(frozenset(s.cells), s.named) for s in found.scopes if s.cells]
    assert mine == [(scope.cells, bool(scope.subjects)) for scope in scopes]


@given(plans(), st.one_of(documents(), pages()), st.data())
@settings(max_examples=examples(300))
def test_the_walk_knows_what_the_reader_did(plan: Plan, text: str, data: st.DataObject):
    """Each finding of the reader is what the cells of the leaves in that place say, in the variant of their scope."""
    reader = JsonReader(plan, Limits())
    reader.feed(text.encode("utf-8", "surrogatepass"))
    try:
        scopes = reader.survey()
        variants = [data.draw(st.integers(0, len(plan.variants) - 1)) for _ in scopes]
        written = reader.finish(variants, transforms_of(plan), want_places=True)
    except GharialError:
        return
    found = walk(program_of(plan), text.encode(), max_places=10**6)
    variant_of = dict(zip((n for n, s in enumerate(found.scopes) if s.cells), variants, strict=True))
    held = {finding.place: finding.step for finding in written.findings}
    for leaf in found.leaves:
        where = leaf.where
        while where is not None and where.exact not in held:
            where = where.around
        steps = [plan.cells[cell].steps[variant_of[scope]] for cell, scope in leaf.containers]
        gone = [step for step in steps if plan.steps[step].op is Op.DROP]
        if gone:
            assert where is not None
            assert held[where.exact] in gone
        elif leaf.cell != NONE and where is not None:
            assert plan.cells[leaf.cell].steps[variant_of[leaf.scope]] == held[where.exact]
        else:
            assert where is None


@pytest.mark.parametrize(
    ("text", "types"),
    [
        (
            '["a", "", 1, -1.5e3, true, false, null, {}, []]',
            "string empty number number boolean boolean null object array",
        ),
        ('["{}", "{\\"a\\":1}", " [1]", "{", "[x"]', "json json json string string"),
        ('"x"', "string"),
        ("{}", "object"),
    ],
)
def test_types(text: str, types: str):
    """Each leaf has its type; a string that holds JSON is told from one that only looks so."""
    found = walk(program_of(make_plan({"$.x": Op.CLEAR})), text.encode())
    assert [str(leaf.type) for leaf in found.leaves] == types.split()


def paths(document: object, plan: Plan | None = None, **how: int) -> list[str]:
    program = program_of(plan or make_plan({"$.x": Op.CLEAR}))
    return [leaf.where.safe for leaf in walk(program, json.dumps(document).encode(), **how).leaves]


def test_names_that_look_like_data_are_not_told():
    """Addresses and numbers as keys become `*`; names of fields stay."""
    assert paths({"ann@ex.org": 1, "4711": {"plan": 2}, "iso3166": 3, "DE02120300000000202051": 4, "a b": 5}) == [
        "$.*", "$.*.plan", "$.iso3166", "$.*", "$.*",
    ]  # fmt: skip


def test_a_name_of_the_policy_is_told_whatever_it_looks_like():
    """The policy's author wrote it already; it is told as the policy has it."""
    assert paths({"E-Mail Büro": 1, "X 2": 2}, make_plan({"$['e-mail büro']": Op.CLEAR})) == ["$['e-mail büro']", "$.*"]


def test_an_object_with_very_many_members_of_one_type_is_a_table_whose_keys_are_data():
    """Keys such as user names read like names of fields; a large map of them is hidden but for the policy's names."""
    table = {f"user{chr(97 + n % 26)}{chr(97 + n // 26)}": {"plan": n} for n in range(MAX_ALIKE + 1)}
    plan = make_plan({"$.t.total": Op.CLEAR})
    found = walk(program_of(plan), json.dumps({"t": {"total": 1, **table}}).encode())
    assert {leaf.where.safe for leaf in found.leaves} == {"$.t.total", "$.t.*.plan"}
    assert found.hidden == {"$.t": frozenset({"total"})}


def test_more_places_than_are_wanted_are_cut_and_it_is_said():
    """A body of a million values costs no more than its first places."""
    found = walk(program_of(make_plan({"$.x": Op.CLEAR})), json.dumps(list(range(100))).encode(), max_places=10)
    assert (len(found.leaves), found.cut) == (10, True)


def test_json_in_strings_is_walked_as_deep_as_the_policy_opens_it():
    """One level is opened where one is asked for; what lies deeper is a string that holds JSON."""
    inner = json.dumps({"email": "a@ex.org", "more": json.dumps({"x": 1})})
    program = program_of(make_plan({"$..email": Op.CLEAR}))
    none = walk(program, json.dumps({"p": inner}).encode())
    assert [(leaf.where.safe, leaf.type) for leaf in none.leaves] == [("$.p", JsonType.JSON)]
    one = walk(program, json.dumps({"p": inner}).encode(), json_levels=1)
    assert [(leaf.where.safe, leaf.type) for leaf in one.leaves] == [
        ("$.p.email", JsonType.STRING), ("$.p.more", JsonType.JSON),
    ]  # fmt: skip


def test_detectors_look_at_strings_and_numbers():
    """A hit is told by the detector's name."""
    body = json.dumps(["ann@ex.org", "DE02120300000000202051", 4111111111111111, "plain", True]).encode()
    found = walk(program_of(make_plan({"$.x": Op.CLEAR})), body, detectors=DETECTORS)
    assert [leaf.detectors for leaf in found.leaves] == [("email",), ("iban",), ("card",), (), ()]


def test_a_body_that_python_cant_follow_is_cut():
    """Depth never ends the recording."""
    found = walk(program_of(make_plan({"$.x": Op.CLEAR})), b"[" * 800 + b"]" * 800)
    assert found.cut or len(found.leaves) == 1
