"""Consent: what the source says, and nothing wherever anything goes wrong; nobody's name in any text."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gharial.adapters.consent import (
    PEOPLE_PER_REQUEST,
    FileConsent,
    HttpConsent,
    SqlConsent,
    Trouble,
    load_consent_file,
)
from gharial.model.errors import ConfigInvalid

ANN, BOB, EVE = ("customer", "planted-ann"), ("customer", "planted-bob"), ("staff", "planted-ann")


def kinds(*names: str) -> frozenset[str]:
    return frozenset(names)


class Told:
    """Collects what a resolver tells of its troubles; fails if a person or a credential is in it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.trouble = Trouble(self)

    def __call__(self, problem: str) -> None:
        assert "planted" not in problem
        self.lines.append(problem)


# --- a file -----------------------------------------------------------------------------------------------------

YAML = """
customer:
  planted-ann: [sharing, marketing]
  planted-bob: []
  42: [sharing]
staff: { planted-ann: [ads] }
"""


def replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


@pytest.mark.parametrize("name", ["consent.yaml", "consent.json"])
async def test_a_file_tells_per_space_and_person(tmp_path, name):
    """YAML and JSON alike; the same text in another id space is another person, and who is not there is missing."""
    path = tmp_path / name
    table = {"customer": {"planted-ann": ["sharing", "marketing"], "planted-bob": [], "42": ["sharing"]}}
    path.write_text(YAML if name.endswith("yaml") else json.dumps({**table, "staff": {"planted-ann": ["ads"]}}))
    found = await FileConsent(path).fetch([ANN, BOB, EVE, ("customer", "nobody"), ("customer", " 42 ")])
    assert found == {
        ANN: kinds("sharing", "marketing"),
        BOB: kinds(),
        EVE: kinds("ads"),
        ("customer", " 42 "): kinds("sharing"),
    }


async def test_a_changed_file_counts_from_the_next_exchange_on(tmp_path):
    """Whoever took consent back is not shown again, without a restart."""
    path = tmp_path / "c.yaml"
    path.write_text(YAML)
    consent = FileConsent(path)
    assert ANN in await consent.fetch([ANN])
    replace(path, "customer: { planted-bob: [sharing] }")
    assert await consent.fetch([ANN, BOB]) == {BOB: kinds("sharing")}


@pytest.mark.parametrize("broken", ["customer: [", "- a", "", "customer: { planted-ann: { a: b } }", None])
async def test_while_the_file_is_broken_nobody_has_consented(tmp_path, broken):
    """The old one might grant what the new one takes back; it is told once, and that it works again too."""
    path = tmp_path / "c.yaml"
    path.write_text(YAML)
    told = Told()
    consent = FileConsent(path, told.trouble)
    if broken is None:
        path.unlink()
    else:
        replace(path, broken)
    for _ in range(3):
        assert await consent.fetch([ANN]) == {}
    assert len(told.lines) == 1
    assert told.trouble.failures >= 3
    replace(path, YAML)
    assert ANN in await consent.fetch([ANN])
    assert told.lines[1:] == [""]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "customer: { planted-ann: [a], planted-ann: [b] }"),
        ("c.yaml", "customer: { ' planted-ann': [a], planted-ann: [b] }"),
        ("c.yaml", "customer: { planted-ann: sharing }"),
        ("c.yaml", "customer: { planted-ann: [[sharing]] }"),
        ("c.yaml", "customer: [planted-ann]"),
        ("c.yaml", "&planted-ann x"),
        ("c.json", '{"customer": {"planted-ann": ["a"], "planted-ann": ["b"]}}'),
        ("c.json", '{"customer": {"planted-ann": [1]}}'),
        ("c.json", '{"customer": ["planted-ann"]}'),
        ("c.json", '["planted-ann"]'),
        ("c.json", "[" * 100_000),
        ("c.json", "planted-ann"),
    ],
    ids=range(12),
)
def test_a_file_that_can_not_be_used_stops_the_start_without_a_name(tmp_path, name, text):
    """Twice the same person, another shape, no YAML: the mistake has a place, and nobody's name."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        load_consent_file(path)
    assert "planted" not in str(caught.value)
    with pytest.raises(ConfigInvalid):
        FileConsent(path)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_any_text_is_a_table_or_a_mistake(tmp_path_factory, text):
    """No file makes the reader raise anything else."""
    for name in ("c.yaml", "c.json"):
        path = tmp_path_factory.mktemp("c") / name
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        with contextlib.suppress(ConfigInvalid):
            load_consent_file(path)


# --- a query ----------------------------------------------------------------------------------------------------

QUERY = "SELECT kind FROM consents WHERE space = :space AND person = :person AND until > 100"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "consent ?#.db"
    with contextlib.closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE consents (space, person, kind, until)")
        rows = [(*ANN, "sharing", 200), (*ANN, "marketing", 200), (*BOB, "sharing", 50), (*EVE, 7, 200)]
        made.executemany("INSERT INTO consents VALUES (?, ?, ?, ?)", rows)
    return path


async def test_a_query_tells_per_person(database):
    """Its first column are the kinds; who has none has an empty set, and what is no text is no kind."""
    found = await SqlConsent(database, QUERY).fetch(
        [ANN, BOB, EVE, ("customer", "x' OR 1=1 --"), ("customer", "\ud800")]
    )
    assert found[ANN] == kinds("sharing", "marketing")
    assert set(found.values()) == {kinds(), kinds("sharing", "marketing")}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT kind FROM nowhere WHERE person = :person",
        "DELETE FROM consents WHERE person = :person",
        "UPDATE consents SET kind = 'all' WHERE person = :person RETURNING kind",
        "INSERT INTO consents VALUES (:space, :person, 'all', 999) RETURNING kind",
        "ATTACH :person AS other",
        "PRAGMA query_only = OFF; SELECT :person",
        "SELECT kind FROM consents WHERE person = :person; SELECT 1",
        "SELECT :person, :other",
    ],
)
async def test_a_query_that_can_not_be_used_gives_no_consent(database, query):
    """Writing, attaching, two statements, unknown tables: a mistake at the start, and later nobody has consented."""
    before = database.read_bytes()
    told = Told()
    consent = SqlConsent(database, query, trouble=told.trouble)
    with pytest.raises(ConfigInvalid) as caught:
        consent.check()
    assert "planted" not in str(caught.value)
    assert await consent.fetch([ANN]) == {}
    assert len(told.lines) == 1
    assert database.read_bytes() == before


async def test_a_slow_query_is_ended(database):
    """A query without an end takes no longer than it may, and nobody has consented."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n WHERE :person != ''"
    told = Told()
    async with asyncio.timeout(10):
        assert await SqlConsent(database, endless, 0.1, told.trouble).fetch([ANN, BOB]) == {}
    assert told.trouble.failures == 1


async def test_a_missing_database_is_not_made(tmp_path):
    """Opened for reading only: nobody has consented, and no empty file appears."""
    path = tmp_path / "none.db"
    assert await SqlConsent(path, QUERY).fetch([ANN]) == {}
    assert not path.exists()


async def test_a_database_in_use_by_a_writer_is_ended_too(database):
    """A lock that is held longer than the limit is no consent; afterwards all is as before."""
    told = Told()
    consent = SqlConsent(database, QUERY, 0.1, told.trouble)
    with contextlib.closing(sqlite3.connect(database)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert await consent.fetch([ANN]) == {}
        writer.rollback()
    assert ANN in await consent.fetch([ANN])
    assert [bool(line) for line in told.lines] == [True, False]


# --- a service --------------------------------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """A consent service over a table; `handler` answers instead where a test sets it."""

    def __init__(self) -> None:
        self.url = ""
        self.table: dict[tuple[str, str], list[str]] = {ANN: ["sharing"], EVE: ["ads"]}
        self.asked: list[list[Any]] = []
        self.headers: list[dict[str, str]] = []
        self.handler: Handler | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        people = await request.json()
        self.asked.append(people)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.handler is not None:
            return await self.handler(request)
        told = [
            {**person, "consent": self.table[person["space"], person["person"]]}
            for person in reversed(people)
            if (person["space"], person["person"]) in self.table
        ]
        return web.json_response(told)


@contextlib.asynccontextmanager
async def a_service() -> AsyncIterator[Service]:
    service = Service()
    app = web.Application()
    app.router.add_post("/ask", service.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/ask"
    try:
        yield service
    finally:
        await runner.cleanup()


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@contextlib.asynccontextmanager
async def asking(service: Service, **settings: Any) -> AsyncIterator[HttpConsent]:
    consent = HttpConsent(service.url, **settings)
    try:
        yield consent
    finally:
        await consent.close()


async def test_a_hundred_people_are_asked_about_in_one_call():
    """One batch, answers matched by who they are about; who is not in the answer has consented to nothing."""
    people = [("customer", f"planted-{n}") for n in range(99)]
    async with a_service() as service, asking(service, authorization="Bearer planted") as consent:
        found = await consent.fetch([*people, ANN, ANN])
        assert found == {ANN: kinds("sharing"), **dict.fromkeys(people, kinds())}
        assert [len(batch) for batch in service.asked] == [100]
        assert service.asked[0][0] == {"space": "customer", "person": "planted-0"}
        assert service.headers[0]["authorization"] == "Bearer planted"


async def test_a_larger_batch_goes_in_several_calls():
    """A body of very many people is no single endless request."""
    people = [("customer", str(n)) for n in range(PEOPLE_PER_REQUEST + 1)]
    async with a_service() as service, asking(service, timeout_s=20.0) as consent:
        assert len(await consent.fetch(people)) == len(people)
        assert [len(batch) for batch in service.asked] == [PEOPLE_PER_REQUEST, 1]


async def test_answers_are_kept_for_their_time_and_no_longer():
    """Positive and negative ones alike: within the time nobody is asked about twice, after it everybody is anew."""
    clock = Clock()
    async with a_service() as service, asking(service, cache_s=60.0, now_s=clock) as consent:
        await consent.fetch([ANN])
        clock.now_s += 59.9
        assert await consent.fetch([ANN, BOB]) == {ANN: kinds("sharing"), BOB: kinds()}
        assert [len(batch) for batch in service.asked] == [1, 1]
        assert await consent.fetch([ANN, BOB]) == {ANN: kinds("sharing"), BOB: kinds()}
        assert len(service.asked) == 2
        service.table = {BOB: ["ads"]}
        clock.now_s += 0.1
        assert await consent.fetch([ANN, BOB]) == {ANN: kinds(), BOB: kinds()}
        clock.now_s += 59.9
        assert await consent.fetch([BOB]) == {BOB: kinds("ads")}


async def test_an_expired_answer_is_not_used_when_the_service_is_gone():
    """Never stale: no answer means no consent, whatever was true a minute ago."""
    clock, told = Clock(), Told()
    async with a_service() as service:
        consent = HttpConsent(service.url, cache_s=60.0, now_s=clock, trouble=told.trouble)
        assert await consent.fetch([ANN]) == {ANN: kinds("sharing")}
    clock.now_s += 60.0
    assert await consent.fetch([ANN]) == {}
    await consent.close()
    assert told.trouble.failures == 1


async def test_a_person_in_the_cache_is_answered_while_the_service_is_gone():
    """Within its time an answer holds; only whoever would have to be asked about is missing."""
    async with a_service() as service:
        consent = HttpConsent(service.url)
        await consent.fetch([ANN])
    assert await consent.fetch([ANN, BOB]) == {ANN: kinds("sharing")}
    await consent.close()


async def test_the_cache_is_bounded_and_holds_no_names():
    """The oldest answers go first, and what is kept is no list of people."""
    async with a_service() as service, asking(service, cache_people=10) as consent:
        for n in range(30):
            await consent.fetch([("customer", f"planted-{n}")])
        assert len(consent._cache) == 10
        assert "planted" not in repr(consent._cache) + repr(vars(consent))
        await consent.fetch([("customer", "planted-29")])
        assert len(service.asked) == 30
    async with a_service() as service, asking(service, cache_people=0) as consent:
        assert [await consent.fetch([ANN]) for _ in range(2)] == [{ANN: kinds("sharing")}] * 2
        assert len(service.asked) == 2


async def test_a_service_that_hangs_is_not_waited_for():
    """Neither before its answer nor in the middle of it."""
    free = asyncio.Event()

    async def silent(_: web.Request) -> web.StreamResponse:
        await free.wait()
        return web.json_response([])

    async def halfway(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"[")
        await free.wait()
        return response

    for handler in (silent, halfway):
        told = Told()
        async with a_service() as service, asking(service, timeout_s=0.1, trouble=told.trouble) as consent:
            service.handler = handler
            async with asyncio.timeout(5):
                assert await consent.fetch([ANN]) == {}
            assert told.lines == ["the service did not answer in time"]
            free.set()
            service.handler = None
            assert await consent.fetch([ANN]) == {ANN: kinds("sharing")}
            assert told.lines[1:] == [""]
            free.clear()


ROW = {"space": ANN[0], "person": ANN[1], "consent": ["sharing"]}


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"", {}),
        (200, b"null", {}),
        (200, b"{}", {}),
        (200, b"[1]", {}),
        (200, b"[[]]", {}),
        (200, b"\xff", {}),
        (200, b"[" * 200_000, {}),
        (200, json.dumps([{**ROW, "consent": "sharing"}]).encode(), {}),
        (200, json.dumps([{**ROW, "consent": None}]).encode(), {}),
        (200, json.dumps([{**ROW, "consent": [1]}]).encode(), {}),
        (200, json.dumps([{**ROW, "person": ["planted"]}]).encode(), {}),
        (200, json.dumps([ROW, ROW]).encode(), {}),
        (200, json.dumps([ROW]).encode() + b" " * 5_000_000, {}),
        (200, json.dumps([ROW]).encode(), {"content-encoding": "gzip"}),
        (204, b"", {}),
        (500, json.dumps([ROW]).encode(), {}),
        (302, json.dumps([ROW]).encode(), {"location": "/ask"}),
    ],
    ids=range(17),
)
async def test_an_answer_that_is_none_is_no_consent(status, body, headers):
    """Garbage, another shape, one person twice, too much, an error, a redirect: no consent, and nothing is kept."""

    async def answer(_: web.Request) -> web.StreamResponse:
        if headers.get("content-encoding"):
            response = web.StreamResponse(status=status, headers=headers)
            await response.prepare(_)
            await response.write(__import__("gzip").compress(body))
            return response
        return web.Response(status=status, body=body, headers=headers)

    told = Told()
    async with a_service() as service, asking(service, timeout_s=10.0, trouble=told.trouble) as consent:
        service.handler = answer
        assert await consent.fetch([ANN, BOB]) == {}
        assert len(service.asked) == 1
        assert len(told.lines) == 1
        service.handler = None
        assert await consent.fetch([ANN]) == {ANN: kinds("sharing")}


async def test_whom_nobody_asked_about_is_passed_over():
    """An answer about others is not kept for later: only who was asked about counts."""

    async def others(_: web.Request) -> web.StreamResponse:
        return web.json_response([{"space": BOB[0], "person": BOB[1], "consent": ["sharing"]}, {**ROW, "consent": []}])

    async with a_service() as service, asking(service) as consent:
        service.handler = others
        assert await consent.fetch([ANN]) == {ANN: kinds()}
        service.handler = None
        assert await consent.fetch([BOB]) == {BOB: kinds()}


async def test_a_name_that_is_no_text_spoils_no_other():
    """JSON can spell half of a character: that person has consented to nothing, the others are asked about."""
    odd = ("customer", "\ud800")
    async with a_service() as service, asking(service) as consent:
        assert await consent.fetch([odd, ANN]) == {odd: kinds(), ANN: kinds("sharing")}
        assert [len(batch) for batch in service.asked] == [1]


async def test_a_service_that_is_not_there_is_no_consent():
    """Nothing listens: told by its kind alone."""
    told = Told()
    consent = HttpConsent("http://127.0.0.1:1/ask", trouble=told.trouble)
    assert await consent.fetch([ANN]) == {}
    await consent.close()
    assert told.trouble.failures == 1


def test_a_ca_that_is_none_stops_the_start(tmp_path):
    """No gateway begins with a service whose certificate it could never check."""
    path = tmp_path / "ca.pem"
    path.write_text("nonsense")
    with pytest.raises(ConfigInvalid):
        HttpConsent("https://127.0.0.1/ask", ca=path)
