"""The gate inside another program: a thread with an event loop on which all exchanges run, and what keeps house there.

One loop for everything, whatever threads and loops the program has: meter and incidents are made for one.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gharial import __version__
from gharial.adapters.alarms import deliver_waiting
from gharial.adapters.audit_file import AuditFile
from gharial.adapters.embedded.call import Announced
from gharial.adapters.files import GatewayFiles
from gharial.adapters.key_file import load_keyset
from gharial.adapters.memory import MemoryAudit, MemoryStore
from gharial.adapters.store import SqliteStore, open_store
from gharial.adapters.watch_file import WatchFile
from gharial.crypto.keyset import Keyset, create_keyset
from gharial.gate.clients import ClientDirectory
from gharial.gate.exchange import GateExchange
from gharial.gate.keyring import check_and_remember
from gharial.gate.operate import status
from gharial.gate.outcome import BodyMode
from gharial.gate.publish import Publisher
from gharial.gate.routes import RouteKind, RouteTable
from gharial.gate.services import Services
from gharial.gate.vouch import Caller
from gharial.model.errors import GateUnavailable, GharialError, NoRoute
from gharial.model.plan import Mode
from gharial.policy.document import Policy
from gharial.wiring.facts import Facts, open_facts
from gharial.wiring.gate_process import build_services, courier_of, flush_incidents, keep_house, open_gateway_audit
from gharial.wiring.log import tell_crashes
from gharial.wiring.vaults import OpenVault, open_vault
from gharial.wiring.watching import keep_watching, save_watching, watch_file_of
from gharial.wiring.world import SystemClock, random_bytes

_T = TypeVar("_T")

_BODY_MODE = {RouteKind.PROTECT: BodyMode.BUFFERED, RouteKind.SHADOW: BodyMode.STREAMED, RouteKind.PASS: BodyMode.NONE}
"""How an answer's body travels through the middleware, where there is no proxy that could do otherwise."""

_logger = logging.getLogger("gharial")


def _log(event: str, /, **facts: str) -> None:
    """Events go where the program's own logging sends them; they are few, and hold no value."""
    _logger.warning("%s %s", event, " ".join(f"{name}={value}" for name, value in facts.items()))


@dataclass(slots=True)
class _World:
    """All that has to be closed. `enforced` are the services under which every policy is enforced."""

    services: Services
    enforced: Services
    store: SqliteStore | MemoryStore
    audit: AuditFile | MemoryAudit
    facts: Facts
    vault: OpenVault
    watch_file: WatchFile | None
    keepers: list[asyncio.Task[None]]
    started_s: float


class Engine:
    """A gate of this process. Its methods may be called from any thread; it ends with `close`, or the process."""

    def __init__(self, files: GatewayFiles, *, ephemeral: bool) -> None:
        """Open keys, store and audit as the settings say; with `ephemeral` make them anew, in memory.

        Raises GharialError: StoreInUse where a gateway or another program owns the store.
        """
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        tell_crashes(self._loop, _log)
        self._thread = threading.Thread(target=self._loop.run_forever, name="gharial-embedded", daemon=True)
        self._thread.start()
        try:
            self._world = self.run(lambda: _open(files, ephemeral=ephemeral)).result()
        except BaseException:
            self._end_loop()
            raise
        atexit.register(self.close)

    @property
    def services(self) -> Services:
        """What an exchange over HTTP shares: policies are in the mode that they say."""
        return self._world.services

    @property
    def enforced(self) -> Services:
        """The same, with every policy enforced: what is handed over to be protected never passes as it is."""
        return self._world.enforced

    @property
    def max_bytes(self) -> int:
        """The longest body that is read (`limits.body`)."""
        return self._world.services.limits.body_bytes

    def announce(self, method: str, path: str) -> Announced:
        """See `adapters.embedded.call.Engine`: what the proxy of a gateway announces to its gate."""
        services = self._world.services
        try:
            rule, _ = services.routes.match(method, path)
        except NoRoute:
            return Announced("", BodyMode.BUFFERED)
        return Announced(rule.name, _BODY_MODE[services.publisher.active.kind(rule)], rule.reads_requests)

    def exchange(self, caller: Caller | None) -> GateExchange:
        """See `adapters.embedded.call.Engine`."""
        services = self._world.services
        return GateExchange(services, None if caller is None else caller.verified(services.tenant))

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """Run work on the gate's loop. Raises GateUnavailable if the gate is closed, or of another process."""
        self._check_process()
        with self._lock:
            if self._closed:
                raise GateUnavailable("this gate is closed")
            return asyncio.run_coroutine_threadsafe(work(), self._loop)

    def call_soon(self, work: Callable[[], None]) -> None:
        """Have the gate's loop do something after all that it was given before; nothing if the gate is closed."""
        with self._lock:
            if not self._closed and os.getpid() == self._pid:
                self._loop.call_soon_threadsafe(work)

    def status(self) -> Mapping[str, Any]:
        """What `gharial status` shows of a gate: names and numbers only."""
        world = self._world

        async def report() -> Mapping[str, Any]:
            return status(
                world.services,
                started_s=world.started_s,
                version=__version__,
                extra={**world.facts.report(), "vault": world.vault.report()},
            )

        return self.run(report).result()

    def close(self) -> None:
        """Let running exchanges end, write what waits, and let go of store and audit. A second call does nothing."""
        if os.getpid() != self._pid:
            return  # a fork has none of the threads, and all that is open belongs to its parent
        with self._lock:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        try:
            asyncio.run_coroutine_threadsafe(_close(self._world), self._loop).result()
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        with self._lock:
            self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            # Its threads did not come along with the fork, and two owners of one budget are none.
            raise GateUnavailable("this gate was loaded before the process was forked; load it after that")


async def _open(files: GatewayFiles, *, ephemeral: bool) -> _World:
    if ephemeral:
        keyset = create_keyset(random_bytes, SystemClock().now_s())
        return await _open_world(files, keyset, MemoryStore(), MemoryAudit())
    # In a thread: a KMS may be asked, which takes its time and has an event loop of its own.
    keyset = await asyncio.to_thread(load_keyset, files.settings, files.base)
    store = open_store(files.store_path)
    try:
        audit = open_gateway_audit(files, _log)
        try:
            await check_and_remember(keyset, store)
            return await _open_world(files, keyset, store, audit)
        except BaseException:
            audit.close()
            raise
    except BaseException:
        store.close()
        raise


async def _open_world(
    files: GatewayFiles, keyset: Keyset, store: SqliteStore | MemoryStore, audit: AuditFile | MemoryAudit
) -> _World:
    started_s = SystemClock().now_s()
    directory = ClientDirectory(*await store.load_clients())
    facts = open_facts(files.settings, files.base, _log)
    vault = open_vault(files.settings, files.base, store, _log)
    wake = asyncio.Event()
    watch_file = watch_file_of(files) if isinstance(store, SqliteStore) else None
    services = await build_services(files, keyset, store, audit, directory, facts, vault.vault, wake.set, watch_file)
    services = replace(services, routes=_without_streams(services.routes))
    keepers = [asyncio.create_task(keep_house(services, store, _log))]
    if watch_file is not None:
        keepers.append(asyncio.create_task(keep_watching(services.watching, watch_file, services.clock, _log)))
    if isinstance(store, SqliteStore):
        keepers.append(asyncio.create_task(deliver_waiting(courier_of(files, store, _log), wake)))
    enforced = replace(services, publisher=Publisher(_all_enforced(files.policies), keyset, random_bytes))
    return _World(services, enforced, store, audit, facts, vault, watch_file, keepers, started_s)


def _without_streams(routes: RouteTable) -> RouteTable:
    """Answers are held whole here, also on routes with `stream: true`: there is no proxy that hands over pieces."""
    return RouteTable([replace(rule, stream=False) for rule in routes.rules])


def _all_enforced(policies: Mapping[str, Policy]) -> dict[str, Policy]:
    return {name: replace(policy, mode=Mode.ENFORCE) for name, policy in policies.items()}


async def _close(world: _World) -> None:
    for keeper in world.keepers:
        keeper.cancel()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
    with contextlib.suppress(GharialError):
        await flush_incidents(world.services, world.services.clock.now_s())
    if world.watch_file is not None:
        with contextlib.suppress(GharialError):
            await save_watching(world.services.watching, world.watch_file, world.services.clock.now_s())
    await world.facts.close()
    await world.vault.close()
    world.audit.close()
    world.store.close()
