"""Erasure as a use case: a person's key is destroyed, and a signed receipt says so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from gharial.crypto.keyset import Keyset
from gharial.crypto.receipt import sign_receipt
from gharial.crypto.subject import HANDLE_BYTES, PersonKey, person_digests
from gharial.gate.people import PersonBook
from gharial.model.errors import NotFound, RequestMalformed
from gharial.policy.document import Policy


@dataclass(frozen=True, slots=True)
class Who:
    """A person as the operator names him: id space, and the id, which is kept nowhere."""

    space: str
    id: str


def spaces_of(policies: Iterable[Policy]) -> frozenset[str]:
    """Return the id spaces that policies name."""
    return frozenset(tag.subject for policy in policies for tag in policy.tags.values() if tag.subject)


class Eraser:
    """Destroys keys of people. `spaces` are the id spaces that the policies know."""

    def __init__(
        self,
        people: PersonBook,
        keyset: Callable[[], Keyset],
        spaces: Callable[[], Collection[str]],
        iso_time: Callable[[float], str],
    ) -> None:
        self._people = people
        self._keyset = keyset
        self._spaces = spaces
        self._iso_time = iso_time

    async def erase(self, who: Who) -> dict[str, Any]:
        """Destroy the key of a person, and return the receipt; a second time, one of the first time.

        When this returns, nothing that was made with the key opens any more, and the key is nowhere on disk. Somebody
        of whom there was no key gets none from now on. Raises NotFound for an id space that no policy names,
        RequestMalformed for an empty id, VaultUnavailable if it could not be done; it can be done again then.
        """
        keyset, digests = self._keyset(), self._digests(who)
        now_s = self._people.now_s()
        tombstones = [PersonKey(one, self._people.random(HANDLE_BYTES), b"", 0.0, now_s) for one in digests]
        # Before, so that nothing goes on with a key that is in memory; after, for what was read meanwhile.
        self._people.drop(digests)
        try:
            rows = await self._people.store.erase(tombstones)
        finally:
            self._people.drop(digests)
        return sign_receipt(
            keyset,
            {
                "tenant": self._people.tenant,
                "space": who.space,
                "people": [row.person for row in rows],
                "keys": [row.handle.hex() for row in rows if row.created_s],
                "erased": self._iso_time(min(row.erased_s or now_s for row in rows)),
            },
        )

    async def forget(self, who: Who) -> int:
        """Let a person who was erased have a new key if seen again; return how many notes of him went.

        What died stays dead. Raises as `erase` does.
        """
        return await self._people.store.forget(self._digests(who))

    def _digests(self, who: Who) -> tuple[str, ...]:
        spaces = sorted(self._spaces())
        if who.space not in spaces:
            raise NotFound(f"no policy names the id space '{who.space}'; there is {', '.join(spaces) or 'none'}")
        if not who.id.strip():
            raise RequestMalformed("the id of the person is empty")
        return person_digests(self._keyset(), self._people.tenant, who.space, who.id)
