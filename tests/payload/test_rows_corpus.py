"""`tests/corpus/rows`: bodies of rows and tables, what must leave of them, or why they are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.plans import make_plan, transforms_of

from gharial.model.errors import GharialError
from gharial.model.finding import Limits
from gharial.model.plan import Op, Unlisted
from gharial.payload.media import choose_reader
from gharial.payload.rewrite import open_body

CORPUS = Path(__file__).resolve().parent.parent / "corpus" / "rows"
FOLDERS = sorted(CORPUS.iterdir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_case_of_a_folder(folder: Path, update_golden: bool) -> None:
    """The case's plan makes of its input exactly its output, or refuses it with its code."""
    case = json.loads((folder / "case.json").read_text())
    show = {path: Op(op) for path, op in case["show"].items()}
    plan = make_plan(show, subjects=case.get("subjects"), unlisted=Unlisted(case.get("unlisted", "drop")))
    try:
        media = choose_reader([("content-type", case["type"])])
        reader = open_body(plan, media, (folder / "input.txt").read_bytes(), Limits())
        scopes = reader.survey()
        name, found = "output.txt", reader.finish([0] * len(scopes), transforms_of(plan)).body
    except GharialError as refused:
        name, found = "error.txt", refused.code.encode() + b"\n"
    if update_golden:
        (folder / name).write_bytes(found)
    assert {file.name for file in folder.iterdir()} == {"case.json", "input.txt", name}
    assert found == (folder / name).read_bytes()
