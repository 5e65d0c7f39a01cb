"""`gharial simulate`: what a thief would get, and what honest callers would notice, under a policy's watch."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gharial.cli.output import json_option, print_json, print_table, speaks_errors


@click.command()
@click.argument("names", metavar="[SCENARIO]...", nargs=-1)
@click.option(
    "--policy",
    "policy_path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The policy whose watch is tried.",
)
@click.option(
    "--picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw the timelines into this SVG file."
)
@click.option(
    "--learn-days",
    type=click.FloatRange(0, 100),
    default=8.0,
    show_default=True,
    help="For so long the honest callers' routes are in shadow, and what is usual is learned.",
)
@click.option("--list", "only_list", is_flag=True, help="List the scenarios, and play none.")
@json_option
@speaks_errors
def simulate(
    names: tuple[str, ...],
    policy_path: Path,
    picture: Path | None,
    learn_days: float,
    only_list: bool,
    as_json: bool,
) -> None:
    """Play made-up traffic, honest and not, against the watch of a policy, on a virtual clock.

    \b
    gharial simulate --policy policies/customer-data.yaml
    gharial simulate --policy policies/customer-data.yaml slow shuffled --picture harvest.svg
    gharial simulate --policy policies/customer-data.yaml --list
    """
    from dataclasses import asdict

    from gharial.policy.suggest import did_you_mean
    from gharial.watch.scenarios import SCENARIOS
    from gharial.wiring.policy_tools import load_policy
    from gharial.wiring.simulate import SimulationResult
    from gharial.wiring.simulate import simulate as play

    known = {scenario.name: scenario for scenario in SCENARIOS}
    if only_list:
        print_table("", ["scenario", "what it is"], [[one.name, one.what] for one in SCENARIOS])
        return
    for name in names:
        if name not in known:
            raise click.UsageError(f"there is no scenario {did_you_mean(name, known)}")
    policy = load_policy(policy_path)
    results: list[SimulationResult] = []
    for scenario in [known[name] for name in names] or SCENARIOS:
        show = sys.stderr.isatty()

        def tell(part: float, name: str = scenario.name, show: bool = show) -> None:
            if show:
                click.echo(f"\r{name}: {part:4.0%}", nl=part >= 1, err=True)

        base = policy_path.resolve().parent
        results.append(play(policy, scenario, base, learn_days=learn_days, progress=tell))
    if picture is not None:
        from gharial.cli.timeline import draw

        picture.write_text(draw(results), encoding="utf-8")
    if as_json:
        print_json([{**asdict(result), "false_alarms_a_day": result.false_alarms_a_day} for result in results])
        return
    print_table(
        "",
        [
            "scenario",
            "people taken",
            "before the first measure",
            "seen after",
            "by",
            "false alarms a day",
            "honest hindered",
        ],
        [_row(result) for result in results],
    )


def _row(result: object) -> list[object]:
    from gharial.wiring.simulate import SimulationResult

    assert isinstance(result, SimulationResult)  # noqa: S101 - imported late
    thief = result.exposed > 0
    return [
        result.scenario,
        f"{result.exposed:,}" if thief else "",
        "" if not thief else "never" if result.exposed_before is None else f"{result.exposed_before:,}",
        "" if not thief else "never" if result.detected_s is None else _duration(result.detected_s),
        result.detector,
        f"{result.false_alarms_a_day:.2f}" if result.honest_calls else "",
        f"{result.hindered:,} of {result.honest_calls:,}" if result.honest_calls else "",
    ]


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
