"""How long policies take, 1,000 rules over 200 tags among them: `python bench/policies.py`. Prints medians.

A decision for a known class of callers must not take longer with more rules.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

from machine import describe_machine, machine_line

from gharial.model.caller import Caller
from gharial.policy.checks import check_policy
from gharial.policy.compile import compile_plan
from gharial.policy.decide import Decider, decide
from gharial.policy.document import parse_policy

TAGS = 200
TECHNIQUES = ("clear", "mask", "mask(last=4)", "mask(last=2)", "token", "redact")


def big_policy_text(rules: int, seed: int = 1) -> str:
    """A policy of so many rules, a tenth of them guardrails, over 200 tags; the same seed gives the same text."""
    rng = random.Random(seed)
    tags = "".join(f"  t{n}: {{ find: ['$..field{n}', '$.records[*].x{n}'] }}\n" for n in range(TAGS))
    who = "  anyone: {}\n" + "".join(
        f"  w{n}: {{ role: r{n}, client: 'c{n}-*', caller.country: [EU, US] }}\n" for n in range(100)
    )
    grants, never = "", ""
    for n in range(rules - rules // 10):
        show = ", ".join(f"t{t}: '{rng.choice(TECHNIQUES)}'" for t in sorted(rng.sample(range(TAGS), 4)))
        grants += f"  - {{ grant: g{n}, to: w{n % 100}, for: [p{n % 20}], show: {{ {show} }} }}\n"
    for n in range(rules // 10):
        when = "{ caller.country: { not: EEA } }"
        never += f"  - {{ never: n{n}, tag: t{n * 2 % TAGS}, when: {when}, at_least: mask }}\n"
    return f"policy: big\nversion: 1\ntags:\n{tags}who:\n{who}grants:\n{grants}never:\n{never}"


def median_s(run: Callable[[], object], times: int) -> float:
    """The median of so many runs, in seconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def main() -> None:
    """Measure and print."""
    print(machine_line(describe_machine("ruamel.yaml", "msgspec")))
    caller = Caller("t", client="c3-x", roles=("r3",), purpose="p3", country="US")
    for rules in (100, 1_000):
        text = big_policy_text(rules)
        policy = parse_policy(text, "big.yaml")
        decision = decide(policy, caller, 0.0)
        decider = Decider(policy)
        decider.decide(caller, 0.0)
        read = median_s(lambda text=text: parse_policy(text, "big.yaml"), 3)
        checked = median_s(lambda policy=policy: check_policy(policy, {"r": ()}), 3)
        compiled = median_s(lambda policy=policy, d=decision: compile_plan(policy, "r", (), d.grants, d.guardrails), 3)
        known = median_s(lambda decider=decider: [decider.decide(caller, 0.0) for _ in range(2_000)], 5) / 2_000
        new = median_s(lambda policy=policy: decide(policy, caller, 0.0), 5)
        print(
            f"{rules:>5} rules, {TAGS} tags: read {read:.2f} s, check {checked:.2f} s, "
            f"compile one class {compiled:.2f} s; "
            f"decide a known class {known * 1e6:.1f} us, a new one {new * 1e6:.0f} us"
        )


if __name__ == "__main__":
    main()
