"""The watch of a running gate: made, filled with what it remembered, and saved every second."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gharial.adapters.files import GatewayFiles
from gharial.adapters.watch_file import CounterKey, WatchFile, read_decoys
from gharial.crypto.digest import person_digest
from gharial.gate.ports import Clock
from gharial.gate.publish import Publisher
from gharial.gate.watching import Watching
from gharial.model.errors import GharialError
from gharial.watch.incidents import IncidentBook
from gharial.wiring.log import Log


def watch_file_of(files: GatewayFiles) -> WatchFile:
    """Return the file in which a gateway's watch is remembered, beside its store."""
    return WatchFile(files.store_path.with_name("watch.db"))


def make_watching(
    files: GatewayFiles, publisher: Publisher, incidents: IncidentBook, clock: Clock, file: WatchFile | None
) -> Watching:
    """Return the watch over the active policies, as it was when it was last saved in `file`; with None, a fresh one.

    Raises PolicyInvalid if a policy's decoys can't be read, and what `WatchFile.load` raises.
    """
    tenant = files.settings.tenant
    watching = Watching(
        incidents,
        clock,
        read_decoys=lambda reference, _: read_decoys(files.base / Path(reference.removeprefix("file:"))),
        digest=lambda space, text: person_digest(publisher.keyset, tenant, space, text),
    )
    watching.check(publisher.active.policies)
    if file is None:
        return watching
    counters, measures = file.load()
    watching.measures.load(measures)
    for policy in publisher.active.policies.values():
        detectors = watching.detectors_of(policy)
        for key, state in counters.items():
            harvest = detectors.harvests.get(key.watch) if key.policy == policy.name else None
            if harvest is not None and key.window_s in harvest.rule.over_s:
                harvest.load((key.who, key.window_s), state)
    return watching


async def save_watching(watching: Watching, file: WatchFile, now_s: float) -> None:
    """Write what changed since the last time. What can't be written is tried again. Raises StoreUnwritable."""
    changed: dict[CounterKey, object] = {}
    for policy, name, harvest in watching.harvests():
        for who, window_s in harvest.changed:
            changed[CounterKey(policy, name, who, window_s)] = harvest.dump((who, window_s))
        harvest.changed.clear()
    measures = watching.measures.active(now_s)
    wanted = measures if watching.measures.changed else None
    watching.measures.changed = False
    if not changed and wanted is None:
        return
    try:
        await asyncio.to_thread(file.save, changed, wanted)
    except GharialError:
        watching.measures.changed |= wanted is not None
        for policy, name, harvest in watching.harvests():
            harvest.changed |= {(k.who, k.window_s) for k in changed if (k.policy, k.watch) == (policy, name)}
        raise


async def keep_watching(watching: Watching, file: WatchFile, clock: Clock, log: Log) -> None:
    """Every second: save what changed. A failure is told once until it works again."""
    failing = False
    while True:
        await asyncio.sleep(1)
        try:
            await save_watching(watching, file, clock.now_s())
        except GharialError as error:
            if not failing:
                log("watch.not_saved", code=error.code)
            failing = True
        else:
            failing = False
