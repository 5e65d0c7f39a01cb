"""Keys of people in a gate: those lately used are in memory, for a while and for so many uses; the store has all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from gharial.crypto.keyset import Keyset, Random
from gharial.crypto.subject import PersonKey, Subject, find_subject, new_person_key
from gharial.gate.ports import PersonKeys
from gharial.model.errors import VaultUnavailable

MAX_KNOWN = 4_096
"""Keys of people that are kept in memory at most."""
MAX_AGE_S = 300.0
MAX_USES = 10_000
"""After so many exchanges a key is read from the store again."""


class Erased:
    """In the place of a person's key: it was destroyed."""


ERASED = Erased()


@dataclass(slots=True)
class _Known:
    subject: Subject
    until_s: float
    uses: int = 0


class PersonBook:
    """What all exchanges of a gate share of the keys of people. For one event loop, but for the `find_known…`."""

    def __init__(self, store: PersonKeys, tenant: str, random: Random, now_s: Callable[[], float]) -> None:
        """`random` gives keys, handles and nonces (`os.urandom`)."""
        self.store = store
        self.tenant = tenant
        self.random = random
        self.now_s = now_s
        self._known: dict[str, _Known] = {}
        self._person_of: dict[bytes, str] = {}
        # A row that was read before somebody was erased may come back after it: such rows are not kept here.
        self._erasures = 0

    def find_known(self, person: str) -> Subject | None:
        """Return the key of a person if it is in memory. From any thread."""
        known = self._known.get(person)
        if known is None or known.until_s < self.now_s() or known.uses >= MAX_USES:
            return None
        known.uses += 1
        return known.subject

    def find_known_handle(self, handle: bytes) -> Subject | None:
        """Return the key of this handle if it is in memory. From any thread."""
        person = self._person_of.get(handle)
        return None if person is None else self.find_known(person)

    def drop(self, people: Iterable[str]) -> None:
        """Let go of the keys of these people, by digest, also of those that are being read just now."""
        self._erasures += 1
        for person in people:
            self._drop_one(person)

    def _drop_one(self, person: str) -> None:
        known = self._known.pop(person, None)
        if known is not None:
            self._person_of.pop(known.subject.handle, None)

    async def keep(self, keyset: Keyset, people: Sequence[str], *, lasting: bool) -> dict[str, Subject | None]:
        """Return the key of each person; None for those who were erased. New ones are durable when this returns.

        With `lasting` false nothing is kept, and nothing that was kept is read. Raises VaultUnavailable.
        """
        now_s, erasures = self.now_s(), self._erasures
        rows: Sequence[PersonKey] = [new_person_key(keyset, self.tenant, one, self.random, now_s) for one in people]
        if lasting:
            rows = await self.store.keep(rows)
        if [row.person for row in rows] != list(people):
            raise VaultUnavailable("the store did not answer for every person")
        found: dict[str, Subject | None] = {}
        for row in rows:
            subject = find_subject(keyset, self.tenant, row)
            if subject is None and row.erased_s is None:
                raise VaultUnavailable("the key of a person was altered, or belongs to another keyset")
            found[row.person] = subject
        if lasting:
            self._note(found, now_s, erasures)
        return found

    async def find(self, keyset: Keyset, handles: Sequence[bytes]) -> dict[bytes, Subject | Erased | None]:
        """Return the key of each handle, ERASED if it was destroyed, None if there is none that this keyset can use.

        Raises VaultUnavailable.
        """
        now_s, erasures = self.now_s(), self._erasures
        rows: Mapping[bytes, PersonKey] = await self.store.find(handles)
        found: dict[bytes, Subject | Erased | None] = {}
        by_person: dict[str, Subject | None] = {}
        for handle in handles:
            row = rows.get(handle)
            if row is None or row.erased_s is not None:
                found[handle] = None if row is None else ERASED
                continue
            found[handle] = by_person[row.person] = find_subject(keyset, self.tenant, row)
        self._note(by_person, now_s, erasures)
        return found

    def _note(self, found: Mapping[str, Subject | None], now_s: float, erasures: int) -> None:
        if erasures != self._erasures:
            return
        for person, subject in found.items():
            if subject is not None:
                self._drop_one(person)
                self._known[person] = _Known(subject, now_s + MAX_AGE_S)
                self._person_of[subject.handle] = person
        for person in list(islice(self._known, max(0, len(self._known) - MAX_KNOWN))):
            self._drop_one(person)
