"""What is kept of plans and transforms is bounded, in number and in weight."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.gate_world import World

from gharial.gate import publish
from gharial.gate.publish import _Kept
from gharial.model.caller import Caller
from gharial.policy.job import Job


def test_what_is_kept_is_made_once():
    """A second look-up finds what the first one made."""
    kept: _Kept[list[int]] = _Kept(2, 100, len)
    first = kept.get("a", lambda: [1])
    assert kept.get("a", lambda: [2]) is first


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), max_size=60))
def test_what_is_kept_stays_within_its_bounds(asked):
    """However things come, there are never more, nor heavier ones together, than the bounds; but one is always kept."""
    kept: _Kept[str] = _Kept(4, 60, len)
    for key, weight in asked:
        kept.get(key, lambda weight=weight: "x" * weight or "y")
        held = list(kept._found.values())
        assert len(held) <= 4
        assert sum(map(len, held)) <= 60 or len(held) == 1
        assert sum(map(len, held)) == kept._weight


def test_what_a_caller_chooses_pushes_out_nobodys_plans(monkeypatch):
    """However many texts a client wants for what is restricted: plans and transforms of all other calls stay."""
    for bound in ("MAX_PLANS", "MAX_TRANSFORM_SETS"):
        monkeypatch.setattr(publish, bound, 20)
    services = World().services
    rule, policies = services.routes.rules[0], services.publisher.active
    caller = Caller("default")
    before = policies.prepare(rule, caller, 0.0)
    of_jobs = [policies.prepare(rule, caller, 0.0, job=Job(text=f"chosen {at}")) for at in range(30)]
    after = policies.prepare(rule, caller, 0.0)
    assert (after.plan, after.conditions) == (before.plan, before.conditions)
    assert after.plan is before.plan
    assert after.transforms is before.transforms
    assert len({job.plan.redaction.string for job in of_jobs}) == 30
    again = policies.prepare(rule, caller, 0.0, job=Job(text="chosen 0"))
    assert again.plan is not of_jobs[0].plan
