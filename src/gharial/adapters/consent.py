"""Who consented to what: the port `Consent` over a file, a query, or a service (PostgreSQL: `consent_postgres`).

All fail closed: whatever goes wrong, the people it was about have consented to nothing. It is counted, and told
when it begins and when it ends, by its kind alone: who was asked about, and what was answered, goes nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import sqlite3
import ssl
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import aiohttp

from gharial.adapters.file_stamp import Stamp, find_stamp
from gharial.model.errors import ConfigInvalid, Problem
from gharial.model.yaml_text import Entries, Items, Node, Scalar, parse_yaml

Person = tuple[str, str]
Consents = dict[Person, frozenset[str]]
_Table = Mapping[Person, frozenset[str]]

MAX_KINDS = 100
"""Kinds of consent of one person; what is beyond is not looked at."""
PEOPLE_PER_REQUEST = 1_000
"""A larger batch goes to a service in several requests, within the one time limit."""

_MAX_FILE_BYTES = 64_000_000
_MAX_ANSWER_BYTES = 4_000_000


class ConsentFailed(Exception):
    """A resolver could not answer. Its text names the kind of failure, never a person or an answer."""


class Trouble:
    """Counts failures, and tells when they begin (`on_change` gets why) and when they end (it gets an empty text)."""

    def __init__(self, on_change: Callable[[str], object] = lambda _: None) -> None:
        self.failures = 0
        self.problem = ""
        self._on_change = on_change

    def failed(self, why: str) -> None:
        """Note a failure."""
        self.failures += 1
        self._tell(why)

    def worked(self) -> None:
        """Note that an answer came."""
        self._tell("")

    def _tell(self, problem: str) -> None:
        if bool(problem) != bool(self.problem):
            self._on_change(problem)
        self.problem = problem


# --- a file -----------------------------------------------------------------------------------------------------


class FileConsent:
    """Reads `{id space: {person: [kinds]}}` from YAML, or JSON for large files, and again whenever it changed.

    While the file can't be read nobody has consented to anything: the old one might grant what the new one takes back.
    Raises ConfigInvalid if the first file can't be used. Persons are compared after NFC, without white space around.
    """

    def __init__(self, path: Path, trouble: Trouble | None = None) -> None:
        self._path = path
        self.trouble = trouble or Trouble()
        self._reading = asyncio.Lock()
        self._seen: Stamp | None = find_stamp(path)
        self._table: _Table = load_consent_file(path)

    async def fetch(self, people: Sequence[Person]) -> Consents:
        """See `gate.ports.Consent`."""
        async with self._reading:
            stamp = find_stamp(self._path)
            if stamp is None or stamp != self._seen:
                self._seen = stamp
                await self._read()
        if self.trouble.problem:
            self.trouble.failed(self.trouble.problem)
            return {}
        table = self._table
        return {(s, text): found for s, text in people if (found := table.get((s, _normal(text)))) is not None}

    async def _read(self) -> None:
        try:
            self._table = await asyncio.to_thread(load_consent_file, self._path)
        except ConfigInvalid as error:
            self._table = {}
            self.trouble.failed(f"{self._path} can't be used: {len(error.problems)} mistake(s)")
        else:
            self.trouble.worked()


def load_consent_file(path: Path) -> _Table:
    """Read a file of consents. Raises ConfigInvalid with its mistakes; they name places, never a person."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigInvalid([Problem(str(path), 1, 1, f"the file is larger than {_MAX_FILE_BYTES:,} bytes")])
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid([Problem(str(path), 1, 1, f"can't be read ({type(error).__name__})")]) from None
    return _parse_json_table(text, str(path)) if path.suffix == ".json" else _parse_yaml_table(text, str(path))


def _parse_json_table(text: str, file: str) -> _Table:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError
        return found

    try:
        root = json.loads(text, object_pairs_hook=once)
        if not isinstance(root, dict):
            raise ValueError
        table: Consents = {}
        for space, people in root.items():
            for person, kinds in people.items():
                _put(table, space, person, kinds)
    except (ValueError, AttributeError, RecursionError):
        what = "this is not {id space: {person: [kinds of consent]}}, each name once"
        raise ConfigInvalid([Problem(file, 1, 1, what)]) from None
    return table


def _parse_yaml_table(text: str, file: str) -> _Table:
    root, problems = parse_yaml(text, file)
    if problems or root is None:
        # Only the places: the texts of these mistakes quote what stands there, and that may be a person.
        raise ConfigInvalid([Problem(file, p.line, p.column, "this can't be read as YAML") for p in problems])
    table: Consents = {}
    if not isinstance(root, Entries):
        raise _no_table(root, file)
    for space in root.entries:
        if not isinstance(space.value, Entries):
            raise _no_table(space.value, file)
        for person in space.value.entries:
            node = person.value
            if not isinstance(node, Items) or not all(isinstance(item, Scalar) for item in node.items):
                raise _no_table(node, file)
            try:
                _put(table, space.name, person.name, [i.text for i in node.items if isinstance(i, Scalar)])
            except ValueError:
                raise _no_table(node, file) from None
    return table


def _put(table: Consents, space: str, person: str, kinds: object) -> None:
    key = (space, _normal(person))
    if key in table or not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise ValueError
    table[key] = frozenset(kinds)


def _no_table(node: Node, file: str) -> ConfigInvalid:
    what = "this is not {id space: {person: [kinds of consent]}}, each name once"
    return ConfigInvalid([Problem(file, node.line, node.column, what)])


def is_unicode(person: Person) -> bool:
    """Say whether a person has a UTF-8 form. JSON can spell half of a character; nobody is called so."""
    try:
        "".join(person).encode()
    except UnicodeEncodeError:
        return False
    return True


def _normal(text: str) -> str:
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip()


# --- a query ----------------------------------------------------------------------------------------------------


class SqlConsent:
    """Asks a SQLite file with one SELECT per person, all of an exchange in one go and within `timeout_s`.

    `query` has the parameters `:space` and `:person`; its first column are the kinds of consent. The file is opened for
    reading only, in a thread of its own.
    """

    def __init__(self, path: Path, query: str, timeout_s: float = 1.0, trouble: Trouble | None = None) -> None:
        self._path = path
        self._query = query
        self._timeout_s = timeout_s
        self.trouble = trouble or Trouble()

    async def fetch(self, people: Sequence[Person]) -> Consents:
        """See `gate.ports.Consent`."""
        if not people:
            return {}
        try:
            found = await asyncio.to_thread(self._ask, tuple(people))
        except ConsentFailed as error:
            self.trouble.failed(str(error))
            return {}
        self.trouble.worked()
        return found

    def check(self) -> None:
        """Try the query on nobody. Raises ConfigInvalid if the file or the query can't be used."""
        try:
            self._ask((("", ""),))
        except ConsentFailed as error:
            raise ConfigInvalid([Problem(str(self._path), 1, 1, f"consent.sql: {error}")]) from None

    def _ask(self, people: Sequence[Person]) -> Consents:
        until_s = time.monotonic() + self._timeout_s
        uri = f"file:{quote(str(self._path))}?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=self._timeout_s)) as connection:
                connection.execute("PRAGMA query_only = ON")
                connection.set_authorizer(_reading_only)
                # Called every so many steps of SQLite's machine; what is not zero ends the query.
                connection.set_progress_handler(lambda: time.monotonic() > until_s, 1_000)
                return {person: self._kinds(connection, person, until_s) for person in people}
        except (sqlite3.Error, sqlite3.Warning) as error:
            # The type alone: SQLite's texts may quote a value.
            raise ConsentFailed(f"the query failed ({type(error).__name__})") from None

    def _kinds(self, connection: sqlite3.Connection, person: Person, until_s: float) -> frozenset[str]:
        if time.monotonic() > until_s:
            raise ConsentFailed("the query took too long")
        if not is_unicode(person):
            return frozenset()
        rows = connection.execute(self._query, {"space": person[0], "person": person[1]}).fetchmany(MAX_KINDS)
        return frozenset(row[0] for row in rows if isinstance(row[0], str))


_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})


def _reading_only(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


# --- a service --------------------------------------------------------------------------------------------------


class HttpConsent:
    """Asks a service by POST, and remembers its answers, negative ones too, for `cache_s` and no longer.

    Sent is `[{"space": …, "person": …}, …]`, expected the status 200 and `[{"space": …, "person": …, "consent":
    ["…"]}, …]` in any order; who is not in it has consented to nothing, and who was not asked about is passed over.
    One exchange waits at most `timeout_s`. Redirects are not followed, proxies of the environment not used. Raises
    ConfigInvalid if `ca` can't be used.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 1.0,
        cache_s: float = 60.0,
        cache_people: int = 100_000,
        authorization: str = "",
        ca: Path | None = None,
        trouble: Trouble | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._cache_s = cache_s
        self._cache_people = cache_people
        self._headers = {"authorization": authorization} if authorization else {}
        self._tls = tls_of(ca, "consent.http.ca") if ca is not None else True
        self.trouble = trouble or Trouble()
        self._now_s = now_s
        # Keyed digests of people, under a key that nobody keeps: the cache is no list of whom somebody asked about.
        self._key = secrets.token_bytes(32)
        self._cache: OrderedDict[bytes, tuple[float, frozenset[str]]] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, people: Sequence[Person]) -> Consents:
        """See `gate.ports.Consent`."""
        found: Consents = {}
        unknown: list[Person] = []
        for person in dict.fromkeys(people):
            known = self._remembered(person) if is_unicode(person) else frozenset()
            if known is None:
                unknown.append(person)
            else:
                found[person] = known
        if not unknown:
            return found
        asked_s = self._now_s()
        try:
            answers = await self._ask(unknown)
        except ConsentFailed as error:
            self.trouble.failed(str(error))
            return found
        self.trouble.worked()
        for person in unknown:
            kinds = answers.get(person, frozenset())
            # From when it was asked: an answer may have been true for a moment only.
            self._remember(person, asked_s, kinds)
            found[person] = kinds
        return found

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _digest(self, person: Person) -> bytes:
        space, text = (part.encode() for part in person)
        return hashlib.blake2b(len(space).to_bytes(8, "big") + space + text, key=self._key, digest_size=16).digest()

    def _remembered(self, person: Person) -> frozenset[str] | None:
        digest = self._digest(person)
        entry = self._cache.get(digest)
        if entry is None:
            return None
        if not 0 <= self._now_s() - entry[0] < self._cache_s:
            del self._cache[digest]
            return None
        return entry[1]

    def _remember(self, person: Person, asked_s: float, kinds: frozenset[str]) -> None:
        self._cache[self._digest(person)] = (asked_s, kinds)
        while len(self._cache) > self._cache_people:
            self._cache.popitem(last=False)

    async def _ask(self, people: Sequence[Person]) -> Consents:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                # A small compressed answer could be a large one; the bound is on what comes over the wire.
                auto_decompress=False,
            )
        try:
            async with asyncio.timeout(self._timeout_s):
                found: Consents = {}
                for start in range(0, len(people), PEOPLE_PER_REQUEST):
                    batch = people[start : start + PEOPLE_PER_REQUEST]
                    found |= _parse_answer(await self._post(self._session, batch), frozenset(batch))
                return found
        except TimeoutError:
            raise ConsentFailed("the service did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConsentFailed(f"the service can't be asked ({type(error).__name__})") from None

    async def _post(self, session: aiohttp.ClientSession, people: Sequence[Person]) -> bytes:
        body = json.dumps([{"space": space, "person": text} for space, text in people], ensure_ascii=False).encode()
        headers = {"content-type": "application/json", "accept-encoding": "identity", **self._headers}
        async with session.post(
            self._url, data=body, headers=headers, allow_redirects=False, ssl=self._tls, timeout=_NO_TIMEOUT
        ) as response:
            if response.status != 200:
                raise ConsentFailed(f"the service answered {response.status}")
            data = bytearray()
            async for chunk in response.content.iter_chunked(65_536):
                data += chunk
                if len(data) > _MAX_ANSWER_BYTES:
                    raise ConsentFailed(f"the service answered more than {_MAX_ANSWER_BYTES:,} bytes")
            return bytes(data)


def tls_of(ca: Path, setting: str) -> ssl.SSLContext:
    """Return what trusts this authority alone, host names checked. Raises ConfigInvalid, naming the setting."""
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        what = f"{setting}: no CA can be read from it ({type(error).__name__})"
        raise ConfigInvalid([Problem(str(ca), 1, 1, what)]) from None


_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
"""`asyncio.timeout` around all requests of an exchange is the one that counts."""


def _parse_answer(data: bytes, asked: frozenset[Person]) -> Consents:
    """Read a service's answer. Raises ConsentFailed for anything but the expected shape, or one person twice."""
    try:
        rows = json.loads(data.decode("utf-8"))
        if not isinstance(rows, list):
            raise ConsentFailed("the service's answer is no list")
        found: Consents = {}
        for row in rows:
            person = (row["space"], row["person"])
            kinds = row["consent"]
            if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
                raise ConsentFailed("the service's answer holds a consent that is no list of texts")
            if person in found:
                # Which of the two counts would be a guess.
                raise ConsentFailed("the service's answer holds a person twice")
            if person in asked:
                found[person] = frozenset(kinds[:MAX_KINDS])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConsentFailed("the service's answer can't be read") from None
    return found
