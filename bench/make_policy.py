"""Makes a large policy, the same for the same numbers: python bench/make_policy.py [--rules N] [--tags M] > policy.yaml

Nine in ten rules are grants, the others guardrails. Tags stand at written-out places, at any depth, or both; groups
hold tags and groups. Who asks is told by role, client, team, claim or an expression; grants have purposes, needs,
budgets and groups of people, guardrails facts of the caller and of the person.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass

from gharial.model.caller import Caller

PURPOSES = tuple(f"purpose-{n}" for n in range(10))
# Any two of these can be ordered, so that no two grants contradict each other.
TECHNIQUES = (
    "clear",
    "mask(keep=domain, last=4)",
    "mask(last=4)",
    "mask",
    "band(10y)",
    "token(scope=client)",
    "redact",
)
FLOORS = ("mask", "band(10y)", "token(scope=all)", "redact", "drop")
PEOPLE = ("mask(last=4)", "token(scope=client)", "redact")


@dataclass(frozen=True, slots=True)
class Made:
    """The text of a policy, and what it says in words that need no parser: who is granted what, for what.

    `grants` maps each grant to the numbers of its who and its purposes (none: for all).
    """

    text: str
    grants: dict[str, tuple[tuple[int, ...], tuple[str, ...]]]

    def granted(self, caller: Caller) -> tuple[str, ...]:
        """Return the names of the grants that apply to a caller in Germany, worked out without the policy's parser."""
        return tuple(
            sorted(
                name
                for name, (whos, purposes) in self.grants.items()
                if any(is_who(number, caller) for number in whos) and (not purposes or caller.purpose in purposes)
            )
        )


def caller_of_team(team: int, number: int = 0, purpose: str = PURPOSES[1]) -> Caller:
    """Return one of many callers of whom a policy made here says the same, for the same team and purpose."""
    return Caller(
        tenant="default",
        client=f"c-{team}-{number}",
        team=f"team-{team}",
        roles=(f"role-{team}",),
        claims={"group": f"group-{team}"},
        purpose=purpose,
        country="DE",
        network="office",
        source="bench",
    )


def is_who(number: int, caller: Caller) -> bool:
    """True if a caller is the who of this number."""
    kind, index = number % 4, number // 4
    return (
        f"role-{index}" in caller.roles,
        caller.client.startswith(f"c-{index}-"),
        caller.team == f"team-{index}",
        caller.claims.get("group") == f"group-{index}",
    )[kind]


def make_policy(rules: int = 1_000, tags: int = 200, seed: int = 7) -> Made:
    """Return a policy of so many rules about so many tags."""
    rng = random.Random(seed)
    names = [f"tag-{n:03d}" for n in range(tags)]
    groups = {f"group-{n}": names[n * 10 : n * 10 + 10] for n in range(tags // 10)}
    wide = {f"wide-{n}": [f"group-{m}" for m in range(n * 5, n * 5 + 5)] for n in range(len(groups) // 5)}
    guardrails = rules // 10
    who = max(8, (rules - guardrails) // 5)
    grants: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {}
    lines = ["policy: large", "version: 1", "tags:", *_tags(names)]
    lines += [f"  {name}: [{', '.join(members)}]" for name, members in (groups | wide).items()]
    lines += ["groups:", "  near: [EEA, CH, GB]", "who:", *(f"  who-{n}: {_who(n)}" for n in range(who)), "grants:"]
    for number in range(rules - guardrails):
        name = f"grant-{number:04d}"
        grants[name] = _draw_to(rng, who, number), tuple(rng.sample(PURPOSES, 3)) if rng.random() < 0.7 else ()
        lines += _grant(rng, name, number, grants[name], (names, [*groups], [*wide]))
    if guardrails:
        lines += ["never:", *(_guardrail(rng, n, names, [*groups]) for n in range(guardrails))]
    return Made("\n".join(lines) + "\n", grants)


def _tags(names: list[str]) -> Iterator[str]:
    for number, name in enumerate(names):
        field = f"$.records[*].section{number % 12}.field{number}"
        places = ([field], [field, f"$.records[*].alias{number}"], [f"$..deep{number}"], [f"$.head.part.field{number}"])
        found = ", ".join(f"'{place}'" for place in places[number % 4])
        more = {0: ", subject: customer", 1: ", fact: residency", 5: ", type: date"}.get(number, "")
        yield f"  {name}: {{ find: [{found}]{more} }}"


def _who(number: int) -> str:
    index = number // 4
    told = (f"role: role-{index}", f"client: 'c-{index}-*'", f"team: team-{index}", f"claim.group: group-{index}")
    expression = """, cel: '!("external" in roles)'""" if number % 16 == 0 else ""
    return f"{{ {told[number % 4]}{expression} }}"


def _draw_to(rng: random.Random, who: int, number: int) -> tuple[int, ...]:
    # What depends on people goes to one who each: one caller may depend on eight such things together.
    count = 1 if number % 5 == 0 else rng.choice((1, 1, 2, 3))
    return tuple(sorted(rng.sample(range(who), count)))


def _grant(
    rng: random.Random,
    name: str,
    number: int,
    holds: tuple[tuple[int, ...], tuple[str, ...]],
    targets: tuple[list[str], list[str], list[str]],
) -> list[str]:
    whos, purposes = holds
    tags, groups, wide = targets
    shown = {tag: rng.choice(TECHNIQUES) for tag in rng.sample(tags, min(len(tags), 8))}
    shown |= {group: rng.choice(TECHNIQUES) for group in rng.sample(groups, min(len(groups), 2))}
    if wide and number % 4 == 0:
        shown[rng.choice(wide)] = rng.choice(TECHNIQUES)
    lines = [f"  - grant: {name}", f"    to: [{', '.join(f'who-{n}' for n in whos)}]"]
    if purposes:
        lines.append(f"    for: [{', '.join(purposes)}]")
    if number % 7 == 3:
        lines.append("    needs: { caller.country: near, caller.network: { not: [tor, hosting] } }")
    elif number % 25 == 5:
        lines.append("    needs: { subject.consent: sharing }")
    elif number % 25 == 10:
        lines.append("    needs: { subject.residency: near }")
    lines.append("    show: { " + ", ".join(f"{tag}: '{technique}'" for tag, technique in shown.items()) + " }")
    if number % 25 == 0:
        lines.append(f"    budget: {{ people: {rng.randrange(20, 900)}/h, then: '{rng.choice(PEOPLE)}' }}")
    return lines


def _guardrail(rng: random.Random, number: int, tags: list[str], groups: list[str]) -> str:
    name = f"never: never-{number:03d}"
    if number % 10 == 9:
        return f"  - {{ {name}, filter_or_sort_by: [{', '.join(rng.sample(tags, 3))}], unless: clear }}"
    about = ", ".join([rng.choice(groups), *rng.sample(tags, 2)] if groups else tags[:2])
    when = (
        "subject.residency: EU, caller.country: { not: EEA }",
        "caller.network: [tor, hosting]",
        f"role: role-{number}, time.hour: 22-5",
        f"client: 'c-{number}-*', country: FIVE_EYES",
        f"claim.group: [group-{number}, outside]",
    )[number % 5]
    return f"  - {{ {name}, tag: [{about}], when: {{ {when} }}, at_least: '{rng.choice(FLOORS)}' }}"


def main() -> None:
    """Print a policy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rules", type=int, default=1_000)
    parser.add_argument("--tags", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    print(make_policy(options.rules, options.tags, options.seed).text, end="")


if __name__ == "__main__":
    main()
