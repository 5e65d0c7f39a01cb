"""Plays scenarios against the watch of a policy on a virtual clock, and says what a thief would have got."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gharial.adapters.watch_file import read_decoys
from gharial.gate.watching import Watching, sight_of
from gharial.model.caller import Caller
from gharial.model.errors import CallerBlocked, CallerThrottled
from gharial.policy.document import Policy
from gharial.watch.incidents import IncidentBook
from gharial.watch.scenarios import DAY, Scenario, SimulatedCall

_START_S = 1_767_571_200.0
"""A Monday, midnight UTC: days and windows of the scenario begin together."""


@dataclass(slots=True)
class _VirtualClock:
    at_s: float = _START_S

    def now_s(self) -> float:
        return self.at_s


@dataclass(slots=True)
class SimulationResult:
    """What came of one scenario.

    `exposed` are distinct people shown in clear to the thief, `exposed_before` those before the first measure on any
    of his identities, `detected_s` the seconds until the first verdict about him; None where there was none.
    `false_alarms` are incidents about honest callers, `hindered` their calls that were masked or refused; both after
    the days of learning. `timeline` are (seconds, people exposed so far) at verdicts and at the end.
    """

    scenario: str
    what: str
    days: float
    learned_days: float = 0.0
    calls: int = 0
    exposed: int = 0
    exposed_before: int | None = None
    detected_s: float | None = None
    detector: str = ""
    false_alarms: int = 0
    hindered: int = 0
    honest_calls: int = 0
    timeline: list[tuple[float, int]] = field(default_factory=list)

    @property
    def false_alarms_a_day(self) -> float:
        """False alarms per day after those of learning."""
        return self.false_alarms / max(self.days - self.learned_days, 1.0)


def simulate(
    policy: Policy,
    scenario: Scenario,
    base: Path,
    *,
    learn_days: float = 0.0,
    progress: Callable[[float], None] = lambda _: None,
) -> SimulationResult:
    """Play a scenario against the `watch` of a policy, as the gate would.

    For `learn_days` the honest callers' route is in shadow, so that what is usual is known when it matters.
    Everybody is taken to be granted the people in clear, so budgets, which hold besides, play no part. `base` is where
    the policy's decoys are found; `progress` is told the part of the scenario's time that has passed.
    """
    clock = _VirtualClock()
    numbers = iter(range(10**9))
    incidents = IncidentBook(new_bytes=lambda count: next(numbers).to_bytes(count, "little"), iso_time=str)
    watching = Watching(
        incidents,
        clock,
        read_decoys=lambda reference, _: read_decoys(base / reference.removeprefix("file:")),
        digest=lambda space, text: f"{space}:{text}",
    )
    result = SimulationResult(scenario.name, scenario.what, scenario.days, learn_days)
    exposed: set[int] = set()
    told: set[str] = set()
    for call in scenario.calls():
        clock.at_s = _START_S + call.at_s
        result.calls += 1
        learning = call.honest and call.at_s < learn_days * DAY
        result.honest_calls += call.honest and not learning
        if result.calls % 5_000 == 0:
            progress(min(1.0, call.at_s / (scenario.days * DAY)))
        _play(policy, call, watching, clock, result, exposed, act=not learning)
        for record, alarm in incidents.flush(clock.at_s):
            if alarm is None or record.incident_id in told:
                continue
            told.add(record.incident_id)
            if call.honest:
                result.false_alarms += not learning
                continue
            result.timeline.append((call.at_s, len(exposed)))
            if result.detected_s is None:
                result.detected_s, result.detector = call.at_s - _first_theft_s(scenario), record.detector
    result.exposed = len(exposed)
    result.timeline.append((scenario.days * DAY, len(exposed)))
    progress(1.0)
    return result


def _play(
    policy: Policy,
    call: SimulatedCall,
    watching: Watching,
    clock: _VirtualClock,
    result: SimulationResult,
    exposed: set[int],
    *,
    act: bool,
) -> None:
    caller = Caller("simulated", client=call.client, user=call.user)
    try:
        masked = watching.standing(caller).mask
    except (CallerBlocked, CallerThrottled):
        result.hindered += call.honest
        _note_measure(call, result, exposed)
        return
    if masked:
        result.hindered += call.honest
        _note_measure(call, result, exposed)
    elif not call.honest:
        exposed.update(call.people)
    people = [f"person-{number}" for number in call.people]
    asked = [("customer", call.asked)] if call.asked else []
    sight = sight_of(caller, "simulated", clock.at_s, people=people, asked=asked)
    watching.look(policy, sight, "simulated", [f"{space}:{text}" for space, text in asked], act=act)


def _note_measure(call: SimulatedCall, result: SimulationResult, exposed: set[int]) -> None:
    if not call.honest and result.exposed_before is None:
        result.exposed_before = len(exposed)


def _first_theft_s(scenario: Scenario) -> float:
    return next((call.at_s for call in scenario.calls() if not call.honest), 0.0)
