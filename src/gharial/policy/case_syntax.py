"""`tests`: what a policy promises about single answers, read and checked; `cases` runs them.

A case says who asks, for what, from where and about whom, gives a body, and says what has to become of its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gharial.model.place import BodyPath, PlaceError, Select, parse_place
from gharial.model.plan import Op
from gharial.model.yaml_text import Entries, Entry, Items, Node, Scalar, quote, to_plain
from gharial.policy.countries import COUNTRIES
from gharial.policy.facts import CLAIM, WEEKDAYS, Value
from gharial.policy.reading import Notes, choice_of, entries_of, is_null, items_of, keyed, one_or_list, text_of
from gharial.policy.suggest import did_you_mean
from gharial.policy.technique import Args
from gharial.policy.technique_syntax import TechniqueError, parse_technique

MAX_CASES = 2_000
"""Tests of one policy."""
CASE_KEYS = ("as", "for", "in", "network", "hour", "weekday", "subject", "give", "want")
"""The keys of one test."""
_FACTS = ("client", "team", "role", "user")

OUTCOMES: Mapping[str, Op] = {str(op): op for op in Op} | {
    "masked": Op.MASK,
    "redacted": Op.REDACT,
    "dropped": Op.DROP,
    "encrypted": Op.ENCRYPT,
    "pseudonymised": Op.PSEUDONYM,
    "rounded": Op.ROUND,
    "shifted": Op.DATE_SHIFT,
    "substituted": Op.SUBSTITUTE,
    "truncated": Op.TRUNCATE,
}
"""The words that may stand for a value in `want`, without quotes."""

Leaf = Value | None


@dataclass(frozen=True, slots=True)
class Want:
    """What has to become of the value at `path` (names and indexes from the body's root).

    With `op`, how it must be shown, whatever comes out (`args` None: with any parameters); else `literal` is exactly
    what must stand there.
    """

    path: tuple[str | int, ...]
    op: Op | None
    args: Args | None
    literal: Leaf
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """One test. `as_who` is a name of `who`; where it is empty, `as_facts` are the caller's facts, (name, values).

    Facts are named as in `who` (`client`, `role`, `claim.amr`). `purpose`, `country`, `network` and `weekday` are
    empty, `hour` is None, where the case says nothing of them. `subject` are the facts of the person whose record
    `give` is, (name, values), e.g. `("residency", ("US",))`. `give` is the body, as JSON would read it.
    """

    as_who: str
    as_facts: tuple[tuple[str, tuple[Value, ...]], ...]
    purpose: str
    country: str
    network: str
    hour: int | None
    weekday: str
    subject: tuple[tuple[str, tuple[str, ...]], ...]
    give: object
    want: tuple[Want, ...]
    line: int
    column: int


def parse_cases(node: Node, who: frozenset[str], person_facts: frozenset[str], notes: Notes) -> tuple[PolicyCase, ...]:
    """Read the list under `tests`, in its order. `person_facts` are the names that may stand under `subject`."""
    if isinstance(node, Items) and not node.items:
        return ()
    items = items_of(node, "tests", notes)
    if len(items) > MAX_CASES:
        notes.add(items[MAX_CASES], f"more than {MAX_CASES:,} tests")
        return ()
    return tuple(case for item in items if (case := _parse_case(item, who, person_facts, notes)) is not None)


def _parse_case(node: Node, who: frozenset[str], person_facts: frozenset[str], notes: Notes) -> PolicyCase | None:
    keys = keyed(node, "a test", notes, known=CASE_KEYS, required=("as", "give", "want"))
    if not {"as", "give", "want"} <= keys.keys():
        return None
    as_who, as_facts = _parse_as(keys["as"].value, who, notes)
    give = keys["give"].value
    if not isinstance(give, (Entries, Items)):
        notes.add(give, "give is a body: an object { name: value } or a list")
    return PolicyCase(
        as_who=as_who,
        as_facts=as_facts,
        purpose=text_of(keys["for"].value, "for", notes) if "for" in keys else "",
        country=_parse_country(keys["in"].value, notes) if "in" in keys else "",
        network=text_of(keys["network"].value, "network", notes) if "network" in keys else "",
        hour=_parse_hour(keys["hour"].value, notes) if "hour" in keys else None,
        weekday=choice_of(keys["weekday"].value, "weekday", WEEKDAYS, notes) if "weekday" in keys else "",
        subject=_parse_subject(keys["subject"].value, person_facts, notes) if "subject" in keys else (),
        give=to_plain(give),
        want=_parse_want(keys["want"], give, notes),
        line=node.line,
        column=node.column,
    )


def _parse_as(node: Node, who: frozenset[str], notes: Notes) -> tuple[str, tuple[tuple[str, tuple[Value, ...]], ...]]:
    if not isinstance(node, Entries):
        name = text_of(node, "as", notes)
        if name and name not in who:
            notes.add(node, f"unknown who {did_you_mean(name, who)} (or write the caller's facts: {{ role: care }})")
        return name, ()
    facts: list[tuple[str, tuple[Value, ...]]] = []
    for entry in node.entries:
        is_claim = entry.name.startswith(CLAIM) and len(entry.name) > len(CLAIM)
        if not is_claim and entry.name not in _FACTS:
            notes.add(entry, f"unknown fact {did_you_mean(entry.name, _FACTS)} (claims are written claim.NAME)")
            continue
        many = is_claim or entry.name == "role"
        nodes = one_or_list(entry.value, f"'{entry.name}'", notes) if many else (entry.value,)
        values = tuple(value for item in nodes if (value := _fact_value(item, is_claim, entry.name, notes)) is not None)
        facts.append((entry.name, values))
    return "", tuple(sorted(facts, key=lambda fact: fact[0]))


def _fact_value(node: Node, is_claim: bool, name: str, notes: Notes) -> Value | None:
    if is_claim and isinstance(node, Scalar) and node.value is not None and node.value != "":
        return node.value
    return text_of(node, f"'{name}'", notes) or None


def _parse_country(node: Node, notes: Notes) -> str:
    code = text_of(node, "in", notes)
    if code and code not in COUNTRIES:
        notes.add(node, f"unknown country {did_you_mean(code, COUNTRIES)} (two letters, ISO 3166-1)")
    return code


def _parse_hour(node: Node, notes: Notes) -> int | None:
    value = node.value if isinstance(node, Scalar) else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 23:
        return value
    notes.add(node, "hour is a whole number from 0 to 23 (UTC)")
    return None


def _parse_subject(node: Node, person_facts: frozenset[str], notes: Notes) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found: list[tuple[str, tuple[str, ...]]] = []
    for entry in entries_of(node, "subject", notes):
        if entry.name not in person_facts:
            notes.add(entry, f"no tag has the fact {did_you_mean(entry.name, person_facts)}")
            continue
        nodes = one_or_list(entry.value, f"'{entry.name}'", notes)
        values = [text for item in nodes if (text := text_of(item, f"'{entry.name}'", notes))]
        found.append((entry.name, tuple(values)))
    return tuple(sorted(found))


def _parse_want(entry: Entry, give: Node, notes: Notes) -> tuple[Want, ...]:
    found: list[Want] = []
    if not isinstance(entry.value, (Entries, Items)) or not _size(entry.value):
        notes.add(entry.value, "want says what becomes of values of 'give': { name: redacted }")
        return ()
    # Without recursion over paths of the author's: the tree is at most as deep as YAML is read.
    waiting: list[tuple[tuple[str | int, ...], Node, Node]] = [((), entry.value, give)]
    while waiting:
        path, want, given = waiting.pop()
        if isinstance(want, Entries) and isinstance(given, Entries | Items):
            for key in want.entries:
                below = _find_given(key, given, notes)
                if below is not None:
                    waiting.append(((*path, *below[0]), key.value, below[1]))
        elif isinstance(want, Items) and isinstance(given, Items):
            if len(want.items) != len(given.items):
                notes.add(want, f"this list has {len(want.items)} elements, the one in 'give' {len(given.items)}")
            pairs = zip(want.items, given.items, strict=False)
            waiting += [((*path, index), one, other) for index, (one, other) in enumerate(pairs)]
        elif isinstance(want, Scalar):
            found.append(_parse_outcome(path, want, notes))
        else:
            notes.add(want, "'give' has something of another shape here")
    return tuple(sorted(found, key=lambda w: (w.line, w.column)))


def _size(node: Entries | Items) -> int:
    return len(node.entries) if isinstance(node, Entries) else len(node.items)


def _find_given(key: Entry, given: Entries | Items, notes: Notes) -> tuple[tuple[str | int, ...], Node] | None:
    """What stands in `give` under a name, or under a path `$.a[0].b` that leads to one single value."""
    same = given.find(key.name) if isinstance(given, Entries) else None
    if same is not None:
        return (key.name,), same.value
    if not key.name.startswith("$"):
        notes.add(key, _not_given(key.name, given))
        return None
    path: list[str | int] = []
    node: Node | None = given
    try:
        place = parse_place(key.name)
    except PlaceError as error:
        notes.add(key, str(error), error.offset)
        return None
    for segment in place.segments if isinstance(place, BodyPath) else ():
        if segment.deep or segment.select is Select.ANY:
            notes.add(key, "a path in 'want' leads to one value: no '..' and no '*'")
            return None
        path.append(segment.name if segment.select is Select.NAME else segment.index)
        node = _child(node, path[-1])
        if node is None:
            notes.add(key, f"'give' has nothing at {quote(key.name)}")
            return None
    return (tuple(path), node) if node is not None else None


def _not_given(name: str, given: Entries | Items) -> str:
    if isinstance(given, Items):
        return f"'give' has a list here: write what is wanted as a list too, or by a path like '$[0].{name}'"
    if name.partition(".")[0].partition("[")[0] in {entry.name for entry in given.entries}:
        return f"'give' has no {quote(name)}; a path begins with '$': '$.{name}'"
    return f"'give' has no {did_you_mean(name, [entry.name for entry in given.entries])}"


def _child(node: Node | None, step: str | int) -> Node | None:
    if isinstance(node, Entries) and isinstance(step, str):
        entry = node.find(step)
        return entry.value if entry else None
    if isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
        return node.items[step]
    return None


def _parse_outcome(path: tuple[str | int, ...], node: Scalar, notes: Notes) -> Want:
    if not node.quoted and is_null(node) and node.text:
        return Want(path, Op.NULL, None, None, node.line, node.column)
    if not node.quoted and isinstance(node.value, str):
        if node.text in OUTCOMES:
            return Want(path, OUTCOMES[node.text], None, None, node.line, node.column)
        if node.text.partition("(")[0] in OUTCOMES and node.text.endswith(")"):
            try:
                technique = parse_technique(node.text)
            except TechniqueError as error:
                notes.add(node, str(error))
            else:
                return Want(path, technique.op, technique.args, None, node.line, node.column)
    if is_null(node):
        notes.add(node, "a value is missing here: a word like redacted, or what must stand there")
    return Want(path, None, None, node.value, node.line, node.column)
