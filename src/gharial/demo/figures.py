"""The demo's figures: what was measured, what it must be, and how it is written to a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gharial.demo.telecom import CUSTOMERS
from gharial.demo.thief import Loot, Work

BUDGET_PEOPLE = 60
"""The people budget of a support clerk in the demo's policy."""
MIN_REQUESTS = 200
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that one telling measured. `incident` is its id, or empty if none was opened."""

    door: Loot
    anonymous: Loot
    partner_key: Loot
    stolen_clerk: Loot
    incident: str
    people_exposed: int
    honest_clerk: Work
    partner_token: Work


def days_for_all(door: Loot) -> float:
    """Return how many days the open door needs for all customers, at the speed that was measured."""
    return CUSTOMERS / door.people_per_s / _DAY_S if door.people_per_s else float("inf")


def to_json(figures: Figures) -> dict[str, Any]:
    """Return the content of `--json FILE`; times in seconds."""
    days = days_for_all(figures.door)
    return {
        "door": {**_walk(figures.door), "days_for_all": round(days, 3) if days != float("inf") else None},
        "anonymous": _walk(figures.anonymous),
        "partner_key": _walk(figures.partner_key),
        "stolen_clerk": {**_walk(figures.stolen_clerk), "incident": figures.incident or None},
        "honest_clerk": {"requests": figures.honest_clerk.requests, "ok": figures.honest_clerk.ok},
        "partner_token": {"ok": figures.partner_token.ok},
    }


def _walk(loot: Loot) -> dict[str, Any]:
    return {
        "requests": loot.requests,
        "status_200": loot.status_200,
        "records_with_public_fields": loot.records_with_public_fields,
        "people_in_clear": loot.people_in_clear,
        "seconds": round(loot.seconds, 3),
    }


def find_faults(figures: Figures) -> Iterator[str]:
    """Yield a sentence for every figure that is not what it must be."""
    door = figures.door
    if door.people_in_clear != door.requests:
        yield f"the open door showed {door.people_in_clear:,} people in {door.requests:,} requests; it shows everybody"
    walks = {
        "the open door": (door, None),
        "the thief without a credential": (figures.anonymous, 0),
        "the thief with a partner's key": (figures.partner_key, 0),
        "the thief with a stolen clerk's key": (figures.stolen_clerk, BUDGET_PEOPLE),
    }
    for who, (loot, must_see) in walks.items():
        if must_see is not None and loot.people_in_clear != must_see:
            yield f"{who} saw {loot.people_in_clear:,} people in clear; it must be {must_see}"
        if loot.requests <= MIN_REQUESTS:
            yield f"{who} made only {loot.requests} requests; more than {MIN_REQUESTS} are needed to mean something"
        if loot.status_200 != loot.requests or loot.records_with_public_fields != loot.requests:
            yield (
                f"{who} made {loot.requests:,} requests, {loot.status_200:,} were answered with 200 and "
                f"{loot.records_with_public_fields:,} with the right public fields; it must be all of them"
            )
    if not figures.incident:
        yield "no incident was opened for the stolen key"
    elif figures.people_exposed != BUDGET_PEOPLE:
        yield f"the incident speaks of {figures.people_exposed} people exposed; it must be {BUDGET_PEOPLE}"
    if not figures.honest_clerk.ok:
        yield "the honest clerk did not get every record that he needed"
    if not figures.partner_token.ok:
        yield "a token that the partner sent back did not bring the right record"
