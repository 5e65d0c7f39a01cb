"""What another version of a policy would change, and for whom: by comparing the plans of both, not their texts.

Both policies are compiled for every class of callers that either tells apart, and the plans are asked at every kind of
place that either finds, for every kind of person on which either depends, within and beyond every budget.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from gharial.model.errors import PolicyInvalid
from gharial.model.place import BodyPath, parse_place
from gharial.model.plan import NONE, Cell, Extra, Mode, Op, Plan, reads_json, reads_xml
from gharial.policy.classes import Applying, CallerClass, Classes, find_classes
from gharial.policy.compile import compile_plan
from gharial.policy.document import Policy
from gharial.policy.incoming import places_demanded, places_opened, places_sent
from gharial.policy.people import BudgetKey, People, find_people, variants_of, window_text, words_of
from gharial.policy.places import UNLISTED_PLACE, Spot, find_cell, find_spots, steps_of, unlisted_step
from gharial.policy.reveal import compile_reveal, limits_of, tags_forbidden
from gharial.policy.samples import describe, facts_text
from gharial.policy.technique import CLEAR, Technique, compare

MAX_CLASSES = 400
"""Classes of callers for which both policies are compiled."""


class Direction(enum.StrEnum):
    """Which way a change goes. `other`: the two techniques can't be ordered, or it is not about openness."""

    MORE_OPEN = "more open"
    STRICTER = "stricter"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `tag` is empty for what no tag names; `place` is as people write it in `find`.

    `whom` and `when` are lines that describe the callers and the people in question; an empty line means all.
    `example` are facts of such a caller; `classes` counts the classes of callers that it concerns.
    """

    direction: Direction
    tag: str
    place: str
    before: str
    after: str
    rule_before: str
    rule_after: str
    whom: tuple[str, ...]
    when: tuple[str, ...]
    example: str = ""
    classes: int = 1


@dataclass(frozen=True, slots=True)
class Difference:
    """All changes, the more open ones first. `left_out` says what was not compared; `tried` counts classes."""

    changes: tuple[Change, ...]
    tried: int
    left_out: tuple[str, ...] = ()

    def of(self, direction: Direction) -> tuple[Change, ...]:
        """The changes of one direction."""
        return tuple(change for change in self.changes if change.direction is direction)


@dataclass(frozen=True, slots=True)
class _Row:
    """What is one change in the eyes of a reader, before it is known for whom."""

    direction: Direction
    tag: str
    place: str
    before: str
    after: str
    rule_before: str
    rule_after: str


@dataclass(slots=True)
class _Found:
    """For whom a row holds: kinds of callers, and how many classes; always for the same kinds of people."""

    members: dict[tuple[int, ...], None] = field(default_factory=dict)
    example: str = ""
    classes: int = 0


_Rows = dict[tuple[_Row, frozenset[tuple[int, ...]]], _Found]
"""By row and by the kinds of people for whom it holds; none means all."""


def diff_policies(old: Policy, new: Policy, max_classes: int = MAX_CLASSES) -> Difference:
    """Return what changes from `old` to `new`. A policy that can't be compiled for a class is left out, and said."""
    found = find_classes([old, new])
    left_out = list(found.left_out)
    changed = _Changed.between(old, new)
    touched = [one for one in found.classes if changed.touches(one.applying)]
    if len(touched) > max_classes:
        left_out.append(f"{len(touched) - max_classes:,} of {len(found.classes):,} classes of callers")
    spots, more_spots = find_spots(old, new)
    left_out += more_spots
    params = tuple(sorted({name for policy in (old, new) for tag in policy.tags.values() for name in tag.params}))
    rows: _Rows = {}
    plans = _Plans((old, new), params)
    compared: list[tuple[CallerClass, Plan, Plan]] = []
    reveals: list[tuple[Plan, Plan]] = []
    refused = 0
    for caller_class in touched[:max_classes]:
        before_refused, after_refused = (applying.refused for applying in caller_class.applying)
        if before_refused or after_refused:
            if before_refused != after_refused:
                _collect(rows, caller_class, [(_refused_row(before_refused), frozenset())])
            continue
        try:
            before, after = plans.get(0, caller_class), plans.get(1, caller_class)
            reveals.append((_reveal_plan(old, before), _reveal_plan(new, after)))
            compared.append((caller_class, before, after))
        except PolicyInvalid:
            refused += 1
    people = find_people([plan for _, *pair in compared for plan in pair], words_of((old, new)))
    for (caller_class, before, after), revealed in zip(compared, reveals, strict=True):
        _collect(rows, caller_class, _compare_plans(before, after, spots, people))
        _collect(rows, caller_class, _compare_reveals(*revealed))
    if refused:
        left_out.append(f"{refused:,} classes of callers for which one of the two can't be compiled")
    whole = [_mode_row(old, new)] if old.mode is not new.mode else []
    whole += _people_rows(old, new)
    changes = [
        *(Change(row.direction, "", row.place, row.before, row.after, "", "", ("",), ("",), "", 0) for row in whole),
        *(_change(row, kinds, of, found, people) for (row, kinds), of in rows.items()),
    ]
    order = [*Direction]
    changes.sort(key=lambda c: (order.index(c.direction), c.tag == "", c.tag, c.place, c.before, c.after, c.whom))
    tried = len(found.classes) - max(0, len(touched) - max_classes)
    return Difference(tuple(changes), tried, tuple(left_out))


@dataclass(frozen=True, slots=True)
class _Changed:
    """What differs between two policies: `rules` by name; `all_` if it is something that every plan rests on."""

    rules: frozenset[str]
    all_: bool

    @classmethod
    def between(cls, old: Policy, new: Policy) -> _Changed:
        one, other = _rules(old), _rules(new)
        names = {name for name in {*one, *other} if one.get(name) != other.get(name)}
        return cls(frozenset(names), _foundations(old) != _foundations(new))

    def touches(self, applying: Sequence[Applying]) -> bool:
        """False if it is certain that both plans of a class are the same."""
        first, second = applying
        return self.all_ or first != second or not self.rules.isdisjoint((*first.grants, *first.guardrails))


def _foundations(policy: Policy) -> tuple[object, ...]:
    """What plans are made of besides rules, wherever it stands in the file."""
    tags = {name: replace(tag, line=0, column=0) for name, tag in policy.tags.items()}
    return tags, policy.unlisted, policy.mode, policy.json_in_strings


def _rules(policy: Policy) -> dict[str, object]:
    """The rules by name, wherever they stand in the file. To whom they apply is told by the classes."""
    found: dict[str, object] = {}
    for grant in policy.grants:
        budgets = tuple(replace(rule, line=0, column=0) for rule in grant.budgets)
        found[grant.name] = replace(grant, line=0, column=0, to=(), purposes=None, show=(), budgets=budgets)
    for guardrail in policy.never:
        found[guardrail.name] = replace(guardrail, line=0, column=0, purposes=None)
    return found


class _Plans:
    """The plans of both policies, each class's made once."""

    def __init__(self, policies: tuple[Policy, Policy], params: tuple[str, ...]) -> None:
        self._policies = policies
        self._params = params
        self._made: dict[tuple[int, object], Plan | PolicyInvalid] = {}

    def get(self, which: int, caller_class: CallerClass) -> Plan:
        applying = caller_class.applying[which]
        made = self._made.get((which, applying))
        if made is None:
            try:
                made = compile_class(self._policies[which], self._params, applying.grants, applying.guardrails)
            except PolicyInvalid as error:
                made = error
            self._made[which, applying] = made
        if isinstance(made, PolicyInvalid):
            raise made
        return made


def compile_class(
    policy: Policy, params: tuple[str, ...], grants: tuple[str, ...], guardrails: tuple[str, ...]
) -> Plan:
    """Compile a policy for one class of callers, on a route that stands for all that have these parameters."""
    return compile_plan(policy, "", params, grants, guardrails)


def _collect(
    rows: _Rows, caller_class: CallerClass, changes: Iterable[tuple[_Row, frozenset[tuple[int, ...]]]]
) -> None:
    for key in dict.fromkeys(changes):
        found = rows.setdefault(key, _Found())
        found.classes += 1
        found.example = found.example or facts_text(caller_class.members[0].facts)
        found.members.update(dict.fromkeys(member.picks for member in caller_class.members))


def _change(row: _Row, kinds: frozenset[tuple[int, ...]], found: _Found, classes: Classes, people: People) -> Change:
    all_ = (member.picks for caller_class in classes.classes for member in caller_class.members)
    whom = describe(classes.axes, found.members, all_)
    when = describe(people.axes, kinds, (kind.picks for kind in people.kinds)) if kinds else [""]
    return Change(
        row.direction, row.tag, row.place, row.before, row.after, row.rule_before, row.rule_after,
        tuple(whom), tuple(when), found.example, found.classes,
    )  # fmt: skip


def _mode_row(old: Policy, new: Policy) -> _Row:
    opens = new.mode is Mode.SHADOW
    return _Row(
        Direction.MORE_OPEN if opens else Direction.STRICTER,
        "", "everything (mode)", f"mode {old.mode}", f"mode {new.mode}", "", "",
    )  # fmt: skip


def _people_rows(old: Policy, new: Policy) -> Iterator[_Row]:
    """Which ids are one person, and how many people there are: budgets, groups and what is watched hang on it."""
    before, after = ({pair for spaces in policy.same for pair in combinations(spaces, 2)} for policy in (old, new))
    crowds = any(grant.min_group for policy in (old, new) for grant in policy.grants)
    for one, other in sorted(before ^ after):
        joins = (one, other) in after
        spaces = f"{one} and {other} (same_as)"
        texts = ("each id counts as a person", "ids of both in one record count as one person")
        direction = Direction.MORE_OPEN if joins else Direction.STRICTER
        yield _Row(direction, "", f"people of {spaces}", *(texts if joins else texts[::-1]), "", "")
        if crowds:
            # A budget reaches further where fewer are counted, but a group of people is smaller.
            texts = ("each id makes a group larger", "ids of both in one record are one in a group")
            direction = Direction.STRICTER if joins else Direction.MORE_OPEN
            yield _Row(direction, "", f"groups of {spaces}", *(texts if joins else texts[::-1]), "", "")
    for space in sorted({*old.populations, *new.populations}):
        said = [policy.populations.get(space, 0) for policy in (old, new)]
        if said[0] != said[1]:
            one, other = (f"{people:,}" if people else "not said" for people in said)
            yield _Row(Direction.OTHER, "", f"population of {space}", one, other, "", "")


def _refused_row(before: bool) -> _Row:
    texts = ("calls are refused, for an expression fails", "calls are answered")
    direction = Direction.MORE_OPEN if before else Direction.STRICTER
    one, other = texts if before else texts[::-1]
    return _Row(direction, "", "everything (cel)", one, other, "", "")


# --- two plans --------------------------------------------------------------------------------------------------


_Changes = Iterator[tuple[_Row, frozenset[tuple[int, ...]]]]
_EVERYBODY = frozenset[tuple[int, ...]]()
# An answer in a format in which a policy has no place is refused as a whole.
_UNREAD = (Technique(Op.DROP), "no place in this format")


def _compare_plans(old: Plan, new: Plan, spots: Sequence[Spot], people: People) -> _Changes:
    """Yield what differs, and for which kinds of people; none means for all of them."""
    kinds: dict[tuple[int, int], set[tuple[int, ...]]] = {}
    for person, one, other in zip(people.kinds, variants_of(old, people), variants_of(new, people), strict=True):
        kinds.setdefault((one, other), set()).add(person.picks)
    told: set[tuple[str, str, str]] = set()
    for spot in spots:
        cells = find_cell(old, spot.steps, xml=spot.xml), find_cell(new, spot.steps, xml=spot.xml)
        reads = reads_xml if spot.xml else reads_json
        for row, whom in _compare_cells((old, new), cells, kinds, spot.place, reads):
            told.add((row.tag, row.before, row.after))
            yield row, whom
    if reads_xml(old) != reads_xml(new):
        yield from _compare_cells((old, new), (None, None), kinds, f"{UNLISTED_PLACE}, in XML", reads_xml)
    params = {param.place: old.cells[param.cell] for param in old.params if param.cell != NONE}
    for param in new.params:
        if param.place in params and param.cell != NONE:
            cells = params[param.place], new.cells[param.cell]
            found = _compare_cells((old, new), cells, kinds, param.place)
            # What is shown of a parameter is the tag's; it is news only where the body does not tell it already.
            yield from ((row, whom) for row, whom in found if (row.tag, row.before, row.after) not in told)
    yield from _compare_extras(old, new, kinds)
    yield from _compare_budgets(old, new)
    yield from _compare_rest(old, new)


def _compare_cells(
    plans: tuple[Plan, Plan],
    cells: tuple[Cell | None, Cell | None],
    kinds: Mapping[tuple[int, int], set[tuple[int, ...]]],
    place: str,
    reads: Callable[[Plan], bool] = lambda _: True,
) -> _Changes:
    """Compare what is shown at a place of two plans; of one for which `reads` is false no such body leaves."""
    rows: dict[_Row, set[tuple[int, ...]]] = {}
    for variants, people in kinds.items():
        shown = [
            _shown(plan, cell, v) if reads(plan) else _UNREAD
            for plan, cell, v in zip(plans, cells, variants, strict=True)
        ]
        (before, rule_before), (after, rule_after) = shown
        if before == after:
            continue
        tag = " -> ".join(dict.fromkeys(cell.tag for cell in cells if cell is not None))
        row = _Row(_direction(before, after), tag, place, str(before), str(after), rule_before, rule_after)
        rows.setdefault(row, set()).update(people)
    everybody = sum(map(len, kinds.values()))
    for row, found in rows.items():
        yield row, _EVERYBODY if len(found) == everybody else frozenset(found)


def _shown(plan: Plan, cell: Cell | None, variant: int) -> tuple[Technique, str]:
    if cell is None:
        return unlisted_step(plan), "unlisted"
    step = plan.steps[cell.steps[variant]]
    return Technique(step.op, tuple(pair for pair in step.args if pair[0] != "type")), step.rule


def _direction(before: Technique, after: Technique) -> Direction:
    match compare(before, after):
        case None:
            return Direction.OTHER
        case order:
            return Direction.STRICTER if order < 0 else Direction.MORE_OPEN


def _compare_extras(old: Plan, new: Plan, kinds: Mapping[tuple[int, int], set[tuple[int, ...]]]) -> _Changes:
    """Places that only the reference executor finds, matched by what they look for."""
    sides = ({_extra_key(e): e for e in old.extras}, {_extra_key(e): e for e in new.extras})
    for key in sorted({*sides[0], *sides[1]}):
        cells = _cell_of(old, sides[0].get(key), sides[1].get(key)), _cell_of(new, sides[1].get(key), sides[0].get(key))
        yield from _compare_cells((old, new), cells, kinds, key)


def _cell_of(plan: Plan, own: Extra | None, others: Extra | None) -> Cell | None:
    """The cell of an extra or, in a plan that has it not, of the place to which its path leads there."""
    if own is not None:
        return plan.cells[own.cell]
    if others is None or others.general or not others.path:
        return None
    place = parse_place(others.path)
    return find_cell(plan, steps_of(place)) if isinstance(place, BodyPath) else None


def _extra_key(extra: Extra) -> str:
    if extra.detector:
        return f"every value that looks like {extra.detector}"
    where = "".join(f" where {member} is {' or '.join(texts)}" for member, texts in extra.where)
    return extra.path + (" (names of members)" if extra.keys else "") + where


def _compare_budgets(old: Plan, new: Plan) -> _Changes:
    before, after = _limits(old), _limits(new)
    for key in sorted({*before, *after}):
        one, other = before.get(key), after.get(key)
        if one == other or one is None or other is None:
            # A budget that comes or goes shows in what holds beyond it.
            continue
        direction = Direction.MORE_OPEN if other > one else Direction.STRICTER
        rule = f"grant:{key[0]}"
        place = f"budget of {key[0]}"
        yield _Row(direction, "", place, _rate(one, key[1]), _rate(other, key[1]), rule, rule), _EVERYBODY


def _limits(plan: Plan) -> Mapping[BudgetKey, int]:
    return {(budget.grant, budget.window_s): budget.people for budget in plan.budgets}


def _rate(people: int, window_s: int) -> str:
    return f"{people} people in {window_text(window_s)}"


def _reveal_plan(policy: Policy, plan: Plan) -> Plan:
    return compile_reveal(policy, plan.grants, tags_forbidden(policy, plan.guardrails))


def _compare_reveals(old: Plan, new: Plan) -> _Changes:
    """What the reveal API gives to these callers."""
    for tag in sorted({cell.tag for plan in (old, new) for cell in plan.cells}):
        one, other = limits_of(old, tag), limits_of(new, tag)
        if one == other:
            continue
        opens, closes = _gives_more(other, one), _gives_more(one, other)
        direction = Direction.OTHER
        if opens is not closes:
            direction = Direction.MORE_OPEN if opens else Direction.STRICTER
        yield _Row(direction, tag, "reveal API", _revealed(one), _revealed(other), "", ""), _EVERYBODY


_Limits = Mapping[BudgetKey, int] | None


def _gives_more(one: _Limits, other: _Limits) -> bool:
    """True if `one` may give a value that `other` does not, as far as limits of the same grants can be compared."""
    if one is None or other is None:
        return other is None
    return any(key not in one or one[key] > limit for key, limit in other.items())


def _revealed(limits: _Limits) -> str:
    if limits is None:
        return "not revealed"
    told = (f"{values} values in {window_text(key[1])}" for key, values in sorted(limits.items()))
    return "revealed" + (f" ({', '.join(told)})" if limits else "")


def _compare_sent(old: Mapping[tuple[str, str], Technique], new: Mapping[tuple[str, str], Technique]) -> _Changes:
    """Compare how values are sent to the API; what no tag protects there is sent as it came."""
    for place, tag in sorted({*old} | {*new}):
        before, after = old.get((place, tag), CLEAR), new.get((place, tag), CLEAR)
        if before == after:
            continue
        order = compare(before, after)
        direction = Direction.OTHER
        if order is not None:
            direction = Direction.STRICTER if order < 0 else Direction.MORE_OPEN
        texts = f"sent to the API: {before}", f"sent to the API: {after}"
        yield _Row(direction, tag, place, *texts, "", ""), _EVERYBODY


def _compare_rest(old: Plan, new: Plan) -> _Changes:
    opened = places_opened(old), places_opened(new)
    for place, tag in sorted(opened[0] ^ opened[1]):
        before_too = (place, tag) in opened[0]
        direction = Direction.STRICTER if before_too else Direction.MORE_OPEN
        texts = ("tokens reach the upstream as real values", "tokens are not accepted")
        before, after = texts if before_too else texts[::-1]
        yield _Row(direction, tag, place, before, after, "", ""), _EVERYBODY
    demanded = places_demanded(old), places_demanded(new)
    for place, tag in sorted(demanded[0] ^ demanded[1]):
        texts = ("plain values and tokens are accepted", "only tokens are accepted")
        closed = (place, tag) in demanded[1]
        direction = Direction.STRICTER if closed else Direction.MORE_OPEN
        before, after = texts if closed else texts[::-1]
        yield _Row(direction, tag, place, before, after, "", ""), _EVERYBODY
    yield from _compare_sent(places_sent(old), places_sent(new))
    for name in sorted({*old.probes} ^ {*new.probes}):
        texts = ("may not filter or sort by it", "may filter and sort by it")
        closed = name in new.probes
        direction = Direction.STRICTER if closed else Direction.MORE_OPEN
        before, after = texts[::-1] if closed else texts
        yield _Row(direction, "", f"query field {name}", before, after, "", ""), _EVERYBODY
    if old.json_in_strings != new.json_in_strings:
        before, after = (f"{plan.json_in_strings} levels of JSON in strings are opened" for plan in (old, new))
        yield _Row(Direction.OTHER, "", "JSON in strings", before, after, "", ""), _EVERYBODY
    if old.redaction != new.redaction:
        yield _Row(Direction.OTHER, "", "redaction texts", "as before", "other texts", "", ""), _EVERYBODY
