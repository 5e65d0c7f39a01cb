"""Every failure that is expected: a stable code, whose fault it is, an HTTP status, a text that is safe to send.

A text names ids, paths and limits, never a value, a key or a token. Whatever is raised and is *not* one of these is a
bug: the adapter that catches it answers 500 and forwards nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Fault(enum.StrEnum):
    """Who can do something about a failure."""

    CALLER = "caller"
    POLICY = "policy"
    UPSTREAM = "upstream"
    GHARIAL = "gharial"


class GharialError(Exception):
    """The base of all expected failures; `code`, `status`, `fault` and `title` belong to the class.

    `title` is what a client may read. The exception's own text may say more (a path, a limit), for operators; it too
    never holds a value. Raise with `from None` where the cause could quote a payload.
    """

    code = "internal"
    status = 500
    fault = Fault.GHARIAL
    title = "The gateway could not handle this call"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or self.title)


# --- whose credential it is -------------------------------------------------------------------------------------


class UnknownCredential(GharialError):
    """A credential was presented and is not valid; such a call never falls back to `anonymous`."""

    code, status, fault = "identity.unknown_credential", 401, Fault.CALLER
    title = "The credential is not valid"


class AmbiguousCredentials(GharialError):
    """Two credentials, or one header twice: which one counts would be a guess."""

    code, status, fault = "identity.ambiguous", 400, Fault.CALLER
    title = "More than one credential was sent"


class TokenRefused(GharialError):
    """A token in the request is forged, another client's, of an unknown key, or missing where only tokens may come."""

    code, status, fault = "token.refused", 400, Fault.CALLER
    title = "A token in the request is not valid"


class TokenErased(GharialError):
    """A token in the request is this caller's own, and the person whom it is about was erased."""

    code, status, fault = "token.erased", 410, Fault.CALLER
    title = "The person whom this is about was erased"


# --- the request ------------------------------------------------------------------------------------------------


class NoRoute(GharialError):
    """No route matches the normalised path: there is no way through but a route."""

    code, status, fault = "route.none", 404, Fault.CALLER
    title = "There is nothing here"


class RouteDisagreement(GharialError):
    """Envoy and the gate matched the path to different routes."""

    code, status, fault = "route.disagreement", 500, Fault.GHARIAL
    title = "The gateway could not handle this call"


class RequestMalformed(GharialError):
    """The request can't be read in one way only: its head, or a body that must be read."""

    code, status, fault = "request.malformed", 400, Fault.CALLER
    title = "The request can't be read"


class RequestUnreadable(GharialError):
    """A request's body must be read, and is of a content type, charset or coding that is not read."""

    code, status, fault = "request.unreadable", 415, Fault.CALLER
    title = "The request's body is of a kind that can't be read"


class RequestTooLarge(GharialError):
    """A request's body must be read, and is larger than `limits.body`."""

    code, status, fault = "request.too_large", 413, Fault.CALLER
    title = "The request's body is too large"


class TooManyCalls(GharialError):
    """A client calls the gate's API, or sends wrong secrets, too often. `retry_after_s` is above 0."""

    code, status, fault = "request.too_many", 429, Fault.CALLER
    title = "Too many calls"

    def __init__(self, retry_after_s: float = 1.0) -> None:
        super().__init__()
        self.retry_after_s = retry_after_s


class ManifestUnknown(GharialError):
    """A data set was sent for a manifest that `manifests` does not name."""

    code, status, fault = "manifest.unknown", 404, Fault.CALLER
    title = "There is no such manifest"


class ManifestUnfit(GharialError):
    """The policy of the manifest is in shadow mode, or was another one at the time of the snapshot."""

    code, status, fault = "manifest.unfit", 409, Fault.POLICY
    title = "The manifest's policy can't be used for this call"


class CallerBlocked(GharialError):
    """A watch of the policy has blocked this caller for a while; `gharial incidents list` says why, `undo` ends it."""

    code, status, fault = "measure.blocked", 403, Fault.CALLER
    title = "Calls of this client are not answered for the moment"


class CallerThrottled(GharialError):
    """A watch of the policy has slowed this caller down for a while; `gharial incidents list` says why."""

    code, status, fault = "measure.throttled", 429, Fault.CALLER
    title = "This client calls too often"


class RequestProbes(GharialError):
    """The query filters or sorts by a field that this caller may not see (a guardrail with `filter_or_sort_by`)."""

    code, status, fault = "request.probes", 403, Fault.CALLER
    title = "The query asks about a field that is hidden"


class PreconditionFailed(GharialError):
    """`If-Match` holds an entity tag that was not issued to this caller under this plan."""

    code, status, fault = "request.precondition", 412, Fault.CALLER
    title = "The entity tag is not valid any more"


# --- the upstream and its answer --------------------------------------------------------------------------------


class UpstreamUnreachable(GharialError):
    """Envoy got no answer from the upstream."""

    code, status, fault = "upstream.unreachable", 502, Fault.UPSTREAM
    title = "The upstream can't be reached"


class UpstreamTimeout(GharialError):
    """The upstream did not answer in time (`upstreams.NAME.timeout`)."""

    code, status, fault = "upstream.timeout", 504, Fault.UPSTREAM
    title = "The upstream did not answer in time"


class MediaUnreadable(GharialError):
    """A protected route answered with a content type, charset or shape that no reader covers."""

    code, status, fault = "media.unreadable", 502, Fault.UPSTREAM
    title = "The upstream's answer is of a kind that can't be protected"


class CodingUnknown(GharialError):
    """The answer came in a content coding that the gate does not undo."""

    code, status, fault = "coding.unknown", 502, Fault.UPSTREAM
    title = "The upstream's answer is encoded in a way that can't be protected"


class CodingMalformed(GharialError):
    """The answer's content coding is broken, has trailing bytes, or inflates beyond `limits.inflate_ratio`."""

    code, status, fault = "coding.malformed", 502, Fault.UPSTREAM
    title = "The upstream's answer can't be decoded"


class BodyTooLarge(GharialError):
    """A body is larger than `limits.body`, as sent or after decoding."""

    code, status, fault = "body.too_large", 502, Fault.UPSTREAM
    title = "The upstream's answer is too large to be protected"


class BodyMalformed(GharialError):
    """A body is not what its format's standard says."""

    code, status, fault = "body.malformed", 502, Fault.UPSTREAM
    title = "The upstream's answer can't be read"


class BodyWrapped(GharialError):
    """The JSON of an answer stands behind a prefix against scripts (`)]}',`) or in a call (JSONP)."""

    code, status, fault = "body.wrapped", 502, Fault.UPSTREAM
    title = "The upstream's answer holds something around its JSON"


class DuplicateName(GharialError):
    """An object that the plan opens holds one name twice: which one counts would be a guess."""

    code, status, fault = "body.duplicate_name", 502, Fault.UPSTREAM
    title = "The upstream's answer holds a name twice"


class BodyTooDeep(GharialError):
    """A body nests deeper than `limits.depth`."""

    code, status, fault = "body.too_deep", 502, Fault.UPSTREAM
    title = "The upstream's answer is nested too deeply to be protected"


class TooManyValues(GharialError):
    """A body holds more values than `limits.values`."""

    code, status, fault = "body.too_many_values", 502, Fault.UPSTREAM
    title = "The upstream's answer holds too many values to be protected"


class PartialContent(GharialError):
    """A protected route answered with a part (206) although ranges are removed from requests."""

    code, status, fault = "body.partial", 502, Fault.UPSTREAM
    title = "The upstream's answer is only a part"


# --- the policy -------------------------------------------------------------------------------------------------


class PolicyExpressionFailed(GharialError):
    """A CEL expression of the policy has no outcome for this exchange: types do not fit, a number is out of range."""

    code, status, fault = "policy.expression", 500, Fault.POLICY
    title = "The gateway could not handle this call"


# --- the embedding code -----------------------------------------------------------------------------------------


class CallerInvalid(GharialError):
    """The code that embeds Gharial stated a caller that can't be one."""

    code, status, fault = "embedded.caller", 500, Fault.CALLER
    title = "The caller can't be read"


class DataUnfit(GharialError):
    """The code that embeds Gharial handed over what is no JSON: a type, a number or a text that JSON lacks."""

    code, status, fault = "embedded.data", 500, Fault.CALLER
    title = "The data is no JSON"


class OutputUnwritable(GharialError):
    """`gharial protect` can't write its result; what stood there before is unchanged."""

    code, status, fault = "embedded.output", 500, Fault.CALLER
    title = "The result can't be written"


class RouteUnfit(GharialError):
    """The code that embeds Gharial named no route, or one that protects nothing."""

    code, status, fault = "embedded.route", 500, Fault.CALLER
    title = "The route protects nothing"


# --- Gharial itself ---------------------------------------------------------------------------------------------


class GateFull(GharialError):
    """As many exchanges are under way as `limits.in_flight` allows."""

    code, status, fault = "gate.full", 503, Fault.GHARIAL
    title = "The gateway is busy"


class GateUnavailable(GharialError):
    """Envoy gets no answer from the gate; Envoy itself sends this one."""

    code, status, fault = "gate.unavailable", 503, Fault.GHARIAL
    title = "The gateway is not available"


class ProtocolViolation(GharialError):
    """Envoy announced a processing mode, or sent a message, in which a clear body could pass."""

    code, status, fault = "gate.protocol", 500, Fault.GHARIAL
    title = "The gateway could not handle this call"


class AuditUnwritable(GharialError):
    """The audit record could not be made durable, so the answer stays here."""

    code, status, fault = "audit.unwritable", 503, Fault.GHARIAL
    title = "The gateway is not available"


class StoreUnwritable(GharialError):
    """The store could not make a reservation durable, so the answer stays here."""

    code, status, fault = "store.unwritable", 503, Fault.GHARIAL
    title = "The gateway is not available"


class VaultUnavailable(GharialError):
    """The vault of random tokens could not be asked, or did not keep one, so the answer stays here."""

    code, status, fault = "vault.unavailable", 503, Fault.GHARIAL
    title = "The gateway is not available"


class StoreSchema(GharialError):
    """The store was written by a newer Gharial, or is not a store of Gharial."""

    code, status, fault = "store.schema", 503, Fault.GHARIAL
    title = "The gateway is not available"


class StoreInUse(GharialError):
    """Another process has the store open; two owners of one budget are none."""

    code, status, fault = "store.in_use", 503, Fault.GHARIAL
    title = "The gateway is not available"


class KeyUnknown(GharialError):
    """A key id is not in the keyset, or its key is disabled."""

    code, status, fault = "key.unknown", 503, Fault.GHARIAL
    title = "The gateway is not available"


class KeyFileUnusable(GharialError):
    """The key file is truncated, edited, of a newer format, or wrapped by another KEK."""

    code, status, fault = "key.file_unusable", 503, Fault.GHARIAL
    title = "The gateway is not available"


class KekUnavailable(GharialError):
    """The key-encryption key can't be asked: its KMS is down, slow, refuses, or answers with what can't be right."""

    code, status, fault = "key.kek_unavailable", 503, Fault.GHARIAL
    title = "The gateway is not available"


class KeyFileOlder(GharialError):
    """The key file lacks a key that was in use, or brings a destroyed one back: an older copy was restored."""

    code, status, fault = "key.file_older", 503, Fault.GHARIAL
    title = "The gateway is not available"


class KeyFileUnwritable(GharialError):
    """A key file could not be written; the one that stood there is whole."""

    code, status, fault = "key.file_unwritable", 503, Fault.GHARIAL
    title = "The key file can't be written"


class KeyNeeded(GharialError):
    """An operator's change of a key would cost more than keys: digests of people, credentials, keys that are in use."""

    code, status, fault = "key.needed", 409, Fault.CALLER
    title = "The key is still needed"


class AdminUnavailable(GharialError):
    """The CLI found no running gateway behind the admin socket."""

    code, status, fault = "admin.unavailable", 503, Fault.GHARIAL
    title = "No gateway is running here"


class ApiUnavailable(GharialError):
    """The CLI found no reveal API where it should be, or one that takes no calls."""

    code, status, fault = "api.unavailable", 503, Fault.GHARIAL
    title = "The reveal API can't be reached"


class NotFound(GharialError):
    """An operator named a thing that does not exist (a client, an incident)."""

    code, status, fault = "admin.not_found", 404, Fault.CALLER
    title = "There is no such thing"


class AlreadyExists(GharialError):
    """An operator named a new thing like one that exists."""

    code, status, fault = "admin.already_exists", 409, Fault.CALLER
    title = "There is one of that name already"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a file that a person wrote. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.what}"


class Invalid(GharialError):
    """A file has mistakes; all of them are in `problems`, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


class PolicyInvalid(Invalid):
    """A policy has mistakes; it never becomes active, and the one before stays."""

    code, status, fault = "policy.invalid", 500, Fault.POLICY
    title = "The policy has mistakes"


class PolicyTestsFailed(GharialError):
    """A policy's own tests fail; it is not published unless that is forced, and then it is noted in the history."""

    code, status, fault = "policy.tests_failed", 500, Fault.POLICY
    title = "The policy's tests fail"


class PolicyModeChanged(GharialError):
    """A publication would change a route's mode, and the attached proxy is not one that Gharial can tell."""

    code, status, fault = "policy.mode_changed", 409, Fault.POLICY
    title = "The policy's mode would change"


class ProxyNotChanged(GharialError):
    """A publication changes a route's mode, and the proxy did not follow; the old policies stay active."""

    code, status, fault = "policy.mode_not_taken", 503, Fault.GHARIAL
    title = "The proxy did not take the policy's new mode"


class ConfigInvalid(Invalid):
    """`gharial.yaml` has mistakes; nothing starts."""

    code, status, fault = "config.invalid", 500, Fault.GHARIAL
    title = "The configuration has mistakes"


def problem_body(error: GharialError, exchange_id: str = "") -> dict[str, object]:
    """Return the RFC 9457 problem details of `error`: type, title, status, code, and the exchange's id if any."""
    body: dict[str, object] = {
        "type": f"urn:gharial:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
    }
    if exchange_id:
        body["exchange"] = exchange_id
    return body


class RecordingInvalid(Invalid):
    """A recording can't be read: lines that are broken, or a version that this Gharial does not know."""

    code, status, fault = "recording.invalid", 500, Fault.CALLER
    title = "The recording can't be read"
