"""Recordings from files, put under another policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gharial.model.errors import ConfigInvalid, Problem, RecordingInvalid
from gharial.model.recording import OtherVersion, RecordedExchange, parse_exchange
from gharial.policy.document import Policy
from gharial.policy.recorded import steps_of
from gharial.policy.replay import NothingToReplay, replay
from gharial.policy.tally import Replay

MAX_LINE_BYTES = 32_000_000
MAX_PROBLEMS = 20
"""Broken lines that are named; there may be more."""


def replay_file(path: Path, policy: Policy, *, skip_broken: bool = False) -> tuple[Replay, int]:
    """Run the exchanges of a recording under a policy; returns what came and how many broken lines were left out.

    Raises RecordingInvalid with the numbers of broken lines (with `skip_broken` only of those of another version),
    ConfigInvalid if the file can't be read, and RecordingInvalid if nothing in it went through this policy.
    """
    reader = _Reader(path, skip_broken=skip_broken)
    try:
        return replay(reader.read, policy), reader.skipped
    except NothingToReplay as nothing:
        others = f"; it holds {', '.join(nothing.policies)}" if nothing.policies else ""
        what = f"no exchange here went through the policy '{policy.name}'{others}"
        raise RecordingInvalid([Problem(str(path), 1, 1, what)]) from None
    except OSError as error:
        raise ConfigInvalid([Problem(str(path), 1, 1, f"can't be read ({error.strerror})")]) from None


def replay_json(found: Replay, skipped: int) -> dict[str, Any]:
    """Return a replay for scripts."""
    return {**asdict(found), "broken_lines": skipped}


class _Reader:
    def __init__(self, path: Path, *, skip_broken: bool) -> None:
        self._path = path
        self._skip_broken = skip_broken
        self.skipped = 0

    def read(self) -> Iterator[RecordedExchange]:
        """Yield the exchanges; raises RecordingInvalid behind the last one, with every line that is broken."""
        problems: list[Problem] = []
        self.skipped = 0
        with self._path.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_LINE_BYTES):
                number += 1
                try:
                    yield _parse(line)
                except OtherVersion as other:
                    problems.append(Problem(str(self._path), number, 1, str(other)))
                except ValueError as broken:
                    self.skipped += 1
                    if not self._skip_broken:
                        problems.append(Problem(str(self._path), number, 1, str(broken)))
                if len(problems) == MAX_PROBLEMS:
                    break
        if problems:
            raise RecordingInvalid(problems)


def _parse(line: bytes) -> RecordedExchange:
    if not line.endswith(b"\n"):
        raise ValueError("the line is cut off")
    exchange = parse_exchange(line)
    for place in exchange.places:
        steps_of(place.path)
    return exchange
