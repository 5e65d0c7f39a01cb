"""What a gate that is started anew runs by."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gharial.adapters.active_file import ActiveFile, ActiveTexts
from gharial.gate.publishing import PolicyText
from gharial.model.errors import GateUnavailable, StoreUnwritable


def test_what_is_kept_is_read_again(tmp_path: Path):
    """All texts come back as they were; nobody else may read the file."""
    path = tmp_path / "active.json"
    kept = ActiveFile(path, ActiveTexts("listen: 1\n", ()))
    kept.keep([PolicyText("a.yaml", "policy: ä\n"), PolicyText("b.yaml", "")])
    assert ActiveFile.load(path).texts == kept.texts
    assert kept.texts.config == "listen: 1\n"
    assert [one.file for one in kept.texts.policies] == ["a.yaml", "b.yaml"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["active.json"]


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"{",
        b'{"config":"\xff","policies":[]}',
        b'{"config":1,"policies":[]}',
        b'{"config":"","policies":[["a"]]}',
    ],
)
def test_what_is_not_that_keeps_the_gate_from_starting(tmp_path: Path, data: bytes | None):
    """A missing, cut or foreign file is no reason to run by the files instead."""
    path = tmp_path / "active.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(GateUnavailable, match="gharial up"):
        ActiveFile.load(path)


def test_what_can_not_be_kept_is_an_error_and_changes_nothing(tmp_path: Path):
    """A publication that would not survive the gate's death does not become active."""
    path = tmp_path / "active.json"
    kept = ActiveFile(path, ActiveTexts("", ()))
    kept.keep([PolicyText("a.yaml", "1")])
    (tmp_path / ".active.json.new").mkdir()
    with pytest.raises(StoreUnwritable):
        kept.keep([PolicyText("a.yaml", "2")])
    assert ActiveFile.load(path).texts == kept.texts == ActiveTexts("", (PolicyText("a.yaml", "1"),))
