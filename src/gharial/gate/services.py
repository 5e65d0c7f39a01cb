"""What every exchange of one gate shares: the collaborators, the limits, and the counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from gharial.crypto.keyset import Keyset
from gharial.gate.identify import Identifier
from gharial.gate.ports import Audit, Clock, Consent, Store
from gharial.gate.publish import Publisher
from gharial.gate.recording import RecordingSwitch
from gharial.gate.routes import RouteTable
from gharial.gate.vault import TokenBook
from gharial.gate.watching import Watching
from gharial.model.finding import Limits
from gharial.watch.incidents import IncidentBook
from gharial.watch.meter import BudgetBook


@dataclass(slots=True)
class Counters:
    """What `gharial status` shows. All count since the gate started; keys are routes, codes and names, never values.

    `bytes_without_plan` counts bytes that an enforced route was about to forward without a plan. It reads zero; such
    bytes are refused as well as counted. `revealed` counts values of the reveal API by tag, `reveal_refused` those that
    it refused, by why (`RevealRefusal`).
    """

    forwarded: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    abandoned: int = 0
    shadow_would_change: Counter[str] = field(default_factory=Counter)
    shadow_would_refuse: Counter[str] = field(default_factory=Counter)
    people_unknown: int = 0
    headers_withheld: int = 0
    locations_withheld: int = 0
    audit_lines_lost: int = 0
    bytes_without_plan: int = 0
    revealed: Counter[str] = field(default_factory=Counter)
    reveal_refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Services:
    """The collaborators of an exchange. `new_id` returns a fresh id; `wake_alarms` tells the courier of new ones."""

    tenant: str
    routes: RouteTable
    identifier: Identifier
    publisher: Publisher
    meter: BudgetBook
    incidents: IncidentBook
    store: Store
    consent: Consent
    vault: TokenBook
    audit: Audit
    clock: Clock
    limits: Limits
    counters: Counters
    new_id: Callable[[], str]
    iso_time: Callable[[float], str]
    wake_alarms: Callable[[], None]
    watching: Watching
    recording: RecordingSwitch = field(default_factory=RecordingSwitch)

    @property
    def keyset(self) -> Keyset:
        """The keyset that is active now; an exchange keeps the one of the policies that it began with."""
        return self.publisher.keyset
