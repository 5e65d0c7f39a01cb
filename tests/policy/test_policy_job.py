"""Jobs: what a caller asks for never shows more than the policy does."""

from __future__ import annotations

import pytest

from gharial.model.plan import Op, Plan
from gharial.policy.compile import compile_plan
from gharial.policy.document import Policy, parse_policy
from gharial.policy.job import Job, compile_job_plan
from gharial.policy.technique import Technique, compare

SHOWN = (
    "clear", "mask", "mask(last=4)", "mask(keep=domain)", "year", "band(10)", "round(5)", "truncate(3)", "token",
    "token(scope=all)", "token(from=vault)", "fpe", "encrypt", "pseudonym", "redact", "'null'", "drop",
)  # fmt: skip
FLOORS = (None, Op.MASK, Op.TOKEN, Op.ENCRYPT, Op.REDACT)


def a_policy(shown: str) -> Policy:
    return parse_policy(
        f"""
policy: p
version: 1
mode: enforce
tags:
  secret: {{ find: '$..secret' }}
  public: {{ find: '$..open' }}
unlisted_fields: redact
who: {{ anyone: {{}} }}
grants:
  - {{ grant: g, to: anyone, show: {{ secret: {shown}, public: clear }} }}
""",
        "p.yaml",
    )


def technique_of(plan: Plan, tag: str) -> Technique:
    step = next(plan.steps[cell.steps[0]] for cell in plan.cells if cell.tag == tag)
    return Technique(step.op, tuple(pair for pair in step.args if pair[0] not in ("type", "form", "length")))


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("floor", FLOORS)
def test_a_job_is_at_least_as_strict_as_policy_and_floor(shown: str, floor: Op | None):
    """Whatever the policy shows: the result is neither more open than that, nor than what the job asks for."""
    policy = a_policy(shown)
    plain = technique_of(compile_plan(policy, "r", (), ("g",)), "secret")
    got = technique_of(compile_job_plan(policy, "r", (), ("g",), (), Job(at_least=floor)), "secret")
    assert compare(got, plain) in (0, 1)
    if floor is not None:
        assert compare(got, Technique(floor)) in (0, 1)


def test_a_public_tag_stays_as_the_policy_shows_it():
    """Under every floor, also where masks become digits."""
    job = Job(at_least=Op.REDACT, hexadecimal=True, public=frozenset({"public"}))
    assert technique_of(compile_job_plan(a_policy("clear"), "r", (), ("g",), (), job), "public") == Technique(Op.CLEAR)


def test_a_measure_holds_under_a_job():
    """A caller whom the watch masks sees masks, whatever job it asks for."""
    plan = compile_job_plan(a_policy("clear"), "r", (), ("g",), (), Job(), frozenset({"public"}))
    assert technique_of(plan, "secret") == Technique(Op.MASK)


def test_two_jobs_have_two_plans():
    """The digest tells them apart, by which runnable steps are kept."""
    policy = a_policy("clear")
    jobs = [Job(), Job(text="x"), Job(nulls=True), Job(Op.MASK), Job(Op.MASK, hexadecimal=True), Job(Op.REDACT)]
    jobs += [Job(Op.MASK, hexadecimal=True, same_length=True), Job(Op.REDACT, same_length=True)]
    assert len({compile_job_plan(policy, "r", (), ("g",), (), job).digest for job in jobs}) == len(jobs)
