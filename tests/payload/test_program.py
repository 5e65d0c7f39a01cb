"""A plan is checked before it is followed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from support.plans import make_plan, transforms_of

from gharial.model.finding import Limits
from gharial.model.plan import Cell, Node, Op, Plan, Redaction
from gharial.payload.json_reader import JsonReader
from gharial.payload.program import Program, program_of

PLAN = make_plan({"$.email": Op.MASK})


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"nodes": ()},
        {"variants": ()},
        {"nodes": (Node(names={"a": 7}),)},
        {"nodes": (Node(names={"a": -2}),)},
        {"nodes": (Node(indexes={0: 1}),)},
        {"nodes": (Node(other_name=1),)},
        {"nodes": (Node(other_index=1),)},
        {"nodes": (Node(cell=1),)},
        {"nodes": (Node(cell=-2),)},
        {"nodes": (Node(names={"Email": 0}),)},
        {"cells": (Cell(tag="t", steps=()),)},
        {"cells": (Cell(tag="t", steps=(0, 0)),)},
        {"cells": (Cell(tag="t", steps=(1,)),)},
        {"cells": (Cell(tag="t", steps=(-1,)),)},
        {"redaction": Redaction(number="none")},
        {"redaction": Redaction(boolean="0")},
    ],
)
def test_a_plan_that_is_not_consistent_is_refused(change: dict[str, object]) -> None:
    """An index that leads nowhere, or a name that would never match, is a bug and not a way through."""
    with pytest.raises(ValueError, match=r"\w"):
        Program(msgspec.structs.replace(PLAN, **change))


def test_a_plan_is_made_ready_once() -> None:
    """The same plan object gives the same program; an equal one its own."""
    assert program_of(PLAN) is program_of(PLAN)
    assert program_of(msgspec.structs.replace(PLAN)) is not program_of(PLAN)


def test_plans_come_and_go_without_being_mixed_up() -> None:
    """An identity that Python gives out again never means another plan."""

    def fresh(at: int) -> Plan:
        return make_plan({f"$.f{at}": Op.MASK})

    for at in range(2000):
        plan = fresh(at)
        assert program_of(plan).plan is plan


def test_readers_in_several_threads_share_a_program() -> None:
    """A program is looked up further while others follow it, and programs are forgotten meanwhile."""

    def work(at: int) -> bytes:
        other = make_plan({f"$..f{at}": Op.MASK})
        out = b""
        for plan in (PLAN, other, shared):
            reader = JsonReader(plan, Limits())
            reader.feed(b'[{"email":"a@b.org","f":[{"email":"c@d.org"}]}]')
            out = reader.finish([0] * len(reader.survey()), transforms_of(plan)).body
        return out

    for _ in range(20):
        shared = make_plan({"$..email": Op.MASK, "$..f..email": Op.DROP})
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(work, range(40))) == {b'[{"email":"***","f":[]}]'}


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"email":"a","page":1}', True),
        (b'{"email":"a","accountNumber":{}}', True),
        (b'{"ann@ex.org":{}}', False),
        (b'{"email":"a","C-0042":1}', False),
        ('{"email":"a","Zoë":1}'.encode(), False),
        (b'{"' + b"x" * 41 + b'":1}', False),
    ],
)
def test_only_names_that_look_like_fields_are_kept_for_the_next_body(body: bytes, kept: bool) -> None:
    """Names may be data (a member for each person); of those a program remembers nothing."""
    program = program_of(plan := make_plan({"$.email": Op.MASK}))
    reader = JsonReader(plan, Limits())
    reader.feed(body)
    reader.survey()
    assert bool(program.shapes) is kept


def test_what_is_kept_for_the_next_body_is_bounded() -> None:
    """An upstream that names its fields anew each time can't fill the memory."""
    plan = make_plan({"$.email": Op.MASK})
    for number in range(1500):
        name = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        reader = JsonReader(plan, Limits())
        reader.feed(b'{"email":"x","' + name.encode() + b'":1}')
        reader.survey()
    assert 0 < len(program_of(plan).shapes) <= 256
