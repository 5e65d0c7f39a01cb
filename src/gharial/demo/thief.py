"""The load clients: a thief who walks ids as fast as the door lets him, and callers who do honest work."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter

import aiohttp

from gharial.demo.judge import has_public_fields, in_clear
from gharial.demo.telecom import customer

CONNECTIONS = 16
MIN_REQUESTS = 300
FIRST_ID = 1_000_001
_TOKENS = ("customerId", "fullName")
_TIMEOUT = aiohttp.ClientTimeout(total=20)


@dataclass(slots=True)
class Loot:
    """What one walk brought. `people_in_clear` counts distinct people; `seconds` is the time from first to last."""

    requests: int = 0
    status_200: int = 0
    records_with_public_fields: int = 0
    seconds: float = 0.0
    clear_ids: set[int] = field(default_factory=set)
    first: bytes = b""
    """What came for FIRST_ID, with status 200."""
    last: bytes = b""
    """The latest reply with status 200."""

    @property
    def people_in_clear(self) -> int:
        """How many people this walk has seen in clear."""
        return len(self.clear_ids)

    @property
    def people_per_s(self) -> float:
        """People seen in clear per second."""
        return self.people_in_clear / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a walk lasts: `seconds`, and on until `min_requests` are done, yet never beyond `max_seconds`."""

    seconds: float = 3.0
    min_requests: int = MIN_REQUESTS
    max_seconds: float = 20.0


async def walk(
    base_url: str, key: str = "", pace: Pace = Pace(), on_progress: Callable[[Loot], None] | None = None
) -> Loot:
    """Ask for one customer after the other over several connections, and judge every reply, whatever its status."""
    loot = Loot()
    ids = itertools.count(FIRST_ID)
    began = perf_counter()

    def goes_on() -> bool:
        loot.seconds = perf_counter() - began
        return loot.seconds < pace.max_seconds and (loot.seconds < pace.seconds or loot.requests < pace.min_requests)

    async with _session(key) as session:

        async def worker() -> None:
            while goes_on():
                await _ask(session, base_url, next(ids), loot)
                if on_progress is not None:
                    on_progress(loot)

        async with asyncio.TaskGroup() as workers:
            for _ in range(CONNECTIONS):
                workers.create_task(worker())
    loot.seconds = perf_counter() - began
    return loot


def _session(key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        headers={"X-Api-Key": key} if key else {},
        timeout=_TIMEOUT,
        auto_decompress=True,
    )


async def _ask(session: aiohttp.ClientSession, base_url: str, customer_id: int, loot: Loot) -> None:
    loot.requests += 1
    try:
        status, head, body = await _fetch(session, f"{base_url}/customers/{customer_id}")
    except (aiohttp.ClientError, TimeoutError):
        return
    record = customer(customer_id)
    if in_clear(record, head) or in_clear(record, body):
        loot.clear_ids.add(customer_id)
    if status == 200:
        loot.status_200 += 1
        loot.records_with_public_fields += has_public_fields(record, body)
        loot.last = body
        if customer_id == FIRST_ID:
            loot.first = body


async def _fetch(session: aiohttp.ClientSession, url: str) -> tuple[int, bytes, bytes]:
    """Return status, header lines and body."""
    async with session.get(url, allow_redirects=False) as reply:
        head = b"\r\n".join(name + b": " + value for name, value in reply.raw_headers)
        return reply.status, head, await reply.read()


# --- honest work --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Work:
    """What an honest caller did. `right` counts the answers that were just what the work needs."""

    requests: int = 0
    status_200: int = 0
    people_in_clear: int = 0
    right: int = 0

    @property
    def ok(self) -> bool:
        """True if there was work, and every single answer was right."""
        return 0 < self.requests == self.right


async def help_customers(base_url: str, key: str, calls: int) -> Work:
    """A clerk's shift: customers ring in no order, and each record must come in clear, with the right public fields."""
    work = Work()
    async with _session(key) as session:
        for customer_id in itertools.islice(_callers(), calls):
            record = customer(customer_id)
            status, body = await _work(session, f"{base_url}/customers/{customer_id}", work)
            clear = in_clear(record, body)
            work.people_in_clear += clear
            work.right += status == 200 and clear and has_public_fields(record, body)
    return work


def _callers() -> Iterator[int]:
    return (7_919 * n * n % 36_000_000 + 1 for n in itertools.count(1))


async def bill_by_token(base_url: str, key: str, people: int) -> Work:
    """A partner's shift: a page of customers comes with tokens for ids; each, sent back in a path, must bring its bill.

    The right bill has the token that was sent, the same token for the name as the page had, and that customer's public
    fields; and nobody is in clear anywhere.
    """
    work = Work()
    records = [customer(n) for n in range(FIRST_ID, FIRST_ID + people)]
    async with _session(key) as session:
        _, page = await _work(session, f"{base_url}/customers?from={FIRST_ID}&limit={people}", work)
        items = _find_items(page)
        work.people_in_clear = sum(in_clear(record, page) for record in records)
        work.right += len(items) == people and work.people_in_clear == 0
        for record, item in zip(records, items, strict=False):
            status, body = await _work(session, f"{base_url}/customers/{item['customerId']}/bill", work)
            clear = in_clear(record, body)
            work.people_in_clear += clear
            work.right += status == 200 and not clear and has_public_fields(record, body) and _same_tokens(item, body)
    return work


async def _work(session: aiohttp.ClientSession, url: str, work: Work) -> tuple[int, bytes]:
    """Return status and body; 0 and nothing if there was no answer."""
    work.requests += 1
    try:
        status, _, body = await _fetch(session, url)
    except (aiohttp.ClientError, TimeoutError):
        return 0, b""
    work.status_200 += status == 200
    return status, body


def _find_items(page: bytes) -> list[dict[str, str]]:
    """Return the items of a page whose id and name are tokens."""
    try:
        items = json.loads(page)["items"]
        return [item for item in items if all(str(item[name]).startswith("tok_") for name in _TOKENS)]
    except (ValueError, KeyError, TypeError):
        return []


def _same_tokens(item: dict[str, str], body: bytes) -> bool:
    record = json.loads(body)
    return all(record.get(name) == item[name] for name in _TOKENS)
