"""For whom tokens were made: finds them in any text, and tries who could have got them; no value is ever told."""

from __future__ import annotations

import enum
import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from gharial.crypto.encoding import find_base64url
from gharial.crypto.keyset import Keyset, KeyState, Purpose, set_state
from gharial.crypto.seal import HEADER_BYTES, SIV_BYTES, VERSION, get_siv
from gharial.crypto.subject import find_sealed_token, is_subject_token, key_id_of
from gharial.crypto.token import KIND_OF, PREFIX, Binding
from gharial.crypto.vault import TOKEN_BYTES, find_token

MAX_TOKEN_CHARS = 128 * 1024
"""A longer run of a token's characters is read as several, of which none opens."""

_SHORTEST = -(-(1 + TOKEN_BYTES) * 4 // 3)
_PREFIX = PREFIX.encode()
_CHARS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_TOKEN = re.compile(rb"%b[A-Za-z0-9_-]{%d,%d}" % (_PREFIX, _SHORTEST, MAX_TOKEN_CHARS))


class Stray(enum.StrEnum):
    """Why a token names nobody."""

    NO_TOKEN = "no_token"  # noqa: S105 - a finding, not a secret
    FROM_VAULT = "from_vault"
    UNKNOWN_KEY = "unknown_key"
    DESTROYED_KEY = "destroyed_key"
    FITS_NOBODY = "fits_nobody"


@dataclass(frozen=True, slots=True)
class Traced:
    """What one token tells: for whom, of which tag, under which key it was made."""

    binding: Binding
    key_id: int


@dataclass(frozen=True, slots=True)
class Untraced:
    """A token that names nobody; `key_id` is what its header says, 0 if it has none."""

    why: Stray
    key_id: int = 0


def find_tokens(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what looks like a token in a text that comes in pieces, in its order, each time that it stands there.

    Never holds more than a piece and the longest token.
    """
    rest = b""
    for chunk in chunks:
        text = rest + chunk
        end = len(text)
        # A token, or its prefix, may go on in the next piece.
        tail = text[-MAX_TOKEN_CHARS:]
        run = tail[len(tail.rstrip(_CHARS)) :]
        begin = run.find(_PREFIX)
        end -= len(run) - begin if begin >= 0 else min(len(run), len(_PREFIX) - 1)
        yield from (found.group() for found in _TOKEN.finditer(text, 0, end))
        rest = text[end:]
    yield from (found.group() for found in _TOKEN.finditer(rest))


def sample(tokens: Iterable[bytes], most: int, secret: bytes) -> tuple[int, list[bytes]]:
    """Return how many tokens there are, and `most` of the distinct ones, each with the same chance.

    Which ones is decided by a digest under `secret`, so that nobody can fill the sample with tokens of his choice.
    """
    count = 0
    heap: list[tuple[int, bytes]] = []
    kept: set[bytes] = set()
    for token in tokens:
        count += 1
        if token in kept:
            continue
        # Negative: the heap gives the smallest first, and the largest digest is the one to go.
        rank = -int.from_bytes(hashlib.blake2b(token, key=secret, digest_size=16).digest(), "big")
        if len(heap) < most:
            heapq.heappush(heap, (rank, token))
            kept.add(token)
        elif rank > heap[0][0]:
            _, gone = heapq.heapreplace(heap, (rank, token))
            kept.discard(gone)
            kept.add(token)
    return count, [token for _, token in heap]


class Tracer:
    """Tries who could have got a token; who fitted lately is tried first, for a dump is mostly one client's."""

    def __init__(self, keyset: Keyset, candidates: Sequence[Binding]) -> None:
        """`candidates` are all recipients with all tags. What a disabled key sealed is traced as well."""
        for key in keyset.keys:
            if key.state is KeyState.DISABLED:
                keyset = set_state(keyset, key.id, KeyState.ENABLED)
        self._keyset = keyset
        self._states = {key.id: key.state for key in keyset.keys}
        self._all = [_Candidate(binding, [binding.aad()]) for binding in candidates if binding.sound]
        self._lately: dict[Binding, _Candidate] = {}

    def trace(self, token: bytes) -> Traced | Untraced:
        """Return for whom a token was made, or why it names nobody."""
        text = token.decode("ascii", "replace")
        if find_token(text) is not None:
            return Untraced(Stray.FROM_VAULT)
        if is_subject_token(text):
            return self._trace_of_person(text)
        data = find_base64url(text[len(_PREFIX) :]) if token.startswith(_PREFIX) else None
        if data is None or len(data) <= HEADER_BYTES + SIV_BYTES or data[:1] != VERSION:
            return Untraced(Stray.NO_TOKEN)
        key_id = int.from_bytes(data[1:HEADER_BYTES], "big")
        stray = self._find_stray(key_id)
        if stray is not None:
            return stray
        sealed = data[HEADER_BYTES:]
        contexts: dict[tuple[str, str], AESSIV] = {}
        for candidate in chain(tuple(reversed(self._lately.values())), self._all):
            binding = candidate.binding
            whose = (binding.tenant, binding.tag)
            siv = contexts.get(whose)
            if siv is None:
                siv = contexts[whose] = get_siv(self._keyset, Purpose.TOKEN, *whose, key_id)
            try:
                plaintext = siv.decrypt(sealed, candidate.aad)
            except InvalidTag:
                continue
            if plaintext[:1] in KIND_OF:
                self._remember(candidate)
                return Traced(binding, key_id)
        return Untraced(Stray.FITS_NOBODY, key_id)

    def _trace_of_person(self, text: str) -> Traced | Untraced:
        """Trace a token under a person's key: by its handle, so also when that key is destroyed."""
        key_id = key_id_of(text)
        stray = self._find_stray(key_id)
        if stray is not None:
            return stray
        candidates = (*reversed(self._lately.values()), *self._all)
        found = find_sealed_token(self._keyset, [candidate.binding for candidate in candidates], text)
        if found is None:
            return Untraced(Stray.FITS_NOBODY, key_id)
        self._remember(_Candidate(found[0], [found[0].aad()]))
        return Traced(found[0], key_id)

    def _find_stray(self, key_id: int) -> Untraced | None:
        state = self._states.get(key_id)
        if state is None:
            return Untraced(Stray.UNKNOWN_KEY, key_id)
        return Untraced(Stray.DESTROYED_KEY, key_id) if state is KeyState.DESTROYED else None

    def _remember(self, candidate: _Candidate) -> None:
        self._lately.pop(candidate.binding, None)
        self._lately[candidate.binding] = candidate


@dataclass(frozen=True, slots=True)
class _Candidate:
    binding: Binding
    aad: list[bytes]
