"""Random tokens of a whole gateway: none that was handed out is lost, and no vault means no answer."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest
from support.envoy_harness import Answer
from support.gateway import Api, Home, a_gateway, customer_id, shows, until
from support.postgres import a_postgres, needs_postgres, url_of
from support.upstreams import an_upstream

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("gateway-vault")]

POLICY = """\
policy: customer-data
version: 1
mode: enforce
tags:
  person: { find: ['$..customerId', 'path:id'], subject: customer }
  public: { find: '$..plan' }
who:
  anyone: {}
  partner: { client: 'acme-*' }
grants:
  - { grant: basics, to: anyone, show: { public: clear } }
  - { grant: partner, to: partner, show: { person: token(from=vault) }, reidentify: [person] }
"""
ONE = f"/customers/{customer_id(1)}"


def token_of(answer: Answer) -> str:
    """The token in the place of the customer's id."""
    assert answer.status == 200, answer.body
    token = json.loads(answer.body)["customerId"]
    assert token.startswith("tok_")
    assert len(token) == 27
    return str(token)


async def works(home: Home, key: str) -> bool:
    answer = await home.ask_whatever_comes(ONE, key=key)
    return answer is not None and answer.status == 200


async def test_kill_9_loses_no_token_that_was_handed_out():
    """In the middle of sixty first looks at people the gate is killed: what arrived comes back, and stays the same."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}, policy=POLICY) as home:
        key = await home.add_client("acme-1")
        tokens = {0: token_of(await home.get(f"/customers/{customer_id(0)}", key=key))}

        async def look(number: int) -> None:
            answer = await home.ask_whatever_comes(f"/customers/{customer_id(number)}", key=key)
            assert answer is None or not shows(answer)
            if answer is not None and answer.status == 200:
                tokens[number] = token_of(answer)

        before = home.pid("gate")
        callers = [asyncio.create_task(look(number)) for number in range(1, 60)]
        await until(lambda: len(tokens) > 10)
        os.kill(before, signal.SIGKILL)
        await asyncio.gather(*callers)
        await home.restarted("gate", before)
        assert await until(lambda: works(home, key))
        assert len(tokens) > 10
        for number, token in tokens.items():
            upstream.seen.clear()
            assert token_of(await home.get(f"/customers/{token}", key=key)) == token
            assert [seen.target for seen in upstream.seen] == [f"/customers/{customer_id(number)}"]
        other = await home.add_client("acme-2")
        answer = await home.get(f"/customers/{tokens[0]}", key=other)
        assert (answer.status, answer.code) == (400, "token.refused")
        assert token_of(await home.get(f"/customers/{customer_id(0)}", key=other)) != tokens[0]
        assert (await home.status())["vault"] == {"place": "store", "failures": 0, "problem": ""}


@needs_postgres
async def test_a_vault_at_a_server_outlives_the_gate_and_without_it_calls_that_need_it_are_refused():
    """A new gate finds the tokens of the one before; a database without the table is 503, and all else goes on."""
    async with an_upstream(Api()) as upstream:
        with a_postgres("") as server:
            settings = {"policy": POLICY, "vault": {"postgres": {"url": url_of(server), "timeout": "5s"}}}
            async with a_gateway({"api": {"url": upstream.url}}, **settings) as home:
                key = await home.add_client("acme-1")
                token = token_of(await home.get(ONE, key=key))
                assert "vault: the database answers" in (await home.cli("doctor")).out
                before = home.pid("gate")
                os.kill(before, signal.SIGKILL)
                await home.restarted("gate", before)
                assert await until(lambda: works(home, key))
                assert token_of(await home.get(f"/customers/{token}", key=key)) == token
                server.psql("ALTER TABLE gharial_vault_token RENAME TO gone;")
                new = f"/customers/{customer_id(2)}"
                for target in (f"/customers/{token}", new):
                    answer = await home.get(target, key=key)
                    assert (answer.status, answer.code, shows(answer)) == (503, "vault.unavailable", False)
                assert (await home.get(new)).status == 200
                told = (await home.status())["vault"]
                assert told == {
                    "place": "postgres", "failures": 2, "problem": "the database can't be used (UndefinedTableError)"
                }  # fmt: skip
                server.psql("ALTER TABLE gone RENAME TO gharial_vault_token;")
                assert token_of(await home.get(f"/customers/{token}", key=key)) == token
                assert token_of(await home.get(new, key=key)) != token
                assert (await home.status())["vault"]["problem"] == ""
