"""Erasure through a gate: what was made with a person's key dies with it, and who asks is told so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.gate_world import Answer, Seen, World, refused

from gharial.adapters.memory import MemoryPersonKeys
from gharial.crypto.digest import person_digest
from gharial.crypto.receipt import verify_receipt
from gharial.gate.erasing import Who
from gharial.gate.outcome import BodyMode
from gharial.gate.people import ERASED, MAX_AGE_S, MAX_KNOWN, MAX_USES, Erased
from gharial.gate.reveal import Clear, Item, Revealer
from gharial.model.errors import NotFound, RequestMalformed, VaultUnavailable
from gharial.model.finding import Kind

POLICY = """
policy: crm
version: 1
tags:
  person:  { find: ['$..customerId', 'path:id', 'query:id'], subject: customer }
  account: { find: ['$..accountNumber', 'query:account'] }
  email:   { find: '$..email' }
  public:  { find: '$..plan' }
who:
  anyone: {}
  partner: { client: 'acme-*' }
grants:
  - { grant: basics, to: anyone, show: { public: clear, person: clear, account: token(per=subject) } }
  - grant: partner
    to: partner
    show: { email: encrypt(per=subject) }
    reidentify: [account, person]
    reveal: [account, email]
"""
ROUTES = (
    ("list", "GET,POST /customers", "crm"),
    ("one", "GET /customers/{id}", "crm"),
)
ANN = Who("customer", "ann")
PLANTED = "PLANTED-4711"


class Counting(MemoryPersonKeys):
    """Counts the questions; `broken` refuses all. `then` runs after a question was answered, before that is told."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[int] = []
        self.found: list[int] = []
        self.broken = False
        self.then: Any = None

    async def keep(self, rows: Any) -> Any:
        if self.broken:
            raise VaultUnavailable
        self.kept.append(len(rows))
        found = await super().keep(rows)
        if self.then:
            then, self.then = self.then, None
            await then()
        return found

    async def find(self, handles: Any) -> Any:
        if self.broken:
            raise VaultUnavailable
        self.found.append(len(handles))
        return await super().find(handles)


def a_world(policy: str = POLICY, **more: Any) -> World:
    world = World(policy, ROUTES, **more)
    world.people = Counting()
    return world.restarted()


def keys_of(world: World) -> Counting:
    assert isinstance(world.people, Counting)
    return world.people


def record(person: str | None = "ann", account: object = PLANTED, **more: object) -> dict[str, object]:
    return {**({} if person is None else {"customerId": person}), "accountNumber": account, **more}


async def show(world: World, person: str = "ann", account: object = PLANTED, as_: str = "acme-billing") -> str:
    """What a client is shown for an account of a person."""
    return str((await world.call("/customers", record(person, account), as_=as_)).json["accountNumber"])


async def back(world: World, token: str, as_: str = "acme-billing") -> Seen:
    return await world.call(f"/customers?account={token}", as_=as_)


def target(seen: Seen) -> str:
    assert seen.request is not None, seen.code
    return str(seen.request.target)


async def reveal(world: World, *items: Item) -> list[Clear | Erased | None]:
    revealer = Revealer(world.services, calls_per_minute=6_000)
    begun = revealer.begin("ex-r", (("x-api-key", world.keys["acme-billing"]),), "127.0.0.1")
    return await revealer.reveal(begun, items)


async def test_tokens_join_within_a_person_and_come_back():
    """Equal values of one person have one token for one client; of another person, or for another client, another."""
    world = a_world()
    one = await show(world)
    assert one == await show(world)
    assert one == await show(world.restarted())
    others = [await show(world, "bob"), await show(world, as_="acme-desk"), await show(world, account=4711)]
    assert len({one, *others}) == 4
    assert all(token.startswith("tok_") for token in (one, *others))
    assert target(await back(world, one)) == f"/customers?account={PLANTED}"
    assert target(await back(world, others[2])) == "/customers?account=4711"
    body = json.dumps({"accountNumber": one}).encode()
    headers = (("content-type", "application/json"),)
    seen = await world.call("/customers", method="POST", headers=headers, body=body, as_="acme-billing")
    assert seen.sent is not None, seen.code
    assert json.loads(seen.sent) == {"accountNumber": PLANTED}
    assert refused(await back(world, others[1])) == "token.refused"


async def test_after_erasure_the_token_says_erased_to_its_own_client_alone():
    """410 for whom it was made, also after a crash; for all others it is what it always was: refused."""
    world = a_world()
    token, other = await show(world), await show(world, "bob")
    await world.eraser().erase(ANN)
    for gate in (world, world.restarted()):
        seen = await back(gate, token)
        assert (refused(seen), seen.refusal.error.status) == ("token.erased", 410)
        assert refused(await back(gate, token, "acme-desk")) == "token.refused"
        assert refused(await back(gate, token[:-4] + "AAAA")) == "token.refused"
        assert target(await back(gate, other)) == f"/customers?account={PLANTED}"
    assert PLANTED not in str(world.audit.lines)


async def test_an_erased_person_stays_redacted_until_that_is_forgotten():
    """New data is redacted, without an error; once forgotten there is a new key, and the old token stays dead."""
    world = a_world()
    token = await show(world)
    await world.eraser().erase(ANN)
    body = (await world.call("/customers", [record(), record("bob")], as_="acme-billing")).json
    assert body[0]["accountNumber"] == "[redacted]"
    assert body[1]["accountNumber"].startswith("tok_")
    assert await world.eraser().forget(ANN) == 1
    assert await world.eraser().forget(ANN) == 0
    new = await show(world)
    assert new.startswith("tok_")
    assert new != token
    assert target(await back(world, new)) == f"/customers?account={PLANTED}"
    assert refused(await back(world, token)) == "token.erased"


async def test_somebody_who_was_never_seen_gets_no_key_after_erasure():
    """The tombstone comes first; the receipt says that there was no key."""
    world = a_world()
    receipt = await world.eraser().erase(ANN)
    assert receipt["keys"] == []
    assert await show(world) == "[redacted]"


async def test_the_receipt_is_signed_and_names_nobody():
    """Digest, handle and time; twice the same; not the id."""
    world = a_world()
    await show(world)
    receipt = await world.eraser().erase(Who("customer", " ann "))
    world.clock.at_s += 60
    assert await world.eraser().erase(ANN) == receipt
    keyset = world.services.keyset
    assert verify_receipt(keyset, receipt)
    assert receipt["people"] == [person_digest(keyset, "default", "customer", "ann")]
    assert (len(receipt["keys"]), receipt["erased"]) == (1, str(world.clock.at_s - 60))
    assert "ann" not in json.dumps(receipt)


async def test_a_mistyped_person_is_not_said_to_be_erased():
    """An id space that no policy names, and an empty id, are refused; nothing is kept of them."""
    world = a_world()
    with pytest.raises(NotFound, match="there is customer"):
        await world.eraser().erase(Who("custmer", "ann"))
    with pytest.raises(RequestMalformed):
        await world.eraser().erase(Who("customer", " "))
    assert (await show(world)).startswith("tok_")


async def test_reveal_says_erased():
    """Tokens and envelopes: in clear before, `erased` after, refused to others and under another tag."""
    world = a_world()
    seen = (await world.call("/customers", record(email="ann@ex.org"), as_="acme-billing")).json
    items = Item("account", seen["accountNumber"]), Item("email", seen["email"])
    assert await reveal(world, *items) == [Clear(Kind.STRING, PLANTED), Clear(Kind.STRING, "ann@ex.org")]
    await world.eraser().erase(ANN)
    foreign = Item("account", await show(world, "bob", as_="acme-desk"))
    wrong = Item("email", seen["accountNumber"]), Item("account", seen["email"]), Item("person", seen["accountNumber"])
    assert await reveal(world, *items, foreign, *wrong) == [ERASED, ERASED, None, None, None, None]
    assert world.services.counters.reveal_refused == {"erased": 2, "not_opened": 3, "no_right": 1}
    assert PLANTED not in str(world.audit.lines)


async def test_envelopes_of_one_value_differ():
    """As those of `encrypt`; null stays null."""
    world = a_world()
    records = [record(email=email) for email in ("x", "x", None, True)]
    emails = [one["email"] for one in (await world.call("/customers", records, as_="acme-billing")).json]
    assert emails[0] != emails[1]
    assert [str(email)[:4] for email in emails] == ["enc_", "enc_", "None", "enc_"]


async def test_nobodys_value_is_redacted_and_of_several_people_always_the_same_one_counts():
    """Without a person there is no key to use; the order of two persons in a record makes no difference."""
    world = a_world()
    assert (await world.call("/customers", record(None), as_="acme-billing")).json["accountNumber"] == "[redacted]"
    assert (await world.call("/customers/ann", record(None), as_="acme-billing")).json["accountNumber"] == await show(
        world
    )
    both = [
        {"customerId": a, "x": {"accountNumber": PLANTED}, "customerID": b} for a, b in (("ann", "bob"), ("bob", "ann"))
    ]
    one, two = (await world.call("/customers", both, as_="acme-billing")).json
    assert one["x"]["accountNumber"] == two["x"]["accountNumber"]
    assert one["x"]["accountNumber"].startswith("tok_")


async def test_keys_are_asked_for_once_in_a_body_and_then_kept_for_a_while():
    """One question for all people of a body; after some minutes, or many uses, the store is asked again."""
    world = a_world()
    records = [record(f"p{number % 50}", number) for number in range(200)]
    await world.call("/customers", records, as_="acme-billing")
    await world.call("/customers", records, as_="acme-billing")
    assert keys_of(world).kept == [50]
    world.clock.at_s += MAX_AGE_S + 1
    await world.call("/customers", records, as_="acme-billing")
    assert keys_of(world).kept == [50, 50]
    people = world.services.vault.people
    assert people is not None
    digest = person_digest(world.services.keyset, "default", "customer", "p1")
    uses = 0
    while people.find_known(digest) is not None:
        uses += 1
    assert MAX_USES - 10 < uses <= MAX_USES
    many = [record(f"m{number}") for number in range(MAX_KNOWN + 10)]
    await world.call("/customers", many, as_="acme-billing")
    assert len(people._known) == MAX_KNOWN
    assert len(people._person_of) == MAX_KNOWN


async def test_a_key_that_is_being_read_while_it_is_erased_is_not_kept_in_memory():
    """The exchange that runs may end with it; the next one is told."""
    world = a_world()

    async def erase() -> None:
        await world.eraser().erase(ANN)

    keys_of(world).then = erase
    token = await show(world)
    assert token.startswith("tok_")
    assert refused(await back(world, token)) == "token.erased"
    assert await show(world) == "[redacted]"


async def test_without_the_key_store_what_needs_it_is_refused():
    """503 for an answer with a new person and for a token that comes back; nothing of the body leaves."""
    world = a_world()
    token = await show(world)
    world = world.restarted()
    keys_of(world).broken = True
    seen = await world.call("/customers", record(), as_="acme-billing")
    assert (refused(seen), seen.body) == ("vault.unavailable", None)
    assert refused(await back(world, token)) == "vault.unavailable"
    assert (await world.call("/customers", {"plan": "gold"}, as_="acme-billing")).json == {"plan": "gold"}


async def test_a_row_of_another_person_is_refused():
    """Whoever can write to the store can't give one person's key to another."""
    world = a_world()
    token = await show(world)
    await show(world, "bob")
    rows = keys_of(world)._rows
    ann, bob = rows.values()
    from dataclasses import replace

    rows[ann.handle] = replace(ann, wrapped=bob.wrapped)
    world = world.restarted()
    assert refused(await world.call("/customers", record(), as_="acme-billing")) == "vault.unavailable"
    assert refused(await back(world, token)) == "token.refused"


async def test_shadow_keeps_no_keys():
    """An answer that goes out as it came makes no rows."""
    world = a_world(POLICY.replace("version: 1", "version: 1\nmode: shadow"))
    seen = await world.call("/customers", record(), as_="acme-billing", mode=BodyMode.BUFFERED)
    assert seen.body is not None
    assert keys_of(world).kept == []
    assert dict(world.services.counters.shadow_would_change) == {"list": 1}


async def test_a_redirect_to_such_a_value_is_withheld():
    """Whose key its token would need is not known there."""
    world = a_world(POLICY.replace("person: clear", "person: token(per=subject)"))
    answer = Answer(b"", 303, (("location", "/customers/42"),), has_body=False)
    seen = await world.call("/customers/42", answer, as_="acme-billing")
    assert "location" not in seen.set


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "text/csv"])
async def test_rows_have_the_keys_of_their_own_people(content_type: str):
    """Each row's values are under the key of the row's person, also where the whole is run a second time."""
    world = a_world()
    rows = [("ann", PLANTED), ("bob", PLANTED), ("ann", PLANTED)]
    if content_type == "text/csv":
        body = "customerId,accountNumber\n" + "".join(f"{one},{account}\n" for one, account in rows)
    else:
        body = "".join(json.dumps(record(*row)) + "\n" for row in rows)
    answer = Answer(body.encode(), headers=(("content-type", content_type),))
    seen = await world.call("/customers", answer, as_="acme-billing")
    assert seen.body is not None, seen.code
    assert seen.body.body is not None
    text = seen.body.body.decode()
    assert PLANTED not in text
    assert text.count(await show(world)) == 2
    assert text.count(await show(world, "bob")) == 1
