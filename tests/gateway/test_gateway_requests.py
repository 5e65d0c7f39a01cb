"""Tokens that come back in requests, through a whole gateway: what the upstream gets, and what a thief does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from support.envoy_harness import Answer
from support.gateway import ACCOUNTS_FROM, Api, Home, a_gateway, customer, customer_id, shows
from support.upstreams import SeenRequest, Upstream, an_upstream, json_answer

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.xdist_group("gateway-requests"),
    pytest.mark.asyncio(loop_scope="module"),
]

POLICY = """\
policy: customer-data
version: 1
tags:
  person:  { find: ['$..customerId', 'path:id', 'query:customer', 'header:X-Customer', 'cookie:customer'],
             subject: customer }
  account: { find: ['$..accountNumber', 'query:account'] }
  public:  { find: ['$..plan', '$..lines'] }
who:
  anyone:  {}
  partner: { client: 'acme-*' }
grants:
  - { grant: basics, to: anyone, show: { person: token, public: clear } }
  - { grant: partner, to: partner, show: { account: token }, reidentify: [person, account] }
never:
  - { never: no-guessing, only_tokens: account, when: { client: acme-desk }, unless: clear }
"""
ROUTES = [{"route": "customer", "match": "ANY /customers/{id}", "upstream": "api", "policy": "customer-data"}]
ONE = f"/customers/{customer_id(1)}"
ACCOUNT = str(ACCOUNTS_FROM + 1)
JSON = "content-type: application/json"
FORM = "content-type: application/x-www-form-urlencoded"


class World:
    """One gateway for this module, its upstream, and the keys of its clients.

    `acme` and `other` may send tokens back, `desk` nothing but tokens, `clerk` none.
    """

    def __init__(self, home: Home, upstream: Upstream, keys: dict[str, str]) -> None:
        self.home, self.upstream = home, upstream
        self.acme, self.other, self.desk, self.clerk = (keys[n] for n in ("billing", "other", "desk", "clerk"))

    async def record(self, key: str) -> dict[str, object]:
        """Customer 1 as a partner sees it; the upstream's memory is empty afterwards."""
        record = json.loads((await self.home.get(ONE, key=key)).body)
        assert record["customerId"].startswith("tok_")
        self.upstream.seen.clear()
        return dict(record)

    @property
    def asked(self) -> SeenRequest:
        """The one request that reached the upstream."""
        (seen,) = self.upstream.seen
        return seen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_world() -> AsyncIterator[World]:
    api = Api()
    api.answers["/customers/x"] = json_answer(json.dumps(customer(1)))
    async with (
        an_upstream(api) as upstream,
        a_gateway({"api": {"url": upstream.url}}, policy=POLICY, routes=ROUTES, limits={"body": 20_000}) as home,
    ):
        names = {name: "clerk" if name == "clerk" else f"acme-{name}" for name in ("billing", "other", "desk", "clerk")}
        yield World(home, upstream, {name: await home.add_client(client) for name, client in names.items()})


@pytest.fixture
def world(the_world: World) -> Iterator[World]:
    """The gateway; after the test no file of it may hold anything planted."""
    the_world.upstream.seen.clear()
    yield the_world
    the_world.home.look_for_leaks()


def refused(reply: Answer, status: int, code: str) -> None:
    """The answer is a problem of this kind that names nothing."""
    assert (reply.status, reply.code) == (status, code)
    assert set(reply.problem()) <= {"type", "title", "status", "code", "exchange"}
    assert not shows(reply)


# --- query, headers, cookies ---------------------------------------------------------------------------------------


async def test_tokens_in_query_header_and_cookie_reach_the_upstream_as_values(world: World):
    """All of them in one request; what is no token arrives as it was sent, and each header once."""
    record = await world.record(world.acme)
    person, account = record["customerId"], record["accountNumber"]
    reply = await world.home.get(
        f"/customers/x?a=%41&account={account}&customer={person}",
        *(f"x-customer: {person}", "x-customer: plain", f"cookie: s=1; customer={person}", "cookie: t=2"),
        key=world.acme,
    )
    assert reply.status == 200
    assert world.asked.target == f"/customers/x?a=%41&account={ACCOUNT}&customer={customer_id(1)}"
    assert world.asked.all("x-customer") == [f"{customer_id(1)}, plain"]
    assert [part for value in world.asked.all("cookie") for part in value.split("; ")] == [
        *("s=1", f"customer={customer_id(1)}", "t=2")
    ]
    assert not shows(reply)
    assert world.home.audit()[-1]["reidentified"] == {"account": 1, "person": 3}


async def test_another_clients_tokens_are_refused_everywhere(world: World):
    """A stolen token opens nothing, wherever it is put; nothing reaches the upstream."""
    record = await world.record(world.acme)
    person, account = record["customerId"], record["accountNumber"]
    for target, headers in (
        (f"/customers/x?account={account}", ()),
        (f"/customers/x?customer={person}", ()),
        ("/customers/x", (f"x-customer: {person}",)),
        ("/customers/x", (f"cookie: customer={person}",)),
        (f"/customers/x?Account={account}", ()),
        (f"/customers/x?x=1;account={account}", ()),
    ):
        refused(await world.home.get(target, *headers, key=world.other), 400, "token.refused")
    assert world.upstream.seen == []


async def test_who_may_send_only_tokens_cant_count_through_accounts(world: World):
    """A thousand guesses tell nothing: a real account, a wrong one and a forged token look alike; own tokens work."""
    record = await world.record(world.desk)
    answers = []
    for guess in (ACCOUNT, str(int(ACCOUNT) + 1), "tok_AQAAAA", "", f"{ACCOUNT}&account={record['accountNumber']}"):
        reply = await world.home.get(f"/customers/x?account={guess}", key=world.desk)
        refused(reply, 400, "token.refused")
        answers.append((reply.status, {k: v for k, v in reply.problem().items() if k != "exchange"}))
    assert all(one == answers[0] for one in answers)
    assert world.upstream.seen == []
    assert (await world.home.get(f"/customers/x?account={record['accountNumber']}", key=world.desk)).status == 200
    assert world.asked.target == f"/customers/x?account={ACCOUNT}"


# --- bodies -------------------------------------------------------------------------------------------------------


async def test_tokens_in_a_json_body_reach_the_upstream_as_values(world: World):
    """Of their type, under a length that is right; all else byte for byte where nothing was opened."""
    record = await world.record(world.acme)
    body = json.dumps({"to": {"accountNumber": record["accountNumber"]}, "customerId": record["customerId"]}).encode()
    reply = await world.home.get("/customers/x", JSON, method="POST", body=body, key=world.acme)
    assert reply.status == 200
    assert world.asked.body == f'{{"to":{{"accountNumber":{ACCOUNT}}},"customerId":"{customer_id(1)}"}}'.encode()
    assert world.asked.all("content-length") == [str(len(world.asked.body))]
    assert world.asked.all("transfer-encoding") == []
    assert not shows(reply)
    assert world.home.audit()[-1]["reidentified"] == {"account": 1, "person": 1}
    world.upstream.seen.clear()
    plain = b'{ "accountNumber" : 12.50, "\\u0061": "x" }'
    assert (await world.home.get("/customers/x", JSON, method="PUT", body=plain, key=world.acme)).status == 200
    assert world.asked.body == plain


async def test_a_body_in_chunks_and_a_form_are_read_as_well(world: World):
    """However the body is framed, the upstream gets one of a known length."""
    account = (await world.record(world.acme))["accountNumber"]
    form = f"amount=1&accountNumber={account}".encode()
    head = (
        f"POST /customers/x HTTP/1.1\r\nhost: g\r\nx-api-key: {world.acme}\r\n{FORM}\r\ntransfer-encoding: chunked\r\n"
    )
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (form[:9], form[9:]))
    reply = await world.home.first_answer(head.encode() + b"connection: close\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert reply.status == 200
    assert world.asked.body == f"amount=1&accountNumber={ACCOUNT}".encode()
    assert world.asked.all("content-length") == [str(len(world.asked.body))]
    assert world.asked.all("transfer-encoding") == []


async def test_a_client_that_waits_for_100_gets_it(world: World):
    """`Expect: 100-continue`, as curl sends it with larger bodies, is answered before the body is asked of anybody."""
    account = (await world.record(world.acme))["accountNumber"]
    body = json.dumps({"accountNumber": account}).encode()
    head = f"POST /customers/x HTTP/1.1\r\nhost: g\r\nx-api-key: {world.acme}\r\n{JSON}\r\nexpect: 100-continue\r\n"
    raw = await world.home.raw(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
    assert raw.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert world.asked.body == f'{{"accountNumber":{ACCOUNT}}}'.encode()


async def test_requests_without_a_body_go_on(world: World):
    """A GET needs no content type, nor does a POST of nothing; who may not re-identify sends what he likes."""
    for method in ("GET", "POST", "DELETE"):
        assert (await world.home.get("/customers/x", method=method, key=world.acme)).status == 200
    assert (
        await world.home.get("/customers/x", JSON, "content-length: 0", method="POST", key=world.acme)
    ).status == 200
    world.upstream.seen.clear()
    anything = await world.home.get("/customers/x", "content-type: x/y", method="POST", body=b"\xff\0", key=world.clerk)
    assert anything.status == 200
    assert world.asked.body == b"\xff\0"


async def test_bodies_that_cant_be_read_do_not_reach_the_upstream(world: World):
    """Refused, with an error that says nothing of the body; stolen tokens among them."""
    record = await world.record(world.acme)
    stolen = json.dumps({"accountNumber": record["accountNumber"]}).encode()
    refused(
        await world.home.get("/customers/x", JSON, method="POST", body=stolen, key=world.other), 400, "token.refused"
    )
    for body, header, status, code in (
        (b'{"accountNumber":1,"accountNumber":2}', JSON, 400, "request.malformed"),
        (b'{"accountNumber":"' + ACCOUNT.encode(), JSON, 400, "request.malformed"),
        (b"x", "content-type: text/plain", 415, "request.unreadable"),
        (b"x", f"{JSON}\r\ncontent-encoding: gzip", 415, "request.unreadable"),
        (b'"' + b"x" * 20_000 + b'"', JSON, 413, "request.too_large"),
    ):
        refused(await world.home.get("/customers/x", header, method="POST", body=body, key=world.acme), status, code)
    assert world.upstream.seen == []


async def test_a_body_that_is_too_large_even_for_the_proxy_is_refused(world: World):
    """In chunks, so that no head announces it: what Envoy can't hold ends as an error of ours, not as an open door."""
    head = (
        f"POST /customers/x HTTP/1.1\r\nhost: g\r\nx-api-key: {world.acme}\r\n{JSON}\r\ntransfer-encoding: chunked\r\n"
    )
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    reply = await world.home.first_answer(head.encode() + b"connection: close\r\n\r\n" + chunk * 8)
    refused(reply, 413, "request.too_large")
    assert world.upstream.seen == []


async def test_who_may_send_only_tokens_cant_guess_in_bodies_either(world: World):
    """A plain account, a query in its place, and a form are refused like a forged token."""
    for body, header in (
        (f'{{"accountNumber":{ACCOUNT}}}', JSON),
        ('{"accountNumber":{"$gt":0}}', JSON),
        (f"accountNumber={ACCOUNT}", FORM),
    ):
        reply = await world.home.get("/customers/x", header, method="POST", body=body.encode(), key=world.desk)
        refused(reply, 400, "token.refused")
    assert world.upstream.seen == []


async def test_http2_is_read_alike(world: World):
    """Cookies in crumbs, a header, and a body with no length told: the upstream gets values, and one length."""
    record = await world.record(world.acme)
    person, account = record["customerId"], record["accountNumber"]
    process = await asyncio.create_subprocess_exec(
        *(
            "curl",
            "-sS",
            "--http2-prior-knowledge",
            "-X",
            "POST",
            "-T",
            "-",
            "-w",
            "%{http_version}",
            "-o",
            "/dev/null",
        ),
        *("-H", f"x-api-key: {world.acme}", "-H", JSON, "-H", f"X-Customer: {person}"),
        *("-H", f"cookie: s=1; customer={person}; t=2", f"http://127.0.0.1:{world.home.port}/customers/x"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(json.dumps({"accountNumber": account}).encode())
    assert out == b"2"
    assert world.asked.all("x-customer") == [customer_id(1)]
    assert world.asked.all("cookie") == [f"s=1; customer={customer_id(1)}; t=2"]
    assert world.asked.body == f'{{"accountNumber":{ACCOUNT}}}'.encode()
    assert world.asked.all("content-length") == [str(len(world.asked.body))]
