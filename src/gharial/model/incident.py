"""What a detector opened, as it is kept and shown: facts and counts, never a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IncidentRecord:
    """What a detector opened: who, where, how many people, since when, what was done about it. Never a value.

    `key` joins events of one kind: detector, principal, policy, grant and window. `people_clear` are the people shown
    in clear when it was last updated, `people_withheld` the distinct people beyond, of whom nothing was shown in clear.
    Times in seconds since the epoch.
    """

    incident_id: str
    key: str
    detector: str
    severity: str
    principal: str
    client: str
    user: str
    route: str
    policy: str
    grant: str
    limit_people: int
    window_s: int
    opened_s: float
    last_seen_s: float
    people_clear: int
    people_withheld: int
    measure: str
    exchange_id: str
