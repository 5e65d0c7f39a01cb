"""Which keyset is the newer one: what is known of keysets that were in use, and what another one lacks of it.

A key file can't tell by itself that it is an older copy: it was once right. What is kept here is no secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gharial.crypto.keyset import Keyset, KeyState


@dataclass(frozen=True, slots=True, order=True)
class KnownKey:
    """A key that was once seen in a keyset, and whether it was destroyed by then."""

    keyset_id: str
    key_id: int
    destroyed: bool


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of keysets that were in use: their keys, and of each keyset the newest revision."""

    keys: frozenset[KnownKey] = frozenset()
    revisions: Mapping[str, int] = field(default_factory=dict)


def known_of(keyset: Keyset) -> Known:
    """Return what is to be remembered of a keyset."""
    keys = (KnownKey(keyset.keyset_id, key.id, key.state is KeyState.DESTROYED) for key in keyset.keys)
    return Known(frozenset(keys), {keyset.keyset_id: keyset.revision})


def find_losses(known: Known, keyset: Keyset) -> tuple[str, ...]:
    """Return in words what `keyset` lacks of what is known; none: it is as new, or newer.

    A line for each key that it lacks, or has alive although it was destroyed; a key of another keyset is one that it
    lacks. Where no key tells, a line for a revision that is older than one in use: a state was changed since.
    """
    states = {key.id: key.state for key in keyset.keys}
    lines = []
    for old in sorted(known.keys):
        state = states.get(old.key_id) if old.keyset_id == keyset.keyset_id else None
        if state is None:
            of = "" if old.keyset_id == keyset.keyset_id else f" of keyset {old.keyset_id}"
            if not old.destroyed:
                lines.append(f"key {old.key_id}{of} is not in it")
        elif old.destroyed and state is not KeyState.DESTROYED:
            lines.append(f"key {old.key_id} was destroyed and is in it again")
    newest = known.revisions.get(keyset.keyset_id, 0)
    if not lines and keyset.revision < newest:
        lines.append(f"it has revision {keyset.revision} of the keyset, and revision {newest} was in use")
    return tuple(lines)
