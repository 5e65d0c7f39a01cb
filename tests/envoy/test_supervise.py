"""Children that live, die, hang and outlive; with small Python processes in their place."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gharial.adapters.supervise import ChildSpec, NotReady, State, Supervisor

FOREVER = "import time; time.sleep(600)"


def quiet(*_: str, **__: str) -> None:
    """A log that nobody reads."""


async def yes() -> bool:
    return True


def child(name: str, code: str = FOREVER, **change: Any) -> ChildSpec:
    options: dict[str, Any] = {"ready": yes, **change}
    return ChildSpec(name, [sys.executable, "-c", code], **options)


async def until(condition: Callable[[], bool], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def exists(pid: int) -> bool:
    """True while the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_children_start_in_order_and_stop_in_reverse(tmp_path):
    """The second starts when the first is ready; the first ends when the second has."""
    order: list[str] = []

    def ready(name: str) -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            order.append(f"{name} ready")
            return True

        return check

    supervisor = Supervisor([child("a", ready=ready("a")), child("b", ready=ready("b"))], log=quiet)
    await supervisor.start()
    assert order == ["a ready", "b ready"]
    states = supervisor.states()
    assert [(s.name, s.state, s.restarts) for s in states] == [("a", State.READY, 0), ("b", State.READY, 0)]
    pids = [s.pid for s in states]
    await supervisor.stop()
    assert all(s.state is State.STOPPED and s.pid is None for s in supervisor.states())
    assert not any(exists(pid) for pid in pids if pid)


async def test_a_dead_child_comes_back():
    """After kill -9 it is another process, and the restart is counted and logged without a value."""
    log: list[tuple[str, dict[str, str]]] = []
    supervisor = Supervisor([child("a")], log=lambda event, /, **facts: log.append((event, facts)))
    await supervisor.start()
    first = supervisor.states()[0].pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.states()[0].restarts == 1 and supervisor.states()[0].state is State.READY)
    assert supervisor.states()[0].pid not in (None, first)
    await supervisor.stop()
    assert log == [("child.ended", {"child": "a"}), ("child.restarted", {"child": "a"})]


async def test_restarts_wait_longer_each_time(tmp_path):
    """A child that dies at once is not started in a busy loop."""
    times = tmp_path / "times"
    code = f"import time; open({str(times)!r}, 'a').write(f'{{time.monotonic()}}\\n')"

    async def ready() -> bool:
        return times.exists()

    supervisor = Supervisor([child("a", code, ready=ready)], log=quiet)
    await supervisor.start()
    await until(lambda: len(times.read_text().splitlines()) >= 4)
    await supervisor.stop()
    at = [float(line) for line in times.read_text().splitlines()]
    gaps = [b - a for a, b in itertools.pairwise(at)]
    assert gaps[0] >= 0.1
    assert gaps[1] >= 0.2
    assert gaps[2] >= 0.4


async def test_a_hanging_child_is_killed_and_comes_back():
    """After so many missed answers in a row, an answer in between counts anew."""
    answers = iter([False, True, False, False, False])

    async def alive() -> bool:
        return next(answers, True)

    supervisor = Supervisor([child("a", alive=alive, alive_every_s=0.02, alive_misses=3)], log=quiet)
    await supervisor.start()
    first = supervisor.states()[0].pid
    await until(lambda: supervisor.states()[0].restarts == 1 and supervisor.states()[0].state is State.READY)
    assert first is not None
    assert not exists(first)
    await supervisor.stop()


async def test_a_check_that_does_not_answer_is_a_miss():
    """A hanging check does not hang the supervisor."""

    async def alive() -> bool:
        await asyncio.Event().wait()
        return True

    supervisor = Supervisor([child("a", alive=alive, alive_every_s=0.02, alive_misses=2)], log=quiet)
    await supervisor.start()
    await until(lambda: supervisor.states()[0].restarts >= 1)
    await supervisor.stop()


@pytest.mark.parametrize(
    ("code", "within_s"), [("raise SystemExit(3)", 10.0), (FOREVER, 0.2)], ids=["ends", "never ready"]
)
async def test_a_child_that_does_not_get_ready_stops_the_start(code, within_s):
    """The error names it, and nothing that was started before is left running."""

    async def no() -> bool:
        return False

    supervisor = Supervisor([child("first"), child("bad", code, ready=no, ready_within_s=within_s)], log=quiet)
    with pytest.raises(NotReady, match="bad"):
        await supervisor.start()
    assert all(state.pid is None for state in supervisor.states())


async def test_a_child_that_does_not_want_to_end_is_killed():
    """Asked first, then not asked any more."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    supervisor = Supervisor([child("a", code, stop_within_s=0.3)], log=quiet)
    await supervisor.start()
    pid = supervisor.states()[0].pid
    await supervisor.stop()
    assert pid is not None
    assert not exists(pid)


async def test_a_child_is_asked_to_end_in_its_own_way():
    """`stop` is what drains Envoy; only after it (or its time) is the child killed."""
    asked = []

    async def stop() -> None:
        asked.append(supervisor.states()[0].state)
        os.kill(supervisor.states()[0].pid or 0, signal.SIGTERM)

    supervisor = Supervisor([child("a", stop=stop)], log=quiet)
    await supervisor.start()
    await supervisor.stop()
    assert asked == [State.STOPPING]


async def test_a_failing_stop_kills_all_the_same():
    """Whatever the way of asking does, no child stays behind."""

    async def stop() -> None:
        raise OSError("no socket")

    supervisor = Supervisor([child("a", stop=stop)], log=quiet)
    await supervisor.start()
    pid = supervisor.states()[0].pid
    await supervisor.stop()
    assert pid is not None
    assert not exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_children_die_with_a_supervisor_that_is_killed(tmp_path):
    """kill -9 of the supervisor leaves nobody behind who serves with nobody watching."""
    script = tmp_path / "supervisor.py"
    script.write_text(
        textwrap.dedent("""
            import asyncio, sys
            from gharial.adapters.supervise import ChildSpec, Supervisor

            async def yes():
                return True

            async def main():
                argv = [sys.executable, "-c", "import time; time.sleep(600)"]
                supervisor = Supervisor([ChildSpec("a", argv, ready=yes)], log=lambda *_, **__: None)
                await supervisor.start()
                print(supervisor.states()[0].pid, flush=True)
                await asyncio.Event().wait()

            asyncio.run(main())
        """)
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, str(script), stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 10))
    assert exists(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not exists(pid))


async def test_standard_input_ends_with_the_supervisor():
    """A child that watches it learns of the end on every system; while all is well it stays open and silent."""
    code = "import sys; sys.stdin.buffer.read()"
    supervisor = Supervisor([child("a", code)], log=quiet)
    await supervisor.start()
    process = supervisor._children[0].process
    assert process is not None
    assert process.stdin is not None
    assert process.returncode is None
    process.stdin.close()
    await until(lambda: supervisor.states()[0].restarts >= 1)
    await supervisor.stop()
