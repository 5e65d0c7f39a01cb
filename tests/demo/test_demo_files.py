"""The files that the demo writes and the examples ship: sound, private, and one and the same policy."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from gharial.adapters.files import load_gateway_files
from gharial.adapters.key_file import load_keyset
from gharial.adapters.scaffold import sample_fields
from gharial.demo.parts import read_policy, write_gateway_files
from gharial.demo.telecom import customer
from gharial.gate.routes import RouteKind

EXAMPLE = Path(__file__).parents[2] / "examples" / "telecom"


def test_the_demo_runs_with_the_policy_of_the_example():
    """One text, so that what is shown in docs is what is run."""
    assert read_policy() == (EXAMPLE / "policy.yaml").read_bytes()


def test_the_demos_gateway_protects_every_route(tmp_path: Path):
    """All files load without a mistake, every route is enforced, and the key file opens with its key."""
    write_gateway_files(tmp_path, "http://127.0.0.1:9000", 8080)
    found = load_gateway_files(tmp_path / "gharial.yaml")
    assert {rule.kind for rule in found.routes.rules} == {RouteKind.PROTECT}
    load_keyset(found.settings, found.base)


def test_the_demos_files_are_private(tmp_path: Path):
    """Nobody else can read keys or configuration."""
    write_gateway_files(tmp_path, "http://127.0.0.1:9000", 8080)
    for file in tmp_path.rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_the_examples_configuration_loads_and_protects():
    """A reader who copies the example gets a gateway in which every route is enforced."""
    found = load_gateway_files(EXAMPLE / "gharial.yaml")
    assert {rule.kind for rule in found.routes.rules} == {RouteKind.PROTECT}


def test_the_examples_sample_is_an_answer_of_the_telecom():
    """What `gharial init --sample` is shown with has the fields that the API sends."""
    sample = json.loads((EXAMPLE / "sample.json").read_text(encoding="utf-8"))
    assert sample == customer(sample["customerId"])
    assert "$.billingAddress.city" in {str(field.path) for field in sample_fields(sample)}
