"""Random tokens and keys of people of one exchange: asked for by pure functions, fetched and kept in between.

Steps and the opening of tokens can't wait for a store. So they run, and what they lack is noted here; then all of it is
asked for in one batch, and they run again. A result of a run that lacked something is thrown away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from gharial.crypto.keyset import Keyset, Random, draw
from gharial.crypto.subject import Subject
from gharial.crypto.vault import TOKEN_BYTES, EntryMaker
from gharial.gate.people import Erased, PersonBook
from gharial.gate.ports import Vault
from gharial.model.errors import GharialError, VaultUnavailable

MAX_KNOWN = 65_536
"""Tokens that are kept in memory, by the digest of their value; about 200 bytes each."""
BATCH = 2_000
"""The most rows of one question to the vault, so that a large answer does not hold up the others."""
_MAX_RUNS = 4
_NOT_YET = bytes(TOKEN_BYTES)

_T = TypeVar("_T")


class TokenBook:
    """What all exchanges of a gate share: the vault, the tokens that were last handed out, and the keys of people."""

    def __init__(
        self, vault: Vault, random: Random, max_known: int = MAX_KNOWN, people: PersonBook | None = None
    ) -> None:
        """`random` gives tokens (`os.urandom`)."""
        self.vault = vault
        self.people = people
        self.random = random
        self._max_known = max_known
        self._known: dict[bytes, bytes] = {}

    def find_known(self, lookup: bytes) -> bytes | None:
        """Return the token of a digest if it is in memory; then it is in the vault too. From any thread."""
        return self._known.get(lookup)

    def add_known(self, tokens: Mapping[bytes, bytes]) -> None:
        """Note tokens, by digest, that are durably in the vault; the oldest notes go. From the event loop's thread."""
        self._known.update(tokens)
        for lookup in list(islice(self._known, max(0, len(self._known) - self._max_known))):
            del self._known[lookup]


class ExchangeTokens:
    """The random tokens of one exchange, both ways, and keys of people. Implements `crypto.vault.Tokens`.

    With `lasting` false nothing is kept: the tokens look right, and mean nothing to anybody (for what is never sent).
    """

    def __init__(self, book: TokenBook, keyset: Callable[[], Keyset] | None = None, *, lasting: bool = True) -> None:
        """`keyset` gives the one of the exchange; without it there are no keys of people."""
        self._book = book
        self._keyset = keyset
        self._lasting = lasting
        self._subjects: dict[str, Subject | None] = {}
        self._people: dict[str, None] = {}
        self._by_handle: dict[bytes, Subject | Erased | None] = {}
        self._handles: dict[bytes, None] = {}
        self._tokens: dict[bytes, bytes] = {}
        self._lacking: dict[bytes, tuple[EntryMaker, bytes]] = {}
        self._sealed: dict[bytes, bytes | None] = {}
        self._asked: dict[bytes, None] = {}

    def token_of(self, maker: EntryMaker, plain: bytes) -> bytes:
        """See Tokens. Where it is not known yet, what comes back stands for no token, and `lacks` becomes true."""
        lookup = maker.lookup(plain)
        token = self._tokens.get(lookup)
        if token is None and self._lasting:
            token = self._book.find_known(lookup)
        if token is None:
            self._lacking[lookup] = (maker, plain)
            return _NOT_YET
        self._tokens[lookup] = token
        return token

    def find_sealed(self, token: bytes) -> bytes | None:
        """Return what is kept under a token, None if nothing is. Asked for the first time, `lacks` becomes true."""
        if token not in self._sealed:
            self._asked[token] = None
        return self._sealed.get(token)

    def subject_of(self, person: str) -> Subject | None:
        """See Tokens. Where it is not known yet, None comes back, and `lacks` becomes true."""
        if person not in self._subjects:
            known = self._book.people.find_known(person) if self._lasting and self._book.people else None
            if known is None:
                self._people[person] = None
                return None
            self._subjects[person] = known
        return self._subjects[person]

    def find_subject(self, handle: bytes) -> Subject | Erased | None:
        """Return the key under a handle, None if there is none. Where it is not known yet, `lacks` becomes true."""
        if handle not in self._by_handle:
            known = self._book.people.find_known_handle(handle) if self._book.people else None
            if known is None:
                self._handles[handle] = None
                return None
            self._by_handle[handle] = known
        return self._by_handle[handle]

    @property
    def lacks(self) -> bool:
        """True if something was asked for that is not here yet: what was made of it must not be used."""
        return bool(self._lacking or self._asked or self._people or self._handles)

    async def run(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Return the result of a run that lacked nothing; all tokens in it are durable. The first may be the last.

        Raises VaultUnavailable, and what `work` raises in such a run.
        """
        for _ in range(_MAX_RUNS):
            try:
                result = await work()
            except GharialError:
                if not self.lacks:
                    raise
            else:
                if not self.lacks:
                    return result
            await self._settle()
        raise VaultUnavailable("what was asked for changed from run to run")

    async def _settle(self) -> None:
        lacking, asked = list(self._lacking.items()), list(self._asked)
        for start in range(0, len(lacking), BATCH):
            await self._keep(lacking[start : start + BATCH])
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            found = await self._book.vault.find(batch)
            self._sealed.update({token: found.get(token) for token in batch})
        if self._people or self._handles:
            await self._settle_people()
        self._lacking.clear()
        self._asked.clear()

    async def _settle_people(self) -> None:
        book = self._book.people
        if book is None or self._keyset is None:
            raise VaultUnavailable("there is no place for the keys of people here")
        keyset, people, handles = self._keyset(), list(self._people), list(self._handles)
        for start in range(0, len(people), BATCH):
            self._subjects |= await book.keep(keyset, people[start : start + BATCH], lasting=self._lasting)
        for start in range(0, len(handles), BATCH):
            self._by_handle |= await book.find(keyset, handles[start : start + BATCH])
        self._people.clear()
        self._handles.clear()

    async def _keep(self, lacking: Sequence[tuple[bytes, tuple[EntryMaker, bytes]]]) -> None:
        drawn = draw(self._book.random, TOKEN_BYTES * len(lacking))
        entries = [
            maker.make(plain, bytes(drawn[TOKEN_BYTES * at :][:TOKEN_BYTES]))
            for at, (_, (maker, plain)) in enumerate(lacking)
        ]
        if self._lasting:
            entries = list(await self._book.vault.keep(entries))
        if len(entries) != len(lacking):
            raise VaultUnavailable("the vault did not answer for every value")
        # Whoever can write to the vault must not be able to exchange what tokens stand for.
        if not all(maker.holds(entry, plain) for entry, (_, (maker, plain)) in zip(entries, lacking, strict=True)):
            raise VaultUnavailable("the vault holds a row that was altered, or belongs to another value")
        kept = {lookup: entry.token for (lookup, _), entry in zip(lacking, entries, strict=True)}
        self._tokens.update(kept)
        if self._lasting:
            self._book.add_known(kept)
