"""docs/keys-and-tokens.md tells the truth: its examples run, and its tables are complete."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from gharial.crypto.keyset import KeyState, Purpose, create_keyset
from gharial.crypto.transform import Recipient, transforms_for
from gharial.model.finding import Kind
from gharial.model.plan import PLAN_FORMAT, Mode, Op, Plan, Step, Unlisted

PAGE = (Path(__file__).parents[2] / "docs" / "keys-and-tokens.md").read_text()
ROWS = re.findall(r"^\| `([a-z_]+)(?:\((.*?)\))?` \| `(.+?)` \| `(.+?)` \|$", PAGE, re.MULTILINE)


def as_leaf(literal: str) -> tuple[Kind, str]:
    """Return type and text of a JSON literal, a number's digit for digit."""
    if literal == "null":
        return Kind.NULL, ""
    if literal in ("true", "false"):
        return Kind.BOOLEAN, literal
    return (Kind.STRING, json.loads(literal)) if literal.startswith('"') else (Kind.NUMBER, literal)


def test_the_page_has_examples():
    """The examples are found on the page, those of every technique that has a fixed result."""
    assert len(ROWS) >= 20
    assert {name for name, *_ in ROWS} == {op.value for op in Op} - {"drop"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} of {row[2]}")
def test_an_example_of_the_page_is_what_happens(row):
    """What the page says comes out is what comes out."""
    name, args, value, want = row
    pairs = [arg.split("=") for arg in (args or "").split(", ") if arg]
    step = Step(Op(name), "t", "r", tuple((key, int(text) if text.isdigit() else text) for key, text in pairs))
    plan = Plan(PLAN_FORMAT, "p", 1, "r", Mode.ENFORCE, (), Unlisted.DROP, (), (), (step,))
    keyset = create_keyset(random.Random(51).randbytes, 0)
    (transform,) = transforms_for(plan, keyset, Recipient("t", "c", ""), bytes)
    assert transform(*as_leaf(value)) == as_leaf(want)


def test_every_technique_purpose_and_state_is_on_the_page():
    """Nothing is added to these closed sets without a line in the docs."""
    for value in (*Op, *Purpose, *KeyState):
        assert f"`{value.value}`" in PAGE
