"""`gharial demo`: starts the story."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running at the end, with addresses to try with curl.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here.")
def demo(keep: bool, json_file: Path | None) -> None:
    """Tell the story of 37 million customers, on real HTTP, in under a minute."""
    from gharial.demo import DemoOptions, run_demo

    sys.exit(run_demo(DemoOptions(keep=keep, json_file=json_file)))
