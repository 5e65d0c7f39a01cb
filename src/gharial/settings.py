"""gharial.yaml: what one gateway is made of. Reads the file; every mistake at once, with line and column.

Secrets are references (`env:NAME`, `file:PATH`), never literals. Relative paths count from the file's folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ListenTls(_Section):
    """TLS towards clients: files in PEM."""

    cert: Path = Field(description="file:PATH of the certificate chain.")
    key: Path = Field(description="file:PATH of the private key.")


class Listen(_Section):
    """Where clients connect."""

    address: str = Field("127.0.0.1", description="Address to listen on; loopback unless said otherwise.")
    port: int = Field(8080, ge=1, le=65535, description="TCP port to listen on.")
    tls: ListenTls | None = Field(None, description="Serve HTTPS with these files.")


class Admin(_Section):
    """Where the command line talks to the running gateway."""

    socket: Path = Field(Path("run/admin.sock"), description="Unix socket of mode 0600, for the CLI of the same user.")


class Upstream(_Section):
    """An API behind the gateway."""

    url: str = Field(description="http:// or https://, host and optional port; no path.")
    ca: Path | None = Field(None, description="file:PATH of the CA that the upstream's certificate is checked with.")
    host: str | None = Field(None, description="Host header and SNI; the URL's host unless said otherwise.")
    timeout_s: float = Field(15.0, description="How long an answer may take in all, e.g. 15s.")
    credentials: str = Field("forward", description="forward, strip, or inject: env:NAME | file:PATH.")
    resolver: str | None = Field(None, description="ADDRESS:PORT of the DNS server to ask; the system's by default.")


class Route(_Section):
    """One line of `routes`."""

    route: str
    match: str
    upstream: str
    policy: str | None = None
    pass_: bool = Field(False, alias="pass")
    keep_headers: tuple[str, ...] = ()


class ApiKeys(_Section):
    """Gharial's own keys, made with `gharial clients add`; removed before the upstream."""

    header: str = "X-Api-Key"


class Jwt(_Section):
    """A company's JSON Web Tokens."""

    issuer: str
    audience: str
    jwks: Path
    header: str = "Authorization"
    client_claim: str = "client_id"
    user_claim: str = "sub"
    team_claim: str = "team"
    roles_claim: str = "roles"
    purpose_claim: str = "purpose"


class IdentitySource(_Section):
    """One entry of `identity`: exactly one of the two."""

    api_keys: ApiKeys | None = None
    jwt: Jwt | None = None


class Keys(_Section):
    """The wrapped key file, and the key that wraps it."""

    file: Path = Path("run/keys.json")
    kek: str = "env:GHARIAL_KEK"


class AuditSettings(_Section):
    """Where audit lines go."""

    dir: Path = Path("run/audit")
    rotate_bytes: int = 256_000_000


class LimitSettings(_Section):
    """Beyond each of these a call is refused."""

    body_bytes: int = 16_000_000
    depth: int = 64
    values: int = 200_000
    header_bytes: int = 32_768
    in_flight: int = 512
    inflate_ratio: int = 100


class Settings(_Section):
    """The whole of gharial.yaml, paths made absolute."""

    base: Path = Field(exclude=True)
    listen: Listen = Listen()
    admin: Admin = Admin()
    upstreams: dict[str, Upstream]
    routes: tuple[Route, ...]
    policies: tuple[str, ...] = ()
    identity: tuple[IdentitySource, ...] = ()
    tenant: str = "default"
    store: str = "sqlite:run/gharial.db"
    keys: Keys = Keys()
    alarms: tuple[str, ...] = ()
    audit: AuditSettings = AuditSettings()
    limits: LimitSettings = LimitSettings()


CredentialMode = Literal["forward", "strip", "inject"]
