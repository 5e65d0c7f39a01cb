"""`gharial policy` as people and CI use it: what is printed, and the exit status."""

from __future__ import annotations

import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gharial.cli import main

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests/corpus/policy-tools"
GOOD = CORPUS / "desk.yaml"
FAILING = CORPUS / "desk-failing.yaml"
WIDER = CORPUS / "desk-wider.yaml"
GUARDED = CORPUS / "guarded.yaml"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["policy", *map(str, words)])


def steady(text: str) -> str:
    """The text without what differs from run to run and place to place."""
    text = text.replace(f"{CORPUS}/", "")
    return re.sub(r"in [0-9,]+ ms", "in N ms", text)


BODY = CORPUS / "answer.json"
ASKED = ("--as", "care", "--for", "support", "--in", "US")
GOLDEN = {
    "coverage": ("coverage", GUARDED),
    "explain": ("explain", GUARDED, *ASKED, "--subject", "residency=EU"),
    "explain-beyond": ("explain", GUARDED, *ASKED, "--subject", "residency=US", "--beyond-budget", "--path", "$.email"),
    "explain-body": (
        "explain",
        GUARDED,
        BODY,
        "--as",
        "client=acme-1",
        "--for",
        "billing",
        "--in",
        "US",
        "--subject",
        "consent=sharing",
    ),
    "test-guarded": ("test", GUARDED),
    "diff-guarded": ("diff", GUARDED, CORPUS / "guarded-opened.yaml"),
    "check": ("check", GOOD),
    "check-slow": ("check", CORPUS / "slow.yaml"),
    "test-slow": ("test", CORPUS / "slow.yaml"),
    "test": ("test", GOOD),
    "test-failing": ("test", FAILING),
    "diff": ("diff", GOOD, WIDER),
    "diff-back": ("diff", WIDER, GOOD),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_text_is_the_golden_one(name: str, update_golden: bool):
    """What people read is exactly what a person has read before."""
    path = CORPUS / f"{name}.txt"
    text = steady(run(*GOLDEN[name]).output)
    if update_golden:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_passing_tests_end_with_status_0_and_failing_ones_with_1():
    """CI reads the status, not the text."""
    assert run("test", GOOD).exit_code == 0
    assert run("test", FAILING).exit_code == 1
    assert run("test", GOOD, FAILING).exit_code == 1


def test_a_policy_without_tests_does_not_pass(tmp_path: Path):
    """Nothing tested is not everything well."""
    file = tmp_path / "p.yaml"
    file.write_text("policy: p\nversion: 1\ntags: { a: { find: '$.a' } }\n")
    assert run("test", file).exit_code == 1


def test_failing_tests_name_place_and_rule():
    """A failing test says file and line, what was wanted, what came, and which rule decided."""
    text = run("test", FAILING).output
    line = next(n for n, text in enumerate(FAILING.read_text().splitlines(), 1) if "want: { email: clear }" in text)
    assert re.search(rf"desk-failing\.yaml:{line}:\d+: \$\.email", text)
    assert "wanted  clear" in text
    assert "because grant:support shows it as mask(keep=domain)" in text


def test_junit_can_be_read_by_ci(tmp_path: Path):
    """The file is XML with the right counts, one case per test, failures with their text."""
    out = tmp_path / "out.xml"
    result = run("test", GOOD, FAILING, "--junit", out)
    assert result.exit_code == 1
    root = ElementTree.parse(out).getroot()
    cases = root.findall("testsuite/testcase")
    assert root.tag == "testsuites"
    assert int(root.attrib["tests"]) == len(cases)
    assert int(root.attrib["failures"]) == len(root.findall("testsuite/testcase/failure")) > 0
    assert int(root.attrib["errors"]) == len(root.findall("testsuite/testcase/error")) > 0
    assert all(case.attrib["file"] and int(case.attrib["line"]) > 0 for case in cases)


def test_json_says_the_same(tmp_path: Path):
    """Scripts get all results as JSON."""
    found = json.loads(run("test", FAILING, "--json").stdout)
    assert [case["passed"] for case in found].count(False) >= 2
    checked = json.loads(run("check", GOOD, "--json").stdout)
    assert checked[0]["errors"] == []
    assert checked[0]["plans"] > 0
    compared = json.loads(run("diff", GOOD, WIDER, "--json").stdout)
    assert {change["direction"] for change in compared["changes"]} >= {"more open"}


def test_diff_can_stop_a_pipeline():
    """Status 3 where something opens and that is not wanted, 0 else, 1 for a file that can't be read."""
    assert run("diff", GOOD, WIDER).exit_code == 0
    assert run("diff", GOOD, WIDER, "--fail-if-more-open").exit_code == 3
    assert run("diff", GOOD, GOOD, "--fail-if-more-open").exit_code == 0
    assert run("diff", GOOD, "/nowhere.yaml").exit_code == 1


def test_check_says_every_mistake_with_its_place(tmp_path: Path):
    """A file with mistakes ends with 1 and names them; a good one beside it is checked all the same."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("policy: p\nversion: 0\ntags: { a: { fnd: '$.a' } }\n")
    result = run("check", bad, GOOD)
    assert result.exit_code == 1
    assert f"{bad}:2:10: version" in result.output
    assert "did you mean 'find'?" in result.output
    assert "compiled in" in result.output


def test_check_takes_routes_from_a_configuration():
    """With a configuration all of its policies are checked, for their routes."""
    result = run("check", "-c", ROOT / "examples/telecom/gharial.yaml")
    assert result.exit_code == 0
    assert "routes bill, customer, list" in result.output
    assert run("check").exit_code == 2


def test_a_missing_file_is_an_error_without_a_traceback():
    """A wrong name is said in one line."""
    result = run("check", "/nowhere.yaml")
    assert result.exit_code == 1
    assert "can't be read" in result.output


def test_explain_never_shows_a_value_unless_asked():
    """Values of the body are in the output with --show-values and nowhere without it, in text and in JSON."""
    values = ("ann@ex.org", "Ann Other", "1990-12-31", "+15550100")
    words = ("explain", GUARDED, BODY, *ASKED)
    for extra in ((), ("--json",)):
        hidden = run(*words, *extra).output
        assert hidden
        assert not any(value in hidden for value in values)
    shown = run(*words, "--show-values").output
    assert all(value in shown for value in values)


def test_explain_never_names_members_whose_names_are_values(tmp_path: Path):
    """Names below an object of a `keys: true` tag are numbered, each object's own, until values are asked for."""
    policy, body = tmp_path / "policy.yaml", tmp_path / "body.json"
    policy.write_text(
        "policy: p\nversion: 1\ntags:\n  owners: { find: '$.BY', keys: true }\n  plan: { find: '$..plan' }\n"
        "who: { anyone: {} }\ngrants:\n  - { grant: g, to: anyone, show: { plan: clear } }\n"
    )
    body.write_text('{"by": {"ann@ex.org": {"plan": "A", "note": 1}, "bob@ex.org": {"plan": "B"}}}')
    words = ("explain", policy, body, "--as", "anyone")
    found = json.loads(run(*words, "--json").stdout)
    named = ["$.by['<name 1>'].plan", "$.by['<name 1>'].note", "$.by['<name 2>'].plan"]
    assert [one["place"] for one in found] == named
    for extra in ((), ("--json",), ("--path", "$..plan")):
        assert "ex.org" not in run(*words, *extra).output
    assert "ann@ex.org" in run(*words, "--show-values").output


def test_explain_keeps_to_a_path():
    """With --path one field is explained, in a body or without one."""
    found = json.loads(run("explain", GUARDED, BODY, *ASKED, "--path", "$..email", "--json").stdout)
    assert [one["place"] for one in found] == ["$.customers[0].email", "$.customers[1].email"]
    found = json.loads(run("explain", GUARDED, *ASKED, "--path", "$.x.email", "--json").stdout)
    assert [(one["place"], one["tags"]) for one in found] == [("$.x.email", ["email"])]


def test_a_value_after_a_dropped_one_is_still_its_own():
    """Elements move up where others are dropped; what became of each is told of itself."""
    body = json.dumps({"rows": [1, {"dob": "1990-12-31"}, {"x": 2}, {"dob": "1981-02-03"}]})
    words = ["policy", "explain", str(GUARDED), "-", "--as", "client=acme-1", "--for", "billing", "--in", "DE"]
    result = CliRunner().invoke(main, [*words, "--subject", "consent=sharing", "--show-values", "--json"], input=body)
    found = {one["place"]: (one["given"], one["came"]) for one in json.loads(result.stdout)}
    assert found == {
        "$.rows[0]": ("1", "nothing"),
        "$.rows[1].dob": ('"1990-12-31"', '"1990-01-01"'),
        "$.rows[2].x": ("2", "nothing"),
        "$.rows[3].dob": ('"1981-02-03"', '"1981-01-01"'),
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--as", "car"), "did you mean 'care'?"),
        (("--as", "rle=care"), "did you mean 'role'?"),
        (("--as", "care", "--in", "Germany"), "unknown country"),
        (("--as", "care", "--subject", "residence=EU"), "did you mean 'residency'?"),
        (("--as", "care", "--path", "$.["), "--path"),
    ],
)
def test_explain_says_what_it_does_not_understand(words: tuple[str, ...], said: str):
    """A misspelt word is an error, never a different question."""
    result = run("explain", GUARDED, *words)
    assert result.exit_code == 1
    assert said in result.output


def test_coverage_can_stop_a_pipeline():
    """Below --fail-under the status is 1; the figures are those of the table."""
    found = json.loads(run("coverage", GUARDED, "--json").stdout)
    assert found["touched"] == sum(len(row["touched"]) for row in found["rows"]) > 0
    assert found["cells"] == sum(len(row["touched"]) + len(row["untouched"]) for row in found["rows"])
    assert run("coverage", GUARDED, "--fail-under", "0.1").exit_code == 0
    assert run("coverage", GUARDED, "--fail-under", "99").exit_code == 1


def test_the_example_in_the_docs_passes(tmp_path: Path):
    """The tests shown in docs/policy-tools.md run, and pass, on the policy of this folder."""
    text = (ROOT / "docs/policy-tools.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(tests:.*?)```", text, re.DOTALL)
    rules, _, _ = GOOD.read_text(encoding="utf-8").partition("tests:")
    file = tmp_path / "policy.yaml"
    file.write_text(rules + block)
    result = run("test", file)
    assert result.exit_code == 0, result.output
    assert "2 tests passed" in result.output


def test_the_commands_in_the_docs_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every line after `$ gharial` in docs/policy-tools.md runs."""
    text = (ROOT / "docs/policy-tools.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ gharial policy (.+)$", text, re.MULTILINE)
    assert len(lines) >= 5
    for name, source in (("policy.yaml", GUARDED), ("old.yaml", GUARDED), ("answer.json", BODY)):
        (tmp_path / name).write_bytes(source.read_bytes())
    monkeypatch.chdir(tmp_path)
    for line in lines:
        result = run(*shlex.split(line))
        assert result.exit_code == 0, (line, result.output)
