"""Ids in order: seen within as many ids as the policy says; people who look around are left alone."""

from __future__ import annotations

import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.watch.sight import Sight
from gharial.watch.sweep import Sweep, SweepRule

RULE = SweepRule("sweep", 30, 60)


def a_sight(at_s: float, text: str, client: str = "acme") -> Sight:
    return Sight(at_s, "default", client, route="customer", asked=(("customer", text),))


def first_seen(texts: list[str], every_s: float = 1.0) -> int | None:
    sweep = Sweep(RULE)
    return next((n for n, text in enumerate(texts) if sweep.look(a_sight(n * every_s, text))), None)


@pytest.mark.parametrize(
    "texts",
    [
        [str(n) for n in range(1_000, 1_100)],
        [str(n) for n in range(1_100, 1_000, -1)],
        [f"C-{n:08d}" for n in range(0, 700, 7)],
        [f"cust_{n}x" for n in range(100)],
        [str(n if n % 10 else 5) for n in range(1_000, 1_100)],
    ],
    ids=["up", "down", "in sevens", "with a head and a tail", "with some others between"],
)
def test_ids_in_order_are_seen(texts):
    """Upwards, downwards, with gaps and with a prefix: seen with about the thirtieth id."""
    seen = first_seen(texts)
    assert seen is not None
    assert 28 <= seen <= 45


def shuffled_in_tens(count: int) -> list[int]:
    source = random.Random(7)
    return [n for start in range(0, count, 10) for n in source.sample(range(start, start + 10), 10)]


@pytest.mark.parametrize(
    "texts",
    [
        [str(n ^ 1) for n in range(100)],
        [str(n // 2 if n % 2 else 10**6 - n // 2) for n in range(120)],
        [("+" if n % 2 else "") + str(n) for n in range(100)],
        [(" " if n % 2 else "") + str(n) for n in range(100)],
        [f"{n}{' ' * 9}" for n in range(100)],
        ["0" * (n % 2) + str(n) for n in range(100)],
        [str(n if n % 4 else n + 5_000) for n in range(100)],
        [str(n * 1_001) for n in range(100)],
        [str(n) for n in shuffled_in_tens(100)],
        [f"{'AB'[n % 2]}{n // 2}" for n in range(140)],
        [str(n if n % 3 else (n * 7_919_003) % 10**9) for n in range(140)],
    ],
    ids=[
        "1,0,3,2", "two walks in turns", "a plus now and then", "a blank now and then", "blanks after", "zeros before",
        "one far jump in four", "long steps", "shuffled in tens", "two heads in turns", "every third is another's",
    ],
)  # fmt: skip
def test_ids_side_by_side_are_seen(texts):
    """Whatever the order in which they come, and however they are written: seen before twice as many went out."""
    seen = first_seen(texts, every_s=0.4)
    assert seen is not None
    assert 28 <= seen <= 65


@given(st.randoms(use_true_random=False))
def test_some_of_a_thousand_customers_are_no_sweep(source: random.Random):
    """Where there are few ids, those that customers call by chance lie near each other now and then."""
    assert first_seen([str(source.randrange(1_000)) for _ in range(200)]) is None


@given(st.randoms(use_true_random=False))
def test_random_names_are_no_sweep(source: random.Random):
    """Ids that are no numbers, as UUIDs are, are in no order."""
    assert first_seen([str(uuid.UUID(int=source.getrandbits(128))) for _ in range(200)]) is None


@given(st.randoms(use_true_random=False))
def test_ids_out_of_order_are_not(source: random.Random):
    """Ids as customers call are in no order, however many they are."""
    assert first_seen([str(source.randrange(10**6)) for _ in range(200)]) is None


def test_slow_ids_are_not():
    """Fewer in the window than the policy says are no sweep."""
    assert first_seen([str(n) for n in range(200)], every_s=3.0) is None


def test_the_same_id_again_is_no_order():
    """A client that asks for one id all the time sweeps nothing."""
    assert first_seen(["42"] * 200) is None


@given(st.lists(st.text(max_size=30), max_size=60))
def test_any_text_is_followed_or_not(texts):
    """No text of a request raises."""
    sweep = Sweep(RULE)
    for number, text in enumerate(texts):
        sweep.look(a_sight(number, text))


def test_each_caller_walks_alone():
    """Two callers that share the ids in turns are followed apart."""
    sweep = Sweep(RULE)
    found = [sweep.look(a_sight(n / 10, str(n), client=f"client-{n % 2}")) for n in range(80)]
    assert sum(map(bool, found)) >= 10
    assert "client-1" in found[-1][0].key
