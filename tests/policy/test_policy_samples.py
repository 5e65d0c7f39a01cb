"""Sample callers: the fewest that tell all conditions apart, and descriptions that are true."""

from __future__ import annotations

import itertools
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.policies import policy_maps, read

from gharial.policy.classes import applying_to, find_classes
from gharial.policy.samples import Axis, Question, Sample, caller_of, combine, describe, make_axis

AXES = tuple(
    Axis(name, (Sample((), "none", 0), *(Sample((v,), v, 1) for v in values)))
    for name, values in (("role", ("care", "boss")), ("purpose", ("a", "b", "c")), ("team", ("own",)))
)


def test_two_values_that_answer_alike_need_one_sample():
    """Of values that no condition tells apart one is tried, and the missing fact besides."""
    ask = Question("client", ("acme-*",), lambda facts: facts.get("client", ("",))[0].startswith("acme-"))
    axis = make_axis("client", [ask, ask], {})
    assert [(sample.values, sample.label) for sample in axis.samples] == [
        ((), "none"), (("acme-x",), "acme-*"), (("other",), "another"),
    ]  # fmt: skip


def test_combinations_come_plainest_first_and_a_bound_is_told():
    """All combinations come once, by how many facts they need, and a limit says that there is more."""
    found, more = combine(AXES, 1_000)
    assert not more
    assert len({c.picks for c in found}) == len(found) == 3 * 4 * 2
    assert [len(c.facts) for c in found] == sorted(len(c.facts) for c in found)
    few, more = combine(AXES, 5)
    assert (few, more) == (found[:5], True)


@given(st.data())
@settings(deadline=None)
def test_a_description_means_exactly_its_members(data: st.DataObject):
    """Reading the lines back gives the combinations that were described, no more and no fewer."""
    all_ = [c.picks for c in combine(AXES, 1_000)[0]]
    members = data.draw(st.lists(st.sampled_from(all_), unique=True))
    lines = describe(AXES, members, all_)
    others = bool(lines) and lines[0].startswith("everyone but ")
    if others:
        lines = lines[0].removeprefix("everyone but ").split("; nor ")
    labels = [[sample.label for sample in axis.samples] for axis in AXES]
    found: set[tuple[int, ...]] = set()
    for line in lines:
        told = dict(re.findall(r"(\w+) ([^,]+)", line))
        allowed = []
        for axis, names in zip(AXES, labels, strict=True):
            if axis.fact not in told:
                allowed.append(range(len(names)))
            elif told[axis.fact] == "any that is known":
                allowed.append(range(1, len(names)))
            else:
                allowed.append([names.index(text) for text in told[axis.fact].split(" or ")])
        found |= set(itertools.product(*allowed))
    assert (set(all_) - found if others else found) == set(members)


@given(policy_maps(), st.data())
@settings(max_examples=examples(40))
def test_every_caller_belongs_to_a_class_that_was_found(policy: dict[str, Any], data: st.DataObject):
    """Whoever comes, what applies to them applies to one of the sample callers too."""
    parsed = read(policy)
    facts = {
        "role": tuple(data.draw(st.lists(st.sampled_from(["care", "boss", "chief", "x"]), unique=True))),
        "client": data.draw(st.sampled_from([(), ("acme-9",), ("globex",)])),
        "team": data.draw(st.sampled_from([(), ("own",), ("foreign",)])),
        "claim.amr": data.draw(st.sampled_from([(), ("mfa",), ("pwd",)])),
        "purpose": data.draw(st.sampled_from([(), ("support",), ("billing",), ("x",)])),
    }
    applying = applying_to(parsed, *caller_of({name: values for name, values in facts.items() if values}))
    assert (applying,) in [found.applying for found in find_classes([parsed]).classes]
