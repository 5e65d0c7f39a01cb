"""Who is connected, and what of its headers counts, told by the real Envoy: no client chooses its own address."""

from __future__ import annotations

import ipaddress

import pytest
from support.envoy_harness import ScriptedExchange, a_gateway
from support.upstreams import an_upstream, json_answer

from gharial.gate.facts import FactSources, client_address
from gharial.gate.identify import ClientDirectory, Identifier
from gharial.gate.outcome import ForwardRequest, RequestHead
from gharial.model.caller import Caller

pytestmark = pytest.mark.envoy

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
ELSEWHERE = ipaddress.ip_network("10.0.0.0/8")
FORGED = (
    "X-Forwarded-For: 10.0.0.1, 198.51.100.7",
    "X-Forwarded-For: 198.51.100.8",
    "X-Real-Ip: 10.0.0.1",
    "X-Envoy-External-Address: 10.0.0.1",
    "X-Envoy-Internal: true",
    "Forwarded: for=10.0.0.1",
    "True-Client-Ip: 10.0.0.1",
    "X-Country: DE",
    "x-network: corporate",
    "Gharial-Country: DE",
    'Gharial-Claims: {"role":"care"}',
)


class Atlas:
    """Knows two addresses."""

    def find_country(self, address: str) -> str:
        return {"127.0.0.1": "CH", "198.51.100.8": "IT"}.get(address, "")


async def play(*hops: ipaddress.IPv4Network, geo: bool = False) -> tuple[Caller, str, dict[str, str]]:
    """Send one call with every forged header; return who it seems to be, from where, and what the upstream got."""
    sources = FactSources(hops, "x-country", "x-network", Atlas() if geo else None)
    identifier = Identifier((), ClientDirectory(), hash_credential=str.encode, tenant="t", facts=sources)
    seen: list[tuple[Caller, str]] = []

    def request(head: RequestHead) -> ForwardRequest:
        found = identifier.identify(head.headers, 0.0, head.peer)
        seen.append((found.caller, client_address(head.peer, head.headers, hops)))
        return ForwardRequest(remove_headers=found.remove_headers)

    async with (
        an_upstream(json_answer("{}")) as upstream,
        a_gateway(upstream.url, lambda: ScriptedExchange(request=request)) as gateway,
    ):
        answer = await gateway.get("/protected/1", *FORGED)
        assert answer.status == 200
        return *seen[0], {name.lower(): value for name, value in upstream.seen[0].headers}


async def test_a_client_that_is_no_hop_chooses_nothing():
    """Forged addresses and facts come to nothing: the address is the connection's, country and network are missing."""
    caller, address, upstream = await play(ELSEWHERE)
    assert address == "127.0.0.1"
    assert (caller.country, caller.network, dict(caller.claims)) == ("", "", {})
    assert not {"x-country", "x-network", "gharial-country", "gharial-claims"} & set(upstream)


async def test_the_geo_file_is_asked_for_the_connection_s_address():
    """Without hops nobody's word counts, not even about the address."""
    caller, address, _ = await play(geo=True)
    assert (address, caller.country) == ("127.0.0.1", "CH")


async def test_a_hop_is_believed_as_far_as_its_own_entry():
    """The peer is a hop: its headers count, and the address is the last one that it wrote, no further left."""
    caller, address, upstream = await play(LOOPBACK)
    assert address == "198.51.100.8"
    assert (caller.country, caller.network) == ("DE", "corporate")
    assert not {"x-country", "x-network"} & set(upstream)
    assert upstream["x-forwarded-for"].replace(" ", "") == "10.0.0.1,198.51.100.7,198.51.100.8,127.0.0.1"
