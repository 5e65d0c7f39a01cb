"""`gharial keys`: the key file from its making to the end of each of its keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gharial.cli.output import config_option, fail, json_option, note, print_json, print_table, speaks_errors

if TYPE_CHECKING:
    from gharial.crypto.keyset import Keyset
    from gharial.wiring.keyfiles import KeyDesk

key_argument = click.argument("key_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
reset_option = click.option(
    "--reset-people-and-credentials",
    "reset",
    is_flag=True,
    help="Accept that all people count as new and every credential must be issued again.",
)


@click.group()
def keys() -> None:
    """Make keys, and look after them.

    \b
    gharial keys list
    gharial keys rotate                           a new primary; old tokens still open
    gharial keys export --wrapped keys-backup.json
    """


@keys.command("init")
@config_option
@speaks_errors
def keys_init(config_path: Path) -> None:
    """Make the key file that the configuration names, wrapped by its KEK.

    \b
    export GHARIAL_KEK=$(gharial keys new-kek)
    gharial keys init
    """
    from gharial.wiring.keyfiles import make_key_file

    click.echo(f"{make_key_file(config_path)} is made (mode 0600)")


@keys.command("new-kek")
def new_kek_command() -> None:
    """Print a fresh key-encryption key: 32 random bytes in base64, for an environment or a mounted secret."""
    import os

    from gharial.crypto.keyset import new_kek

    click.echo(new_kek(os.urandom))


@keys.command("list")
@config_option
@json_option
@speaks_errors
def list_(config_path: Path, as_json: bool) -> None:
    """Show the keys of the key file, oldest first: ids, states and times, and what hangs on which."""
    from gharial.wiring.keyfiles import KeyDesk, describe_keys

    _print_keys(describe_keys(KeyDesk(config_path).load()), as_json)


@keys.command("rotate")
@config_option
@speaks_errors
def rotate(config_path: Path) -> None:
    """Make a new primary key; what earlier keys sealed still opens."""
    from gharial.wiring.keyfiles import KeyDesk

    desk = KeyDesk(config_path)
    click.echo(f"key {desk.rotate().primary_id} is the primary")
    _tell_gate(desk)


@keys.command("disable")
@key_argument
@reset_option
@config_option
@speaks_errors
def disable(key_id: int, reset: bool, config_path: Path) -> None:
    """Refuse what key ID sealed, until it is enabled again."""
    from gharial.crypto.keyset import KeyState
    from gharial.wiring.keyfiles import KeyDesk

    desk = KeyDesk(config_path)
    desk.set_state(key_id, KeyState.DISABLED, reset=reset)
    click.echo(f"key {key_id} is disabled; 'gharial keys enable {key_id}' undoes it")
    _tell_gate(desk)


@keys.command("enable")
@key_argument
@reset_option
@config_option
@speaks_errors
def enable(key_id: int, reset: bool, config_path: Path) -> None:
    """Let a disabled key ID open again what it sealed."""
    from gharial.crypto.keyset import KeyState
    from gharial.wiring.keyfiles import KeyDesk

    desk = KeyDesk(config_path)
    desk.set_state(key_id, KeyState.ENABLED, reset=reset)
    click.echo(f"key {key_id} is enabled")
    _tell_gate(desk)


@keys.command("destroy")
@key_argument
@reset_option
@click.option("--yes", is_flag=True, help="Do not ask, for scripts.")
@config_option
@speaks_errors
def destroy(key_id: int, reset: bool, yes: bool, config_path: Path) -> None:
    """Remove the material of key ID for good, after saying what dies with it."""
    from gharial.crypto.keyset import KeyState
    from gharial.wiring.keyfiles import KeyDesk, what_dies_with, with_state

    desk = KeyDesk(config_path)
    keyset = desk.load()
    for line in what_dies_with(keyset, key_id):
        note(line)
    # Before anybody is asked: whoever says yes is not refused for a word that was missing.
    with_state(keyset, key_id, KeyState.DESTROYED, reset=reset)
    if not yes and not _confirmed(key_id):
        fail(f"key {key_id} is as it was; nothing was destroyed")
    desk.set_state(key_id, KeyState.DESTROYED, reset=reset)
    click.echo(f"key {key_id} is destroyed")
    _tell_gate(desk)


@keys.command("export")
@click.option(
    "--wrapped",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write a copy of the key file, still wrapped by the KEK.",
)
@click.option(
    "--tink",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the keys as a keyset of Tink, in JSON, encrypted under a KEK of 32 bytes.",
)
@click.option("--tag", default="", help="With --tink: only what opens and makes the tokens of this tag (AES-SIV keys).")
@click.option(
    "--tenant", default="", help="With --tag: the tokens of this tenant; by default that of the configuration."
)
@click.option("--cleartext", is_flag=True, help="With --tink: NOT encrypted; whoever reads FILE has the keys.")
@config_option
@speaks_errors
def export(wrapped: Path | None, tink: Path | None, tag: str, tenant: str, cleartext: bool, config_path: Path) -> None:
    """Write a copy of the keys to a new file, after a look whether the KEK opens them.

    \b
    gharial keys export --wrapped keys-backup.json
    gharial keys export --tink keyset.json
    gharial keys export --tink email.json --tag email --cleartext
    """
    from gharial.wiring.keyfiles import KeyDesk

    if (wrapped is None) == (tink is None):
        raise click.UsageError("say where to: --wrapped FILE or --tink FILE")
    if wrapped is not None and (tag or tenant or cleartext):
        raise click.UsageError("--tag, --tenant and --cleartext go with --tink")
    if tenant and not tag:
        raise click.UsageError("--tenant goes with --tag: the keys themselves are of no tenant")
    desk = KeyDesk(config_path)
    if wrapped is not None:
        click.echo(f"{wrapped} holds {_count(desk.export(wrapped))}, wrapped; without the KEK it is of no use")
        return
    assert tink is not None  # noqa: S101 - one of the two is given
    keyset = desk.export_tink(tink, tag=tag, tenant=tenant, cleartext=cleartext)
    what = f"what opens the tokens of '{tag}'" if tag else _count(keyset)
    click.echo(f"{tink} holds {what}, {'IN CLEAR: guard it as you would the keys' if cleartext else 'encrypted'}")


@keys.command("import")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--tink", is_flag=True, help="FILE is a keyset of Tink in JSON: HKDF-SHA256 PRF keys, clear or encrypted."
)
@click.option("--replace", is_flag=True, help="Accept that keys are lost which FILE does not hold.")
@config_option
@speaks_errors
def import_(source: Path, tink: bool, replace: bool, config_path: Path) -> None:
    """Put the keys of an exported FILE in the place of the key file; an older copy is refused."""
    from gharial.wiring.keyfiles import KeyDesk

    desk = KeyDesk(config_path)
    keyset = desk.import_tink(source, replace=replace) if tink else desk.import_(source, replace=replace)
    click.echo(f"{desk.key_file} holds {_count(keyset)}; key {keyset.primary_id} is the primary")
    _tell_gate(desk)


@keys.command("rewrap")
@click.option(
    "--from",
    "old_config",
    metavar="OLD.yaml",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A configuration whose keys.kek wrapped the key file.",
)
@config_option
@speaks_errors
def rewrap(old_config: Path, config_path: Path) -> None:
    """Wrap the key file by another KEK: the one of the configuration instead of the one of OLD.yaml.

    \b
    cp gharial.yaml old.yaml                      then change keys.kek in gharial.yaml
    gharial keys rewrap --from old.yaml
    """
    from gharial.wiring.keyfiles import KeyDesk

    desk = KeyDesk(config_path)
    keyset = desk.rewrap(old_config)
    click.echo(f"{desk.key_file} is wrapped by the KEK of {config_path}: {_count(keyset)}")
    note("A gateway that runs has the old KEK: start it anew. Copies of the key file still need the old KEK.")


@keys.command("reload")
@config_option
@speaks_errors
def reload(config_path: Path) -> None:
    """Have the running gateway take the key file as it is now, as SIGHUP does."""
    from gharial.wiring.keyfiles import KeyDesk

    if not KeyDesk(config_path).tell_gate():
        fail("no gateway runs here; the next one that starts reads the key file")
    click.echo("the running gateway has taken the key file")


def _tell_gate(desk: KeyDesk) -> None:
    from gharial.model.errors import GharialError

    try:
        told = desk.tell_gate()
    except GharialError as error:
        fail(f"the key file is written, but the running gateway goes on with the keys that it has: {error}")
    if told:
        note("the running gateway has taken it")


def _print_keys(found: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = found["keys"]
    assert isinstance(rows, list)  # noqa: S101 - its shape is `describe_keys`'s
    print_table(
        "",
        ["key", "state", "made", "for"],
        [
            [
                key["id"],
                key["state"],
                key["created"],
                ", ".join(
                    what
                    for what, is_so in (
                        ("new tokens (primary)", key["seals"]),
                        ("people and credentials", key["people_and_credentials"]),
                    )
                    if is_so
                ),
            ]
            for key in rows
        ],
    )


def _confirmed(key_id: int) -> bool:
    try:
        return click.confirm(f"Destroy key {key_id} for good?", err=True)
    except click.Abort:
        return False


def _count(keyset: Keyset) -> str:
    return "1 key" if len(keyset.keys) == 1 else f"{len(keyset.keys)} keys"
