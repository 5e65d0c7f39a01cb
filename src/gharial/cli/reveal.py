"""`gharial reveal`: clear values of one's own tokens, by the reveal API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gharial.cli.output import config_option, fail, json_option, note, print_table, speaks_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from gharial.wiring.revealing import Told


@click.command()
@click.argument("file", metavar="[FILE|-]", type=click.File("rb"), default="-")
@click.option(
    "--as-credential",
    "credential",
    metavar="env:NAME",
    required=True,
    help="Whose tokens they are: env:NAME or file:PATH of an API key or a JSON Web Token.",
)
@click.option("--tag", "tags", multiple=True, help="Of which tag the tokens are; of several, they are tried in turn.")
@click.option("--purpose", default="", help="What for, if the credential may state it.")
@click.option("--url", default="", help="Where the API is, e.g. https://gateway:8082; by default as configured.")
@click.option("--ca", type=click.Path(path_type=Path, dir_okay=False), help="CA file for the API's certificate.")
@config_option
@json_option
@speaks_errors
def reveal(
    file: BinaryIO,
    credential: str,
    tags: tuple[str, ...],
    purpose: str,
    url: str,
    ca: Path | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Print the clear values of the tokens and envelopes in FILE, where the policy says reveal.

    \b
    gharial reveal --as-credential env:KEY --tag account tokens.txt
    gharial reveal --as-credential env:KEY --tag account --tag email < export.json
    """
    from gharial.wiring.revealing import read_asked, reveal_all

    if not credential.startswith(("env:", "file:")):
        # Nothing of it is repeated: it may be the credential itself.
        fail("--as-credential is env:NAME or file:PATH, never the credential itself")
    asked = read_asked(file, tags)
    if not asked:
        fail("there is no token and no envelope in it")
    told = reveal_all(
        config_path,
        asked,
        credential=credential,
        purpose=purpose,
        url=url,
        ca=ca,
        progress=lambda done: note(f"{done:,} of {len(asked):,}") if sys.stderr.isatty() else None,
    )
    refused = sum(not one.tag for one in told)
    erased = sum(one.erased for one in told)
    if as_json:
        _print_json(told)
    else:
        rows = [[one.sealed[:_SHOWN], one.tag, _outcome(one)] for one in told]
        print_table("", ["token or envelope", "tag", "value"], rows)
    if erased:
        note(f"{erased:,} of {len(told):,} are of people who were erased")
    if refused:
        fail(f"{refused:,} of {len(told):,} are refused: not of this caller, of another tag, or beyond what it may see")


_SHOWN = 24


def _print_json(told: Sequence[Told]) -> None:
    import msgspec

    found = [
        {"sealed": one.sealed, "tag": one.tag, "value": one.value}
        if one.tag and not one.erased
        else {"sealed": one.sealed, "error": "erased" if one.erased else "refused"}
        for one in told
    ]
    # Not `json`: a Decimal stays the number that it is.
    encoded = msgspec.json.Encoder(decimal_format="number").encode(found)
    click.echo(msgspec.json.format(encoded, indent=2).decode())


def _outcome(one: Told) -> str:
    if one.erased:
        return "erased"
    return _shown(one.value) if one.tag else "refused"


def _shown(value: object) -> str:
    text = {True: "true", False: "false", None: "null"}[value] if isinstance(value, bool | None) else str(value)
    # A value comes from anywhere: nothing of it steers the terminal.
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
