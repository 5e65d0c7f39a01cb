"""`gharial incidents`: what was noticed, and what was done about it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gharial.cli.output import config_option, json_option, print_json, print_table, speaks_errors


@click.group()
def incidents() -> None:
    """See what was noticed, and what was done about it.

    \b
    gharial incidents list
    gharial incidents show inc_k3q5t7v2m4xa
    """


@incidents.command("list")
@config_option
@json_option
@speaks_errors
def list_(config_path: Path, as_json: bool) -> None:
    """Show incidents, newest first."""
    from gharial.wiring.operator import operator

    found = operator(config_path).list_incidents()
    if as_json:
        print_json(found)
        return
    print_table(
        "",
        ["incident", "severity", "opened (UTC)", "client", "user", "grant", "people in clear", "withheld", "measure"],
        [
            [
                incident["incident_id"],
                incident["severity"],
                _time(incident["opened_s"]),
                incident["client"],
                incident["user"],
                f"{incident['policy']}/{incident['grant']}",
                f"{incident['people_clear']} of {incident['limit_people']}",
                incident["people_withheld"],
                incident["measure"],
            ]
            for incident in found
        ],
    )


@incidents.command("show")
@click.argument("incident_id", metavar="ID")
@config_option
@json_option
@speaks_errors
def show(incident_id: str, config_path: Path, as_json: bool) -> None:
    """Show one incident in full."""
    from gharial.wiring.operator import operator

    found = operator(config_path).get_incident(incident_id)
    if as_json:
        print_json(found)
        return
    for label, text in _lines(found):
        click.echo(f"{click.style(f'{label:18}', bold=True)} {text}")


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    from gharial.policy.reveal import REVEAL_ROUTE

    what = "values" if found["route"] == REVEAL_ROUTE else "people"
    who = found["client"] + (f", user {found['user']}" if found["user"] else "")
    return [
        ("incident", found["incident_id"]),
        ("severity", found["severity"]),
        ("detector", found["detector"]),
        ("who", who),
        ("route", found["route"]),
        ("policy and grant", f"{found['policy']}/{found['grant']}"),
        ("budget", f"{found['limit_people']} {what} in {_window(found['window_s'])}"),
        (f"{what} in clear", str(found["people_clear"])),
        (f"{what} withheld", f"{found['people_withheld']} (they got: {found['measure']})"),
        ("opened", f"{_time(found['opened_s'])} UTC"),
        ("last seen", f"{_time(found['last_seen_s'])} UTC"),
        ("first exchange", found["exchange_id"]),
        ("what to do", f"if this is not honest work: gharial clients revoke {found['client']}"),
    ]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _window(seconds: int) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds % size == 0:
            count = seconds // size
            return f"{count} {unit if count > 1 else unit[:-1]}"
    return f"{seconds} seconds"
