"""Random policies whose techniques can all be ordered, as YAML, for laws that must hold for any policy."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from gharial.policy.document import Policy, parse_policy

# Any two of these can be ordered, the most open first.
TECHNIQUES = (
    "clear", "mask(keep=domain, last=4)", "mask(last=4)", "mask", "band(10y)", "token(scope=client)",
    "token(scope=all)", "redact", "null", "drop",
)  # fmt: skip
PLACES = (
    "$..email", "$.email", "$..phone", "$.person.phone", "$.person", "$.rows[*].note", "$.rows", "$..id", "path:id",
    "$.rows[0].note", "$.*.birth",
)  # fmt: skip
TAGS = ("alpha", "beta", "gamma", "delta")
WHO = {
    "anyone": {},
    "care": {"role": "care"},
    "boss": {"role": ["boss", "chief"], "claim.amr": "mfa"},
    "partner": {"client": "acme-*"},
    "stranger": {"team": {"not": "own"}},
}
PURPOSES = ("support", "billing")


@st.composite
def tag_maps(draw: st.DrawFn) -> dict[str, Any]:
    """Tags with places; one may name people."""
    found: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(TAGS), min_size=1, unique=True)):
        found[name] = {"find": draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3, unique=True))}
    if draw(st.booleans()):
        next(iter(found.values()))["subject"] = "customer"
    return found


@st.composite
def grant_maps(draw: st.DrawFn, tags: tuple[str, ...], techniques: tuple[str, ...] = TECHNIQUES) -> dict[str, Any]:
    """One grant without a name."""
    shown = draw(st.dictionaries(st.sampled_from(tags), st.sampled_from(techniques), min_size=1))
    grant: dict[str, Any] = {"to": draw(st.lists(st.sampled_from(sorted(WHO)), min_size=1, max_size=2, unique=True))}
    if draw(st.booleans()):
        grant["for"] = draw(st.lists(st.sampled_from(PURPOSES), min_size=1, unique=True))
    grant["show"] = shown
    if "clear" in shown.values() and draw(st.booleans()):
        stricter = tuple(t for t in techniques if t != "clear")
        people, then = st.sampled_from(["5/h", "60/h", "10/d"]), st.sampled_from(stricter)
        grant["budget"] = {"people": draw(people), "then": draw(then)}
    return grant


@st.composite
def policy_maps(draw: st.DrawFn, tags: dict[str, Any] | None = None) -> dict[str, Any]:
    """A whole policy as data."""
    tags = draw(tag_maps()) if tags is None else tags
    grants = draw(st.lists(grant_maps(tuple(tags)), max_size=3))
    return {
        "policy": "random",
        "version": draw(st.integers(1, 9)),
        "tags": tags,
        "unlisted_fields": draw(st.sampled_from(["drop", "redact", "pass"])),
        "who": WHO,
        "grants": [{"grant": f"g{n}", **grant} for n, grant in enumerate(grants)],
    }


PERSON_CONDITIONS = (
    {"subject.residency": "EU"}, {"subject.residency": {"not": "EEA"}}, {"subject.residency": ["FR", "US"]},
    {"subject.consent": "sharing"}, {"subject.consent": {"not": "ads"}},
)  # fmt: skip
CALLER_CONDITIONS = (
    {"country": "EEA"}, {"caller.country": {"not": ["EU", "CH"]}}, {"network": "tor"}, {"claim.amr": {"not": "mfa"}},
)  # fmt: skip
HOME = {"find": "$..home", "fact": "residency"}


@st.composite
def condition_maps(draw: st.DrawFn) -> dict[str, Any]:
    """Conditions on caller and person, of which some may be left out."""
    person = draw(st.sampled_from([{}, *PERSON_CONDITIONS]))
    return person | draw(st.sampled_from([{}, *CALLER_CONDITIONS]))


@st.composite
def guardrail_maps(draw: st.DrawFn, tags: tuple[str, ...]) -> dict[str, Any]:
    """One guardrail without a name."""
    found: dict[str, Any] = {"tag": draw(st.sampled_from(tags)), "at_least": draw(st.sampled_from(TECHNIQUES[1:]))}
    if when := draw(condition_maps()):
        found["when"] = when
    return found


@st.composite
def conditional_policy_maps(draw: st.DrawFn) -> dict[str, Any]:
    """A policy in which facts of people decide too."""
    policy = draw(policy_maps())
    tags = {**policy["tags"], "home": HOME}
    grants = []
    for grant in policy["grants"]:
        needs = draw(condition_maps())
        grants.append({**grant, "needs": needs} if needs else grant)
    never = draw(st.lists(guardrail_maps(tuple(tags)), max_size=2))
    rules = [{"never": f"n{n}", **rule} for n, rule in enumerate(never)]
    return policy | {"tags": tags, "grants": grants, "never": rules}


def read(policy: dict[str, Any]) -> Policy:
    """Read a policy from data; JSON is YAML."""
    return parse_policy(json.dumps(policy), "policy.yaml")
