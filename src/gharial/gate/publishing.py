"""Publishing as a use case: what has a mistake or a failing test never becomes active; what does is remembered."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gharial.gate.ports import Clock, ProxyRoutes, Store
from gharial.gate.publish import ActivePolicies, Next, Publisher
from gharial.gate.routes import RouteKind, RouteTable
from gharial.model.errors import GharialError, NotFound, PolicyInvalid, PolicyModeChanged, PolicyTestsFailed, Problem
from gharial.model.publication import PublicationRecord
from gharial.payload.rewrite import check_plan
from gharial.policy.checks import check_policy
from gharial.policy.compile import compile_plan
from gharial.policy.document import Policy, parse_policy
from gharial.policy.incoming import reads_requests


def find_unrunnable(policy: Policy, routes: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    """Return what no reader could run (a pattern or a number in a selector), so that it is found before a call is.

    `routes` are the routes that the policy covers, with their parameters.
    """
    problems = []
    for route, params in routes.items():
        try:
            check_plan(compile_plan(policy, route, params, ()))
        except ValueError as error:
            problems.append(Problem(policy.file, 1, 1, f"a selector can't be run on route {route}: {error}"))
    return problems


def by_name(policies: Iterable[Policy]) -> tuple[dict[str, Policy], list[Problem]]:
    """Return policies by their names, and a mistake for each of a name that a file before it, sorted, has already."""
    found: dict[str, Policy] = {}
    problems = []
    for policy in sorted(policies, key=lambda p: p.file):
        first = found.setdefault(policy.name, policy)
        if first is not policy:
            what = f"the file {first.file} holds a policy '{policy.name}' already"
            problems.append(Problem(policy.file, 1, 1, what))
    return found, problems


QUIET_S = 0.5
"""After the proxy has said that it follows: how long no exchange may have begun in a mode of before."""

QUIET_ROUNDS = 10
"""How often that is waited for. What still comes in a mode of before after that is refused."""

WITHDRAW = "withdraw"
"""The action in the history by which what was active is so again, because the proxy did not follow."""

RunTests = Callable[[Policy, RouteTable], Sequence[str]]
"""Runs a policy's own tests; returns a line for each that fails, as `file:line: what`."""


@dataclass(frozen=True, slots=True)
class PolicyText:
    """One policy file: the name that mistakes carry, and what stands in it."""

    file: str
    text: str = field(repr=False)


@dataclass(slots=True)
class Readiness:
    """Whether what should be active is active. `problems` are of the last try to publish; empty if it went well."""

    problems: tuple[str, ...] = ()
    published: int = 0
    rejected: int = 0


class Publishing:
    """Reads, checks, tests, remembers, swaps; in this order, so that a failure leaves the old policies active.

    One publication at a time: whoever calls `publish`, `try_out` or `end_canary` sees to it.
    """

    def __init__(
        self,
        publisher: Publisher,
        routes: RouteTable,
        store: Store,
        clock: Clock,
        run_tests: RunTests,
        readiness: Readiness,
        keep: Callable[[Sequence[PolicyText]], None] = lambda _: None,
        proxy: ProxyRoutes | None = None,
        quiet_s: float = QUIET_S,
        check: Callable[[Mapping[str, Policy]], None] = lambda _: None,
    ) -> None:
        """`keep` has a gate that is started anew begin with these texts; what it raises ends the publication.

        `check` raises PolicyInvalid for what only this gateway can tell (files that a policy names).
        `proxy` is None where somebody else says how the proxy hands over bodies: then no route's mode can change.
        """
        self._publisher = publisher
        self._routes = routes
        self._store = store
        self._clock = clock
        self._run_tests = run_tests
        self._readiness = readiness
        self._keep = keep
        self._proxy = proxy
        self._quiet_s = quiet_s
        self._check = check
        self._active_texts: Sequence[PolicyText] = ()
        told = {rule.name for rule in routes.rules if rule.reads_requests}
        self._read = frozenset(told | publisher.active.routes_read(routes))
        """Routes of which the proxy hands over the bodies of requests. It does so until it is started anew."""

    async def publish(self, texts: Sequence[PolicyText], *, force: bool = False, action: str = "publish") -> list[str]:
        """Make these policies the active ones; returns the names of those that changed.

        Raises PolicyInvalid with every mistake, PolicyTestsFailed unless `force`, PolicyModeChanged for another mode on
        a route if the proxy can't be told, ProxyNotChanged if it was and did not follow; the old set stays active then.
        """
        try:
            policies, failed = self._prepare(texts, force=force)
            kinds = self._changed_kinds(policies)
            reads = self._begins_to_read(policies)
            changed = await self._remember(texts, policies, action, failed, forced=force)
            if kinds or reads:
                await self._change_modes(texts, policies, self._read | reads)
            else:
                self._keep(texts)
                self._publisher.publish(policies)
        except GharialError as error:
            self._readiness.rejected += 1
            self._readiness.problems = tuple(str(error).splitlines())
            raise
        self._active_texts = texts
        self._readiness.published += 1
        self._readiness.problems = ()
        return changed

    async def _change_modes(
        self, texts: Sequence[PolicyText], policies: Mapping[str, Policy], reads: frozenset[str]
    ) -> None:
        """Swap as soon as the proxy follows, both sets being held until then; if it does not, go back."""
        assert self._proxy is not None  # noqa: S101 - _changed_kinds has looked
        held = self._publisher.prepare(policies)
        try:
            self._proxy.tell(self._kinds(held.policies), reads)
            await self._proxy.until_taken()
            # Only now: a gate that dies before begins with the old policies, and tells the proxy so.
            self._keep(texts)
        except BaseException as error:
            # At once: what the proxy still announces in the new mode fits no set any more, and is refused.
            self._publisher.withdraw()
            with contextlib.suppress(GharialError):
                self._proxy.tell(self._kinds(self._publisher.active), self._read)
            if isinstance(error, Exception):
                await self._remember_withdrawal()
            raise
        self._read = reads
        try:
            await self._until_quiet(held)
        finally:
            self._publisher.promote()

    async def _until_quiet(self, held: Next) -> None:
        """Return when no exchange comes in a mode of before any more, or when that takes too long.

        The proxy says that it follows before each of its threads does, and what a thread has sent may not be read yet.
        """
        loop = asyncio.get_running_loop()
        for _ in range(QUIET_ROUNDS):
            late, began_s = held.late, loop.time()
            await asyncio.sleep(self._quiet_s)
            # A loop that was busy beyond that time may not have seen yet what has come in it.
            if held.late == late and loop.time() - began_s < 2 * self._quiet_s:
                return

    async def _remember_withdrawal(self) -> None:
        """Note in the history that what was active is so again. If that fails, the next start notes it."""
        with contextlib.suppress(GharialError):
            policies = {policy.name: policy for policy in (parse_policy(t.text, t.file) for t in self._active_texts)}
            await self._remember(self._active_texts, policies, WITHDRAW, {}, forced=False)

    def _kinds(self, policies: ActivePolicies) -> dict[str, RouteKind]:
        return {rule.name: policies.kind(rule) for rule in self._routes.rules}

    async def try_out(self, texts: Sequence[PolicyText], percent: int, routes: frozenset[str]) -> None:
        """Let these policies, joined with the other active ones, serve a part of the callers.

        Raises what `publish` raises, and ValueError for a part that can't be one.
        """
        policies, _ = self._prepare(texts, force=False)
        if reads := self._begins_to_read(policies):
            what = f"the candidate begins to read the bodies of requests on route {min(reads)}; publish it as a whole"
            raise PolicyModeChanged(what)
        joined = {**self._publisher.active.policies, **policies}
        self._publisher.try_out(joined, percent, routes, self._routes)

    def end_canary(self) -> None:
        """Let the active policies serve everybody again."""
        self._publisher.end_canary()

    async def rollback_text(self, policy: str, number: int | None) -> PublicationRecord:
        """Return the publication to go back to: the one with this number, or the one before the active one.

        What was withdrawn was never active, and is gone back to by its number only. Raises NotFound.
        """
        history = [record for record in await self._store.load_publications() if record.policy == policy]
        if number is not None:
            found = [record for record in history if record.number == number]
        else:
            were_active = _without_withdrawn(history)
            found = [record for record in were_active if record.digest != were_active[0].digest]
        if not found:
            raise NotFound(f"there is no earlier publication of '{policy}'; 'gharial policy history' shows all")
        return found[0]

    async def history(self) -> Sequence[PublicationRecord]:
        """All publications, newest first."""
        return await self._store.load_publications()

    async def remember_start(self, texts: Sequence[PolicyText]) -> None:
        """Note what a gate started with, where that is something new."""
        policies = {policy.name: policy for policy in (parse_policy(t.text, t.file) for t in texts)}
        await self._remember(texts, policies, "start", {}, forced=False)
        self._active_texts = texts

    def _prepare(self, texts: Sequence[PolicyText], *, force: bool) -> tuple[dict[str, Policy], dict[str, list[str]]]:
        policies = self._parse(texts)
        self._check(policies)
        failed = {name: list(self._run_tests(policy, self._routes)) for name, policy in policies.items()}
        lines = [line for of_one in failed.values() for line in of_one]
        if lines and not force:
            raise PolicyTestsFailed("\n".join(lines))
        return policies, failed

    def _parse(self, texts: Sequence[PolicyText]) -> dict[str, Policy]:
        policies: list[Policy] = []
        problems: list[Problem] = []
        for text in texts:
            try:
                policies.append(parse_policy(text.text, text.file))
            except PolicyInvalid as error:
                problems.extend(error.problems)
        found, repeated = by_name(policies)
        problems.extend(repeated)
        for policy in policies:
            covered = {r.name: r.template.params for r in self._routes.rules if r.policy == policy.name}
            problems.extend(check_policy(policy, covered) or find_unrunnable(policy, covered))
        if problems:
            raise PolicyInvalid(problems)
        return found

    def _begins_to_read(self, policies: Mapping[str, Policy]) -> frozenset[str]:
        """Return the routes of which the proxy does not yet hand over bodies of requests that would be read.

        Raises PolicyModeChanged if there are some, and the proxy can't be told.
        """
        found = frozenset(
            rule.name
            for rule in self._routes.rules
            if rule.name not in self._read and rule.policy in policies and reads_requests(policies[rule.policy])
        )
        if found and self._proxy is None:
            raise PolicyModeChanged(
                f"the bodies of requests would be read on route {min(found)}, which the proxy does not hand over; it "
                "must be told by hand, and the gate be started anew"
            )
        return found

    def _changed_kinds(self, policies: Mapping[str, Policy]) -> Mapping[str, RouteKind]:
        """Return what would be done on the routes whose mode changes. Raises PolicyModeChanged if none may."""
        missing = sorted({rule.policy for rule in self._routes.rules if rule.policy} - set(policies))
        if missing:
            raise NotFound(f"a route is covered by '{missing[0]}', and no file holds that policy any more")
        changed = self._publisher.changed_kinds(policies, self._routes)
        for name, kind in changed.items():
            if self._proxy is None:
                raise PolicyModeChanged(
                    f"route {name} would be of kind {kind}; the proxy before this gate must be told by hand, and the "
                    "gate be started anew"
                )
        return changed

    async def _remember(
        self,
        texts: Sequence[PolicyText],
        policies: Mapping[str, Policy],
        action: str,
        failed: Mapping[str, Sequence[str]],
        *,
        forced: bool,
    ) -> list[str]:
        latest: dict[str, str] = {}
        for record in await self._store.load_publications():
            latest.setdefault(record.policy, record.digest)
        by_file = {policy.file: policy for policy in policies.values()}
        records = []
        for text in sorted(texts, key=lambda t: t.file):
            policy = by_file[text.file]
            digest = hashlib.sha256(text.text.encode()).hexdigest()
            if latest.get(policy.name) == digest:
                continue
            records.append(
                PublicationRecord(
                    policy=policy.name,
                    version=policy.version,
                    action=action,
                    at_s=self._clock.now_s(),
                    digest=digest,
                    text=text.text,
                    forced=forced and bool(failed.get(policy.name)),
                    failed_tests=len(failed.get(policy.name, ())),
                )
            )
        if records:
            await self._store.add_publications(records)
        return [record.policy for record in records]


def _without_withdrawn(history: Sequence[PublicationRecord]) -> list[PublicationRecord]:
    """Return the history of one policy, newest first, without withdrawals and what they took back."""
    found = []
    skip = 0
    for record in history:
        if record.action == WITHDRAW:
            skip += 1
        elif skip:
            skip -= 1
        else:
            found.append(record)
    return found
