"""The made-up telecom: the same people every time, and an API as open as the story says."""

from __future__ import annotations

import socket
from collections import Counter

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.demo.judge import PERSONAL_FIELDS, PUBLIC_FIELDS
from gharial.demo.parts import running_telecom
from gharial.demo.telecom import CUSTOMERS, MAX_PAGE, bill, customer

ids = st.integers(min_value=1, max_value=CUSTOMERS)


def test_a_customer_is_the_same_on_every_machine():
    """The record comes from the id alone: no clock, no hash seed, no store."""
    assert customer(42) == {
        "customerId": 42,
        "fullName": "Nils Lefebvre",
        "email": "nils.lefebvre12394@mail.example",
        "msisdn": "+999161336416",
        "dob": "1965-04-11",
        "accountNumber": "8993-4948-6033",
        "billingAddress": {"street": "50 Station Street", "city": "Port Anselm", "postalCode": "34948"},
        "plan": "Basic 5",
        "lines": 3,
        "country": "GB",
    }


@given(ids, ids)
def test_two_ids_are_two_people(one: int, other: int):
    """No two customers share e-mail, phone and account number; else 60 people would not be 60."""
    if one != other:
        shared = [n for n in ("email", "msisdn", "accountNumber") if customer(one)[n] == customer(other)[n]]
        assert len(shared) < 2


@given(ids)
def test_public_fields_tell_nothing_personal(number: int):
    """No personal value stands in a public field, so that a judge of replies can't be led astray by one."""
    record = customer(number)
    public = " ".join(str(record[name]) for name in PUBLIC_FIELDS)
    assert not [name for name in PERSONAL_FIELDS if str(record[name]) in public]


@given(ids)
def test_nobody_is_real(number: int):
    """Addresses and numbers are of kinds that can't belong to anybody."""
    assert customer(number)["email"].endswith("@mail.example")
    assert customer(number)["email"].isascii()
    assert customer(number)["msisdn"].startswith("+999")


def test_people_are_spread_over_plans_and_countries():
    """Guessing 'the same for all' must not look like knowing: no plan and no country holds nearly everybody."""
    records = [customer(n) for n in range(1, 2_001)]
    for name in PUBLIC_FIELDS:
        assert Counter(record[name] for record in records).most_common(1)[0][1] < 1_000


async def test_the_api_hands_out_whole_records_to_anybody():
    """Record, bill and page answer without a credential, with just what `customer` says."""
    async with running_telecom() as url, aiohttp.ClientSession() as session:
        async with session.get(f"{url}/customers/42") as reply:
            assert reply.content_type == "application/json"
            assert await reply.json() == customer(42)
        async with session.get(f"{url}/customers/42/bill") as reply:
            assert await reply.json() == bill(42)
        async with session.get(f"{url}/customers?from={CUSTOMERS - 1}&limit=5") as reply:
            page = await reply.json()
            assert page["items"] == [customer(CUSTOMERS - 1), customer(CUSTOMERS)]
        async with session.get(f"{url}/customers?limit=999") as reply:
            assert len((await reply.json())["items"]) == MAX_PAGE


@pytest.mark.parametrize("wrong", ["0", str(CUSTOMERS + 1), "-1", "1.0", "%D9%A1", "tok_abc", "9" * 5000])
async def test_an_unknown_id_is_not_found(wrong: str):
    """What is no customer's id is answered with 404, never with a record or an error of the server."""
    async with running_telecom() as url, aiohttp.ClientSession() as session:
        for path in (f"/customers/{wrong}", f"/customers/{wrong}/bill"):
            async with session.get(url + path) as reply:
                assert reply.status == 404


async def test_the_telecom_ends_with_its_block_also_on_an_error():
    """After the block nobody listens on its port, whether it ended well or not."""
    for failure in (None, KeyError("an error in the block")):
        port = 0
        try:
            async with running_telecom() as url:
                port = int(url.rpartition(":")[2])
                if failure:
                    raise failure
        except KeyError:
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
