"""One request and its response: identify, decide, rewrite, meter, record; `Forward…` or `Refuse`, nothing else.

An exchange is driven by an adapter in the order of HTTP: `on_request`, `on_response`, `on_body` (or `on_part` where the
body comes in pieces, `on_chunk` where it passes in pieces), `on_end`. Expected failures come back as `Refuse`; any
other exception is a bug, and the adapter refuses for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace

import msgspec

from gharial.crypto.digest import open_etag, person_digest, seal_etag
from gharial.crypto.keyset import Keyset
from gharial.crypto.transform import transforms_with_vault
from gharial.gate.disclose import Disclosure, disclose, off_loop
from gharial.gate.headers import (
    EXCHANGE_HEADER,
    POLICY_HEADER,
    REQUEST_CONTROL,
    all_values,
    first_value,
    local_location,
    refusal_headers,
    request_headers_to_remove,
    resolve_conditions,
    response_headers_to_remove,
)
from gharial.gate.incoming import BODY_DIGESTS, choose_format, resolve_body
from gharial.gate.locations import Location, outgoing_location
from gharial.gate.outcome import (
    BodyMode,
    ForwardBody,
    ForwardHead,
    ForwardPart,
    ForwardRequest,
    Headers,
    Refuse,
    RequestHead,
    ResponseHead,
)
from gharial.gate.ports import Charge
from gharial.gate.probing import refuse_probing
from gharial.gate.publish import Prepared
from gharial.gate.reopen import Opened, reopening
from gharial.gate.routes import RouteKind, RouteRule, check_request_line, replace_params
from gharial.gate.sending import Sending
from gharial.gate.services import Services
from gharial.gate.story import Story
from gharial.gate.stream import RowStream, leaves_by_rows
from gharial.gate.tokens import Opener, Resolved, resolve_tokens
from gharial.gate.vault import ExchangeTokens
from gharial.gate.watching import sight_of
from gharial.model.caller import Caller
from gharial.model.errors import (
    BodyTooLarge,
    GharialError,
    PartialContent,
    ProtocolViolation,
    RequestMalformed,
    RequestTooLarge,
    RouteDisagreement,
    UpstreamTimeout,
    UpstreamUnreachable,
    problem_body,
)
from gharial.model.names import is_blank
from gharial.model.place import Carrier
from gharial.payload.media import Media, RequestFormat, choose_reader, narrow_accept_encoding
from gharial.payload.rewrite import check_format
from gharial.policy.job import Job
from gharial.watch.meter import Crossing

_BODILESS = frozenset({204, 304})


class GateExchange:
    """One exchange of one gate. Not reusable; its methods are called one after the other.

    `vouched` is a caller for whom the embedding code vouches: then no header says who asks. `masked`: a measure masks
    that caller. `job` is what the caller asks for besides; `opened` holds, by tag and text, values that it may see
    again, in the place of what is redacted.
    """

    def __init__(
        self,
        services: Services,
        vouched: Caller | None = None,
        *,
        masked: bool = False,
        job: Job | None = None,
        opened: Opened | None = None,
    ) -> None:
        self._s = services
        self._vouched = vouched
        self._job = job
        self._opened = opened
        self._story = Story(services)
        self.disclosure: Disclosure | None = None
        """What was disclosed, once a body was decided."""
        # What is unknown is treated as the strictest: until a route is found, nothing may pass.
        self._kind = RouteKind.PROTECT
        self._policies = services.publisher.active
        self._tokens = ExchangeTokens(services.vault, lambda: self._keyset)
        self._request_people: tuple[tuple[str, str], ...] = ()
        self._masked = masked
        self._shown_to_watch = False
        self._opener: Opener | None = None
        self._awaited: RequestFormat | None = None
        self._replacement: ForwardBody | None = None
        self._mode = BodyMode.UNKNOWN
        self._rows: RowStream | None = None
        self._batches = 0
        self._collected = bytearray()
        self._location_shown = False
        self._location_people: tuple[str, ...] = ()
        self._upstream_path = ""
        self._watched = bytearray()
        self._watched_too_large = False
        self._shadow_refusal: GharialError | None = None

    # --- the request --------------------------------------------------------------------------------------------

    async def on_request(self, head: RequestHead) -> ForwardRequest | Refuse:
        """Match, identify, decide; the answer says how the request goes on."""
        try:
            return await self._request(head)
        except GharialError as error:
            return self._refuse(error)

    async def _request(self, head: RequestHead) -> ForwardRequest:
        self._story.method = head.method
        path, question, query = head.target.partition("?")
        if not path.startswith("/") or "#" in head.target:
            raise RequestMalformed("the request target is not a path")
        check_request_line(head.method, path)
        rule, match = self._s.routes.match(head.method, path)
        self._story.rule = rule
        if head.proxy_route and head.proxy_route != rule.name:
            raise RouteDisagreement(f"the proxy chose route {head.proxy_route}, the gate {rule.name}")
        self._policies = self._s.publisher.begin(rule, head.response_body, head.request_body)
        self._kind = self._policies.kind(rule)
        self._mode = head.response_body
        # A whole answer that embedding code hands over has no pieces.
        _insist_on_mode(self._kind, self._mode, stream=rule.stream and self._vouched is None)
        present = {name for name, _ in head.headers}
        remove = present & (self._s.identifier.own_headers | rule.strip_headers)
        extra = _upstream_credentials(rule)
        remove |= _own_bearer(head.headers)
        if self._kind is RouteKind.PASS:
            # A passing route is no way to a path or a method that is protected.
            return ForwardRequest(None, extra, tuple(sorted(remove | (present & REQUEST_CONTROL))))
        if self._kind is RouteKind.SHADOW:
            await self._decide_in_shadow(rule, head, match.params)
            return ForwardRequest(None, extra, tuple(sorted(remove)))
        self._identify(head)
        prepared = self._decide(rule)
        refuse_probing(prepared.plan.probes, query)
        remove |= request_headers_to_remove(head.headers, head.method)
        resolved = await self._resolve(prepared, match.params, head, remove)
        self._story.reidentified = resolved.counts
        target = None
        if resolved.changed or resolved.query is not None:
            path = replace_params(rule.template, path, resolved.changed)
            target = path + question + (query if resolved.query is None else resolved.query)
        self._upstream_path = path
        if prepared.plan.incoming is not None and head.has_body:
            if head.request_body is not BodyMode.BUFFERED:
                raise ProtocolViolation("the proxy does not hand over the bodies of requests that must be read")
            self._awaited = choose_format(prepared.plan.incoming, head.headers, self._s.limits)
            remove |= present & BODY_DIGESTS
        accept = "identity"
        if self._mode is not BodyMode.DUPLEX:
            accept = narrow_accept_encoding(all_values(head.headers, "accept-encoding"))
        conditions = resolve_conditions(head.headers, head.method, self._open_etag)
        # Removals come first: of a header that was resolved nothing but what is set here goes on.
        remove |= {name for name, _ in resolved.headers} | {*resolved.gone}
        set_headers = (("accept-encoding", accept), *conditions, *resolved.headers, *extra)
        return ForwardRequest(target, set_headers, tuple(sorted(remove)))

    def _identify(self, head: RequestHead) -> None:
        if self._vouched is not None:
            self._story.caller = self._vouched
            return
        self._story.caller = self._s.identifier.identify(head.headers, self._story.started_s, head.peer).caller
        if self._kind is RouteKind.PROTECT:
            # Raised here, before the upstream is asked for anything.
            self._masked = self._s.watching.standing(self._story.caller).mask

    @property
    def exchange_id(self) -> str:
        """The exchange's id, in audit and headers."""
        return self._story.exchange_id

    @property
    def prepared(self) -> Prepared:
        """What was decided for the caller; only once it was."""
        return self._prepared

    @property
    def _caller(self) -> Caller:
        assert self._story.caller is not None  # noqa: S101 - set by _identify before anything asks
        return self._story.caller

    def _decide(self, rule: RouteRule) -> Prepared:
        self._policies = self._s.publisher.choose(rule, self._caller, self._policies)
        prepared = self._policies.prepare(rule, self._caller, self._story.started_s, masked=self._masked, job=self._job)
        if self._opened is not None:
            steps = zip(prepared.plan.steps, prepared.transforms, strict=True)
            prepared = replace(prepared, transforms=tuple(reopening(*step, self._opened) for step in steps))
        self._story.prepared = prepared
        return prepared

    async def _decide_in_shadow(self, rule: RouteRule, head: RequestHead, params: Mapping[str, str]) -> None:
        """Decide as if this route were enforced; what would refuse is counted, and nothing is changed."""
        try:
            self._identify(head)
            prepared = self._decide(rule)
            refuse_probing(prepared.plan.probes, head.target.partition("?")[2])
            await self._resolve(prepared, params, head, frozenset())
            if prepared.plan.incoming is not None and head.has_body:
                choose_format(prepared.plan.incoming, head.headers, self._s.limits)
        except GharialError as error:
            self._shadow_refusal = error

    async def _resolve(
        self, prepared: Prepared, params: Mapping[str, str], head: RequestHead, removed: Collection[str]
    ) -> Resolved:
        """Open this caller's tokens, protect what is sent otherwise, and note whom path and query name."""
        query = head.target.partition("?")[2]
        # In shadow nothing of this is sent: without a vault its steps redact.
        shadow = self._kind is RouteKind.SHADOW
        transforms = prepared.transforms if shadow else transforms_with_vault(prepared.transforms, self._tokens)
        sending = Sending(prepared.plan.steps, transforms)

        async def resolve() -> Resolved:
            self._opener = Opener(self._keyset, self._caller, self._tokens, sending)
            return resolve_tokens(prepared.plan, params, query, head.headers, removed, self._opener)

        resolved = await self._tokens.run(resolve)
        self._story.params = resolved.params
        self._story.asked = tuple((place, text) for place, _, text in resolved.asked)
        in_path = (
            (param.subject, resolved.params.get(param.name, ""))
            for param in prepared.plan.params
            if param.carrier is Carrier.PATH and param.subject
        )
        named = (*in_path, *((space, text) for _, space, text in resolved.asked))
        self._request_people = tuple((space, text) for space, text in named if not is_blank(text))
        return resolved

    @property
    def _keyset(self) -> Keyset:
        """The keyset that this exchange began with, whatever is swapped meanwhile."""
        return self._policies.keyset

    def _open_etag(self, tag: str) -> str:
        prepared = self._prepared
        binding = f"{prepared.plan.digest} {self._upstream_path}"
        return open_etag(self._keyset, self._s.tenant, self._caller.client, binding, tag)

    @property
    def _prepared(self) -> Prepared:
        assert self._story.prepared is not None  # noqa: S101 - set by _decide before anything asks
        return self._story.prepared

    async def on_request_body(self, body: bytes) -> ForwardBody | Refuse:
        """Open tokens in a request's body, and protect what is sent otherwise, where the policy looks for them."""
        found, self._awaited = self._awaited, None
        if found is None or not body:
            return ForwardBody()
        try:
            plan, opener, limits = self._prepared.plan.incoming, self._opener, self._s.limits
            if plan is None or opener is None:
                raise ProtocolViolation("a body is awaited, and nothing says how it is read")
            counted = dict(opener.counts)
            transforms = transforms_with_vault(self._prepared.incoming, self._tokens)

            def resolve() -> bytes | None:
                opener.recount(counted)
                return resolve_body(plan, found, body, limits, opener, transforms)

            return ForwardBody(await self._tokens.run(lambda: off_loop(resolve, len(body))))
        except GharialError as error:
            return self._refuse(error)

    # --- the response's head ------------------------------------------------------------------------------------

    async def on_response(self, head: ResponseHead) -> ForwardHead | Refuse:
        """Decide about an answer's head, and whether its body can be read at all."""
        self._story.status = head.status
        rule = self._story.rule
        try:
            if rule is None:
                raise ProtocolViolation("a response came before its request")
            if not head.from_upstream:
                raise _proxy_failure(head)
            if self._awaited is not None:
                raise ProtocolViolation("the upstream answered a request whose body was not seen")
            if self._kind is RouteKind.PASS:
                return self._passing_head(head, rule)
            if self._kind is RouteKind.SHADOW:
                return await self._shadow_head(head, rule)
            return await self._enforced_head(head, rule)
        except GharialError as error:
            return self._refuse(error)

    def _passing_head(self, head: ResponseHead, rule: RouteRule) -> ForwardHead:
        self._s.counters.passed[rule.name] += 1
        return ForwardHead(_rebased_location(head, rule))

    async def _shadow_head(self, head: ResponseHead, rule: RouteRule) -> ForwardHead:
        if self._shadow_refusal is None:
            try:
                self._story.media = choose_reader(head.headers) if self._expects_body(head) else None
            except GharialError as error:
                self._shadow_refusal = error
        if not self._expects_body(head):
            await self._settle_shadow(b"")
        return ForwardHead((*_rebased_location(head, rule), (POLICY_HEADER, self._policy_line(rule))))

    async def _enforced_head(self, head: ResponseHead, rule: RouteRule) -> ForwardHead:
        if head.status == 206:
            raise PartialContent
        remove = response_headers_to_remove(head.headers, rule.keep_headers)
        remove |= {"content-length", "content-encoding", "accept-ranges", "etag", "last-modified"}
        added: list[tuple[str, str]] = [
            (EXCHANGE_HEADER, self._story.exchange_id),
            (POLICY_HEADER, self._policy_line(rule)),
            ("cache-control", "private, no-store"),
        ]
        location = first_value(head.headers, "location")
        if location is not None:
            added.extend(await self._protected_location(location, rule))
        etag = first_value(head.headers, "etag")
        if etag is not None:
            added.append(("etag", self._seal_etag(etag)))
        self._s.counters.headers_withheld += len(remove & {name for name, _ in head.headers})
        content_type = first_value(head.headers, "content-type")
        if content_type is not None:
            # Its parameters are free text; none of them is needed to read JSON, or XML in UTF-8.
            added.append(("content-type", content_type.partition(";")[0].strip()))
        if not self._expects_body(head):
            self._watch()
            await self._tell_forwarded(durable=self._location_shown)
            self._s.counters.forwarded[rule.name] += 1
        else:
            prepared = self._prepare_body(head)
            # What the body becomes has one type: the one that stands for it, in the place of the upstream's.
            replaced = {name for name, _ in prepared}
            added = [*(item for item in added if item[0] not in replaced), *prepared]
        names = {name for name, _ in added}
        return ForwardHead(tuple(added), tuple(sorted(remove - names)))

    def _expects_body(self, head: ResponseHead) -> bool:
        return head.has_body and head.status not in _BODILESS and self._story.method != "HEAD"

    def _prepare_body(self, head: ResponseHead) -> Headers:
        """Choose the reader; an answer that is no success and can't be read keeps its status and loses its body."""
        if self._mode is not BodyMode.DUPLEX:
            self._check_length(head)
        try:
            media = choose_reader(head.headers)
            check_format(self._prepared.plan, media.format)
            self._story.media = media
        except GharialError as error:
            if head.status < 300:
                raise
            self._replacement = _withheld_body(error, head.status, self._story.exchange_id)
            return (("content-type", "application/problem+json"),)
        if self._mode is BodyMode.DUPLEX and leaves_by_rows(self._prepared.plan, media):
            self._story.media = media = replace(media, part=True)
            self._rows = RowStream(self._prepared.plan, media, self._s.limits.row_bytes, self._release_rows)
        else:
            self._check_length(head)
        if not media.suffix:
            return ()
        content_type = (first_value(head.headers, "content-type") or "").partition(";")[0].strip()
        return (("content-type", content_type + media.suffix),)

    def _check_length(self, head: ResponseHead) -> None:
        length = first_value(head.headers, "content-length")
        if length is not None and length.isdecimal() and int(length) > self._s.limits.body_bytes:
            raise BodyTooLarge(f"the upstream announced more than {self._s.limits.body_bytes} bytes")

    async def _protected_location(self, location: str, rule: RouteRule) -> Headers:
        async def rewrite() -> Location | None:
            # The time of the request, as for its body: one exchange is decided once.
            return outgoing_location(
                location,
                rule,
                self._s.routes,
                self._policies,
                self._caller,
                self._story.started_s,
                self._tokens,
                masked=self._masked,
            )

        rewritten = await self._tokens.run(rewrite)
        if rewritten is None:
            self._s.counters.locations_withheld += 1
            return ()
        # It may hold a clear id, and so must be on record before it leaves, as a body must.
        self._location_shown = True
        self._location_people = tuple(person_digest(self._keyset, self._s.tenant, *one) for one in rewritten.people)
        return (("location", rewritten.text),)

    def _seal_etag(self, etag: str) -> str:
        # Bound to the path too: equal tags of two resources would tell that these are equal.
        binding = f"{self._prepared.plan.digest} {self._upstream_path}"
        return seal_etag(self._keyset, self._s.tenant, self._caller.client, binding, etag)

    def _policy_line(self, rule: RouteRule) -> str:
        policy = self._policies.policies[rule.policy]
        return f"{policy.name};version={policy.version};mode={policy.mode.value}"

    # --- the response's body ------------------------------------------------------------------------------------

    async def on_body(self, body: bytes) -> ForwardBody | Refuse:
        """Decide about a whole body."""
        rule = self._story.rule
        try:
            if rule is None:
                raise ProtocolViolation("a body came before its request")
            if self._kind is RouteKind.PASS:
                return ForwardBody()
            if self._kind is RouteKind.SHADOW:
                await self._settle_shadow(body)
                return ForwardBody()
            return await self._enforced_body(body, rule)
        except GharialError as error:
            return self._refuse(error)

    async def _enforced_body(self, body: bytes, rule: RouteRule) -> ForwardBody:
        if self._replacement is not None:
            self._watch()
            await self._tell_forwarded(durable=self._location_shown)
            self._s.counters.forwarded[rule.name] += 1
            return self._replacement
        if self._story.media is None:
            self._s.counters.bytes_without_plan += len(body)
            raise ProtocolViolation("a body came for which no reader was chosen")
        self._story.keep_body(body)
        disclosure = await self._disclose(body, self._story.media, self._tokens, ledger=self._prepared.plan.policy)
        self.disclosure = disclosure
        self._watch(disclosure)
        durable = disclosure.shows_clear or self._location_shown
        await self._make_durable(disclosure, lambda: self._tell_forwarded(durable=durable, disclosure=disclosure))
        self._s.counters.forwarded[rule.name] += 1
        return ForwardBody(disclosure.rewritten.body)

    async def _disclose(
        self, body: bytes, media: Media, tokens: ExchangeTokens, *, ledger: str, part: str = ""
    ) -> Disclosure:
        """`part` tells the parts of one answer apart: people whom nothing names are others in each."""
        found = await disclose(
            body,
            prepared=self._prepared,
            media=media,
            limits=self._s.limits,
            keyset=self._keyset,
            tenant=self._s.tenant,
            request_people=self._request_people,
            meter=self._s.meter,
            principal=self._caller.principal,
            ledger=ledger,
            exchange_id=self._story.exchange_id + part,
            now_s=self._s.clock.now_s,
            consent=self._s.consent,
            tokens=tokens,
        )
        self._s.counters.people_unknown += found.unknown
        return found

    def _watch(self, disclosure: Disclosure | None = None, error: GharialError | None = None) -> None:
        """Show this exchange to the watch, once (a stream by batches); in shadow nothing but incidents follows."""
        if (self._shown_to_watch and self._rows is None) or self._story.caller is None or self._story.prepared is None:
            return
        # Of a stream each batch is shown; what was asked, and whom the request names, only once.
        asked = () if self._shown_to_watch else self._request_people
        self._shown_to_watch = True
        people = self._location_people if error is None else ()
        if disclosure is not None:
            people += disclosure.people_told
            if self._masked:
                people += disclosure.people_protected + disclosure.strangers
        self._s.watching.look(
            self._policies.policies[self._prepared.plan.policy],
            sight_of(
                self._caller,
                self._story.route,
                self._s.clock.now_s(),
                people=people,
                asked=asked,
                refusal=error.code if error is not None else "",
            ),
            self._story.exchange_id,
            [person_digest(self._keyset, self._s.tenant, space, text) for space, text in asked],
            act=self._kind is RouteKind.PROTECT,
        )

    async def _make_durable(self, disclosure: Disclosure, tell: Callable[[], Awaitable[None]]) -> None:
        """Return when charges, incidents and the audit record are on disk. A failure of any refuses the answer."""
        plan = self._prepared.plan
        charges = [
            Charge(self._caller.principal, plan.policy, grant, person, disclosure.reservation.at_s)
            for grant, person in disclosure.reservation.charges
        ]
        crossings = disclosure.reservation.crossings
        if not charges and not crossings:
            await tell()
            return
        await asyncio.gather(
            self._s.store.charge(charges),
            *(self._open_incident(crossing) for crossing in crossings),
            tell(),
        )

    async def _tell_forwarded(self, *, durable: bool, disclosure: Disclosure | None = None) -> None:
        """Write the record of an answer that is about to leave; wait for the disk if it shows anything clear."""
        if durable:
            await self._story.tell_durably(disclosure)
        else:
            self._story.tell("forward", disclosure=disclosure)

    async def _open_incident(self, crossing: Crossing) -> None:
        record, alarm = self._s.incidents.observe(
            crossing,
            caller=self._caller,
            policy=self._prepared.plan.policy,
            route=self._story.route,
            exchange_id=self._story.exchange_id,
            now_s=self._s.clock.now_s(),
        )
        if record is None:
            return
        try:
            await self._s.store.put_incident(record, alarm)
        except GharialError:
            self._s.incidents.put_failed(record, alarm)
            raise
        if alarm is not None:
            self._s.wake_alarms()

    # --- a body that comes in pieces ----------------------------------------------------------------------------

    async def on_part(self, part: bytes, *, end: bool) -> ForwardPart | Refuse:
        """Take a piece of a body, and say what may follow what has left."""
        rule = self._story.rule
        try:
            if rule is None or self._kind is not RouteKind.PROTECT or self._mode is not BodyMode.DUPLEX:
                raise ProtocolViolation("a body came in pieces, and nothing says what is done with it")
            if self._rows is None:
                return await self._collect(part, rule, end=end)
            body, error = await self._rows.take(part, end=end)
            if error is not None:
                refusal = self._refuse(error)
                return ForwardPart(body, cut=True) if body else refusal
            if end:
                self._open_stream()
                self._story.tell_close()
            return ForwardPart(body)
        except GharialError as error:
            return self._refuse(error)

    async def _collect(self, part: bytes, rule: RouteRule, *, end: bool) -> ForwardPart:
        """Hold a body of which no part can leave before all of it was read."""
        self._collected += part
        if len(self._collected) > self._s.limits.body_bytes:
            self._collected.clear()
            raise BodyTooLarge(f"longer than {self._s.limits.body_bytes} bytes")
        if not end:
            return ForwardPart()
        body = bytes(self._collected)
        self._collected.clear()
        return ForwardPart((await self._enforced_body(body, rule)).body or b"")

    async def _release_rows(self, rows: bytes) -> bytes:
        """Decide about whole rows of a stream; return what leaves, which is on record then."""
        assert self._story.media is not None  # noqa: S101 - set where the stream was made
        self._batches += 1
        # Tokens are kept by the batch: an endless answer would hold more and more of them.
        tokens = ExchangeTokens(self._s.vault)
        part = f".{self._batches}"
        found = await self._disclose(rows, self._story.media, tokens, ledger=self._prepared.plan.policy, part=part)
        if found.rewritten.body:
            self._open_stream()
            self._watch(found)
            await self._make_durable(found, lambda: self._story.tell_rows(found))
        return found.rewritten.body

    def _open_stream(self) -> None:
        if not self._story.opened:
            self._story.tell_open()
            self._s.counters.forwarded[self._story.route] += 1

    # --- a body that passes in pieces (shadow) ------------------------------------------------------------------

    async def on_chunk(self, chunk: bytes, *, end: bool) -> None:
        """Look at a piece of a body that passes unchanged. Raises ProtocolViolation on an enforced route."""
        rule = self._story.rule
        if rule is None or self._kind is RouteKind.PROTECT:
            self._s.counters.bytes_without_plan += len(chunk)
            raise ProtocolViolation("a body in pieces came on an enforced route")
        if self._kind is RouteKind.PASS:
            return
        if len(self._watched) + len(chunk) > self._s.limits.body_bytes:
            self._watched_too_large = True
            self._watched.clear()
        if not self._watched_too_large:
            self._watched += chunk
        if end:
            if self._watched_too_large and self._shadow_refusal is None:
                self._shadow_refusal = BodyTooLarge()
            await self._settle_shadow(bytes(self._watched))

    async def _settle_shadow(self, body: bytes) -> None:
        """Count and record what enforcing would have done; whatever fails here must not touch the call."""
        route = self._story.route
        disclosure = None
        error = self._shadow_refusal
        if error is None and self._story.media is not None:
            try:
                self._story.keep_body(body)
                ledger = f"{self._prepared.plan.policy}#shadow"
                # Tokens of an answer that goes out unchanged are nobody's: none of them is kept.
                tokens = ExchangeTokens(self._s.vault, lambda: self._keyset, lasting=False)
                disclosure = await self._disclose(body, self._story.media, tokens, ledger=ledger)
            except GharialError as expected:
                error = expected
            except Exception:  # noqa: BLE001 - a bug of ours would refuse; in shadow it is counted, the call goes on
                error = GharialError()
        if error is not None:
            self._s.counters.shadow_would_refuse[route] += 1
        elif disclosure is not None and disclosure.rewritten.changed:
            self._s.counters.shadow_would_change[route] += 1
        # Whatever the watch meets, a bug of ours included: in shadow the call goes on.
        with contextlib.suppress(Exception):
            self._watch(disclosure, error)
        self._story.tell_quietly("shadow", error, disclosure)

    # --- the end ------------------------------------------------------------------------------------------------

    def on_end(self, *, completed: bool) -> None:
        """Called once, when nothing more will come. `completed` is false if the call was cut off."""
        if self._story.recorded:
            return
        rule = self._story.rule
        if completed and rule is not None and self._kind is RouteKind.PASS:
            self._story.tell_quietly("pass")
            return
        self._s.counters.abandoned += 1
        self._story.tell_quietly("abandoned")

    def _refuse(self, error: GharialError) -> Refuse:
        self._s.counters.refused[error.code] += 1
        self._watch(error=error)
        if self._story.opened:
            # The answer's head and some rows have left, with the status that they had.
            self._story.tell_close(error)
            return Refuse(error, self._story.exchange_id, refusal_headers(error))
        self._story.status = error.status
        self._story.tell_quietly("refuse", error)
        return Refuse(error, self._story.exchange_id, refusal_headers(error))


def _insist_on_mode(kind: RouteKind, announced: BodyMode, *, stream: bool) -> None:
    """Refuse a mode of processing in which a clear body could pass by (decision 0001)."""
    allowed = {
        RouteKind.PROTECT: (BodyMode.DUPLEX if stream else BodyMode.BUFFERED,),
        RouteKind.SHADOW: (BodyMode.BUFFERED, BodyMode.STREAMED),
        RouteKind.PASS: (BodyMode.BUFFERED, BodyMode.STREAMED, BodyMode.NONE),
    }
    if announced not in allowed[kind]:
        raise ProtocolViolation(f"the proxy announced body mode {announced} on a route of kind {kind}")


def _own_bearer(headers: Headers) -> set[str]:
    """Return {"authorization"} if it carries a key or secret of ours, sent in the wrong place; it goes no further."""
    own = any(n == "authorization" and v.lower().startswith(("bearer ghk_", "bearer ghs_")) for n, v in headers)
    return {"authorization"} if own else set()


def _upstream_credentials(rule: RouteRule) -> Headers:
    return (("authorization", rule.inject_authorization),) if rule.inject_authorization else ()


def _rebased_location(head: ResponseHead, rule: RouteRule) -> Headers:
    """Return a redirect that names the upstream as one that names no host, so that it leads back to the gateway."""
    location = first_value(head.headers, "location")
    if location is None:
        return ()
    local = local_location(location, rule.upstream_authorities)
    return () if local is None else (("location", local),)


def _proxy_failure(head: ResponseHead) -> GharialError:
    """Return what an answer of the proxy's own stands for."""
    if "request_overall_timeout" in head.proxy_detail:
        return RequestMalformed(head.proxy_detail)
    if head.status == 504 or "timeout" in head.proxy_detail:
        return UpstreamTimeout(head.proxy_detail)
    if "request_payload" in head.proxy_detail:
        return RequestTooLarge(head.proxy_detail)
    return UpstreamUnreachable(head.proxy_detail)


def _withheld_body(error: GharialError, status: int, exchange_id: str) -> ForwardBody:
    """Return what stands for the unreadable body of an answer that is no success: its status goes on, its text not."""
    if status < 400:
        return ForwardBody(b"")
    return ForwardBody(msgspec.json.encode({**problem_body(error, exchange_id), "status": status}))
