"""`gharial trace`: for whom the tokens of a leaked file were made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gharial.cli.output import config_option, fail, json_option, note, print_json, print_table, speaks_errors

if TYPE_CHECKING:
    from typing import BinaryIO


@click.command()
@click.argument("file", metavar="FILE|-", type=click.File("rb"))
@click.option(
    "--tokens",
    "most",
    metavar="N",
    type=click.IntRange(1, 1_000_000),
    default=1_000,
    show_default=True,
    help="Try so many of the distinct tokens, chosen at random.",
)
@click.option("--all", "try_all", is_flag=True, help="Try every token, each time that it stands there.")
@click.option("--client", "clients", multiple=True, help="Try this client too, which is not registered here.")
@click.option("--team", "teams", multiple=True, help="Try this team too.")
@click.option("--tag", "tags", multiple=True, help="Try this tag too, which no policy has any more.")
@click.option("--from-audit", is_flag=True, help="Try all clients and teams that the audit files name, too.")
@config_option
@json_option
@speaks_errors
def trace(
    file: BinaryIO,
    most: int,
    try_all: bool,
    clients: tuple[str, ...],
    teams: tuple[str, ...],
    tags: tuple[str, ...],
    from_audit: bool,
    config_path: Path,
    as_json: bool,
) -> None:
    """Name the clients for whom the tokens in FILE were made; no value is shown.

    \b
    gharial trace dump.csv
    zcat dump.json.gz | gharial trace --all -
    """
    from gharial.wiring.tracing import WhoElse, trace_dump

    found = trace_dump(
        config_path,
        file,
        most=None if try_all else most,
        who_else=WhoElse(clients, teams, tags, from_audit),
        progress=_tell if sys.stderr.isatty() else _tell_nobody,
    )
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if not found["found"]:
        fail("there is no token in it; results of encrypt, pseudonym, fpe and substitute name nobody")
    if not found["named"]:
        fail("no token names a client; the ones that are not registered here: --client, --from-audit")


def _print(found: dict[str, Any]) -> None:
    if found["recipients"]:
        rows = [
            [
                entry["recipient"] or "every client",
                entry["scope"] + (", revoked" if entry["revoked"] else ""),
                entry["tokens"],
                ", ".join(f"{tag} {count}" for tag, count in entry["tags"].items()),
                ", ".join(f"{key['id']} (from {key['since']}{_until(key)})" for key in entry["keys"]),
            ]
            for entry in found["recipients"]
        ]
        print_table("", ["made for", "scope", "tokens", "tags", "keys"], rows)
    for entry in found["recipients"]:
        if entry["scope"] == "team":
            note(f"team {entry['recipient']}: {', '.join(entry['clients']) or 'no registered client'}")
    nobody = found["nobody"]
    note(f"{found['found']:,} found, {found['tried']:,} tried, {found['named']:,} name somebody")
    for count, what in (
        (nobody["fits_nobody"], "fit nobody who was tried: forged, or of an unknown client, team or tag"),
        (nobody["from_vault"], "from the vault: these are random, and name nobody"),
        (nobody["no_token"], "only look like tokens"),
        *((key["tokens"], f"of key {key['id']}, which is not in the keyset") for key in nobody["unknown_keys"]),
        *((key["tokens"], f"of key {key['id']}, which is destroyed") for key in nobody["destroyed_keys"]),
    ):
        if count:
            note(f"{count:,} {what}")


def _until(key: dict[str, Any]) -> str:
    return f" to {key['until']}" if key["until"] else ""


def _tell(what: str, count: int) -> None:
    text = f"{count / 1_000_000:,.0f} MB read" if what == "read" else f"{count:,} tokens tried"
    click.echo(f"\r{text}\x1b[K", nl=False, err=True)


def _tell_nobody(what: str, count: int) -> None:
    del what, count
