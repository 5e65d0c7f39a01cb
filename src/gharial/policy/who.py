"""`who`: conditions on the verified facts of a caller, read and checked.

A missing fact satisfies no condition, negated or not: what is not known never opens anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gharial.model.caller import ANONYMOUS, Caller
from gharial.model.yaml_text import Entries, Entry, Node, Scalar
from gharial.policy.reading import Notes, entries_of, is_null, keyed, name_of, one_or_list
from gharial.policy.suggest import did_you_mean

FACTS = ("client", "team", "role", "user")
_LATER = ("network", "country", "cel", "issuer")
_CLAIM = "claim."
MAX_VALUES = 1_000
"""Values of one condition."""

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Condition:
    """One fact and the values of which it must be any (`negated`: none). Texts are globs with `*`."""

    fact: str
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Who:
    """A name for callers of whom all conditions hold; without conditions, for everyone."""

    name: str
    conditions: tuple[Condition, ...]
    line: int
    column: int


def parse_who(node: Node, notes: Notes) -> dict[str, Who]:
    """Read the mapping under `who`."""
    found: dict[str, Who] = {}
    for entry in entries_of(node, "who", notes):
        if not name_of(entry.key, "the name of a who", notes):
            continue
        conditions: list[Condition] = []
        if is_null(entry.value):
            # A forgotten value must not read as "everyone".
            notes.add(entry, f"'{entry.name}' has no conditions; everyone is written {{}}")
        else:
            for fact in entries_of(entry.value, f"'{entry.name}'", notes):
                conditions += _parse_condition(fact, notes)
        found[entry.name] = Who(entry.name, tuple(conditions), entry.key.line, entry.key.column)
    return found


def holds(who: Who, caller: Caller) -> bool:
    """True if every condition holds for the caller."""
    return all(_condition_holds(condition, caller) for condition in who.conditions)


def exclude_each_other(a: Who, b: Who) -> bool:
    """True if it is certain that no caller is both: a fact that has one value must be one of two disjoint sets."""
    for left in a.conditions:
        for right in b.conditions:
            if left.fact != right.fact or left.fact not in ("client", "team", "user") or left.negated or right.negated:
                continue
            texts = [*left.values, *right.values]
            if not any(isinstance(t, str) and "*" in t for t in texts) and not set(left.values) & set(right.values):
                return True
    return False


def glob_matches(pattern: str, text: str) -> bool:
    """True if `text` as a whole fits `pattern`, in which `*` stands for any characters. Linear in the text's length."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    *middle, last = rest
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _condition_holds(condition: Condition, caller: Caller) -> bool:
    facts = _facts(condition.fact, caller)
    if not facts:
        return False
    matched = any(_fits(value, fact) for value in condition.values for fact in facts)
    return matched is not condition.negated


def _facts(name: str, caller: Caller) -> tuple[Value, ...]:
    """The caller's values of a fact; empty where it is missing."""
    if name == "role":
        return tuple(role for role in caller.roles if role)
    if name == "client":
        # A call without a credential has no client; `anonymous` is only what audit and budgets call it. Else
        # `client: '*'` or `client: { not: acme }` would open to callers of whom nothing is known.
        return () if caller.client in ("", ANONYMOUS) else (caller.client,)
    if name == "team":
        return (caller.team,) if caller.team else ()
    if name == "user":
        return (caller.user,) if caller.user else ()
    claim = caller.claims.get(name.removeprefix(_CLAIM))
    values: Iterable[object] = claim if isinstance(claim, (tuple, list)) else (claim,)
    return tuple(value for value in values if isinstance(value, (str, int, float)) and value != "")


def _fits(value: Value, fact: Value) -> bool:
    if isinstance(value, str):
        return isinstance(fact, str) and glob_matches(value, fact)
    # True equals 1 in Python; a claim `1` is not the claim `true`.
    return not isinstance(fact, str) and isinstance(value, bool) == isinstance(fact, bool) and value == fact


def _parse_condition(entry: Entry, notes: Notes) -> list[Condition]:
    is_claim = entry.name.startswith(_CLAIM) and len(entry.name) > len(_CLAIM)
    if entry.name in _LATER or entry.name.startswith("caller."):
        notes.add(entry, f"'{entry.name}' is not supported by this version")
        return []
    if not is_claim and entry.name not in FACTS:
        known = (*FACTS, *_LATER)
        notes.add(entry, f"unknown fact {did_you_mean(entry.name, known)} (claims are written claim.NAME)")
        return []
    node, negated = entry.value, False
    if isinstance(node, Entries):
        keys = keyed(node, "a condition", notes, known=("not",), required=("not",))
        if "not" not in keys:
            return []
        node, negated = keys["not"].value, True
    nodes = one_or_list(node, f"'{entry.name}'", notes)
    if len(nodes) > MAX_VALUES:
        notes.add(node, f"more than {MAX_VALUES:,} values")
        return []
    values = [value for item in nodes if (value := _parse_value(item, is_claim, notes)) is not None]
    if entry.name == "client" and ANONYMOUS in values:
        notes.add(node, "a call without a credential has no client; what everyone may see is granted to a who of {}")
    return [Condition(entry.name, tuple(values), negated)] if values else []


def _parse_value(node: Node, is_claim: bool, notes: Notes) -> Value | None:
    if not isinstance(node, Scalar) or node.value is None or node.value == "":
        notes.add(node, "a value must be a text, a number or true/false; any of several is a list")
        return None
    # Only a claim can be a number: `client: 42` means the client named "42".
    return node.value if is_claim else node.text
