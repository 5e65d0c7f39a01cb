"""How the command line speaks: tables and colour where a terminal is, JSON for scripts, errors that say what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

import click

from gharial.model.errors import GharialError, Invalid

P = ParamSpec("P")

config_option = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default="gharial.yaml",
    show_default=True,
    envvar="GHARIAL_CONFIG",
    help="The gateway's configuration file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def fail(text: str) -> NoReturn:
    """Print an error on standard error and end with status 1."""
    for line in text.splitlines() or [""]:
        # A file's own text may stand in a message: nothing of it steers the terminal.
        line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)  # noqa: PLW2901
        click.echo(f"{click.style('error', fg='red', bold=True)}: {line}", err=True)
    sys.exit(1)


def speaks_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Make expected failures of a command into lines on standard error and exit status 1."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Invalid as error:
            fail("\n".join(map(str, error.problems)))
        except GharialError as error:
            fail(f"{error} ({error.code})")

    return wrapped


def print_json(value: object) -> None:
    """Print indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; as wide as the terminal, or 120 columns where there is none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        # The first column names the thing, and is what other commands want: it is never cut.
        table.add_column(column, no_wrap=number == 0, overflow="fold" if number else "ignore")
    for row in rows:
        # Text, not str: names come from outside, and rich would read markup in them.
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console.print(table)


def note(text: str) -> None:
    """Print a line for the person at the terminal, apart from a command's result."""
    click.echo(text, err=True)
