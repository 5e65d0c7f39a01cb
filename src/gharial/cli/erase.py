"""`gharial erase`: destroy a person's key, and write a receipt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gharial.cli.output import config_option, fail, json_option, note, print_json, print_table, speaks_errors

if TYPE_CHECKING:
    from gharial.gate.erasing import Who


@click.command()
@click.argument("person", metavar="ID", required=False, default="")
@click.option("--space", default="", help="The id space of ID, as the policy's 'subject' names it.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option(
    "--receipt",
    "receipt_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the receipt into this new file (without: erasure-….json in the current folder).",
)
@click.option("--forget", is_flag=True, help="Forget that ID was erased: if seen again, there is a new key.")
@click.option(
    "--verify",
    "verify_path",
    metavar="RECEIPT",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Check a receipt; with ID and --space also that it is of that person.",
)
@click.option("--public-keys", is_flag=True, help="Print the public keys that check receipts.")
@config_option
@json_option
@speaks_errors
def erase(
    person: str,
    space: str,
    yes: bool,
    receipt_path: Path | None,
    forget: bool,
    verify_path: Path | None,
    public_keys: bool,
    config_path: Path,
    as_json: bool,
) -> None:
    """Destroy the key of a person: all that was made with per=subject for that person is dead, for ever.

    \b
    gharial erase 4711 --space customer
    gharial erase --verify erasure-20260302-1b2c3d4e.json 4711 --space customer
    """
    from gharial.gate.erasing import Who

    if bool(person) is not bool(space):
        raise click.UsageError("a person is ID and --space")
    who = Who(space, person) if person else None
    if public_keys:
        _print_keys(config_path, as_json=as_json)
    elif verify_path is not None:
        _verify(config_path, verify_path, who, as_json=as_json)
    elif who is None:
        raise click.UsageError("whom: ID and --space")
    elif forget:
        _forget(config_path, who, yes=yes)
    else:
        _erase(config_path, who, receipt_path, yes=yes, as_json=as_json)


def _erase(config_path: Path, who: Who, receipt_path: Path | None, *, yes: bool, as_json: bool) -> None:
    import json

    from gharial.wiring.erasing import digest_of, erase_person

    digest = digest_of(config_path, who)
    path = receipt_path or Path(f"erasure-{digest}.json")
    if not yes:
        click.confirm(
            f"Destroy the key of {who.id!r} ({who.space})? Nothing brings it back but a backup of the store", abort=True
        )
    try:
        # Before the key goes: a receipt that can't be written is told while nothing has happened yet.
        file = path.open("x", encoding="ascii")
    except OSError as error:
        fail(f"{path} can't be made ({error.strerror}); nothing was erased. Name another file with --receipt")
    with file:
        try:
            receipt = erase_person(config_path, who)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        json.dump(receipt, file, indent=2)
        file.write("\n")
    if as_json:
        print_json({"receipt": str(path), **receipt})
        return
    click.echo(f"erased {receipt['erased']}: {len(receipt['keys'])} key; the receipt is {path}")
    if not receipt["keys"]:
        note("There was no key: nothing was made with per=subject for this id. Is it spelled as in the payloads?")


def _forget(config_path: Path, who: Who, *, yes: bool) -> None:
    from gharial.wiring.erasing import forget_person

    if not yes:
        click.confirm(f"Forget that {who.id!r} ({who.space}) was erased?", abort=True)
    if not forget_person(config_path, who):
        fail("nobody with this id was erased")
    click.echo("forgotten: if seen again, this id has a new key; what died stays dead")


def _verify(config_path: Path, path: Path, who: Who | None, *, as_json: bool) -> None:
    from gharial.wiring.erasing import check_receipt

    found = check_receipt(config_path, path, who)
    if as_json:
        print_json(found)
    if not found["signed_by_us"]:
        fail(f"{path} was not signed with this keyset, or was changed")
    if found["of_this_person"] is False:
        fail(f"{path} is a receipt of somebody else")
    if not as_json:
        click.echo(f"signed with this keyset: erased {found['receipt']['erased']}")


def _print_keys(config_path: Path, *, as_json: bool) -> None:
    from gharial.wiring.erasing import keys_of_receipts

    keys = keys_of_receipts(config_path)
    if as_json:
        print_json({str(key_id): text for key_id, text in keys.items()})
    else:
        print_table("", ["key", "Ed25519 public key"], [[key_id, text] for key_id, text in keys.items()])
