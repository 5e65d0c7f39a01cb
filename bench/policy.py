"""What a large policy costs: to read, check and compile, and to find the plan of a caller whose class is known.

    uv run python bench/policy.py [--rules N] [--tags M] [--json FILE]

The policy comes from `make_policy.py`. Decisions are compared with what the script that made it says, plans with the
same policy written in another order. Times of compiling are CPU seconds of this process, the best of three; times of
lookups the best of many short rounds. Memory is what tracemalloc counts. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import random
import sys
import time
import timeit
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from machine import describe_machine, machine_line
from make_policy import PURPOSES, Made, caller_of_team, make_policy

from gharial.crypto.keyset import Keyset, create_keyset
from gharial.gate.publish import MAX_PLANS, MAX_TRANSFORM_SETS, ActivePolicies
from gharial.gate.routes import RouteKind, RouteRule, parse_template
from gharial.model.caller import Caller
from gharial.model.plan import dump_plan
from gharial.policy.checks import check_policy
from gharial.policy.compile import compile_plan
from gharial.policy.decide import decide
from gharial.policy.document import Policy, parse_policy

GOAL_COMPILE_S = 2.0
GOAL_LOOKUP_US = 20.0
GOAL_GROWTH = 1.5
GOAL_KEPT = 2.0
NOON_S = 1_780_315_200.0
TEAMS = 12
NEW_CLIENTS = 50
MANY = 100
SHARING_CALLERS = 10_000

_T = TypeVar("_T")


class WrongOutput(Exception):
    """What came is not what must come: there is nothing to measure."""


def best_s(work: Callable[[], _T], rounds: int = 3) -> tuple[float, _T]:
    """Return the least CPU seconds of a few rounds, and the result."""
    best, result = float("inf"), work()
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        result = work()
        best = min(best, time.process_time() - began)
    return best, result


def best_us(work: Callable[[], object]) -> float:
    """Return the least microseconds per call of many short rounds."""
    timer = timeit.Timer(work)
    return min(timer.repeat(50, 200)) / 200 * 1e6


def rule_of(policy: Policy) -> RouteRule:
    """Return the one route that a policy covers."""
    return RouteRule("records", parse_template("GET /records"), RouteKind.PROTECT, policy.name)


def shuffled(made: Made, seed: int) -> str:
    """Return the same policy with its grants in another order."""
    head, rest = made.text.split("grants:\n", 1)
    grants, never, tail = rest.partition("never:\n")
    blocks = ["  - grant:" + block for block in grants.split("  - grant:")[1:]]
    random.Random(seed).shuffle(blocks)
    return f"{head}grants:\n{''.join(blocks)}{never}{tail}"


def measure_compile(made: Made) -> tuple[dict[str, float], Policy]:
    """Return CPU seconds of each part, and the policy. Raises WrongOutput."""
    parse_s, policy = best_s(lambda: parse_policy(made.text, "large.yaml"))
    check_s, problems = best_s(lambda: check_policy(policy, {"records": ()}))
    if problems:
        raise WrongOutput(f"the policy has mistakes: {problems[0]}")
    caller = caller_of_team(1)
    decide_s, decision = best_s(lambda: decide(policy, caller, NOON_S))
    # Grants that need a country hold for this caller, who is in Germany and not in a hidden network.
    if not decision.grants or decision.grants != made.granted(caller):
        raise WrongOutput("the grants of the known caller are not those that were made for it")
    compile_s, plan = best_s(lambda: compile_plan(policy, "records", (), decision.grants, decision.guardrails))
    slowest_s = 0.0
    for team in range(TEAMS):
        own = decide(policy, caller_of_team(team, 0, PURPOSES[team % 10]), NOON_S)
        began_s = time.process_time()
        compile_plan(policy, "records", (), own.grants, own.guardrails)
        slowest_s = max(slowest_s, time.process_time() - began_s)
    other = parse_policy(shuffled(made, 3), "large.yaml")
    if compile_plan(other, "records", (), decision.grants, decision.guardrails) != plan:
        raise WrongOutput("the plan depends on the order of writing")
    if {cell.tag for cell in plan.cells} != policy.tags.keys():
        raise WrongOutput("the plan does not speak of all tags")
    return {
        "text_chars": len(made.text),
        "parse_s": parse_s,
        "check_s": check_s,
        "first_decide_s": decide_s,
        "compile_s": compile_s,
        "slowest_class_s": slowest_s,
        "grants_of_class": len(decision.grants),
        "nodes": len(plan.nodes),
        "cells": len(plan.cells),
        "steps": len(plan.steps),
        "variants": len(plan.variants),
        "plan_bytes": len(dump_plan(plan)),
    }, policy


def measure_lookup(policy: Policy, made: Made, keyset: Keyset) -> dict[str, float]:
    """Return microseconds to find the plan of callers who came before: one, and a hundred in turn."""
    active, rule = ActivePolicies({policy.name: policy}, keyset, os.urandom), rule_of(policy)
    caller = caller_of_team(1)
    if active.prepare(rule, caller, NOON_S).plan.grants != made.granted(caller):
        raise WrongOutput("another plan than the caller's was found")
    one_us = best_us(lambda: active.prepare(rule, caller, NOON_S))
    many = [caller_of_team(1, number) for number in range(MANY)]
    for one in many:
        active.prepare(rule, one, NOON_S)
    turn = itertools.cycle(many)
    many_us = best_us(lambda: active.prepare(rule, next(turn), NOON_S))
    return {"lookup_us": one_us, "lookup_many_us": many_us}


def measure_sharing(keyset: Keyset) -> dict[str, float]:
    """Return how many plans 10,000 different callers of one class have, and the memory kept for all of them."""
    made = make_policy(10, 20)
    policy = parse_policy(made.text, "shared.yaml")
    active, rule = ActivePolicies({policy.name: policy}, keyset, os.urandom), rule_of(policy)
    first = active.prepare(rule, caller_of_team(1, SHARING_CALLERS), NOON_S).plan
    if first.grants != made.granted(caller_of_team(1)):
        raise WrongOutput("another plan than the callers' was found")
    gc.collect()
    tracemalloc.start()
    plans = {id(active.prepare(rule, caller_of_team(1, number), NOON_S).plan) for number in range(SHARING_CALLERS)}
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if plans != {id(first)}:
        raise WrongOutput(f"{SHARING_CALLERS} callers of one class have {len(plans)} plans")
    return {"sharing_plans": len(plans), "sharing_mb": kept / 1e6}


def measure_large_plans(policy: Policy, keyset: Keyset) -> dict[str, float]:
    """Return what the large policy keeps: per plan, and per client of a known class, whose steps are made runnable.

    Either, times the most that the caches hold, is what a gate with such a policy could come to.
    """
    gc.collect()
    tracemalloc.start()
    plans = []
    for team in range(TEAMS):
        decision = decide(policy, caller_of_team(team, 0, PURPOSES[team % 10]), NOON_S)
        plans.append(compile_plan(policy, "records", (), decision.grants, decision.guardrails))
    gc.collect()
    plan_mb = tracemalloc.get_traced_memory()[0] / 1e6 / len(plans)
    tracemalloc.stop()
    active, rule = ActivePolicies({policy.name: policy}, keyset, os.urandom), rule_of(policy)
    active.prepare(rule, caller_of_team(1), NOON_S)
    began_s = time.process_time()
    for number in range(1, NEW_CLIENTS):
        active.prepare(rule, caller_of_team(1, number), NOON_S)
    client_ms = (time.process_time() - began_s) / (NEW_CLIENTS - 1) * 1e3
    gc.collect()
    tracemalloc.start()
    for number in range(NEW_CLIENTS, 2 * NEW_CLIENTS):
        active.prepare(rule, caller_of_team(1, number), NOON_S)
    gc.collect()
    client_mb = tracemalloc.get_traced_memory()[0] / 1e6 / NEW_CLIENTS
    tracemalloc.stop()
    return {
        "classes": len(plans),
        "plan_mb": plan_mb,
        "all_plans_mb": plan_mb * MAX_PLANS,
        "new_client_ms": client_ms,
        "client_mb": client_mb,
        "all_clients_mb": client_mb * MAX_TRANSFORM_SETS,
    }


def measure_bound(keyset: Keyset) -> dict[str, float]:
    """Return the memory kept after one, two and three times as many classes as plans are remembered."""
    roles = [f"role_{n}" for n in range(12)]
    lines = ["policy: many", "version: 1", "tags:", *(f"  {r}: {{ find: '$..{r}' }}" for r in roles), "who:"]
    lines += [*(f"  {r}: {{ role: {r} }}" for r in roles), "grants:"]
    lines += [f"  - {{ grant: {r}, to: {r}, show: {{ {r}: clear }} }}" for r in roles]
    policy = parse_policy("\n".join(lines) + "\n", "many.yaml")
    active, rule = ActivePolicies({policy.name: policy}, keyset, os.urandom), rule_of(policy)
    kept: dict[str, float] = {}
    gc.collect()
    tracemalloc.start()
    for times in range(1, 4):
        for number in range((times - 1) * MAX_PLANS, times * MAX_PLANS):
            own = tuple(role for bit, role in enumerate(roles) if number >> bit & 1)
            plan = active.prepare(rule, Caller("default", client="c", roles=own, source="bench"), NOON_S).plan
            if plan.grants != tuple(sorted(own)):
                raise WrongOutput("another plan than the caller's was found")
        gc.collect()
        kept[f"bound_{times}x_mb"] = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    return kept


def main() -> int:
    """Print the figures; the exit code is 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rules", type=int, default=1_000)
    parser.add_argument("--tags", type=int, default=200)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    machine = describe_machine("gharial", "msgspec", "cryptography")
    print(f"{machine_line(machine)}\n")
    keyset = create_keyset(random.Random(1).randbytes, NOON_S)
    found: dict[str, dict[str, float]] = {}
    for rules in (10, options.rules):
        made = make_policy(rules, options.tags)
        figures, policy = measure_compile(made)
        figures |= measure_lookup(policy, made, keyset)
        found[f"{rules} rules"] = figures
        print(f"{rules} rules, {options.tags} tags")
        for name, figure in figures.items():
            print(f"  {name:18}{figure:14,.4f}" if name.endswith(("_s", "_us")) else f"  {name:18}{figure:14,.0f}")
    found["memory"] = measure_sharing(keyset) | measure_large_plans(policy, keyset) | measure_bound(keyset)
    print("memory")
    for name, figure in found["memory"].items():
        print(f"  {name:18}{figure:14,.2f}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, **found}, indent=2) + "\n", encoding="utf-8")
    return verdict(found["10 rules"], found[f"{options.rules} rules"], found["memory"])


def verdict(small: dict[str, float], large: dict[str, float], memory: dict[str, float]) -> int:
    """Say which goals were met; 0 if all."""
    grown = memory["bound_3x_mb"] / memory["bound_1x_mb"]
    goals = {
        f"compile for the slowest class in {GOAL_COMPILE_S} s": large["slowest_class_s"] < GOAL_COMPILE_S,
        f"parse, check and compile in {GOAL_COMPILE_S} s together": large["parse_s"]
        + large["check_s"]
        + large["compile_s"]
        < GOAL_COMPILE_S,
        f"lookup in {GOAL_LOOKUP_US} us": max(large["lookup_us"], large["lookup_many_us"]) < GOAL_LOOKUP_US,
        "lookup does not grow with the rules": large["lookup_us"] < GOAL_GROWTH * small["lookup_us"],
        "one plan for 10,000 callers of a class": memory["sharing_plans"] == 1,
        "thrice as many classes as plans are kept: less than twice the memory": grown < GOAL_KEPT,
    }
    print()
    for goal, met in goals.items():
        print(f"{'met    ' if met else 'NOT MET'} {goal}")
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WrongOutput as wrong:
        sys.exit(f"WRONG OUTPUT: {wrong}")
