"""Recording: what is kept of one exchange so that another policy can be tried on it; one line of JSON, never a value.

Version 1. Members that are empty are left out.

| member | what |
|---|---|
| `v` | 1 |
| `time`, `at_s` | when the request came: ISO 8601 in UTC, and seconds since the epoch |
| `exchange` | id of the exchange, as in the audit |
| `policy`, `version`, `mode`, `route`, `method` | what it went through |
| `outcome`, `error` | `forward`, `refuse`, `shadow`, `abandoned`; the code of a refusal, or of what would be one |
| `caller` | facts about the caller on which policies decide, claims and their values among them |
| `grants`, `guardrails`, `plan` | what applied, and the plan's digest |
| `budgets` | `[grant, window in seconds, people]` of the plan |
| `params` | the path's parameters: name, keyed digest, id space if it names a person |
| `reidentified` | tag -> how many tokens became real values towards the upstream |
| `scopes` | the records of the body: keyed digests of their people, facts about them, budgets crossed and charged |
| `same` | id spaces that mean the same people, as the policy says |
| `subjects`, `facts` | `[place, id space]`, `[place, fact]`: which places name people, and tell facts of them |
| `consent` | keyed digest -> what the person consented to; missing where nobody was asked |
| `fact_values` | fact -> the values that the policy itself names; another value stands as `*` in the scopes |
| `shown` | `[tag, technique, rule]`, what is done with values; places refer to it |
| `places` | `[path, type, scope, shown, detectors]` of each leaf, in the body's order |
| `hidden` | path of an object -> names that would be told there, all others stand as `*` |
| `detectors` | the names of the value detectors that were asked about every string |
| `json_levels` | how many levels of JSON in strings were opened |
| `cut` | true where the body has more places than are kept |
| `scopes_known` | false where the people of the scopes could not be told |
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from gharial.model.caller import Caller

RECORDING_VERSION = 1
MAX_PLACES = 2_000
"""Places of one exchange that are kept."""
NO_SCOPE = -1
ROOT = "$"
OTHER_VALUE = "*"
"""Stands for a fact's value that the policy does not name."""

Scalar = str | int | float | bool | None
Claim = str | int | float | bool | None | tuple[Scalar, ...]


class JsonType(enum.StrEnum):
    """The type of a leaf. `EMPTY` is a string without characters, `JSON` a string that holds JSON and was not opened.

    `OBJECT` and `ARRAY` are empty ones.
    """

    STRING = "string"
    EMPTY = "empty"
    JSON = "json"
    NUMBER = "number"
    BOOLEAN = "boolean"
    NULL = "null"
    OBJECT = "object"
    ARRAY = "array"


class RecordedCaller(msgspec.Struct, frozen=True, omit_defaults=True):
    """The facts of a caller; see `model.caller.Caller`."""

    tenant: str
    client: str
    user: str = ""
    team: str = ""
    roles: tuple[str, ...] = ()
    purpose: str = ""
    country: str = ""
    network: str = ""
    claims: dict[str, Claim] = {}

    def caller(self) -> Caller:
        """Return the caller with these facts."""
        return Caller(
            tenant=self.tenant,
            client=self.client,
            user=self.user,
            team=self.team,
            roles=self.roles,
            claims=self.claims,
            purpose=self.purpose,
            country=self.country,
            network=self.network,
            source="recording",
        )


class RecordedParam(msgspec.Struct, frozen=True, omit_defaults=True):
    """A parameter of the path, or one of the query that names a person (then `name` is `query:NAME`).

    `digest` is keyed; `subject` the id space if it names a person.
    """

    name: str
    digest: str
    subject: str = ""

    @property
    def in_path(self) -> bool:
        """True for a parameter of the path: their names hold no colon."""
        return ":" not in self.name


class RecordedScope(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record. `people` are keyed digests; without any, the body and the path name nobody.

    `facts` are what its values tell about them: codes of countries, values that the policy names, else OTHER_VALUE.
    `crossed` are the budgets (grant, window in seconds) that had no room for them, `charged` those that they count for.
    """

    people: tuple[str, ...] = ()
    facts: dict[str, tuple[str, ...]] = {}
    crossed: tuple[tuple[str, int], ...] = ()
    charged: tuple[tuple[str, int], ...] = ()


class Shown(msgspec.Struct, frozen=True, array_like=True):
    """How a value is shown and why. `tag` is empty where no tag names it; `technique` where it is not known."""

    tag: str
    technique: str
    rule: str


class RecordedPlace(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One leaf. `scope` and `shown` are indexes; `detectors` are those that recognise the string."""

    path: str
    type: JsonType
    scope: int
    shown: int
    detectors: tuple[str, ...] = ()


class RecordedExchange(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a recording. See the module's text."""

    v: int
    time: str
    at_s: float
    exchange: str
    policy: str
    mode: str
    route: str
    method: str
    outcome: Literal["forward", "refuse", "shadow", "abandoned"]
    caller: RecordedCaller
    version: int = 0
    error: str = ""
    grants: tuple[str, ...] = ()
    guardrails: tuple[str, ...] = ()
    plan: str = ""
    budgets: tuple[tuple[str, int, int], ...] = ()
    params: tuple[RecordedParam, ...] = ()
    reidentified: dict[str, int] = {}
    scopes: tuple[RecordedScope, ...] = ()
    same: tuple[tuple[str, ...], ...] = ()
    subjects: tuple[tuple[int, str], ...] = ()
    facts: tuple[tuple[int, str], ...] = ()
    consent: dict[str, tuple[str, ...]] | None = None
    fact_values: dict[str, tuple[str, ...]] = {}
    shown: tuple[Shown, ...] = ()
    places: tuple[RecordedPlace, ...] = ()
    hidden: dict[str, tuple[str, ...]] = {}
    detectors: tuple[str, ...] = ()
    json_levels: int = 0
    cut: bool = False
    scopes_known: bool = True


class OtherVersion(ValueError):
    """A line of a recording that another version of Gharial wrote."""


class _Versioned(msgspec.Struct):
    v: int


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(RecordedExchange)
_VERSION_DECODER = msgspec.json.Decoder(_Versioned)


def member_path(container: str, name: str | None) -> str:
    """Return the path of a member of an object; None for a name that is not told."""
    if name is None:
        return f"{container}.*"
    if name.isidentifier():
        return f"{container}.{name}"
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"{container}['{quoted}']"


def element_path(container: str, index: int) -> str:
    """Return the path of an element of an array."""
    return f"{container}[{index}]"


def dump_exchange(exchange: RecordedExchange) -> bytes:
    """Return one line, without a newline."""
    return _ENCODER.encode(exchange)


def parse_exchange(line: bytes) -> RecordedExchange:
    """Read one line. Raises ValueError without the line's text: OtherVersion, or it is no line of a recording."""
    try:
        version = _VERSION_DECODER.decode(line).v
        if version != RECORDING_VERSION:
            raise OtherVersion(f"a recording of version {version}; this Gharial reads version {RECORDING_VERSION}")
        found = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not a line of a recording") from None
    _check(found)
    return found


def _check(found: RecordedExchange) -> None:
    """Make sure that what refers to something finds it."""
    for place in found.places:
        if not (0 <= place.shown < len(found.shown)) or not (NO_SCOPE <= place.scope < len(found.scopes)):
            raise ValueError("a place of this line refers to nothing")
    if any(not 0 <= index < len(found.places) for index, _ in (*found.subjects, *found.facts)):
        raise ValueError("a subject or fact of this line refers to nothing")
