"""Cases of `tests/corpus/plans`, run by one executor: what `README.md` there describes, as code."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gharial.crypto.kek import LocalKek
from gharial.crypto.keyfile import unwrap_keyset
from gharial.crypto.keyset import Keyset, parse_kek
from gharial.crypto.token import Recipient
from gharial.crypto.transform import transforms_for
from gharial.model.errors import GharialError
from gharial.model.finding import Limits, Transform
from gharial.model.plan import Op, Plan, load_plan
from gharial.payload.json_reader import JsonReader
from gharial.payload.reference_reader import ReferenceReader

TESTS = Path(__file__).resolve().parent.parent
CORPUS = TESTS / "corpus" / "plans"
GROWN = CORPUS / "grown"
RECIPIENT = {"tenant": "default", "client": "acme-billing", "team": "finance"}

Executor = type[JsonReader] | type[ReferenceReader]


def exemplar_keyset() -> Keyset:
    """The keyset of `tests/exemplars/keyset/v1/one_key.json`."""
    told = json.loads((TESTS / "exemplars" / "keyset" / "v1" / "one_key.json").read_text())
    return unwrap_keyset(told["key_file"].encode(), LocalKek(parse_kek(told["kek"])))


_KEYED = (Op.TOKEN, Op.FPE, Op.PSEUDONYM, Op.SUBSTITUTE, Op.DATE_SHIFT)
_KEYSET: list[Keyset] = []


def real_transforms(plan: Plan) -> Sequence[Transform]:
    """The techniques themselves, for the corpus' recipient."""
    if not any(step.op in _KEYED for step in plan.steps):
        return transforms_for(plan, None, None, bytes)  # type: ignore[arg-type]  # nothing here needs a key
    if not _KEYSET:
        _KEYSET.append(exemplar_keyset())
    return transforms_for(plan, _KEYSET[0], Recipient(**RECIPIENT), bytes)


def executors_of(plan: Plan) -> tuple[Executor, ...]:
    """The reference executor runs everything, the fast reader what does not need the reference."""
    return (ReferenceReader,) if plan.needs_reference else (ReferenceReader, JsonReader)


def run_case(executor: Executor, plan: Plan, body: bytes, limits: dict[str, int], variants: list[int] | None) -> Any:
    """Run one case; return what the corpus keeps of it. Without `variants` every scope gets variant 0."""
    reader = executor(plan, Limits(**limits))
    try:
        reader.feed(body)
        scopes = reader.survey()
        chosen = [0] * len(scopes) if variants is None else variants
        quick = reader.finish(chosen, real_transforms(plan))
        told = reader.finish(chosen, real_transforms(plan), want_places=True)
    except GharialError as refused:
        return {"error": refused.code}
    assert (quick.body, quick.counts, quick.unlisted) == (told.body, told.counts, told.unlisted)
    return {
        "output": told.body,
        "changed": told.changed,
        "unlisted": told.unlisted,
        "counts": {str(step): count for step, count in sorted(told.counts.items())},
        "scopes": [
            {
                "cells": sorted(scope.cells),
                "subjects": [list(subject) for subject in scope.subjects],
                "values": [[cell, str(kind), text] for cell, kind, text in scope.values],
            }
            for scope in scopes
        ],
        "findings": [[found.place, found.step, found.scope] for found in told.findings],
    }


def write_bytes(name: str, data: bytes) -> dict[str, str]:
    """A body as the corpus writes it: text if it is UTF-8, else base64."""
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode("ascii")}


def read_bytes(name: str, case: dict[str, Any]) -> bytes:
    """Undo `write_bytes`."""
    if name in case:
        return str(case[name]).encode("utf-8")
    return base64.b64decode(case[f"{name}_base64"])


def load_grown() -> list[dict[str, Any]]:
    """All cases of `grown/*.jsonl`, in the order of their ids."""
    return [json.loads(line) for path in sorted(GROWN.glob("*.jsonl")) for line in path.read_text().splitlines()]


def plan_of(case: dict[str, Any]) -> Plan:
    """The plan of a grown case."""
    return load_plan(msgspec.json.encode(case["plan"]))
