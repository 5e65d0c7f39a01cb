"""`gharial demo`: the story of 37 million customers, on real HTTP. Starts things and tells; protects nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line may ask for.

    `keep` leaves everything running until Ctrl-C; `json_file` is where the figures are written.
    """

    keep: bool = False
    json_file: Path | None = None


def run_demo(options: DemoOptions) -> int:
    """Tell the whole story; return the exit status.

    0: every figure is what it must be; 1: one is not, or a part did not start; 130: stopped with Ctrl-C.
    """
    # Not at the top: `python -m gharial.demo.telecom` passes through here and needs nothing of it.
    from gharial.demo.story import tell

    return tell(options)
