"""What `gharial policy check` says: every mistake and warning of policy files, and what their plans cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gharial.adapters.files import manifests_of, policy_files
from gharial.gate.datasets import manifest_rule
from gharial.gate.routes import parse_template
from gharial.model.errors import Invalid, PolicyInvalid, Problem
from gharial.model.plan import Plan
from gharial.policy.advice import find_warnings
from gharial.policy.checks import check_policy
from gharial.policy.classes import find_classes
from gharial.policy.diff import compile_class
from gharial.policy.document import Policy
from gharial.settings import load_settings
from gharial.wiring.policy_tools import load_policy, params_of

MAX_PLANS = 20
"""Plans that are compiled to say what they cost."""


@dataclass(frozen=True, slots=True)
class Slow:
    """A place that only the slower executor finds, and why."""

    tags: tuple[str, ...]
    place: str
    why: str


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """What is to be said of one file. `policy` is empty where it can't be read; figures are then zero.

    `classes` are the classes of callers that were found, `plans` those of their plans that were compiled, in
    `compile_s` seconds; `nodes` and `steps` are of the largest of them.
    """

    file: str
    policy: str = ""
    version: int = 0
    routes: tuple[str, ...] = ()
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    slow: tuple[Slow, ...] = ()
    classes: int = 0
    plans: int = 0
    nodes: int = 0
    steps: int = 0
    compile_s: float = 0.0
    left_out: tuple[str, ...] = field(default=())


def check_files(files: Sequence[Path], config_path: Path | None) -> list[PolicyReport]:
    """Check policy files; with a configuration, for its routes, and all of its policies where no file is given.

    Raises ConfigInvalid if the configuration has mistakes.
    """
    routes: dict[str, dict[str, tuple[str, ...]]] = {}
    if config_path is not None:
        settings = load_settings(config_path)
        for route in settings.routes:
            if route.policy is not None:
                routes.setdefault(route.policy, {})[route.route] = parse_template(route.match).params
        for manifest in manifests_of(settings):
            routes.setdefault(manifest.policy, {})[manifest_rule(manifest).name] = ()
        files = files or list(policy_files(settings, config_path.resolve().parent))
    return [_check_file(file, routes) for file in files]


def _check_file(file: Path, routes: Mapping[str, Mapping[str, tuple[str, ...]]]) -> PolicyReport:
    try:
        policy = load_policy(file)
    except Invalid as error:
        return PolicyReport(str(file), errors=error.problems)
    own = routes.get(policy.name, {})
    errors = tuple(check_policy(policy, own))
    named = tuple(sorted(own))
    if errors:
        warnings = tuple(find_warnings(policy))
        return PolicyReport(str(file), policy.name, policy.version, named, errors, warnings)
    return _measured(policy, file, own)


def _measured(policy: Policy, file: Path, routes: Mapping[str, tuple[str, ...]]) -> PolicyReport:
    found = find_classes([policy])
    plans: list[Plan] = []
    problems: set[Problem] = set()
    began_s = time.perf_counter()
    for params in sorted(set(routes.values())) or [params_of(policy)]:
        for caller_class in found.classes[: MAX_PLANS - len(plans)]:
            applying = caller_class.applying[0]
            try:
                plans.append(compile_class(policy, params, applying.grants, applying.guardrails))
            except PolicyInvalid as error:
                problems.update(error.problems)
    compile_s = time.perf_counter() - began_s
    return PolicyReport(
        file=str(file),
        policy=policy.name,
        version=policy.version,
        routes=tuple(sorted(routes)),
        # Refused at run time only, for callers whom the checks thought impossible: no reason not to publish.
        warnings=tuple(sorted({*find_warnings(policy), *problems})),
        slow=_slow(plans),
        classes=len(found.classes),
        plans=len(plans),
        nodes=max((len(plan.nodes) + len(plan.xml_nodes) for plan in plans), default=0),
        steps=max((len(plan.steps) for plan in plans), default=0),
        compile_s=compile_s,
        left_out=found.left_out,
    )


def _slow(plans: Sequence[Plan]) -> tuple[Slow, ...]:
    found: dict[tuple[str, str], set[str]] = {}
    for plan in plans:
        for extra in plan.extras:
            if extra.detector:
                key = f"values that look like {extra.detector}", "detectors look at every text"
            elif extra.general:
                key = extra.path, "a selector beyond names, indexes, '*' and '..'"
            elif extra.keys:
                key = extra.path, "names of members are values (keys: true)"
            else:
                key = extra.path, "a condition on sibling members (where)"
            found.setdefault(key, set()).add(plan.cells[extra.cell].tag)
        if plan.json_in_strings:
            found.setdefault(("every text", "JSON in strings is opened (json_in_strings)"), set())
        if plan.needs_reference and not plan.extras and not plan.json_in_strings:
            found.setdefault(("the whole body", plan.needs_reference), set())
    return tuple(Slow(tuple(sorted(tags)), place, why) for (place, why), tags in sorted(found.items()))
