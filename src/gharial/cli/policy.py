"""`gharial policy`: check, test, compare and explain policies before they decide anything."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO

import click

from gharial.cli.output import fail, json_option, note, print_json, speaks_errors

policy_file = click.Path(path_type=Path, dir_okay=False)
MORE_OPEN_STATUS = 3


@click.group()
def policy() -> None:
    """Check, test, compare and explain policies.

    \b
    gharial policy check policies/*.yaml
    gharial policy test policies/customers.yaml
    gharial policy explain policies/customers.yaml --as care --for support --in US
    gharial policy diff policies/customers.yaml new.yaml
    """


@policy.command("check")
@click.argument("files", nargs=-1, type=policy_file, metavar="[FILE]...")
@click.option(
    "-c",
    "--config",
    "config_path",
    type=policy_file,
    default=None,
    help="Check for the routes of this gharial.yaml; without FILE, all policies that it names.",
)
@json_option
@speaks_errors
def check(files: tuple[Path, ...], config_path: Path | None, as_json: bool) -> None:
    """Say every mistake and warning with its place, which paths are slow and why, and what the plans cost.

    Exit status 1 if there is a mistake; warnings don't count.

    \b
    gharial policy check policies/customers.yaml
    gharial policy check -c gharial.yaml
    """
    from gharial.cli.policy_text import check_lines
    from gharial.wiring.policy_checks import check_files

    if not files and config_path is None:
        raise click.UsageError("name a policy FILE, or a configuration with -c")
    reports = check_files(files, config_path)
    if as_json:
        print_json([asdict(report) for report in reports])
    else:
        for report in reports:
            for line in check_lines(report):
                click.echo(line)
    if any(report.errors for report in reports):
        sys.exit(1)


@policy.command("test")
@click.argument("files", nargs=-1, required=True, type=policy_file, metavar="FILE...")
@click.option("--junit", "junit_path", type=policy_file, default=None, help="Write the results as JUnit XML, for CI.")
@json_option
@speaks_errors
def test(files: tuple[Path, ...], junit_path: Path | None, as_json: bool) -> None:
    """Run the tests that stand in policies, with the real reader and transforms and throwaway keys.

    Exit status 1 if one fails, or if there is none.

    \b
    gharial policy test policies/*.yaml
    gharial policy test policies/customers.yaml --junit results.xml
    """
    from gharial.cli.junit import junit_xml
    from gharial.cli.policy_text import test_lines
    from gharial.wiring.policy_tools import load_policy, results_json, run_cases

    results = [result for file in files for result in run_cases(load_policy(file))]
    if junit_path is not None:
        try:
            junit_path.write_text(junit_xml(results), encoding="utf-8")
        except OSError as error:
            fail(f"{junit_path} can't be written ({error.strerror})")
    if as_json:
        print_json(results_json(results))
    else:
        for line in test_lines(results):
            click.echo(line)
    if not results:
        fail("there is no test here: a policy's tests stand under 'tests'")
    if not all(result.passed for result in results):
        sys.exit(1)


@policy.command("diff")
@click.argument("old", type=policy_file)
@click.argument("new", type=policy_file)
@click.option("--fail-if-more-open", is_flag=True, help="Exit with status 3 if anything becomes more open.")
@click.option(
    "--max-classes",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="Compare for so many classes of callers at most; what is left out is said.",
)
@json_option
@speaks_errors
def diff(old: Path, new: Path, fail_if_more_open: bool, max_classes: int, as_json: bool) -> None:
    """Say what NEW shows more openly than OLD, what more strictly, and to whom: by comparing plans, not texts.

    Exit status 0 whether or not anything changes, 3 with --fail-if-more-open if something becomes more open.

    \b
    gharial policy diff policies/customers.yaml new.yaml
    git show HEAD:policy.yaml > old.yaml && gharial policy diff old.yaml policy.yaml --fail-if-more-open
    """
    from gharial.cli.policy_text import diff_lines
    from gharial.policy.diff import Direction, diff_policies
    from gharial.wiring.policy_tools import load_policy

    found = diff_policies(load_policy(old), load_policy(new), max_classes)
    if as_json:
        print_json(asdict(found))
    else:
        for line in diff_lines(found):
            click.echo(line)
    for what in found.left_out:
        note(f"not compared: {what}")
    if fail_if_more_open and (found.of(Direction.MORE_OPEN) or found.left_out):
        sys.exit(MORE_OPEN_STATUS)


@policy.command("coverage")
@click.argument("file", type=policy_file)
@click.option(
    "--fail-under", type=click.FloatRange(0, 100), default=None, help="Exit with status 1 below so many percent."
)
@click.option("--all", "show_all", is_flag=True, help="Show the combinations too in which every tag is tested.")
@json_option
@speaks_errors
def coverage(file: Path, fail_under: float | None, show_all: bool, as_json: bool) -> None:
    """Show which combinations of who, purpose, country and tag no test of the policy touches.

    \b
    gharial policy coverage policies/customers.yaml
    gharial policy coverage policies/customers.yaml --fail-under 80
    """
    from gharial.cli.policy_text import print_coverage
    from gharial.policy.coverage import cover
    from gharial.wiring.policy_tools import load_policy

    found = cover(load_policy(file))
    if as_json:
        summary = {"cells": found.cells, "touched": found.touched, "percent": round(found.percent, 1)}
        print_json(summary | {"rows": [asdict(row) for row in found.rows]})
    else:
        print_coverage(found, show_all=show_all)
    if fail_under is not None and found.percent < fail_under:
        fail(f"tests touch {found.percent:.1f}% of the cells, less than {fail_under:g}%")


@policy.command("explain")
@click.argument("file", type=policy_file)
@click.argument("body", required=False, type=click.File("rb"), metavar="[INPUT.json|-]")
@click.option("--as", "as_", required=True, metavar="WHO", help="A name of who, or facts: role=care,claim.amr=mfa.")
@click.option("--for", "purpose", default="", help="The purpose.")
@click.option("--in", "country", default="", help="The caller's country (two letters).")
@click.option("--network", default="", help="The caller's kind of network.")
@click.option("--hour", type=click.IntRange(0, 23), default=None, help="The hour (UTC).")
@click.option("--weekday", default="", help="mon to sun.")
@click.option("--subject", default="", metavar="FACTS", help="Facts of the person: residency=EU,consent=sharing.")
@click.option("--beyond-budget", is_flag=True, help="As if the caller had used up every budget.")
@click.option("--path", default="", metavar="PATH", help="Explain only what is at this JSONPath.")
@click.option("--show-values", is_flag=True, help="Show the values of INPUT and what becomes of them.")
@json_option
@speaks_errors
def explain(
    file: Path,
    body: IO[bytes] | None,
    as_: str,
    purpose: str,
    country: str,
    network: str,
    hour: int | None,
    weekday: str,
    subject: str,
    beyond_budget: bool,
    path: str,
    show_values: bool,
    as_json: bool,
) -> None:
    """Say for each tag, or each field of INPUT, which rules were considered, which won, and why.

    Values are never shown unless --show-values says so.

    \b
    gharial policy explain policies/customers.yaml --as care --for support --in US
    gharial policy explain policies/customers.yaml --as role=care --for support answer.json --path '$..email'
    """
    from gharial.cli.policy_text import explain_lines
    from gharial.wiring.policy_explain import Situation, explain_policy, explained_json
    from gharial.wiring.policy_tools import load_policy

    stated = {"purpose": purpose, "country": country, "network": network, "time.hour": hour, "time.weekday": weekday}
    situation = Situation(
        as_=as_,
        stated={name: value for name, value in stated.items() if value is not None and value != ""},
        subject=subject,
        beyond_budgets=beyond_budget,
        path=path,
        show_values=show_values,
    )
    found = explain_policy(load_policy(file), situation, body.read() if body else None)
    if as_json:
        print_json([explained_json(one, show_values=show_values) for one in found])
        return
    for line in explain_lines(found, show_values=show_values):
        click.echo(line)
