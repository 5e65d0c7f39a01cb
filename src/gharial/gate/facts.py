"""Facts about the caller that no credential tells: country and kind of network, and who vouches for them. Pure.

A fact counts only from where it was configured to come: a verified claim, a header of a configured hop, a file over the
address that the hops vouch for, or the caller's own word where its credential may give it. Otherwise it is missing.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

from gharial.gate.headers import all_values
from gharial.gate.outcome import Headers
from gharial.model.caller import Caller
from gharial.model.errors import RequestMalformed
from gharial.policy.countries import COUNTRIES

COUNTRY_HEADER = "gharial-country"
CLAIMS_HEADER = "gharial-claims"

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_FORWARDED_FOR = "x-forwarded-for"
_MAX_FORWARDED = 100
_NETWORK = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_CLAIM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,63}")
_MAX_CLAIMS_CHARS = 4_096
_MAX_CLAIMS = 64
_MAX_ITEMS = 64
_MAX_INTEGER = 2**63
_WITH_PORT = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::[0-9]{1,5})?")


class GeoLookup(Protocol):
    """Tells the country of an address."""

    def find_country(self, address: str) -> str:
        """Return the country (ISO 3166-1 alpha-2) in which an IP address is used, or empty if that is not known."""


@dataclass(frozen=True, slots=True)
class FactSources:
    """Where facts come from. `hops` are believed in `X-Forwarded-For` and in the (lower-case) headers named here."""

    hops: tuple[IpNetwork, ...] = ()
    country_header: str = ""
    network_header: str = ""
    geo: GeoLookup | None = None

    @property
    def headers(self) -> frozenset[str]:
        """The headers that carry facts; no upstream ever sees them, whoever sent them."""
        return frozenset({self.country_header, self.network_header} - {""})


@dataclass(frozen=True, slots=True)
class Stated:
    """What the caller says of itself; counts only as far as its credential's `may_assert` goes."""

    country: str = ""
    claims: Mapping[str, object] = field(default_factory=dict)


def read_stated(headers: Headers) -> Stated:
    """Read `Gharial-Country` and `Gharial-Claims`.

    Claims are a JSON object of at most 4,096 characters and 64 names, with scalars and lists of scalars. Raises
    RequestMalformed, whoever sent it, for a header that came twice or can't be read in one way only.
    """
    country = _single(headers, COUNTRY_HEADER)
    if country is not None and not is_country(country):
        raise RequestMalformed(f"{COUNTRY_HEADER} holds one country: two capital letters, ISO 3166-1")
    claims = _single(headers, CLAIMS_HEADER)
    return Stated(country or "", {} if claims is None else _parse_claims(claims))


def check_stated(country: str, claims: Mapping[str, object]) -> Stated:
    """Return statements that came otherwise than in headers. Raises RequestMalformed, by the same rules."""
    if country and not is_country(country):
        raise RequestMalformed("a country is two capital letters, ISO 3166-1")
    try:
        return Stated(
            country, {name: _claim_value(value) for name, value in _object_once(list(claims.items())).items()}
        )
    except _Unreadable:
        raise RequestMalformed(f"claims are at most {_MAX_CLAIMS} names with texts, numbers, true or false") from None


def with_facts(
    caller: Caller, may_assert: Sequence[str], stated: Stated, headers: Headers, peer: str, sources: FactSources
) -> Caller:
    """Return `caller` with country, network and stated claims, as far as somebody vouches for them.

    `caller` carries what verified claims say already, and that holds before all else. Then the country is what the
    caller states, if `may_assert` says so; what the header of a hop says, if `peer` (the address of the direct peer) is
    one; what the geo file says of the client's address. The network comes from a claim or from a hop. Stated claims
    never replace verified ones.
    """
    from_hop = is_hop(peer, sources.hops)
    country = caller.country
    if not country and "country" in may_assert:
        country = stated.country
    if not country and from_hop and sources.country_header:
        country = _country_of(all_values(headers, sources.country_header))
    if not country and sources.geo is not None:
        address = client_address(peer, headers, sources.hops)
        found = sources.geo.find_country(address) if address else ""
        country = found if is_country(found) else ""
    network = caller.network
    if not network and from_hop and sources.network_header:
        network = _network_of(all_values(headers, sources.network_header))
    claims = caller.claims
    if stated.claims and "claims" in may_assert:
        claims = MappingProxyType({**stated.claims, **caller.claims})
    return replace(caller, country=country, network=network, claims=claims)


def client_address(peer: str, headers: Headers, hops: Sequence[IpNetwork]) -> str:
    """Return the client's address as far as the hops vouch for it, or empty.

    That is the right-most address that is no hop's: the direct peer's own, or the one that the last hop on the way
    wrote into `X-Forwarded-For`. What stands further left came from the client and proves nothing. Empty where the peer
    is unknown, where an entry on the way can't be read, or behind more than 100 entries.
    """
    address = parse_address(peer)
    if address is None:
        return ""
    entries = [entry for value in all_values(headers, _FORWARDED_FOR) for entry in value.split(",")]
    for entry in reversed(entries[-_MAX_FORWARDED:]):
        if not _within(address, hops):
            return str(address)
        previous = parse_address(entry)
        if previous is None:
            return ""
        address = previous
    return "" if len(entries) > _MAX_FORWARDED else str(address)


def is_hop(peer: str, hops: Sequence[IpNetwork]) -> bool:
    """Say whether the direct peer is one of the hops."""
    address = parse_address(peer)
    return address is not None and _within(address, hops)


def parse_address(text: str) -> IpAddress | None:
    """Read an IP address, with or without a port (`1.2.3.4:80`, `[::1]:80`); IPv4 in IPv6 form becomes IPv4."""
    text = text.strip(" \t")
    if text.count(":") <= 1 or text.startswith("["):
        found = _WITH_PORT.fullmatch(text)
        if found is None:
            return None
        text = found[1] if found[1] is not None else found[2]
    if "%" in text:
        # A zone is another machine's name for one of its interfaces; here it would mean something else, or nothing.
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_country(text: str) -> bool:
    """Say whether `text` is an assigned code of ISO 3166-1 alpha-2, in capital letters."""
    return text in COUNTRIES


def is_network(text: str) -> bool:
    """Say whether `text` can be a kind of network: `tor`, `hosting`, `corporate` …, 1 to 32 characters."""
    return _NETWORK.fullmatch(text) is not None


def _within(address: IpAddress, networks: Sequence[IpNetwork]) -> bool:
    return any(address in network for network in networks)


def _country_of(values: Sequence[str]) -> str:
    # Two values: one of them may be the client's own, which the hop passed on. Which one can't be told.
    value = values[0].strip(" \t") if len(values) == 1 else ""
    return value if is_country(value) else ""


def _network_of(values: Sequence[str]) -> str:
    value = values[0].strip(" \t") if len(values) == 1 else ""
    return value if is_network(value) else ""


def _single(headers: Headers, name: str) -> str | None:
    values = [value for key, value in headers if key.lower() == name]
    if len(values) > 1:
        raise RequestMalformed(f"the header {name} came twice")
    return values[0].strip(" \t") if values else None


class _Unreadable(Exception):
    """A header of claims is not what it should be; says nothing about it, for it would quote it."""


def _parse_claims(text: str) -> dict[str, object]:
    try:
        if len(text) > _MAX_CLAIMS_CHARS:
            raise _Unreadable
        # Header values are decoded as latin-1 here; JSON is UTF-8.
        found = json.loads(
            text.encode("latin-1").decode("utf-8"),
            object_pairs_hook=_object_once,
            parse_constant=_no_constant,
            parse_int=_bounded_int,
        )
        if not isinstance(found, dict):
            raise _Unreadable
        return {name: _claim_value(value) for name, value in found.items()}
    except (_Unreadable, ValueError, RecursionError):
        raise RequestMalformed(
            f"{CLAIMS_HEADER} holds a JSON object of at most {_MAX_CLAIMS} names with scalars or lists of scalars, "
            f"in at most {_MAX_CLAIMS_CHARS} characters"
        ) from None


def _object_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(names) > _MAX_CLAIMS or len(set(names)) != len(names) or not all(map(_CLAIM_NAME.fullmatch, names)):
        raise _Unreadable
    return dict(pairs)


def _no_constant(_name: str) -> object:
    raise _Unreadable


def _bounded_int(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) >= _MAX_INTEGER:
        raise _Unreadable
    return int(digits)


def _claim_value(value: object) -> object:
    if isinstance(value, list):
        if len(value) > _MAX_ITEMS or not all(map(_is_scalar, value)):
            raise _Unreadable
        return tuple(value)
    if not _is_scalar(value):
        raise _Unreadable
    return value


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return value - value == 0  # neither infinite (1e999) nor not a number
    if isinstance(value, str):
        return value.isprintable()
    return isinstance(value, bool | int)
