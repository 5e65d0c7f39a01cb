"""The audit record of one call of the reveal API: which values left in clear, as digests; never a value.

Version 1, members in this order, all of them always present:

| member | what |
|---|---|
| `v`, `kind` | 1, and `reveal`: what tells this line from an exchange's |
| `time`, `exchange` | when the record was made (ISO 8601 in UTC), and the id of the call |
| `tenant`, `client`, `user`, `team`, `roles`, `purpose`, `credential`, `source` | as in an exchange's record |
| `status`, `outcome`, `error` | HTTP status; `forward` or `refuse`; the stable code of a refusal, else null |
| `revealed` | the values that leave in clear: tag, digest, and the policy, its version and the rule that allowed it |
| `refused` | how many values of this call were refused |
| `budgets_crossed` | grants whose budget had no room for one of them |
| `ms` | duration of the call in milliseconds |

A digest is that of `crypto.digest.person_digest` in the space `value:TAG`. The rules of `audit.record` hold here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from gharial.audit.record import RECORD_VERSION
from gharial.model.caller import Caller


class RevealedValue(msgspec.Struct, frozen=True):
    """One value that leaves in clear, and by which rule."""

    tag: str
    digest: str
    policy: str
    version: int
    rule: str


class RevealRecord(msgspec.Struct, frozen=True):
    """One line of the audit. See the module's text."""

    v: int
    kind: Literal["reveal"]
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
    status: int
    outcome: Literal["forward", "refuse"]
    error: str | None
    revealed: tuple[RevealedValue, ...]
    refused: int
    budgets_crossed: tuple[str, ...]
    ms: float


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(RevealRecord)


def reveal_record(
    *,
    time: str,
    exchange_id: str,
    caller: Caller,
    status: int,
    error: str = "",
    revealed: Sequence[RevealedValue] = (),
    refused: int = 0,
    budgets_crossed: Sequence[str] = (),
    duration_ms: float,
) -> bytes:
    """Return the record of a call as one line of JSON, without a newline."""
    return _ENCODER.encode(
        RevealRecord(
            v=RECORD_VERSION,
            kind="reveal",
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
            status=status,
            outcome="refuse" if error else "forward",
            error=error or None,
            revealed=tuple(revealed),
            refused=refused,
            budgets_crossed=tuple(dict.fromkeys(budgets_crossed)),
            ms=round(duration_ms, 3),
        )
    )


def parse_reveal_record(line: bytes) -> RevealRecord:
    """Read such a line. Raises ValueError, without the line's text, if it is no version 1 record of this kind."""
    try:
        record = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not a record of the reveal API") from None
    if record.v != RECORD_VERSION:
        raise ValueError("an audit record of another version")
    return record
