"""The reveal API as a use case: what comes back in clear, for whom, how often, and what is on record before."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.gate_world import World

from gharial.audit.reveal_record import parse_reveal_record
from gharial.crypto.digest import person_digest
from gharial.crypto.envelope import sealer
from gharial.crypto.token import Binding, seal_token
from gharial.gate.reveal import Begun, Clear, Item, Rate, Revealer
from gharial.model.errors import (
    AuditUnwritable,
    CallerBlocked,
    GharialError,
    StoreUnwritable,
    TooManyCalls,
    UnknownCredential,
    VaultUnavailable,
)
from gharial.model.finding import Kind

PLANTED = "PLANTED-4711"

POLICY = """
policy: customer-data
version: 7
mode: enforce
tags:
  person:  { find: '$..customerId', subject: customer }
  name:    { find: '$..fullName' }
  email:   { find: '$..email' }
  account: { find: '$..accountNumber' }
who:
  anyone: {}
  care: { role: care }
  partner: { client: 'acme-*' }
grants:
  - { grant: basics, to: anyone, show: { person: token, account: token, email: encrypt } }
  - { grant: look-up, to: care, for: [support], reveal: [account, email], budget: { people: 3/h, then: redact } }
  - { grant: names, to: partner, reveal: [name] }
"""
ROUTES = (("list", "GET /customers", "customer-data"),)


class Desk:
    """One gate and its revealer."""

    def __init__(self, policy: str = POLICY, calls_per_minute: int = 6_000) -> None:
        self.world = World(policy, ROUTES)
        self.services = self.world.services
        self.revealer = Revealer(self.services, calls_per_minute=calls_per_minute)

    def token(
        self, text: str = PLANTED, *, tag: str = "account", client: str = "clerk-1", kind: Kind = Kind.STRING
    ) -> Item:
        binding = Binding("default", tag, "client", client)
        return Item(tag, seal_token(self.services.keyset, binding, kind, text))

    def envelope(self, text: str = PLANTED, *, tag: str = "email") -> Item:
        sealed = sealer(self.services.keyset, "default", tag, lambda count: b"\x07" * count)(Kind.STRING, text)
        assert sealed is not None
        return Item(tag, sealed)

    def begin(self, as_: str = "clerk-1") -> Begun:
        headers = (("x-api-key", self.world.keys[as_]),) if as_ else ()
        return self.revealer.begin("ex-reveal", headers, "127.0.0.1")

    async def reveal(self, *items: Item, as_: str = "clerk-1") -> list[str | None]:
        found = await self.revealer.reveal(self.begin(as_), items)
        return [clear.text if clear else None for clear in found]

    @property
    def last(self) -> dict[str, Any]:
        return self.world.audit.lines[-1]


async def test_own_tokens_and_envelopes_come_back_with_their_type():
    """A string, a number digit for digit, and an envelope are what they were."""
    desk = Desk()
    items = [desk.token(), desk.token("1.50", kind=Kind.NUMBER), desk.envelope("ann@example.org")]
    found = await desk.revealer.reveal(desk.begin(), items)
    assert found == [Clear(Kind.STRING, PLANTED), Clear(Kind.NUMBER, "1.50"), Clear(Kind.STRING, "ann@example.org")]
    assert PLANTED not in repr(found)


async def test_everything_else_is_refused_and_the_rest_of_the_batch_is_not():
    """Another client's token, a forged one, another tag, a plain value, a tag without right: each is None."""
    desk = Desk()
    good = desk.token()
    forged = Item("account", good.value[:-3] + ("AAA" if not good.value.endswith("AAA") else "BAA"))
    bad = [
        desk.token(client="clerk-2"),
        forged,
        Item("email", good.value),
        Item("account", desk.envelope().value),
        Item("account", PLANTED),
        Item("account", ""),
        desk.token(tag="person"),
        Item("nothing", good.value),
        desk.token(tag="name", client="clerk-1"),
    ]
    assert await desk.reveal(*bad, good) == [None] * len(bad) + [PLANTED]
    assert desk.services.counters.reveal_refused == {"not_opened": 6, "no_right": 3}
    assert desk.services.counters.revealed == {"account": 1}


async def test_purpose_and_role_decide_as_for_answers():
    """A caller without the grant's role or purpose has nothing revealed, not even its own tokens."""
    desk = Desk()
    assert await desk.reveal(desk.token(client="acme-desk"), as_="acme-desk") == [None]
    assert await desk.reveal(desk.token(tag="name", client="acme-desk"), as_="acme-desk") == [PLANTED]


async def test_without_a_credential_nothing_is_looked_at():
    """`anonymous` has no tokens of its own that anybody could tell from a thief's."""
    desk = Desk()
    with pytest.raises(UnknownCredential):
        desk.begin("")


async def test_a_guardrail_forbids_and_a_policy_in_shadow_gives_nothing():
    """A floor under the tag is stronger than the grant; what is not enforced opens nothing."""
    floor = POLICY + "never: [{ never: n, tag: account, when: { country: US }, at_least: mask }]\n"
    assert await Desk(floor).reveal(Desk(floor).token()) == [None]
    assert await Desk(POLICY.replace("mode: enforce", "mode: shadow")).reveal(Desk().token()) == [None]


async def test_the_budget_counts_distinct_values_and_survives_a_restart():
    """Three values an hour: known ones stay, the fourth is refused, also after a crash and in parallel batches."""
    desk = Desk()
    values = [desk.token(f"{PLANTED}{n}") for n in range(5)]
    assert await desk.reveal(values[0], values[0], values[1]) == [f"{PLANTED}0", f"{PLANTED}0", f"{PLANTED}1"]
    assert [bool(v) for v in await desk.reveal(*values)] == [True, True, True, False, False]
    assert desk.last["budgets_crossed"] == ["look-up"]
    assert desk.services.counters.reveal_refused == {"budget": 2}
    again = Desk()
    again.services = desk.world.restarted().services
    again.revealer = Revealer(again.services, calls_per_minute=6_000)
    assert [bool(v) for v in await again.reveal(*values)] == [True, True, True, False, False]
    assert [incident.route for incident in desk.world.store.incidents.values()] == ["POST /v1/reveal"]


async def test_two_batches_at_once_never_reveal_more_than_the_budget():
    """While the store still writes, another call finds the room already taken."""
    desk = Desk()
    batches = [[desk.token(f"{PLANTED}{n}-{m}") for m in range(3)] for n in range(8)]
    found = await asyncio.gather(*(desk.reveal(*batch) for batch in batches))
    assert sum(value is not None for batch in found for value in batch) == 3


async def test_the_record_is_durable_before_the_answer_and_names_no_value():
    """Until the line is on disk nothing comes back; it holds caller, purpose, tag and digest."""
    desk = Desk()
    free, asked = asyncio.Event(), asyncio.Event()
    take = desk.world.audit.append

    async def slow(line: bytes, *, durable: bool) -> None:
        asked.set()
        await free.wait()
        await take(line, durable=durable)

    desk.world.audit.append = slow  # type: ignore[method-assign]
    answer = asyncio.create_task(desk.reveal(desk.token(), desk.token(client="clerk-2")))
    await asked.wait()
    assert len(desk.world.store.charges) == 1
    assert not answer.done()
    free.set()
    assert await answer == [PLANTED, None]
    assert desk.world.audit.durable == [True]
    record = parse_reveal_record(desk.world.audit.raw[-1])
    digest = person_digest(desk.services.keyset, "default", "value:account", PLANTED)
    assert (record.client, record.purpose, record.refused) == ("clerk-1", "support", 1)
    assert [(v.tag, v.digest, v.rule) for v in record.revealed] == [("account", digest, "grant:look-up")]
    assert PLANTED not in json.dumps(desk.world.audit.lines)


@pytest.mark.parametrize(("part", "error"), [("store", StoreUnwritable), ("audit", AuditUnwritable)])
async def test_a_full_disk_refuses_the_whole_call(part: str, error: type[GharialError]):
    """Neither charges nor the record may be missing: then nothing is revealed, and what was counted stays counted."""
    desk = Desk()
    getattr(desk.world, part).broken = True
    with pytest.raises(error):
        await desk.reveal(*(desk.token(f"{PLANTED}{n}") for n in range(3)))
    assert desk.services.counters.revealed == {}
    getattr(desk.world, part).broken = False
    assert await desk.reveal(desk.token("another")) == [None]


async def test_a_call_that_reveals_nothing_is_on_record_too():
    """Whoever tries is seen."""
    desk = Desk()
    assert await desk.reveal(desk.token(client="clerk-2")) == [None]
    assert (desk.last["kind"], desk.last["client"], desk.last["revealed"], desk.last["refused"]) == (
        "reveal",
        "clerk-1",
        [],
        1,
    )


async def test_a_client_that_calls_too_often_waits_and_others_do_not():
    """A bucket per client: it empties, fills up again with time, and a clock set back gives nothing."""
    desk = Desk(calls_per_minute=60)
    for _ in range(10):
        desk.begin()
    with pytest.raises(TooManyCalls) as caught:
        desk.begin()
    assert 0 < caught.value.retry_after_s <= 1
    desk.begin("clerk-2")
    desk.world.clock.at_s -= 3600
    with pytest.raises(TooManyCalls):
        desk.begin()
    desk.world.clock.at_s += 1
    desk.begin()
    lines = len(desk.world.audit.lines)
    desk.revealer.refuse("ex", None, caught.value)
    assert len(desk.world.audit.lines) == lines
    assert desk.services.counters.refused == {"request.too_many": 1}


def test_rates_are_remembered_of_so_many_clients_and_no_more():
    """Names without end take no memory without end."""
    rate = Rate(60)
    for number in range(10_100):
        rate.take(f"c{number}", 0.0)
    assert len(rate._buckets) == 10_000


async def test_random_tokens_are_revealed_to_their_own_client_alone():
    """A batch asks the vault once; another client's token and one that nobody got are refused like any other."""
    desk = Desk(POLICY.replace("account: token,", "account: token(from=vault),"))
    answer = [{"accountNumber": PLANTED}, {"accountNumber": 1.5}]
    mine = [
        Item("account", r["accountNumber"]) for r in (await desk.world.call("/customers", answer, as_="clerk-1")).json
    ]
    (theirs,) = (await desk.world.call("/customers", answer[:1], as_="clerk-2")).json
    bad = [Item("account", theirs["accountNumber"]), Item("account", "tok_AgAAAAAAAAAAAAAAAAAAAAA")]
    assert await desk.reveal(*mine, *bad, desk.token(), Item("email", mine[0].value)) == [
        PLANTED, "1.5", None, None, PLANTED, None
    ]  # fmt: skip
    assert desk.world.vault.found == [4]
    desk.world.vault.broken = True
    with pytest.raises(VaultUnavailable):
        await desk.reveal(*mine)
    assert await desk.reveal(desk.token()) == [PLANTED]


def incidents_of(desk: Desk) -> dict[str, str]:
    found = desk.services.incidents.flush(desk.world.clock.now_s())
    return {record.detector: record.severity for record, _ in found}


@pytest.mark.parametrize(("count", "severity"), [(1, "high"), (30, "critical")])
async def test_foreign_and_forged_tokens_are_told(count: int, severity: str):
    """One token of another client, or a made-up one, opens an incident; many in one call are critical."""
    for bad in (Desk().token(client="clerk-2"), Item("account", "tok_AQAAAAAA")):
        desk = Desk()
        await desk.reveal(*[bad] * count, desk.token())
        assert incidents_of(desk) == {"foreign-token": severity}


async def test_a_wrong_tag_is_no_theft():
    """Own tokens under another tag, and what is no token at all, are refused and no more."""
    desk = Desk()
    assert await desk.reveal(Item("email", desk.token().value), Item("account", PLANTED)) == [None, None]
    assert incidents_of(desk) == {}


async def test_revealed_values_are_a_harvest():
    """Who has more values revealed than `watch` says gets no more of them."""
    watch = "watch: { harvest: { people_per: client, over: 1h, above: 20, do: [alert, block] } }\n"
    desk = Desk(POLICY.replace("people: 3/h", "people: 3000/h") + watch)
    for number in range(21):
        assert await desk.reveal(desk.token(f"{PLANTED}{number}")) == [f"{PLANTED}{number}"]
    with pytest.raises(CallerBlocked):
        desk.begin()
