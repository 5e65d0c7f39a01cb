"""Keeps child processes alive: starts them in order, restarts what dies or hangs, stops them in reverse order.

Children do not outlive their supervisor, however it ends: on Linux the kernel ends them with it (PR_SET_PDEATHSIG), and
everywhere a child may watch its standard input, whose other end the supervisor holds (end of file means: it is gone).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Check = Callable[[], Awaitable[bool]]

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
STEADY_AFTER_S = 30.0
"""A child that was up for so long has earned a quick restart again."""

_READY_POLL_S = 0.02
_STOP_WITHIN_S = 5.0

# Replaces itself by the real command, so nothing of it remains. The comparison closes the gap in which the supervisor
# dies before the kernel was asked. Any thread's end would count, but asyncio starts children from the loop's thread.
_LEASH = (
    "import ctypes,os,signal,sys\n"
    "ctypes.CDLL(None, use_errno=True).prctl(1, int(signal.SIGKILL), 0, 0, 0)\n"
    "os.getppid() == int(sys.argv[1]) or os._exit(1)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


class State(enum.StrEnum):
    """Where a child is in its life."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Log(Protocol):
    """Where the supervisor writes its lines: an event's name and facts that hold no value."""

    def __call__(self, event: str, /, **facts: str) -> object: ...


class NotReady(Exception):
    """A child did not become ready in time, or ended before; the text names the child and nothing else."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run one child.

    `ready` says when the next child may start. `alive`, if given, is asked every `alive_every_s` seconds; after
    `alive_misses` answers in a row that are False (or take longer than `alive_every_s`) the child is killed, and so
    restarted. `stop`, if given, asks the child to end and returns when it was asked; otherwise it gets SIGTERM.
    """

    name: str
    argv: Sequence[str]
    ready: Check
    env: Mapping[str, str] | None = field(default=None, repr=False)
    cwd: Path | None = None
    ready_within_s: float = 20.0
    alive: Check | None = None
    alive_every_s: float = 1.0
    alive_misses: int = 5
    stop: Callable[[], Awaitable[object]] | None = None
    stop_within_s: float = _STOP_WITHIN_S
    stderr: Path | None = None
    """Where the child's standard output and error go; nowhere by default."""


@dataclass(frozen=True, slots=True)
class ChildState:
    """What `gharial status` shows of a child."""

    name: str
    state: State
    pid: int | None
    restarts: int


class _Child:
    def __init__(self, spec: ChildSpec, log: Log) -> None:
        self.spec = spec
        self._log = log
        self.state = State.STOPPED
        self.restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    def snapshot(self) -> ChildState:
        running = self.process is not None and self.process.returncode is None
        return ChildState(
            self.spec.name, self.state, self.process.pid if running and self.process else None, self.restarts
        )

    async def start(self) -> None:
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep())

    async def _spawn(self) -> None:
        """Start the process and wait until it is ready; if it does not get there it is killed. Raises NotReady."""
        self.state = State.STARTING
        self.process = await _launch(self.spec)
        try:
            async with asyncio.timeout(self.spec.ready_within_s):
                while not await self._is_ready():
                    if self.process.returncode is not None:
                        raise NotReady(self.spec.name)
                    await asyncio.sleep(_READY_POLL_S)
        except TimeoutError:
            await self._kill()
            raise NotReady(self.spec.name) from None
        except BaseException:
            await self._kill()
            raise
        self.state = State.READY

    async def _is_ready(self) -> bool:
        try:
            return await self.spec.ready()
        except OSError:
            return False

    async def _keep(self) -> None:
        delay_s = FIRST_DELAY_S
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            await self._until_dead()
            if loop.time() - began_s >= STEADY_AFTER_S:
                delay_s = FIRST_DELAY_S
            self.state = State.WAITING
            self._log("child.ended", child=self.spec.name)
            while True:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)
                self.restarts += 1
                try:
                    await self._spawn()
                except (NotReady, OSError):
                    self.state = State.WAITING
                    self._log("child.not_ready", child=self.spec.name)
                else:
                    self._log("child.restarted", child=self.spec.name)
                    break

    async def _until_dead(self) -> None:
        """Return when the process has ended, be it that it hung and was killed."""
        process = self.process
        if process is None:
            return
        ended = asyncio.create_task(process.wait())
        try:
            misses = 0
            while misses < self.spec.alive_misses:
                await asyncio.wait({ended}, timeout=self.spec.alive_every_s if self.spec.alive else None)
                if ended.done():
                    return
                misses = 0 if await self._answers() else misses + 1
        finally:
            ended.cancel()
        self._log("child.hangs", child=self.spec.name)
        await self._kill()

    async def _answers(self) -> bool:
        if self.spec.alive is None:
            return True
        try:
            async with asyncio.timeout(self.spec.alive_every_s):
                return await self.spec.alive()
        except (TimeoutError, OSError):
            return False

    async def stop(self) -> None:
        """Stop keeping the child, ask it to end, and kill it if it has not ended in time."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        process = self.process
        if process is not None and process.returncode is None:
            self.state = State.STOPPING
            try:
                with contextlib.suppress(TimeoutError, OSError):
                    async with asyncio.timeout(self.spec.stop_within_s):
                        if self.spec.stop is not None:
                            await self.spec.stop()
                        else:
                            process.terminate()
                        await process.wait()
            finally:
                await self._kill()
        self.state = State.STOPPED

    async def _kill(self) -> None:
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            # The whole group: a child's own children must not go on without it.
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _launch(spec: ChildSpec) -> asyncio.subprocess.Process:
    argv = list(spec.argv)
    if sys.platform == "linux":
        argv = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *argv]
    output: int = asyncio.subprocess.DEVNULL
    if spec.stderr is not None:
        output = os.open(spec.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,  # never written to: its end tells the child that we are gone
            stdout=output,
            stderr=output,
            env=None if spec.env is None else dict(spec.env),
            cwd=spec.cwd,
            start_new_session=True,  # Ctrl-C is for us; we stop the children in order
        )
    finally:
        if output >= 0:
            os.close(output)


class Supervisor:
    """Runs children in the order given; use `start`, later `stop`."""

    def __init__(self, specs: Sequence[ChildSpec], *, log: Log) -> None:
        self._children = [_Child(spec, log) for spec in specs]

    async def start(self) -> None:
        """Start every child, each after the one before is ready. Raises NotReady; then none is left running."""
        try:
            for child in self._children:
                await child.start()
        except BaseException:
            await self.stop()
            raise

    def states(self) -> tuple[ChildState, ...]:
        """Return where each child is, in order."""
        return tuple(child.snapshot() for child in self._children)

    async def stop(self) -> None:
        """Stop all children, the last one first, each when the one before has ended."""
        for child in reversed(self._children):
            await child.stop()
