"""How reports about policies read on a terminal: one function per command, each yields lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from gharial.cli.output import print_table
from gharial.policy.coverage import Coverage
from gharial.policy.diff import Change, Difference, Direction
from gharial.wiring.policy_checks import PolicyReport
from gharial.wiring.policy_explain import Explained
from gharial.wiring.policy_tools import CaseResult

_COLOURS = {Direction.MORE_OPEN: "red", Direction.STRICTER: "green", Direction.OTHER: "yellow"}
_HEADS = {
    Direction.MORE_OPEN: "MORE OPEN",
    Direction.STRICTER: "STRICTER",
    Direction.OTHER: "CHANGED (which is stricter can't be told)",
}


def check_lines(report: PolicyReport) -> Iterator[str]:
    """Yield what there is to say of one file."""
    mark = click.style("✗", fg="red", bold=True) if report.errors else click.style("✓", fg="green", bold=True)
    named = f" ({report.policy}, version {report.version})" if report.policy else ""
    yield f"{mark} {report.file}{named}"
    for problem in report.errors:
        yield f"  {click.style('error', fg='red')}: {problem}"
    for problem in report.warnings:
        yield f"  {click.style('warning', fg='yellow')}: {problem}"
    if report.errors:
        return
    for slow in report.slow:
        tags = f" ({', '.join(slow.tags)})" if slow.tags else ""
        yield f"  {click.style('slow', fg='yellow')}: {slow.place}{tags}: {slow.why}"
    routes = f"; routes {', '.join(report.routes)}" if report.routes else ""
    yield (
        f"  {_count(report.classes, 'class', 'classes')} of callers, {_count(report.plans, 'plan')} of up to "
        f"{_count(report.nodes, 'node')} and {_count(report.steps, 'step')}, "
        f"compiled in {report.compile_s * 1000:.0f} ms{routes}"
    )
    for what in report.left_out:
        yield f"  not looked at: {what}"


def test_lines(results: Sequence[CaseResult]) -> Iterator[str]:
    """Yield every failing test with what was wanted, what came and which rule decided, and a summary."""
    for result in results:
        mark = click.style("✓", fg="green") if result.passed else click.style("✗", fg="red", bold=True)
        yield f"{mark} {result.policy} {result.name}"
        if result.passed:
            continue
        if result.problem:
            yield f"    {result.file}:{result.case.line}:{result.case.column}: {result.problem}"
        for outcome in result.outcomes:
            if outcome.passed:
                continue
            yield f"    {result.file}:{outcome.want.line}:{outcome.want.column}: {outcome.place}"
            yield f"      wanted  {outcome.wanted}"
            yield f"      came    {outcome.came}"
            yield f"      because {outcome.rule} shows it as {outcome.technique}"
    failed = sum(not result.passed for result in results)
    if results:
        text = (
            f"{_count(len(results), 'test')}, {failed} failed" if failed else f"{_count(len(results), 'test')} passed"
        )
        yield click.style(text, fg="red" if failed else "green", bold=True)


def diff_lines(found: Difference) -> Iterator[str]:
    """Yield the changes by direction and by whom they concern."""
    for direction in Direction:
        changes = found.of(direction)
        if not changes:
            continue
        yield click.style(_HEADS[direction], fg=_COLOURS[direction], bold=True)
        for (whom, when), rows in _grouped(changes).items():
            yield f"  {click.style('for', dim=True)} {_audience(whom)}{_condition(when)}"
            if rows[0].example and whom != ("",):
                yield click.style(f"    such as {rows[0].example}", dim=True)
            width = max(len(_what(row)) for row in rows)
            for row in rows:
                rule = f"  [{_rules(row)}]" if _rules(row) else ""
                yield f"    {_what(row):{width}}  {row.before} -> {row.after}{click.style(rule, dim=True)}"
    counts = ", ".join(f"{len(found.of(d))} {d}" for d in Direction if found.of(d)) or "nothing changes"
    yield click.style(f"{counts}; {_count(found.tried, 'class', 'classes')} of callers compared", bold=True)


def print_coverage(found: Coverage, *, show_all: bool) -> None:
    """Print a table of what no test touches, and the summary."""
    rows = [row for row in found.rows if show_all or row.untouched]
    if rows:
        print_table(
            "",
            ["who", "for", "in", "tested", "not tested"],
            [
                [row.who, row.purpose, row.country, _tags(row.touched), _tags(row.untouched, row.touched)]
                for row in rows
            ],
        )
    text = f"{found.touched:,} of {found.cells:,} cells are tested ({found.percent:.1f}%)"
    click.echo(click.style(text, bold=True))


def _tags(tags: Sequence[str], others: Sequence[str] | None = None) -> str:
    if others is not None and not others:
        return f"all {len(tags)}"
    return ", ".join(tags)


def explain_lines(found: Sequence[Explained], *, show_values: bool) -> Iterator[str]:
    """Yield, per place, what happens, by which rule and why, and every rule that was considered."""
    for one in found:
        explanation = one.explanation
        tags = f"  ({', '.join(explanation.tags)})" if explanation.tags else ""
        yield f"{click.style(explanation.place, bold=True)}{click.style(tags, dim=True)}"
        yield f"  {click.style(explanation.technique, fg='cyan', bold=True)} by {explanation.rule}: {explanation.why}"
        if show_values and one.given is not None:
            yield f"  {one.given} -> {one.came}"
        several = len({considered.tag for considered in explanation.considered}) > 1
        for considered in explanation.considered:
            won = considered.applied and considered.rule == explanation.rule
            mark = click.style("*", fg="cyan", bold=True) if won else "+" if considered.applied else "-"
            about = f" of {considered.tag}" if several else ""
            reasons = f": {'; '.join(considered.reasons)}" if considered.reasons else ""
            text = f"    {mark} {considered.rule}{about} (line {considered.line}) {considered.technique}"
            verb = "applies" if considered.applied else "does not apply"
            yield f"{text}, {verb}{reasons}"
    if found:
        yield click.style("* decided   + applies   - does not apply", dim=True)
    else:
        yield "there is nothing here"


def _grouped(changes: Sequence[Change]) -> dict[tuple[tuple[str, ...], tuple[str, ...]], list[Change]]:
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Change]] = {}
    for change in changes:
        found.setdefault((change.whom, change.when), []).append(change)
    return found


def _audience(whom: Sequence[str]) -> str:
    return "; or ".join(line or "everyone" for line in whom)


def _condition(when: Sequence[str]) -> str:
    return "" if when == ("",) else f"; people {'; or '.join(when)}"


def _what(change: Change) -> str:
    return f"{change.tag} ({change.place})" if change.tag else change.place


def _rules(change: Change) -> str:
    if change.rule_before == change.rule_after:
        return change.rule_after
    return f"{change.rule_before or 'nothing'} -> {change.rule_after or 'nothing'}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
