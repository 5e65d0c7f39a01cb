"""Data sets without HTTP: budgets, measures, snapshots and tokens hold here as they do for answers."""

from __future__ import annotations

import itertools
import json
import threading
from typing import Any

import pytest
from support.gate_world import POLICY, World

from gharial.gate import datasets as of_datasets
from gharial.gate.datasets import (
    MAX_TOKENS,
    TOKEN_S,
    AccessTokens,
    Admitted,
    Ask,
    Datasets,
    JobType,
    Manifest,
    check_manifests,
    parse_time_s,
)
from gharial.gate.reveal import Revealer
from gharial.model.errors import AuditUnwritable, ManifestUnfit, PolicyInvalid, RequestMalformed, StoreUnwritable
from gharial.model.publication import PublicationRecord
from gharial.policy.document import parse_policy

PEOPLE = [{"customerId": f"c-{n}", "fullName": f"Person {n}"} for n in range(5)]


def counting(size: int, counter: Any = itertools.count()) -> bytes:  # noqa: B008 - one count for all
    return next(counter).to_bytes(size, "big")


def datasets(world: World) -> Datasets:
    revealer = Revealer(world.services, calls_per_minute=60_000)
    manifests = [Manifest("m", "customer-data")]
    return Datasets(world.services, manifests, revealer, random=counting, calls_per_minute=60_000)


async def protect(world: World, data: Any, job: JobType = JobType.DEFAULT, **more: Any) -> Any:
    admitted = Admitted("clerk-1", world.keys["clerk-1"], (), "")
    protected = await datasets(world).protect(admitted, Ask("m", job, json.dumps(data), **more))
    return json.loads(protected.text)


async def test_a_budget_counts_the_people_of_data_sets():
    """Three of five are shown, the others as the budget says; asked again, the same three."""
    world = World()
    for _ in range(2):
        names = [row["fullName"] for row in await protect(world, PEOPLE)]
        assert names == ["Person 0", "Person 1", "Person 2", "***", "***"]
    assert len({charge.person for charge in world.store.charges}) == 3


async def test_a_job_that_shows_nobody_charges_nothing():
    """Whoever has all restricted sees no person, so none is counted."""
    world = World()
    assert {row["fullName"] for row in await protect(world, PEOPLE, JobType.RESTRICT)} == {"[redacted]"}
    assert world.store.charges == []


@pytest.mark.parametrize(("part", "error"), [("audit", AuditUnwritable), ("store", StoreUnwritable)])
async def test_what_cant_be_made_durable_does_not_leave(part: str, error: type[Exception]):
    """No audit, no store: no data."""
    world = World()
    getattr(world, part).broken = True
    with pytest.raises(error):
        await protect(world, PEOPLE)


def published(text: str, at_s: float) -> PublicationRecord:
    return PublicationRecord("customer-data", 1, "publish", at_s, text, text)


@pytest.mark.parametrize(
    ("snapshot", "allowed"),
    [("1970-01-01T00:00:05Z", True), ("1970-01-01T00:00:15Z", False), ("1970-01-01T00:00:25.5Z", True)],
)
async def test_a_snapshot_of_another_version_is_refused(snapshot: str, allowed: bool):
    """Before the first version and since the last one, today's holds; in between the older one would have a say."""
    world = World()
    await world.store.add_publications([published("old", 10), published("new", 20)])
    if allowed:
        await protect(world, {}, snapshot=snapshot)
        return
    with pytest.raises(ManifestUnfit):
        await protect(world, {}, snapshot=snapshot)


@pytest.mark.parametrize(
    "text", ["", "2021-11-18", "2021-11-18T00:00:00", "2021-13-18T00:00:00Z", "\u0662021-11-18T00:00:00Z"]
)
def test_times_that_are_none_of_rfc_3339_are_refused(text: str):
    """No zone, no time, no such month, other digits."""
    with pytest.raises(RequestMalformed):
        parse_time_s(text)


def test_access_tokens_end():
    """After their hour, and the oldest where one client has too many; another client's stay."""
    tokens = AccessTokens(counting)
    other, first = tokens.issue("b", 0), tokens.issue("a", 0)
    assert (tokens.find_client(first, TOKEN_S - 1), tokens.find_client(first, TOKEN_S)) == ("a", "")
    last = [tokens.issue("a", 1) for _ in range(MAX_TOKENS)]
    assert [tokens.find_client(token, 2) for token in (other, first, last[0], last[-1])] == ["b", "", "a", "a"]


def test_a_policy_that_a_manifest_cant_do_with_is_not_published():
    """Two grants that can't be ordered are a mistake when the policy is read, not when data comes."""
    clash = "  - { grant: z, to: care, for: [support], show: { name: 'mask(last=4)', email: 'mask(last=4)' } }\n"
    policy = parse_policy(POLICY + clash, "policy.yaml")
    with pytest.raises(PolicyInvalid):
        check_manifests([Manifest("m", "customer-data")], World().services.routes, {"customer-data": policy})
    check_manifests(
        [Manifest("m", "customer-data")],
        World().services.routes,
        {"customer-data": parse_policy(POLICY, "policy.yaml")},
    )


async def test_a_large_data_set_in_single_quotes_is_read_beside_the_loop(monkeypatch: pytest.MonkeyPatch):
    """Making JSON of it takes as long as reading it, and holds up no other call either."""
    threads = []

    def to_json(text: str) -> str:
        threads.append(threading.current_thread())
        return text.replace("'", '"')

    monkeypatch.setattr(of_datasets, "to_json", to_json)
    world = World()
    admitted = Admitted("clerk-1", world.keys["clerk-1"], (), "")
    for size in (10, 100_000):
        await datasets(world).protect(admitted, Ask("m", JobType.DEFAULT, f"{{'note':'{'x' * size}'}}"))
    assert [thread is threading.current_thread() for thread in threads] == [True, False]


async def test_what_is_handed_over_is_no_dictionary_of_what_an_api_tells():
    """A guess comes back as another token than the API's value, so that nobody finds by comparing."""
    policy = POLICY.replace("person: clear", "person: token")
    world = World(policy)
    told = json.loads((await world.call("/customers/c-1", PEOPLE[1], as_="clerk-1")).body.body)["customerId"]
    guessed = await protect(world, PEOPLE)
    assert told.startswith("tok_")
    assert [row["customerId"][:4] for row in guessed] == ["tok_"] * 5
    assert told not in [row["customerId"] for row in guessed]
