"""One incident while a harvest lasts, one alarm when it opens, and no flood of either."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.gate import ports
from gharial.model.caller import Caller
from gharial.model.incident import IncidentRecord
from gharial.watch import incidents as module
from gharial.watch.incidents import MAX_PEOPLE_COUNTED, IncidentBook, people_text, window_text
from gharial.watch.meter import Crossing

CLERK = Caller("acme", client="acme-support", user="u-7", source="jwt")


def a_book(start: int = 0) -> IncidentBook:
    numbers = itertools.count(start)
    return IncidentBook(
        new_bytes=lambda count: next(numbers).to_bytes(count, "little"),
        iso_time=lambda at_s: f"1970-01-01T00:00:{at_s}Z",
    )


def a_crossing(*withheld: str, clear: int = 60, grant: str = "support-view", window_s: int = 3600) -> Crossing:
    return Crossing(0, grant, 60, window_s, clear, withheld, "mask")


def observer(book: IncidentBook) -> Callable[..., tuple[IncidentRecord | None, bytes | None]]:
    def observe(crossing: Crossing, now_s: float, caller: Caller = CLERK, policy: str = "customer-data"):
        return book.observe(crossing, caller=caller, policy=policy, route="customer", exchange_id="ex1", now_s=now_s)

    return observe


def test_the_first_crossing_opens_an_incident_and_gives_one_alarm():
    """Everything an operator needs is in the alarm, and the people are not."""
    record, alarm = observer(a_book())(a_crossing("d1", "d2"), 7.0)
    assert record == IncidentRecord(
        incident_id="inc_aaaaaaaaaaaa",
        key="people_budget\x1facme\x1facme-support\x1fu-7\x1fcustomer-data\x1fsupport-view\x1f3600",
        detector="people_budget",
        severity="high",
        principal=CLERK.principal,
        client="acme-support",
        user="u-7",
        route="customer",
        policy="customer-data",
        grant="support-view",
        limit_people=60,
        window_s=3600,
        opened_s=7.0,
        last_seen_s=7.0,
        people_clear=60,
        people_withheld=2,
        measure="mask",
        exchange_id="ex1",
    )
    assert json.loads(alarm) == {
        "type": "gharial.incident",
        "incident": "inc_aaaaaaaaaaaa",
        "severity": "high",
        "detector": "people_budget",
        "client": "acme-support",
        "user": "u-7",
        "route": "customer",
        "policy": "customer-data",
        "grant": "support-view",
        "people_clear": 60,
        "limit_people": 60,
        "window_s": 3600,
        "measure": "mask",
        "opened": "1970-01-01T00:00:7.0Z",
        "summary": "Client acme-support (user u-7) was shown 60 people in clear within 1 hour under grant support-view "
        "of policy customer-data, which allows 60; further people come as mask.",
        "show": "gharial incidents show inc_aaaaaaaaaaaa",
    }
    assert b"d1" not in alarm


def test_the_record_is_what_the_store_keeps():
    """The gate's port and this room speak of the same record, field by field."""
    names = [field.name for field in dataclasses.fields(IncidentRecord)]
    assert names == [field.name for field in dataclasses.fields(ports.IncidentRecord)]


def test_a_harvest_writes_one_record_a_second():
    """A thousand crossings a second for ten seconds: one alarm, at most one put a second, and the count is right."""
    book = a_book()
    observe = observer(book)
    got = [observe(a_crossing(f"d{n}"), n / 1000) for n in range(10_000 - 1)]
    assert sum(alarm is not None for _, alarm in got) == 1
    assert sum(record is not None for record, _ in got) == 10
    ((last, alarm),) = book.flush(10.0)
    assert (last.people_withheld, last.last_seen_s, alarm) == (9_999, 9.998, None)
    assert book.flush(10.0) == ()


def test_people_are_counted_once():
    """The same person withheld again and again is one person."""
    book = a_book()
    observe = observer(book)
    observe(a_crossing("a", "b"), 0.0)
    observe(a_crossing("b", "c"), 0.1)
    ((record, _),) = book.flush(0.2)
    assert record.people_withheld == 3


def test_events_within_the_window_belong_together_and_later_ones_do_not():
    """The window counts from the last event; after it, the next crossing is a new incident with its own alarm."""
    observe = observer(a_book())
    first, _ = observe(a_crossing("a"), 0.0)
    same, alarm = observe(a_crossing("a"), 3600.0)
    assert (same.incident_id, same.opened_s, alarm) == (first.incident_id, 0.0, None)
    still, alarm = observe(a_crossing("b"), 7200.0)
    assert (still.incident_id, alarm) == (first.incident_id, None)
    new, alarm = observe(a_crossing("b"), 10_800.1)
    assert new.incident_id != first.incident_id
    assert new.people_withheld == 1
    assert alarm is not None


@pytest.mark.parametrize(
    "other",
    [
        {"caller": dataclasses.replace(CLERK, user="u-8")},
        {"caller": dataclasses.replace(CLERK, client="other")},
        {"caller": dataclasses.replace(CLERK, tenant="other")},
        {"policy": "other"},
        {"crossing": a_crossing("a", grant="other")},
        {"crossing": a_crossing("a", window_s=86_400)},
    ],
    ids="-".join,
)
def test_another_principal_policy_grant_or_window_is_another_incident(other):
    """Each combination has its own incident and its own alarm."""
    observe = observer(a_book())
    first, _ = observe(a_crossing("a"), 0.0)
    second, alarm = observe(**{"crossing": a_crossing("a"), "now_s": 0.0, **other})
    assert second.incident_id != first.incident_id
    assert alarm is not None


def test_a_new_credential_does_not_open_a_second_incident():
    """Incidents are kept for the principal, never for a credential."""
    observe = observer(a_book())
    observe(a_crossing("a"), 0.0)
    _, alarm = observe(a_crossing("a"), 5.0, caller=dataclasses.replace(CLERK, credential_id="new", source="api_key"))
    assert alarm is None


def test_a_restart_sends_no_second_alarm():
    """What was stored is taken up: the same incident goes on, and its numbers do not shrink."""
    before, _ = observer(a_book())(a_crossing("a", "b", "c"), 0.0)
    book = a_book(start=100)
    book.load([before])
    assert book.flush(1.0) == ()
    after, alarm = observer(book)(a_crossing("d"), 2.0)
    assert (after.incident_id, after.people_withheld, after.last_seen_s, alarm) == (before.incident_id, 3, 2.0, None)


def test_after_a_restart_a_long_past_incident_is_over():
    """A stored incident whose window has passed is not continued."""
    before, _ = observer(a_book())(a_crossing("a"), 0.0)
    book = a_book(start=100)
    book.load([before])
    after, alarm = observer(book)(a_crossing("a"), 4000.0)
    assert after.incident_id != before.incident_id
    assert alarm is not None


def test_of_several_stored_ones_the_latest_goes_on():
    """The store gives the newest first; the incident that was seen last is the open one."""
    observe = observer(a_book())
    old, _ = observe(a_crossing("a"), 0.0)
    new, _ = observe(a_crossing("a"), 9000.0)
    book = a_book(start=100)
    book.load([new, old])
    after, _ = observer(book)(a_crossing("a"), 9001.0)
    assert after.incident_id == new.incident_id


def test_an_alarm_whose_record_could_not_be_stored_comes_again():
    """The put failed: the next event, or the next flush, gives record and alarm once more, and then no more."""
    for again in ("observe", "flush"):
        book = a_book()
        observe = observer(book)
        record, alarm = observe(a_crossing("a"), 0.0)
        book.put_failed(record, alarm)
        if again == "observe":
            second = observe(a_crossing("b"), 0.1)
        else:
            (second,) = book.flush(0.1)
        assert second[0].incident_id == record.incident_id
        assert second[1] == alarm
        assert observe(a_crossing("c"), 5.0)[1] is None


def test_an_alarm_survives_even_if_its_incident_was_forgotten():
    """The put fails long after: record and alarm wait for the next flush."""
    book = a_book()
    record, alarm = observer(book)(a_crossing("a"), 0.0)
    book.flush(5000.0)
    book.put_failed(record, alarm)
    assert book.flush(5001.0) == ((record, alarm),)


def test_a_clock_set_back_holds_nothing_back():
    """Time goes back an hour: updates are still put, and the incident's last time does not go back."""
    observe = observer(a_book())
    observe(a_crossing("a"), 4000.0)
    record, alarm = observe(a_crossing("b"), 400.0)
    assert (record.last_seen_s, record.people_withheld, alarm) == (4000.0, 2, None)


def test_counting_ends_at_ten_thousand_and_says_so():
    """Memory is bounded; from there on the number means 'at least'."""
    book = a_book()
    observe = observer(book)
    for start in range(0, 12_000, 100):
        observe(a_crossing(*(f"d{n}" for n in range(start, start + 100))), 0.0)
    ((record, _),) = book.flush(1.0)
    assert record.people_withheld == MAX_PEOPLE_COUNTED
    assert people_text(record.people_withheld) == "at least 10000"
    assert people_text(MAX_PEOPLE_COUNTED - 1) == "9999"


def test_a_crowd_of_thieves_does_not_fill_the_memory():
    """200 clients with 10,000 people each: at most a million are held, and no incident's number shrinks."""
    book = a_book()
    observe = observer(book)
    crowd = tuple(f"d{n}" for n in range(10_000))
    for number in range(200):
        observe(a_crossing(*crowd), 0.0, caller=Caller("acme", client=f"c{number}"))
        assert book._held <= module._MAX_PEOPLE_HELD
    assert book._held == sum(len(entry.people) for entry in book._open.values())
    observe(a_crossing("d1"), 0.5, caller=Caller("acme", client="c0"))
    ((record, _),) = book.flush(1.0)
    assert record.people_withheld == 10_000


def test_the_number_of_open_incidents_is_bounded():
    """Incidents beyond ten thousand push out those that were quiet longest; ended ones are let go of."""
    book = a_book()
    observe = observer(book)
    for number in range(10_050):
        observe(a_crossing("d"), 0.0, caller=Caller("acme", client=f"c{number}"))
    assert len(book._open) == 10_000
    book.flush(1.0)
    book.flush(5000.0)
    assert (len(book._open), book._held) == (0, 0)


@given(st.binary(min_size=8, max_size=8))
def test_ids_have_one_form(random_bytes):
    """`inc_` and twelve characters that are safe in a shell and a file name."""
    book = IncidentBook(new_bytes=lambda count: random_bytes, iso_time=str)
    record, _ = observer(book)(a_crossing("a"), 0.0)
    assert record.incident_id.startswith("inc_")
    assert len(record.incident_id) == 16
    assert set(record.incident_id[4:]) <= set("abcdefghijklmnopqrstuvwxyz234567")


@pytest.mark.parametrize(
    ("window_s", "text"),
    [(1, "1 second"), (90, "90 seconds"), (60, "1 minute"), (1800, "30 minutes"), (3600, "1 hour"), (86_400, "1 day")],
)
def test_windows_read_as_people_say_them(window_s, text):
    """The largest unit that fits."""
    assert window_text(window_s) == text


def test_a_client_without_a_user_reads_well():
    """No empty brackets in the sentence for a human."""
    _, alarm = observer(a_book())(a_crossing("a"), 0.0, caller=Caller("acme", client="acme-batch"))
    assert json.loads(alarm)["summary"].startswith("Client acme-batch was shown 60 people in clear within 1 hour")
