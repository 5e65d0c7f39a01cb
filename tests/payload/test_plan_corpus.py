"""`tests/corpus/plans`: cases that any executor of plans must pass, through each executor there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.plan_cases import CORPUS, executors_of, load_grown, plan_of, read_bytes, run_case
from support.plans import make_plan

from gharial.model.plan import Plan, Step, Unlisted, load_plan
from gharial.payload.json_reader import JsonReader
from gharial.payload.reference_reader import ReferenceReader

FOLDERS = sorted(folder for folder in CORPUS.iterdir() if (folder / "case.json").exists())
GROWN = load_grown()


def build(case: dict[str, Any]) -> Plan:
    """Make the plan that a folder's case describes."""

    variants = case.get("of", 1)
    show = {
        path: [_step(one) for one in (written if isinstance(written, list) else [written] * variants)]
        for path, written in case["show"].items()
    }
    return make_plan(
        show, subjects=case.get("subjects"), unlisted=Unlisted(case.get("unlisted", "drop")), variants=variants
    )


def _step(written: Any) -> Step:
    parts = dict(written) if isinstance(written, dict) else {"op": written}
    return msgspec.convert({"op": parts.pop("op"), "tag": "tag", "rule": "test", "args": sorted(parts.items())}, Step)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_case_of_a_folder(folder: Path, update_golden: bool) -> None:
    """The case's plan makes of its input exactly its output, or refuses with its error, whoever runs it."""
    case = json.loads((folder / "case.json").read_text())
    if update_golden:
        (folder / "plan.json").write_bytes(msgspec.json.format(msgspec.json.encode(build(case)), indent=1) + b"\n")
    plan = load_plan((folder / "plan.json").read_bytes())
    output, error, result = folder / "output.json", folder / "error.txt", folder / "result.json"
    for executor in executors_of(plan):
        body = (folder / "input.json").read_bytes()
        told = run_case(executor, plan, body, case.get("limits", {}), case.get("variants"))
        if "error" in told:
            if update_golden:
                error.write_text(told["error"] + "\n")
                output.unlink(missing_ok=True)
                result.unlink(missing_ok=True)
            assert error.read_text() == told["error"] + "\n"
            continue
        written = told.pop("output")
        for scope in told["scopes"]:
            assert scope.pop("values") == []  # no case of a folder reports any
        if update_golden:
            output.write_bytes(written)
            result.write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")
            error.unlink(missing_ok=True)
        assert written == output.read_bytes()
        assert told == json.loads(result.read_bytes())


@pytest.mark.parametrize("case", GROWN, ids=lambda case: case["id"])
def test_grown_case(case: dict[str, Any]) -> None:
    """Body, counts, places, scopes and reported values are those that are kept, whoever runs it."""
    plan = plan_of(case)
    for executor in executors_of(plan):
        told = run_case(executor, plan, read_bytes("input", case), case.get("limits", {}), case.get("variants"))
        if "error" not in told:
            assert told.pop("output") == read_bytes("output", case)
        assert told == {name: case[name] for name in told}
        assert ("error" in told) == ("error" in case)


def test_there_are_cases() -> None:
    """An empty folder would pass for a green one, and so would one that shows nothing of a part of the language."""
    assert len(FOLDERS) + len(GROWN) >= 300
    assert len({case["id"] for case in GROWN}) == len(GROWN)
    plans = [plan_of(case) for case in GROWN]
    for executor in (ReferenceReader, JsonReader):
        assert sum(executor in executors_of(plan) for plan in plans) >= 100
    assert {plan.unlisted for plan in plans} == set(Unlisted)
    assert {kind for case in GROWN for scope in case.get("scopes", ()) for _, kind, _ in scope["values"]} == set("snb0")
    assert any(variant.holds for plan in plans for variant in plan.variants)
    assert any(plan.json_in_strings for plan in plans)
    extras = [extra for plan in plans for extra in plan.extras]
    assert {"email", "phone", "card", "iban", "ip"} <= {extra.detector for extra in extras}
    assert any(extra.general for extra in extras)
    assert any(extra.where for extra in extras)
    assert any(extra.keys for extra in extras)
    errors = {case["error"] for case in GROWN if "error" in case}
    assert {
        "body.malformed",
        "body.duplicate_name",
        "body.too_deep",
        "body.too_large",
        "body.too_many_values",
    } <= errors
