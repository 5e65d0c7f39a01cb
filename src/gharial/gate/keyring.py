"""The active keyset as a use case: read anew, checked against what was in use before, and swapped in one step.

Whatever fails leaves the keyset that is active, and is told by `problem` until a reload succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from gharial.crypto.keyset import Keyset
from gharial.crypto.keyset_history import find_losses, known_of
from gharial.gate.ports import KeyMemory
from gharial.gate.publish import Publisher
from gharial.model.errors import GharialError, KeyFileOlder


@dataclass(slots=True)
class KeyCounts:
    """How often the key file was taken and refused since the gate started."""

    taken: int = 0
    rejected: int = 0


class Keyring:
    """Holds what leads from one keyset to the next. Its methods are for one event loop."""

    def __init__(self, publisher: Publisher, memory: KeyMemory, load: Callable[[], Awaitable[Keyset]]) -> None:
        """`load` reads the key file as it is now; what it raises of GharialError refuses the reload."""
        self._publisher = publisher
        self._memory = memory
        self._load = load
        self._one_at_a_time = asyncio.Lock()
        self.problem = ""
        self.counts = KeyCounts()

    async def remember_start(self) -> None:
        """Check what the gate begins with, and keep it. Raises KeyFileOlder, StoreUnwritable."""
        await check_and_remember(self._publisher.keyset, self._memory)

    async def reload(self) -> Keyset:
        """Make the key file's keyset the active one, and return it. Raises GharialError; the old one stays then."""
        async with self._one_at_a_time:
            try:
                keyset = await self._load()
                await check_and_remember(keyset, self._memory)
            except Exception as error:
                # Of what nobody expected not even the text is shown: it could quote what was read.
                self.problem = str(error) if isinstance(error, GharialError) else type(error).__name__
                self.counts.rejected += 1
                raise
            # Between here and the next await no call runs: all that begin from now on have the new keyset.
            self._publisher.renew(keyset)
            self.problem = ""
            self.counts.taken += 1
            return keyset

    def report(self) -> dict[str, Any]:
        """Return what may be shown: ids and numbers."""
        keyset = self._publisher.keyset
        return {
            "keyset": keyset.keyset_id,
            "primary": keyset.primary_id,
            "oldest_enabled": keyset.oldest_enabled_id,
            "keys": len(keyset.keys),
            "reloads": self.counts.taken,
            "rejected": self.counts.rejected,
            "problem": self.problem,
        }


async def check_and_remember(keyset: Keyset, memory: KeyMemory) -> None:
    """Keep the keys of a keyset that is about to be used. Raises KeyFileOlder if it lacks one that was kept before."""
    known = await memory.load_known_keys()
    losses = find_losses(known, keyset)
    if losses:
        raise KeyFileOlder(
            f"the key file is an older copy, or of another keyset: {'; '.join(losses)}; restore the newest one, or "
            "accept the loss: stop the gateway, then 'gharial keys import FILE --replace'"
        )
    found = known_of(keyset)
    if not found.keys <= known.keys or known.revisions.get(keyset.keyset_id) != keyset.revision:
        await memory.remember_keys(found)
