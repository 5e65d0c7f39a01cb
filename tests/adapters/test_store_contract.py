"""What every store promises, whatever it is made of; an implementation joins by a line in `IMPLEMENTATIONS`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples

from gharial.adapters.store import SqliteStore, open_store
from gharial.crypto.keyset_history import Known, KnownKey
from gharial.gate.ports import Charge, ClientRecord, CredentialRecord, IncidentRecord
from gharial.model.errors import AlreadyExists, NotFound, StoreUnwritable

IMPLEMENTATIONS: dict[str, Callable[[Path], SqliteStore]] = {"sqlite": lambda folder: open_store(folder / "gharial.db")}

INCIDENT = IncidentRecord(
    incident_id="inc-1",
    key="people_budget/k",
    detector="people_budget",
    severity="high",
    principal="default\x1fcare-7\x1f",
    client="care-7",
    user="",
    route="customer",
    policy="customer-data",
    grant="support-view",
    limit_people=60,
    window_s=3600,
    opened_s=1000.5,
    last_seen_s=1000.5,
    people_clear=60,
    people_withheld=1,
    measure="mask",
    exchange_id="ex-1",
)


@pytest.fixture(params=IMPLEMENTATIONS)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Open the one store of this test, closing it first if it is open: what comes back went through the disk."""
    opened: list[Any] = []

    def open_again() -> Any:
        if opened:
            opened.pop().close()
        opened.append(IMPLEMENTATIONS[request.param](tmp_path))
        return opened[0]

    yield open_again
    for store in opened:
        store.close()


def charge(person: str, at_s: float, grant: str = "support-view", principal: str = "default\x1fcare-7\x1f") -> Charge:
    return Charge(principal, "customer-data", grant, person, at_s)


async def test_charges_come_back_oldest_first(reopen):
    """Charges survive a restart and are loaded in the order of their times, from the asked time on, inclusive."""
    await reopen().charge([charge("c", 3.0), charge("a", 1.0), charge("b", 2.0)])
    assert [c.person for c in await reopen().load_charges(2.0)] == ["b", "c"]


async def test_charging_again_moves_the_time_forward_and_never_back(reopen):
    """A person counts once per principal, policy and grant, with the last time; a clock set back frees nobody."""
    store = reopen()
    await store.charge([charge("a", 5.0)])
    await store.charge([charge("a", 9.0)])
    await store.charge([charge("a", 7.0)])
    assert list(await reopen().load_charges(0.0)) == [charge("a", 9.0)]


async def test_the_four_names_of_a_charge_are_its_identity(reopen):
    """The same person under another grant or principal is another charge."""
    charges = [charge("a", 1.0), charge("a", 2.0, grant="billing"), charge("a", 3.0, principal="default\x1fx\x1f")]
    await reopen().charge(charges)
    assert list(await reopen().load_charges(0.0)) == charges


async def test_a_charge_that_cannot_be_stored_takes_its_call_along_and_no_other(reopen):
    """All charges of one call or none; the calls of the same group are not touched. The text is not quoted."""
    store = reopen()
    good, bad = await asyncio.gather(
        store.charge([charge("good", 1.0)]),
        store.charge([charge("half", 1.0), charge("\ud800planted", 1.0)]),
        return_exceptions=True,
    )
    assert good is None
    assert isinstance(bad, StoreUnwritable)
    assert "planted" not in str(bad)
    assert [c.person for c in await reopen().load_charges(0.0)] == ["good"]


@settings(max_examples=examples(20))
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 100)), max_size=30))
def test_any_order_of_charges_keeps_the_last_time_of_each(tmp_path_factory, calls):
    """Law: after any sequence of charges each person is there once, with the greatest of its times."""

    async def run(store: Any) -> dict[str, float]:
        await asyncio.gather(*(store.charge([charge(person, at_s)]) for person, at_s in calls))
        return {c.person: c.at_s for c in await store.load_charges(0.0)}

    for make in IMPLEMENTATIONS.values():
        store = make(tmp_path_factory.mktemp("law"))
        try:
            want = {person: max(at for who, at in calls if who == person) for person, _ in calls}
            assert asyncio.run(run(store)) == want
        finally:
            store.close()


async def test_old_charges_are_forgotten(reopen):
    """Housekeeping deletes what is before the time, and nothing else, also more than one batch of it."""
    store = reopen()
    await store.charge([charge(f"p{n}", float(n)) for n in range(12_000)])
    assert await store.delete_charges(11_999.0) == 11_999
    assert [c.person for c in await store.load_charges(0.0)] == ["p11999"]


async def test_clients_and_credentials_come_back_as_they_were(reopen):
    """Every field of a client and its credentials survives, oldest first."""
    clients = [
        ClientRecord("zebra", "finance", ("partner", "batch"), "billing", ("purpose",), 10.0),
        ClientRecord("acme", created_s=11.0),
    ]
    keys = [
        CredentialRecord("k2", "zebra", "api_key", b"\x00\xff", 10.0),
        CredentialRecord("k1", "zebra", "secret", b""),
    ]
    store = reopen()
    await store.add_client(clients[0], keys)
    await store.add_client(clients[1], [])
    assert await reopen().load_clients() == (clients, keys)


async def test_a_name_is_given_once(reopen):
    """A second client of a name is refused, also after the first was revoked, and nothing of it is kept."""
    store = reopen()
    await store.add_client(ClientRecord("acme"), [])
    await store.revoke_client("acme", 5.0)
    with pytest.raises(AlreadyExists):
        await store.add_client(ClientRecord("acme"), [CredentialRecord("k1", "acme", "api_key", b"h")])
    assert await reopen().load_clients() == ([ClientRecord("acme", revoked_s=5.0)], [])


async def test_a_credential_id_is_given_once(reopen):
    """A client whose credential id is taken is not added at all."""
    store = reopen()
    await store.add_client(ClientRecord("a"), [CredentialRecord("k1", "a", "api_key", b"h")])
    with pytest.raises(AlreadyExists):
        await store.add_client(ClientRecord("b"), [CredentialRecord("k1", "b", "api_key", b"h")])
    assert [c.name for c in (await store.load_clients())[0]] == ["a"]


async def test_revoking_reaches_every_credential_and_keeps_the_first_time(reopen):
    """A revoked client's credentials are revoked with it; a second revocation changes nothing."""
    store = reopen()
    await store.add_client(ClientRecord("a"), [CredentialRecord(k, "a", "api_key", b"h") for k in ("k1", "k2")])
    await store.revoke_client("a", 5.0)
    await store.revoke_client("a", 9.0)
    clients, keys = await reopen().load_clients()
    assert [c.revoked_s for c in clients] == [5.0]
    assert [k.revoked_s for k in keys] == [5.0, 5.0]


async def test_revoking_an_unknown_client_says_so(reopen):
    """A typing error in a name is not taken for a revocation."""
    with pytest.raises(NotFound):
        await reopen().revoke_client("nobody", 1.0)


async def test_an_incident_is_inserted_and_then_updated(reopen):
    """The same incident id replaces; the newest come first."""
    store = reopen()
    await store.put_incident(INCIDENT, None)
    await store.put_incident(replace(INCIDENT, incident_id="inc-2", opened_s=2000.0), None)
    await store.put_incident(replace(INCIDENT, people_withheld=7, last_seen_s=1500.0), None)
    first, second = await reopen().load_incidents()
    assert first.incident_id == "inc-2"
    assert second == replace(INCIDENT, people_withheld=7, last_seen_s=1500.0)
    assert [i.incident_id for i in await reopen().load_incidents(limit=1)] == ["inc-2"]


async def test_alarms_wait_in_order_until_they_are_delivered(reopen):
    """An alarm waits across restarts and is gone after delivery; its number is not given to another one."""
    store = reopen()
    await store.put_incident(INCIDENT, b'{"n": 1}')
    await store.put_incident(INCIDENT, None)
    await store.put_incident(INCIDENT, b'{"n": 2}')
    (one, first), (two, second) = await reopen().waiting_alarms()
    assert (first, second) == (b'{"n": 1}', b'{"n": 2}')
    store = reopen()
    await store.alarm_delivered(two)
    await store.alarm_delivered(two)
    assert await store.waiting_alarms() == [(one, b'{"n": 1}')]
    await store.put_incident(INCIDENT, b'{"n": 3}')
    ((_, _), (three, _)) = await reopen().waiting_alarms()
    assert three > two


async def test_a_closed_store_refuses(reopen):
    """After close nothing is taken and nobody waits for ever."""
    store = reopen()
    store.close()
    with pytest.raises(StoreUnwritable):
        await store.charge([charge("a", 1.0)])


async def test_close_finishes_what_waits(reopen):
    """Calls that were under way when the store is closed are durable and answered."""
    store = reopen()
    calls = [asyncio.ensure_future(store.charge([charge(f"p{n}", 1.0)])) for n in range(50)]
    await asyncio.sleep(0)  # lets every call be queued
    store.close()
    await asyncio.gather(*calls)
    assert len(list(await reopen().load_charges(0.0))) == 50


async def test_a_cancelled_caller_disturbs_nobody(reopen):
    """A caller that goes away while it waits leaves the charge done, and the other callers answered."""
    store = reopen()
    gone = asyncio.ensure_future(store.charge([charge("gone", 1.0)]))
    stays = asyncio.ensure_future(store.charge([charge("stays", 1.0)]))
    await asyncio.sleep(0)  # lets both be queued
    gone.cancel()
    await stays
    assert {c.person for c in await store.load_charges(0.0)} == {"gone", "stays"}


async def test_known_keys_are_kept_and_nothing_of_it_goes_back(reopen):
    """Keys add up, a destruction stays though the key is seen alive again, no revision falls; `alone` forgets."""
    store = reopen()
    first, second = KnownKey("a", 1, False), KnownKey("a", 2, False)
    await store.remember_keys(Known(frozenset([first, second]), {"a": 2}))
    await store.remember_keys(Known(frozenset([replace(first, destroyed=True), KnownKey("b", 1, False)]), {"b": 9}))
    await store.remember_keys(Known(frozenset([first]), {"a": 1}))
    kept = frozenset([replace(first, destroyed=True), second, KnownKey("b", 1, False)])
    assert await reopen().load_known_keys() == Known(kept, {"a": 2, "b": 9})
    await reopen().remember_keys(Known(frozenset([first]), {"a": 1}), alone=True)
    assert await reopen().load_known_keys() == Known(frozenset([first]), {"a": 1})
