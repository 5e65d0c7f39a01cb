"""Values protected on their way to the API, through a whole gateway: the upstream gets tokens, and works with them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, urlsplit

import pytest
import pytest_asyncio
from support.envoy_harness import Answer
from support.gateway import ACCOUNTS_FROM, MARK, Api, Home, a_gateway, customer, customer_id, shows, until
from support.upstreams import SeenRequest, Upstream, an_upstream, answer, json_answer

from gharial.adapters.admin import AdminClient

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.xdist_group("gateway-sending"),
    pytest.mark.asyncio(loop_scope="module"),
]

POLICY = """\
policy: to-saas
version: 1
tags:
  person: { find: ['$..customerId', 'query:customer', 'header:X-Customer', 'cookie:customer'], in: [request] }
  name:   { find: '$..fullName', in: [request] }
  email:  { find: '$..email', in: [request, response] }
  birth:  { find: '$..dob', type: date, in: [request] }
  account: { find: '$..accountNumber', in: [request] }
  note:   { find: '$..note', in: [request] }
  shown:  { find: ['$..customerId', '$..plan'] }
who:
  anyone: {}
  app: { client: 'acme-*' }
grants:
  - grant: saas
    to: app
    show: { person: token(scope=all), name: token(from=vault), email: token, birth: year, account: fpe, note: drop,
            shown: clear }
"""
ROUTES = [
    {
        "route": "tickets",
        "match": "ANY /tickets/**",
        "upstream": "saas",
        "policy": "to-saas",
        "keep_headers": ["Set-Cookie"],
    }
]
JSON = "content-type: application/json"
FORM = "content-type: application/x-www-form-urlencoded"


class World:
    """One gateway for this module, the service behind it, and a client's key."""

    def __init__(self, home: Home, upstream: Upstream, api: Api, key: str) -> None:
        self.home, self.upstream, self.api, self.key = home, upstream, api, key

    async def post(self, body: bytes, *headers: str, target: str = "/tickets/1") -> Answer:
        """Send a body; the upstream's memory holds this request alone afterwards."""
        self.upstream.seen.clear()
        return await self.home.get(target, *headers, key=self.key, method="POST", body=body)

    @property
    def asked(self) -> SeenRequest:
        """The one request that reached the upstream; nothing planted is in it."""
        (seen,) = self.upstream.seen
        assert not shows((seen.text() + "\n").encode("latin-1") + seen.body)
        return seen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    api = Api()
    api.answers["/tickets/1"] = json_answer("{}")
    async with (
        an_upstream(api) as upstream,
        a_gateway({"saas": {"url": upstream.url}}, policy=POLICY, routes=ROUTES, limits={"body": 20_000}) as home,
    ):
        yield World(home, upstream, api, await home.add_client("acme-app"))
        home.look_for_leaks()


async def test_a_service_gets_only_tokens(world: World):
    """A whole record in JSON: nothing planted reaches the upstream, with a length that fits, and its answer comes."""
    body = json.dumps({"amount": 1.5, **customer(1)}).encode()
    reply = await world.post(body, JSON, "content-digest: sha-256=:x:")
    assert reply.status == 200
    got = json.loads(world.asked.body)
    assert world.asked.all("content-length") == [str(len(world.asked.body))]
    assert world.asked.all("content-digest") == []
    assert got["customerId"].startswith("tok_")
    assert got["fullName"].startswith("tok_")
    assert (got["amount"], got["dob"], got["plan"]) == (1.5, "1979-01-01", "magenta")
    assert "note" not in got


async def test_the_same_person_is_the_same_token_wherever_it_stands(world: World):
    """In JSON, a form, the query, a header and a cookie, so that the service can join what belongs together."""
    await world.post(json.dumps({"customerId": customer_id(1)}).encode(), JSON)
    token = json.loads(world.asked.body)["customerId"]
    await world.post(f"x=%41&customerId={customer_id(1)}".encode(), FORM)
    assert world.asked.body == f"x=%41&customerId={token}".encode()
    await world.post(
        *(b"", f"x-customer: {customer_id(1)}", f"cookie: s=1; customer={customer_id(1)}"),
        target=f"/tickets/1?q=1&customer={customer_id(1)}",
    )
    assert parse_qsl(urlsplit(world.asked.target).query) == [("q", "1"), ("customer", token)]
    assert world.asked.all("x-customer") == [token]
    assert world.asked.all("cookie") == [f"s=1; customer={token}"]


@pytest.mark.parametrize(
    ("body", "header", "status"),
    [
        (f"<a><fullName>{MARK}</fullName></a>", "content-type: text/xml", 415),
        (f"--b\r\n\r\n{MARK}\r\n--b--", "content-type: multipart/form-data; boundary=b", 415),
        (f'{{"fullName":"{MARK}"', JSON, 400),
        (f"fullName[]={MARK}", FORM, 400),
        (f'{{"fullName":"{MARK}","x":"{"y" * 30_000}"}}', JSON, 413),
    ],
)
async def test_what_cant_be_read_never_reaches_the_upstream(world: World, body: str, header: str, status: int):
    """It is refused whole, of whoever it is, before the upstream is asked."""
    reply = await world.post(body.encode(), header)
    assert reply.status == status
    assert not shows(reply)
    assert world.upstream.seen == []


async def test_several_cookies_of_an_answer_arrive(world: World):
    """A route that keeps `Set-Cookie` keeps each line of it."""
    world.api.answers["/tickets/2"] = answer(
        "200 OK", b"{}", "content-type: application/json", "set-cookie: a=1; Path=/", "set-cookie: b=2"
    )
    reply = await world.post(b"", target="/tickets/2")
    assert reply.all("set-cookie") == ["a=1; Path=/", "b=2"]


async def test_accounts_keep_their_form(world: World):
    """What fpe makes of a number is one for the service, and not the caller's."""
    await world.post(json.dumps({"accountNumber": str(ACCOUNTS_FROM + 1)}).encode(), JSON)
    got = json.loads(world.asked.body)["accountNumber"]
    assert got.isdigit()
    assert len(got) == len(str(ACCOUNTS_FROM + 1))


async def test_protecting_requests_begins_when_it_is_published():
    """Under load no call fails; what is sent after the publication is done reaches the upstream as tokens only."""
    before = POLICY.replace("in: [request, response]", "in: response")
    for line in POLICY.splitlines():
        if "in: [request] }" in line:
            before = before.replace(line + "\n", "")
    before = before.replace(POLICY[POLICY.index("    show: {") :], "    show: { email: token, shown: clear }\n")
    body = json.dumps({"fullName": customer(1)["fullName"], "email": customer(1)["email"]}).encode()
    api = Api()
    api.answers["/tickets/1"] = json_answer("{}")
    async with (
        an_upstream(api) as upstream,
        a_gateway({"saas": {"url": upstream.url}}, policy=before, routes=ROUTES) as home,
    ):
        key = await home.add_client("acme-app")
        (file,) = (home.base / "policies").glob("*.yaml")
        file.write_text(POLICY)
        done = asyncio.Event()
        statuses: list[int] = []

        async def call() -> None:
            while not done.is_set():
                statuses.append((await home.get("/tickets/1", JSON, key=key, method="POST", body=body)).status)

        callers = [asyncio.create_task(call()) for _ in range(4)]
        await until(lambda: len(statuses) > 8)
        assert any(shows(seen.body) for seen in upstream.seen)
        client = AdminClient(home.run / "admin.sock", timeout_s=60.0)
        await asyncio.to_thread(client.call, "POST", "/policies/publish", {})
        upstream.seen.clear()
        told = len(statuses)
        await until(lambda: len(statuses) > told + 16)
        done.set()
        await asyncio.gather(*callers)
        assert set(statuses) == {200}
        # The first four may have begun before the publication was done.
        assert not any(shows(seen.body) for seen in upstream.seen[4:])
        assert all(b"tok_" in seen.body for seen in upstream.seen[4:])
        assert (await home.status())["counters"]["bytes_without_plan"] == 0
