"""Random tokens through a gate: made once, kept before they leave, opened for their own client alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest
from support.gate_world import Answer, Seen, World, refused

from gharial.crypto.token import Binding
from gharial.crypto.vault import EntryMaker
from gharial.gate.outcome import BodyMode
from gharial.gate.vault import BATCH, ExchangeTokens, TokenBook
from gharial.model.errors import VaultUnavailable

POLICY = """
policy: crm
version: 1
tags:
  person:  { find: ['$..customerId', 'path:id', 'query:id'], subject: customer }
  account: { find: ['$..accountNumber', 'query:account'] }
  name:    { find: '$..fullName' }
  public:  { find: '$..plan' }
who:
  anyone: {}
  partner: { client: 'acme-*' }
  care: { role: care }
grants:
  - { grant: basics, to: anyone, show: { public: clear } }
  - { grant: care, to: care, show: { person: token } , reidentify: [person] }
  - grant: partner
    to: partner
    show: { account: token(from=vault), person: 'token(from=vault, scope=client)', name: token }
    reidentify: [account, person]
"""
ROUTES = (
    ("list", "GET,POST /customers", "crm"),
    ("one", "GET /customers/{id}", "crm"),
    ("other", "GET /plans", "crm"),
)


def a_world(policy: str = POLICY, **more: Any) -> World:
    return World(policy, ROUTES, **more)


async def show(world: World, value: object, *, field: str = "customerId", as_: str = "acme-billing") -> str:
    """What a client is shown for a value."""
    token = (await world.call("/customers", {field: value}, as_=as_)).json[field]
    assert isinstance(token, str)
    return token


def target(seen: Seen) -> str | None:
    assert seen.request is not None, seen.code
    return seen.request.target


async def test_one_value_has_one_random_token():
    """Equal values have one token, in one body and in many; nothing of the value is in it, not even the length."""
    world = a_world()
    seen = (
        await world.call("/customers", [{"customerId": v} for v in ("a", "b" * 500, "a", 7, "7")], as_="acme-billing")
    ).json
    tokens = [record["customerId"] for record in seen]
    assert {len(token) for token in tokens} == {27}
    assert tokens[0] == tokens[2] == await show(world, "a")
    assert len(set(tokens)) == 4
    assert await show(a_world(), "a") != tokens[0]
    assert len(world.vault.rows) == 4


async def test_it_is_another_one_for_another_client_and_tag():
    """Two clients, or two tags, can't compare their tokens."""
    policy = POLICY.replace("{ person: token } ", "{ person: token(from=vault) }")
    world = a_world(policy)
    mine, theirs = await show(world, "a"), await show(world, "a", as_="clerk-1")
    assert len({mine, theirs, await show(world, "a", field="accountNumber")}) == 3
    assert theirs.startswith("tok_")


async def test_a_token_comes_back_to_its_own_client_with_type_and_place():
    """Path, query and body: the API gets the value as it was."""
    world = a_world()
    token = await show(world, 1.10)
    assert target(await world.call(f"/customers/{token}", as_="acme-billing")) == "/customers/1.1"
    seen = await world.call(
        f"/customers?x=1&id={token}&account={await show(world, 'Ä b', field='accountNumber')}", as_="acme-billing"
    )
    assert target(seen) == "/customers?x=1&id=1.1&account=%C3%84%20b"
    body = json.dumps({"customerId": token, "more": [{"customerId": await show(world, "x")}]}).encode()
    headers = (("content-type", "application/json"),)
    seen = await world.call("/customers", method="POST", headers=headers, body=body, as_="acme-billing")
    assert seen.sent is not None, seen.code
    assert json.loads(seen.sent) == {"customerId": 1.1, "more": [{"customerId": "x"}]}
    assert world.audit.lines[-1]["reidentified"] == {"person": 2}


async def test_a_computed_and_a_random_token_in_one_request_are_counted_once_each():
    """What is read a second time, because the vault had to be asked, does not count a second time."""
    world = a_world(POLICY.replace("account: token(from=vault)", "account: token"))
    account, person = await show(world, "A", field="accountNumber"), await show(world, "p")
    seen = await world.call(f"/customers?account={account}&id={person}", as_="acme-billing")
    assert target(seen) == "/customers?account=A&id=p"
    assert world.audit.lines[-1]["reidentified"] == {"account": 1, "person": 1}


async def test_what_is_not_ones_own_is_refused_alike():
    """Another client's token, one of another tag, one that nobody got, one that is spelled otherwise: one error."""
    policy = POLICY.replace("{ person: token } ", "{ person: token(from=vault) }")
    world = a_world(policy)
    own = await show(world, "a")
    bad = [
        await show(world, "a", as_="clerk-1"), await show(world, "a", field="accountNumber"),
        "tok_AgAAAAAAAAAAAAAAAAAAAAA", own[:-1], own + "A", own + "=", own.lower(), f"'{own}'",
    ]  # fmt: skip
    refusals = [(await world.call(f"/customers?id={token}", as_="acme-billing")).refusal for token in bad]
    assert {(r.error.code, r.error.status, str(r.error)) for r in refusals if r} == {
        ("token.refused", 400, str(refusals[0].error))
    }
    assert None not in refusals


async def test_without_the_vault_what_needs_it_is_refused_and_all_else_goes_on():
    """503 for an answer with a new value and for a token that comes back; nothing of the body leaves."""
    world = a_world()
    token = await show(world, "known")
    world.vault.broken = True
    seen = await world.call("/customers", {"customerId": "new"}, as_="acme-billing")
    assert (refused(seen), seen.refusal.error.status, seen.body) == ("vault.unavailable", 503, None)
    assert refused(await world.call(f"/customers/{token}", as_="acme-billing")) == "vault.unavailable"
    assert (await world.call("/plans", {"plan": "gold"}, as_="acme-billing")).json == {"plan": "gold"}
    assert (await world.call("/customers", {"customerId": "new"}, as_="clerk-1")).json["customerId"].startswith("tok_")
    # What was handed out before is in memory, and was durable then.
    assert await show(world, "known") == token
    world.vault.broken = False
    assert (await show(world, "new")).startswith("tok_")


async def test_a_token_outlives_the_gate():
    """After a crash equal values have the tokens of before, and these come back."""
    world = a_world()
    token = await show(world, "a")
    again = world.restarted()
    assert target(await again.call(f"/customers/{token}", as_="acme-billing")) == "/customers/a"
    assert await show(again, "a") == token


async def test_the_vault_is_asked_once_for_all_of_a_body_and_then_not_again():
    """A body is one question; a body of known values none; a large one is asked in batches."""
    world = a_world()
    records = [{"customerId": f"c{n}", "accountNumber": n % 2} for n in range(100)]
    await world.call("/customers", records, as_="acme-billing")
    await world.call("/customers", records[:50], as_="acme-billing")
    assert world.vault.kept == [102]
    await world.call("/customers", [{"customerId": n} for n in range(BATCH + 5)], as_="acme-billing")
    assert world.vault.kept == [102, BATCH, 5]


@pytest.mark.parametrize("path", ["$..customerId", "$..[?(@.kind)].customerId"], ids=["fast", "reference"])
@pytest.mark.parametrize(
    ("content_type", "between"), [("application/json", b", "), ("application/x-ndjson", b"\n")], ids=["JSON", "rows"]
)
async def test_a_second_run_over_a_body_says_what_one_run_would(path: str, content_type: str, between: bytes):
    """Every reader can be finished twice: new and known values, masked and dropped fields come out once, in order."""
    world = a_world(POLICY.replace("'$..customerId'", f"'{path}'").replace("name: token", "name: mask(first=1)"))
    records = [
        {"kind": 1, "customerId": f"c{n % 7}", "fullName": f"Ann Example {n}", "secret": n, "plan": [{"customerId": n}]}
        for n in range(20)
    ]
    body = between.join(json.dumps(record).encode() for record in records)
    answer = Answer(b"[" + body + b"]" if between == b", " else body, headers=(("content-type", content_type),))
    first = await world.call("/customers", answer, as_="acme-billing")
    assert world.vault.kept
    asked = len(world.vault.kept)
    again = await world.call("/customers", answer, as_="acme-billing")
    assert len(world.vault.kept) == asked
    assert first.body is not None, first.code
    assert first.body == again.body
    assert first.body.body is not None
    assert first.body.body.count(b'"tok_') >= 20
    assert b'"c1"' not in first.body.body
    assert b"secret" not in first.body.body
    assert [line["techniques"] for line in world.audit.lines[-2:]] == [world.audit.lines[-1]["techniques"]] * 2


async def test_redirects_show_the_token():
    """A `Location` has the token that the body would have, usable in the next call."""
    world = a_world()
    answer = Answer(b"", 303, (("location", "/customers/42"),), has_body=False)
    location = (await world.call("/customers/42", answer, as_="acme-billing")).set["location"]
    assert location == f"/customers/{await show(world, '42')}"
    world.vault.broken = True
    other = Answer(b"", 303, (("location", "/customers/43"),), has_body=False)
    assert refused(await world.call("/customers/43", other, as_="acme-billing")) == "vault.unavailable"


async def test_shadow_keeps_nothing_and_needs_no_vault():
    """An answer that goes out as it came makes no rows, and is counted as one that would change."""
    world = a_world(POLICY.replace("version: 1", "version: 1\nmode: shadow"))
    world.vault.broken = True
    seen = await world.call("/customers", {"customerId": "a"}, as_="acme-billing", mode=BodyMode.BUFFERED)
    assert seen.body is not None
    assert (world.vault.rows, dict(world.services.counters.shadow_would_change)) == ({}, {"list": 1})


async def test_a_row_that_somebody_altered_is_refused():
    """Whoever can write to the vault can't make a client's token stand for somebody else, in either direction."""
    world = a_world()
    one, two = await show(world, "ann"), await show(world, "bob")
    ann, bob = world.vault.rows.values()
    swapped = {ann.lookup: replace(ann, token=bob.token, sealed=bob.sealed), bob.lookup: replace(bob, token=ann.token)}
    world.vault.rows = swapped
    again = world.restarted()
    for name in ("ann", "bob"):
        seen = await again.call("/customers", {"customerId": name}, as_="acme-billing")
        assert (refused(seen), seen.body) == ("vault.unavailable", None)
    assert refused(await again.call(f"/customers/{one}", as_="acme-billing")) == "token.refused"
    assert target(await again.call(f"/customers/{two}", as_="acme-billing")) == "/customers/bob"


async def test_only_so_many_tokens_are_kept_in_memory():
    """The oldest notes go; what went is asked for again, and is the same."""
    world = a_world()
    book = TokenBook(world.vault, os.urandom, max_known=3)
    maker = EntryMaker(world.services.keyset, Binding("default", "person", "client", "x"))

    async def token(plain: bytes) -> bytes:
        tokens = ExchangeTokens(book)

        async def work() -> bytes:
            return tokens.token_of(maker, plain)

        return await tokens.run(work)

    made = [await token(bytes([n])) for n in range(5)]
    assert [book.find_known(maker.lookup(bytes([n]))) for n in range(5)] == [None, None, *made[2:]]
    assert [await token(bytes([n])) for n in range(5)] == made


async def test_work_that_never_has_enough_ends():
    """Something that asks for another value in each run is refused; it does not run for ever."""
    world = a_world()
    tokens = ExchangeTokens(world.services.vault)
    maker = EntryMaker(world.services.keyset, Binding("default", "person", "client", "x"))

    async def work() -> bytes:
        return tokens.token_of(maker, os.urandom(8))

    with pytest.raises(VaultUnavailable):
        await tokens.run(work)
