"""`tests/corpus/plans`: cases that any executor of plans must pass.

A case is a folder: `case.json` says in words what it shows, and how `plan.json` was made; `plan.json` and `input.json`
go in, with `variants` (of the scopes, in their order) and the transforms of the steps, none of which needs a key;
`output.json` or `error.txt` (an error's code) comes out, byte for byte, and `result.json`: scopes, counts and places.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.plans import make_plan

from gharial.crypto.transform import transforms_for
from gharial.model.errors import GharialError
from gharial.model.finding import Limits
from gharial.model.plan import Plan, Step, Unlisted, load_plan
from gharial.payload.json_reader import JsonReader

CORPUS = Path(__file__).resolve().parent.parent / "corpus" / "plans"
CASES = sorted(folder for folder in CORPUS.iterdir() if (folder / "case.json").exists())


def run(plan: Plan, case: dict[str, Any], body: bytes) -> tuple[bytes, dict[str, Any]]:
    reader = JsonReader(plan, Limits(**case.get("limits", {})))
    reader.feed(body)
    scopes = reader.survey()
    variants = case.get("variants", [0] * len(scopes))
    transforms = transforms_for(plan, None, None)  # type: ignore[arg-type]  # no step of these needs a key
    quick = reader.finish(variants, transforms)
    told = reader.finish(variants, transforms, want_places=True)
    assert (quick.body, quick.counts, quick.unlisted) == (told.body, told.counts, told.unlisted)
    return told.body, {
        "changed": told.changed,
        "unlisted": told.unlisted,
        "counts": {str(step): count for step, count in sorted(told.counts.items())},
        "scopes": [{"cells": sorted(scope.cells), "subjects": [list(s) for s in scope.subjects]} for scope in scopes],
        "findings": [[found.place, found.step, found.scope] for found in told.findings],
    }


def build(case: dict[str, Any]) -> Plan:
    """Make the plan that a case describes."""

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


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_case(folder: Path, update_golden: bool) -> None:
    """The case's plan makes of its input exactly its output, or refuses with its error."""
    case = json.loads((folder / "case.json").read_text())
    if update_golden:
        (folder / "plan.json").write_bytes(msgspec.json.format(msgspec.json.encode(build(case)), indent=1) + b"\n")
    plan = load_plan((folder / "plan.json").read_bytes())
    output, error, result = folder / "output.json", folder / "error.txt", folder / "result.json"
    try:
        body, told = run(plan, case, (folder / "input.json").read_bytes())
    except GharialError as refused:
        if update_golden:
            error.write_text(refused.code + "\n")
            output.unlink(missing_ok=True)
            result.unlink(missing_ok=True)
        code = refused.code
    else:
        if update_golden:
            output.write_bytes(body)
            result.write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")
            error.unlink(missing_ok=True)
        assert body == output.read_bytes()
        assert told == json.loads(result.read_bytes())
        return
    assert error.read_text() == code + "\n"


def test_there_are_cases() -> None:
    """An empty folder would pass for a green one."""
    assert len(CASES) >= 30
