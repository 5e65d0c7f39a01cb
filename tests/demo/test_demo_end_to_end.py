"""`gharial demo` as a user runs it: real Envoy, real gate, real HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.xdist_group("demo"),
    pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="Envoy is installed on Linux and macOS"),
]
MARK = "GHARIAL_TEST_MARK"


def start_demo(tmp_path: Path, mark: str, *options: str) -> subprocess.Popen[str]:
    """Start the demo with a temporary folder and an environment of its own, which all that it starts inherits."""
    return subprocess.Popen(
        [sys.executable, "-m", "gharial", "demo", *options],
        env={**os.environ, MARK: mark, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def left_running(mark: str) -> list[str]:
    """Return the command lines of processes that carry the mark; only Linux can tell."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def test_the_demo_shows_0_and_0_and_60_people(tmp_path: Path):
    """The table's figures are what they must be, in under 60 seconds, and nothing is left behind."""
    mark, file = uuid.uuid4().hex, tmp_path / "figures.json"
    with tempfile.TemporaryDirectory(prefix="g") as folder:
        with start_demo(Path(folder), mark, "--json", str(file)) as demo:
            text, _ = demo.communicate(timeout=120)
        assert demo.returncode == 0, text
        assert os.listdir(folder) == []
    assert left_running(mark) == []
    assert "\x1b" not in text
    figures = json.loads(file.read_text())
    for walk in ("door", "anonymous", "partner_key", "stolen_clerk"):
        assert figures[walk]["requests"] > 200
        assert figures[walk]["status_200"] == figures[walk]["records_with_public_fields"] == figures[walk]["requests"]
    assert figures["door"]["people_in_clear"] == figures["door"]["requests"]
    assert figures["anonymous"]["people_in_clear"] == 0
    assert figures["partner_key"]["people_in_clear"] == 0
    assert figures["stolen_clerk"]["people_in_clear"] == 60
    assert figures["stolen_clerk"]["incident"].startswith("inc_")
    assert figures["honest_clerk"]["ok"] is True
    assert figures["partner_token"]["ok"] is True


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_nothing_running(how: signal.Signals):
    """Stopped in the middle of a walk, it ends telecom, gate and Envoy, and deletes its keys."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="g") as folder:
        with start_demo(Path(folder), mark) as demo:
            assert demo.stdout is not None
            for line in demo.stdout:
                if "Through the gate" in line:
                    break
            assert sys.platform != "linux" or len(left_running(mark)) > 2
            demo.send_signal(how)
            demo.communicate(timeout=60)
        assert demo.returncode == 130
        assert os.listdir(folder) == []
    assert left_running(mark) == []
