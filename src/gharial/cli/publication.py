"""`gharial policy publish`, `history`, `rollback`, `canary`: change what is active in a running gateway."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gharial.cli.output import config_option, json_option, print_json, print_table, speaks_errors

_force_option = click.option("--force", is_flag=True, help="Although tests of the policy fail; noted in the history.")


def _call(config_path: Path, method: str, target: str, body: object = None) -> Any:
    from gharial.adapters.admin import CHANGE_TIMEOUT_S, AdminClient
    from gharial.settings import load_settings

    socket = config_path.resolve().parent / load_settings(config_path).admin.socket
    admin = AdminClient(socket, timeout_s=CHANGE_TIMEOUT_S)
    return admin.call(method, target, body)


@click.command()
@_force_option
@config_option
@json_option
@speaks_errors
def publish(force: bool, config_path: Path, as_json: bool) -> None:
    """Make the policy files, as they are now, the active policies of the running gateway.

    All of them or none: a file with a mistake, or with a failing test, leaves what is active as it is. Running calls
    end as they began.

    \b
    gharial policy publish
    kill -HUP $(pgrep -f 'gharial up')        # the same
    """
    found = _call(config_path, "POST", "/policies/publish", {"force": force})
    if as_json:
        print_json(found)
        return
    click.echo(f"active: {', '.join(found['changed'])}" if found["changed"] else "nothing has changed")
    _warn_of_shadow(config_path)


def _warn_of_shadow(config_path: Path) -> None:
    """Say which active policies only look on: an answer that nobody protects must not be a surprise."""
    for policy in _call(config_path, "GET", "/status")["policies"]:
        if policy["mode"] == "shadow":
            text = f"{policy['policy']} (version {policy['version']}) is in SHADOW: everything passes unchanged"
            click.echo(click.style(text, fg="yellow", bold=True), err=True)


@click.command()
@config_option
@json_option
@speaks_errors
def history(config_path: Path, as_json: bool) -> None:
    """Show what was active from when on, newest first."""
    found = _call(config_path, "GET", "/policies/history")
    if as_json:
        print_json(found)
        return
    print_table(
        "",
        ["number", "policy", "version", "action", "at (UTC)", "tests", "digest"],
        [
            [
                record["number"],
                record["policy"],
                record["version"],
                record["action"],
                datetime.fromtimestamp(record["at_s"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
                f"forced, {record['failed_tests']} failed" if record["forced"] else "",
                record["digest"][:12],
            ]
            for record in found
        ],
    )


@click.command()
@click.argument("policy")
@click.option("--to", "number", type=int, help="The number of a publication in the history; else the one before.")
@_force_option
@config_option
@speaks_errors
def rollback(policy: str, number: int | None, force: bool, config_path: Path) -> None:
    """Make an earlier text of POLICY active again, and write it back into its file.

    \b
    gharial policy rollback customer-data
    gharial policy rollback customer-data --to 3
    """
    body = {"policy": policy, "number": number, "force": force}
    found = _call(config_path, "POST", "/policies/rollback", body)
    click.echo(f"active: {found['policy']} as of publication {found['number']} (version {found['version']})")
    _warn_of_shadow(config_path)


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--percent", type=click.IntRange(1, 100), default=100, show_default=True, help="Share of the callers.")
@click.option("--route", "routes", multiple=True, help="Only on this route; may be given several times.")
@click.option("--end", is_flag=True, help="Let the active policies serve everybody again.")
@config_option
@speaks_errors
def canary(files: tuple[Path, ...], percent: int, routes: tuple[str, ...], end: bool, config_path: Path) -> None:
    """Let the policies of FILES serve a part of the callers, until they are published or the canary ends.

    A caller is always in the part or always out of it. `gharial status` shows that a canary runs.

    \b
    gharial policy canary new/customer-data.yaml --percent 10 --route customer
    gharial policy canary --end
    """
    if end == bool(files):
        raise click.UsageError("name the files of the candidate, or --end")
    if end:
        _call(config_path, "POST", "/policies/canary/end")
        click.echo("the active policies serve everybody")
        return
    body = {"files": [str(file.resolve()) for file in files], "percent": percent, "routes": list(routes)}
    _call(config_path, "POST", "/policies/canary", body)
    click.echo(f"the candidate serves {percent} % of the callers" + (f" on {', '.join(routes)}" if routes else ""))
