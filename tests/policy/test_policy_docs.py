"""The documentation of the policy language is complete, and its examples are real."""

from __future__ import annotations

import re
from pathlib import Path

from gharial.model.place import parse_place
from gharial.policy.case_syntax import CASE_KEYS
from gharial.policy.document import KEYS, parse_policy
from gharial.policy.technique import TECHNIQUES, parse_technique
from gharial.policy.who import FACTS

TEXT = (Path(__file__).parents[2] / "docs/policy.md").read_text(encoding="utf-8")
HEADINGS = set(re.findall(r"^### `(.+)`$", TEXT, re.MULTILINE))
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_every_key_and_technique_has_a_heading():
    """What an author may write has its own heading, and no heading is of something that does not exist."""
    entries = {"find", "subject", "grant", "to", "for", "show", "reidentify", "budget", "people", "then", "claim.NAME"}
    assert {*KEYS, *CASE_KEYS, *TECHNIQUES, *FACTS, *entries} == HEADINGS


def test_the_examples_are_a_policy():
    """The pieces of YAML on the page, put together, are read without a mistake."""
    tags, who, tests, budgets = BLOCKS
    for budget in budgets.splitlines():
        policy = parse_policy(
            f"policy: p\nversion: 1\n{tags}{who}grants:\n  - grant: g\n    to: care\n    show: {{ contact: clear }}\n"
            f"    {budget}\n{tests}",
            "docs/policy.md",
        )
        assert policy.grants[0].budgets


def test_places_and_techniques_on_the_page_can_be_read():
    """Whatever the page shows as a place or as a technique with parameters is one."""
    places = re.findall(r"`(\$[^`]*|path:\w+)`", TEXT)
    techniques = re.findall(r"`((?:mask|band|token)\([^`]*\))`", TEXT)
    assert len(places) >= 9
    assert len(techniques) >= 8
    assert all(parse_place(place) for place in places)
    assert all(parse_technique(technique) for technique in techniques)
