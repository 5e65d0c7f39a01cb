"""The examples are policies that work: checked, tested, compiled for everybody, and their samples leak nothing."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from gharial.cli import main
from gharial.crypto.keyset import create_keyset
from gharial.model.plan import dump_plan, load_plan
from gharial.policy.classes import find_classes
from gharial.policy.compile import compile_plan
from gharial.policy.document import Policy
from gharial.wiring.policy_checks import check_files
from gharial.wiring.policy_tools import load_policy, params_of, run_body, run_cases
from gharial.wiring.world import random_bytes

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/policy.yaml"))
WITH_TESTS = [path for path in EXAMPLES if path.name != "telecom"]

PLANTED = {
    "bank-iso20022": (
        "Ann Example", "Bo Sample", "Practice", "DE0212", "FR7630", "DE7551", "Hafenweg", "Lyon", "1979-03-02", "rent",
        "therapy", "1250.5", "310.2", "E2E-", "M-4711",
    ),
    "clinic-fhir": (
        "Ann", "Bea", "Example", "Sample", "Cleo", "MRN-7", "A123456789", "5550100", "ann@", "Hafenweg", "Kiel",
        "24103", "1974", "1941", "Hypertension", "38341003", "2019", "pills", '"p1"', "fhir/Patient",
    ),
    "contacts-crm": (
        "Ann", "Example", "ann@", "bo@", "Sample", "5550100", "1990", "Hafenweg", "Kiel", "1500", "pricing", "Buyer",
        "shoe", "call me", '"101"', "link",
    ),
    "customer-data": ("Ann", "Nils", "@", "5550100", "161336416", "1990", "1965", "8993", "mornings", ":41", ":42,"),
    "telecom": ("Nils", "@", "161336416", "1965", "8993", "Station", "34948", ": 42,", ":42,"),
}  # fmt: skip
"""What somebody of whom nothing is known must not read in what becomes of the sample."""


def name_of(path: Path) -> str:
    return path.name


def read_example(path: Path) -> Policy:
    return load_policy(path / "policy.yaml")


def test_all_examples_are_here():
    """Each example was found, and has a sample, a page, and planted values to look for."""
    assert {path.name for path in EXAMPLES} == PLANTED.keys()
    assert all((path / file).is_file() for path in EXAMPLES for file in ("sample.json", "README.md"))


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_an_example_has_no_mistake(example: Path):
    """`gharial policy check` finds no mistake in an example, and looks at all callers that it can tell apart."""
    (report,) = check_files([example / "policy.yaml"], None)
    assert report.errors == ()
    assert report.left_out == ()
    assert report.classes >= 3


@pytest.mark.parametrize("example", WITH_TESTS, ids=name_of)
def test_an_example_keeps_what_it_promises(example: Path):
    """All tests that stand in an example pass, and there are some."""
    results = run_cases(read_example(example))
    assert len(results) >= 10
    assert [(result.name, result.problem, result.outcomes) for result in results if not result.passed] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_an_example_compiles_for_everybody(example: Path):
    """For every class of callers there is a plan, and it serialises and loads back equal."""
    policy = read_example(example)
    for caller_class in find_classes([policy]).classes:
        applying = caller_class.applying[0]
        assert not applying.refused
        plan = compile_plan(policy, "sample", params_of(policy), applying.grants, applying.guardrails)
        assert load_plan(dump_plan(plan)) == plan


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_nobody_reads_nothing(example: Path):
    """Somebody of whom nothing is known finds no personal value in what becomes of the sample, and finds something."""
    body = (example / "sample.json").read_bytes()
    # Compared with what the text of the sample says, so that a planted value which is misspelt here is noticed.
    given = json.dumps(json.loads(body), ensure_ascii=False)
    planted = [text for text in PLANTED[example.name] if text.strip(":,") in given]
    assert len(planted) == len(PLANTED[example.name])
    run = run_body(read_example(example), {}, body, create_keyset(random_bytes, 0.0))
    came = json.dumps(run.came, ensure_ascii=False)
    # Tokens are random letters, in which "Ann" may stand by chance.
    readable = re.sub(r"tok_[A-Za-z0-9_-]+", "tok_", came)
    assert [text for text in planted if text in readable or text in readable.replace(": ", ":")] == []
    assert run.findings


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_an_example_has_golden_plans(example: Path):
    """A person has read the plans of an example: its folder of golden plans names this very policy."""
    classes = ROOT / "tests/corpus/policy/plans" / example.name / "classes.json"
    assert json.loads(classes.read_text(encoding="utf-8"))["policy"] == f"examples/{example.name}/policy.yaml"


@pytest.mark.parametrize("example", WITH_TESTS, ids=name_of)
def test_the_commands_of_the_page_run(example: Path):
    """Every command that an example's page shows ends well in the example's folder."""
    commands = re.findall(r"^gharial (.+)$", (example / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        with contextlib.chdir(example):
            result = CliRunner().invoke(main, shlex.split(command))
        assert (command, result.exit_code) == (command, 0)
        assert result.output
