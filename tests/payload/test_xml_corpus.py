"""`tests/corpus/xml`: bodies in XML, what leaves of them, and why some do not leave at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.plans import transforms_of
from support.xml_plans import xml_plan

from gharial.model.errors import GharialError
from gharial.model.finding import Limits
from gharial.payload.xml_reader import XmlReader

CORPUS = Path(__file__).parents[1] / "corpus" / "xml"
CASES = sorted(folder for folder in CORPUS.iterdir() if folder.is_dir())


def _run(folder: Path) -> dict[str, bytes]:
    """Return the files that the case should have beside its input."""
    reader = XmlReader(xml_plan(**json.loads((folder / "case.json").read_text())), Limits())
    reader.feed((folder / "input.xml").read_bytes())
    try:
        scopes = reader.survey()
        written = reader.finish([0] * len(scopes), transforms_of(reader.plan), want_places=True)
    except GharialError as error:
        return {"error.txt": f"{error.code}: {error}\n".encode()}
    result = {
        "people": [list(map(list, scope.subjects)) for scope in scopes],
        "changed": written.changed,
        "counts": {reader.plan.steps[step].op: count for step, count in written.counts.items()},
        "unlisted": written.unlisted,
        "findings": [f"{f.place}: {reader.plan.steps[f.step].op}, scope {f.scope}" for f in written.findings],
    }
    return {"output.xml": written.body, "result.json": json.dumps(result, indent=1).encode() + b"\n"}


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_case(folder: Path, update_golden: bool) -> None:
    """The plan makes of the input exactly the output, or refuses with the error; what is marked never leaves."""
    files = _run(folder)
    for name in ("output.xml", "result.json", "error.txt"):
        if update_golden:
            (folder / name).unlink(missing_ok=True)
            if name in files:
                (folder / name).write_bytes(files[name])
        assert (folder / name).exists() == (name in files)
        if name in files:
            assert files[name] == (folder / name).read_bytes()
            assert b"MARK" not in files[name]
