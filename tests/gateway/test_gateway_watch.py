"""The watch in a whole gateway: a harvest with a valid key, seen and answered over real HTTP, kept over a crash."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.gateway import POLICY, Api, Home, a_gateway, customer_id, shows, until
from support.upstreams import an_upstream

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.xdist_group("gateway-watch"),
    pytest.mark.asyncio(loop_scope="module"),
]

WATCH = """\
watch:
  harvest: { people_per: client, over: 1h, above: 15, do: [alert, mask] }
  decoy: { ids: 'file:decoys.txt', do: ['alert:critical', 'block:1h'] }
"""
DECOY = customer_id(17)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home() -> AsyncIterator[Home]:
    async with (
        an_upstream(Api()) as upstream,
        a_gateway(
            {"api": {"url": upstream.url}}, policy=POLICY + WATCH, files={"decoys.txt": f"# nobody\n{DECOY}\n"}
        ) as home,
    ):
        yield home


async def incidents(home: Home) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((await home.cli("incidents", "list", "--json")).out)
    return found


async def test_a_harvest_is_masked_told_kept_and_undone(home: Home):
    """A key that sees more people than its policy says gets masks, also after a crash, until somebody undoes it."""
    thief, honest = (
        await home.add_client("thief", roles=["auditor"]),
        await home.add_client("honest", roles=["auditor"]),
    )
    order = [(number * 7) % 101 + 20 for number in range(40)]
    clear = [shows(await home.get(f"/customers/{customer_id(number)}", key=thief)) for number in order]
    assert clear.index(False) == 16
    assert not any(clear[16:])
    assert shows(await home.get(f"/customers/{customer_id(1)}", key=honest))
    (incident,) = await until(lambda: _found(home, "harvest"))
    assert (incident["client"], incident["measure"]) == ("thief", "mask")
    assert "gharial incidents undo" in (await home.cli("incidents", "show", str(incident["incident_id"]))).out
    await until(lambda: _kept(home))
    gate = home.pid("gate")
    os.kill(gate, signal.SIGKILL)
    await home.restarted("gate", gate)
    assert not shows(await home.get(f"/customers/{customer_id(2)}", key=thief))
    said = await home.cli("incidents", "undo", str(incident["incident_id"]))
    assert (said.status, said.out) == (0, "ended: mask, by the watch harvest\n")
    assert shows(await home.get(f"/customers/{customer_id(3)}", key=thief))


async def test_a_decoy_blocks(home: Home):
    """Whoever asks for an id of nobody is refused from the next call on; its record was the last one."""
    key = await home.add_client("curious", roles=["auditor"])
    await home.get(f"/customers/{DECOY}", key=key)
    reply = await home.get(f"/customers/{customer_id(1)}", key=key)
    assert (reply.status, reply.code) == (403, "measure.blocked")
    (incident,) = await until(lambda: _found(home, "decoy"))
    assert incident["severity"] == "critical"


async def _found(home: Home, detector: str) -> list[dict[str, object]]:
    return [incident for incident in await incidents(home) if incident["detector"] == detector]


async def _kept(home: Home) -> bool:
    """True once the measure is on disk, which it is within a second."""
    return b'"mask"' in b"".join(path.read_bytes() for path in home.run.glob("watch.db*"))
