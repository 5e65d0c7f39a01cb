"""`gharial incidents`: what was noticed, and what was done about it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from gharial.cli.output import config_option, json_option, print_json, print_table, speaks_errors


@click.group()
def incidents() -> None:
    """See what was noticed, and what was done about it.

    \b
    gharial incidents list
    gharial incidents show inc_k3q5t7v2m4xa
    gharial incidents undo inc_k3q5t7v2m4xa
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


@incidents.command("undo")
@click.argument("incident_id", metavar="ID")
@config_option
@json_option
@speaks_errors
def undo(incident_id: str, config_path: Path, as_json: bool) -> None:
    """End what was done about a caller for an incident: its callers are answered as before, at once.

    \b
    gharial incidents undo inc_k3q5t7v2m4xa
    """
    from gharial.adapters.admin import AdminClient
    from gharial.settings import load_settings

    admin = AdminClient(config_path.resolve().parent / load_settings(config_path).admin.socket)
    found = admin.call("POST", f"/incidents/{quote(incident_id, safe='')}/undo")["undone"]
    if as_json:
        print_json(found)
        return
    for measure in found:
        click.echo(f"ended: {measure['name']}, by the watch {measure['watch']}")
    if not found:
        click.echo(
            "no measure holds for this incident any more. What a grant's budget withholds can't be undone: wait for "
            "its window, or publish a larger budget"
        )


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    if found["detector"] != "people_budget":
        return _watch_lines(found)
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


def _watch_lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Of an incident that a watch opened; the fields of a budget hold what it counted."""
    who = found["client"] + (f", user {found['user']}" if found["user"] else "")
    done = found["measure"] or "alert only"
    return [
        ("incident", found["incident_id"]),
        ("severity", found["severity"]),
        ("detector", found["detector"]),
        ("who", who),
        ("route", found["route"]),
        ("policy and watch", f"{found['policy']}/{found['grant']}"),
        ("counted", f"{found['people_clear']} in {_window(found['window_s'])}, the limit is {found['limit_people']}"),
        ("done", done),
        ("opened", f"{_time(found['opened_s'])} UTC"),
        ("last seen", f"{_time(found['last_seen_s'])} UTC"),
        ("first exchange", found["exchange_id"]),
        ("if it was honest", f"gharial incidents undo {found['incident_id']}"),
        ("if it was not", f"gharial clients revoke {found['client']}"),
    ]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _window(seconds: int) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds % size == 0:
            count = seconds // size
            return f"{count} {unit if count > 1 else unit[:-1]}"
    return f"{seconds} seconds"
