"""Test results as JUnit XML, as CI systems read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from gharial.wiring.policy_tools import CaseResult

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(results: Sequence[CaseResult]) -> str:
    """Return one test suite per policy, one test case per test; a test that could not be run is an error."""
    suites: dict[tuple[str, str], list[CaseResult]] = {}
    for result in results:
        suites.setdefault((result.policy, result.file), []).append(result)
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites{_totals(results)}>"]
    for (policy, _), members in suites.items():
        lines.append(f"  <testsuite name={_attribute(policy)}{_totals(members)}>")
        for result in members:
            lines += _case_lines(result)
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>"]) + "\n"


def _totals(results: Sequence[CaseResult]) -> str:
    errors = sum(bool(result.problem) for result in results)
    failures = sum(not result.passed for result in results) - errors
    took_s = sum(result.took_s for result in results)
    return f' tests="{len(results)}" failures="{failures}" errors="{errors}" skipped="0" time="{took_s:.3f}"'


def _case_lines(result: CaseResult) -> list[str]:
    line = result.case.line
    head = (
        f"    <testcase classname={_attribute(result.policy)} name={_attribute(result.name)} "
        f'file={_attribute(result.file)} line="{line}" time="{result.took_s:.3f}"'
    )
    if result.passed:
        return [f"{head}/>"]
    if result.problem:
        body = f"      <error message={_attribute(result.problem)}>{_text(f'{result.file}:{line}')}</error>"
        return [f"{head}>", body, "    </testcase>"]
    wrong = [outcome for outcome in result.outcomes if not outcome.passed]
    message = "; ".join(f"{o.place}: wanted {o.wanted}, came {o.came}" for o in wrong)
    details = "\n".join(
        f"{result.file}:{o.want.line}:{o.want.column}: {o.place}: wanted {o.wanted}, came {o.came}; "
        f"{o.rule} shows it as {o.technique}"
        for o in wrong
    )
    return [f"{head}>", f"      <failure message={_attribute(message)}>{_text(details)}</failure>", "    </testcase>"]


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", text), {"\n": "&#10;"})


def _text(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))
