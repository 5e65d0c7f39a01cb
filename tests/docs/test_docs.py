"""README, docs and decisions: what they link to exists, and what they promise to be true of the repository is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(page: Path):
    """No relative link is broken, its anchor included."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_has_the_two_lines_that_set_everything_up():
    """The two commands stand there to the letter, alone on their lines."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    set_up = [line for line in lines if "pip install" in line]
    assert set_up == ["pip install uv && uv run gharial demo", "pip install uv && uv run pytest"]


def test_decisions_are_numbered_and_say_what_was_rejected():
    """Each decision has its number, and context, decision, consequences and rejected alternatives, in this order."""
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    for page in DECISIONS:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(page.name[:4])}. ")
        parts = re.findall(r"^\*\*(\w+)\.\*\* ", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences", "Rejected"], page.name


def test_the_decision_about_dependencies_lists_them_all():
    """Every run-time dependency is listed with its licence, and nothing else is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[<>=; ]", dependency)[0] for dependency in project["dependencies"]}
    text = next(page for page in DECISIONS if page.name == "0008-dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w.-]+) \| .+ \| .+ \|$", text, re.MULTILINE)
    assert [row for row in rows if row != "package"] == sorted(wanted)
