"""Scenarios against a watch: what a thief takes, whom it hinders, and that it is the same at every run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gharial.cli import main
from gharial.policy.document import Policy, parse_policy
from gharial.watch.scenarios import SCENARIOS
from gharial.wiring.simulate import SimulationResult, simulate

TEXT = """\
policy: simulated
version: 1
tags: { person: { find: '$..id', subject: customer } }
who: { anyone: {} }
grants: [ { grant: g, to: anyone, show: { person: token } } ]
watch:
  harvest: { people_per: user, over: [1h, 24h], above: 6x_baseline, floor: 200, do: [alert, mask] }
  sweep: { ids_in_order: 30/min, do: [alert, throttle] }
"""


def a_policy() -> Policy:
    return parse_policy(TEXT, "p.yaml")


def played(name: str, learn_days: float = 8.0) -> SimulationResult:
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    return simulate(a_policy(), scenario, Path(), learn_days=learn_days)


@pytest.mark.parametrize(("name", "most", "within_s"), [("fast", 210, 5), ("shuffled", 210, 25), ("paged", 400, 30)])
def test_a_thief_takes_about_the_floor(name, most, within_s):
    """Ordered, shuffled and paged: seen within seconds, and not many more people than the floor are gone."""
    result = played(name)
    assert result.exposed <= most
    assert result.detected_s is not None
    assert result.detected_s <= within_s
    assert result.exposed_before is not None


def test_honest_peaks_hinder_nobody():
    """A peak of four times the usual is no harvest, once the usual is known."""
    result = played("spike")
    assert (result.false_alarms, result.hindered) == (0, 0)
    assert result.honest_calls > 10_000


def test_two_runs_are_one():
    """No chance and no clock take part."""
    assert played("shuffled") == played("shuffled")


def test_the_command(tmp_path: Path):
    """Results as JSON, a picture as SVG, the list of scenarios, and a name that does not exist."""
    policy, picture = tmp_path / "p.yaml", tmp_path / "x.svg"
    policy.write_text(TEXT)
    words = ["simulate", "--policy", str(policy)]
    found = CliRunner().invoke(main, [*words, "fast", "--json", "--picture", str(picture)])
    assert found.exit_code == 0
    (result,) = json.loads(found.stdout)
    assert (result["scenario"], result["detector"]) == ("fast", "sweep")
    assert picture.read_text().startswith("<svg")
    assert "stolen-clerk" in CliRunner().invoke(main, [*words, "--list"]).stdout
    wrong = CliRunner().invoke(main, [*words, "fats"])
    assert wrong.exit_code == 2
    assert "did you mean 'fast'" in wrong.output
