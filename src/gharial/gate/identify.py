"""Turns a request's credentials into a `Caller`, or refuses; no credential at all is the caller `anonymous`.

A credential that was presented and is not valid refuses the call: falling back to `anonymous` would let a caller choose
the weaker identity, and would hide that a key was revoked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from gharial.gate.clients import (
    PURPOSE,
    ClientDirectory,
    NewClient,
    is_fact,
    new_client,
)
from gharial.gate.facts import (
    CLAIMS_HEADER,
    COUNTRY_HEADER,
    FactSources,
    Stated,
    is_country,
    is_network,
    read_stated,
    with_facts,
)
from gharial.gate.headers import PURPOSE_HEADER
from gharial.gate.outcome import Headers
from gharial.gate.ports import ClientRecord, JwtVerifier
from gharial.model.caller import ANONYMOUS, Caller
from gharial.model.errors import AmbiguousCredentials, RequestMalformed, UnknownCredential

__all__ = [
    "ApiKeySource",
    "ClientDirectory",
    "Identified",
    "Identifier",
    "JwtSource",
    "NewClient",
    "new_client",
]

_MAX_KEY_CHARS = 256
_MAX_CLAIMS = 256
_MAX_INTEGER = 2**63
_CLIENT_CLAIMS = ("client_id", "azp")

# The scheme ends where its characters (RFC 9110, token) end, so `Bearer<TAB>…` is one too, if a malformed one.
_BEARER = re.compile(r"[ \t]*bearer(?![A-Za-z0-9!#$%&'*+.^_`|~-])", re.IGNORECASE)
_BEARER_BEHIND = re.compile(r",[ \t]*bearer[ \t]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ApiKeySource:
    """Gharial's own keys, alone in this header."""

    header: str = "x-api-key"


@dataclass(frozen=True, slots=True)
class JwtSource:
    """One issuer's tokens, as `Bearer …` in this header, and which claims say what.

    `client_claim` empty: `client_id`, else `azp`, else the subject with `sub:` before it.
    """

    verifier: JwtVerifier
    header: str = "authorization"
    client_claim: str = ""
    user_claim: str = "sub"
    team_claim: str = "team"
    roles_claim: str = "roles"
    purpose_claim: str = "purpose"
    country_claim: str = "country"
    network_claim: str = "network"


Source = ApiKeySource | JwtSource


@dataclass(frozen=True, slots=True)
class Identified:
    """Who asks, and the (lower-case) headers that must not reach the upstream."""

    caller: Caller
    remove_headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Presented:
    """One credential as it came."""

    sources: tuple[Source, ...]
    text: str = field(repr=False)


_RESERVED = frozenset({PURPOSE_HEADER, COUNTRY_HEADER, CLAIMS_HEADER})


class Identifier:
    """Identifies the callers of one gateway.

    Raises ValueError if a header would carry two kinds of things: an API key and other credentials, or credentials and
    facts.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        clients: ClientDirectory,
        *,
        hash_credential: Callable[[str], bytes],
        tenant: str,
        facts: FactSources | None = None,
    ) -> None:
        self._facts = facts or FactSources()
        self._by_header: dict[str, tuple[Source, ...]] = {}
        for source in sources:
            header = source.header.lower()
            self._by_header[header] = (*self._by_header.get(header, ()), source)
        for header, group in self._by_header.items():
            if len(group) > 1 and not all(isinstance(source, JwtSource) for source in group):
                raise ValueError(f"the header {header} can't carry an API key and something else")
        for header in sorted(_RESERVED | self._facts.headers):
            if header in self._by_header:
                raise ValueError(f"the header {header} carries no credentials")
        self._clients = clients
        self._hash = hash_credential
        self._tenant = tenant
        keys = {header for header, group in self._by_header.items() if isinstance(group[0], ApiKeySource)}
        self.own_headers = frozenset({*_RESERVED, *self._facts.headers, *keys})
        """Headers that are meant for Gharial and never reach an upstream, valid or not."""
        self._remove = tuple(sorted(self.own_headers))

    def identify(self, headers: Headers, now_s: float, peer: str = "") -> Identified:
        """Return who asks. `peer` is the address of the direct peer, empty if the proxy does not tell.

        Raises AmbiguousCredentials for two credentials or one header twice, UnknownCredential for one that is not
        valid, RequestMalformed for a header of the caller's own statements that can't be read in one way only.
        """
        presented = self._presented(headers)
        purpose, stated = _stated_purpose(headers), read_stated(headers)
        may_assert: tuple[str, ...] = ()
        if presented is None:
            caller = Caller(self._tenant)
        elif isinstance(presented.sources[0], ApiKeySource):
            caller, may_assert = self._by_key(presented.text, purpose)
        else:
            caller = self._by_token(presented, now_s)
        return Identified(with_facts(caller, may_assert, stated, headers, peer, self._facts), self._remove)

    def owns(self, client_id: str, secret: str) -> bool:
        """Say whether this is the secret of that client, neither of them revoked."""
        if not secret.isascii() or not 0 < len(secret) <= _MAX_KEY_CHARS:
            return False
        found = self._clients.find_by_secret(self._hash(secret))
        return found is not None and found[0].name == client_id

    def find_client(self, key: str) -> str:
        """Return the name of the client whose API key this is; empty if nobody's, or if key or client is revoked."""
        if not key.isascii() or not 0 < len(key) <= _MAX_KEY_CHARS:
            return ""
        found = self._clients.find_by_key(self._hash(key))
        return found[0].name if found is not None else ""

    def identify_stating(self, key: str, purpose: str, stated: Stated, headers: Headers, peer: str) -> Caller:
        """Return who asks by an API key, and what it states of itself otherwise than in headers.

        Raises UnknownCredential.
        """
        caller, may_assert = self._by_key(key, purpose)
        return with_facts(caller, may_assert, stated, headers, peer, self._facts)

    def _presented(self, headers: Headers) -> _Presented | None:
        """Return the one credential of the request, if there is one."""
        found: list[_Presented] = []
        seen: set[str] = set()
        for raw_name, value in headers:
            name = raw_name.lower()
            sources = self._by_header.get(name)
            if sources is None:
                continue
            if name in seen:
                raise AmbiguousCredentials(f"the header {name} came twice")
            seen.add(name)
            text = value.strip(" \t") if isinstance(sources[0], ApiKeySource) else _token(name, value)
            if text is not None:
                found.append(_Presented(sources, text))
        if len(found) > 1:
            raise AmbiguousCredentials(f"credentials came in {len(found)} headers")
        return found[0] if found else None

    def _by_key(self, key: str, stated: str) -> tuple[Caller, tuple[str, ...]]:
        """Return the caller, and what it may state of itself."""
        if not key.isascii() or not 0 < len(key) <= _MAX_KEY_CHARS:
            raise UnknownCredential
        found = self._clients.find_by_key(self._hash(key))
        if found is None:
            raise UnknownCredential
        client, credential = found
        caller = Caller(
            tenant=self._tenant,
            client=client.name,
            team=client.team,
            roles=client.roles,
            purpose=_purpose(client, stated),
            credential_id=credential.credential_id,
            source="api_key",
        )
        return caller, client.may_assert

    def _by_token(self, presented: _Presented, now_s: float) -> Caller:
        for source in presented.sources:
            if not isinstance(source, JwtSource):
                continue
            try:
                claims = source.verifier.verify(presented.text, now_s)
            except UnknownCredential:
                continue
            caller = _caller_of(claims, source)
            if caller.client == ANONYMOUS or self._clients.find(caller.client) is not None:
                # The two would share grants and budgets; and who revokes a client means every call in its name.
                raise UnknownCredential("the token names a client that is registered here, or 'anonymous'")
            return replace(caller, tenant=self._tenant)
        raise UnknownCredential


def _token(header: str, value: str) -> str | None:
    """Return the token of `Bearer …` (RFC 6750), empty if there is none behind it.

    None in `Authorization` for another scheme, which is between the caller and the upstream. A header that exists for
    tokens alone has no other schemes: whatever stands there was meant as one.
    """
    found = _BEARER.match(value)
    if found is not None:
        value = value[found.end() :].strip(" ")
    elif header == "authorization":
        if _BEARER_BEHIND.search(value):
            raise AmbiguousCredentials("the header authorization holds more than one scheme")
        return None
    return value.strip(" ")


def _stated_purpose(headers: Headers) -> str:
    values = [value for name, value in headers if name.lower() == PURPOSE_HEADER]
    if not values:
        return ""
    if len(values) > 1 or not PURPOSE.fullmatch(values[0]):
        raise RequestMalformed(f"{PURPOSE_HEADER} holds one purpose: 1 to 64 letters, digits, '.', '_', '-'")
    return values[0]


def _purpose(client: ClientRecord, stated: str) -> str:
    return stated if stated and "purpose" in client.may_assert else client.purpose


def _caller_of(claims: Mapping[str, object], source: JwtSource) -> Caller:
    """Return what a verified token says. A fact of the wrong shape is missing; a client must be there."""
    purpose = claims.get(source.purpose_claim)
    country, network = claims.get(source.country_claim), claims.get(source.network_claim)
    return Caller(
        tenant="",
        client=_client_of(claims, source.client_claim),
        user=_text(claims.get(source.user_claim)),
        team=_text(claims.get(source.team_claim)),
        roles=_roles(claims.get(source.roles_claim)),
        claims=_exposed(claims),
        purpose=purpose if isinstance(purpose, str) and PURPOSE.fullmatch(purpose) else "",
        country=country if isinstance(country, str) and is_country(country) else "",
        network=network if isinstance(network, str) and is_network(network) else "",
        issuer=_text(claims.get("iss")),
        credential_id=_text(claims.get("jti")),
        source="jwt",
    )


def _client_of(claims: Mapping[str, object], client_claim: str) -> str:
    names = (client_claim,) if client_claim else _CLIENT_CLAIMS
    for name in names:
        if name in claims:
            # A claim that is there and no name is not passed over for the next: the token is not what it should be.
            client = _text(claims[name])
            break
    else:
        subject = "" if client_claim else _text(claims.get("sub"))
        # Users choose their own subject with some issuers, so it must not meet a policy's `client: 'acme-*'`.
        client = f"sub:{subject}" if subject else ""
    if not client:
        raise UnknownCredential("the token names no client")
    return client


def _text(value: object) -> str:
    """Return a claim that is a name (text, or a whole number as some issuers have it), else empty."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_INTEGER:
        value = str(value)
    return value if isinstance(value, str) and is_fact(value) else ""


def _roles(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Sequence) or not all(isinstance(role, str) and is_fact(role) for role in value):
        return ()
    return tuple(dict.fromkeys(value))


def _exposed(claims: Mapping[str, object]) -> Mapping[str, object]:
    """Return the claims that a policy can compare: scalars, and lists of scalars as tuples."""
    out: dict[str, object] = {}
    for name, value in list(claims.items())[:_MAX_CLAIMS]:
        if isinstance(value, str | int | float):
            out[name] = value
        elif isinstance(value, list | tuple) and all(isinstance(item, str | int | float) for item in value):
            out[name] = tuple(value)
    return MappingProxyType(out)
