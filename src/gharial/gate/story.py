"""What is known of one exchange, and how it is written down: its audit record, and its part of a recording."""

from __future__ import annotations

from collections.abc import Mapping

from gharial.audit.record import Outcome, StreamOutcome, exchange_record
from gharial.gate.disclose import Disclosure
from gharial.gate.publish import Prepared
from gharial.gate.recording import Sighting
from gharial.gate.routes import RouteRule
from gharial.gate.services import Services
from gharial.model.caller import Caller
from gharial.model.errors import GharialError
from gharial.payload.media import Media


class Story:
    """Collects facts while the exchange goes on.

    `params`, `asked` and `body` are values, and go nowhere but into digests.
    """

    def __init__(self, services: Services) -> None:
        self._s = services
        self.exchange_id = services.new_id()
        self.started_s = services.clock.now_s()
        self.method = ""
        self.rule: RouteRule | None = None
        self.caller: Caller | None = None
        self.prepared: Prepared | None = None
        self.status = 0
        self.reidentified: Mapping[str, int] = {}
        self.params: Mapping[str, str] = {}
        self.asked: tuple[tuple[str, str], ...] = ()
        self.media: Media | None = None
        self.recorded = False
        self.opened = False
        """A stream: the line `open` is written, and `close` will be."""
        self._body = b""

    @property
    def route(self) -> str:
        """The name of the route, or empty while none is found."""
        return self.rule.name if self.rule else ""

    def keep_body(self, body: bytes) -> None:
        """Hold on to the body until the end, if a recording runs."""
        if self._s.recording.recorder is not None:
            self._body = body

    async def tell_durably(self, disclosure: Disclosure | None = None) -> None:
        """Return when the record of a forwarded answer is on disk. Raises AuditUnwritable: then it must not leave."""
        await self._s.audit.append(self._line("forward", None, disclosure), durable=True)
        self._keep_for_replay("forward", None, disclosure)

    def tell(self, outcome: Outcome, error: GharialError | None = None, disclosure: Disclosure | None = None) -> None:
        """Write the record without waiting for the disk. Raises AuditUnwritable if it can't be taken."""
        self._s.audit.note(self._line(outcome, error, disclosure))
        self._keep_for_replay(outcome, error, disclosure)

    def tell_quietly(
        self, outcome: Outcome, error: GharialError | None = None, disclosure: Disclosure | None = None
    ) -> None:
        """Like `tell`, where the outcome stands already: a refusal stays a refusal, and shadow stays invisible."""
        try:
            self.tell(outcome, error, disclosure)
        except GharialError:
            self._s.counters.audit_lines_lost += 1

    def tell_open(self) -> None:
        """Write that a stream begins. Raises AuditUnwritable."""
        self._s.audit.note(self._line("open", None, None))
        # Until it is closed nothing is settled.
        self.opened, self.recorded = True, False

    async def tell_rows(self, disclosure: Disclosure) -> None:
        """Return when it is on disk that these rows leave. Raises AuditUnwritable: then they must not."""
        await self._s.audit.append(self._line("rows", None, disclosure), durable=True)
        self.recorded = False

    def tell_close(self, error: GharialError | None = None) -> None:
        """Write that a stream is over, and what ended it before its end. A recording can't hold it, and counts it."""
        try:
            self._s.audit.note(self._line("close", error, None))
        except GharialError:
            self._s.counters.audit_lines_lost += 1
        self._keep_for_replay("forward", error, None)

    def _line(
        self, outcome: Outcome | StreamOutcome, error: GharialError | None, disclosure: Disclosure | None
    ) -> bytes:
        self.recorded = True
        now_s = self._s.clock.now_s()
        return exchange_record(
            time=self._s.iso_time(now_s),
            exchange_id=self.exchange_id,
            caller=self.caller or Caller(self._s.tenant),
            route=self.route,
            method=self.method,
            plan=self.prepared.plan if self.prepared else None,
            status=self.status,
            outcome=outcome,
            error=error.code if error else "",
            techniques=disclosure.techniques if disclosure else {},
            unlisted=disclosure.rewritten.unlisted if disclosure else 0,
            people_clear=disclosure.people_clear if disclosure else (),
            people_protected=disclosure.people_protected if disclosure else (),
            budgets_crossed=tuple(c.grant for c in disclosure.reservation.crossings) if disclosure else (),
            reidentified=self.reidentified,
            duration_ms=max(0.0, (now_s - self.started_s) * 1000),
        )

    def _keep_for_replay(self, outcome: Outcome, error: GharialError | None, disclosure: Disclosure | None) -> None:
        """Hand this exchange to the recording that runs, if any. It never waits and never fails."""
        recorder = self._s.recording.recorder
        if recorder is None or outcome == "pass" or self.rule is None or self.caller is None:
            return
        if not recorder.wants(self.rule.name):
            return
        recorder.take(
            Sighting(
                exchange_id=self.exchange_id,
                at_s=self.started_s,
                policy=self.rule.policy,
                mode=self.prepared.plan.mode.value if self.prepared else "",
                route=self.rule.name,
                method=self.method,
                outcome=outcome,
                error=error.code if error else "",
                caller=self.caller,
                prepared=self.prepared,
                params=self.params,
                asked=self.asked,
                reidentified=self.reidentified,
                media=self.media,
                body=self._body,
                # Without its body, where the recording began in the middle, there is nothing to tell of places.
                disclosure=disclosure if self._body else None,
            )
        )
