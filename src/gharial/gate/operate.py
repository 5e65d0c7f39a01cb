"""What an operator can ask of a running gate, or of its store while no gate runs: clients, incidents, status."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gharial.gate.clients import ClientDirectory, NewClient, new_client
from gharial.gate.ports import Clock, IncidentRecord, Store
from gharial.gate.services import Services
from gharial.model.errors import AlreadyExists, NotFound

STATUS_VERSION = 1


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What a client is registered with."""

    name: str
    team: str = ""
    roles: tuple[str, ...] = ()
    purpose: str = ""
    may_assert: tuple[str, ...] = ()


class Operations:
    """The operator's use cases. All of them are durable when they return."""

    def __init__(
        self,
        store: Store,
        directory: ClientDirectory,
        clock: Clock,
        random: Callable[[int], bytes],
        hash_credential: Callable[[str], bytes],
    ) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self._random = random
        self._hash = hash_credential

    async def add_client(self, facts: ClientFacts) -> Mapping[str, str]:
        """Register a client; returns client id, secret and API key, which are shown this once and stored nowhere.

        Raises AlreadyExists, and ValueError for a name or fact that can't be one.
        """
        if self._directory.find(facts.name) is not None:
            raise AlreadyExists(
                f"there is a client '{facts.name}' already, and a revoked one keeps its name; choose another"
            )
        made: NewClient = new_client(
            facts.name,
            team=facts.team,
            roles=facts.roles,
            purpose=facts.purpose,
            may_assert=facts.may_assert,
            random=self._random,
            hash_credential=self._hash,
            now_s=self._clock.now_s(),
        )
        await self._store.add_client(made.client, made.credentials)
        self._directory.add(made.client, made.credentials)
        return {"client_id": made.client_id, "secret": made.secret, "key": made.api_key}

    async def revoke_client(self, name: str) -> None:
        """Make all credentials of a client invalid from the next call on. Raises NotFound."""
        now_s = self._clock.now_s()
        await self._store.revoke_client(name, now_s)
        self._directory.revoke(name, now_s)

    async def list_clients(self) -> list[dict[str, Any]]:
        """All clients, oldest first, without anything secret."""
        clients, credentials = await self._store.load_clients()
        by_client: dict[str, list[str]] = {}
        for credential in credentials:
            by_client.setdefault(credential.client, []).append(credential.credential_id)
        return [{**asdict(client), "credentials": by_client.get(client.name, [])} for client in clients]

    async def list_incidents(self) -> Sequence[IncidentRecord]:
        """The newest incidents, newest first."""
        return await self._store.load_incidents()

    async def get_incident(self, incident_id: str) -> IncidentRecord:
        """One incident. Raises NotFound."""
        for incident in await self._store.load_incidents():
            if incident.incident_id == incident_id:
                return incident
        raise NotFound(f"there is no incident '{incident_id}'; 'gharial incidents list' shows all")


def status(services: Services, *, started_s: float, version: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What `gharial status` shows of a running gate; names and numbers only."""
    counters = services.counters
    active = services.publisher.active
    policies = active.policies
    canary = services.publisher.canary
    return {
        "v": STATUS_VERSION,
        "gharial": version,
        "tenant": services.tenant,
        "started": services.iso_time(started_s),
        "uptime_s": round(services.clock.now_s() - started_s, 1),
        "policies": [
            {"policy": policy.name, "version": policy.version, "mode": policy.mode.value}
            for policy in policies.values()
        ],
        "routes": [
            {
                "route": rule.name,
                "match": rule.template.text,
                "kind": active.kind(rule).value,
                "policy": rule.policy or None,
                "version": policies[rule.policy].version if rule.policy else None,
                "forwarded": counters.forwarded[rule.name],
                "passed": counters.passed[rule.name],
                "would_change": counters.shadow_would_change[rule.name],
                "would_refuse": counters.shadow_would_refuse[rule.name],
            }
            for rule in services.routes.rules
        ],
        "canary": canary
        and {
            "percent": canary.percent,
            "routes": sorted(canary.routes),
            "policies": {policy.name: policy.version for policy in canary.policies.policies.values()},
        },
        "counters": {
            "forwarded": counters.forwarded.total(),
            "passed": counters.passed.total(),
            "refused": dict(sorted(counters.refused.items())),
            "abandoned": counters.abandoned,
            "people_unknown": counters.people_unknown,
            "headers_withheld": counters.headers_withheld,
            "locations_withheld": counters.locations_withheld,
            "audit_lines_lost": counters.audit_lines_lost,
            "bytes_without_plan": counters.bytes_without_plan,
            "revealed": counters.revealed.total(),
            "reveal_refused": counters.reveal_refused.total(),
        },
        "watch": {
            "seen": dict(sorted(services.watching.seen.items())),
            "measures": [asdict(measure) for measure in services.watching.measures.active(services.clock.now_s())],
        },
        **extra,
    }


def random_id(random: Callable[[int], bytes]) -> str:
    """Return a fresh exchange id: 96 random bits as 20 characters that are safe anywhere."""
    return base64.b32encode(random(12)).decode("ascii").rstrip("=").lower()
