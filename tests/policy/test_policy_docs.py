"""The documentation of the policy language is complete, and its examples are real."""

from __future__ import annotations

import re
from pathlib import Path

from gharial.model.place import PlaceError, parse_place
from gharial.policy.case_syntax import CASE_KEYS
from gharial.policy.countries import BUILT_IN
from gharial.policy.document import KEYS, parse_policy
from gharial.policy.facts import FACTS
from gharial.policy.grants import GRANT_KEYS
from gharial.policy.guardrails import GUARDRAIL_KEYS
from gharial.policy.selectors import parse_general
from gharial.policy.tags import TAG_KEYS
from gharial.policy.technique_syntax import TECHNIQUES, parse_technique
from gharial.policy.watch_syntax import WATCH_KEYS

TEXT = (Path(__file__).parents[2] / "docs/policy.md").read_text(encoding="utf-8")
HEADINGS = set(re.findall(r"^### `(.+)`$", TEXT, re.MULTILINE))
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_every_key_and_technique_has_a_heading():
    """What an author may write has its own heading, and no heading is of something that does not exist."""
    keys = {*KEYS, *TAG_KEYS, *GRANT_KEYS, *GUARDRAIL_KEYS, *WATCH_KEYS, *CASE_KEYS, "people", "then"}
    facts = {*FACTS, "claim.NAME", "cel", "subject.residency", "subject.consent", "subject.NAME"}
    assert {*keys, *facts, *TECHNIQUES, *BUILT_IN} == HEADINGS


def test_the_examples_are_a_policy():
    """The pieces of YAML on the page, put together, are read without a mistake."""
    pieces: dict[str, list[str]] = {}
    for block in BLOCKS:
        pieces.setdefault(block.partition(":")[0], []).append(block)
    assert sorted(pieces) == ["budget", "groups", "lists", "never", "tags", "tests", "watch", "who"]
    common = "".join(pieces[key][0] for key in ("groups", "lists", "never", "watch", "tests"))
    tags = pieces["tags"][0] + "  account: { find: '$..account' }\n  pii: [contact, account]\n"
    tags += "  country: { find: '$..country', fact: residency }\n"
    for who in pieces["who"]:
        assert parse_policy(f"policy: p\nversion: 1\n{tags}{who}", "docs/policy.md").who
    for other in pieces["tags"][1:]:
        assert parse_policy(f"policy: p\nversion: 1\n{other}", "docs/policy.md").tags
    for never in pieces["never"][1:]:
        assert parse_policy(f"policy: p\nversion: 1\n{tags}{never}", "docs/policy.md").never
    for budget in pieces["budget"][0].splitlines():
        policy = parse_policy(
            f"policy: p\nversion: 1\n{tags}{pieces['who'][0]}{common}grants:\n  - grant: g\n    to: care\n"
            f"    show: {{ contact: clear }}\n    {budget}\n",
            "docs/policy.md",
        )
        assert policy.grants[0].budgets
        assert len(policy.never) == 5
        assert len(policy.watch) == 3


def test_places_and_techniques_on_the_page_can_be_read():
    """Whatever the page shows as a place or as a technique with parameters is one."""
    places = re.findall(r"`(\$[^`]*|path:\w+)`", TEXT)
    shown = "mask|band|bucket|round|truncate|postcode|date_shift|token|fpe|pseudonym|substitute"
    techniques = re.findall(rf"`((?:{shown})\([^`]*\))`", TEXT)
    assert len(places) >= 9
    assert len(techniques) >= 20
    assert all(_is_place(place) for place in places)
    assert all(parse_technique(technique) for technique in techniques)


def _is_place(text: str) -> bool:
    try:
        return bool(parse_place(text))
    except PlaceError as error:
        return error.beyond and bool(parse_general(text))
