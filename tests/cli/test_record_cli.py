"""`gharial policy replay` and `gharial record` as people and CI use them: text, JSON, exit status, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gharial.cli import main

CORPUS = Path(__file__).parents[1] / "corpus/recordings"
TRAFFIC = CORPUS / "traffic.jsonl"
"""Written by the first version of the format; never written again, so that it stays readable."""
OLD, NEW = CORPUS / "old.yaml", CORPUS / "new.yaml"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def replay(*words: str | Path) -> Result:
    return run("policy", "replay", *words)


@pytest.mark.parametrize("name", ["old", "new"])
def test_the_table_is_the_golden_one(name: str, update_golden: bool):
    """What people read is exactly what a person has read before."""
    path = CORPUS / f"{name}.txt"
    text = "\n".join(line.rstrip() for line in replay(TRAFFIC, CORPUS / f"{name}.yaml").output.splitlines()) + "\n"
    if update_golden:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_json_has_what_the_table_has():
    """Scripts get every row and change, with the same sums."""
    found = json.loads(replay(TRAFFIC, NEW, "--json").stdout)
    assert found["exchanges"] == 9
    columns = ("same", "more_open", "stricter", "other", "unknown")
    assert sum(row[name] for row in found["rows"] for name in columns) == found["places"] + 1  # and a token
    assert {change["way"] for change in found["changes"]} == {"more_open", "stricter", "unknown"}
    assert found["broken_lines"] == 0


def test_the_status_tells_a_pipeline(tmp_path: Path):
    """0 whatever changes; 3 only where it was asked for and something is or may be more open."""
    assert replay(TRAFFIC, NEW).exit_code == 0
    assert replay(TRAFFIC, NEW, "--fail-if-more-open").exit_code == 3
    assert replay(TRAFFIC, OLD, "--fail-if-more-open").exit_code == 0
    stricter = tmp_path / "stricter.yaml"
    stricter.write_text(OLD.read_text().replace("phone: mask(last=4), birth", "phone: mask, birth"))
    assert "84 same, 5 stricter" in replay(TRAFFIC, stricter).output
    assert replay(TRAFFIC, stricter, "--fail-if-more-open").exit_code == 0


def test_broken_lines_are_named_by_their_number(tmp_path: Path):
    """Each one, all at once, and nothing of what is in them; --skip-broken leaves them out and says how many."""
    lines = TRAFFIC.read_bytes().splitlines(keepends=True)
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"".join([lines[0], b"secret{\n", lines[1], b'{"v":1,"x":"secret"}\n', lines[2][:-50]]))
    said = replay(path, NEW)
    assert said.exit_code == 1
    assert [line.split(": ")[1].removeprefix(f"{path}:") for line in said.stderr.splitlines()] == ["2:1", "4:1", "5:1"]
    assert "secret" not in said.output
    skipped = replay(path, NEW, "--skip-broken")
    assert skipped.exit_code == 0
    assert "3 broken lines were left out" in skipped.stderr
    assert "2 exchanges" in skipped.output


@pytest.mark.parametrize(
    "line",
    [
        b'{"v":1}',
        b"[]",
        b"\xff\xfe",
        b"[" * 5_000,
        b"",
        TRAFFIC.read_bytes().splitlines()[0].replace(b'["$.customerId","number",0,0', b'["$.customerId","number",7,0'),
        TRAFFIC.read_bytes().splitlines()[0].replace(b'["$.customerId","number",0,0', b'["$.customerId","number",0,99'),
        TRAFFIC.read_bytes().splitlines()[0].replace(b'["$.customerId"', b'["$..customerId"'),
        TRAFFIC.read_bytes().splitlines()[0].replace(b'["$.customerId"', b'["customerId"'),
    ],
)
def test_whatever_stands_in_a_line_is_an_error_with_its_number(tmp_path: Path, line: bytes):
    """No line makes a traceback: not a wrong shape, not an index that leads nowhere, not a path that is none."""
    assert line not in TRAFFIC.read_bytes().splitlines()
    path = tmp_path / "r.jsonl"
    path.write_bytes(TRAFFIC.read_bytes() + line + b"\n")
    said = replay(path, NEW)
    assert said.exit_code == 1
    assert f"{path}:10:1:" in said.stderr
    assert "Traceback" not in said.output


def test_another_version_is_never_skipped(tmp_path: Path):
    """What this Gharial does not know it does not count, and does not leave out in silence."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(TRAFFIC.read_bytes().replace(b'{"v":1,', b'{"v":2,', 1))
    for said in (replay(path, NEW), replay(path, NEW, "--skip-broken")):
        assert said.exit_code == 1
        assert "a recording of version 2" in said.stderr


def test_a_recording_of_other_policies_is_an_error_that_names_them(tmp_path: Path):
    """An empty comparison must not look like "nothing changes"."""
    other = tmp_path / "other.yaml"
    other.write_text(NEW.read_text().replace("policy: desk", "policy: till"))
    said = replay(TRAFFIC, other)
    assert said.exit_code == 1
    assert "it holds desk" in said.stderr
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    assert replay(empty, NEW).exit_code == 1
    assert replay(tmp_path / "missing.jsonl", NEW).exit_code == 1


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ((), 2),
        (("--out", "x", "--stop"), 2),
        (("--out", "x", "--for", "often"), 1),
        (("--out", "x", "--max-size", "big"), 1),
        (("--out", "x"), 1),
    ],
)
def test_record_says_what_is_wrong_with_its_words(tmp_path: Path, words: tuple[str, ...], status: int):
    """Neither file nor --stop, both, a time that is none, no gateway: said in a line, with a status."""
    config = tmp_path / "gharial.yaml"
    config.write_text(
        "listen: { port: 1 }\nupstreams: { api: { url: 'http://127.0.0.1:9' } }\n"
        "routes: [ { route: r, match: 'ANY /**', upstream: api, policy: desk } ]\n"
        "policies: [p.yaml]\nkeys: { file: k, kek: 'env:K' }\n"
    )
    said = run("record", *words, "-c", config)
    assert said.exit_code == status
    assert "Traceback" not in said.output
