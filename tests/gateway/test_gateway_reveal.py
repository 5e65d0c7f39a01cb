"""The reveal API and its command, over real HTTP, beside a gateway that hands out the tokens."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support.envoy_harness import free_port
from support.gateway import (
    ACCOUNTS_FROM,
    MARK,
    Api,
    Home,
    Said,
    a_gateway,
    a_home,
    customer,
    customer_id,
    needles,
    shows,
    until,
    write_gateway,
)
from support.kms import a_certificate
from support.upstreams import an_upstream, json_answer

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.xdist_group("gateway-reveal"),
    pytest.mark.asyncio(loop_scope="module"),
]

LIMIT = 20

POLICY = f"""\
policy: customer-data
version: 3
mode: enforce
tags:
  person:  {{ find: ['$..customerId', 'path:id'], subject: customer }}
  name:    {{ find: '$..fullName' }}
  email:   {{ find: '$..email' }}
  account: {{ find: '$..accountNumber' }}
  note:    {{ find: '$..note' }}
who:
  anyone: {{}}
  care:   {{ role: care }}
grants:
  - grant: basics
    to: anyone
    show: {{ person: token(from=vault), account: token, name: token, email: encrypt, note: token(per=subject) }}
  - grant: look-up
    to: care
    for: [support, marketing]
    reveal: [account, email, person]
    budget: {{ people: {LIMIT}/h, then: redact }}
  - {{ grant: notes, to: care, for: [support], reveal: [note], budget: {{ people: {LIMIT}/h, then: redact }} }}
never:
  - {{ never: person-stays, tag: person, for: [marketing], at_least: token }}
"""


@dataclass(frozen=True)
class Reply:
    """An answer of the API."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def values(self) -> list[Any]:
        """The values in clear, None for those refused."""
        assert self.status == 200, self.body
        return [item.get("value") for item in json.loads(self.body)["values"]]


@dataclass
class World:
    """A gateway with a reveal API before a telecom."""

    home: Home
    port: int

    async def sealed(self, key: str, first: int, count: int = 1) -> list[dict[str, str]]:
        """The records of some customers as this client gets them."""
        reply = await self.home.get(f"/any/{first}/{count}", key=key)
        assert reply.status == 200
        assert not shows(reply)
        return list(json.loads(reply.body))

    async def ask(self, key: str, *values: tuple[str, str]) -> Reply:
        return await self.post(key, json.dumps({"values": [{"tag": tag, "value": value} for tag, value in values]}))

    async def post(self, key: str, body: str | bytes, target: str = "/v1/reveal", **headers: str) -> Reply:
        def call() -> Reply:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                sent = {"content-type": "application/json", **({"x-api-key": key} if key else {}), **headers}
                connection.request("POST", target, body, sent)
                response = connection.getresponse()
                return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
            finally:
                connection.close()

        return await asyncio.to_thread(call)

    async def cli(self, key: str, text: str, *words: str) -> Said:
        """Run `gharial reveal` on a text; what it says is clear, for this is what it is for."""
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "gharial", "reveal", "--as-credential", "env:KEY", *words],
            *["-c", str(self.home.config)],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self.home.env(), "KEY": key},
        )
        async with asyncio.timeout(30):
            out, err = await process.communicate(text.encode())
        return Said(process.returncode or 0, out.decode(), err.decode())


def pages(seen: Any) -> Any:
    first, count = map(int, seen.target.rpartition("/any/")[2].split("/"))
    return json_answer(json.dumps([customer(number) for number in range(first, first + count)]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(an_upstream(pages))
        port = free_port()
        home = await stack.enter_async_context(
            a_gateway(
                {"api": {"url": upstream.url}},
                policy=POLICY,
                api={"port": port, "calls_per_minute": 3_000},
            )
        )
        yield World(home, port)
        home.look_for_leaks()


async def clerk(world: World, name: str, purpose: str = "support") -> str:
    return await world.home.add_client(name, roles=["care"], purpose=purpose)


async def test_own_tokens_and_envelopes_come_back_with_their_type(world: World):
    """A string, a JSON number digit for digit, an envelope; the line in the audit has digests and no value."""
    key = await clerk(world, "clerk-own")
    (record,) = await world.sealed(key, 7)
    reply = await world.ask(
        key, ("person", record["customerId"]), ("account", record["accountNumber"]), ("email", record["email"])
    )
    assert reply.values == [customer_id(7), ACCOUNTS_FROM + 7, customer(7)["email"]]
    assert reply.headers["cache-control"] == "no-store"
    line = next(line for line in world.home.audit() if line["exchange"] == reply.headers["gharial-exchange"])
    assert (line["kind"], line["client"], line["purpose"]) == ("reveal", "clerk-own", "support")
    assert [value["tag"] for value in line["revealed"]] == ["person", "account", "email"]
    assert all(len(value["digest"]) == 22 for value in line["revealed"])


async def test_a_thief_with_tokens_of_others_gets_nothing(world: World):
    """Another client's, a forged one, another tag's, without right, plain: one error for all; good ones pass."""
    victim, thief = await clerk(world, "victim"), await clerk(world, "thief")
    (stolen,), (own,) = await world.sealed(victim, 1), await world.sealed(thief, 2)
    token = own["accountNumber"]
    reply = await world.ask(
        thief,
        ("account", stolen["accountNumber"]),
        ("person", stolen["customerId"]),
        ("account", token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BAAA")),
        ("person", token),
        ("name", own["fullName"]),
        ("account", "4711"),
        ("nothing", token),
        ("account", token),
    )
    assert reply.values == [None] * 7 + [ACCOUNTS_FROM + 2]
    answers = json.loads(reply.body)["values"][:7]
    assert answers == [{"error": "refused"}] * 7
    text = await asyncio.to_thread(_metrics, world.home)
    assert 'gharial_reveal_refused_total{why="no_right"} ' in text
    assert 'gharial_revealed_total{tag="account"} ' in text


def _metrics(home: Home) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(home.run / "admin.sock"))
        client.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65_536), b"")).decode()


async def test_who_has_no_grant_or_no_credential_gets_nothing(world: World):
    """Without the role: each value refused. No key, a wrong one, a revoked one: 401 and no values."""
    key = await world.home.add_client("stranger", purpose="support")
    (record,) = await world.sealed(key, 3)
    assert (await world.ask(key, ("account", record["accountNumber"]))).values == [None]
    assert (await world.cli(key, record["accountNumber"], "--tag", "account")).status == 1
    gone = await clerk(world, "gone")
    assert (await world.home.cli("clients", "revoke", "gone")).status == 0
    for bad in ("", "ghk_x_y", gone):
        reply = await world.ask(bad, ("account", record["accountNumber"]))
        assert (reply.status, json.loads(reply.body)["code"]) == (401, "identity.unknown_credential")
        assert reply.headers["content-type"] == "application/problem+json"
        assert not shows(reply.body)


async def test_a_guardrail_is_stronger_than_the_grant(world: World):
    """For the purpose that a floor speaks of the tag stays shut, and others of the same grant come back."""
    key = await clerk(world, "marketing", "marketing")
    (record,) = await world.sealed(key, 5)
    reply = await world.ask(key, ("person", record["customerId"]), ("account", record["accountNumber"]))
    assert reply.values == [None, ACCOUNTS_FROM + 5]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "request.malformed"),
        (b"{", 400, "request.malformed"),
        (b'{"values": []}', 400, "request.malformed"),
        (b'{"values": [{"tag": "account", "value": 1}]}', 400, "request.malformed"),
        (b'{"values": [{"tag": "account", "value": "x", "as": "root"}]}', 400, "request.malformed"),
        (b'{"values": [' + b'{"tag":"t","value":"v"},' * 1000 + b'{"tag":"t","value":"v"}]}', 400, "request.malformed"),
        (b'{"values": [{"tag": "account", "value": "' + b"x" * 1_000_001 + b'"}]}', 413, "request.too_large"),
    ],
)
async def test_what_is_no_request_is_a_problem(world: World, body: bytes, status: int, code: str):
    """Other shapes, too many values, too many bytes: problem details, nothing revealed."""
    key = await clerk(world, f"shapes-{len(body)}")
    reply = await world.post(key, body)
    assert (reply.status, json.loads(reply.body)["code"]) == (status, code)


async def test_other_paths_and_types_are_problems(world: World):
    """Nothing else is served on this port, and a body that is not JSON is not read."""
    key = await clerk(world, "paths")
    assert (await world.post(key, b"{}", "/")).status == 404
    assert (await world.post(key, b"{}", "/v1/reveal/")).status == 404
    assert (await world.post(key, b"{}", **{"content-type": "text/plain"})).status == 415


async def test_parallel_batches_reveal_the_budget_and_not_one_more(world: World):
    """Overlapping batches at the same time: exactly the budget in distinct values, and those stay."""
    key = await clerk(world, "clerk-budget")
    tokens = [record["accountNumber"] for record in await world.sealed(key, 100, 60)]
    batches: Sequence[Sequence[str]] = [tokens[n : n + 15] for n in range(0, 46, 5)]
    replies = await asyncio.gather(*(world.ask(key, *(("account", token) for token in batch)) for batch in batches))
    shown = {value for reply in replies for value in reply.values if value is not None}
    assert len(shown) == LIMIT
    again = (await world.ask(key, *(("account", token) for token in tokens))).values
    assert {value for value in again if value is not None} == shown
    # Another client has a budget of its own; the incident names this one.
    listed = (await world.home.cli("incidents", "list", "--json")).json()
    found = [item for item in listed if item["detector"] == "people_budget"]
    assert [(item["client"], item["route"]) for item in found] == [("clerk-budget", "POST /v1/reveal")]
    told = (await world.home.cli("incidents", "show", found[0]["incident_id"])).out
    assert f"{LIMIT} values in 1 hour" in told
    assert "they got: refused" in told


@pytest.mark.skipif(sys.platform != "linux", reason="looks for a process by its number")
async def test_after_kill_9_of_the_gate_not_one_value_more_is_revealed(world: World):
    """The gate is killed in the middle of many batches: over the whole time at most the budget was revealed."""
    key = await clerk(world, "clerk-killed")
    tokens = [record["accountNumber"] for record in await world.sealed(key, 300, 80)]
    shown: set[object] = set()

    async def ask(at: int) -> None:
        try:
            reply = await world.ask(key, ("account", tokens[at]), ("account", tokens[-1 - at]))
        except (OSError, http.client.HTTPException):
            return
        shown.update(value for value in reply.values if value is not None)

    before = world.home.pid("gate")
    calls = [asyncio.create_task(ask(at)) for at in range(40)]
    await until(lambda: bool(shown))
    os.kill(before, signal.SIGKILL)
    await asyncio.gather(*calls)
    await world.home.restarted("gate", before)

    async def answers() -> bool:
        try:
            return (await world.ask(key, ("account", "x"))).status == 200
        except OSError:
            return False

    await until(answers)
    await asyncio.gather(*(ask(at) for at in range(40)))
    # What was charged and whose answer was lost with the gate counts all the same.
    assert 0 < len(shown) <= LIMIT
    again = (await world.ask(key, *(("account", token) for token in tokens))).values
    assert {value for value in again if value is not None} >= shown
    assert len({value for value in again if value is not None}) <= LIMIT


async def test_of_an_erased_person_the_command_says_erased(world: World):
    """In clear before; after `gharial erase` neither a value nor a refusal, and status 0: nothing went wrong."""
    key = await clerk(world, "clerk-erase")
    (record,) = await world.sealed(key, 12)
    said = await world.cli(key, record["note"], "--tag", "note", "--json")
    assert (said.status, [item["value"] for item in said.json()]) == (0, [customer(12)["note"]])
    receipt = str(world.home.base / "erased-12.json")
    words = ("--space", "customer", "--yes", "--receipt", receipt)
    assert (await world.home.cli("erase", customer_id(12), *words)).status == 0
    said = await world.cli(key, record["note"], "--tag", "account", "--tag", "note", "--json")
    assert (said.status, said.json()) == (0, [{"sealed": record["note"], "error": "erased"}])
    table = await world.cli(key, record["note"], "--tag", "note")
    assert (table.status, "erased" in table.out, "people who were erased" in table.err) == (0, True, True)


async def test_the_command_reads_any_text_and_says_what_was_refused(world: World):
    """Lines, a JSON list with tags, a dump: clear values on standard output, status 1 if one was refused."""
    key, other = await clerk(world, "clerk-cli"), await clerk(world, "clerk-cli-2")
    (record,), (foreign,) = await world.sealed(key, 8), await world.sealed(other, 9)
    lines = f"{record['accountNumber']}\n{record['accountNumber']}\n"
    said = await world.cli(key, lines, "--tag", "account", "--json")
    assert (said.status, [item["value"] for item in said.json()]) == (0, [ACCOUNTS_FROM + 8])
    dump = json.dumps({"rows": [record, {"note": f"x {foreign['accountNumber']}, y"}]})
    said = await world.cli(key, dump, "--tag", "account", "--tag", "email", "--tag", "person", "--json")
    assert said.status == 1
    assert [item.get("value") for item in said.json()] == [
        customer_id(8), None, customer(8)["email"], ACCOUNTS_FROM + 8, None, None,
    ]  # fmt: skip
    listed = json.dumps([{"tag": "account", "value": record["accountNumber"]}])
    table = await world.cli(key, listed)
    assert (table.status, str(ACCOUNTS_FROM + 8) in table.out) == (0, True)
    assert (await world.cli(key, lines)).status == 1
    assert "--tag" in (await world.cli(key, lines)).err
    assert not any(needle in said.err.encode() for needle in needles(MARK, key))


async def test_a_client_that_calls_too_often_is_told_to_wait():
    """429 with Retry-After, as problem details; another client goes on."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(an_upstream(Api()))
        port = free_port()
        settings = {"port": port, "calls_per_minute": 12}
        home = await stack.enter_async_context(a_gateway({"api": {"url": upstream.url}}, policy=POLICY, api=settings))
        world = World(home, port)
        key, other = await clerk(world, "busy"), await clerk(world, "calm")
        replies = [await world.ask(key, ("account", "x")) for _ in range(5)]
        assert [reply.status for reply in replies][:2] == [200, 200]
        assert replies[-1].status == 429
        assert 1 <= int(replies[-1].headers["retry-after"]) <= 5
        assert json.loads(replies[-1].body)["code"] == "request.too_many"
        assert (await world.ask(other, ("account", "x"))).status == 200


async def test_a_published_policy_holds_for_the_next_call(world: World):
    """What a new version does not reveal any more stays shut from then on, and comes back with the old one."""
    key = await clerk(world, "published")
    (record,) = await world.sealed(key, 4)
    file = world.home.base / "policies" / "customer-data.yaml"
    old = file.read_text()
    assert (await world.ask(key, ("account", record["accountNumber"]))).values == [ACCOUNTS_FROM + 4]
    for reveal, number, want in (("[email]", 4, None), ("[account, email, person]", 5, ACCOUNTS_FROM + 4)):
        text = old.replace("[account, email, person]", reveal).replace("version: 3", f"version: {number}")
        file.write_text(text)
        assert (await world.home.cli("policy", "publish")).status == 0
        assert (await world.ask(key, ("account", record["accountNumber"]))).values == [want]


async def test_bytes_that_are_no_request_harm_nobody(world: World):
    """Garbage, a head without end, a connection that says nothing: the next call is answered as before."""
    for data in (b"\x16\x03\x01garbage\r\n\r\n", b"POST /v1/reveal HTTP/1.1\r\nx: " + b"a" * 200_000, b""):
        _, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(data)
        writer.close()
    key = await clerk(world, "after-garbage")
    assert (await world.ask(key, ("account", "x"))).values == [None]


async def test_over_tls_the_command_checks_the_certificate(tmp_path: Path):
    """The API speaks HTTPS with the files that are named; the command believes only the CA that it is given."""
    _, ca = a_certificate(tmp_path)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(an_upstream(pages))
        port = free_port()
        api = {"port": port, "tls": {"cert": f"file:{ca}", "key": f"file:{tmp_path / 'key.pem'}"}}
        home = await stack.enter_async_context(a_gateway({"api": {"url": upstream.url}}, policy=POLICY, api=api))
        world = World(home, port)
        key = await clerk(world, "over-tls")
        (record,) = await world.sealed(key, 6)
        said = await world.cli(key, record["accountNumber"], "--tag", "account", "--json", "--ca", str(ca))
        assert (said.status, [item["value"] for item in said.json()]) == (0, [ACCOUNTS_FROM + 6])
        assert f"https://127.0.0.1:{port}/v1/reveal" in home.errors.read_text()
        blind = await world.cli(key, record["accountNumber"], "--tag", "account")
        assert (blind.status, "api.unavailable" in blind.err) == (1, True)


async def test_an_api_that_can_not_be_served_is_said_before_anything_starts(tmp_path: Path):
    """A certificate that is none, and a port that is taken: exit status 1, one clear line, nothing left running."""
    async with a_home() as home:
        port = free_port()
        (home.base / "not.pem").write_text("no certificate")
        api = {"port": port, "tls": {"cert": "file:not.pem", "key": "file:not.pem"}}
        write_gateway(home, {"api": {"url": "http://127.0.0.1:9"}}, policy=POLICY, api=api)
        said = await home.cli("up")
        assert (said.status, "api.tls: the files can't be used" in said.err) == (1, True)
        plain = json.loads(home.config.read_text()) | {"api": {"port": port}}
        home.config.write_text(json.dumps(plain))
        with socket.create_server(("127.0.0.1", port)):
            said = await home.cli("up")
        assert (said.status, "another api.port" in said.err) == (1, True)
        assert home.left_running() == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_the_api_listens_on_loopback_and_nowhere_else(world: World):
    """Of gate and Envoy nothing but the two configured ports is open, both on 127.0.0.1."""
    assert await asyncio.to_thread(_listening, world.home) == {
        ("127.0.0.1", world.port),
        ("127.0.0.1", world.home.port),
    }


def _listening(home: Home) -> set[tuple[str, int]]:
    """Addresses and TCP ports on which the gateway's processes listen (Linux)."""
    inodes = set()
    for name in ("gate", "envoy"):
        pid = home.pid(name)
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
            except OSError:
                continue
    found = set()
    with open("/proc/net/tcp", encoding="ascii") as lines:
        for line in list(lines)[1:]:
            parts = line.split()
            if parts[3] == "0A" and f"socket:[{parts[9]}]" in inodes:
                address, _, port = parts[1].partition(":")
                found.add((".".join(str(byte) for byte in reversed(bytes.fromhex(address))), int(port, 16)))
    return found
