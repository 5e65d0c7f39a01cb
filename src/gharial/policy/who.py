"""`who`: names for callers, by conditions on verified facts.

A missing fact satisfies no condition, negated or not: what is not known never opens anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from gharial.model.yaml_text import Node
from gharial.policy.cel import CelProgram
from gharial.policy.conditions import Condition, Conditions, Vocabulary, find_outcome, parse_conditions
from gharial.policy.facts import ExchangeFacts
from gharial.policy.reading import Notes, entries_of, is_null, name_of


@dataclass(frozen=True, slots=True)
class Who:
    """A name for callers of whom all conditions and expressions hold; without any, for everyone."""

    name: str
    conditions: tuple[Condition, ...]
    line: int
    column: int
    expressions: tuple[CelProgram, ...] = ()


def parse_who(node: Node, words: Vocabulary, notes: Notes) -> dict[str, Who]:
    """Read the mapping under `who`."""
    found: dict[str, Who] = {}
    for entry in entries_of(node, "who", notes):
        if not name_of(entry.key, "the name of a who", notes):
            continue
        conditions = Conditions()
        if is_null(entry.value):
            # A forgotten value must not read as "everyone".
            notes.add(entry, f"'{entry.name}' has no conditions; everyone is written {{}}")
        else:
            conditions = parse_conditions(entry.value, f"'{entry.name}'", words, notes)
        place = (entry.key.line, entry.key.column)
        found[entry.name] = Who(entry.name, conditions.exchange, *place, conditions.expressions)
    return found


def holds(who: Who, facts: ExchangeFacts) -> bool:
    """True if every condition certainly holds. Raises PolicyExpressionFailed."""
    return find_outcome(Conditions(who.conditions, (), who.expressions), facts) is True
