"""`gharial record` keeps the shape of traffic, and `gharial policy replay` runs it under another policy."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gharial.cli.output import config_option, fail, json_option, note, print_json, print_table, speaks_errors

if TYPE_CHECKING:
    from gharial.policy.tally import Replay

MORE_OPEN_STATUS = 3
MAX_SHOWN = 40
_POLL_S = 1.0
_WHY = {
    "stopped": "it was stopped",
    "time": "its time is over",
    "exchanges": "it has as many exchanges as it may",
    "size": "the file is as large as it may be",
    "disk": "the disk is full",
    "failed": "of a mistake in Gharial",
}


@click.command()
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file to make; it must not be there.")
@click.option("--for", "duration", default="1h", show_default=True, help="How long at most: 30s, 15min, 1h …")
@click.option(
    "--max-exchanges", type=click.IntRange(1), default=100_000, show_default=True, help="How many exchanges at most."
)
@click.option("--max-size", default="1GB", show_default=True, help="How large the file may become.")
@click.option("--route", "routes", multiple=True, help="Only this route; may be given several times.")
@click.option("--detach", is_flag=True, help="Return at once; the gateway goes on recording.")
@click.option("--stop", is_flag=True, help="End the recording that runs.")
@config_option
@json_option
@speaks_errors
def record(
    out: Path | None,
    duration: str,
    max_exchanges: int,
    max_size: str,
    routes: tuple[str, ...],
    detach: bool,
    stop: bool,
    config_path: Path,
    as_json: bool,
) -> None:
    """Keep the shape of the traffic of the running gateway, for `gharial policy replay`; never a value.

    Ends by itself at the first of its bounds, or with Ctrl-C.

    \b
    gharial record --out monday.jsonl --for 1h
    gharial record --out monday.jsonl --route customer --max-exchanges 1000 --detach
    gharial record --stop
    """
    if stop == (out is not None):
        raise click.UsageError("name a file with --out, or --stop")
    if out is None:
        _say(_call(config_path, "POST", "/recording/stop"), as_json)
        return
    from gharial.settings import parse_duration_s, parse_size_bytes

    try:
        bounds = {"for_s": parse_duration_s(duration), "size_bytes": parse_size_bytes(max_size)}
    except ValueError as error:
        fail(str(error))
    request = {"file": str(out.absolute()), "exchanges": max_exchanges, "routes": list(routes), **bounds}
    found = _call(config_path, "POST", "/recording", request)
    if detach:
        _say(found, as_json)
        return
    note(f"recording into {out}; Ctrl-C ends it")
    try:
        while found["state"] == "running":
            time.sleep(_POLL_S)
            found = _call(config_path, "GET", "/recording")
    except KeyboardInterrupt:
        found = _call(config_path, "POST", "/recording/stop")
    _say(found, as_json)
    if found["why"] == "failed":
        sys.exit(1)


def _call(config_path: Path, method: str, target: str, body: object = None) -> Any:
    from gharial.adapters.admin import AdminClient
    from gharial.settings import load_settings

    admin = AdminClient(config_path.resolve().parent / load_settings(config_path).admin.socket, timeout_s=60.0)
    return admin.call(method, target, body)


def _say(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if found["state"] == "none":
        click.echo("nothing was recorded")
        return
    lost = f", {found['lost']:,} lost" if found["lost"] else ""
    click.echo(f"{found['file']}: {found['exchanges']:,} exchanges, {found['bytes']:,} bytes{lost}")
    if found["state"] == "ended":
        click.echo(f"the recording has ended: {_WHY[found['why']]}")
    else:
        click.echo(f"it goes on for {found['left_s']:.0f} s; 'gharial record --stop' ends it")


@click.command("replay")
@click.argument("recording", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("new", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--fail-if-more-open", is_flag=True, help="Exit with status 3 unless it is certain that nothing becomes more open."
)
@click.option("--skip-broken", is_flag=True, help="Leave out lines that can't be read, and say how many.")
@json_option
@speaks_errors
def replay(recording: Path, new: Path, fail_if_more_open: bool, skip_broken: bool, as_json: bool) -> None:
    """Say what the traffic of RECORDING would have looked like under the policy NEW: what more open, what stricter.

    What depends on a value, and so can't be told from a recording, is counted as unknown.

    \b
    gharial policy replay monday.jsonl new.yaml
    gharial policy replay monday.jsonl new.yaml --fail-if-more-open
    """
    from gharial.wiring.policy_tools import load_policy
    from gharial.wiring.replays import replay_file, replay_json

    found, skipped = replay_file(recording, load_policy(new), skip_broken=skip_broken)
    if as_json:
        print_json(replay_json(found, skipped))
    else:
        _print_table(found)
        for line in replay_lines(found):
            click.echo(line)
    if skipped:
        note(f"{skipped:,} broken lines were left out")
    if fail_if_more_open and found.may_be_more_open:
        sys.exit(MORE_OPEN_STATUS)


def _print_table(found: Replay) -> None:
    moved = [row for row in found.rows if row.more_open or row.stricter or row.other or row.unknown]
    if not moved:
        return
    print_table(
        "",
        ["route", "caller", "tag", "same", "more open", "stricter", "other", "unknown", "newly unlisted"],
        [
            [
                row.route,
                row.caller,
                row.tag or "(unlisted)",
                *(f"{n:,}" if n else "" for n in (row.same, row.more_open, row.stricter, row.other, row.unknown)),
                f"{row.newly_unlisted:,}" if row.newly_unlisted else "",
            ]
            for row in moved[:MAX_SHOWN]
        ],
    )
    if len(moved) > MAX_SHOWN:
        click.echo(f"… and {len(moved) - MAX_SHOWN:,} more rows; --json has all")


_HEADS = {
    "more_open": ("MORE OPEN", "red"),
    "other": ("CHANGED (which is stricter can't be told)", "yellow"),
    "unknown": ("UNKNOWN (it depends on what a recording does not hold)", "yellow"),
    "stricter": ("STRICTER", "green"),
}


def replay_lines(found: Replay) -> Iterator[str]:
    """Yield the changes by direction, refusals, what was left out, and a summary."""
    for way, (head, colour) in _HEADS.items():
        changes = [change for change in found.changes if change.way == way]
        if not changes:
            continue
        yield click.style(head, fg=colour, bold=True)
        for change in changes[:MAX_SHOWN]:
            both = [rule for rule in dict.fromkeys((change.rule_before, change.rule_after)) if rule]
            rules = click.style(f"  [{' -> '.join(both)}]", dim=True) if both else ""
            what = f"{change.tag} ({change.place})" if change.tag else change.place
            yield f"  {change.count:,} x {what} on {change.route} for {change.caller}"
            yield f"      {change.before} -> {change.after}{rules}"
        if len(changes) > MAX_SHOWN:
            yield f"  … and {len(changes) - MAX_SHOWN:,} more kinds; --json has all"
    for refusal in found.newly_refused:
        yield f"{refusal.count:,} exchanges on {refusal.route} for {refusal.caller} would be refused: {refusal.code}"
    for mode, count in found.modes.items():
        yield f"mode {mode}: {count:,} exchanges"
    for what, count in found.left_out.items():
        yield f"not compared: {count:,} {what}"
    refused = sum(refusal.count for refusal in found.newly_refused)
    columns = ("same", "more_open", "stricter", "other", "unknown", "newly_unlisted")
    counts = ", ".join(f"{found.total(name):,} {name.replace('_', ' ')}" for name in columns if found.total(name))
    ending = f"; {refused:,} newly refused" if refused else ""
    yield click.style(f"{found.exchanges:,} exchanges, {found.places:,} places: {counts or 'none'}{ending}", bold=True)
