"""Alarms reach real receivers, wait for dead ones, and tell nobody's secrets."""

from __future__ import annotations

import asyncio
import http.server
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gharial.adapters.alarms import Alarms, Courier, deliver_waiting, parse_alarm_urls
from gharial.adapters.store import SqliteStore, open_store
from gharial.gate.ports import IncidentRecord
from gharial.model.caller import Caller
from gharial.model.errors import StoreUnwritable
from gharial.watch.incidents import IncidentBook
from gharial.watch.meter import Crossing

DOCS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
ALARM, WEBHOOK = (block.encode() for block in re.findall(r"```json\n(.*?)\n```", DOCS, re.DOTALL))
"""What docs/operations.md shows: an alarm, and what a webhook receiver gets of it."""


class Receiver:
    """A webhook receiver on a real port. `behave` is what it does with a request, after it has read it."""

    def __init__(self) -> None:
        self.got: list[dict[str, object]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.status = 200
        self.hang = threading.Event()
        self.hang.set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.hang.wait(20)
                receiver.got.append(json.loads(body))
                receiver.headers.append(dict(self.headers))
                receiver.paths.append(self.path)
                self.send_response(receiver.status)
                if receiver.status == 302:
                    self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.hang.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def other() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = open_store(tmp_path / "gharial.db")
    yield store
    store.close()


class FakeClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


class FakeSink:
    """A sink that keeps what it got and takes what `takes` says."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.takes: Callable[[bytes], bool] = lambda _: True

    async def send(self, alarm: bytes) -> bool:
        self.got.append(alarm)
        return self.takes(alarm)


async def queue(store: SqliteStore, *alarms: bytes) -> None:
    for number, alarm in enumerate(alarms):
        text = {field: f"{field}-{number}" for field in ("incident_id", "key", "detector", "severity", "principal")}
        text |= dict.fromkeys(("client", "user", "route", "policy", "grant", "measure", "exchange_id"), "x")
        numbers = dict.fromkeys(("limit_people", "window_s", "people_clear", "people_withheld"), 1)
        await store.put_incident(IncidentRecord(**text, **numbers, opened_s=1.0, last_seen_s=1.0), alarm)


async def test_a_webhook_gets_the_sentence_and_the_fields(receiver, tmp_path):
    """The payload is exactly what docs/operations.md shows: an envelope with the alarm's JSON text as its message."""
    assert await Alarms([f"json://user:pw@{receiver.address}/hook/a"], tmp_path).send(ALARM)
    (payload,) = receiver.got
    assert payload == json.loads(WEBHOOK)
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert receiver.headers[0]["User-Agent"] == "Gharial"
    assert receiver.paths == ["/hook/a"]


async def test_a_service_for_people_gets_lines_to_read(receiver, tmp_path):
    """A chat or paging service (here: gotify) shows the sentence as title and the fields as lines, not JSON."""
    assert await Alarms([f"gotify://{receiver.address}/token"], tmp_path).send(ALARM)
    (payload,) = receiver.got
    assert payload["title"] == json.loads(ALARM)["summary"]
    assert str(payload["message"]).splitlines() == [f"{k}: {v}" for k, v in json.loads(ALARM).items() if v]


async def test_a_file_gets_a_line_of_its_own(tmp_path):
    """`file://` appends durable JSON lines, relative to the configuration, mode 0600; a torn line before is closed."""
    alarms = Alarms(["file://run/alarms.jsonl", f"file://{tmp_path}/absolute.jsonl"], tmp_path)
    assert await alarms.send(ALARM)
    path = tmp_path / "run" / "alarms.jsonl"
    with path.open("ab") as file:
        file.write(b'{"torn')
    assert await alarms.send(b'{"two":\n2}')
    assert path.read_bytes() == ALARM + b'\n{"torn\n{"two": 2}\n'
    assert (tmp_path / "absolute.jsonl").read_bytes() == ALARM + b'\n{"two": 2}\n'
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_file_that_cannot_be_written_is_a_failure(tmp_path):
    """A full or missing disk is not taken for a delivery."""
    (tmp_path / "file").touch()
    failures: list[tuple[str, str]] = []
    alarms = Alarms(["file://file/alarms.jsonl"], tmp_path, on_failure=lambda *what: failures.append(what))
    assert not await alarms.send(ALARM)
    assert failures == [("alarms[0] (file)", "not accepted")]
    assert not await Alarms(["file:///dev/full"], tmp_path).send(ALARM)


@pytest.mark.parametrize("status", [500, 404, 302])
async def test_an_answer_that_is_no_success_is_a_failure(receiver, tmp_path, status):
    """Errors are not deliveries, and a redirect is not followed."""
    receiver.status = status
    assert not await Alarms([f"json://{receiver.address}/hook"], tmp_path).send(ALARM)
    assert receiver.paths == ["/hook"]


async def test_nobody_listening_is_a_failure(receiver, tmp_path):
    """A connection that is refused is a failed try, not an exception."""
    address = receiver.address
    receiver.close()
    assert not await Alarms([f"json://{address}/"], tmp_path).send(ALARM)


async def test_a_receiver_that_hangs_stalls_nobody(receiver, other, tmp_path):
    """A hanging sink costs its time limit once, the other sink gets every alarm, and the loop goes on meanwhile."""
    receiver.hang.clear()
    alarms = Alarms([f"json://{receiver.address}/", f"json://{other.address}/"], tmp_path, timeout_s=0.3)
    many = [b'{"n": %d}' % n for n in range(20)]
    ticked = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, ticked.set)
    async with asyncio.timeout(5):  # far less than 20 limits
        assert not any(await asyncio.gather(*map(alarms.send, many)))
    assert ticked.is_set()
    assert [payload["message"] for payload in other.got] == [alarm.decode() for alarm in many]


async def test_a_receiver_that_answers_too_late_is_not_told_twice(receiver, tmp_path):
    """An alarm that was taken after the time limit counts at the next try, without being sent again."""
    receiver.hang.clear()
    alarms = Alarms([f"json://{receiver.address}/"], tmp_path, timeout_s=0.1)
    assert not await alarms.send(ALARM)
    receiver.hang.set()
    for thread in threading.enumerate():
        if thread.name == "gharial-alarm":
            await asyncio.to_thread(thread.join, 10)
    assert await alarms.send(ALARM)
    assert len(receiver.got) == 1


async def test_a_sink_that_took_it_is_spared_the_retry(receiver, other, tmp_path):
    """While one receiver fails, the other one gets the alarm once, however often it is tried."""
    receiver.status = 500
    alarms = Alarms([f"json://{receiver.address}/", f"json://{other.address}/"], tmp_path)
    assert not await alarms.send(ALARM)
    assert not await alarms.send(ALARM)
    receiver.status = 200
    assert await alarms.send(ALARM)
    assert (len(receiver.got), len(other.got)) == (3, 1)


async def test_without_a_sink_nothing_piles_up(tmp_path):
    """`alarms: []` takes every alarm; incidents are still in the store."""
    assert await Alarms([], tmp_path).send(ALARM)


async def test_no_secret_of_a_url_is_logged(receiver, tmp_path, caplog, capfd):
    """Passwords, paths and queries of alarm URLs stay out of logs and streams, on success, failure and bad input."""
    caplog.set_level(1)
    planted = ("planted-user", "planted-pw", "planted-path", "planted-query")
    url = f"json://planted-user:planted-pw@{receiver.address}/planted-path?-k=planted-query&+X-Key=planted-query"
    for status in (200, 500):
        receiver.status = status
        await Alarms([url], tmp_path).send(ALARM)
    dead = url.replace(receiver.address, "127.0.0.1:1")
    await Alarms([dead], tmp_path).send(ALARM)
    problems = parse_alarm_urls(
        ["planted-pw", "planted-pw://x/planted-path", "jsn://u:planted-pw@h", "json://u:planted-pw@"]
    )
    assert len(problems) == 4
    out = capfd.readouterr()
    seen = "\n".join([caplog.text, out.out, out.err, *problems])
    assert not [secret for secret in planted if secret in seen]
    assert logging.getLogger("apprise").level > logging.CRITICAL


def test_bad_alarm_urls_are_all_found():
    """`up --check` hears of every entry that can't work, by its number, with a way on."""
    problems = parse_alarm_urls(
        ["json://h/x", "jsn://h/x", "file://", "alarms.jsonl", "slack://a", "file://run/a.jsonl"]
    )
    assert problems == [
        "alarms[1]: apprise knows no such service; did you mean json://?",
        "alarms[2]: file:// wants a path, as in file://run/alarms.jsonl",
        "alarms[3]: not a URL; write SERVICE://… or file://PATH",
        "alarms[4]: apprise can't use this slack:// URL; its form is described on https://appriseit.com/services/",
    ]
    with pytest.raises(ValueError, match=r"alarms\[0\]"):
        Alarms(["jsn://h"], Path())


async def test_a_delivered_alarm_leaves_the_queue_and_is_sent_once(store):
    """Each waiting alarm is sent once, in order, and is gone, for the next process too."""
    await queue(store, b"1", b"2", b"3")
    sink = FakeSink()
    courier = Courier(store, sink)
    assert await courier.deliver_round() is None
    assert await courier.deliver_round() is None
    assert await Courier(store, sink).deliver_round() is None
    assert sink.got == [b"1", b"2", b"3"]
    assert await store.waiting_alarms() == []


async def test_tries_are_put_off_longer_and_longer_up_to_five_minutes(store):
    """After each failed try the pause doubles from 1 s to 300 s; nothing is sent before its time."""
    await queue(store, b"1")
    clock, sink = FakeClock(), FakeSink()
    sink.takes = lambda _: False
    told: list[tuple[int, int, float]] = []
    courier = Courier(store, sink, now_s=clock, on_failure=lambda *what: told.append(what))
    pauses = []
    for tries in range(1, 12):
        pauses.append(pause_s := await courier.deliver_round())
        assert len(sink.got) == tries
        clock.s += pause_s * 0.99
        await courier.deliver_round()
        assert len(sink.got) == tries
        clock.s += pause_s * 0.011
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300])
    assert told[:2] == [(1, 1, 1.0), (1, 2, 2.0)]
    sink.takes = lambda _: True
    assert await courier.deliver_round() is None
    assert await store.waiting_alarms() == []


async def test_an_alarm_that_fails_does_not_hold_up_the_others(store):
    """A stuck alarm waits alone; newer ones go out, also when more are stuck than one look takes."""
    clock, sink = FakeClock(), FakeSink()
    sink.takes = lambda alarm: not alarm.startswith(b"stuck")
    courier = Courier(store, sink, now_s=clock)
    await queue(store, *(b"stuck %d" % n for n in range(150)))
    await courier.deliver_round()
    await courier.deliver_round()
    await queue(store, b"new")
    sink.got.clear()
    await courier.deliver_round()
    assert sink.got == [b"new"]
    assert len(await store.waiting_alarms(limit=1000)) == 150


class UnwritableStore:
    """The store's alarm queue while its disk is full: read, not written. The rest of the port is not used here."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.full = True

    async def waiting_alarms(self, limit: int = 100):
        return await self._store.waiting_alarms(limit)

    async def alarm_delivered(self, number: int) -> None:
        if self.full:
            raise StoreUnwritable("full")
        await self._store.alarm_delivered(number)


async def test_a_full_disk_does_not_send_an_alarm_again_and_again(store):
    """What was delivered and can't be taken off the queue is remembered, and taken off when the disk is back."""
    await queue(store, b"1")
    sink, full = FakeSink(), UnwritableStore(store)
    courier = Courier(full, sink)
    assert await courier.deliver_round() == 1.0
    assert await courier.deliver_round() == 1.0
    full.full = False
    assert await courier.deliver_round() is None
    assert sink.got == [b"1"]
    assert await store.waiting_alarms() == []


async def test_a_store_that_is_gone_ends_no_courier(store):
    """A queue that can't be read is looked at again a second later."""
    store.close()
    assert await Courier(store, FakeSink()).deliver_round() == 1.0


async def test_a_receiver_that_comes_back_gets_what_waited(receiver, tmp_path):
    """Across a restart of the gateway: an alarm that found a failing receiver arrives when it works, once."""
    path = tmp_path / "gharial.db"
    urls = [f"json://{receiver.address}/"]
    receiver.status = 500
    store = open_store(path)
    await queue(store, ALARM)
    assert await Courier(store, Alarms(urls, tmp_path)).deliver_round() == pytest.approx(1.0, abs=0.5)
    store.close()
    receiver.status = 200
    receiver.got.clear()
    store = open_store(path)
    assert await Courier(store, Alarms(urls, tmp_path)).deliver_round() is None
    assert await store.waiting_alarms() == []
    store.close()
    assert [payload["message"] for payload in receiver.got] == [ALARM.decode()]


async def test_the_loop_wakes_for_new_alarms_and_for_retries(store):
    """`deliver_waiting` waits for the wake-up or the next try, whichever is first, and looks at most a minute later."""
    sink, wake, waits = FakeSink(), asyncio.Event(), []
    sink.takes = lambda _: len(sink.got) > 1

    class Enough(Exception):
        pass

    async def wait(event: asyncio.Event, timeout_s: float) -> None:
        waits.append(timeout_s)
        assert event is wake
        if len(waits) == 1:
            await queue(store, b"1")
            wake.set()
        elif len(waits) == 2:
            clock.s += timeout_s
        else:
            raise Enough

    clock = FakeClock()
    with pytest.raises(Enough):
        await deliver_waiting(Courier(store, sink, now_s=clock), wake, wait=wait)
    assert waits == [60.0, 1.0, 60.0]
    assert sink.got == [b"1", b"1"]


async def test_the_loop_runs_on_a_real_event(store):
    """With the wait of the product a wake-up leads to a delivery."""
    sink, wake, sent = FakeSink(), asyncio.Event(), asyncio.Event()
    sink.takes = lambda _: sent.set() is None
    loop = asyncio.create_task(deliver_waiting(Courier(store, sink), wake))
    await queue(store, b"1")
    wake.set()
    async with asyncio.timeout(10):
        await sent.wait()
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


def test_the_documented_alarm_is_the_one_that_is_made():
    """The example of docs/operations.md has the fields of a real alarm, in their order."""
    book = IncidentBook(new_bytes=bytes, iso_time=lambda _: "2026-11-22T20:44:10Z")
    crossing = Crossing(
        budget=0,
        grant="support-view",
        window_s=3600,
        limit=60,
        people_counted=60,
        people_withheld=("digest",),
        measure="mask",
    )
    caller = Caller(tenant="default", client="care-7")
    _, alarm = book.observe(
        crossing, caller=caller, policy="customer-data", route="customer", exchange_id="e", now_s=0.0
    )
    made, shown = json.loads(alarm), json.loads(ALARM)
    for fields in (made, shown):
        del fields["incident"], fields["show"]
    assert list(made.items()) == list(shown.items())
