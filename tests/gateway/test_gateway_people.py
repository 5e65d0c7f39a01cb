"""Who may see how many people: budgets that are exact, incidents, alarms, clients and tokens of an issuer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey
from support.envoy_harness import Answer
from support.gateway import Api, Home, a_gateway, customer, customer_id, people_in_clear, shows, until
from support.upstreams import Upstream, an_upstream, answer, json_answer

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.xdist_group("gateway-people"),
    pytest.mark.asyncio(loop_scope="module"),
]

LIMIT = 60
ISSUER = "https://idp.example"


@dataclass
class World:
    """A gateway with API keys and an issuer, before a telecom, with a receiver of alarms."""

    home: Home
    api: Api
    upstream: Upstream
    alarms: Upstream
    keys: dict[str, RSAKey | ECKey | OKPKey]

    def token(self, *, key: str = "RS256", **claims: object) -> str:
        """A token of the issuer; claims replace the usual ones, None leaves one out."""
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": "crm", "sub": "u-7", "client_id": "portal", "iat": now, "exp": now + 60}
        merged = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        made = jwt.encode({"alg": key, "kid": key}, merged, self.keys[key], algorithms=[key])
        self.home.secrets.add(made.rpartition(".")[2])
        return f"authorization: Bearer {made}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    api = Api()
    keys: dict[str, RSAKey | ECKey | OKPKey] = {
        "RS256": RSAKey.generate_key(2048, {"kid": "RS256", "alg": "RS256", "use": "sig"}),
        "ES256": ECKey.generate_key("P-256", {"kid": "ES256", "alg": "ES256", "use": "sig"}),
        "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "EdDSA", "alg": "EdDSA", "use": "sig"}),
    }
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(an_upstream(api))
        alarms = await stack.enter_async_context(an_upstream(answer("200 OK", b"ok")))
        jwks = json.dumps(KeySet(list(keys.values())).as_dict(private=False))
        home = await stack.enter_async_context(
            a_gateway(
                {"api": {"url": upstream.url}},
                identity=[
                    {"api_keys": {}},
                    {"jwt": {"issuer": ISSUER, "audience": "crm", "jwks": "file:jwks.json"}},
                ],
                alarms=[f"json://127.0.0.1:{alarms.port}/alarms", "file://run/alarms.jsonl"],
                files={"jwks.json": jwks},
            )
        )
        yield World(home, api, upstream, alarms, keys)
        home.look_for_leaks()


async def ask(home: Home, number: int, key: str) -> Answer | None:
    return await home.ask_whatever_comes(f"/customers/{customer_id(number)}", key=key)


def page(first: int, count: int) -> str:
    return json.dumps([customer(number) for number in range(first, first + count)])


async def test_64_at_a_time_see_60_people_and_not_one_more(world: World):
    """Singles and pages, all at once, of overlapping people: exactly the budget is shown, everybody gets an answer."""
    key = await world.home.add_client("clerk-1", roles=["care"], purpose="support")
    for first in range(0, 200, 10):
        world.api.answers[f"/any/page/{first}"] = json_answer(page(first, 15))
    singles = [ask(world.home, number, key) for number in range(140)]
    pages = [world.home.get(f"/any/page/{first}", key=key) for first in range(0, 200, 10)]
    gate = asyncio.Semaphore(64)

    async def limited(call: Awaitable[Answer | None]) -> Answer:
        async with gate:
            reply = await call
        assert reply is not None
        return reply

    replies = await asyncio.gather(*map(limited, [*singles[:70], *pages, *singles[70:]]))
    assert {reply.status for reply in replies} == {200}
    assert len(people_in_clear(*(reply.body for reply in replies))) == LIMIT
    # Who was shown stays shown, who was not stays hidden.
    seen = people_in_clear(*(reply.body for reply in replies))
    again = await asyncio.gather(*(limited(ask(world.home, number, key)) for number in range(140)))
    assert people_in_clear(*(reply.body for reply in again)) <= seen


async def test_one_page_of_100_shows_60(world: World):
    """A page that goes over the budget is cut at the person, in the order of the document; the rest is masked."""
    key = await world.home.add_client("clerk-2", roles=["care"], purpose="support")
    world.api.answers["/any/hundred"] = json_answer(page(0, 100))
    reply = await world.home.get("/any/hundred", key=key)
    assert people_in_clear(reply.body) == set(range(60))
    records = json.loads(reply.body)
    assert all(set(record["fullName"]) == {"*"} for record in records[60:])
    assert all(record["plan"] == "magenta" for record in records)


async def test_a_crossed_budget_is_one_incident_and_one_alarm_that_name_no_person(world: World):
    """However often it is crossed: one incident with the figures, one webhook, one line in the alarm file."""
    home = world.home
    key = await home.add_client("stolen", roles=["care"], purpose="support")
    before = len(world.alarms.seen)
    replies = await asyncio.gather(*(ask(home, number, key) for number in range(90)))
    assert len(people_in_clear(*(reply.body for reply in replies if reply))) == LIMIT

    async def settled() -> list[dict[str, object]]:
        found = (await home.cli("incidents", "list", "--json")).json()
        return [item for item in found if item["client"] == "stolen" and item["people_withheld"] == 30]

    (incident,) = await until(settled)
    assert (incident["people_clear"], incident["limit_people"], incident["grant"]) == (60, 60, "support-view")
    await until(lambda: any(b"stolen" in seen.body for seen in world.alarms.seen))
    received = [seen for seen in world.alarms.seen[before:] if b"stolen" in seen.body]
    lines = [line for line in (home.run / "alarms.jsonl").read_text().splitlines() if "stolen" in line]
    assert (len(received), len(lines)) == (1, 1)
    assert incident["incident_id"] in lines[0]
    assert str(incident["incident_id"]).encode() in received[0].body
    assert not shows(received[0].body + received[0].text().encode())
    shown = await home.cli("incidents", "show", str(incident["incident_id"]))
    assert shown.status == 0
    assert "60 people in 1 hour" in shown.out
    unknown = await home.cli("incidents", "show", "inc_nothing")
    assert unknown.status == 1
    assert "incidents list" in unknown.err


async def test_a_client_is_valid_at_once_and_revoked_at_once(world: World):
    """`clients add` beside a running gateway: the key works in the next call; after `revoke` it never does."""
    home = world.home
    made = await home.cli("clients", "add", "newcomer", "--role", "auditor", "--json", secret_in_output=True)
    key = made.json()["key"]
    home.secrets |= {key, made.json()["secret"]}
    assert people_in_clear((await home.get(f"/customers/{customer_id(1)}", key=key)).body) == {1}
    listed = await home.cli("clients", "list", "--json")
    assert "newcomer" in listed.out
    again = await home.cli("clients", "add", "newcomer")
    assert (again.status, "already" in again.err) == (1, True)
    assert (await home.cli("clients", "revoke", "newcomer")).status == 0
    reply = await home.get(f"/customers/{customer_id(1)}", key=key)
    assert (reply.status, reply.code) == (401, "identity.unknown_credential")
    assert not shows(reply)
    assert (await home.cli("clients", "revoke", "nobody")).status == 1


@pytest.mark.parametrize("key", ["RS256", "ES256", "EdDSA"])
async def test_a_token_of_the_issuer_says_who_asks_and_goes_on_to_the_upstream(world: World, key: str):
    """Role and purpose come from its claims, also its user; the token reaches the upstream as it came."""
    header = world.token(key=key, roles=["care"], purpose="support", sub=f"u-{key}")
    world.upstream.seen.clear()
    reply = await world.home.get(f"/customers/{customer_id(3)}", header)
    assert reply.status == 200
    assert people_in_clear(reply.body) == {3}
    assert world.upstream.seen[0].all("authorization") == [header.partition(": ")[2]]
    line = world.home.audit()[-1]
    assert (line["client"], line["user"]) == ("portal", f"u-{key}")


async def test_a_token_that_is_not_quite_right_is_refused(world: World):
    """Expired, for another audience, of another issuer or key, unsigned, key types confused: 401, nothing asked."""
    care = {"roles": ["care"], "purpose": "support"}
    now = int(time.time())
    stranger = RSAKey.generate_key(2048, {"kid": "RS256"})
    claims = {"iss": ISSUER, "aud": "crm", "sub": "u", "client_id": "portal", "exp": now + 60, **care}
    forged = jwt.encode({"alg": "RS256", "kid": "RS256"}, claims, stranger, algorithms=["RS256"])
    good = world.token(**care)
    head, body, signature = good.rpartition(" ")[2].split(".")
    unsigned = "eyJhbGciOiJub25lIn0"
    bad = [
        world.token(**care, exp=now - 3600),
        world.token(**care, exp=None),
        world.token(**care, nbf=now + 3600),
        world.token(**care, aud="other"),
        world.token(**care, iss="https://elsewhere.example"),
        world.token(**care, client_id="anonymous"),
        world.token(**care, client_id="known-here"),
        f"authorization: Bearer {forged}",
        f"authorization: Bearer {unsigned}.{body}.",
        f"authorization: Bearer {unsigned}.{body}.{signature}",
        f"authorization: Bearer {head}.{body}.{signature[:-4]}AAAA",
        "authorization: Bearer ",
        "authorization: bearer\tx",
    ]
    await world.home.add_client("known-here", roles=["care"])
    world.upstream.seen.clear()
    for header in bad:
        reply = await world.home.get(f"/customers/{customer_id(3)}", header)
        assert reply.status == 401, header[:40]
        assert not shows(reply)
    both = await world.home.get(
        f"/customers/{customer_id(3)}", good, key=await world.home.add_client("two", roles=["care"])
    )
    assert (both.status, both.code) == (400, "identity.ambiguous")
    assert world.upstream.seen == []


async def test_every_user_of_a_client_has_a_budget_and_a_new_token_is_no_new_one(world: World):
    """60 people per user of one client, whichever and however many tokens the user brings."""
    for user in ("u-a", "u-b"):
        headers = [world.token(roles=["care"], purpose="support", sub=user, jti=f"{user}{n}") for n in range(3)]
        replies = [await world.home.get(f"/customers/{customer_id(n)}", headers[n % 3]) for n in range(75)]
        assert people_in_clear(*(reply.body for reply in replies)) == set(range(60))


@pytest.mark.skipif(sys.platform != "linux", reason="looks for a process by its number")
async def test_after_kill_9_of_the_gate_not_one_person_more_is_shown(world: World):
    """The gate is killed in the middle of 64 calls at a time: over the whole time at most 60 people were shown."""
    home = world.home
    key = await home.add_client("clerk-3", roles=["care"], purpose="support")
    gate = asyncio.Semaphore(64)
    replies: list[Answer] = []

    async def one(number: int) -> None:
        async with gate:
            reply = await ask(home, number, key)
            if reply is not None:
                replies.append(reply)

    before = home.pid("gate")
    calls = [asyncio.create_task(one(number)) for number in range(400)]
    await until(lambda: len(replies) > 20)
    os.kill(before, signal.SIGKILL)
    await asyncio.gather(*calls)
    await home.restarted("gate", before)
    await until(lambda: _again(home, key))
    await asyncio.gather(*(one(number) for number in range(400)))
    assert {reply.status for reply in replies} <= {200, 503}
    people = people_in_clear(*(reply.body for reply in replies))
    # Who was charged and whose answer was lost with the gate counts all the same: at most 64 calls were under way.
    assert 0 < len(people) <= LIMIT
    last = await asyncio.gather(*(ask(home, number, key) for number in range(500, 560)))
    assert people_in_clear(*(reply.body for reply in last if reply)) == set()


async def _again(home: Home, key: str) -> bool:
    reply = await ask(home, 0, key)
    return reply is not None and reply.status == 200


async def test_files_are_for_their_owner_alone(world: World):
    """Everything in the run folder, sockets included, has no bit for group or others."""
    assert _open_to_others(world.home.run) == []


def _open_to_others(folder: Path) -> list[str]:
    return [path.name for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077]
