"""`gharial up`, `status` and `doctor`: run a gateway, and see how it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from gharial.cli.output import config_option, json_option, note, print_json, print_table, speaks_errors


@click.command()
@config_option
@click.option("--check", is_flag=True, help="Only say what is wrong with the configuration, and what to do.")
@json_option
@speaks_errors
def up(config_path: Path, check: bool, as_json: bool) -> None:
    """Start Envoy and the gate, and look after both until SIGTERM or Ctrl-C.

    \b
    gharial up
    gharial up --check
    """
    from gharial.wiring.checks import check_gateway
    from gharial.wiring.supervisor import run_gateway

    if check:
        _print_checks(check_gateway(config_path), as_json)
        return
    sys.exit(run_gateway(config_path, say=note))


@click.command(hidden=True)
@config_option
@click.option("--active", "active_path", type=click.Path(path_type=Path), default=None, help="Run by the texts in it.")
@speaks_errors
def gate(config_path: Path, active_path: Path | None) -> None:
    """Run the gate alone; `gharial up` starts it and closes its standard input to end it."""
    from gharial.wiring.gate_process import run_gate

    sys.exit(run_gate(config_path, active_path))


@click.command()
@config_option
@json_option
@speaks_errors
def status(config_path: Path, as_json: bool) -> None:
    """Show mode, routes, versions and counters of the running gateway."""
    from gharial.wiring.checks import fetch_status

    found = fetch_status(config_path)
    if as_json:
        print_json(found)
        return
    _print_status(found)


@click.command()
@config_option
@json_option
@speaks_errors
def doctor(config_path: Path, as_json: bool) -> None:
    """Look at everything around the gateway: files, keys, ports, disk, upstreams; say what is wrong and what to do."""
    from gharial.wiring.checks import examine

    _print_checks(examine(config_path), as_json)


def _print_checks(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        marks = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}
        for item in found:
            mark, colour = marks[item["state"]]
            click.echo(f"{click.style(mark, fg=colour, bold=True)} {item['what']}")
            if item["hint"]:
                click.echo(f"    {item['hint']}")
    if any(item["state"] == "fail" for item in found):
        sys.exit(1)


def _print_status(found: dict[str, Any]) -> None:
    counters = found["counters"]
    click.echo(f"gharial {found['gharial']}, up {_duration(found['uptime_s'])}, tenant {found['tenant']}")
    print_table(
        "",
        ["policy", "version", "mode"],
        [[policy["policy"], policy["version"], policy["mode"]] for policy in found["policies"]],
    )
    print_table(
        "",
        ["route", "match", "kind", "policy", "forwarded", "passed", "would change", "would refuse"],
        [
            [
                route["route"],
                route["match"],
                route["kind"],
                f"{route['policy']} {route['version']}" if route["policy"] else "",
                route["forwarded"],
                route["passed"],
                route["would_change"],
                route["would_refuse"],
            ]
            for route in found["routes"]
        ],
    )
    refused = ", ".join(f"{code} {count}" for code, count in counters["refused"].items()) or "none"
    click.echo(f"refused: {refused}")
    click.echo(f"in flight: {found['in_flight']} of {found['limits']['in_flight']}")
    keys = found["keys"]
    click.echo(f"keys: {keys['keys']}, primary {keys['primary']}")
    if keys["problem"]:
        click.echo(click.style(f"the key file on disk is not active: {keys['problem']}", fg="red"))
    for part in found.get("parts", []):
        click.echo(f"{part['name']}: {part['state']}, restarts {part['restarts']}")
    if found["proxy"]["in_step"] is False:
        text = "Envoy goes by other routes than those of the active policies; what does not fit is refused."
        click.echo(click.style(text, fg="red"))
    lost = counters["bytes_without_plan"]
    click.echo("bytes that left without a plan: " + click.style(str(lost), fg="red" if lost else "green", bold=True))
    if any(policy["mode"] == "shadow" for policy in found["policies"]):
        click.echo(click.style("A policy is in shadow mode: it changes nothing on the wire.", fg="yellow"))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
