"""The plan of a job: a caller asks for less than the policy would show it, and can't ask for more.

Like a measure, it is the policy with one guardrail more, so all that holds for guardrails holds for it: no grant
relaxes it, and what the policy makes stricter stays stricter.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from gharial.model.plan import HEX, SAME_LENGTH, Op, Plan, Redaction, Step, dump_plan
from gharial.policy.compile import compile_plan
from gharial.policy.conditions import Conditions
from gharial.policy.document import Policy
from gharial.policy.guardrails import Guardrail
from gharial.policy.masked import compile_masked_plan
from gharial.policy.technique import Technique

JOB = "(job)"
"""The guardrail's name in plans and findings; no author's guardrail can be called so."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a caller asks for besides what the policy decides.

    `at_least` is the floor under all tags but the `public` ones, None for none. With `hexadecimal` masks are hex-like
    text of the value, with `same_length` as long as it; so are, in that case, redacted texts. `text` stands for
    redacted strings, None: what the policy says. With `nulls` a protected null is replaced too.
    """

    at_least: Op | None = None
    hexadecimal: bool = False
    same_length: bool = False
    nulls: bool = False
    text: str | None = None
    public: frozenset[str] = frozenset()


def compile_job_plan(
    policy: Policy,
    route: str,
    params: tuple[str, ...],
    grants: Iterable[str],
    guardrails: Iterable[str],
    job: Job,
    open_tags: frozenset[str] | None = None,
) -> Plan:
    """Return the plan of one route for one class of callers and one job; masked but for `open_tags`, if they are given.

    Raises as `compile_plan`.
    """
    acting = tuple(guardrails)
    if job.at_least is not None:
        policy = dataclasses.replace(policy, never=(*policy.never, _floor(policy, job, job.at_least)))
        acting += (JOB,)
    if open_tags is None:
        plan = compile_plan(policy, route, params, grants, acting)
    else:
        plan = compile_masked_plan(policy, route, params, grants, acting, open_tags)
    redaction = Redaction(
        plan.redaction.string if job.text is None else job.text,
        plan.redaction.number,
        plan.redaction.boolean,
        nulls=job.nulls,
        same_length=job.same_length and job.at_least is Op.REDACT,
    )
    steps = tuple(_hexadecimal(step, job) for step in plan.steps) if job.hexadecimal else plan.steps
    plan = msgspec.structs.replace(plan, redaction=redaction, steps=steps, digest="")
    return msgspec.structs.replace(plan, digest=hashlib.sha256(dump_plan(plan)).hexdigest()[:32])


def _floor(policy: Policy, job: Job, at_least: Op) -> Guardrail:
    return Guardrail(
        name=JOB,
        tags=frozenset(policy.tags) - job.public,
        at_least=Technique(at_least),
        probe_tags=frozenset(),
        token_tags=frozenset(),
        unless_clear=False,
        when=Conditions(),
        unless=Conditions(),
        purposes=None,
        line=1,
        column=1,
    )


def _hexadecimal(step: Step, job: Job) -> Step:
    """Return a mask that hides all as one that is made of the value; what a public tag shows stays."""
    if step.op is not Op.MASK or step.tag in job.public:
        return step
    kept = tuple(pair for pair in step.args if pair[0] == "type")
    args = (("form", HEX), *((("length", SAME_LENGTH),) if job.same_length else ()), *kept)
    return msgspec.structs.replace(step, args=tuple(sorted(args)))
