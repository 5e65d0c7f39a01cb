"""The Envoy process: finding it, its complaints, and stopping it without losing a call."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from support.envoy_harness import PLANTED, ScriptedExchange, a_gateway, mask
from support.upstreams import Raw, an_upstream, json_answer

from gharial.adapters.envoy import process
from gharial.gate.outcome import ForwardBody

AT = "[2026-11-22 21:07:34.652][1]"

CLEAR = json_answer(f'{{"name":"{PLANTED}"}}')


def test_the_binary_of_the_package_is_found():
    """By the package's own list of files; it is the binary, not a script that starts it."""
    path = process.find_envoy()
    assert path is not None
    assert os.access(path, os.X_OK)
    assert path.read_bytes()[:4] in (b"\x7fELF", b"\xcf\xfa\xed\xfe")


@pytest.mark.envoy
async def test_a_configuration_that_envoy_refuses_is_told_in_one_safe_line(tmp_path):
    """It says what is wrong without quoting the file."""
    envoy = process.find_envoy()
    assert envoy is not None
    path = tmp_path / "envoy.json"
    path.write_text(f'{{"no_such_field": "{PLANTED}"}}')
    complaint = await process.validate(envoy, path)
    assert complaint is not None
    assert "\n" not in complaint
    assert PLANTED not in complaint
    path.write_text("{}")
    assert await process.validate(envoy, path) is None


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("", "Envoy refuses the configuration"),
        (
            f"{AT}[info][main] [source/x.cc:1] hello\n{AT}[critical][main] [source/x.cc:1] error in 'secret': \"v\"\nx",
            "error in ( ): ( )",
        ),
        (f"{AT}[error][main] [source/x.cc:1] \x1b[31m\x00", "[31m"),
    ],
)
def test_complaints_are_digested(stderr, line):
    """Quoted parts, control characters and further lines are left out."""
    assert process.digest_errors(stderr) == line


async def test_an_admin_interface_that_is_not_there_is_no_error(tmp_path):
    """Not ready, no number of calls, no statistics."""
    admin = process.EnvoyAdmin(tmp_path / "none.sock")
    assert await admin.is_ready() is False
    assert await admin.active_requests() is None
    assert await admin.fetch_stats("x") == {}


@pytest.mark.envoy
async def test_the_admin_interface_is_its_owners_alone():
    """Who may talk to it may end Envoy."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url) as gateway:
        assert ((gateway.folder / "admin.sock").stat().st_mode & 0o777) == 0o600


@pytest.mark.envoy
async def test_draining_finishes_what_runs_and_takes_nothing_new():
    """The call under way gets its answer, a new connection is refused, then Envoy is gone."""
    thinking, go = asyncio.Event(), asyncio.Event()

    async def think(body: bytes) -> ForwardBody:
        thinking.set()
        await go.wait()
        return ForwardBody(mask(body))

    async with (
        an_upstream(CLEAR) as upstream,
        a_gateway(upstream.url, lambda: ScriptedExchange(body=think)) as gateway,
    ):
        call = asyncio.create_task(gateway.get())
        await asyncio.wait_for(thinking.wait(), 5)
        assert await gateway.admin.active_requests() == 1
        draining = asyncio.create_task(gateway.admin.drain_and_stop(10))
        async with asyncio.timeout(5):
            while await _accepts(gateway.port):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert not call.done()
        assert not draining.done()
        go.set()
        assert (await call).body == b'{"name":"*"}'
        assert await draining is True
        assert await asyncio.wait_for(gateway.envoy.wait(), 5) == 0


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.envoy
async def test_draining_closes_connections_that_are_kept_open():
    """A client that asks again on its old connection is answered, and told to go."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        ask = b"GET /protected/1 HTTP/1.1\r\nhost: a\r\n\r\n"
        writer.write(ask)
        first = await reader.readuntil(b'"*"}')
        assert b"connection: close" not in first
        await gateway.admin._post("/healthcheck/fail")
        writer.write(ask)
        assert b"connection: close" in await reader.readuntil(b'"*"}')
        writer.close()


@pytest.mark.envoy
async def test_draining_does_not_wait_for_ever():
    """A call that takes longer than the drain is cut off, and the caller is told so."""
    async with (
        an_upstream(Raw(b"", then_hang=True)) as upstream,
        a_gateway(upstream.url) as gateway,
    ):
        call = asyncio.create_task(gateway.raw(b"GET /protected/1 HTTP/1.1\r\nhost: a\r\n\r\n"))
        async with asyncio.timeout(5):
            while not upstream.seen:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await gateway.admin.drain_and_stop(0.2) is False
        assert await asyncio.wait_for(gateway.envoy.wait(), 5) == 0
        assert await call == b""


def test_the_command_line_keeps_heads_out_of_the_log():
    """Below `warning` Envoy logs requests and answers; hot restart would collide with another gateway's."""
    line = process.command(Path("/e"), Path("/c"), Path("/l"), concurrency=2)
    assert line[line.index("--log-level") + 1] == "warning"
    assert "--disable-hot-restart" in line
