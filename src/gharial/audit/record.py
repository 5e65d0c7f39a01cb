"""The audit record of one exchange: one line of JSON. Who asked for what, by which rule, about whom; never a value.

Version 1, members in this order, all of them always present:

| member | what |
|---|---|
| `v` | 1 |
| `time` | when the record was made, ISO 8601 in UTC |
| `exchange` | id of the exchange |
| `tenant`, `client`, `user`, `team`, `roles`, `purpose` | verified facts about the caller; empty if unknown |
| `credential`, `source` | the credential's id (never the credential), and what vouched: `api_key`, `jwt`, `none` |
| `route`, `method` | the route's name; the path and the query are not recorded |
| `policy`, `version`, `mode`, `plan` | what decided; `plan` is the plan's digest; empty and 0 if nothing did |
| `grants` | names of the grants that applied |
| `status` | HTTP status of the upstream's answer, or of the refusal |
| `outcome` | `forward`, `refuse`, `shadow`, `pass`, `abandoned`; of a stream `open`, `rows` for each batch, `close` |
| `error` | the stable code of a refusal, or of what cut a stream, else null |
| `techniques` | tag -> operation -> how many values |
| `unlisted` | disposition (`drop`, `redact`, `pass`) -> how many values that no tag names |
| `people` | `clear_count`, `protected_count`: exact; `clear`, `protected`: up to 1,000 keyed digests (`+`: joined) |
| `budgets_crossed` | grants whose budget had no room for somebody |
| `reidentified` | tag -> how many tokens became real values towards the upstream |
| `ms` | duration of the exchange in milliseconds |

Readers must ignore members that they do not know; a member's meaning never changes within a version. A line with the
member `kind` is no exchange: see `reveal_record`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from gharial.model.caller import Caller
from gharial.model.plan import Plan

RECORD_VERSION = 1
MAX_PEOPLE_LISTED = 1_000

Outcome = Literal["forward", "refuse", "shadow", "pass", "abandoned"]
StreamOutcome = Literal["open", "rows", "close"]


class People(msgspec.Struct, frozen=True):
    """Distinct people of an exchange: counts are exact, the lists of keyed digests are cut at MAX_PEOPLE_LISTED."""

    clear_count: int
    clear: tuple[str, ...]
    protected_count: int
    protected: tuple[str, ...]


class ExchangeRecord(msgspec.Struct, frozen=True):
    """One line of the audit. See the module's text."""

    v: int
    time: str
    exchange: str
    tenant: str
    client: str
    user: str
    team: str
    roles: tuple[str, ...]
    purpose: str
    credential: str
    source: str
    route: str
    method: str
    policy: str
    version: int
    mode: str
    plan: str
    grants: tuple[str, ...]
    status: int
    outcome: Outcome | StreamOutcome
    error: str | None
    techniques: dict[str, dict[str, int]]
    unlisted: dict[str, int]
    people: People
    budgets_crossed: tuple[str, ...]
    reidentified: dict[str, int]
    ms: float


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(ExchangeRecord)


def exchange_record(
    *,
    time: str,
    exchange_id: str,
    caller: Caller,
    route: str,
    method: str,
    plan: Plan | None,
    status: int,
    outcome: Outcome | StreamOutcome,
    error: str = "",
    techniques: Mapping[str, Mapping[str, int]],
    unlisted: int = 0,
    people_clear: Sequence[str] = (),
    people_protected: Sequence[str] = (),
    budgets_crossed: Sequence[str] = (),
    reidentified: Mapping[str, int],
    duration_ms: float,
) -> bytes:
    """Return the record of an exchange as one line of JSON, without a newline.

    `people_…` are keyed digests, each person once. `plan` is None where nothing was decided. A caller's claims are not
    written, only the facts that are named here.
    """
    record = ExchangeRecord(
        v=RECORD_VERSION,
        time=time,
        exchange=exchange_id,
        tenant=caller.tenant,
        client=caller.client,
        user=caller.user,
        team=caller.team,
        roles=caller.roles,
        purpose=caller.purpose,
        credential=caller.credential_id,
        source=caller.source,
        route=route,
        method=method,
        policy=plan.policy if plan else "",
        version=plan.version if plan else 0,
        mode=plan.mode.value if plan else "",
        plan=plan.digest if plan else "",
        grants=plan.grants if plan else (),
        status=status,
        outcome=outcome,
        error=error or None,
        techniques={tag: dict(counts) for tag, counts in techniques.items()},
        unlisted={plan.unlisted.value: unlisted} if plan and unlisted else {},
        people=People(
            len(people_clear),
            tuple(people_clear[:MAX_PEOPLE_LISTED]),
            len(people_protected),
            tuple(people_protected[:MAX_PEOPLE_LISTED]),
        ),
        budgets_crossed=tuple(dict.fromkeys(budgets_crossed)),
        reidentified=dict(reidentified),
        ms=round(duration_ms, 3),
    )
    return _ENCODER.encode(record)


def parse_record(line: bytes) -> ExchangeRecord:
    """Read one line of the audit. Raises ValueError, without the line's text, if it is not a version 1 record."""
    try:
        record = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not an audit record") from None
    if record.v != RECORD_VERSION:
        raise ValueError("an audit record of another version")
    return record
