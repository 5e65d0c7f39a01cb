"""`gharial init` and `up` as a new user runs them: shadow changes nothing on the wire, and enforcing is a word away."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from support.envoy_harness import Answer, parse_answer
from support.gateway import MARK, Api, Home, a_home, customer, customer_id, people_in_clear, shows
from support.upstreams import Raw, Upstream, an_upstream, answer, chunked, json_answer

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.xdist_group("gateway-shadow"),
    pytest.mark.asyncio(loop_scope="module"),
]

ONE = f"/customers/{customer_id(1)}"


async def init(home: Home, upstream: Upstream) -> None:
    """Run `gharial init` with a sample of the upstream, in the gateway's folder."""
    sample = home.base / "sample.json"
    sample.write_text(json.dumps({"items": [customer(1)], "by": {f"{MARK}@example.com": {"plan": "x"}}}))
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "gharial", "init", "--upstream", upstream.url, "--sample", str(sample)],
        *["--dir", str(home.base), "--port", str(home.port)],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=home.env(),
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    assert not shows(out + err)
    # The key that wraps lies beside the others at first, which is said; here it must not be found in the run folder.
    (home.base / "secret").mkdir()
    (home.run / "kek").rename(home.base / "secret" / "kek")
    home.config.write_text(home.config.read_text().replace("file:run/kek", "file:secret/kek"))
    home.secrets.add((home.base / "secret" / "kek").read_text().strip())


@dataclass
class World:
    """A gateway as `init` made it, before an upstream that answers as a test says."""

    home: Home
    api: Api
    upstream: Upstream

    async def direct(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> Answer:
        """The same call without the gateway."""
        return await Home(self.home.base, self.upstream.port, "").get(target, *headers, method=method, body=body)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_world() -> AsyncIterator[World]:
    api = Api()
    async with an_upstream(api) as upstream, a_home() as home:
        await init(home, upstream)
        await home.start()
        yield World(home, api, upstream)


@pytest.fixture
def world(the_world: World) -> Iterator[World]:
    """The gateway; after the test no file of it may hold anything planted."""
    the_world.api.answers.clear()
    the_world.upstream.seen.clear()
    yield the_world
    the_world.home.look_for_leaks()


async def test_init_lists_the_fields_of_a_sample_and_no_value_of_it(world: World):
    """The policy names every field for its owner to tag; the sample's values are not in it, nor are those in names."""
    text = (world.home.base / "policies" / "first-policy.yaml").read_text()
    for name in customer(1):
        assert name in text
    assert not shows(text.encode())
    assert not shows(world.home.config.read_bytes())
    assert (world.home.config.stat().st_mode & 0o777, "mode: shadow" in text) == (0o600, True)
    said = await world.home.cli("up", "--check")
    assert (said.status, "shadow" in said.out) == (0, True)


BODIES = {
    "record": json_answer(json.dumps(customer(1))),
    "spaced-json": json_answer('{ "a" : 1.0e2 ,\n "b":"\\u0041" , "a":2 }\n'),
    "broken-json": json_answer('{"a":'),
    "html": answer("200 OK", f"<b>{MARK}</b>".encode(), "content-type: text/html"),
    "no-type": answer("200 OK", b"\0\1\2\xff"),
    "empty": answer("200 OK", b""),
    "error": answer("500 Oops", MARK.encode(), "content-type: text/plain"),
    "gzip": answer("200 OK", gzip.compress(b"x" * 5000), "content-type: application/json", "content-encoding: gzip"),
    "brotli": answer("200 OK", b"\x0b\x02\x80abc\x03", "content-type: application/json", "content-encoding: br"),
    "chunked": chunked([b"one,", b"two,", b"three"], "content-type: text/csv"),
    "part": answer("206 Partial Content", b"bc", "content-type: text/plain", "content-range: bytes 1-2/4"),
    "brackets": json_answer("[" * 100_000),
}


@pytest.mark.parametrize("name", BODIES)
async def test_shadow_changes_no_byte(world: World, name: str):
    """Readable or not, status, body and headers are the upstream's; one header says that there is a policy.

    The framing is Envoy's own: what had a length may come in chunks.
    """
    world.api.answers["/x"] = BODIES[name]
    direct, through = await world.direct("/x"), await world.home.get("/x", "accept-encoding: br")
    assert (through.status, through.body) == (direct.status, direct.body)
    for header in ("content-type", "content-encoding", "content-range"):
        assert through.all(header) == direct.all(header)
    assert (through.one("gharial-policy") or "").endswith("mode=shadow")
    assert world.upstream.seen[-1].all("accept-encoding") == ["br"]


async def test_shadow_passes_cookies_etags_ranges_and_bodies_of_requests(world: World):
    """Headers in both directions and a large upload arrive as they were sent."""
    world.api.answers["/x"] = answer("200 OK", b"ok", "set-cookie: a=1", "set-cookie: b=2", 'etag: "v1"', "x-own: 1")
    upload = os.urandom(3_000_000)
    headers = ["range: bytes=0-1", 'if-none-match: "v0"', "cookie: a=b", "authorization: Basic eDp5"]
    reply = await world.home.get("/x?q=1&q=%20", *headers, method="POST", body=upload)
    assert (reply.all("set-cookie"), reply.one("etag"), reply.one("x-own")) == (["a=1", "b=2"], '"v1"', "1")
    (seen,) = world.upstream.seen
    assert (seen.method, seen.target, seen.body == upload) == ("POST", "/x?q=1&q=%20", True)
    for header in headers:
        assert seen.all(header.partition(":")[0]) == [header.partition(": ")[2]]


async def test_shadow_passes_what_is_far_too_large_to_be_protected(world: World):
    """40 MB that no limit would let through when enforced: every byte arrives, and status says what would happen."""
    body = hashlib.shake_256(b"seed").digest(40_000_000)
    world.api.answers["/large"] = answer("200 OK", body, "content-type: application/json")
    before = await _would_refuse(world.home)
    raw = await world.home.raw(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    reply = parse_answer(raw)
    assert hashlib.sha256(reply.body).digest() == hashlib.sha256(body).digest()
    assert await _would_refuse(world.home) == before + 1


async def _would_refuse(home: Home) -> int:
    (route,) = (await home.status())["routes"]
    return int(route["would_refuse"])


async def test_a_slow_stream_arrives_piece_by_piece(world: World):
    """Server-sent events pass as they come: each is read before the next one is sent."""
    events = [f"data: {MARK} {number}\n\n".encode() for number in range(5)]
    ready: list[asyncio.Event] = [asyncio.Event() for _ in events]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for event, may_go in zip(events, ready, strict=True):
            await may_go.wait()
            writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, a_home() as home:
        await init(home, Upstream(server.sockets[0].getsockname()[1]))
        await home.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", home.port)
        writer.write(b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n")
        ready[0].set()
        read = b""
        async with asyncio.timeout(20):
            for number, event in enumerate(events):
                while event not in read:
                    read += await reader.read(65_536)
                if number + 1 < len(events):
                    assert events[number + 1] not in read
                    ready[number + 1].set()
            while not read.endswith(b"0\r\n\r\n"):
                read += await reader.read(65_536)
        writer.close()


async def test_redirects_that_name_the_upstream_lead_back_also_in_shadow(world: World):
    """The one thing that is rewritten: otherwise the next call would go round the gateway."""
    for location, expected in (
        (f"{world.upstream.url}/a?b=c#d", "/a?b=c#d"),
        ("/a", "/a"),
        ("https://elsewhere.example/a", "https://elsewhere.example/a"),
    ):
        world.api.answers["/r"] = answer("302 Found", b"", f"location: {location}")
        assert (await world.home.get("/r")).one("location") == expected


async def test_a_wrong_credential_changes_nothing_in_shadow(world: World):
    """Whoever calls today still can: what would be refused is counted, and our own header does not go on."""
    before = await _would_refuse(world.home)
    reply = await world.home.get(ONE, key="ghk_wrong")
    assert reply.status == 200
    assert people_in_clear(reply.body) == {1}
    assert await _would_refuse(world.home) == before + 1
    assert world.upstream.seen[-1].all("x-api-key") == []


async def test_an_upstream_that_breaks_off_breaks_off(world: World):
    """A stream that ends too early is not made to look whole: it is torn, or, if nothing was sent yet, an error."""
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    world.api.answers["/x"] = Raw(head + b"fff\r\nhalf", then_close=True)
    for _ in range(5):
        reply = await world.home.ask_whatever_comes("/x")
        assert reply is None or (reply.status, reply.code) == (502, "upstream.unreachable")


async def test_after_editing_to_enforce_the_fields_leave_redacted():
    """As the file's own comments say: one word changed, started again, and what is not granted does not leave."""
    api = Api()
    async with an_upstream(api) as upstream, a_home() as home:
        await init(home, upstream)
        await home.start()
        assert people_in_clear((await home.get(ONE)).body) == {1}
        assert await home.stop() == 0
        policy = home.base / "policies" / "first-policy.yaml"
        policy.write_text(policy.read_text().replace("mode: shadow ", "mode: enforce", 1))
        await home.start()
        reply = await home.get(ONE)
        assert reply.status == 200
        assert not shows(reply)
        assert (await home.status())["policies"] == [{"policy": "first-policy", "version": 1, "mode": "enforce"}]
        api.answers["/page"] = answer("200 OK", f"<b>{MARK}</b>".encode(), "content-type: text/html")
        refused = await home.get("/page")
        assert (refused.status, refused.code) == (502, "media.unreadable")
        api.answers["/sample"] = json_answer(json.dumps({"items": [customer(1)]}))
        reply = await home.get("/sample")
        assert not shows(reply)
        assert json.loads(reply.body)["items"][0]["fullName"] == "[redacted]"
