"""Several policy files: in whatever order they come, the same is active afterwards, or the same mistakes are told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.gate_world import FakeStore, ManualClock
from support.policies import conditional_policy_maps

from gharial.adapters.active_file import ActiveTexts
from gharial.adapters.files import load_gateway_files
from gharial.crypto.keyset import Keyset, create_keyset
from gharial.gate.publish import Publisher
from gharial.gate.publishing import PolicyText, Publishing, Readiness
from gharial.gate.routes import RouteKind, RouteRule, RouteTable, parse_template
from gharial.model.caller import Caller
from gharial.model.errors import GharialError
from gharial.model.plan import dump_plan
from gharial.policy.document import parse_policy

NAMES = ("north", "south", "west")
CALLERS = (Caller("t"), Caller("t", client="acme-1", roles=("care", "boss"), country="DE", purpose="support"))
RULES = [
    RouteRule(name, parse_template(f"GET /{name}/{{id}}"), RouteKind.PROTECT, name, frozenset(), frozenset())
    for name in NAMES
]
START = {name: parse_policy(f"policy: {name}\nversion: 1\ntags: {{ a: {{ find: $.a }} }}\n", "start") for name in NAMES}
SETTINGS = {
    "upstreams": {"api": {"url": "http://127.0.0.1:9000"}},
    "routes": [{"route": name, "match": f"GET /{name}/{{id}}", "upstream": "api", "policy": name} for name in NAMES],
}


def a_keyset() -> Keyset:
    return create_keyset(lambda count: b"\x17" * count, 0.0)


@st.composite
def files(draw: st.DrawFn, *, right: bool) -> list[PolicyText]:
    """A file for each policy; some may be wrong, and two may hold a policy of one name."""
    found = []
    for number in range(len(NAMES)):
        policy: dict[str, Any] = draw(conditional_policy_maps())
        policy["policy"] = NAMES[number] if right else draw(st.sampled_from(NAMES))
        if not right:
            policy["unlisted_fields"] = draw(st.sampled_from(["drop", "dorp"]))
            policy["tags"]["twin"] = draw(st.sampled_from([{"find": "path:di"}, {"find": "$.twin"}]))
        found.append(PolicyText(f"{number}.yaml", json.dumps(policy)))
    return found


def published(texts: list[PolicyText]) -> tuple[object, ...]:
    """What is active after a publication, or what it says is wrong; and what is remembered of it."""
    publisher, store, readiness = Publisher(START, a_keyset(), bytes), FakeStore(), Readiness()
    failing = [f"{text.file}:1: expected masked" for text in texts if '"version": 3' in text.text]
    publishing = Publishing(
        publisher, RouteTable(RULES), store, ManualClock(), lambda p, _: [f for f in failing if p.file in f], readiness
    )
    try:
        told: object = asyncio.run(publishing.publish(texts))
    except GharialError as error:
        told = str(error)
    plans = []
    for rule in RULES:
        for caller in CALLERS:
            try:
                plans.append(dump_plan(publisher.active.prepare(rule, caller, 0.0).plan))
            except GharialError as error:
                plans.append(str(error).encode())
    return told, plans, readiness.problems, store.publications


def loaded(texts: list[PolicyText]) -> object:
    """What a gateway would start with, or what it says is wrong."""
    active = ActiveTexts(json.dumps(SETTINGS), tuple(texts))
    try:
        found = load_gateway_files(Path("gharial.yaml"), active)
    except GharialError as error:
        return str(error)
    return found.policies, found.routes.rules


@settings(max_examples=examples(100))
@given(files(right=True), st.data())
def test_the_order_of_files_never_matters(texts: list[PolicyText], data: st.DataObject):
    """Policies that are published or loaded together give the same plans and the same history in any order."""
    other = data.draw(st.permutations(texts))
    assert published(texts) == published(other)
    assert loaded(texts) == loaded(other)


def test_a_gateway_loads_several_policies():
    """What the laws of this file are about: three files, each with a route, are loaded and published."""
    texts = [PolicyText(f"{n}.yaml", f"policy: {n}\nversion: 1\ntags: {{ a: {{ find: $.a }} }}\n") for n in NAMES]
    assert not isinstance(loaded(texts), str)
    assert published(texts)[0] == list(NAMES)


@settings(max_examples=examples(100))
@given(files(right=False), st.data())
def test_the_order_of_files_changes_no_mistake(texts: list[PolicyText], data: st.DataObject):
    """All mistakes of all files are told, the same ones in any order; also which of two of one name is one too many."""
    other = data.draw(st.permutations(texts))
    assert published(texts) == published(other)
    assert loaded(texts) == loaded(other)


def test_files_of_one_name_are_told_at_the_later_one():
    """Two files hold one policy: the one whose name comes later is told, and names the other."""
    text = "policy: north\nversion: 1\ntags: { a: { find: $.a } }\n"
    told = published([PolicyText("b.yaml", text), PolicyText("a.yaml", text)])[0]
    assert told == "b.yaml:1:1: the file a.yaml holds a policy 'north' already"
