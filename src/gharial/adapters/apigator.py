"""The endpoints that clients of APIgator know, on the gate's own API listener (docs/apigator.md).

`POST /apigator/identity/v1/token` and `POST /apigator/protect/v1/dataset`. Only the wire is here; what is shown is
decided where everything is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import unquote_plus

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gharial.adapters.reveal_api import BODY_TIMEOUT_S, MAX_IN_FLIGHT, Log, api_headers, problem
from gharial.gate.datasets import TOKEN_S, Ask, Datasets, JobType
from gharial.gate.direct import JSON, XML
from gharial.gate.headers import refusal_headers
from gharial.model.errors import (
    AmbiguousCredentials,
    GateFull,
    GharialError,
    NoRoute,
    RequestMalformed,
    RequestTooLarge,
    RequestUnreadable,
    TooManyCalls,
    UnknownCredential,
)

PREFIX = "/apigator/"
TOKEN_PATH = "/apigator/identity/v1/token"  # noqa: S105 - a path
DATASET_PATH = "/apigator/protect/v1/dataset"
MAX_FORM_BYTES = 10_000
MAX_RESTRICTED_CHARS = 256
MAX_HELD_BYTES = 128_000_000
"""Bytes of all data sets that are under way; more are refused."""

_FORM = "application/x-www-form-urlencoded"
_BEARER = re.compile(r"bearer[ ]+([A-Za-z0-9._~+/=-]{1,512})[ ]*", re.IGNORECASE)
_MEDIA = {"JSON": JSON, "XML": XML}
_FORM_FIELDS = ("client_id", "client_secret", "grant_type")


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    claims: list[dict[str, Any]] = []


class _Body(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    manifest_name: str
    job_type: JobType
    country_code: str
    data_set: str
    protect_null_values: bool
    preserve_string_length: bool
    data_owning_country_code: str | None = None
    data_usage_id: Annotated[int, msgspec.Meta(ge=0)] | None = None
    snapshot_date: str | None = None
    restricted_text: str | None = None
    sql_type: str | None = None
    classification_model: str | None = None
    third_party_identifer: dict[str, Any] | None = None
    matching_rule: _Rule | None = None


_DECODER = msgspec.json.Decoder(_Body)


class ApigatorApi:
    """The ASGI application. What goes wrong is answered with problem details (RFC 6749 where tokens are fetched)."""

    def __init__(self, datasets: Datasets, *, max_bytes: int, new_id: Callable[[], str], log: Log) -> None:
        """`max_bytes` is the longest data set; in its envelope it may be twice as long."""
        self._datasets = datasets
        self._max_bytes = max_bytes
        self._new_id = new_id
        self._log = log
        self._under_way = 0
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] != "http":
            return
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if self._under_way >= MAX_IN_FLIGHT:
            return problem(GateFull(), self._new_id())
        self._under_way += 1
        try:
            path = request.scope["path"]
            if request.method == "POST" and path == TOKEN_PATH:
                return await self._token(request)
            if request.method == "POST" and path == DATASET_PATH:
                return await self._dataset(request)
            return problem(NoRoute(), self._new_id())
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except GharialError as error:
            return problem(error, self._new_id())
        except Exception as error:  # noqa: BLE001 - a bug of ours; its text may quote a value, so its type must do
            self._log("apigator.crashed", error=type(error).__name__)
            return problem(GharialError(), self._new_id())
        finally:
            self._under_way -= 1

    # --- tokens ---------------------------------------------------------------------------------------------------

    async def _token(self, request: Request) -> Response:
        try:
            fields = _form(await _read(request, MAX_FORM_BYTES))
        except GharialError:
            return _oauth_error(400, "invalid_request")
        if fields is None or not all(fields.get(name) for name in _FORM_FIELDS):
            return _oauth_error(400, "invalid_request")
        if fields["grant_type"][0] != "client_credentials":
            return _oauth_error(400, "unsupported_grant_type")
        try:
            key = _single(request, "x-api-key")
            token = self._datasets.issue_token(key, fields["client_id"][0], fields["client_secret"], _peer(request))
        except TooManyCalls as error:
            return _oauth_error(429, "invalid_client", dict(refusal_headers(error)))
        except (UnknownCredential, AmbiguousCredentials):
            return _oauth_error(401, "invalid_client")
        answer = {
            "access_token": token,
            "expires_in": TOKEN_S,
            "token_type": "bearer",
            "scope": "dataset",
            "refresh_token": None,
        }
        return Response(msgspec.json.encode(answer), headers=_NO_STORE, media_type=JSON)

    # --- data sets ------------------------------------------------------------------------------------------------

    async def _dataset(self, request: Request) -> Response:
        key, bearer = _single(request, "x-api-key"), _BEARER.fullmatch(_single(request, "x-resource-token").strip())
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw)
        admitted = self._datasets.admit(key, bearer[1] if bearer else "", headers, _peer(request))
        media_type = _MEDIA.get(_single(request, "x-data-set-type").strip().upper())
        if media_type is None:
            raise RequestUnreadable
        with self._holding() as hold:
            ask = _ask_of(await _read(request, 2 * self._max_bytes, hold), media_type)
            protected = await self._datasets.protect(admitted, ask)
        told = {**api_headers(protected.exchange_id), "gharial-decision": protected.decision}
        if protected.withheld:
            told["gharial-withheld"] = ",".join(protected.withheld)
        return Response(msgspec.json.encode({"dataSet": protected.text}), headers=told, media_type=JSON)

    @contextmanager
    def _holding(self) -> Iterator[Callable[[int], None]]:
        """Count the bytes of one call as long as it is under way. What is given raises GateFull for too many of all."""
        own = 0

        def hold(size: int) -> None:
            nonlocal own
            own += size
            self._held_bytes += size
            if self._held_bytes > max(MAX_HELD_BYTES, 2 * self._max_bytes):
                raise GateFull

        try:
            yield hold
        finally:
            self._held_bytes -= own


def _ask_of(body: bytes, media_type: str) -> Ask:
    try:
        found = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not `from`: the text of the cause may quote what was sent.
        raise RequestMalformed("the body is not the JSON object that this endpoint takes") from None
    restricted = found.restricted_text
    if restricted is not None and (len(restricted) > MAX_RESTRICTED_CHARS or not restricted.isprintable()):
        raise RequestMalformed(f"restrictedText is at most {MAX_RESTRICTED_CHARS} printable characters")
    return Ask(
        manifest=found.manifest_name,
        job=found.job_type,
        text=found.data_set,
        media_type=media_type,
        purpose="" if found.data_usage_id is None else str(found.data_usage_id),
        country=found.country_code,
        claims=_claims_of(found.matching_rule.claims if found.matching_rule else ()),
        snapshot=found.snapshot_date or "",
        restricted=restricted,
        same_length=found.preserve_string_length,
        nulls=found.protect_null_values,
    )


def _claims_of(stated: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Return the claims of both shapes; of one name that comes more than once, a list of its values."""
    pairs: list[tuple[str, Any]] = []
    for claim in stated:
        if "attributeName" not in claim and "attributeValue" not in claim:
            pairs.extend(claim.items())
        elif set(claim) == {"attributeName", "attributeValue"} and isinstance(claim["attributeName"], str):
            pairs.append((claim["attributeName"], claim["attributeValue"]))
        else:
            raise RequestMalformed("a claim has attributeName and attributeValue, or names of its own")
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        found.setdefault(name, []).extend(value if isinstance(value, list) else [value])
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _form(body: bytes) -> dict[str, list[str]] | None:
    """Return each field once, in its readings: percent-decoded and, where that differs, as it came. None: ambiguous."""
    found: dict[str, list[str]] = {}
    for part in body.decode("latin-1").split("&"):
        name, _, raw = part.partition("=")
        if name in found:
            return None
        found[name] = list(dict.fromkeys((unquote_plus(raw), raw))) if raw else []
    return found


def _hold_little(_: int) -> None:
    """Forms are small: nobody counts them."""


async def _read(request: Request, limit: int, hold: Callable[[int], None] = _hold_little) -> bytes:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in ("", JSON, _FORM) or "content-encoding" in request.headers:
        raise RequestUnreadable
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                hold(len(chunk))
                body += chunk
                if len(body) > limit:
                    raise RequestTooLarge
    except TimeoutError:
        raise RequestMalformed("the body did not come in time") from None
    return bytes(body)


def _single(request: Request, name: str) -> str:
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise AmbiguousCredentials(f"the header {name} came twice")
    return values[0] if values else ""


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""


_NO_STORE = {"cache-control": "no-store", "pragma": "no-cache", "x-content-type-options": "nosniff"}


def _oauth_error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error of RFC 6749, section 5.2."""
    content = msgspec.json.encode({"error": code})
    return Response(content, status_code=status, headers={**_NO_STORE, **(headers or {})}, media_type=JSON)
