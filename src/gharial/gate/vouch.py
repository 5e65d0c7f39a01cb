"""Callers that embedding code vouches for: stated in Python, checked for their form alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from gharial.gate.clients import PURPOSE, is_fact
from gharial.gate.facts import is_country, is_network
from gharial.model import caller as model
from gharial.model.errors import CallerInvalid

SOURCE = "embedded"
"""What vouched for such a caller, in the audit."""

_MAX_CLAIMS = 256
_MAX_INTEGER = 2**63


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the embedding code knows it. Whatever is left out is a missing fact; no client: `anonymous`.

    `client`, `user`, `team` and each role are 1 to 128 printable characters; budgets are kept per client and user.
    `claims` hold scalars, or lists of scalars. `country` is a code of ISO 3166-1 (`DE`), `network` a kind (`hosting`).
    Raises CallerInvalid, which names the fact and not what it holds.

    >>> Caller(client="crm", roles=["care"], purpose="support").roles
    ('care',)
    """

    client: str = model.ANONYMOUS
    user: str = ""
    team: str = ""
    roles: Sequence[str] = ()
    claims: Mapping[str, object] = field(default_factory=dict, repr=False)
    purpose: str = ""
    country: str = ""
    network: str = ""

    def __post_init__(self) -> None:
        for name in ("client", "user", "team", "purpose", "country", "network"):
            if not isinstance(getattr(self, name), str):
                raise CallerInvalid(f"{name} is a text")
        if isinstance(self.roles, str) or not all(isinstance(role, str) and is_fact(role) for role in self.roles):
            raise CallerInvalid("roles is a list of names")
        for name, text in (("client", self.client), ("user", self.user), ("team", self.team)):
            if not is_fact(text) and (text or name == "client"):
                raise CallerInvalid(f"{name} is 1 to 128 printable characters, without a space at either end")
        if self.purpose and not PURPOSE.fullmatch(self.purpose):
            raise CallerInvalid("purpose is 1 to 64 letters, digits, '.', '_', '-'")
        if self.country and not is_country(self.country):
            raise CallerInvalid("country is two capital letters, ISO 3166-1")
        if self.network and not is_network(self.network):
            raise CallerInvalid("network is a kind of network, e.g. hosting")
        # Copies: what the embedding code does to its own list or mapping later changes no caller.
        object.__setattr__(self, "roles", tuple(dict.fromkeys(self.roles)))
        object.__setattr__(self, "claims", MappingProxyType(_checked_claims(self.claims)))

    def verified(self, tenant: str, purpose: str = "") -> model.Caller:
        """Return the caller as policies see it; `purpose`, if there is one, in the place of its own."""
        if purpose and not (isinstance(purpose, str) and PURPOSE.fullmatch(purpose)):
            raise CallerInvalid("purpose is 1 to 64 letters, digits, '.', '_', '-'")
        return model.Caller(
            tenant=tenant,
            client=self.client,
            user=self.user,
            team=self.team,
            roles=tuple(self.roles),
            claims=self.claims,
            purpose=purpose or self.purpose,
            country=self.country,
            network=self.network,
            source=SOURCE,
        )


def _checked_claims(claims: object) -> dict[str, object]:
    if not isinstance(claims, Mapping) or len(claims) > _MAX_CLAIMS:
        raise CallerInvalid(f"claims are a mapping of at most {_MAX_CLAIMS} names")
    found: dict[str, object] = {}
    for name, value in claims.items():
        items = value if isinstance(value, list | tuple) else (value,)
        if not isinstance(name, str) or not all(map(_is_scalar, items)):
            raise CallerInvalid("a claim is a text, a number, true or false, or a list of these")
        found[name] = tuple(value) if isinstance(value, list | tuple) else value
    return found


def _is_scalar(value: object) -> bool:
    if isinstance(value, bool | str):
        return True
    if isinstance(value, int):
        return abs(value) < _MAX_INTEGER
    return isinstance(value, float) and value - value == 0  # neither infinite nor not a number
