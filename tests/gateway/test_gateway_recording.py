"""A whole gateway is recorded while it serves, and the recording replayed under another policy."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.gateway import MARK, POLICY, Api, Home, a_gateway, customer, customer_id, shows
from support.upstreams import an_upstream, json_answer

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("gateway-recording")]


@pytest_asyncio.fixture
async def home() -> AsyncIterator[Home]:
    """A gateway whose upstream knows customers and a page of them."""
    api = Api({"/customers": json_answer(json.dumps({"rows": [customer(n) for n in range(5)], f"{MARK}@x": 1}))})
    async with an_upstream(api) as upstream, a_gateway({"api": {"url": f"http://127.0.0.1:{upstream.port}"}}) as made:
        yield made


async def test_traffic_is_recorded_without_a_value_and_replayed(home: Home):
    """`record --detach`, calls, `record --stop`, `policy replay`: the counts are those of the calls."""
    clerk = await home.add_client("clerk", purpose="support", roles=["care"])
    path = home.run / "monday.jsonl"
    said = await home.cli("record", "--out", str(path), "--for", "5min", "--detach")
    assert said.status == 0, said.err
    again = await home.cli("record", "--out", str(home.run / "second.jsonl"), "--detach")
    assert (again.status, "runs already" in again.err) == (1, True)
    answers = await asyncio.gather(
        *(home.get(f"/customers/{customer_id(n)}", key=clerk) for n in range(10)),
        *(home.get("/customers") for _ in range(3)),
        home.get("/open/x"),
    )
    assert all(answer.status == 200 for answer in answers[:13])
    ended = await home.cli("record", "--stop", "--json")
    assert (ended.json()["exchanges"], ended.json()["lost"], ended.json()["why"]) == (13, 0, "stopped")
    assert path.stat().st_mode & 0o777 == 0o600
    assert not shows(path.read_bytes())
    assert not any(key.encode() in path.read_bytes() for key in home.secrets)

    new = home.base / "new.yaml"
    new.write_text(POLICY.replace("contact: clear, birth: year", "contact: mask, birth: clear"))
    replayed = json.loads((await _replay(home, str(path), str(new), "--json")).decode())
    ways = {row["tag"]: (row["more_open"], row["stricter"]) for row in replayed["rows"] if row["caller"][:5] == "clerk"}
    assert replayed["exchanges"] == 13
    assert ways["birth"] == (10, 0)
    assert (ways["name"], ways["email"]) == ((0, 10), (0, 10))
    same = json.loads(
        (await _replay(home, str(path), str(home.base / "policies/customer-data.yaml"), "--json")).decode()
    )
    assert same["changes"] == []


async def _replay(home: Home, *words: str) -> bytes:
    """Run the command; its output holds nothing planted."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gharial", "policy", "replay", *words, env=home.env(), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert not shows(out)
    return out


async def test_a_recording_ends_with_the_gateway(home: Home):
    """SIGTERM in the middle leaves whole lines."""
    path = home.run / "monday.jsonl"
    assert (await home.cli("record", "--out", str(path), "--detach")).status == 0
    for _ in range(3):
        await home.get("/customers")
    assert await home.stop() == 0
    assert [json.loads(line)["route"] for line in path.read_bytes().splitlines()] == ["list"] * 3
