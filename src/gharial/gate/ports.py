"""What the gate needs of the world. Adapters implement these; tests bring faithful fakes.

Whatever a port can't do it says by raising an error of `model.errors`; it never answers with less than was asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gharial.crypto.keyset_history import Known
from gharial.crypto.subject import PersonKey
from gharial.crypto.vault import Entry
from gharial.gate.routes import RouteKind
from gharial.model.incident import IncidentRecord as IncidentRecord
from gharial.model.publication import PublicationRecord


class Clock(Protocol):
    """Wall-clock time."""

    def now_s(self) -> float:
        """Seconds since the epoch (UTC)."""


class Audit(Protocol):
    """Where audit records are written."""

    async def append(self, line: bytes, *, durable: bool) -> None:
        """Append one line (without its newline). With `durable`, return only when it is on disk.

        Raises AuditUnwritable if it can't be written; also while the last write has failed and none succeeded since.
        """

    def note(self, line: bytes) -> None:
        """Append one line that nobody waits for: the same as `append` with `durable` false, in this very step."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One person shown in clear to one principal under one grant. `person` is a keyed digest."""

    principal: str
    policy: str
    grant: str
    person: str
    at_s: float


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A registered client. `may_assert` names what a caller may merely state (`purpose`, `country`, `claims`)."""

    name: str
    team: str = ""
    roles: tuple[str, ...] = ()
    purpose: str = ""
    may_assert: tuple[str, ...] = ()
    created_s: float = 0.0
    revoked_s: float | None = None


@dataclass(frozen=True, slots=True)
class CredentialRecord:
    """One credential of a client; only a keyed hash of the secret part is kept. `kind`: `api_key` or `secret`."""

    credential_id: str
    client: str
    kind: str
    hash: bytes = field(repr=False)
    created_s: float = 0.0
    revoked_s: float | None = None


class Store(Protocol):
    """Durable state of one gateway: clients, charges, incidents, alarms that wait for delivery.

    Every method that writes returns only when the write is durable, and raises StoreUnwritable if it is not.
    """

    async def charge(self, charges: Sequence[Charge]) -> None:
        """Record that these people were charged (again); all of them or none."""

    async def load_charges(self, since_s: float) -> Iterable[Charge]:
        """All charges at or after `since_s`, oldest first."""

    async def add_client(self, client: ClientRecord, credentials: Sequence[CredentialRecord]) -> None:
        """Add a client with its credentials. Raises AlreadyExists if there is one of that name."""

    async def revoke_client(self, name: str, at_s: float) -> None:
        """Revoke a client and all its credentials. Raises NotFound."""

    async def load_clients(self) -> tuple[Sequence[ClientRecord], Sequence[CredentialRecord]]:
        """All clients and credentials, revoked ones too, oldest first."""

    async def put_incident(self, incident: IncidentRecord, alarm: bytes | None) -> None:
        """Insert or update an incident, and queue `alarm` (a JSON text) for delivery in the same transaction."""

    async def load_incidents(self, limit: int = 1000) -> Sequence[IncidentRecord]:
        """The newest incidents, newest first."""

    async def waiting_alarms(self, limit: int = 100) -> Sequence[tuple[int, bytes]]:
        """(number, JSON text) of alarms not yet delivered, oldest first."""

    async def alarm_delivered(self, number: int) -> None:
        """Take an alarm off the queue."""

    async def add_publications(self, records: Sequence[PublicationRecord]) -> None:
        """Append to the history of policies; all of them or none. Their numbers are given here."""

    async def load_publications(self, limit: int = 1000) -> Sequence[PublicationRecord]:
        """The newest publications, newest first."""


class KeyMemory(Protocol):
    """What is kept of keys that were in use, durable when a call returns; raises StoreUnwritable if it is not."""

    async def load_known_keys(self) -> Known:
        """All of it."""

    async def remember_keys(self, known: Known, *, alone: bool = False) -> None:
        """Keep this too, or this alone. A destruction is not forgotten by a key that is alive again, nor a revision by
        an older one.
        """


class Vault(Protocol):
    """What random tokens stand for. It can't read what it keeps.

    Both methods raise VaultUnavailable if they can't do all that is asked.
    """

    async def keep(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return for each entry, in order, what is kept under its lookup, durable when this returns.

        That is the entry itself where nothing was kept there before; else the older one, whoever put it there. The
        lookups are all different.
        """

    async def find(self, tokens: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return what is sealed under each of these tokens; those that are not known are missing."""


class PersonKeys(Protocol):
    """Keys of people, each wrapped. It can't use what it keeps.

    All methods raise VaultUnavailable if they can't do all that is asked.
    """

    async def keep(self, rows: Sequence[PersonKey]) -> Sequence[PersonKey]:
        """Return for each row, in order, what is kept of its person, durable when this returns.

        That is the row itself where nothing was kept; else the older one, which may be of a destroyed key.
        """

    async def find(self, handles: Sequence[bytes]) -> Mapping[bytes, PersonKey]:
        """Return what is kept under each of these handles; those that are not known are missing."""

    async def erase(self, tombstones: Sequence[PersonKey]) -> Sequence[PersonKey]:
        """Destroy the keys of these people, and return what is kept of each: the time of the first erasure stays.

        Where nothing was kept, the tombstone is. When this returns, the wrapped keys are durably gone.
        """

    async def forget(self, people: Sequence[str]) -> int:
        """Forget of whom the destroyed keys of these people were, so that they may get new ones; return how many."""


class ProxyRoutes(Protocol):
    """How the attached proxy hands over the bodies of each route, where the gate may tell it."""

    def tell(self, kinds: Mapping[str, RouteKind], reads: Collection[str]) -> None:
        """Say by route what is done on it; the proxy follows by and by. Raises ProxyNotChanged if it can't be told.

        `reads` are the routes of which the gate must get the bodies of requests, where they are protected.
        """

    async def until_taken(self) -> None:
        """Return when the proxy goes by what it was told last. Raises ProxyNotChanged if it does not in time."""


class Consent(Protocol):
    """Who consented to what."""

    async def fetch(self, people: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], frozenset[str]]:
        """Return what each of these people (id space, text) consented to; one batch per exchange.

        Raises nothing: whoever could not be asked about is missing from the answer, and no answer means no consent.
        """


class NoConsent:
    """The resolver of a gateway that has none: nobody consented to anything."""

    async def fetch(self, people: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], frozenset[str]]:
        """See Consent."""
        del people
        return {}


class AlarmSink(Protocol):
    """Where alarms go."""

    async def send(self, alarm: bytes) -> bool:
        """Deliver one alarm (JSON text) to every configured sink; True only if all took it."""


class JwtVerifier(Protocol):
    """Checks a company's JSON Web Token."""

    def verify(self, token: str, now_s: float) -> Mapping[str, object]:
        """Return the claims of a token whose signature, issuer, audience and times hold.

        Raises UnknownCredential otherwise, without a word on which of them failed.
        """
