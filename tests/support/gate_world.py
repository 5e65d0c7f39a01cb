"""A gate with everything real but the world: fakes of store, audit and clock that do what the real ones promise."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gharial.adapters.memory import MemoryPersonKeys
from gharial.crypto.digest import credential_hash, person_digest
from gharial.crypto.keyset import create_keyset
from gharial.crypto.vault import Entry
from gharial.gate.clients import ClientDirectory, new_client
from gharial.gate.erasing import Eraser, spaces_of
from gharial.gate.exchange import GateExchange
from gharial.gate.identify import ApiKeySource, Identifier
from gharial.gate.outcome import BodyMode, ForwardBody, ForwardHead, ForwardRequest, Refuse, RequestHead, ResponseHead
from gharial.gate.people import PersonBook
from gharial.gate.ports import Charge, ClientRecord, CredentialRecord
from gharial.gate.publish import Publisher
from gharial.gate.routes import RouteKind, RouteRule, RouteTable, parse_template
from gharial.gate.services import Counters, Services
from gharial.gate.vault import TokenBook
from gharial.gate.watching import Watching
from gharial.model.errors import AuditUnwritable, GharialError, StoreUnwritable, VaultUnavailable
from gharial.model.finding import Limits
from gharial.model.incident import IncidentRecord
from gharial.model.plan import Mode
from gharial.model.publication import PublicationRecord
from gharial.policy.document import parse_policy
from gharial.watch.incidents import IncidentBook
from gharial.watch.meter import BudgetBook


class ManualClock:
    """Time that stands until a test moves it."""

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self.at_s = now_s

    def now_s(self) -> float:
        return self.at_s


@dataclass
class FakeAudit:
    """Keeps lines in memory, each with whether it was to be durable; `broken` refuses as a full disk does."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    durable: list[bool] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    broken: bool = False

    async def append(self, line: bytes, *, durable: bool) -> None:
        self._take(line, durable=durable)

    def note(self, line: bytes) -> None:
        self._take(line, durable=False)

    def _take(self, line: bytes, *, durable: bool) -> None:
        if self.broken:
            raise AuditUnwritable
        self.raw.append(line)
        self.lines.append(json.loads(line))
        self.durable.append(durable)


@dataclass
class FakeStore:
    """The durable part that exchanges use; `broken` refuses every write."""

    charges: list[Charge] = field(default_factory=list)
    incidents: dict[str, IncidentRecord] = field(default_factory=dict)
    alarms: list[bytes] = field(default_factory=list)
    publications: list[PublicationRecord] = field(default_factory=list)
    broken: bool = False

    def _check(self) -> None:
        if self.broken:
            raise StoreUnwritable

    async def charge(self, charges: Sequence[Charge]) -> None:
        self._check()
        self.charges.extend(charges)

    async def load_charges(self, since_s: float) -> Iterable[Charge]:
        return [charge for charge in self.charges if charge.at_s >= since_s]

    async def add_client(self, client: ClientRecord, credentials: Sequence[CredentialRecord]) -> None:
        self._check()

    async def revoke_client(self, name: str, at_s: float) -> None:
        self._check()

    async def load_clients(self) -> tuple[Sequence[ClientRecord], Sequence[CredentialRecord]]:
        return [], []

    async def put_incident(self, incident: IncidentRecord, alarm: bytes | None) -> None:
        self._check()
        self.incidents[incident.incident_id] = incident
        if alarm is not None:
            self.alarms.append(alarm)

    async def load_incidents(self, limit: int = 1000) -> Sequence[IncidentRecord]:
        return list(self.incidents.values())[:limit]

    async def add_publications(self, records: Sequence[PublicationRecord]) -> None:
        self._check()
        for record in records:
            self.publications.append(replace(record, number=len(self.publications) + 1))

    async def load_publications(self, limit: int = 1000) -> Sequence[PublicationRecord]:
        return self.publications[::-1][:limit]

    async def waiting_alarms(self, limit: int = 100) -> Sequence[tuple[int, bytes]]:
        return list(enumerate(self.alarms))[:limit]

    async def alarm_delivered(self, number: int) -> None:
        self.alarms.pop(number)


@dataclass
class FakeConsent:
    """Answers from a mapping, and remembers each batch that it was asked for."""

    given: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    batches: list[tuple[tuple[str, str], ...]] = field(default_factory=list)

    async def fetch(self, people: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], frozenset[str]]:
        self.batches.append(tuple(people))
        return {person: self.given[person] for person in people if person in self.given}


@dataclass
class FakeVault:
    """Keeps rows in memory; `broken` refuses all. `kept` and `found` are how many rows each question was about."""

    rows: dict[bytes, Entry] = field(default_factory=dict)
    broken: bool = False
    kept: list[int] = field(default_factory=list)
    found: list[int] = field(default_factory=list)

    async def keep(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        if self.broken:
            raise VaultUnavailable
        self.kept.append(len(entries))
        return [self.rows.setdefault(entry.lookup, entry) for entry in entries]

    async def find(self, tokens: Sequence[bytes]) -> Mapping[bytes, bytes]:
        if self.broken:
            raise VaultUnavailable
        self.found.append(len(tokens))
        return {row.token: row.sealed for row in self.rows.values() if row.token in tokens}


@dataclass(frozen=True)
class Answer:
    """What an upstream says, as the proxy would hand it over."""

    body: bytes = b"{}"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    from_upstream: bool = True
    proxy_detail: str = "via_upstream"
    has_body: bool = True


@dataclass(frozen=True)
class Seen:
    """What came of a call: what the upstream would have got, and what the client gets (or why not)."""

    request: ForwardRequest | None = None
    head: ForwardHead | None = None
    body: ForwardBody | None = None
    refusal: Refuse | None = None
    sent: bytes | None = None
    """The request's body that the upstream would have got."""

    @property
    def code(self) -> str:
        """The refusal's code, or empty."""
        return self.refusal.error.code if self.refusal else ""

    @property
    def json(self) -> Any:
        """The body that the client gets, decoded."""
        assert self.body is not None, self.code
        assert self.body.body is not None
        return json.loads(self.body.body)

    @property
    def set(self) -> Mapping[str, str]:
        """The response headers that were set."""
        return dict(self.head.set_headers) if self.head else {}


POLICY = """
policy: customer-data
version: 7
mode: enforce
tags:
  person:  { find: ['$..customerId', 'path:id'], subject: customer }
  name:    { find: '$..fullName' }
  email:   { find: '$..email' }
  account: { find: ['$..accountNumber', 'path:account'] }
  public:  { find: '$..plan' }
who:
  anyone: {}
  care: { role: care }
  partner: { client: 'acme-*' }
grants:
  - { grant: basics, to: anyone, show: { person: token, public: clear } }
  - { grant: support-view, to: care, for: [support], show: { person: clear, name: clear, email: mask(keep=domain) },
      reidentify: [account, person], budget: { people: 3/h, then: mask } }
  - { grant: partner-billing, to: partner, for: [billing], show: { account: token }, reidentify: [person, account] }
"""

ROUTES = (
    ("customer", "GET,PUT,POST /customers/{id}", "customer-data"),
    ("list", "GET /customers", "customer-data"),
    ("account", "GET /accounts/{account}", "customer-data"),
    ("health", "GET /health", ""),
)


class World:
    """One gate, its fakes, and the clients that tests use."""

    def __init__(
        self,
        policy: str = POLICY,
        routes: Sequence[tuple[str, str, str]] = ROUTES,
        limits: Limits | None = None,
        keep_headers: Sequence[str] = (),
        **rule: Any,
    ) -> None:
        self.clock = ManualClock()
        self.decoys: dict[str, list[str]] = {}
        self.audit = FakeAudit()
        self.store = FakeStore()
        self.consent = FakeConsent()
        self.vault = FakeVault()
        self.people = MemoryPersonKeys()
        self.woken = 0
        counter = itertools.count(1)
        random = _counting_random()
        keyset = create_keyset(random, self.clock.now_s())
        parsed = parse_policy(policy, "policy.yaml")
        kind = RouteKind.SHADOW if parsed.mode is Mode.SHADOW else RouteKind.PROTECT
        rules = [
            RouteRule(
                name,
                parse_template(match),
                kind if covered else RouteKind.PASS,
                covered,
                frozenset(keep_headers),
                frozenset({"crm.internal", "crm.internal:8443"}),
                **rule,
            )
            for name, match, covered in routes
        ]
        self.directory = ClientDirectory()
        self.keys: dict[str, str] = {}

        def hashed(text: str) -> bytes:
            return credential_hash(keyset, text)

        for name, role, purpose, may_assert in (
            ("clerk-1", "care", "support", ()),
            ("clerk-2", "care", "support", ()),
            ("acme-billing", "partner", "billing", ()),
            ("acme-desk", "care", "billing", ("purpose",)),
        ):
            made = new_client(
                name,
                team="",
                roles=(role,),
                purpose=purpose,
                may_assert=may_assert,
                random=random,
                hash_credential=hashed,
                now_s=self.clock.now_s(),
            )
            self.directory.add(made.client, made.credentials)
            self.keys[name] = made.api_key
        incidents = IncidentBook(new_bytes=random, iso_time=str)
        self.services = Services(
            tenant="default",
            routes=RouteTable(rules),
            identifier=Identifier(
                [ApiKeySource("x-api-key")], self.directory, hash_credential=hashed, tenant="default"
            ),
            publisher=Publisher({parsed.name: parsed}, keyset, os.urandom),
            meter=BudgetBook(),
            incidents=incidents,
            store=self.store,
            consent=self.consent,
            vault=self._book(),
            audit=self.audit,
            clock=self.clock,
            limits=limits or Limits(),
            counters=Counters(),
            new_id=lambda: f"ex{next(counter)}",
            iso_time=str,
            wake_alarms=self._wake,
            watching=Watching(
                incidents,
                self.clock,
                read_decoys=lambda reference, _: self._decoys(reference),
                digest=lambda space, text: person_digest(keyset, "default", space, text),
            ),
        )

    def _decoys(self, reference: str) -> list[str]:
        if reference not in self.decoys:
            raise FileNotFoundError(reference)
        return self.decoys[reference]

    def _book(self) -> TokenBook:
        people = PersonBook(self.people, "default", os.urandom, self.clock.now_s)
        return TokenBook(self.vault, os.urandom, people=people)

    def eraser(self) -> Eraser:
        """What erases people in this gate."""
        assert self.services.vault.people is not None
        policies = self.services.publisher.active.policies
        return Eraser(
            self.services.vault.people, lambda: self.services.keyset, lambda: spaces_of(policies.values()), str
        )

    def _wake(self) -> None:
        self.woken += 1

    def restarted(self) -> World:
        """The same gate after a crash: memory gone, store and audit as they were."""
        fresh = World.__new__(World)
        fresh.__dict__.update(self.__dict__)
        meter = BudgetBook()
        meter.load(self.store.charges)
        incidents = IncidentBook(new_bytes=_counting_random(), iso_time=str)
        incidents.load(self.store.incidents.values())
        vault = self._book()
        fresh.services = replace(self.services, meter=meter, incidents=incidents, vault=vault, counters=Counters())
        return fresh

    def exchange(self) -> GateExchange:
        """A fresh exchange."""
        return GateExchange(self.services)

    async def call(
        self,
        target: str,
        answer: Answer | Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        as_: str = "",
        method: str = "GET",
        headers: Sequence[tuple[str, str]] = (),
        mode: BodyMode = BodyMode.BUFFERED,
        proxy_route: str = "",
        body: bytes | None = None,
        request_mode: BodyMode = BodyMode.BUFFERED,
    ) -> Seen:
        """Play one call to its end as the proxy would."""
        if not isinstance(answer, Answer):
            answer = Answer(json.dumps({} if answer is None else answer).encode())
        exchange = self.exchange()
        credential = (("x-api-key", self.keys[as_]),) if as_ else ()
        head = RequestHead(
            *(method, target, "gateway", "http", (*headers, *credential), proxy_route, mode),
            has_body=body is not None,
            request_body=request_mode,
        )
        request = await exchange.on_request(head)
        if isinstance(request, Refuse):
            exchange.on_end(completed=True)
            return Seen(refusal=request)
        sent: bytes | None = None
        if body is not None and request_mode is BodyMode.BUFFERED:
            forwarded = await exchange.on_request_body(body)
            if isinstance(forwarded, Refuse):
                exchange.on_end(completed=True)
                return Seen(request=request, refusal=forwarded)
            sent = body if forwarded.body is None else forwarded.body
        seen = replace(await self._answer(exchange, answer, method, request), sent=sent)
        exchange.on_end(completed=True)
        return seen

    async def _answer(self, exchange: GateExchange, answer: Answer, method: str, request: ForwardRequest) -> Seen:
        has_body = answer.has_body and method != "HEAD" and answer.status not in (204, 304)
        response = ResponseHead(answer.status, answer.headers, has_body, answer.from_upstream, answer.proxy_detail)
        head = await exchange.on_response(response)
        if isinstance(head, Refuse):
            return Seen(request=request, refusal=head)
        if not has_body:
            return Seen(request=request, head=head)
        body = await exchange.on_body(answer.body)
        if isinstance(body, Refuse):
            return Seen(request=request, head=head, refusal=body)
        return Seen(request=request, head=head, body=body)


def _counting_random() -> Callable[[int], bytes]:
    """Bytes that never repeat, the same in every run."""
    counter = itertools.count(1)

    def random(count: int) -> bytes:
        return next(counter).to_bytes(8, "big").rjust(count, b"\x17")[-count:]

    return random


def refused(seen: Seen) -> str:
    """The code of the refusal; fails if the call went through."""
    assert seen.refusal is not None
    assert isinstance(seen.refusal.error, GharialError)
    return seen.code
