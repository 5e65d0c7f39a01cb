"""`gharial protect`: JSON and NDJSON from files and pipes, through the same gate."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

import click

from gharial.cli.output import fail, note, speaks_errors

if TYPE_CHECKING:
    from gharial.wiring.protecting import Protector, Rows

_path = click.Path(path_type=Path, dir_okay=False)
_ROWS = (".ndjson", ".jsonl")
_PROGRESS_EVERY_S = 0.5


@click.command("protect")
@click.argument("file", type=click.File("rb"), metavar="FILE|-")
@click.option(
    "-c",
    "--config",
    "config_path",
    type=_path,
    default=None,
    envvar="GHARIAL_CONFIG",
    help="By this gharial.yaml: its policies and routes, its keys, store and audit. Default: gharial.yaml.",
)
@click.option("--policy", "policy_path", type=_path, default=None, help="By this policy alone; --ephemeral is implied.")
@click.option("--ephemeral", is_flag=True, help="Keys, budgets and audit of this run alone; open none of the files.")
@click.option("--as", "as_", required=True, metavar="WHO", help="A name of who, or facts: role=care,claim.amr=mfa.")
@click.option("--for", "purpose", default="", help="The purpose.")
@click.option("--in", "country", default="", help="The caller's country (two letters).")
@click.option("--network", default="", help="The caller's kind of network.")
@click.option("--route", default="", help="A route's name, or a request line: 'GET /customers/42'.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter of the route's path.")
@click.option("--ndjson", is_flag=True, help="A JSON document per line; also where FILE ends in .ndjson or .jsonl.")
@click.option("-o", "--output", "output", type=_path, default=None, help="Write here (mode 0600), when it is whole.")
@speaks_errors
def protect(
    file: IO[bytes],
    config_path: Path | None,
    policy_path: Path | None,
    ephemeral: bool,
    as_: str,
    purpose: str,
    country: str,
    network: str,
    route: str,
    params: tuple[str, ...],
    ndjson: bool,
    output: Path | None,
) -> None:
    """Print what a caller may see of JSON, or of NDJSON row by row.

    A document is written as a whole or not at all. A row that can't be read is left out and counted, and the exit
    status is 1. A policy in shadow mode is enforced here.

    \b
    gharial protect answer.json --policy policies/customers.yaml --as care --for support
    pg_dump_json | gharial protect - --ndjson -c gharial.yaml --as client=analytics --route export -o rows.ndjson
    """
    from gharial.wiring.library import load
    from gharial.wiring.protecting import Asking, Protector, read_params

    if config_path is not None and policy_path is not None:
        named_by = click.get_current_context().get_parameter_source("config_path")
        if named_by is not click.core.ParameterSource.ENVIRONMENT:
            raise click.UsageError("name either --config or --policy")
        config_path = None
    stated = {"purpose": purpose, "country": country, "network": network}
    asking = Asking(as_, {name: value for name, value in stated.items() if value}, route, read_params(params))
    ephemeral = ephemeral or policy_path is not None
    if ephemeral:
        note("keys are made for this run alone: its tokens and pseudonyms mean nothing to any other")
    with load(policy_path or config_path or "gharial.yaml", ephemeral=ephemeral) as gate:
        protector = Protector(gate, asking)
        if ndjson or _name(file).endswith(_ROWS):
            _protect_rows(protector, file, output)
        else:
            text = protector.document(_binary(file))
            with _output(output) as sink:
                sink.write(text.rstrip(b"\n") + b"\n")


def _protect_rows(protector: Protector, file: IO[bytes], output: Path | None) -> None:
    with _output(output) as sink:
        rows = protector.rows(_binary(file), sink, _Progress(file))
    for number, code in rows.first:
        note(f"row {number} is refused ({code}) and left out")
    if rows.refused:
        reasons = ", ".join(f"{code} {count:,}" for code, count in sorted(rows.refused.items()))
        fail(f"{rows.refused.total():,} of {rows.number:,} rows are refused and left out: {reasons}")
    if sys.stderr.isatty():
        note(f"{rows.written:,} rows")


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[BinaryIO]:
    """Yield where the result goes. Whoever closes standard output early, as `head` does, ends the command."""
    from gharial.wiring.protecting import written_whole

    if path is not None:
        with written_whole(path) as stream:
            yield stream
        return
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python would write what is left once more at its end, and complain.
        sys.stdout = None
        sys.exit(1)


def _binary(file: IO[bytes]) -> BinaryIO:
    return file  # type: ignore[return-value]


def _name(file: IO[bytes]) -> str:
    """Return the path of what was opened, or empty for standard input."""
    name = getattr(file, "name", "")
    return name if isinstance(name, str) and name not in ("-", "<stdin>") else ""


class _Progress:
    """A line that says how far it is, for a person who waits; nowhere else."""

    def __init__(self, file: IO[bytes]) -> None:
        self._shown = sys.stderr.isatty() and not sys.stdout.isatty()
        self._began_s = self._told_s = time.monotonic()
        self._size = 0
        with contextlib.suppress(OSError, ValueError):
            self._size = Path(_name(file)).stat().st_size if _name(file) else 0

    def __call__(self, rows: Rows) -> None:
        if not self._shown:
            return
        now_s = time.monotonic()
        if now_s - self._told_s < _PROGRESS_EVERY_S:
            return
        self._told_s = now_s
        share = f", {100 * rows.read_bytes / self._size:.0f}%" if self._size else ""
        rate = rows.number / max(now_s - self._began_s, 0.001)
        text = f"{rows.number:,} rows{share}, {rows.refused.total():,} refused, {rate:,.0f}/s"
        click.echo(f"\r\x1b[K{text}\r", nl=False, err=True)
