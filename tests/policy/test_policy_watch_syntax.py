"""`watch`: what is kept for the watching room, and what is doubted or refused about it."""

from __future__ import annotations

import pytest

from gharial.model.errors import PolicyInvalid
from gharial.policy.advice import find_warnings
from gharial.policy.document import Policy, parse_policy
from gharial.policy.watch_syntax import Measure


def a_policy(watch: str) -> Policy:
    return parse_policy(f"policy: p\nversion: 1\ntags: {{ a: {{ find: $.a }} }}\nwatch:\n{watch}", "policy.yaml")


TEXT = """\
  harvest: { people_per: client, over: [30d, 1h, 24h], above: 6x_baseline, floor: 200, do: [mask, alert] }
  crowd:   { people_per: team, over: 1h, above: 500, do: alert }
  sweep:   { ids_in_order: 30/min, do: [alert, throttle] }
  decoy:   { ids: 'file:decoys.txt', do: [alert:critical, block:1h] }
"""


def test_the_kinds_of_watches():
    """Windows in seconds, thresholds, rates, decoys and measures, whatever order they are written in."""
    crowd, decoy, harvest, sweep = a_policy(TEXT).watch
    assert (harvest.people_per, harvest.over_s, harvest.baseline_factor, harvest.people, harvest.floor) == (
        "client", (3_600, 86_400, 2_592_000), 6.0, 0, 200,
    )  # fmt: skip
    assert harvest.do == (Measure("alert"), Measure("mask"))
    assert (crowd.baseline_factor, crowd.people, crowd.over_s) == (0.0, 500, (3_600,))
    assert sweep.ids_in_order == (30, 60)
    assert (decoy.ids, decoy.do) == ("file:decoys.txt", (Measure("alert", "critical"), Measure("block", for_s=3_600)))


def test_a_watch_that_counts_nobody_is_doubted():
    """Without a subject there are no people to count, and made-up values are not made: both are said."""
    warned = [str(problem) for problem in find_warnings(a_policy(TEXT))]
    assert any("counts nobody: no tag has a subject" in text for text in warned)
    doubtful = a_policy("  harvest: { people_per: user, over: 1h, above: 50, do: [alert, decoy] }\n")
    assert any("it masks instead" in str(problem) for problem in find_warnings(doubtful))


def test_measures_for_many_are_refused():
    """What a whole tenant or route has seen is nobody's own doing: it can only alert."""
    text = "{ people_per: tenant, over: 1h, above: 5000, do: [alert, mask] }"
    with pytest.raises(PolicyInvalid, match="only 'alert' fits"):
        a_policy(f"  crowd: {text}\n")


def test_a_baseline_needs_a_floor():
    """Without one the first person would be too many, until the usual is known."""
    with pytest.raises(PolicyInvalid, match="a baseline needs a 'floor'"):
        a_policy("  h: { people_per: user, over: 1h, above: 6x_baseline, do: alert }\n")
