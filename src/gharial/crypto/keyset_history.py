"""Which keyset is the newer one: what is known of keys that were once there, and what another keyset lacks of it.

A key file can't tell by itself that it is an older copy: it was once right. What is kept of each key here is no secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gharial.crypto.keyset import Keyset, KeyState


@dataclass(frozen=True, slots=True, order=True)
class KnownKey:
    """A key that was once seen in a keyset, and whether it was destroyed by then."""

    keyset_id: str
    key_id: int
    destroyed: bool


def known_keys(keyset: Keyset) -> tuple[KnownKey, ...]:
    """Return what is to be remembered of a keyset."""
    return tuple(KnownKey(keyset.keyset_id, key.id, key.state is KeyState.DESTROYED) for key in keyset.keys)


def find_losses(known: Iterable[KnownKey], keyset: Keyset) -> tuple[str, ...]:
    """Return a line for each known key that `keyset` lacks, or has alive although it was destroyed; none: it is newer.

    A key of another keyset is one that it lacks.
    """
    states = {key.id: key.state for key in keyset.keys}
    lines = []
    for old in sorted(set(known)):
        state = states.get(old.key_id) if old.keyset_id == keyset.keyset_id else None
        if state is None:
            of = "" if old.keyset_id == keyset.keyset_id else f" of keyset {old.keyset_id}"
            if not old.destroyed:
                lines.append(f"key {old.key_id}{of} is not in it")
        elif old.destroyed and state is not KeyState.DESTROYED:
            lines.append(f"key {old.key_id} was destroyed and is in it again")
    return tuple(lines)
