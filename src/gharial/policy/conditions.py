"""Conditions on facts, as `who`, `needs`, `when` and `unless` share them: read, checked, and put to an exchange.

The outcome is one of three: it holds, it does not, or the fact is missing (None). Grants take a missing fact as "does
not hold", guardrails as "holds"; a negation of a missing fact is missing too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gharial.model import plan
from gharial.model.caller import ANONYMOUS
from gharial.model.errors import PolicyExpressionFailed
from gharial.model.yaml_text import Entries, Entry, Node, Scalar
from gharial.policy.cel import CelError, CelFailed, CelMissing, CelProgram, compile_cel
from gharial.policy.countries import COUNTRIES, unknown_country
from gharial.policy.facts import CLAIM, FACTS, WEEKDAYS, ExchangeFacts, Value
from gharial.policy.reading import Notes, entries_of, is_null, keyed, one_or_list, text_of
from gharial.policy.suggest import did_you_mean

MAX_VALUES = 1_000
"""Values of one condition, as written."""
CONSENT, RESIDENCY, GROUP = "consent", "residency", "group"
_SUBJECT = "subject."
_CALLER = "caller."
_ONE_VALUED = ("client", "team", "user", "purpose", "country", "network", "time.hour", "time.weekday")
_HOURS = re.compile(r"([0-9]{1,2})-([0-9]{1,2})")


@dataclass(frozen=True, slots=True)
class Condition:
    """One fact and the values of which it must be any (`negated`: none). Texts are globs with `*`.

    Groups of countries and ranges of hours are replaced by their members; `written` is what the author wrote.
    """

    fact: str
    values: tuple[Value, ...]
    negated: bool = False
    written: tuple[Value, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions that all hold together: on the exchange, on a person (`fact` without "subject."), and expressions."""

    exchange: tuple[Condition, ...] = ()
    person: tuple[Condition, ...] = ()
    expressions: tuple[CelProgram, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.exchange or self.person or self.expressions)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What conditions may name: groups of countries, and facts about a person (`consent`, and each `fact:` of a tag).

    With `person` None, as in `who`, a fact about a person is a mistake.
    """

    countries: Mapping[str, frozenset[str]]
    person: frozenset[str] | None = None


def parse_conditions(node: Node, what: str, words: Vocabulary, notes: Notes) -> Conditions:
    """Read a mapping of facts to values. `what` is how notes call it: "'needs'"."""
    exchange: list[Condition] = []
    person: list[Condition] = []
    expressions: list[CelProgram] = []
    if is_null(node):
        # A forgotten value must not read as "always".
        notes.add(node, f"{what} has no conditions; always is written {{}}")
        return Conditions()
    for entry in entries_of(node, what, notes):
        if entry.name == "cel":
            expressions += _parse_expression(entry, notes)
        elif entry.name.startswith(_SUBJECT):
            person += _parse_person(entry, words, notes)
        else:
            exchange += _parse_exchange(entry, words, notes)
    return Conditions(
        tuple(sorted(exchange, key=_sort_key)),
        tuple(sorted(person, key=_sort_key)),
        tuple(sorted(expressions, key=lambda program: program.text)),
    )


def find_outcome(conditions: Conditions, facts: ExchangeFacts) -> bool | None:
    """Return what the conditions on the exchange say together; None where a missing fact decides.

    Raises PolicyExpressionFailed if an expression has no outcome for these facts.
    """
    outcome: bool | None = True
    for condition in conditions.exchange:
        one = _find_one(condition, facts)
        if one is False:
            return False
        outcome = outcome and one
    # All of them, whatever the first one says: which of them fails must not depend on the order of writing.
    told = [_run(expression, facts) for expression in conditions.expressions]
    if False in told:
        return False
    return None if None in told else outcome


def exclude_each_other(a: Iterable[Condition], b: Iterable[Condition]) -> bool:
    """True if it is certain that no exchange meets both: a fact of one value must be one of two disjoint sets."""
    others = list(b)
    for left in a:
        for right in others:
            if left.fact != right.fact or left.fact not in _ONE_VALUED:
                continue
            texts = [*left.values, *right.values]
            if any(isinstance(t, str) and "*" in t for t in texts):
                continue
            one, other = set(left.values), set(right.values)
            if not left.negated and not right.negated and not one & other:
                return True
            if (left.negated and not right.negated and other <= one) or (
                right.negated and not left.negated and one <= other
            ):
                return True
    return False


def grant_atom(condition: Condition) -> plan.Condition:
    """Return the plan's form of what a grant needs of a person (or a guardrail's `unless`): missing is not enough."""
    return plan.Condition(condition.fact, tuple(map(str, condition.values)), condition.negated, if_missing=False)


def guardrail_atom(condition: Condition) -> plan.Condition:
    """Return the plan's form of what a guardrail asks of a person: missing is enough."""
    return plan.Condition(condition.fact, tuple(map(str, condition.values)), condition.negated, if_missing=True)


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


def _find_one(condition: Condition, facts: ExchangeFacts) -> bool | None:
    known = facts.values(condition.fact)
    if not known:
        return None
    return any(_fits(value, fact) for value in condition.values for fact in known) is not condition.negated


def _fits(value: Value, fact: Value) -> bool:
    if isinstance(value, str):
        return isinstance(fact, str) and glob_matches(value, fact)
    # True equals 1 in Python; a claim `1` is not the claim `true`.
    return not isinstance(fact, str) and isinstance(value, bool) == isinstance(fact, bool) and value == fact


def _run(expression: CelProgram, facts: ExchangeFacts) -> bool | None:
    try:
        return expression.holds(facts.for_expressions())
    except CelMissing:
        return None
    except CelFailed as failed:
        raise PolicyExpressionFailed(str(failed)) from None


def _parse_expression(entry: Entry, notes: Notes) -> list[CelProgram]:
    text = text_of(entry.value, "cel", notes)
    if not text:
        return []
    try:
        return [compile_cel(text)]
    except CelError as error:
        # Within a text that YAML folds or escapes a column can't be told.
        plain = isinstance(entry.value, Scalar) and "\n" not in text and "\\" not in text
        offset = error.offset + int(isinstance(entry.value, Scalar) and entry.value.quoted) if error.offset else 0
        notes.add(entry.value, f"cel: {error.message}", offset if plain else 0)
        return []


def _parse_exchange(entry: Entry, words: Vocabulary, notes: Notes) -> list[Condition]:
    name = entry.name.removeprefix(_CALLER)
    is_claim = name.startswith(CLAIM) and len(name) > len(CLAIM) and entry.name == name
    if not is_claim and name not in FACTS:
        notes.add(entry, f"unknown fact {did_you_mean(name, (*FACTS, 'cel'))} (claims are written claim.NAME)")
        return []
    nodes, negated = _values_of(entry, notes)
    values: list[Value] = []
    for node in nodes:
        values += _parse_values(node, name, words, notes)
    if name == "client" and ANONYMOUS in values:
        notes.add(entry.value, "a call without a credential has no client; what everyone may see goes to a who of {}")
    return [Condition(name, tuple(sorted(set(values), key=_order)), negated, _written(nodes))] if values else []


def _parse_person(entry: Entry, words: Vocabulary, notes: Notes) -> list[Condition]:
    name = entry.name.removeprefix(_SUBJECT)
    if words.person is None:
        notes.add(entry, "facts about a person stand in 'needs' of a grant, and in 'when' and 'unless' of a guardrail")
        return []
    if name not in words.person:
        known = [f"{_SUBJECT}{fact}" for fact in words.person]
        notes.add(entry, f"no tag has the fact {did_you_mean(entry.name, known)}")
        return []
    nodes, negated = _values_of(entry, notes)
    values: list[str] = []
    for node in nodes:
        text = text_of(node, f"'{entry.name}'", notes)
        if name == RESIDENCY:
            values += _parse_countries(node, text, words, notes)
        elif "*" in text:
            notes.add(node, "values of facts about a person are written out, without '*'")
        elif text:
            values.append(text)
    if name == RESIDENCY and negated and set(values) >= COUNTRIES:
        notes.add(entry.value, "no country is left")
    return [Condition(name, tuple(sorted(set(values))), negated, _written(nodes))] if values else []


def _values_of(entry: Entry, notes: Notes) -> tuple[tuple[Node, ...], bool]:
    node, negated = entry.value, False
    if isinstance(node, Entries):
        keys = keyed(node, "a condition", notes, known=("not",), required=("not",))
        if "not" not in keys:
            return (), False
        node, negated = keys["not"].value, True
    nodes = one_or_list(node, f"'{entry.name}'", notes)
    if len(nodes) > MAX_VALUES:
        notes.add(node, f"more than {MAX_VALUES:,} values")
        return (), False
    return nodes, negated


def _written(nodes: tuple[Node, ...]) -> tuple[Value, ...]:
    return tuple(n.value for n in nodes if isinstance(n, Scalar) and n.value is not None)


def _sort_key(condition: Condition) -> tuple[str, str, bool]:
    return condition.fact, str(condition.values), condition.negated


def _order(value: Value) -> tuple[str, str]:
    return type(value).__name__, str(value)


def _parse_values(node: Node, name: str, words: Vocabulary, notes: Notes) -> list[Value]:
    if not isinstance(node, Scalar) or node.value is None or node.value == "":
        notes.add(node, "a value must be a text, a number or true/false; any of several is a list")
        return []
    if name.startswith(CLAIM):
        # Only a claim can be a number: `client: 42` means the client named "42".
        return [node.value]
    if name == "country":
        return list(_parse_countries(node, node.text, words, notes))
    if name == "time.hour":
        return list(_parse_hours(node, notes))
    if name == "time.weekday" and node.text not in WEEKDAYS:
        notes.add(node, f"a weekday is one of {', '.join(WEEKDAYS)}, not {did_you_mean(node.text, WEEKDAYS)}")
        return []
    return [node.text]


def _parse_countries(node: Node, text: str, words: Vocabulary, notes: Notes) -> Iterable[str]:
    if text in COUNTRIES:
        return [text]
    if text in words.countries:
        return words.countries[text]
    if text == "*":
        return COUNTRIES
    if text:
        notes.add(node, unknown_country(text, list(words.countries)))
    return []


def _parse_hours(node: Scalar, notes: Notes) -> Iterable[int]:
    if isinstance(node.value, int) and not isinstance(node.value, bool) and 0 <= node.value <= 23:
        return [node.value]
    match = _HOURS.fullmatch(node.text)
    if match and int(match[1]) <= 23 and int(match[2]) <= 23:
        first, last = int(match[1]), int(match[2])
        return [hour % 24 for hour in range(first, last + 1 + 24 * (last < first))]
    notes.add(node, "an hour is a number from 0 to 23 (UTC), or a range like 8-17, of which the last counts too")
    return []
