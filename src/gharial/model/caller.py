"""Who asks, and over which route: verified facts only.

A fact that could not be verified is not here; it is missing, and policy treats a missing fact as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

ANONYMOUS = "anonymous"
"""The client of a call that presented no credential."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The verified identity of who asks.

    `client` is the stable name that policies, budgets and incidents use; `credential_id` names the credential, so that
    it can be revoked, and never takes part in a budget. `claims` holds scalars or tuples of scalars. `purpose` is the
    one purpose of this exchange or empty. `country` (ISO 3166-1 alpha-2) and `network` ("tor", "hosting", …) are empty
    where nobody vouched for them. `source` says what vouched for the rest (`api_key`, `jwt`, `none`).
    """

    tenant: str
    client: str = ANONYMOUS
    user: str = ""
    team: str = ""
    roles: tuple[str, ...] = ()
    claims: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    purpose: str = ""
    country: str = ""
    network: str = ""
    issuer: str = ""
    credential_id: str = ""
    source: str = "none"

    @property
    def principal(self) -> str:
        """(tenant, client, user) as one text: what budgets and incidents are kept for. Never a credential."""
        return "\x1f".join((self.tenant, self.client, self.user))


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """The route that a normalised path matched. `params` are percent-decoded path parameters in template order."""

    route: str
    params: Mapping[str, str]
