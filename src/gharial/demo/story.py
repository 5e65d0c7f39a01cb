"""The story: what is told, in which order, and the table at the end. Every figure in it was measured while telling."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.rule import Rule
from rich.table import Table

from gharial.demo import DemoOptions
from gharial.demo.figures import Figures, days_for_all, find_faults, to_json
from gharial.demo.parts import DemoFailed, Gateway, running_gateway, running_telecom
from gharial.demo.telecom import CUSTOMERS, customer
from gharial.demo.thief import FIRST_ID, Loot, Pace, Work, bill_by_token, help_customers, walk

HONEST_CALLS = 40
PARTNER_PEOPLE = 20
INTERRUPTED = 130
PARTNER, STOLEN, HONEST = "acme-billing", "clerk-17", "clerk-23"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INCIDENT_TRIES = 20
_INCIDENT_PAUSE_S = 0.25
_CLIP = 58

OpenGateway = Callable[[str], AbstractAsyncContextManager[Gateway]]


def tell(
    options: DemoOptions,
    *,
    console: Console | None = None,
    open_gateway: OpenGateway | None = None,
    pace: Pace | None = None,
) -> int:
    """Tell the story and return the exit status (see `run_demo`). `open_gateway` is given the upstream's URL."""
    out = console or Console(highlight=False)
    opener = open_gateway or (lambda url: running_gateway(url, keep_files=options.keep))
    try:
        return asyncio.run(_stoppable(_tell(out, opener, pace or Pace(), options)))
    except asyncio.CancelledError:
        out.print("Stopped; telecom and gateway have ended.")
        return INTERRUPTED
    except DemoFailed as error:
        out.print(f"[bold red]The demo could not run:[/] {escape(str(error))}")
        return 1


async def _stoppable(work: Coroutine[Any, Any, int]) -> int:
    """Let the first signal cancel `work`, which then ends its parts; a further one must not cut that short."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    asked = False

    def stop() -> None:
        nonlocal asked
        if not asked:
            asked = True
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _tell(out: Console, open_gateway: OpenGateway, pace: Pace, options: DemoOptions) -> int:
    _print_opening(out)
    async with AsyncExitStack() as parts:
        with out.status("Starting the telecom's API, and Gharial before it …"):
            telecom_url = await parts.enter_async_context(running_telecom())
            gateway = await parts.enter_async_context(open_gateway(telecom_url))
            keys = await _add_clients(gateway)
        figures = await _measure(out, telecom_url, gateway, keys, pace)
        _print_table(out, figures)
        faults = list(find_faults(figures))
        for fault in faults:
            out.print(f"[bold red]Not as it must be:[/] {fault}.")
        if options.json_file is not None and not _write_json(out, options.json_file, figures):
            faults.append("the file was not written")
        if options.keep:
            await _keep(out, telecom_url, gateway, keys)
    if options.keep:
        out.print(f"\nStopped; telecom and gateway have ended. Their files stay in {gateway.folder}.", soft_wrap=True)
    return 1 if faults else 0


async def _add_clients(gateway: Gateway) -> dict[str, str]:
    async with asyncio.TaskGroup() as group:
        tasks = {
            name: group.create_task(gateway.add_client(name, role, purpose))
            for name, role, purpose in (
                (PARTNER, "partner", "billing"),
                (STOLEN, "care", "support"),
                (HONEST, "care", "support"),
            )
        }
    return {name: task.result() for name, task in tasks.items()}


async def _measure(out: Console, telecom_url: str, gateway: Gateway, keys: dict[str, str], pace: Pace) -> Figures:
    _chapter(out, "1", "The open door", "A thief asks the API for one id after the other. It answers.")
    door = await _walk(out, telecom_url, "", pace)
    _print_record(out, "One of the records, as he has it now", door.first)
    out.print(
        f"{door.people_in_clear:,} people in {door.seconds:.1f} s, {door.people_per_s:,.0f} a second, all in clear. "
        f"At this pace all {CUSTOMERS:,} are out of the house in [bold red]{_duration(door)}[/].\n"
    )

    _chapter(out, "2", "Through the gate", "The same thief, the same ids, the same API; Gharial stands before it.")
    anonymous = await _walk(out, gateway.url, "", pace)
    _print_record(out, "The same record, asked for without a credential", anonymous.first)
    _print_count(out, anonymous)
    out.print("He finds a partner's key. It is valid, so he gets what that partner gets:")
    partner_key = await _walk(out, gateway.url, keys[PARTNER], pace)
    _print_record(out, "The same record, with the partner's key", partner_key.first)
    _print_count(out, partner_key)

    _chapter(out, "3", "The stolen key", "Now he has the key of a support clerk, who may see people in clear.")
    stolen_clerk = await _walk(out, gateway.url, keys[STOLEN], pace)
    _print_record(out, "What he gets once the clerk's hour is spent", stolen_clerk.last)
    incident = await _find_incident(gateway)
    _print_count(out, stolen_clerk)
    _print_incident(out, incident)

    _chapter(out, "4", "Everybody else", "The incident is open. The honest go on working as before.")
    honest_clerk = await help_customers(gateway.url, keys[HONEST], HONEST_CALLS)
    out.print(
        f"Another clerk takes {honest_clerk.requests} calls and sees every caller's record in clear: "
        f"{_yes(honest_clerk)}"
    )
    partner_token = await bill_by_token(gateway.url, keys[PARTNER], PARTNER_PEOPLE)
    out.print(
        f"The partner bills {PARTNER_PEOPLE} customers, knowing tokens and no ids; each token, sent back in a path, "
        f"brings the right bill: {_yes(partner_token)}\n"
    )
    return Figures(
        door=door,
        anonymous=anonymous,
        partner_key=partner_key,
        stolen_clerk=stolen_clerk,
        incident=str(incident["incident_id"]) if incident else "",
        people_exposed=int(incident["people_clear"]) if incident else 0,
        honest_clerk=honest_clerk,
        partner_token=partner_token,
    )


async def _walk(out: Console, base_url: str, key: str, pace: Pace) -> Loot:
    columns = (TextColumn("  "), BarColumn(36), TextColumn("{task.description}"))
    # Where nobody watches, a bar is noise; the sentence that follows says it all.
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        bar = progress.add_task("", total=pace.seconds)

        def show(loot: Loot) -> None:
            if loot.requests % 64 == 0:
                text = f"{loot.requests:,} records asked for, [bold]{loot.people_in_clear:,}[/] people in clear"
                progress.update(bar, completed=min(loot.seconds, pace.seconds), description=text)

        return await walk(base_url, key, pace, show)


async def _find_incident(gateway: Gateway) -> dict[str, Any] | None:
    """Return the incident about the stolen key; it may take a moment to be listed."""
    for _ in range(_INCIDENT_TRIES):
        found = next((i for i in await gateway.list_incidents() if i["client"] == STOLEN), None)
        if found is not None:
            return found
        await asyncio.sleep(_INCIDENT_PAUSE_S)
    return None


# --- what is printed ----------------------------------------------------------------------------------------------


def _print_opening(out: Console) -> None:
    out.print()
    out.print("[bold]Gharial[/]  Protect the data, not only the door.")
    out.print(
        f"A telecom with {CUSTOMERS:,} customers has an API that nobody locked. The telecom and its people are made "
        "up; the HTTP is real, on this machine, and so is every figure below.\n"
    )


def _chapter(out: Console, number: str, title: str, text: str) -> None:
    out.print(Rule(f"[bold]{number}  {title}[/]", align="left", style="green"))
    out.print(text)


def _print_record(out: Console, title: str, body: bytes) -> None:
    try:
        record = json.loads(body)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        out.print(f"  {title}: [dim]nothing that can be read as a record[/]")
        return
    out.print(f"  [bold]{title}[/]")
    grid = Table.grid(padding=(0, 2))
    true = customer(FIRST_ID)
    for name in true:
        grid.add_row(f"    [cyan]{name}[/]", _shown(record[name]) if name in record else "[dim](does not leave)[/]")
    out.print(grid)


def _shown(value: object) -> str:
    text = ", ".join(map(str, value.values())) if isinstance(value, dict) else str(value)
    return escape(text if len(text) <= _CLIP else text[: _CLIP - 1] + "…")


def _print_count(out: Console, loot: Loot) -> None:
    style = "bold green" if loot.people_in_clear == 0 else "bold yellow"
    out.print(
        f"{loot.requests:,} records asked for, {loot.status_200:,} answered with 200 OK, "
        f"[{style}]{loot.people_in_clear:,} people in clear[/].\n"
    )


def _print_incident(out: Console, incident: dict[str, Any] | None) -> None:
    if incident is None:
        out.print("[bold red]No incident was opened.[/]\n")
        return
    out.print(
        f"Incident [bold]{escape(str(incident['incident_id']))}[/]: {escape(str(incident['client']))} has seen "
        f"{incident['people_clear']} people in clear, the limit of '{escape(str(incident['grant']))}'; "
        f"{incident['people_withheld']:,} more were asked for and withheld. "
        f"Done about it: {escape(str(incident['measure']))}.\n"
    )


def _print_table(out: Console, figures: Figures) -> None:
    table = Table(box=box.SIMPLE_HEAVY, title="What left the house", title_justify="left", title_style="bold")
    table.add_column("who asked", no_wrap=True)
    for name in ("requests", "200 OK", "in clear"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    pace = f"{figures.door.people_per_s:,.0f} people/s: all in {_duration(figures.door)}"
    _row(table, "thief, open door", figures.door, "bold red", pace)
    _row(table, "thief, no credential", figures.anonymous, "bold green", "plan and country")
    _row(table, "thief, partner's key", figures.partner_key, "bold green", "that partner's tokens")
    _row(table, "thief, clerk's key", figures.stolen_clerk, "bold yellow", figures.incident or "no incident")
    _row(table, "honest clerk", figures.honest_clerk, "bold", f"every record: {_yes(figures.honest_clerk)}")
    _row(table, "partner at work", figures.partner_token, "bold", f"tokens come back: {_yes(figures.partner_token)}")
    out.print(table)


def _row(table: Table, who: str, did: Loot | Work, style: str, note: str) -> None:
    clear = f"[{style}]{did.people_in_clear:,}[/]"
    table.add_row(who, f"{did.requests:,}", f"{did.status_200:,}", clear, note)


def _yes(work: Work) -> str:
    return "[bold green]yes[/]" if work.ok else "[bold red]no[/]"


def _duration(door: Loot) -> str:
    days = days_for_all(door)
    if days == float("inf"):
        return "no time that can be told"
    return f"{days:.1f} days" if days >= 2 else f"{days * 24:.1f} hours"


def _write_json(out: Console, path: Path, figures: Figures) -> bool:
    try:
        path.write_text(json.dumps(to_json(figures), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        out.print(f"[bold red]{escape(str(path))} can't be written:[/] {type(error).__name__}")
        return False
    return True


async def _keep(out: Console, telecom_url: str, gateway: Gateway, keys: dict[str, str]) -> None:
    """Say how to try it by hand, and wait for Ctrl-C: here that is the ordinary end."""
    lines = [
        "It goes on running. The open door:",
        f"  curl -s {telecom_url}/customers/{FIRST_ID}",
        "The gate, without a credential, and with the keys of the partner, the honest clerk, the stolen one:",
        f"  curl -s {gateway.url}/customers/{FIRST_ID}",
        *(
            f"  curl -s -H 'X-Api-Key: {keys[n]}' {gateway.url}/customers/{FIRST_ID + 900_000}"
            for n in (PARTNER, HONEST, STOLEN)
        ),
        "A bill by token: take a customerId from this list, and put it into the path of the next line.",
        f"  curl -s -H 'X-Api-Key: {keys[PARTNER]}' '{gateway.url}/customers?from={FIRST_ID}&limit=3'",
        f"  curl -s -H 'X-Api-Key: {keys[PARTNER]}' {gateway.url}/customers/TOKEN/bill",
        "What the operator sees:",
        f"  gharial status -c {gateway.folder}/gharial.yaml",
        f"  gharial incidents list -c {gateway.folder}/gharial.yaml",
        f"  tail -n 3 {gateway.folder}/run/audit/*",
        "Ctrl-C ends it.",
    ]
    for line in lines:
        out.print(line, soft_wrap=True, markup=False)
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
