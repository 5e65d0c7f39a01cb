"""`gharial clients`: register callers and their keys."""

from __future__ import annotations

from pathlib import Path

import click

from gharial.cli.output import config_option, json_option, print_json, print_table, speaks_errors


@click.group()
def clients() -> None:
    """Register callers, and make their keys.

    \b
    gharial clients add acme-billing --team finance --role partner --purpose billing
    gharial clients list
    gharial clients revoke acme-billing
    """


@clients.command("add")
@click.argument("name")
@click.option("--team", default="", help="The team that shares tokens of scope 'team'.")
@click.option("--role", "roles", multiple=True, help="A role; may be given several times.")
@click.option("--purpose", default="", help="What this client wants data for.")
@click.option(
    "--may-assert",
    "may_assert",
    multiple=True,
    type=click.Choice(["purpose", "country", "claims"]),
    help="What the client may state for itself (headers Gharial-Purpose, Gharial-Country, Gharial-Claims).",
)
@config_option
@json_option
@speaks_errors
def add(
    name: str,
    team: str,
    roles: tuple[str, ...],
    purpose: str,
    may_assert: tuple[str, ...],
    config_path: Path,
    as_json: bool,
) -> None:
    """Register a client and print its id, secret and API key, this once.

    Works beside a running gateway (the key is valid at once) and without one.
    """
    from gharial.wiring.operator import operator

    facts = {"name": name, "team": team, "roles": list(roles), "purpose": purpose, "may_assert": list(may_assert)}
    made = operator(config_path).add_client(facts)
    if as_json:
        print_json(made)
        return
    for label, key in (("client id", "client_id"), ("secret", "secret"), ("API key", "key")):
        click.echo(f"{label:10} {made[key]}")
    click.echo("\nKeep them now: only a keyed hash is stored. Send the key as a header, e.g.", err=True)
    click.echo(f"  curl -H 'X-Api-Key: {made['key'][:12]}…' http://127.0.0.1:8080/…", err=True)


@clients.command("list")
@config_option
@json_option
@speaks_errors
def list_(config_path: Path, as_json: bool) -> None:
    """Show all clients; nothing secret is stored, so nothing secret is shown."""
    from gharial.wiring.operator import operator

    found = operator(config_path).list_clients()
    if as_json:
        print_json(found)
        return
    print_table(
        "",
        ["client", "team", "roles", "purpose", "may assert", "state"],
        [
            [
                client["name"],
                client["team"],
                ", ".join(client["roles"]),
                client["purpose"],
                ", ".join(client["may_assert"]),
                "valid" if client["revoked_s"] is None else "revoked",
            ]
            for client in found
        ],
    )


@clients.command("revoke")
@click.argument("name")
@config_option
@speaks_errors
def revoke(name: str, config_path: Path) -> None:
    """Make a client's credentials invalid, from its next call on."""
    from gharial.wiring.operator import operator

    operator(config_path).revoke_client(name)
    click.echo(f"{name} is revoked")
