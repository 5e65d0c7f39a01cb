"""What the processes of a gateway write on standard error holds no value, whatever happens."""

from __future__ import annotations

import asyncio
import gc

import pytest
import uvloop

from gharial.wiring.log import make_log, tell_crashes

PLANTED = "planted-ann@ex.org"


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_nobody_caught_is_told_by_its_type_alone(make_loop, capfd, caplog):
    """A callback and a task whose failures quote a payload: their kind is told, no text of theirs, no traceback."""

    def fail() -> None:
        raise ValueError(PLANTED)

    async def forgotten() -> None:
        raise KeyError(PLANTED)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tell_crashes(loop, make_log("gate"))
        loop.call_soon(fail)
        task = loop.create_task(forgotten())
        await asyncio.wait([task])
        del task
        gc.collect()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    said = capfd.readouterr()
    assert '"event": "task.crashed", "error": "ValueError"' in said.err
    assert '"event": "task.crashed", "error": "KeyError"' in said.err
    assert PLANTED not in said.out + said.err + caplog.text
    assert "Traceback" not in said.err + caplog.text
