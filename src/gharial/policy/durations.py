"""Windows and rates as people write them: `15min`, `24h`, `30d`; `60/h`, `5000/30d`."""

from __future__ import annotations

import re

from gharial.model.yaml_text import Node
from gharial.policy.reading import Notes, text_of
from gharial.policy.suggest import did_you_mean

MAX_WINDOW_S = 35 * 86_400
"""The longest window: digests of persons are comparable for at least so long."""
MAX_PER_WINDOW = 10_000_000
"""The largest number of a rate."""
UNITS_S = {"min": 60, "h": 3_600, "hour": 3_600, "d": 86_400, "day": 86_400}
_DURATION = re.compile(r"([0-9]{0,6})([a-z]+)")
_RATE = re.compile(r"([0-9]{1,12})/([0-9]{0,6}[a-z]+)")


def parse_duration_s(node: Node, what: str, notes: Notes) -> int:
    """Read `24h` as seconds; 0 with a note where it is something else."""
    text = text_of(node, what, notes)
    if text and not _DURATION.fullmatch(text):
        notes.add(node, f"{what} is a time like 15min, 24h or 30d")
        return 0
    return _seconds(node, text, notes) if text else 0


def parse_rate(node: Node, what: str, of: str, notes: Notes) -> tuple[int, int] | None:
    """Read `60/h` or `5000/30d` as (number, seconds)."""
    text = text_of(node, what, notes)
    if not text:
        return None
    match = _RATE.fullmatch(text)
    if match is None:
        notes.add(node, f"{what} is a number per time, like 60/h, 500/day or 5000/30d")
        return None
    number, window_s = int(match[1]), _seconds(node, match[2], notes)
    if window_s and not 1 <= number <= MAX_PER_WINDOW:
        notes.add(node, f"a number of {of} per window is 1 to {MAX_PER_WINDOW:,}")
        return None
    return (number, window_s) if window_s else None


def _seconds(node: Node, text: str, notes: Notes) -> int:
    match = _DURATION.fullmatch(text)
    if match is None or match[2] not in UNITS_S:
        unit = match[2] if match else text
        notes.add(node, f"unknown unit of time {did_you_mean(unit, UNITS_S)} (there are min, h, day)")
        return 0
    window_s = int(match[1] or 1) * UNITS_S[match[2]]
    if not 1 <= window_s <= MAX_WINDOW_S:
        notes.add(node, f"a window is at most {MAX_WINDOW_S // 86_400} days, and longer than nothing")
        return 0
    return window_s
