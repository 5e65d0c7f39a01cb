"""gharial.yaml: what one gateway is made of. Reads the text; every mistake at once, with line and column.

Secrets are references (`env:NAME`, `file:PATH`), never literals. Relative paths count from the file's folder.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from gharial.gate.routes import TemplateError, parse_template
from gharial.model.errors import ConfigInvalid, Problem
from gharial.model.yaml_text import Node, find_place, parse_yaml, to_plain

_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s|min|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]{1,12})(B|KB|MB|GB|KiB|MiB|GiB)?")
_BYTES = {None: 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_MANIFEST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]{1,64}")


def parse_duration_s(value: object) -> float:
    """Read a duration with its unit, at most a day. Raises ValueError."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a duration is written with its unit, e.g. 500ms, 15s, 2min, 1h")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0.001 <= seconds <= 86_400:
        raise ValueError("a duration lies between 1ms and 24h")
    return seconds


def parse_size_bytes(value: object) -> int:
    """Read a number of bytes, with or without a unit. Raises ValueError."""
    match = _SIZE.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if match is None or int(match[1]) == 0:
        raise ValueError("a size is a number of bytes, or one with its unit, e.g. 32KB, 16MB")
    return int(match[1]) * _BYTES[match[2]]


def _parse_file(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) or not value.startswith("file:") or len(value) == len("file:"):
        raise ValueError("write it as file:PATH")
    # Made absolute here, because Envoy, which opens some of these files itself, has another working folder.
    return Path((info.context or {}).get("base", ""), value.removeprefix("file:"))


def _check_secret(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+", value):
        raise ValueError("a secret is a reference, env:NAME or file:PATH; never the secret itself")
    return value


def _check_header(value: object) -> object:
    if not isinstance(value, str) or not _HEADER.fullmatch(value):
        raise ValueError("this is not a header name")
    return value


def _check_hop(value: object) -> object:
    try:
        network = ipaddress.ip_network(value) if isinstance(value, str) else None
    except ValueError:
        network = None
    if network is None:
        raise ValueError("a hop is an address or a network without host bits, e.g. 10.1.2.3 or 10.0.0.0/8")
    if network.prefixlen == 0:
        raise ValueError("this network holds every address: anybody would be believed")
    return value


DurationS = Annotated[float, BeforeValidator(parse_duration_s)]
SizeBytes = Annotated[int, BeforeValidator(parse_size_bytes)]
FilePath = Annotated[Path, BeforeValidator(_parse_file)]
Secret = Annotated[str, BeforeValidator(_check_secret)]
HeaderName = Annotated[str, BeforeValidator(_check_header)]
Hop = Annotated[str, BeforeValidator(_check_hop)]


def _split_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # The text of this error quotes what stands there, and that may be a part of a password.
        raise ValueError("url can't be read: what stands as its host or port is neither") from None
    return parts


class _Section(BaseModel):
    # `hide_input_in_errors`: what stands in a file by mistake may be a secret, and no error may show it.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=True)


class ListenTls(_Section):
    """TLS towards clients: files in PEM."""

    cert: FilePath = Field(description="file:PATH of the certificate chain in PEM.")
    key: FilePath = Field(description="file:PATH of the private key in PEM.")


class Listen(_Section):
    """Where clients connect."""

    address: str = Field("127.0.0.1", description="IP address to listen on; loopback unless you say otherwise.")
    port: int = Field(8080, ge=1, le=65535, description="TCP port to listen on.")
    tls: ListenTls | None = Field(None, description="Serve HTTPS (HTTP/1.1 and HTTP/2) with these files.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        ipaddress.ip_address(self.address)
        return self


class Api(_Section):
    """The reveal API, on a listener of the gate's own; without this section it is not there."""

    address: str = Field("127.0.0.1", description="IP address to listen on; any but loopback needs api.tls.")
    port: int = Field(8082, ge=1, le=65535, description="TCP port to listen on.")
    tls: ListenTls | None = Field(None, description="Serve HTTPS (HTTP/1.1) with these files.")
    calls_per_minute: int = Field(
        600, ge=1, le=1_000_000, description="How many calls a minute each client has; a sixth of it at once."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.tls is None and not ipaddress.ip_address(self.address).is_loopback:
            raise ValueError("clear values leave here: an address that is not loopback needs api.tls")
        return self


class Admin(_Section):
    """Where the command line talks to the running gateway."""

    socket: Path = Field(Path("run/admin.sock"), description="Unix socket of mode 0600, for the same user only.")


class Upstream(_Section):
    """An API behind the gateway."""

    url: str = Field(description="http:// or https://, a host and maybe a port; no path.")
    ca: FilePath | None = Field(None, description="file:PATH of the CA for its certificate; else the system's CAs.")
    host: str | None = Field(None, description="Host header and SNI; by default the URL's host.")
    timeout_s: DurationS = Field(15.0, alias="timeout", description="How long an answer may take in all, e.g. 15s.")
    credentials: str = Field(
        "forward",
        description="What becomes of a company's own token: `forward` unchanged, `strip`, or `inject: env:NAME` "
        "(sent as the Authorization header).",
    )
    resolver: str | None = Field(None, description="ADDRESS:PORT of the DNS server to ask; by default the system's.")

    @model_validator(mode="before")
    @classmethod
    def _read_inject(cls, data: Any) -> Any:
        """`inject: env:NAME` is a mapping in YAML where it stands alone; both spellings are one setting."""
        if isinstance(data, dict) and isinstance(data.get("credentials"), dict):
            inner = data["credentials"]
            if set(inner) == {"inject"} and isinstance(inner["inject"], str):
                return {**data, "credentials": f"inject: {inner['inject']}"}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = _split_url(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError("url is http:// or https:// with a host, and no user or password in it")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("url has no path or query; routes say which paths go there")
        if self.credentials not in ("forward", "strip"):
            _check_secret(self.credentials.removeprefix("inject:").strip())
            if not self.credentials.startswith("inject:"):
                raise ValueError("credentials is forward, strip, or inject: env:NAME")
        if self.resolver is not None:
            address, _, port = self.resolver.rpartition(":")
            ipaddress.ip_address(address.strip("[]"))
            if not port.isdecimal() or not 1 <= int(port) <= 65535:
                raise ValueError("resolver is ADDRESS:PORT, e.g. 127.0.0.1:53")
        return self

    @property
    def tls(self) -> bool:
        """True for https."""
        return self.url.startswith("https:")

    @property
    def address(self) -> str:
        """The host of the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port of the URL, or the scheme's own."""
        return urlsplit(self.url).port or (443 if self.tls else 80)

    @property
    def host_header(self) -> str:
        """What the upstream gets as Host: `host`, or the URL's host with a port that is not the scheme's own."""
        return self.host or urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def inject_reference(self) -> str:
        """The reference of the credential to inject, or empty."""
        return self.credentials.removeprefix("inject:").strip() if self.credentials.startswith("inject:") else ""


class Route(_Section):
    """One line of `routes`: the first that matches wins, and a path that none matches is answered with 404."""

    route: str = Field(description="The route's name, for status, audit and `gharial policy`.")
    match: str = Field(description="'METHOD /path/{parameter}'; several methods 'GET,POST'; 'ANY'; a final '/**'.")
    upstream: str = Field(description="The name of an entry of `upstreams`.")
    policy: str | None = Field(None, description="The name of the policy that covers this route.")
    pass_: bool = Field(False, alias="pass", description="true: passes unprotected, and is counted apart.")
    stream: bool = Field(False, description="true: rows leave one by one as they come, without an end to wait for.")
    keep_headers: tuple[HeaderName, ...] = Field(
        (), description="Response headers that pass on an enforced route besides the known-safe ones."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not _NAME.fullmatch(self.route):
            raise ValueError("a route's name has letters, digits, '-' and '_', and begins with a letter")
        if self.pass_ == (self.policy is not None):
            raise ValueError("a route has either 'policy: NAME' or 'pass: true'")
        try:
            parse_template(self.match)
        except TemplateError as error:
            raise ValueError(str(error)) from None
        return self


class ApiKeys(_Section):
    """Gharial's own keys, made with `gharial clients add`; removed before the upstream."""

    header: HeaderName = Field("X-Api-Key", description="The request header that carries the key.")


class Jwt(_Section):
    """A company's JSON Web Tokens, checked against a JWKS file."""

    issuer: str = Field(description="The only `iss` that is accepted.")
    audience: str = Field(description="The `aud` that a token must name.")
    jwks: FilePath = Field(description="file:PATH of the issuer's public keys (JWKS); re-read when it changes.")
    header: HeaderName = Field("Authorization", description="The request header; its value begins with 'Bearer '.")
    client_claim: str = Field("", description="The claim that names the client; else client_id, azp, sub.")
    user_claim: str = Field("sub", description="The claim that names the user.")
    team_claim: str = Field("team", description="The claim that names the team.")
    roles_claim: str = Field("roles", description="The claim that lists the roles.")
    purpose_claim: str = Field("purpose", description="The claim that names the purpose.")
    country_claim: str = Field("country", description="The claim that names the caller's country (ISO 3166-1).")
    network_claim: str = Field("network", description="The claim that names the kind of network the caller is in.")


class ManifestSettings(_Section):
    """What a `manifestName` stands for."""

    policy: str = Field(description="The name of the policy that says what is shown.")
    public: tuple[str, ...] = Field(
        ("public",), description="Tags of the policy to which no job type applies: they are as the policy shows them."
    )


class IdentitySource(_Section):
    """One entry of `identity`: exactly one of the two."""

    api_keys: ApiKeys | None = Field(None, description="Accept Gharial's own API keys.")
    jwt: Jwt | None = Field(None, description="Accept a company's JSON Web Tokens.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.api_keys is None) == (self.jwt is None):
            raise ValueError("an entry of identity is either 'api_keys: {…}' or 'jwt: {…}'")
        return self


class FactHeader(_Section):
    """A header in which a hop tells a fact."""

    header: HeaderName = Field(description="The header's name; believed from hops alone, removed from every request.")


class FactSettings(_Section):
    """Where facts about callers come from that no credential tells."""

    country: FactHeader | None = Field(None, description="A hop tells the caller's country in a header.")
    network: FactHeader | None = Field(None, description="A hop tells the kind of the caller's network in a header.")
    geo: FilePath | None = Field(
        None, description="file:PATH of a MaxMind file that tells the country of an address (pip install gharial[geo])."
    )


class ConsentSql(_Section):
    """A query that tells what a person consented to."""

    database: str = Field(description="sqlite:PATH; opened for reading only.")
    query: str = Field(description="One SELECT with :space and :person; its first column are the kinds of consent.")
    timeout_s: DurationS = Field(1.0, alias="timeout", description="How long one exchange may wait for its answers.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not re.fullmatch(r"sqlite:.+", self.database):
            raise ValueError("database is sqlite:PATH; a PostgreSQL server is 'postgres: {…}'")
        if ":person" not in self.query:
            raise ValueError("the query asks for one person: WHERE … = :person (and :space, the id space)")
        return self


class ConsentPostgres(_Section):
    """A PostgreSQL server that tells what people consented to."""

    url: str = Field(description="postgresql://USER@HOST:PORT/DATABASE, or …@/DATABASE?host=/FOLDER of a socket.")
    query: str = Field(description="One SELECT about asked.space and asked.person; its column: kinds of consent.")
    password: Secret | None = Field(None, description="env:NAME or file:PATH of the user's password.")
    ca: FilePath | None = Field(None, description="file:PATH of the CA for its certificate; else the system's CAs.")
    timeout_s: DurationS = Field(1.0, alias="timeout", description="How long one exchange may wait for its answers.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = _split_url(self.url)
        if parts.scheme != "postgresql" or parts.password is not None:
            raise ValueError("url is postgresql://USER@HOST:PORT/DATABASE, the password a reference of its own")
        if "asked.person" not in self.query:
            raise ValueError("the query asks for one person: WHERE … = asked.person (and asked.space, the id space)")
        return self


class ConsentHttp(_Section):
    """A service that tells what people consented to."""

    url: str = Field(description="http:// or https://; asked by POST with a JSON list of people.")
    timeout_s: DurationS = Field(1.0, alias="timeout", description="How long one exchange may wait for its answers.")
    cache_s: DurationS = Field(60.0, alias="cache", description="How long an answer is kept, a negative one too.")
    cache_people: int = Field(100_000, ge=0, le=10_000_000, description="How many people's answers are kept.")
    authorization: Secret | None = Field(None, description="env:NAME or file:PATH of the Authorization header to send.")
    ca: FilePath | None = Field(None, description="file:PATH of the CA for its certificate; else the system's CAs.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = _split_url(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError("url is http:// or https:// with a host, and no user or password in it")
        return self


class ConsentSettings(_Section):
    """Who is asked what people consented to: exactly one of the four."""

    file: FilePath | None = Field(None, description="file:PATH of a YAML or JSON file; re-read when it changes.")
    sql: ConsentSql | None = Field(None, description="A query over a SQLite file.")
    postgres: ConsentPostgres | None = Field(None, description="A query at a PostgreSQL server.")
    http: ConsentHttp | None = Field(None, description="A service, asked by HTTP.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(source is not None for source in (self.file, self.sql, self.postgres, self.http)) != 1:
            raise ValueError("consent is one of 'file: …', 'sql: {…}', 'postgres: {…}', 'http: {…}'")
        return self


class TransitKekSettings(_Section):
    """A key of the transit engine of Vault or OpenBao."""

    url: str = Field(description="https:// with a host; http:// to this machine alone.")
    key: str = Field("gharial", description="The name of the key, of type aes256-gcm96.")
    mount: str = Field("transit", description="Where the engine is mounted.")
    namespace: str = Field("", description="The namespace, where there are any.")
    token: Secret = Field(description="env:NAME or file:PATH of a token that may update encrypt/KEY and decrypt/KEY.")
    ca: FilePath | None = Field(None, description="file:PATH of the CA for its certificate; else the system's CAs.")
    timeout_s: DurationS = Field(5.0, alias="timeout", description="How long one answer may take.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_kms_url(self.url)
        for name, text in (("key", self.key), ("mount", self.mount), ("namespace", self.namespace)):
            if not _VAULT_PATH.fullmatch(text) and (text or name != "namespace"):
                raise ValueError(f"{name} has letters, digits, '-', '_', '.' and '/' between them")
        return self


class AwsKekSettings(_Section):
    """A symmetric key of AWS KMS."""

    key: str = Field(min_length=1, max_length=2_048, description="A key id, ARN, alias/NAME or alias ARN.")
    region: str = Field(description="The region, e.g. eu-central-1.")
    endpoint: str | None = Field(None, description="Another endpoint than the region's, e.g. of a VPC.")
    timeout_s: DurationS = Field(5.0, alias="timeout", description="How long to connect, and how long to read.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not re.fullmatch(r"[a-z0-9-]{1,40}", self.region):
            raise ValueError("region is one of AWS, e.g. eu-central-1")
        if self.endpoint is not None:
            _check_kms_url(self.endpoint)
        return self


class GoogleKekSettings(_Section):
    """A symmetric key of Google Cloud KMS."""

    key: str = Field(description="Its full name: projects/P/locations/L/keyRings/R/cryptoKeys/K.")
    endpoint: str | None = Field(None, description="Another endpoint than Google's own, e.g. a private one.")
    timeout_s: DurationS = Field(5.0, alias="timeout", description="How long one answer may take.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not re.fullmatch(r"projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+", self.key):
            raise ValueError("key is projects/P/locations/L/keyRings/R/cryptoKeys/K")
        if self.endpoint is not None:
            _check_kms_url(self.endpoint)
        return self


class Pkcs11KekSettings(_Section):
    """An AES-256 key in a PKCS #11 token, such as an HSM."""

    module: FilePath = Field(description="file:PATH of the vendor's library.")
    token: str = Field(min_length=1, max_length=32, description="The token's label.")
    key: str = Field(min_length=1, max_length=256, description="The key's label.")
    pin: Secret = Field(description="env:NAME or file:PATH of the user PIN.")


_VAULT_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


def _check_kms_url(url: str) -> None:
    parts = _split_url(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise ValueError("url is https:// with a host, and no user or password in it")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("url has no path or query")
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError("url is https://: keys and tokens leave this machine under TLS alone")


class VaultPostgres(_Section):
    """A PostgreSQL database that keeps what random tokens stand for."""

    url: str = Field(description="postgresql://USER@HOST:PORT/DATABASE, or …@/DATABASE?host=/FOLDER of a socket.")
    password: Secret | None = Field(None, description="env:NAME or file:PATH of the user's password.")
    ca: FilePath | None = Field(None, description="file:PATH of the CA for its certificate; else the system's CAs.")
    timeout_s: DurationS = Field(2.0, alias="timeout", description="How long one question may take.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = _split_url(self.url)
        if parts.scheme != "postgresql" or parts.password is not None:
            raise ValueError("url is postgresql://USER@HOST:PORT/DATABASE, the password a reference of its own")
        return self


class VaultSettings(_Section):
    """Where it is kept what tokens of `token(from=vault)` stand for."""

    postgres: VaultPostgres = Field(description="A PostgreSQL database, which several gateways may share.")


class KekSettings(_Section):
    """The key that wraps the key file: exactly one of these."""

    bytes_: Secret | None = Field(
        None,
        alias="bytes",
        description="env:NAME or file:PATH of 32 random bytes in base64; `kek: env:NAME` for short.",
    )
    passphrase: Secret | None = Field(
        None, description="env:NAME or file:PATH of a passphrase of 12 characters or more."
    )
    transit: TransitKekSettings | None = Field(None, description="A key of the transit engine of Vault or OpenBao.")
    aws: AwsKekSettings | None = Field(None, description="A key of AWS KMS (pip install gharial[aws]).")
    google: GoogleKekSettings | None = Field(
        None, description="A key of Google Cloud KMS (pip install gharial[google])."
    )
    pkcs11: Pkcs11KekSettings | None = Field(
        None, description="A key in a PKCS #11 token, such as an HSM (pip install gharial[pkcs11])."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        kinds = (self.bytes_, self.passphrase, self.transit, self.aws, self.google, self.pkcs11)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError(
                "kek is env:NAME or file:PATH of 32 bytes, or one of 'passphrase: …', 'transit: {…}', 'aws: {…}', "
                "'google: {…}', 'pkcs11: {…}'"
            )
        return self

    @property
    def secret(self) -> str:
        """The reference of the secret that this KEK needs, or empty."""
        if self.transit is not None:
            return self.transit.token
        if self.pkcs11 is not None:
            return self.pkcs11.pin
        return self.bytes_ or self.passphrase or ""


def _read_kek(value: object) -> object:
    # A reference that stands alone is one of 32 bytes, as it was before there were other sorts.
    return {"bytes": _check_secret(value)} if isinstance(value, str) else value


class Keys(_Section):
    """The wrapped key file, and the key that wraps it."""

    file: Path = Field(Path("run/keys.json"), description="The wrapped keyset (mode 0600), made by `gharial init`.")
    kek: Annotated[KekSettings, BeforeValidator(_read_kek)] = Field(
        "env:GHARIAL_KEK",
        validate_default=True,
        description="What wraps it: env:NAME or file:PATH of 32 bytes, a passphrase, or a KMS.",
    )


class AuditSettings(_Section):
    """Where audit lines go."""

    dir: Path = Field(Path("run/audit"), description="The folder of the audit files.")
    rotate_bytes: SizeBytes = Field(256_000_000, alias="rotate", description="A new file after this size.")


class LimitSettings(_Section):
    """Beyond each of these a call is refused."""

    body_bytes: SizeBytes = Field(16_000_000, alias="body", le=1_000_000_000, description="Size of a response body.")
    depth: int = Field(64, ge=1, le=200, description="How deep objects and arrays may nest.")
    values: int = Field(200_000, ge=1, description="How many values a body may hold.")
    row_bytes: SizeBytes = Field(
        1_000_000, alias="row", le=100_000_000, description="Size of a row of a stream (`stream: true`)."
    )
    header_bytes: SizeBytes = Field(32_768, alias="header", le=96_000, description="Size of a message's head.")
    in_flight: int = Field(512, ge=1, le=100_000, description="How many exchanges may be under way at once.")
    inflate_ratio: int = Field(100, ge=1, description="How many times a compressed body may grow.")


class Settings(_Section):
    """The whole of gharial.yaml."""

    listen: Listen = Field(Listen(), description="Where clients connect.")
    api: Api | None = Field(None, description="Where callers have values revealed; off unless it is set.")
    admin: Admin = Field(Admin(), description="Where the command line talks to the running gateway.")
    upstreams: dict[str, Upstream] = Field(description="The APIs behind the gateway, by name.")
    routes: tuple[Route, ...] = Field(min_length=1, description="Which path goes where, and under which policy.")
    manifests: dict[str, ManifestSettings] = Field(
        {}, description="What data sets are sent for, by name: the APIgator endpoints, which need `api`."
    )
    policies: tuple[str, ...] = Field((), description="Policy files; '*' is allowed in the file's name.")
    identity: tuple[IdentitySource, ...] = Field((), description="Which credentials are believed.")
    hops: tuple[Hop, ...] = Field(
        (),
        max_length=100,
        description="Addresses and networks whose X-Forwarded-For and headers of facts are believed.",
    )
    facts: FactSettings = Field(FactSettings(), description="Facts about callers that no credential tells.")
    consent: ConsentSettings | None = Field(None, description="Who is asked what people consented to.")
    tenant: str = Field("default", description="The tenant that tokens and digests are bound to.")
    store: str = Field(
        "sqlite:run/gharial.db", description="sqlite:PATH of clients, budgets, incidents, random tokens."
    )
    vault: VaultSettings | None = Field(None, description="What random tokens stand for is kept here; else in store.")
    keys: Keys = Field(Keys(), description="The wrapped key file, and the key that wraps it.")
    alarms: tuple[str, ...] = Field((), description="Where alarms go: apprise URLs, and file://PATH for JSON lines.")
    audit: AuditSettings = Field(AuditSettings(), description="Where audit lines go.")
    limits: LimitSettings = Field(LimitSettings(), description="Beyond each of these a call is refused.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not re.fullmatch(r"sqlite:.+", self.store):
            raise ValueError("store is sqlite:PATH (PostgreSQL is not supported by this version)")
        return self


_BY_NAME = frozenset({"upstreams", "manifests"})
"""Sections whose keys are names that the author chooses."""

LATER_KEYS = frozenset({"listen.tls.client_ca", "listen.tls.reload", "admin.address", "admin.port"})
"""Keys of later versions: accepting and ignoring one would promise what is not done."""


def parse_settings(text: str, file: str, base: Path = Path()) -> Settings:
    """Read gharial.yaml. `file` is the name that mistakes carry, `base` the folder from which `file:` paths count.

    Raises ConfigInvalid with all mistakes.
    """
    root, problems = parse_yaml(text, file)
    if root is None or problems:
        raise ConfigInvalid(problems)
    try:
        settings = Settings.model_validate(to_plain(root), context={"base": base})
    except ValidationError as error:
        raise ConfigInvalid(list(_problems_of(error, root, file))) from None
    problems = list(_cross_check(settings, root, file))
    if problems:
        raise ConfigInvalid(problems)
    return settings


def load_settings(path: Path) -> Settings:
    """Read the file at `path`. Raises ConfigInvalid, also if the file can't be read."""
    return parse_settings(read_settings_text(path), str(path), path.resolve().parent)


def read_settings_text(path: Path) -> str:
    """Return what stands in the file. Raises ConfigInvalid if it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "; 'gharial init --upstream URL' writes one" if isinstance(error, FileNotFoundError) else ""
        raise ConfigInvalid([Problem(str(path), 1, 1, f"can't be read ({type(error).__name__}){hint}")]) from None


def _problems_of(error: ValidationError, root: Node, file: str) -> Iterator[Problem]:
    items = error.errors(include_input=False, include_url=False, include_context=False)
    for item in items:
        loc = item["loc"]
        if item["type"] == "too_short" and any(other["loc"][:1] == loc and len(other["loc"]) > 1 for other in items):
            continue  # its only entries are the mistaken ones, which have lines of their own
        unknown = item["type"] == "extra_forbidden"
        line, column = find_place(root, loc, key=unknown)
        yield Problem(file, line, column, _unknown_key(loc) if unknown else _sentence(item["type"], item["msg"], loc))


def _sentence(kind: str, message: str, loc: tuple[int | str, ...]) -> str:
    name = ".".join(str(part) for part in loc if isinstance(part, str))
    if kind == "missing":
        return f"'{loc[-1]}' is missing"
    text = message.removeprefix("Value error, ")
    return f"{name}: {text}" if name else text


def _unknown_key(loc: tuple[int | str, ...]) -> str:
    dotted = ".".join(str(part) for part in loc if isinstance(part, str))
    if dotted in LATER_KEYS:
        return f"'{dotted}' is not supported by this version"
    near = difflib.get_close_matches(str(loc[-1]), _sibling_keys(loc), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"unknown key '{loc[-1]}'{hint}"


def _sibling_keys(loc: tuple[int | str, ...]) -> list[str]:
    prefix = [part for part in loc[:-1] if isinstance(part, str)]
    depth = len(prefix)
    if prefix and prefix[0] in _BY_NAME and depth == 2:
        prefix = [prefix[0], "NAME"]
    return [key.split(".")[-1] for key, _ in setting_keys() if key.split(".")[:-1] == prefix]


def _cross_check(settings: Settings, root: Node, file: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, route in enumerate(settings.routes):
        if route.route in seen:
            yield Problem(file, *find_place(root, ("routes", index, "route")), f"a second route '{route.route}'")
        seen.add(route.route)
        if route.upstream not in settings.upstreams:
            near = difflib.get_close_matches(route.upstream, settings.upstreams, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            place = find_place(root, ("routes", index, "upstream"))
            yield Problem(file, *place, f"there is no upstream '{route.upstream}'{hint}")
    for name in settings.upstreams:
        if not _NAME.fullmatch(name):
            place = find_place(root, ("upstreams", name), key=True)
            yield Problem(file, *place, "an upstream's name has letters, digits, '-' and '_'")
    for name in settings.manifests:
        place = find_place(root, ("manifests", name), key=True)
        if not _MANIFEST.fullmatch(name):
            yield Problem(file, *place, "a manifest's name has letters, digits, spaces, '-', '_' and '.'")
        if settings.api is None:
            yield Problem(file, *place, "manifests: they are served by the gate's own listener; set 'api'")
        if not any(source.api_keys is not None for source in settings.identity):
            yield Problem(file, *place, "manifests: their clients show API keys; name 'api_keys' in 'identity'")
    if settings.api is not None and settings.api.port == settings.listen.port:
        yield Problem(file, *find_place(root, ("api", "port")), "api.port: the gateway itself listens there")
    if settings.api is not None and not settings.identity:
        place = find_place(root, ("api",), key=True)
        yield Problem(file, *place, "api: without 'identity' nobody could show who calls, and nothing is revealed")
    kinds = [source.model_fields_set for source in settings.identity]
    if sum("api_keys" in kind for kind in kinds) > 1:
        yield Problem(file, *find_place(root, ("identity",)), "identity may name api_keys once")
    keys = {source.api_keys.header.lower() for source in settings.identity if source.api_keys is not None}
    tokens = {source.jwt.header.lower() for source in settings.identity if source.jwt is not None}
    if keys & tokens:
        yield Problem(file, *find_place(root, ("identity",)), "api_keys and jwt can't come in the same header")
    yield from _check_fact_headers(settings, root, file, taken=keys | tokens)


_NOT_FOR_FACTS = re.compile(
    r"gharial-.*|x-gharial-.*|x-envoy-.*|x-forwarded-.*|forwarded|host|connection|content-.*|transfer-encoding"
    r"|authorization|cookie|te|upgrade|accept-encoding|if-.*|range"
)


def _check_fact_headers(settings: Settings, root: Node, file: str, *, taken: set[str]) -> Iterator[Problem]:
    """A header of facts is removed from every request, so it must be nothing else, and somebody must vouch for it."""
    seen = set(taken)
    for name, source in (("country", settings.facts.country), ("network", settings.facts.network)):
        if source is None:
            continue
        header, place = source.header.lower(), find_place(root, ("facts", name, "header"))
        if _NOT_FOR_FACTS.fullmatch(header) or header in seen:
            yield Problem(file, *place, f"facts.{name}.header: '{source.header}' has another meaning already")
        elif not settings.hops:
            yield Problem(file, *place, f"facts.{name}.header: without hops nobody vouches for it; set 'hops'")
        seen.add(header)


def setting_keys() -> Iterator[tuple[str, str]]:
    """Yield (dotted key, description) of every setting, in the order of the file; NAME stands for a name of yours."""
    yield from _keys_of(Settings, "")


def _keys_of(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in section.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key, field.description or ""
        inner = _inner_section(field.annotation)
        if inner is not None:
            yield from _keys_of(inner, f"{key}.NAME." if key in _BY_NAME else f"{key}.")


def _inner_section(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _inner_section(part)
        if found is not None:
            return found
    return None


def setting_default(key: str) -> str:
    """Return the default of a dotted key as it is written in the file, or empty where there is none."""
    section: type[BaseModel] | None = Settings
    parts = [part for part in key.split(".") if part != "NAME"]
    for index, part in enumerate(parts):
        if section is None:
            return ""
        fields: Mapping[str, Any] = {field.alias or name: field for name, field in section.model_fields.items()}
        field = fields.get(part)
        if field is None:
            return ""
        if index == len(parts) - 1:
            default = field.default
            is_plain = isinstance(default, str | int | float | bool | Path) and not field.is_required()
            return str(default) if is_plain else ""
        section = _inner_section(field.annotation)
    return ""
