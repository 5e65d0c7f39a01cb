"""One thread that takes whatever waits and handles it as one group: what makes one disk write serve many callers.

The store and the audit file both stand on it. Coroutines hand in jobs and await a `Reply`; the thread handles a group
and answers every reply of it in one wake-up of the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """A future, and the loop that it lives on; made inside a coroutine, answered from a thread."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    @classmethod
    def here(cls) -> Reply:
        """Return a reply on the running loop."""
        loop = asyncio.get_running_loop()
        return cls(loop, loop.create_future())


def answer_all(answers: Iterable[tuple[Reply, object]]) -> None:
    """Answer replies from a thread: an exception is raised in the caller, anything else is returned to it.

    A caller that was cancelled, or whose loop has ended, is passed over: the work itself stays done.
    """
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[Reply, object]]] = defaultdict(list)
    for reply, value in answers:
        by_loop[reply.loop].append((reply, value))
    for loop, batch in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, batch)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            continue


def _settle(batch: list[tuple[Reply, object]]) -> None:
    for reply, value in batch:
        if reply.future.done():
            continue
        if isinstance(value, BaseException):
            reply.future.set_exception(value)
        else:
            reply.future.set_result(value)


class GroupThread(Generic[Job]):
    """A bounded queue of jobs and the one thread that handles them, group by group, in order.

    `handle(group)` must answer every job of the group and not raise. Should it raise all the same (a bug), the thread
    ends, `abandon` is called with every job that was not handled, and `submit` takes nothing any more: a dead part
    refuses, it does not let callers wait for ever. `pause_s()` says after how many idle seconds `handle` is called with
    an empty group; None: never. Jobs for which nobody waits are collected for up to `linger_s` seconds before they are
    handled: waking the thread for each of them costs the event loop more than the job itself.
    """

    def __init__(
        self,
        name: str,
        *,
        handle: Callable[[list[Job]], None],
        abandon: Callable[[list[Job]], None],
        weigh: Callable[[Job], int],
        max_waiting: int,
        max_group: int,
        pause_s: Callable[[], float | None] = lambda: None,
        linger_s: float = 0.0,
    ) -> None:
        self._handle = handle
        self._abandon = abandon
        self._weigh = weigh
        self._max_waiting = max_waiting
        self._max_group = max_group
        self._pause_s = pause_s
        self._linger_s = linger_s
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._weight = 0
        self._urgent = False  # somebody waits for a job in the queue, or the queue is filling up
        self._stopping = False
        # A daemon, so that a disk that hangs can't keep the process from ending; stop() waits for the orderly case.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job, *, urgent: bool = True) -> bool:
        """Queue a job. False, and nothing is queued, if the queue would outgrow its bound or the thread is stopped.

        One that is not `urgent` may linger in the queue, until an urgent one comes or the queue is half full.
        """
        weight = self._weigh(job)
        with self._changed:
            if self._stopping or self._weight + weight > self._max_waiting:
                return False
            self._queue.append(job)
            self._weight += weight
            if urgent or self._weight > self._max_waiting // 2:
                self._urgent = True
            # The first one wakes the thread that waits for work; after that, only what is urgent ends its lingering.
            if self._urgent or len(self._queue) == 1:
                self._changed.notify()
        return True

    def stop(self) -> None:
        """Take no more jobs, handle those that wait, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        group: list[Job] = []
        try:
            while (taken := self._take()) is not None:
                group = taken
                self._handle(group)
                with self._changed:
                    self._weight -= sum(map(self._weigh, group))
                group = []
        finally:
            with self._changed:
                self._stopping = True
                left = group + list(self._queue)
                self._queue.clear()
            if left:
                self._abandon(left)

    def _take(self) -> list[Job] | None:
        """Wait for jobs and return a group; an empty one after a pause; None when stopped and nothing is left."""
        with self._changed:
            if not self._queue and not self._stopping:
                self._changed.wait(self._pause_s())
            if not self._queue:
                return None if self._stopping else []
            if self._linger_s and not self._urgent and not self._stopping:
                self._changed.wait(self._linger_s)
            group = [self._queue.popleft() for _ in range(min(len(self._queue), self._max_group))]
            # What is left may hold an urgent one, so it does not linger.
            self._urgent = bool(self._queue)
            return group
