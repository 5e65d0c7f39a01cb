"""Tokens that come back in requests, through a whole gateway: what the upstream gets, and what a thief does not."""

from __future__ import annotations

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


class World:
    """One gateway for this module, its upstream, and the keys of three partners: `desk` may send only tokens."""

    def __init__(self, home: Home, upstream: Upstream, acme: str, other: str, desk: str) -> None:
        self.home, self.upstream, self.acme, self.other, self.desk = home, upstream, acme, other, desk

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
        yield World(
            home,
            upstream,
            await home.add_client("acme-billing"),
            await home.add_client("acme-other"),
            await home.add_client("acme-desk"),
        )


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
