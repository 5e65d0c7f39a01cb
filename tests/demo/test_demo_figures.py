"""The figures: which of them are wrong, and the names under which they are written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gharial.demo.figures import Figures, days_for_all, find_faults, to_json
from gharial.demo.thief import Loot, Work

WALK = ["requests", "status_200", "records_with_public_fields", "people_in_clear", "seconds"]


def a_walk(people: int, requests: int = 370) -> Loot:
    """A walk in which everything was answered."""
    return Loot(requests, requests, requests, 2.0, set(range(people)))


def figures() -> Figures:
    """Figures as they must be."""
    return Figures(
        door=a_walk(370),
        anonymous=a_walk(0),
        partner_key=a_walk(0),
        stolen_clerk=a_walk(60),
        incident="inc_1",
        people_exposed=60,
        honest_clerk=Work(40, 40, 40, 40),
        partner_token=Work(21, 21, 0, 21),
    )


def test_good_figures_have_no_fault():
    """What the issue asks for passes."""
    assert list(find_faults(figures())) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"door": a_walk(369)}, "open door"),
        ({"anonymous": a_walk(1)}, "without a credential saw 1 people"),
        ({"partner_key": a_walk(1)}, "partner's key saw 1 people"),
        ({"stolen_clerk": a_walk(61)}, "saw 61 people"),
        ({"stolen_clerk": a_walk(59)}, "saw 59 people"),
        ({"anonymous": a_walk(0, 200)}, "only 200 requests"),
        ({"anonymous": replace(a_walk(0), status_200=369)}, "369 were answered"),
        ({"anonymous": replace(a_walk(0), records_with_public_fields=0)}, "0 with the right public fields"),
        ({"incident": ""}, "no incident"),
        ({"people_exposed": 59}, "59 people exposed"),
        ({"honest_clerk": Work(40, 40, 39, 39)}, "honest clerk"),
        ({"honest_clerk": Work()}, "honest clerk"),
        ({"partner_token": Work(21, 21, 0, 20)}, "token"),
    ],
)
def test_each_wrong_figure_is_named(change: dict[str, object], said: str):
    """One wrong figure gives one sentence, about that figure."""
    faults = list(find_faults(replace(figures(), **change)))
    assert len(faults) == 1
    assert said in faults[0]


def test_the_file_has_the_names_that_scripts_read():
    """The field names of `--json` are fixed."""
    written = to_json(figures())
    assert {part: list(fields) for part, fields in written.items()} == {
        "door": [*WALK, "days_for_all"],
        "anonymous": WALK,
        "partner_key": WALK,
        "stolen_clerk": [*WALK, "incident"],
        "honest_clerk": ["requests", "ok"],
        "partner_token": ["ok"],
    }
    assert written["stolen_clerk"]["people_in_clear"] == 60
    assert written["honest_clerk"] == {"requests": 40, "ok": True}


def test_days_for_all_follow_from_the_measured_speed():
    """185 people a second are 37 million in 200,000 seconds; nobody at all is never done, and is no error."""
    assert days_for_all(a_walk(370)) == pytest.approx(200_000 / 86_400)
    assert days_for_all(a_walk(0)) == float("inf")
    assert to_json(replace(figures(), door=a_walk(0)))["door"]["days_for_all"] is None
