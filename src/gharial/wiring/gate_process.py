"""The gate's process: builds the services, serves Envoy and the admin socket, keeps house, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from starlette.types import ASGIApp

from gharial import __version__
from gharial.adapters.active_file import ActiveFile
from gharial.adapters.admin import admin_app, serve_admin
from gharial.adapters.alarms import Alarms, Courier, deliver_waiting
from gharial.adapters.apigator import PREFIX, ApigatorApi
from gharial.adapters.audit_file import AuditFile, open_audit
from gharial.adapters.envoy.ext_proc import Server, serve
from gharial.adapters.envoy.process import EnvoyAdmin
from gharial.adapters.envoy.routes import EnvoyRoutes
from gharial.adapters.files import GatewayFiles, load_gateway_files, manifests_of
from gharial.adapters.jwks import JwksFileVerifier
from gharial.adapters.key_file import load_keyset
from gharial.adapters.memory import MemoryStore
from gharial.adapters.metrics import GateCollector, render
from gharial.adapters.reveal_api import RevealApi, by_prefix, serve_api
from gharial.adapters.store import SqliteStore, open_store
from gharial.adapters.watch_file import WatchFile
from gharial.crypto.digest import credential_hash
from gharial.crypto.keyset import Keyset
from gharial.gate.clients import ClientDirectory
from gharial.gate.datasets import Datasets, check_manifests
from gharial.gate.erasing import Eraser, spaces_of
from gharial.gate.exchange import GateExchange
from gharial.gate.identify import ApiKeySource, Identifier, JwtSource
from gharial.gate.keyring import Keyring
from gharial.gate.operate import Operations, random_id, status
from gharial.gate.people import PersonBook
from gharial.gate.ports import Audit, Store, Vault
from gharial.gate.publish import Publisher
from gharial.gate.publishing import Publishing, Readiness
from gharial.gate.reveal import Revealer
from gharial.gate.services import Counters, Services
from gharial.gate.vault import TokenBook
from gharial.model.errors import GharialError
from gharial.model.finding import Limits
from gharial.policy.document import Policy
from gharial.settings import Jwt, Settings
from gharial.watch.incidents import IncidentBook
from gharial.watch.meter import BudgetBook
from gharial.wiring.facts import Facts, open_facts
from gharial.wiring.log import Log, make_log, tell_crashes
from gharial.wiring.publications import FilePublications, run_policy_tests
from gharial.wiring.recordings import FileRecordings
from gharial.wiring.vaults import open_vault, person_keys_in
from gharial.wiring.watching import keep_watching, make_watching, save_watching, watch_file_of
from gharial.wiring.world import SystemClock, iso_time, random_bytes

LONGEST_WINDOW_S = 35 * 86_400
GRACE_S = 30.0
"""How long running exchanges may take to end after SIGTERM."""


def run_gate(config_path: Path, active_path: Path | None = None) -> int:
    """Serve until SIGTERM, SIGINT, or until whoever started this process closes its standard input.

    With `active_path` it runs by the texts that are kept there, not by the files as they may have been edited since.
    """
    # uvloop: a small call costs about an eighth less than on asyncio's own loop (bench/README.md).
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(config_path, active_path))


async def _run(config_path: Path, active_path: Path | None) -> int:
    log = make_log("gate")
    tell_crashes(asyncio.get_running_loop(), log)
    active = ActiveFile.load(active_path) if active_path is not None else None
    files = load_gateway_files(config_path, active.texts if active is not None else None)
    # In a thread: a KMS may be asked, which takes its time and has an event loop of its own.
    keyset = await asyncio.to_thread(load_keyset, files.settings, files.base)
    store = open_store(files.store_path)
    try:
        audit = open_gateway_audit(files, log)
        try:
            await _serve(files, active, keyset, store, audit, log)
        finally:
            audit.close()
    finally:
        store.close()
    return 0


def open_gateway_audit(files: GatewayFiles, log: Log) -> AuditFile:
    """Open the audit where the settings say; the caller closes it. Raises AuditUnwritable."""
    settings = files.settings.audit

    def on_change(writable: bool) -> None:
        log("audit.writable" if writable else "audit.unwritable")

    return open_audit(
        files.base / settings.dir,
        rotate_bytes=settings.rotate_bytes,
        on_change=on_change,
    )


async def _serve(
    files: GatewayFiles, active: ActiveFile | None, keyset: Keyset, store: SqliteStore, audit: AuditFile, log: Log
) -> None:
    settings = files.settings
    clock = SystemClock()
    started_s = clock.now_s()
    directory = ClientDirectory(*await store.load_clients())
    wake = asyncio.Event()
    facts = open_facts(settings, files.base, log)
    vault = open_vault(settings, files.base, store, log)
    watch_file = watch_file_of(files)
    services = await build_services(files, keyset, store, audit, directory, facts, vault.vault, wake.set, watch_file)
    keyring = Keyring(services.publisher, store, lambda: asyncio.to_thread(load_keyset, settings, files.base))
    await keyring.remember_start()
    proxy = _own_proxy(files) if active is not None else None
    if proxy is not None:
        # Also if this gate is started anew: the one before it may have died while it told Envoy something else.
        kinds = {rule.name: services.publisher.active.kind(rule) for rule in files.routes.rules}
        proxy.tell(kinds, services.publisher.active.routes_read(files.routes))
    operations = Operations(store, directory, clock, random_bytes, lambda text: credential_hash(services.keyset, text))
    server = await serve(
        files.gate_socket,
        lambda: GateExchange(services),
        in_flight=settings.limits.in_flight,
        body_bytes=settings.limits.body_bytes,
        log=log,
    )

    def report() -> dict[str, Any]:
        return status(services, started_s=started_s, version=__version__, extra=extra())

    def extra() -> dict[str, Any]:
        found = {**_extra(settings, server, audit, facts), "vault": vault.report()}
        return {**found, "keys": keyring.report(), "proxy": {"in_step": step.taken}}

    def check(policies: Mapping[str, Policy]) -> None:
        services.watching.check(policies)
        check_manifests(manifests_of(settings), services.routes, policies)

    readiness = Readiness()
    step = Step()
    keep = active.keep if active is not None else _keep_nothing
    publishing = Publishing(
        services.publisher,
        services.routes,
        store,
        clock,
        run_policy_tests,
        readiness,
        keep,
        proxy,
        check=check,
    )
    publications = FilePublications(files, publishing, services.publisher)
    await publications.remember_start(active.texts.policies if active is not None else None)
    metrics = GateCollector(services.counters, readiness, lambda: server.counters.under_way)
    recordings = FileRecordings(services)
    app = admin_app(
        operations,
        report,
        publications,
        lambda: _unready(readiness, audit, keyring, step),
        lambda: render(metrics),
        recordings,
        lambda: _take_keys(keyring, log),
        lambda incident_id: _undo(services, incident_id, log),
        make_eraser(services),
    )
    admin, admin_task = await serve_admin(app, files.admin_socket)
    api_server, api_task = await _serve_api(settings, services, log)
    keepers = [
        asyncio.create_task(keep_house(services, store, log)),
        asyncio.create_task(keep_watching(services.watching, watch_file, clock, log)),
        asyncio.create_task(deliver_waiting(courier_of(files, store, log), wake)),
    ]
    if proxy is not None:
        keepers.append(asyncio.create_task(_watch_proxy(proxy, publications, step, log)))
    # What lives as long as the process is no garbage: the collector need not look at it in the middle of a call.
    gc.collect()
    gc.freeze()
    log("gate.ready", policies=str(len(files.policies)), routes=str(len(services.routes.rules)))
    await _until_told_to_stop()
    log("gate.stopping")
    await server.stop(GRACE_S)
    recordings.close()
    if api_server is not None and api_task is not None:
        api_server.should_exit = True
        await api_task
    admin.should_exit = True
    for task in keepers:
        task.cancel()
    await asyncio.gather(*keepers, return_exceptions=True)
    with contextlib.suppress(GharialError):
        await flush_incidents(services, clock.now_s())
    with contextlib.suppress(GharialError):
        await save_watching(services.watching, watch_file, clock.now_s())
    await admin_task
    await facts.close()
    await vault.close()
    files.admin_socket.unlink(missing_ok=True)


async def _serve_api(
    settings: Settings, services: Services, log: Log
) -> tuple[uvicorn.Server, asyncio.Task[None]] | tuple[None, None]:
    """Serve the reveal API, and data sets where there are manifests, if the settings have an API."""
    if settings.api is None:
        return None, None
    calls = settings.api.calls_per_minute
    revealer = Revealer(services, calls_per_minute=calls)
    app: ASGIApp = RevealApi(revealer, new_id=services.new_id, log=log)
    if settings.manifests:
        datasets = Datasets(services, manifests_of(settings), revealer, random=random_bytes, calls_per_minute=calls)
        body_bytes = settings.limits.body_bytes
        apigator = ApigatorApi(datasets, max_bytes=body_bytes, new_id=services.new_id, log=log)
        app = by_prefix(PREFIX, apigator, app)
    return await serve_api(app, settings.api)


async def _take_keys(keyring: Keyring, log: Log) -> dict[str, Any]:
    try:
        await keyring.reload()
    except GharialError as error:
        log("keys.rejected", code=error.code, why=str(error))
        raise
    found = keyring.report()
    log("keys.active", primary=str(found["primary"]), keys=str(found["keys"]))
    return found


def _undo(services: Services, incident_id: str, log: Log) -> list[dict[str, Any]]:
    """End what was done for an incident; the log says so."""
    gone = services.watching.undo(incident_id)
    for measure in gone:
        log("measure.undone", measure=measure.name, incident=incident_id)
    return [asdict(measure) for measure in gone]


@dataclass(slots=True)
class Step:
    """Whether the proxy goes by the routes of the active policies: `taken` is None where that is not known."""

    taken: bool | None = None


def _own_proxy(files: GatewayFiles) -> EnvoyRoutes:
    admin = EnvoyAdmin(files.envoy_admin_socket)
    return EnvoyRoutes(files.settings, files.routes.rules, files.envoy_routes, admin)


async def _watch_proxy(proxy: EnvoyRoutes, publications: FilePublications, step: Step, log: Log) -> None:
    """Every second: ask Envoy by which routes it goes, and tell it again if by others.

    What does not fit the policies is refused meanwhile.
    """
    while True:
        taken = await proxy.is_taken()
        # Half-way through a publication Envoy may be ahead of it, or behind.
        if not publications.is_changing:
            if (step.taken is False) is not (taken is False):
                log("proxy.out_of_step" if taken is False else "proxy.in_step")
            step.taken = taken
            if taken is False:
                with contextlib.suppress(GharialError):
                    proxy.tell_again()
        await asyncio.sleep(1)


def _keep_nothing(_: object) -> None:
    """A gate that nobody starts anew begins with the files."""


async def build_services(
    files: GatewayFiles,
    keyset: Keyset,
    store: Store,
    audit: Audit,
    directory: ClientDirectory,
    facts: Facts,
    vault: Vault,
    wake_alarms: Callable[[], None],
    watch_file: WatchFile | None,
) -> Services:
    """Return the services of a gate on these adapters, with meter, incidents and watch as they were before the restart.

    Without `watch_file` the watch begins anew, and nothing of it is remembered.
    """
    settings = files.settings
    clock = SystemClock()
    publisher = Publisher(files.policies, keyset, random_bytes)
    meter = BudgetBook(retain_s=LONGEST_WINDOW_S)
    meter.load(await store.load_charges(clock.now_s() - LONGEST_WINDOW_S))
    incidents = IncidentBook(new_bytes=random_bytes, iso_time=iso_time)
    incidents.load(await store.load_incidents())
    return Services(
        tenant=settings.tenant,
        routes=files.routes,
        identifier=_identifier(settings, directory, publisher, facts),
        publisher=publisher,
        meter=meter,
        incidents=incidents,
        store=store,
        consent=facts.consent,
        vault=TokenBook(
            vault, random_bytes, people=PersonBook(person_keys_in(store), settings.tenant, random_bytes, clock.now_s)
        ),
        audit=audit,
        clock=clock,
        limits=Limits(
            body_bytes=settings.limits.body_bytes,
            depth=settings.limits.depth,
            values=settings.limits.values,
            inflate_ratio=settings.limits.inflate_ratio,
            row_bytes=settings.limits.row_bytes,
        ),
        counters=Counters(),
        new_id=lambda: random_id(random_bytes),
        iso_time=iso_time,
        wake_alarms=wake_alarms,
        watching=make_watching(files, publisher, incidents, clock, watch_file),
    )


def make_eraser(services: Services) -> Eraser:
    """Return what destroys keys of people in this gate."""
    people = services.vault.people
    assert people is not None  # noqa: S101 - see build_services
    publisher = services.publisher
    return Eraser(
        people, lambda: publisher.keyset, lambda: spaces_of(publisher.active.policies.values()), services.iso_time
    )


def _identifier(settings: Settings, directory: ClientDirectory, publisher: Publisher, facts: Facts) -> Identifier:
    sources: list[ApiKeySource | JwtSource] = []
    for source in settings.identity:
        if source.api_keys is not None:
            sources.append(ApiKeySource(source.api_keys.header.lower()))
        if source.jwt is not None:
            sources.append(_jwt_source(source.jwt))
    return Identifier(
        sources,
        directory,
        hash_credential=lambda text: credential_hash(publisher.keyset, text),
        tenant=settings.tenant,
        facts=facts.sources,
    )


def _jwt_source(jwt: Jwt) -> JwtSource:
    return JwtSource(
        verifier=JwksFileVerifier(jwt.jwks, jwt.issuer, jwt.audience),
        header=jwt.header.lower(),
        client_claim=jwt.client_claim,
        user_claim=jwt.user_claim,
        team_claim=jwt.team_claim,
        roles_claim=jwt.roles_claim,
        purpose_claim=jwt.purpose_claim,
        country_claim=jwt.country_claim,
        network_claim=jwt.network_claim,
    )


def _unready(readiness: Readiness, audit: AuditFile, keyring: Keyring, step: Step) -> list[str]:
    """Return what keeps the gate from being ready: what is on disk is not active, Envoy goes by other routes, or the
    audit can't be written."""
    problems = [f"the policies on disk are not active: {problem}" for problem in readiness.problems]
    if keyring.problem:
        problems.append(f"the key file on disk is not active: {keyring.problem}")
    if step.taken is False:
        problems.append(
            "Envoy goes by other routes than those of the active policies, and calls whose mode does not fit are "
            "refused; if that lasts, stop 'gharial up' and start it again"
        )
    return problems if audit.writable else [*problems, "the audit can't be written"]


def _extra(settings: Settings, server: Server, audit: AuditFile, facts: Facts) -> dict[str, Any]:
    found = server.counters
    return {
        **facts.report(),
        "in_flight": found.under_way,
        "limits": {"in_flight": settings.limits.in_flight, "body_bytes": settings.limits.body_bytes},
        "adapter": {
            "opened": found.opened,
            "refused_full": found.refused_full,
            "refused_protocol": found.refused_protocol,
            "crashed": found.crashed,
        },
        "audit": {"writable": audit.writable},
    }


def courier_of(files: GatewayFiles, store: SqliteStore, log: Log) -> Courier:
    """Return what delivers alarms; that one was not taken is itself worth a line, by the sink's number."""
    alarms = Alarms(
        files.settings.alarms, files.base, on_failure=lambda sink, why: log("alarm.not_taken", sink=sink, why=why)
    )
    return Courier(
        store,
        alarms,
        on_failure=lambda number, tries, next_s: log(
            "alarm.waits", alarm=str(number), tries=str(tries), next_try_s=f"{next_s:g}"
        ),
    )


async def keep_house(services: Services, store: SqliteStore | MemoryStore, log: Log) -> None:
    """Every second: let go of people whom no window covers, and store what incidents have grown to."""
    rounds = 0
    while True:
        await asyncio.sleep(1)
        now_s = services.clock.now_s()
        services.meter.forget(now_s)
        try:
            await flush_incidents(services, now_s)
            if rounds % 3600 == 0:
                await store.delete_charges(now_s - LONGEST_WINDOW_S)
        except GharialError as error:
            log("house.failed", code=error.code)
        rounds += 1


async def flush_incidents(services: Services, now_s: float) -> None:
    """Store what incidents have grown to. Raises StoreUnwritable; they are kept for the next time then."""
    for record, alarm in services.incidents.flush(now_s):
        try:
            await services.store.put_incident(record, alarm)
        except GharialError:
            services.incidents.put_failed(record, alarm)
            raise
        if alarm is not None:
            services.wake_alarms()


async def _until_told_to_stop() -> None:
    """Return at SIGTERM or SIGINT, or when standard input ends: then the supervisor is gone."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    if not sys.stdin.isatty():
        with contextlib.suppress(ValueError, OSError, PermissionError):
            reader = asyncio.StreamReader()
            await loop.connect_read_pipe(lambda: _UntilEnd(reader, told), sys.stdin)
    await told.wait()


class _UntilEnd(asyncio.StreamReaderProtocol):
    def __init__(self, reader: asyncio.StreamReader, told: asyncio.Event) -> None:
        super().__init__(reader)
        self._told = told

    def eof_received(self) -> bool | None:
        self._told.set()
        return super().eof_received()
