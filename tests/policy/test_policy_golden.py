"""Policies and what they become, as files: plans for classes of callers, and mistakes with their exact places."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from gharial.model.errors import PolicyInvalid
from gharial.model.plan import dump_plan, load_plan
from gharial.policy.checks import check_policy
from gharial.policy.compile import compile_plan
from gharial.policy.document import parse_policy

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests/corpus/policy"
ERRORS = sorted(path.parent for path in (CORPUS / "errors").glob("*/policy.yaml"))
PLANS = sorted(path.parent for path in (CORPUS / "plans").glob("*/classes.json"))


def case_name(case: Path) -> str:
    return case.name


def meets_golden(path: Path, text: str, update: bool) -> bool:
    if update:
        path.write_text(text, encoding="utf-8")
    return path.exists() and path.read_text(encoding="utf-8") == text


def mistakes(text: str) -> str:
    """All mistakes of a policy whose one route has the parameter `id`, one a line."""
    try:
        problems = check_policy(parse_policy(text, "policy.yaml"), {"customer": ("id",)})
    except PolicyInvalid as error:
        problems = list(error.problems)
    return "".join(f"{problem}\n" for problem in problems)


@pytest.mark.parametrize("case", ERRORS, ids=case_name)
def test_mistakes_have_their_exact_place(case: Path, update_golden: bool):
    """Every mistake of the case is told, with line and column, and none else."""
    found = mistakes((case / "policy.yaml").read_text(encoding="utf-8"))
    assert found, "a case of this folder has a mistake"
    assert meets_golden(case / "errors.txt", found, update_golden)


def test_there_are_enough_cases():
    """The folder was found, and holds the cases that it should."""
    assert len(ERRORS) >= 25
    assert len(PLANS) >= 6


@pytest.mark.parametrize("case", PLANS, ids=case_name)
def test_plans_are_the_golden_ones(case: Path, update_golden: bool):
    """A policy compiles to exactly the plan that a person has read, for each class of callers in the case."""
    classes = json.loads((case / "classes.json").read_text(encoding="utf-8"))
    source = ROOT / classes.get("policy", f"tests/corpus/policy/plans/{case.name}/policy.yaml")
    policy = parse_policy(source.read_text(encoding="utf-8"), "policy.yaml")
    routes = {classes["route"]: tuple(classes["params"])}
    assert check_policy(policy, routes) == []
    for name, rules in classes["classes"].items():
        grants, guardrails = (rules, []) if isinstance(rules, list) else (rules["grants"], rules.get("guardrails", []))
        plan = compile_plan(policy, classes["route"], tuple(classes["params"]), grants, guardrails)
        shown = msgspec.json.format(dump_plan(plan), indent=1).decode() + "\n"
        assert meets_golden(case / f"plan-{name}.json", shown, update_golden)
        assert load_plan(dump_plan(plan)) == plan
