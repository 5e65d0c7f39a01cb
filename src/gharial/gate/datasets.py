"""Data sets as a use case: a client hands a document over, and gets back what the policy of a manifest shows of it.

The work is that of an exchange: the same identity, facts, policies, budgets, watch and audit. What the client asks for
(its job) makes the answer stricter, never more open; what it states of itself counts as far as its credential goes.
"""

from __future__ import annotations

import datetime
import enum
import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import quote

import msgspec

from gharial.crypto.encoding import to_base64url
from gharial.crypto.keyset import Random
from gharial.gate.direct import JSON, protect_document
from gharial.gate.disclose import off_loop
from gharial.gate.exchange import GateExchange
from gharial.gate.facts import check_stated
from gharial.gate.outcome import BodyMode, Headers, RequestHead
from gharial.gate.publish import Prepared
from gharial.gate.publishing import find_unrunnable
from gharial.gate.reopen import find_sealed
from gharial.gate.reveal import MAX_ITEMS, Begun, Clear, Rate, Revealer
from gharial.gate.routes import RouteKind, RouteRule, RouteTable, parse_template
from gharial.gate.services import Services
from gharial.gate.story import Story
from gharial.model.caller import Caller
from gharial.model.errors import (
    BodyMalformed,
    Fault,
    GharialError,
    ManifestUnfit,
    ManifestUnknown,
    PolicyInvalid,
    Problem,
    RequestMalformed,
    TooManyCalls,
    UnknownCredential,
)
from gharial.model.plan import Mode, Op, Unlisted
from gharial.payload.media import Media, choose_reader
from gharial.payload.quoted import is_quoted_singly, to_json
from gharial.payload.unlisted import find_unlisted
from gharial.policy.checks import check_policy
from gharial.policy.document import Policy
from gharial.policy.job import Job

TOKEN_S = 3600
"""How long an access token is good for."""
MAX_TOKENS = 1_000
"""Access tokens of one client; of more the oldest are forgotten."""
MAX_SEALED = 20_000
"""Tokens and envelopes of one data set that are opened."""
WRONG_SECRETS_PER_MINUTE = 60
"""Wrong secrets, of one address for one client, before they are answered with 429; a sixth of it at once."""

_TOKEN_BYTES = 32
_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?(Z|z|[+-][0-9]{2}:[0-9]{2})"
)


class JobType(enum.StrEnum):
    """What a client may ask for."""

    DEFAULT = "Default"
    RESTRICT = "Restrict"
    DATA_MASKING = "DataMasking"
    PSEUDONYMISE = "Pseudonymise"
    ENCRYPT = "Encrypt"
    RECONSTRUCT = "Reconstruct"
    DECRYPT = "Decrypt"


_FLOORS = {
    JobType.DEFAULT: None,
    JobType.RESTRICT: Op.REDACT,
    JobType.DATA_MASKING: Op.MASK,
    JobType.PSEUDONYMISE: Op.TOKEN,
    JobType.ENCRYPT: Op.ENCRYPT,
    JobType.RECONSTRUCT: Op.REDACT,
    JobType.DECRYPT: Op.REDACT,
}
_AS_LONG = frozenset({JobType.RESTRICT, JobType.DATA_MASKING})
_REOPENS = frozenset({JobType.RECONSTRUCT, JobType.DECRYPT})


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a name in `manifestName` stands for: a policy, and the tags to which no job type applies."""

    name: str
    policy: str
    public: frozenset[str] = frozenset({"public"})


def manifest_rule(manifest: Manifest) -> RouteRule:
    """Return what stands for a route in plans, audit and incidents of a manifest; no route can be called so."""
    path = f"/apigator/{quote(manifest.name, safe='')}"
    return RouteRule(f"manifest:{manifest.name}", parse_template(f"POST {path}"), RouteKind.PROTECT, manifest.policy)


def check_manifests(manifests: Iterable[Manifest], routes: RouteTable, policies: Mapping[str, Policy]) -> None:
    """Raise PolicyInvalid where a manifest can't do with these policies: its tags clash, or a selector can't be run."""
    problems: list[Problem] = []
    for manifest in manifests:
        policy = policies.get(manifest.policy)
        if policy is not None:
            # The other routes of the policy have the parameters that its tags may speak of.
            rules = [*(rule for rule in routes.rules if rule.policy == policy.name), manifest_rule(manifest)]
            covered = {rule.name: rule.template.params for rule in rules}
            problems.extend(check_policy(policy, covered) or find_unrunnable(policy, covered))
    if problems:
        raise PolicyInvalid(problems)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client hands over, and what it wants. `purpose`, `country` and `claims` are what it states of itself."""

    manifest: str
    job: JobType
    text: str = field(repr=False)
    media_type: str = JSON
    purpose: str = ""
    country: str = ""
    claims: Mapping[str, object] = field(default_factory=dict, repr=False)
    snapshot: str = ""
    restricted: str | None = field(default=None, repr=False)
    same_length: bool = False
    nulls: bool = False


@dataclass(frozen=True, slots=True)
class Protected:
    """What may be shown. `decision` says by what, `withheld` names fields that no tag names and that were withheld."""

    text: str = field(repr=False)
    exchange_id: str
    decision: str
    withheld: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call whose client is known."""

    client: str
    key: str = field(repr=False)
    headers: Headers = field(repr=False)
    peer: str


class AccessTokens:
    """Opaque tokens in memory, by their hash; a restart forgets them, and clients fetch new ones."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._clients: dict[bytes, tuple[str, float]] = {}
        self._of_client: dict[str, OrderedDict[bytes, None]] = {}

    def issue(self, client: str, now_s: float) -> str:
        """Return a fresh token of a client."""
        token = to_base64url(self._random(_TOKEN_BYTES))
        own = self._of_client.setdefault(client, OrderedDict())
        for digest in list(own):
            # They stand in the order of their expiry.
            if self._clients[digest][1] > now_s and len(own) < MAX_TOKENS:
                break
            del own[digest], self._clients[digest]
        digest = _hashed(token)
        self._clients[digest] = (client, now_s + TOKEN_S)
        own[digest] = None
        return token

    def find_client(self, token: str, now_s: float) -> str:
        """Return whose token this is; empty if nobody's, or if it has expired."""
        # A look-up by hash: how long it takes says nothing of tokens that are near.
        client, until_s = self._clients.get(_hashed(token), ("", 0.0))
        return client if now_s < until_s else ""


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class Datasets:
    """Protects data sets for the clients of one gate. Its methods are for one event loop."""

    def __init__(
        self,
        services: Services,
        manifests: Sequence[Manifest],
        revealer: Revealer,
        *,
        random: Random,
        calls_per_minute: int,
    ) -> None:
        self._manifests = {manifest.name: manifest for manifest in manifests}
        self._rules = {manifest.name: manifest_rule(manifest) for manifest in manifests}
        self._s = replace(services, routes=RouteTable(self._rules.values()))
        self._revealer = revealer
        self._tokens = AccessTokens(random)
        self._rate = Rate(calls_per_minute)
        self._wrong = Rate(WRONG_SECRETS_PER_MINUTE)

    # --- who calls ------------------------------------------------------------------------------------------------

    def issue_token(self, key: str, client_id: str, secrets: Sequence[str], peer: str) -> str:
        """Return an access token for a client that shows its API key and its secret (in one of several readings).

        Raises UnknownCredential, the same for every reason, and TooManyCalls for wrong ones that come too often; right
        ones are never held up, else anybody could lock a client out.
        """
        now_s = self._s.clock.now_s()
        # All are asked in any case, so that the time does not tell which of them was wrong.
        right = [self._s.identifier.owns(client_id, secret) for secret in secrets]
        owner = self._s.identifier.find_client(key)
        if any(right) and owner == client_id:
            return self._tokens.issue(client_id, now_s)
        error: GharialError = UnknownCredential()
        if wait_s := self._wrong.take(f"{peer}\x1f{client_id[:64]}", now_s):
            error = TooManyCalls(wait_s)
        self._tell(error, None)
        raise error

    def admit(self, key: str, token: str, headers: Headers, peer: str) -> Admitted:
        """Return whose call this is. Raises UnknownCredential and TooManyCalls."""
        now_s = self._s.clock.now_s()
        client = self._tokens.find_client(token, now_s)
        owner = self._s.identifier.find_client(key)
        with self._telling(None):
            if not client or client != owner:
                raise UnknownCredential
            if wait_s := self._rate.take(client, now_s):
                raise TooManyCalls(wait_s)
        return Admitted(client, key, headers, peer)

    # --- what comes of it -----------------------------------------------------------------------------------------

    async def protect(self, admitted: Admitted, ask: Ask) -> Protected:
        """Return what may be shown of a data set, with charges, incidents and audit on disk. Raises GharialError."""
        with self._telling(None):
            caller = self._identify(admitted, ask)
        with self._telling(caller):
            masked = self._s.watching.standing(caller).mask
            manifest = self._manifests.get(ask.manifest)
            if manifest is None:
                raise ManifestUnknown
            await self._check_active(manifest, ask.snapshot)
            job = _job_of(ask, manifest)
            media = choose_reader((("content-type", ask.media_type),))
            data = await off_loop(lambda: _data_of(ask), len(ask.text))
        opened: dict[tuple[str, str], Clear] = {}
        reopens = ask.job in _REOPENS
        exchange = GateExchange(self._s, caller, masked=masked, job=job, opened=opened if reopens else None)
        rule = self._rules[manifest.name]
        if reopens and not masked:
            with self._telling(caller):
                opened.update(await self._reopen(exchange.exchange_id, caller, rule, job, media, data))
        head = RequestHead("POST", rule.template.text.partition(" ")[2], "", "", (), rule.name, BodyMode.BUFFERED)
        try:
            body = await protect_document(exchange, head, data, ask.media_type)
        except GharialError as error:
            raise _of_the_data(error) from None
        return await off_loop(lambda: _protected(exchange, ask, data, body), len(data))

    def _identify(self, admitted: Admitted, ask: Ask) -> Caller:
        stated = check_stated(ask.country, ask.claims)
        return self._s.identifier.identify_stating(admitted.key, ask.purpose, stated, admitted.headers, admitted.peer)

    async def _check_active(self, manifest: Manifest, snapshot: str) -> None:
        """Raise ManifestUnfit where the policy in force is not one that may be used for this call.

        That is a policy in shadow mode: what is handed over never comes back as it is. And where the policy at the time
        of the snapshot was another one, the stricter of the two would have to hold, which is not done yet.
        """
        policy = self._s.publisher.active.policies.get(manifest.policy)
        if policy is None or policy.mode is not Mode.ENFORCE:
            raise ManifestUnfit("the manifest's policy is in shadow mode, or not there any more")
        if not snapshot:
            return
        at_s = parse_time_s(snapshot)
        records = [r for r in await self._s.store.load_publications() if r.policy == manifest.policy]
        then = next((record for record in records if record.at_s <= at_s), None)
        if then is not None and then.digest != records[0].digest:
            raise ManifestUnfit("at the time of the snapshot another version of the policy was active")

    async def _reopen(
        self, exchange_id: str, caller: Caller, rule: RouteRule, job: Job, media: Media, data: bytes
    ) -> dict[tuple[str, str], Clear]:
        """Return what this caller may see again of the tokens and envelopes in the data: paid for, and on record."""
        now_s = self._s.clock.now_s()
        prepared: Prepared = self._s.publisher.active.prepare(rule, caller, now_s, job=job)
        try:
            items = await off_loop(lambda: find_sealed(prepared, media, data, self._s.limits), len(data))
        except GharialError as error:
            raise _of_the_data(error) from None
        if len(items) > MAX_SEALED:
            raise RequestMalformed(f"a data set has at most {MAX_SEALED} tokens that are to be opened")
        begun = Begun(exchange_id, now_s, caller)
        opened: dict[tuple[str, str], Clear] = {}
        for at in range(0, len(items), MAX_ITEMS):
            batch = items[at : at + MAX_ITEMS]
            for item, clear in zip(batch, await self._revealer.reveal(begun, batch, of_handed_over=True), strict=True):
                # Of a person who was erased nothing comes back here, and no word about it.
                if isinstance(clear, Clear):
                    opened[item.tag, item.value] = clear
        return opened

    # --- what is told ---------------------------------------------------------------------------------------------

    @contextmanager
    def _telling(self, caller: Caller | None) -> Iterator[None]:
        """Count and record a call that is refused before it becomes an exchange."""
        try:
            yield
        except GharialError as error:
            self._tell(error, caller)
            raise

    def _tell(self, error: GharialError, caller: Caller | None) -> None:
        self._s.counters.refused[error.code] += 1
        if isinstance(error, TooManyCalls):
            # Whoever calls too often does not get to fill the disk.
            return
        story = Story(self._s)
        story.method, story.caller, story.status = "POST", caller, error.status
        story.tell_quietly("refuse", error)


def _protected(exchange: GateExchange, ask: Ask, data: bytes, body: bytes) -> Protected:
    plan, disclosure = exchange.prepared.plan, exchange.disclosure
    withheld: tuple[str, ...] = ()
    if disclosure is not None and disclosure.rewritten.unlisted and plan.unlisted is not Unlisted.PASS:
        # Names of XML elements are not told: how many there were is on record.
        withheld = find_unlisted(plan, data) if ask.media_type == JSON else ("?",)
    decision = f"{ask.job.value};policy={plan.policy};version={plan.version}"
    printed = msgspec.json.format(body, indent=2) if ask.media_type == JSON else body
    return Protected(printed.decode(), exchange.exchange_id, decision, withheld)


def _job_of(ask: Ask, manifest: Manifest) -> Job:
    return Job(
        at_least=_FLOORS[ask.job],
        hexadecimal=ask.job is JobType.DATA_MASKING,
        same_length=ask.same_length and ask.job in _AS_LONG,
        nulls=ask.nulls,
        text=ask.restricted,
        public=manifest.public,
    )


def _data_of(ask: Ask) -> bytes:
    """Return the data as its reader wants it: JSON in single quotes becomes JSON."""
    try:
        text = ask.text
        if ask.media_type == JSON and is_quoted_singly(text):
            text = to_json(text)
        return text.encode()
    except UnicodeEncodeError:
        raise RequestMalformed("the data set holds half a character (a lone surrogate)") from None
    except BodyMalformed as error:
        raise _of_the_data(error) from None


def _of_the_data(error: GharialError) -> GharialError:
    """What would be the upstream's fault in an answer is the client's in what it hands over."""
    if error.fault is not Fault.UPSTREAM:
        return error
    return RequestMalformed(f"the data set can't be read ({error.code})")


def parse_time_s(text: str) -> float:
    """Read a time of RFC 3339 with up to nine fractional digits, in seconds since the epoch, whole ones.

    Raises RequestMalformed.
    """
    found = _RFC_3339.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        zone = "+00:00" if found[3] in "Zz" else found[3]
        return datetime.datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}").timestamp()
    except (ValueError, OverflowError):
        raise RequestMalformed("snapshotDate is a time of RFC 3339") from None
