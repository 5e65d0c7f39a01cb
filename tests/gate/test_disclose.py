"""Where the work on a body is done: what may take long never holds up the event loop, and with it all other calls."""

from __future__ import annotations

import gzip
import json
import threading

import pytest
from support.gate_world import Answer, World, refused

from gharial.gate import disclose

POLICY = """
policy: customer-data
version: 1
mode: enforce
tags:
  person: { find: ['$..customerId', '//Customer/@id'], subject: customer }
  home:   { find: ['$..country', '//Customer/Country'], fact: residency }
  name:   { find: ['$..name', '//Customer/Name'] }
who:
  anyone: {}
grants:
  - { grant: basics, to: anyone, show: { name: clear, person: token } }
never:
  - { never: eu-stays, tag: name, when: { subject.residency: EU }, at_least: redact }
"""
STEPS = ("undo_codings", "open_body", "find_holds", "person_digest")


@pytest.fixture
def worked(monkeypatch):
    """Which of the steps were done on a thread beside the loop (True) or on it (False)."""
    found = {}
    here = threading.current_thread()

    def watch(name):
        work = getattr(disclose, name)

        def watched(*args):
            found[name] = threading.current_thread() is not here
            return work(*args)

        monkeypatch.setattr(disclose, name, watched)

    for name in STEPS:
        watch(name)
    return found


def customers(count):
    return json.dumps([{"customerId": n, "name": "Ann", "country": "US"} for n in range(count)]).encode()


def gzipped(body):
    return Answer(gzip.compress(body), headers=(("content-type", "application/json"), ("content-encoding", "gzip")))


async def test_a_body_that_was_small_before_its_coding_was_undone_is_worked_on_beside_the_loop(worked):
    """Its size without codings decides: inflating it, reading it, and judging the people in it."""
    answer = gzipped(customers(2_000))
    assert len(answer.body) < disclose.THREAD_FROM_BYTES < 2_000 * 40
    seen = await World(POLICY).call("/customers", answer)
    assert len(seen.json) == 2_000
    assert worked == dict.fromkeys(STEPS, True)


async def test_a_small_body_is_inflated_beside_the_loop_and_read_on_it(worked):
    """Before it is inflated nobody knows how large it becomes; then it need not wait for large ones."""
    await World(POLICY).call("/customers", gzipped(customers(1)))
    assert worked == {"undo_codings": True, "open_body": False, "find_holds": False, "person_digest": False}


async def test_of_what_takes_longer_less_is_worked_on_on_the_loop(worked):
    """XML of some kilobytes is worked on beside the loop; JSON of the same size is not."""
    body = b"<a>" + b'<Customer id="1"><Name>Ann</Name></Customer>' * 200 + b"</a>"
    await World(POLICY).call("/customers", Answer(body, headers=(("content-type", "application/xml"),)))
    assert worked == {"open_body": True, "find_holds": True, "person_digest": True}
    await World(POLICY).call("/customers", Answer(customers(200)))
    assert worked == {"open_body": False, "find_holds": False, "person_digest": False}


async def test_what_waits_is_counted_without_its_coding(monkeypatch):
    """A gate that is full for large bodies is so for one that becomes large, too; a small one passes."""
    monkeypatch.setattr(disclose._waiting, "size", disclose.MAX_WAITING_BYTES - 1_000)
    assert refused(await World(POLICY).call("/customers", gzipped(customers(2_000)))) == "gate.full"
    assert (await World(POLICY).call("/customers", gzipped(customers(1)))).json
