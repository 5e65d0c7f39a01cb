"""Alarms on their way out: from the store's queue to services by apprise URL and to files, until all took them."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from gharial.adapters.group_thread import Reply, answer_all
from gharial.gate.ports import AlarmSink, Store
from gharial.model.errors import StoreUnwritable

if TYPE_CHECKING:
    import apprise

SEND_TIMEOUT_S = 3.0
"""How long one sink may keep a round waiting. One that answers later still counts, at the next try."""

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 300.0

_STUCK_S = 60.0  # after this long an attempt that hangs no longer stands in the way of the next one
_MAX_STUCK = 5  # and so many may hang at one sink; then it is dead until the restart

_FILE = "file://"
# Services that hand `message` to a program; everybody else shows it to a person.
_FOR_PROGRAMS = frozenset({"json", "jsons", "xml", "xmls", "form", "forms"})


def parse_alarm_urls(urls: Sequence[str]) -> list[str]:
    """Return what is wrong with `alarms` of gharial.yaml, a sentence each; none quotes a URL (they hold secrets)."""
    problems = []
    for number, url in enumerate(urls):
        if url.startswith(_FILE):
            if not url.removeprefix(_FILE):
                problems.append(f"alarms[{number}]: file:// wants a path, as in file://run/alarms.jsonl")
            continue
        schema, colon, _ = url.partition("://")
        known = _known_schemas()
        if not colon:
            problems.append(f"alarms[{number}]: not a URL; write SERVICE://… or file://PATH")
        elif schema.lower() not in known:
            # What stands before :// could still be a secret in the wrong place, so only a guess at it is printed.
            close = difflib.get_close_matches(schema.lower(), known, n=1)
            hint = f"did you mean {close[0]}://?" if close else "see https://appriseit.com/services/"
            problems.append(f"alarms[{number}]: apprise knows no such service; {hint}")
        elif _load_plugin(url) is None:
            problems.append(
                f"alarms[{number}]: apprise can't use this {schema.lower()}:// URL; its form is described on "
                "https://appriseit.com/services/"
            )
    return problems


class Alarms:
    """Implements `gate.ports.AlarmSink` for apprise URLs and `file://PATH` (relative to `base_dir`).

    Each sink works in a thread of its own and gets the alarms in order; one that hangs delays no other one, and nothing
    but the alarm. Which sinks took an alarm is remembered until all did, so a retry goes only to those that did not.
    `on_failure(sink, why)` hears of a failed attempt: `alarms[0] (json)` and a constant or the name of an exception.
    """

    def __init__(
        self,
        urls: Sequence[str],
        base_dir: Path,
        *,
        timeout_s: float = SEND_TIMEOUT_S,
        now_s: Callable[[], float] = time.monotonic,
        on_failure: Callable[[str, str], None] = lambda _sink, _why: None,
    ) -> None:
        """Load the services. Raises ValueError with the text of `parse_alarm_urls` if one can't be used."""
        if problems := parse_alarm_urls(urls):
            raise ValueError("\n".join(problems))
        self._on_failure = on_failure
        self._sinks = [
            _Sink(f"alarms[{number}] ({url.partition('://')[0].lower()})", _deliverer(url, base_dir), timeout_s, now_s)
            for number, url in enumerate(urls)
        ]

    async def send(self, alarm: bytes) -> bool:
        """See the port. Without any sink configured every alarm counts as taken."""
        key = hashlib.sha256(alarm).digest()
        failures = await asyncio.gather(*(sink.take(key, alarm) for sink in self._sinks))
        for sink, why in zip(self._sinks, failures, strict=True):
            if why:
                self._on_failure(sink.name, why)
        if any(failures):
            return False
        for sink in self._sinks:
            sink.forget(key)
        return True


class Courier:
    """Takes alarms from the store's queue, delivers them, takes them off: at least once, and once if nothing fails.

    An alarm that was not taken by all is tried again after 1 s, then 2, 4, … up to 5 minutes; the others do not wait
    for it. The queue is durable, so a restart only forgets how long to wait. `now_s` is a clock that never goes back.
    `on_failure(number, tries, next_try_in_s)` hears of every failed try.
    """

    def __init__(
        self,
        store: Store,
        sink: AlarmSink,
        *,
        now_s: Callable[[], float] = time.monotonic,
        on_failure: Callable[[int, int, float], None] = lambda _number, _tries, _next_s: None,
    ) -> None:
        self._store = store
        self._sink = sink
        self._now_s = now_s
        self._on_failure = on_failure
        self._failed: dict[int, tuple[int, float]] = {}  # alarm -> tries, time of the next one
        self._delivered: set[int] = set()  # taken by all, and not yet off the queue

    async def deliver_round(self) -> float | None:
        """Try every alarm whose time has come; return after how many seconds the next one's has, None if none waits."""
        try:
            # Those that wait for their next try must not keep a new one out of the list.
            waiting = await self._store.waiting_alarms(limit=100 + len(self._failed) + len(self._delivered))
        except StoreUnwritable:
            return FIRST_RETRY_S
        now_s = self._now_s()
        due = [
            (number, alarm)
            for number, alarm in waiting
            if number not in self._delivered and self._failed.get(number, (0, now_s))[1] <= now_s
        ]
        took = await asyncio.gather(*(self._sink.send(alarm) for _, alarm in due))
        for (number, _), ok in zip(due, took, strict=True):
            if ok:
                self._failed.pop(number, None)
                self._delivered.add(number)
            else:
                self._put_off(number)
        await self._take_off()
        # What another process took off the queue is no longer ours to try.
        still = {number for number, _ in waiting}
        self._failed = {number: state for number, state in self._failed.items() if number in still}
        times = [at_s - self._now_s() for _, at_s in self._failed.values()]
        times += [FIRST_RETRY_S] if self._delivered else []
        return max(0.0, min(times)) if times else None

    def _put_off(self, number: int) -> None:
        tries = self._failed.get(number, (0, 0.0))[0] + 1
        pause_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(tries - 1, 30))
        self._failed[number] = (tries, self._now_s() + pause_s)
        self._on_failure(number, tries, pause_s)

    async def _take_off(self) -> None:
        """Take delivered alarms off the queue; while the store can't be written they are remembered, not sent again."""
        for number in sorted(self._delivered):
            with contextlib.suppress(StoreUnwritable):
                await self._store.alarm_delivered(number)
                self._delivered.discard(number)


async def _wait_for(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)


async def deliver_waiting(
    courier: Courier,
    wake: asyncio.Event,
    *,
    wait: Callable[[asyncio.Event, float], Awaitable[None]] = _wait_for,
    idle_s: float = 60.0,
) -> NoReturn:
    """Run the courier for ever: a round at once, then whenever `wake` is set or an alarm's time has come.

    `wait(wake, seconds)` returns when the event is set or the time is over. A wake-up that was missed costs at most
    `idle_s`. Ends by cancellation only.
    """
    while True:
        wake.clear()  # before the look at the queue: an alarm that comes during the round wakes the next one
        next_s = await courier.deliver_round()
        await wait(wake, idle_s if next_s is None else min(next_s, idle_s))


# --- sinks -------------------------------------------------------------------------------------------------------


class _Deliver(Protocol):
    def __call__(self, alarm: bytes) -> bool:
        """Deliver one alarm, blocking; True if it was taken."""


class _Sink:
    """One sink: its attempts one after the other, each in a thread that may hang without holding up anything else."""

    def __init__(self, name: str, deliver: _Deliver, timeout_s: float, now_s: Callable[[], float]) -> None:
        self.name = name
        self._deliver = deliver
        self._timeout_s = timeout_s
        self._now_s = now_s
        self._turn = asyncio.Lock()
        self._took: set[bytes] = set()
        self._running: set[object] = set()
        self._started_s = 0.0

    async def take(self, key: bytes, alarm: bytes) -> str:
        """Deliver the alarm unless it was before. Return why that failed, or an empty text."""
        async with self._turn:
            if key in self._took:
                return ""
            if self._running and (self._now_s() - self._started_s < _STUCK_S or len(self._running) >= _MAX_STUCK):
                return "an earlier attempt hangs"
            reply, attempt = Reply.here(), object()
            self._running.add(attempt)
            self._started_s = self._now_s()
            # A daemon: a service that hangs must not keep the gateway from ending.
            args = (attempt, key, alarm, reply)
            threading.Thread(target=self._attempt, args=args, name="gharial-alarm", daemon=True).start()
            try:
                return str(await asyncio.wait_for(reply.future, self._timeout_s))
            except TimeoutError:
                return "no answer in time"

    def forget(self, key: bytes) -> None:
        """All sinks took this alarm: no retry will come."""
        self._took.discard(key)

    def _attempt(self, attempt: object, key: bytes, alarm: bytes, reply: Reply) -> None:
        why = "the attempt ended without a word"
        try:
            why = "" if self._deliver(alarm) else "not accepted"
        except Exception as err:  # noqa: BLE001 - 250 services' own code; the texts of their errors quote URLs
            why = type(err).__name__
        finally:
            if not why:
                self._took.add(key)
            self._running.discard(attempt)
            answer_all([(reply, why)])


def _deliverer(url: str, base_dir: Path) -> _Deliver:
    if url.startswith(_FILE):
        path = base_dir / url.removeprefix(_FILE)
        return lambda alarm: _append_line(path, alarm)
    plugin = _load_plugin(url)
    if plugin is None:
        raise ValueError("a URL that parse_alarm_urls let pass can't be loaded")
    for_programs = url.partition("://")[0].lower() in _FOR_PROGRAMS
    return lambda alarm: _notify(plugin, alarm, for_programs=for_programs)


def _append_line(path: Path, alarm: bytes) -> bool:
    """Append the alarm as one durable line; an error leaves the file as it was, so that no half line stays."""
    line = alarm.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"  # in JSON text these occur only between tokens
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line  # a crash tore the last line: begin a new one
            try:
                if os.write(fd, line) != len(line):
                    raise OSError(0, "the disk is full")
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, size)
                return False
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


def _known_schemas() -> list[str]:
    from apprise.manager_plugins import NotificationManager

    manager: Any = NotificationManager  # untyped
    return list(manager().schemas())


def _load_plugin(url: str) -> apprise.NotifyBase | None:
    """Return apprise's service for a URL, or None. Imported here: 0.35 s that a gateway without URLs does not spend."""
    import apprise

    # apprise logs URLs, and urllib3 the paths of webhooks, which are secrets as a rule.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)
    asset = apprise.AppriseAsset(
        app_id="Gharial",
        app_desc="Gharial",
        async_mode=False,
        http_redirects=False,  # an alarm goes where the configuration says, and nowhere else
        storage_mode=apprise.PersistentStoreMode.MEMORY,
    )
    return apprise.Apprise.instantiate(url, asset=asset)


def _notify(plugin: apprise.NotifyBase, alarm: bytes, *, for_programs: bool) -> bool:
    import apprise

    fields = _fields(alarm)
    severe = fields.get("severity") in ("critical", "high")
    return bool(
        plugin.notify(
            title=str(fields.get("summary") or "Gharial opened an incident")[:250],
            body=alarm.decode() if for_programs else "\n".join(f"{k}: {v}" for k, v in fields.items() if v != ""),
            notify_type=apprise.NotifyType.FAILURE if severe else apprise.NotifyType.WARNING,
            body_format=apprise.NotifyFormat.TEXT,
        )
    )


def _fields(alarm: bytes) -> Mapping[str, object]:
    try:
        fields = json.loads(alarm)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
