"""Store, vault and audit that live in memory and end with the process: for tests, and for trying a policy out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gharial.crypto.subject import PersonKey
from gharial.crypto.vault import Entry
from gharial.gate.ports import Charge, ClientRecord, CredentialRecord, IncidentRecord
from gharial.model.errors import AlreadyExists, NotFound, VaultUnavailable
from gharial.model.publication import PublicationRecord

KEPT = 10_000
"""Audit lines, alarms and publications that are kept at most, the newest."""


class MemoryStore:
    """Implements `gate.ports.Store`. "Durable" means here: as long as the process lives."""

    def __init__(self) -> None:
        self._charges: dict[tuple[str, str, str, str], Charge] = {}
        self._clients: dict[str, ClientRecord] = {}
        self._credentials: dict[str, CredentialRecord] = {}
        self._incidents: dict[str, IncidentRecord] = {}
        self._alarms: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._publications: deque[PublicationRecord] = deque(maxlen=KEPT)
        self._number = 0

    async def charge(self, charges: Sequence[Charge]) -> None:
        """See the port. The time of a person who is there already moves forward, never back."""
        for new in charges:
            key = (new.principal, new.policy, new.grant, new.person)
            held = self._charges.get(key)
            if held is None or held.at_s < new.at_s:
                self._charges[key] = new

    async def load_charges(self, since_s: float) -> Sequence[Charge]:
        """See the port."""
        return sorted((c for c in self._charges.values() if c.at_s >= since_s), key=lambda c: c.at_s)

    async def delete_charges(self, before_s: float) -> int:
        """Forget charges before `before_s`; return how many there were."""
        old = [key for key, charge in self._charges.items() if charge.at_s < before_s]
        for key in old:
            del self._charges[key]
        return len(old)

    async def add_client(self, client: ClientRecord, credentials: Sequence[CredentialRecord]) -> None:
        """See the port."""
        if client.name in self._clients:
            raise AlreadyExists(f"there is a client named {client.name} already")
        self._clients[client.name] = client
        self._credentials.update((credential.credential_id, credential) for credential in credentials)

    async def revoke_client(self, name: str, at_s: float) -> None:
        """See the port."""
        client = self._clients.get(name)
        if client is None:
            raise NotFound(f"there is no client named {name}")
        self._clients[name] = replace(client, revoked_s=at_s if client.revoked_s is None else client.revoked_s)

    async def load_clients(self) -> tuple[Sequence[ClientRecord], Sequence[CredentialRecord]]:
        """See the port."""
        return list(self._clients.values()), list(self._credentials.values())

    async def put_incident(self, incident: IncidentRecord, alarm: bytes | None) -> None:
        """See the port."""
        self._incidents[incident.incident_id] = incident
        if alarm is not None:
            self._number += 1
            self._alarms.append((self._number, alarm))

    async def load_incidents(self, limit: int = 1000) -> Sequence[IncidentRecord]:
        """See the port."""
        return list(self._incidents.values())[::-1][:limit]

    async def waiting_alarms(self, limit: int = 100) -> Sequence[tuple[int, bytes]]:
        """See the port."""
        return list(self._alarms)[:limit]

    async def alarm_delivered(self, number: int) -> None:
        """See the port."""
        self._alarms = deque((one for one in self._alarms if one[0] != number), maxlen=KEPT)

    async def add_publications(self, records: Sequence[PublicationRecord]) -> None:
        """See the port."""
        for record in records:
            self._number += 1
            self._publications.append(replace(record, number=self._number))

    async def load_publications(self, limit: int = 1000) -> Sequence[PublicationRecord]:
        """See the port."""
        return list(self._publications)[::-1][:limit]

    def close(self) -> None:
        """There is nothing to close."""


class MemoryAudit:
    """Implements `gate.ports.Audit`; keeps the newest lines."""

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque(maxlen=KEPT)

    async def append(self, line: bytes, *, durable: bool) -> None:
        """See the port."""
        del durable
        self.note(line)

    def note(self, line: bytes) -> None:
        """See the port."""
        self.lines.append(line)

    def close(self) -> None:
        """There is nothing to close."""


class MemoryVault:
    """Implements `gate.ports.Vault`. Its tokens mean nothing to any other process."""

    def __init__(self) -> None:
        self._rows: dict[bytes, Entry] = {}
        self._sealed: dict[bytes, bytes] = {}

    async def keep(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See the port."""
        new = [entry for entry in entries if entry.lookup not in self._rows]
        if any(entry.token in self._sealed for entry in new):
            raise VaultUnavailable("a token was drawn twice")
        self._rows |= {entry.lookup: entry for entry in new}
        self._sealed |= {entry.token: entry.sealed for entry in new}
        return [self._rows[entry.lookup] for entry in entries]

    async def find(self, tokens: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """See the port."""
        return {token: self._sealed[token] for token in tokens if token in self._sealed}


class MemoryPersonKeys:
    """Implements `gate.ports.PersonKeys`. What is made with its keys means nothing to any other process."""

    def __init__(self) -> None:
        self._rows: dict[bytes, PersonKey] = {}
        self._handle_of: dict[str, bytes] = {}

    async def keep(self, rows: Sequence[PersonKey]) -> Sequence[PersonKey]:
        """See the port."""
        return [self._rows[self._handle(row)] for row in rows]

    async def find(self, handles: Sequence[bytes]) -> Mapping[bytes, PersonKey]:
        """See the port."""
        return {handle: self._rows[handle] for handle in handles if handle in self._rows}

    async def erase(self, tombstones: Sequence[PersonKey]) -> Sequence[PersonKey]:
        """See the port."""
        for tombstone in tombstones:
            handle = self._handle(tombstone)
            row = self._rows[handle]
            if row.erased_s is None:
                self._rows[handle] = replace(row, wrapped=b"", erased_s=tombstone.erased_s)
        return [self._rows[self._handle_of[tombstone.person]] for tombstone in tombstones]

    async def forget(self, people: Sequence[str]) -> int:
        """See the port."""
        gone = [one for one in people if one in self._handle_of and self._rows[self._handle_of[one]].erased_s]
        for person in gone:
            del self._handle_of[person]
        return len(gone)

    def _handle(self, row: PersonKey) -> bytes:
        handle = self._handle_of.setdefault(row.person, row.handle)
        self._rows.setdefault(handle, row)
        return handle
