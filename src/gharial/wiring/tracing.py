"""Names for whom the tokens of a dump were made: the gateway's clients, teams and tags against the text of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from gharial.adapters.files import load_policy_texts
from gharial.adapters.key_file import load_keyset
from gharial.crypto.keyset import Keyset
from gharial.crypto.token import Binding, TokenScope, handed_over
from gharial.crypto.trace import Stray, Traced, Tracer, find_tokens, sample
from gharial.model.caller import ANONYMOUS
from gharial.policy.document import parse_policy
from gharial.settings import Settings, load_settings
from gharial.wiring.operator import operator
from gharial.wiring.world import random_bytes

PIECE_BYTES = 1024 * 1024
REPORT_VERSION = 1

_LAST_S = 253_402_300_799

Progress = Callable[[str, int], None]
"""Told now and then what is done ("read", in bytes; "tried", in tokens) and how much of it so far."""


@dataclass(frozen=True, slots=True)
class WhoElse:
    """Names beside the registered ones; `audit`: those of the audit files too."""

    clients: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    audit: bool = False


@dataclass(slots=True)
class _People:
    """Clients with their teams and whether they are revoked; None where it is known by name only."""

    clients: dict[str, bool | None] = field(default_factory=dict)
    teams: dict[str, set[str]] = field(default_factory=dict)

    def add(self, client: str, team: str, revoked: bool | None) -> None:
        if client and self.clients.get(client) is None:
            self.clients[client] = revoked
        if team:
            members = self.teams.setdefault(team, set())
            if client:
                members.add(client)


def trace_dump(
    config_path: Path, stream: BinaryIO, *, most: int | None, who_else: WhoElse, progress: Progress
) -> dict[str, Any]:
    """Return what `gharial trace` reports of a text, as JSON: names, tags, key ids and counts, never a value.

    Tries `most` of the distinct tokens; with None each one, each time that it stands there. Raises ConfigInvalid,
    PolicyInvalid, KeyFileUnusable.
    """
    settings = load_settings(config_path)
    base = config_path.resolve().parent
    keyset = load_keyset(settings, base)
    people = _people(config_path, settings, base, who_else)
    tags = {*who_else.tags}
    for text in load_policy_texts(settings, base):
        tags |= parse_policy(text.text, text.file).tags.keys()
    # What clients of the APIgator endpoint hand over themselves has bindings of its own.
    tenants = [settings.tenant, *([handed_over(settings.tenant)] if settings.manifests else [])]
    tracer = Tracer(keyset, [one for tenant in tenants for one in _candidates(tenant, people, sorted(tags))])
    tokens = find_tokens(_pieces(stream, progress))
    found = 0
    if most is not None:
        found, kept = sample(tokens, most, random_bytes(32))
        tokens = iter(kept)
    hits: dict[Binding, dict[int, int]] = {}
    strays: dict[Stray, dict[int, int]] = {}
    tried = 0
    for tried, token in enumerate(tokens, 1):
        traced = tracer.trace(token)
        counts = (
            hits.setdefault(traced.binding, {}) if isinstance(traced, Traced) else strays.setdefault(traced.why, {})
        )
        counts[traced.key_id] = counts.get(traced.key_id, 0) + 1
        if tried % 50 == 0:
            progress("tried", tried)
    return {
        "v": REPORT_VERSION,
        "found": tried if most is None else found,
        "tried": tried,
        "named": sum(sum(counts.values()) for counts in hits.values()),
        "recipients": _recipients(hits, keyset, people),
        "nobody": {
            "no_token": sum(strays.get(Stray.NO_TOKEN, {}).values()),
            "from_vault": sum(strays.get(Stray.FROM_VAULT, {}).values()),
            "fits_nobody": sum(strays.get(Stray.FITS_NOBODY, {}).values()),
            "unknown_keys": _by_id(strays.get(Stray.UNKNOWN_KEY, {})),
            "destroyed_keys": _by_id(strays.get(Stray.DESTROYED_KEY, {})),
        },
        "searched": {"clients": len(people.clients), "teams": len(people.teams), "tags": len(tags)},
    }


def _people(config_path: Path, settings: Settings, base: Path, who_else: WhoElse) -> _People:
    people = _People()
    people.add(ANONYMOUS, "", None)
    for client in operator(config_path).list_clients():
        people.add(client["name"], client["team"], client["revoked_s"] is not None)
    for name in who_else.clients:
        people.add(name, "", None)
    for team in who_else.teams:
        people.add("", team, None)
    if who_else.audit:
        for line in _audit_lines(base / settings.audit.dir):
            people.add(line.client, line.team, None)
    return people


class _AuditLine(msgspec.Struct):
    client: str = ""
    team: str = ""


def _audit_lines(folder: Path) -> Iterator[_AuditLine]:
    """Yield who stands in the audit; a line that is none, as a crash may leave one, is passed over."""
    decoder = msgspec.json.Decoder(_AuditLine)
    for file in sorted(folder.glob("audit-*.jsonl")):
        with file.open("rb") as lines:
            for line in lines:
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue


def _candidates(tenant: str, people: _People, tags: Sequence[str]) -> Iterator[Binding]:
    for tag in tags:
        yield Binding(tenant, tag, TokenScope.ALL, "")
    for team in sorted(people.teams):
        for tag in tags:
            yield Binding(tenant, tag, TokenScope.TEAM, team)
    for client in sorted(people.clients):
        for tag in tags:
            yield Binding(tenant, tag, TokenScope.CLIENT, client)


def _pieces(stream: BinaryIO, progress: Progress) -> Iterator[bytes]:
    read = 0
    while piece := stream.read(PIECE_BYTES):
        read += len(piece)
        progress("read", read)
        yield piece


def _recipients(hits: dict[Binding, dict[int, int]], keyset: Keyset, people: _People) -> list[dict[str, Any]]:
    """Return one entry per recipient, those with the most tokens first."""
    by_recipient: dict[tuple[str, str], dict[str, Any]] = {}
    for binding, counts in hits.items():
        entry = by_recipient.setdefault(
            (binding.scope, binding.recipient),
            {
                "scope": binding.scope,
                "recipient": binding.recipient,
                "revoked": people.clients.get(binding.recipient) if binding.scope == TokenScope.CLIENT else None,
                "clients": _clients_of(binding, people),
                "tokens": 0,
                "tags": {},
                "keys": {},
            },
        )
        count = sum(counts.values())
        entry["tokens"] += count
        entry["tags"][binding.tag] = count
        for key_id, of_key in counts.items():
            entry["keys"][key_id] = entry["keys"].get(key_id, 0) + of_key
    for entry in by_recipient.values():
        entry["tags"] = dict(sorted(entry["tags"].items()))
        entry["keys"] = [
            {**_primary_times(keyset, key_id), "tokens": count} for key_id, count in sorted(entry["keys"].items())
        ]
    return sorted(by_recipient.values(), key=lambda e: (-e["tokens"], e["scope"], e["recipient"]))


def _clients_of(binding: Binding, people: _People) -> list[str]:
    if binding.scope == TokenScope.CLIENT:
        return [binding.recipient]
    return sorted(people.teams.get(binding.recipient, ()) if binding.scope == TokenScope.TEAM else people.clients)


def _primary_times(keyset: Keyset, key_id: int) -> dict[str, Any]:
    """Return the key's id and state, and from when to when new tokens were made with it; `until` None: still."""
    at = next(index for index, key in enumerate(keyset.keys) if key.id == key_id)
    key, later = keyset.keys[at], keyset.keys[at + 1 : at + 2]
    return {
        "id": key.id,
        "state": key.state.value,
        "since": _iso_day(key.created_s),
        "until": _iso_day(later[0].created_s) if later else None,
    }


def _by_id(counts: dict[int, int]) -> list[dict[str, int]]:
    return [{"id": key_id, "tokens": count} for key_id, count in sorted(counts.items())]


def _iso_day(created_s: int) -> str:
    return datetime.fromtimestamp(min(created_s, _LAST_S), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
