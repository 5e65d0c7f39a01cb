"""Runs policies away from the wire: tests and explanations with the real reader and transforms, and throwaway keys."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from gharial.adapters.files import MAX_POLICY_BYTES
from gharial.crypto.keyset import KEY_BYTES, Keyset, create_keyset
from gharial.crypto.subject import HANDLE_BYTES, Subject
from gharial.crypto.token import Recipient
from gharial.crypto.transform import transforms_by_scope, transforms_for, transforms_with_vault
from gharial.crypto.vault import TOKEN_BYTES, EntryMaker
from gharial.gate.persons import conditions_of, find_holds
from gharial.model.errors import BodyMalformed, ConfigInvalid, GharialError, PolicyInvalid, Problem
from gharial.model.finding import Finding, Limits
from gharial.model.plan import Op, Plan, Step, Unlisted
from gharial.payload.json_text import name_path
from gharial.payload.media import Media
from gharial.payload.rewrite import open_body
from gharial.policy.case_syntax import PolicyCase
from gharial.policy.cases import (
    ABSENT,
    CaseProblem,
    Outcome,
    Path,
    body_of_case,
    facts_of_case,
    find_value,
    judge,
)
from gharial.policy.conditions import CONSENT
from gharial.policy.decide import decide
from gharial.policy.diff import compile_class
from gharial.policy.document import Policy, parse_policy
from gharial.policy.places import unlisted_step
from gharial.policy.samples import Facts, caller_of
from gharial.wiring.world import SystemClock, random_bytes


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of one test. `problem` says why it could not be run; `took_s` is how long it took."""

    policy: str
    file: str
    name: str
    case: PolicyCase = field(repr=False)
    outcomes: tuple[Outcome, ...]
    problem: str = ""
    took_s: float = 0.0

    @property
    def passed(self) -> bool:
        """True if everything that was wanted came."""
        return not self.problem and all(outcome.passed for outcome in self.outcomes)


@dataclass(slots=True)
class Run:
    """One body put through one plan: both documents, and what was done at which place."""

    plan: Plan
    given: object = field(repr=False)
    came: object = field(repr=False)
    findings: Mapping[str, Finding] = field(repr=False)
    variants: tuple[int, ...]
    _left: dict[Path, list[int]] = field(default_factory=dict, repr=False)

    def find(self, path: Sequence[str | int]) -> Finding | None:
        """Return what was done with the value at a path, or with the nearest container around it; None if unlisted."""
        return next((self.findings[p] for p in reversed(_places(path)) if p in self.findings), None)

    def find_step(self, path: Sequence[str | int]) -> Step | None:
        """Return the step of `find`."""
        found = self.find(path)
        return None if found is None else self.plan.steps[found.step]

    def find_after(self, path: Path) -> object:
        """Return what became of the value at a path of the body, or ABSENT: elements move up where others went."""
        given, came = self.given, self.came
        for depth, step in enumerate(path):
            if isinstance(given, list) and isinstance(came, list) and isinstance(step, int):
                left = self._elements_left(path[:depth], given)
                at = left.index(step) if step in left and len(left) == len(came) else step
                if step not in left or at >= len(came):
                    return ABSENT
                given, came = given[step], came[at]
            elif isinstance(given, dict) and isinstance(came, dict) and step in came:
                given, came = given[step], came[step]
            else:
                return ABSENT
        return came

    def _elements_left(self, path: Path, given: list[object]) -> list[int]:
        """Return the indexes of the elements of an array that are still there."""
        left = self._left.get(path)
        if left is None:
            left = self._left[path] = [n for n, value in enumerate(given) if self._stays((*path, n), value)]
        return left

    def _stays(self, path: Path, value: object) -> bool:
        """True if a value is still there: it was not dropped, and something in it was kept."""
        own = self.findings.get(_places(path)[-1])
        if own is not None:
            return self.plan.steps[own.step].op is not Op.DROP
        if self.plan.unlisted is not Unlisted.DROP or self.find(path) is not None:
            return True
        if isinstance(value, dict):
            return any(self._stays((*path, name), inner) for name, inner in value.items())
        return isinstance(value, list) and any(self._stays((*path, n), inner) for n, inner in enumerate(value))


def _places(path: Sequence[str | int]) -> list[str]:
    """The places, as the reader writes them, of a path and of all that is around it."""
    places = ["$"]
    for step in path:
        places.append(name_path(places[-1], step) if isinstance(step, str) else f"{places[-1]}[{step}]")
    return places


def load_policy(path: FilePath) -> Policy:
    """Read one policy file. Raises PolicyInvalid, and ConfigInvalid where it can't be read."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_POLICY_BYTES + 1)
        if len(data) > MAX_POLICY_BYTES:
            raise ValueError(f"larger than {MAX_POLICY_BYTES} bytes")
        text = data.decode("utf-8")
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise ConfigInvalid([Problem(str(path), 1, 1, f"can't be read ({what})")]) from None
    return parse_policy(text, str(path))


def params_of(policy: Policy) -> tuple[str, ...]:
    """Return all path parameters that a policy's tags name."""
    return tuple(sorted({name for tag in policy.tags.values() for name in tag.params}))


def run_cases(policy: Policy) -> list[CaseResult]:
    """Run the tests of a policy, in their order."""
    keyset = create_keyset(random_bytes, SystemClock().now_s())
    return [_run_case(policy, case, number, keyset) for number, case in enumerate(policy.tests, 1)]


def _run_case(policy: Policy, case: PolicyCase, number: int, keyset: Keyset) -> CaseResult:
    began_s = time.perf_counter()
    outcomes: tuple[Outcome, ...] = ()
    problem = ""
    try:
        outcomes = _outcomes(policy, case, keyset)
    except CaseProblem as error:
        problem = str(error)
    except PolicyInvalid as error:
        problem = f"the policy can't be compiled for this caller: {error}"
    except GharialError as error:
        problem = f"the body is refused: {error} ({error.code})"
    took_s = time.perf_counter() - began_s
    return CaseResult(policy.name, policy.file, case_name(case, number), case, outcomes, problem, took_s)


def case_name(case: PolicyCase, number: int) -> str:
    """Return a name for a test that says who asks for what."""
    facts = ", ".join(f"{name} {' '.join(map(str, values))}" for name, values in case.as_facts)
    parts = [case.as_who or facts or "nobody known"]
    parts += [f"for {case.purpose}"] if case.purpose else []
    parts += [f"in {case.country}"] if case.country else []
    parts += [f"about {name} {' '.join(values)}" for name, values in case.subject]
    return f"{number}: {', '.join(parts)}"


def _outcomes(policy: Policy, case: PolicyCase, keyset: Keyset) -> tuple[Outcome, ...]:
    facts = facts_of_case(policy, case)
    made = body_of_case(policy, case)
    consents = frozenset(dict(case.subject).get(CONSENT, ()))
    run = run_body(policy, facts, json.dumps(made.document).encode(), keyset, consents, made.people)
    outcomes = []
    for want in case.want:
        place = made.find_place(want.path)
        given = find_value(made.document, place)
        step = run.find_step(place)
        outcomes.append(
            judge(want, place, given, run.find_after(place), step, unlisted_step(run.plan).op, run.plan.redaction)
        )
    return tuple(outcomes)


def run_body(
    policy: Policy,
    facts: Facts,
    body: bytes,
    keyset: Keyset,
    consents: frozenset[str] = frozenset(),
    people: Sequence[tuple[str, str]] = (),
    *,
    beyond_budgets: bool = False,
) -> Run:
    """Put a body through the plan of one caller, as the gate does, but for budgets: everybody is beyond all, or nobody.

    Everybody in the body gave `consents`; `people` (id space, text) are whom the path names. Raises PolicyInvalid,
    PolicyExpressionFailed, and the errors of the payload room.
    """
    caller, now_s = caller_of(facts)
    decision = decide(policy, caller, now_s)
    plan = compile_class(policy, params_of(policy), decision.grants, decision.guardrails)
    made = transforms_for(plan, keyset, Recipient(caller.tenant, caller.client, caller.team), random_bytes)
    reader = open_body(plan, Media(), body, Limits())
    scopes = reader.survey()
    owners = [scope.subjects or tuple(people) for scope in scopes]
    given = {person: consents for own in owners for person in own}
    held = find_holds(conditions_of(plan), scopes, owners, given, made)
    crossed = len(plan.budgets) if beyond_budgets else 0
    variants = [_find_variant(plan, holds, crossed) for holds in held]
    transforms = transforms_with_vault(made, _ThrowawayTokens())
    by_scope = transforms_by_scope(transforms, ["/".join(min(own)) if own else "" for own in owners])
    rewritten = reader.finish(variants, transforms, by_scope=by_scope, want_places=True)
    findings = {finding.place: finding for finding in rewritten.findings}
    try:
        return Run(plan, json.loads(body), json.loads(rewritten.body), findings, tuple(variants))
    except (ValueError, RecursionError):
        raise BodyMalformed("not one JSON document in UTF-8 without a byte order mark") from None


class _ThrowawayTokens:
    """Random tokens that nobody keeps; see `crypto.vault.Tokens`."""

    def __init__(self) -> None:
        self._tokens: dict[bytes, bytes] = {}
        self._subjects: dict[str, Subject] = {}

    def token_of(self, maker: EntryMaker, plain: bytes) -> bytes:
        return self._tokens.setdefault(maker.lookup(plain), random_bytes(TOKEN_BYTES))

    def subject_of(self, person: str) -> Subject | None:
        return self._subjects.setdefault(person, Subject(random_bytes(HANDLE_BYTES), random_bytes(KEY_BYTES)))


def _find_variant(plan: Plan, holds: frozenset[int], crossed: int) -> int:
    return next(n for n, v in enumerate(plan.variants) if frozenset(v.holds) == holds and len(v.crossed) == crossed)


def results_json(results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    """Return the results of tests for scripts."""
    return [
        {
            "policy": result.policy,
            "file": result.file,
            "line": result.case.line,
            "test": result.name,
            "passed": result.passed,
            "problem": result.problem,
            "outcomes": [
                {
                    "place": outcome.place,
                    "line": outcome.want.line,
                    "passed": outcome.passed,
                    "given": outcome.given,
                    "wanted": outcome.wanted,
                    "came": outcome.came,
                    "technique": outcome.technique,
                    "rule": outcome.rule,
                }
                for outcome in result.outcomes
            ],
        }
        for result in results
    ]
