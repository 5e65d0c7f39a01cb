"""`gharial protect`: whole documents or nothing, rows one by one, and an exit status that scripts can trust."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import click.testing
import pytest
from support.embedded import audit_of, write_home
from support.gateway import MARK, PLANTED, POLICY, customer, people_in_clear

import gharial
from gharial.cli import main
from gharial.wiring.protecting import Asking, Protector, Rows

CLERK = ("--as", "care", "--for", "support")


@pytest.fixture
def policy(tmp_path: Path) -> str:
    (tmp_path / "policy.yaml").write_text(POLICY)
    return str(tmp_path / "policy.yaml")


def run(*words: str | Path, given: bytes = b"") -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["protect", *map(str, words)], input=given)


def written(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_document_from_a_file_is_printed(tmp_path: Path, policy: str):
    """What the clerk may see comes out, as the library gives it, with a line break."""
    file = written(tmp_path / "answer.json", customer(3))
    result = run(file, "--policy", policy, *CLERK)
    assert result.exit_code == 0, result.stderr
    with gharial.load(policy, ephemeral=True) as gate:
        wanted = gate.protect(file.read_text(), caller=gharial.Caller(roles=["care"], purpose="support"))
    assert result.stdout == wanted + "\n"
    assert "this run alone" in result.stderr


def test_a_document_from_a_pipe_is_printed_for_stated_facts(policy: str):
    """`-` is standard input, and facts stand where a name could."""
    result = run("-", "--policy", policy, "--as", "role=auditor,client=x", given=json.dumps(customer(3)).encode())
    assert json.loads(result.stdout)["accountNumber"] == customer(3)["accountNumber"]


@pytest.mark.parametrize("text", ["", "{", f'{{"a": "{MARK}"}} x', f'{{"a": 1, "a": "{MARK}"}}'])
def test_a_broken_document_leaves_nothing(tmp_path: Path, policy: str, text: str):
    """Nothing is printed or written, what stood at the output stays, the status is 1, and no value is quoted."""
    file = written(tmp_path / "broken.json", text)
    out = written(tmp_path / "out.json", "before")
    for words in ([], ["-o", out]):
        result = run(file, "--policy", policy, *CLERK, *words)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "body." in result.stderr
        assert MARK not in result.stderr
    assert out.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.json", "out.json", "policy.yaml"]


def test_an_output_file_is_private_and_replaced(tmp_path: Path, policy: str):
    """It comes to stand there as a whole, mode 0600; it may even be the input."""
    file = written(tmp_path / "answer.json", customer(3))
    result = run(file, "--policy", policy, "--as", "anyone", "-o", file)
    assert (result.exit_code, result.stdout) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(needle in file.read_bytes() for needle in PLANTED)
    assert json.loads(file.read_text())["plan"] == "magenta"


def test_an_output_that_cannot_be_written_is_said(tmp_path: Path, policy: str):
    """A folder that is not there: status 1 and the error's code."""
    file = written(tmp_path / "answer.json", {})
    result = run(file, "--policy", policy, "--as", "anyone", "-o", tmp_path / "no" / "out.json")
    assert result.exit_code == 1
    assert "embedded.output" in result.stderr


def rows_of(*rows: object) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def test_rows_are_protected_one_by_one(tmp_path: Path, policy: str):
    """Each row comes out as a row, in order; blank lines and CR are no rows; the last needs no line break."""
    text = rows_of(customer(1), "", customer(2)).replace("\n", "\r\n") + json.dumps(customer(3))
    result = run(written(tmp_path / "rows.jsonl", text), "--policy", policy, *CLERK)
    assert result.exit_code == 0, result.stderr
    assert [json.loads(line)["fullName"] for line in result.stdout.splitlines()] == [
        customer(n)["fullName"] for n in (1, 2, 3)
    ]


def test_a_broken_row_is_left_out_and_counted(tmp_path: Path, policy: str):
    """The rows around it come, it does not, and the exit status is 1, to a file as to standard output."""
    rows = [customer(1), f'{{"fullName": "{MARK}"', customer(2), f'"{MARK}" "{MARK}"', f'{{"a":"{MARK}","a":2}}']
    file = written(tmp_path / "rows.ndjson", rows_of(*rows))
    out = tmp_path / "out.ndjson"
    to_file = run(file, "--policy", policy, "--as", "anyone", "-o", out)
    result = run(file, "--policy", policy, "--as", "anyone")
    assert (result.exit_code, to_file.exit_code, to_file.stdout) == (1, 1, "")
    assert len(result.stdout.splitlines()) == len(out.read_text().splitlines()) == 2
    assert "row 2 is refused (body.malformed)" in result.stderr
    assert "3 of 5 rows are refused" in result.stderr
    assert not any(needle in (result.output + out.read_text()).encode() for needle in PLANTED)


def test_a_row_beyond_the_limit_is_left_out_and_the_next_ones_come(tmp_path: Path):
    """A row longer than `limits.body` is never held; what follows it is read from its own beginning."""
    config = write_home(tmp_path, limits={"body": "1KB"})
    rows = [customer(1), f'{{"plan": "{MARK * 500}"}}', {"plan": "x" * 980}, customer(2)]
    file = written(tmp_path / "rows.ndjson", rows_of(*rows))
    result = run(file, "-c", config, "--ephemeral", "--as", "anyone", "--route", "list")
    assert result.exit_code == 1
    assert "row 2 is refused (body.too_large)" in result.stderr
    assert [json.loads(line)["plan"] for line in result.stdout.splitlines()] == ["magenta", "x" * 980, "magenta"]


def test_budgets_hold_over_rows(tmp_path: Path):
    """By a gharial.yaml, people count in its store and each row has its record: 60 an hour, over two runs."""
    config = write_home(tmp_path)
    bodies = []
    for start in (0, 40):
        file = written(tmp_path / "rows.ndjson", rows_of(*(customer(n) for n in range(start, start + 40))))
        result = run(file, "-c", config, "--route", "list", *CLERK)
        assert result.exit_code == 0, result.stderr
        bodies.append(result.stdout.encode())
    assert len(people_in_clear(*bodies)) == 60
    assert len(audit_of(tmp_path)) == 80


LISTS = """\
policy: lists
version: 1
mode: enforce
tags:
  id: { find: ['$[*].id'], subject: customer }
  mail: { find: ['$[*].email'] }
unlisted_fields: pass
who: { anyone: {} }
grants: [ { grant: basics, to: anyone, show: { id: clear, mail: mask } } ]
"""


def test_a_row_is_read_as_a_line_of_an_answer_is(tmp_path: Path):
    """What a path of lists hides stays hidden in rows: the bytes are those of `application/x-ndjson`."""
    policy = written(tmp_path / "lists.yaml", LISTS)
    rows = [{"id": "1", "email": MARK, "x": 1}, [{"id": "2", "email": MARK}], {"id": "3"}, {"email": MARK}]
    result = run(written(tmp_path / "rows.ndjson", rows_of(*rows)), "--policy", policy, "--as", "anyone")
    assert result.exit_code == 0, result.stderr
    with gharial.load(policy, ephemeral=True) as gate:
        lines = [
            gate.submit((json.dumps(row) + "\n").encode(), caller=gharial.Caller(), media_type="application/x-ndjson")
            for row in rows
        ]
        assert result.stdout.encode() == b"".join(line.result() for line in lines)
    assert result.stdout.count("***") == 3
    assert json.loads(result.stdout.splitlines()[0]) == {"id": "1", "email": "***", "x": 1}


def test_a_policy_that_asks_which_row_it_is_reads_no_rows(tmp_path: Path):
    """Nothing is written, and the run ends at once with the reason."""
    policy = written(tmp_path / "lists.yaml", LISTS.replace("$[*].email", "$[0].email"))
    file = written(tmp_path / "rows.ndjson", rows_of({"email": MARK}))
    result = run(file, "--policy", policy, "--as", "anyone", "-o", tmp_path / "out.ndjson")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "media.unreadable" in result.stderr
    assert not (tmp_path / "out.ndjson").exists()


def test_a_store_in_use_is_refused(tmp_path: Path):
    """Beside a running owner nothing is protected: its budgets would be counted twice."""
    config = write_home(tmp_path)
    with gharial.load(config):
        result = run("-", "-c", config, "--route", "list", *CLERK, given=b"{}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "store.in_use" in result.stderr


def test_what_is_no_rows_fault_ends_the_run(tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch):
    """A full disk is not a broken row: the run ends with its error, and an output file is not left behind."""
    from gharial.adapters.memory import MemoryAudit
    from gharial.model.errors import AuditUnwritable

    async def full(*_: object, **__: object) -> None:
        raise AuditUnwritable

    monkeypatch.setattr(MemoryAudit, "append", full)
    file = written(tmp_path / "rows.ndjson", rows_of(*(customer(n) for n in range(200))))
    result = run(file, "--policy", policy, *CLERK, "-o", tmp_path / "out.ndjson")
    assert result.exit_code == 1
    assert "audit.unwritable" in result.stderr
    assert not (tmp_path / "out.ndjson").exists()


class Endless(io.RawIOBase):
    """Rows that are made as they are read."""

    def __init__(self, count: int) -> None:
        self._row = json.dumps({"plan": "x" * 2000}).encode() + b"\n"
        self._left = count

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            return 0
        self._left -= 1
        buffer[: len(self._row)] = self._row
        return len(self._row)


class Counting:
    """Counts what is written, and keeps nothing."""

    size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)


def test_rows_take_constant_memory(policy: str):
    """6 MB of rows take less than 2 MB at any moment."""
    sink = Counting()
    with gharial.load(policy, ephemeral=True) as gate:
        protector = Protector(gate, Asking("anyone"))
        protector.rows(io.BufferedReader(Endless(100)), Counting(), lambda _: None)
        tracemalloc.start()
        rows = protector.rows(io.BufferedReader(Endless(3000)), sink, lambda _: None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (rows.written, rows.refused.total()) == (3000, 0)
    assert sink.size > 6_000_000
    # The audit in memory, which this gate has, keeps a line of about 700 bytes for each row.
    assert peak < 2_000_000 + 3000 * 1000


def test_progress_is_told_of_every_row(policy: str):
    """Whoever watches learns of each row that is decided, in order."""
    seen: list[int] = []

    def watch(rows: Rows) -> None:
        seen.append(rows.number)

    with gharial.load(policy, ephemeral=True) as gate:
        Protector(gate, Asking("anyone")).rows(io.BytesIO(b"{}\n{\n" * 100), Counting(), watch)
    assert seen == list(range(1, 201))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--as", "cares"), "did you mean 'care'"),
        (("--as", "rolle=care"), "unknown fact"),
        (("--as", "anyone", "--in", "Mars"), "unknown country"),
        (("--as", "anyone", "--param", "id"), "NAME=VALUE"),
        (("--as", "anyone", "--route", "nowhere"), "embedded.route"),
        (("--as", "client=a\tb"), "embedded.caller"),
        ((), "--as"),
    ],
)
def test_words_that_cannot_be_read_are_said(policy: str, words: tuple[str, ...], said: str):
    """Nothing is protected by a guess at who asks or where."""
    result = run("-", "--policy", policy, *words, given=b"{}")
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert result.stdout == ""


def test_a_reader_that_closes_early_ends_the_command(tmp_path: Path, policy: str):
    """`gharial protect … | head` ends without a traceback, and with a status that says it is not all."""
    file = written(tmp_path / "rows.ndjson", rows_of(*({"plan": "x" * 1000} for _ in range(500))))
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as out:
        ended = subprocess.run(
            [sys.executable, "-m", "gharial", "protect", str(file), "--policy", policy, "--as", "anyone"],
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr
    assert b"Exception" not in ended.stderr
