"""A policy's `tests`, made ready to run and judged: the caller, the body, and whether what came is what was wanted.

Running one needs readers and keys, which other rooms have; `wiring.policy_tools` puts the two together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from gharial.model.errors import PolicyExpressionFailed
from gharial.model.place import BodyPath, Segment, Select, fold_name
from gharial.model.plan import Op, Redaction, Step
from gharial.policy.automaton import Automaton
from gharial.policy.case_syntax import PolicyCase, Want
from gharial.policy.classes import country_groups, facts_of_expression, questions_of
from gharial.policy.conditions import CONSENT
from gharial.policy.document import Policy
from gharial.policy.facts import ExchangeFacts, Value
from gharial.policy.samples import HOUR, WEEKDAY, Facts, Question, caller_of, combine, make_axis
from gharial.policy.technique import Technique
from gharial.policy.technique_syntax import TechniqueError
from gharial.policy.who import Who, holds

MAX_TRIES = 20_000
"""Combinations of facts that are tried to find a caller for the name of a who."""
PERSON = "person-of-the-test"
"""Whose record a test's body is, where the body names nobody."""
_NEUTRAL = {"client": "client-of-the-test", "team": "team-of-the-test"}

Path = tuple[str | int, ...]


class CaseProblem(Exception):
    """A test can't be run; the message says why and what to write instead."""


@dataclass(frozen=True, slots=True)
class CaseBody:
    """What a test sends through a plan. `moved` maps members of `give` to where they stand in `document`.

    `people` are (id space, text) pairs of the persons that the body itself does not name.
    """

    document: object
    moved: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    people: tuple[tuple[str, str], ...] = ()

    def find_place(self, path: Path) -> Path:
        """Return where the value that is at `path` in `give` stands in `document`."""
        if path and isinstance(path[0], str) and path[0] in self.moved:
            return (*self.moved[path[0]], *path[1:])
        return path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one wanted value. `rule` is what decided; `given`, `wanted`, `came` are texts for people."""

    want: Want
    place: str
    given: str
    wanted: str
    came: str
    technique: str
    rule: str
    passed: bool


class _Absent:
    """Nothing stands there."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT = _Absent()


# --- who asks ---------------------------------------------------------------------------------------------------


def facts_of_case(policy: Policy, case: PolicyCase) -> Facts:
    """Return the facts of the caller of a test. Raises CaseProblem where nobody can be what it says."""
    given = dict(given_facts(case))
    if not case.as_who:
        return _with_neutral(policy, given)
    return _with_neutral(policy, facts_of_who(policy, policy.who[case.as_who], given))


def given_facts(case: PolicyCase) -> Facts:
    """Return the facts that a test states itself."""
    facts: dict[str, tuple[Value, ...]] = {name: values for name, values in case.as_facts if values}
    stated: dict[str, Value | None] = {
        "purpose": case.purpose, "country": case.country, "network": case.network, HOUR: case.hour,
        WEEKDAY: case.weekday,
    }  # fmt: skip
    facts.update({name: (value,) for name, value in stated.items() if value is not None and value != ""})
    return MappingProxyType(facts)


def facts_of_who(policy: Policy, who: Who, given: Facts) -> Facts:
    """Return the plainest facts, `given` among them, of a caller that is `who`. Raises CaseProblem."""
    questions: dict[str, list[Question]] = {}
    for question in questions_of(policy):
        questions.setdefault(question.fact, []).append(question)
    asked = set(facts_asked(who))
    countries = country_groups([policy])
    axes = [make_axis(fact, questions[fact], countries) for fact in sorted(questions) if fact in asked - given.keys()]
    found: list[tuple[int, Facts]] = []
    for combination in combine(axes, MAX_TRIES)[0]:
        facts = {**combination.facts, **given}
        if holds(who, ExchangeFacts(*caller_of(facts))):
            # Of samples of one weight, the one that meets the fewest other questions: no more than the name says.
            weight = sum(axis.samples[pick].weight for axis, pick in zip(axes, combination.picks, strict=True))
            met = sum(question.ask(facts) for asked_of in questions.values() for question in asked_of)
            found.append((weight * 10_000 + met, MappingProxyType(facts)))
            if weight > min(found, key=lambda f: f[0])[0] // 10_000:
                break
    if not found:
        what = f"no caller could be made up that is '{who.name}' together with what the test says"
        raise CaseProblem(f"{what}; write the caller's facts, as: {{ role: … }}")
    return min(found, key=lambda f: f[0])[1]


def facts_asked(who: Who) -> tuple[str, ...]:
    """Return the names of the facts that a who asks for."""
    told = {fact for expression in who.expressions for fact in facts_of_expression(expression)}
    return tuple(sorted(told | {condition.fact for condition in who.conditions}))


def _is(who: Who, facts: Facts) -> bool:
    try:
        return holds(who, ExchangeFacts(*caller_of(facts)))
    except PolicyExpressionFailed:
        return False


def _with_neutral(policy: Policy, facts: Facts) -> Facts:
    """Add a client and a team where no rule could see them: tokens need somebody they are made for."""
    seen = {question.fact for question in questions_of(policy)}
    added = {name: (value,) for name, value in _NEUTRAL.items() if name not in facts and name not in seen}
    return MappingProxyType({**facts, **added})


# --- the body ---------------------------------------------------------------------------------------------------


def body_of_case(policy: Policy, case: PolicyCase) -> CaseBody:
    """Return the body of a test.

    `give` is the body itself. Where it is an object, a member that no tag finds at the root, but one would find
    elsewhere (`$.customers[*].email`), is put there; and the facts of the person are put where their tags find them.
    Raises CaseProblem.
    """
    if not isinstance(case.give, dict):
        if any(fact != CONSENT for fact, _ in case.subject):
            raise CaseProblem("'give' is a list: write the facts of its people into it, not under 'subject'")
        return CaseBody(case.give, people=_people(policy, case.give))
    placed: dict[str, Path] = {}
    prefixes = {name: _prefix(policy, name) for name in case.give}
    home = next((prefix for prefix in prefixes.values() if prefix), ())
    for name, prefix in prefixes.items():
        placed[name] = (*home, name) if prefix is None or prefix == home else (*prefix, name)
    values: list[tuple[Path, object]] = [(placed[name], value) for name, value in case.give.items()]
    present = {fold_name(str(path[-1])) for path in placed.values()}
    for fact, texts in case.subject:
        if fact == CONSENT:
            continue
        values.append(_place_fact(policy, fact, texts, home, present))
    document: dict[str, object] = {}
    for path, value in values:
        _put(document, path, value)
    return CaseBody(document, MappingProxyType(placed), _people(policy, document))


def _place_fact(policy: Policy, fact: str, texts: Sequence[str], home: Path, present: set[str]) -> tuple[Path, object]:
    paths = [path for tag in policy.tags.values() if tag.fact == fact for path in tag.body_paths]
    for path in paths:
        last = path.segments[-1] if path.segments else None
        if last is None or last.select is not Select.NAME or fold_name(last.name) in present:
            continue
        value: object = texts[0] if len(texts) == 1 else list(texts)
        prefix = _concrete(path.segments[:-1]) if not last.deep else None
        return ((*home, last.name) if prefix is None else (*prefix, last.name)), value
    if paths:
        raise CaseProblem(f"'give' holds a value for the fact '{fact}' already; leave it out there or under 'subject'")
    raise CaseProblem(f"no tag with a body path tells the fact '{fact}'")


def _prefix(policy: Policy, name: str) -> Path | None:
    """Return where a member of this name has to stand to be found; None if it is found anywhere, or nowhere."""
    finds = [(tag.name, path) for tag in policy.tags.values() for path in tag.body_paths]
    moves = Automaton.of(finds).start()
    at_root = Automaton.of(finds).moves(moves.positions)
    if at_root.names.get(fold_name(name), at_root.other_name).found:
        return None
    for _, path in finds:
        last = path.segments[-1] if path.segments else None
        if last is not None and last.select is Select.NAME and fold_name(last.name) == fold_name(name):
            prefix = _concrete(path.segments[:-1])
            if prefix and not last.deep:
                return prefix
    return None


def _concrete(segments: Sequence[Segment]) -> Path:
    """One place that a path leads to: `*` is the first element of a list, and `..` skips nothing."""
    steps: list[str | int] = []
    for segment in segments:
        if segment.select is Select.NAME:
            steps.append(segment.name)
        else:
            steps.append(segment.index if segment.select is Select.INDEX else 0)
    return tuple(steps)


def _put(document: dict[str, object], path: Path, value: object) -> None:
    here: object = document
    for step, following in zip(path, (*path[1:], None), strict=True):
        fresh: object = value if following is None else ([] if isinstance(following, int) else {})
        if isinstance(here, dict) and isinstance(step, str):
            here = here.setdefault(step, fresh)
        elif isinstance(here, list) and isinstance(step, int) and step <= _MAX_INDEX:
            here.extend({} for _ in range(step + 1 - len(here)))
            if here[step] == {} or following is None:
                here[step] = fresh
            here = here[step]
        else:
            raise CaseProblem(f"no body could be built with {path_text(path)} in it; write the whole body in 'give'")


_MAX_INDEX = 1_000


def _people(policy: Policy, document: object) -> tuple[tuple[str, str], ...]:
    """A person for the body, where no value of it names one."""
    spaces = sorted({tag.subject for tag in policy.tags.values() if tag.subject})
    return ((spaces[0], PERSON),) if spaces and document is not None else ()


# --- what came --------------------------------------------------------------------------------------------------


def find_value(document: object, path: Path) -> object:
    """Return what stands at a path, or ABSENT."""
    here = document
    for step in path:
        inside = step in here if isinstance(here, dict) else isinstance(here, list) and step in range(len(here))
        if not inside:
            return ABSENT
        here = here[step]  # type: ignore[index]
    return here


def judge(
    want: Want, place: Path, given: object, came: object, step: Step | None, unlisted: Op, redaction: Redaction
) -> Outcome:
    """Compare what came with what was wanted. `step` is what the plan did there; None: no tag names the place."""
    technique = Technique(step.op, tuple(a for a in step.args if a[0] != "type")) if step else Technique(unlisted)
    passed = _equal(want.literal, came) if want.op is None else _is_shown(want, technique, given, came, redaction)
    return Outcome(
        want=want,
        place=path_text(place),
        given=value_text(given),
        wanted=_wanted_text(want),
        came=value_text(came),
        technique=str(technique),
        rule=step.rule if step else "unlisted",
        passed=passed,
    )


def _is_shown(want: Want, technique: Technique, given: object, came: object, redaction: Redaction) -> bool:
    """True if the technique is the wanted one, and the value looks it: two witnesses."""
    if technique.op is not want.op or (want.args is not None and want.args != technique.args):
        return False
    match want.op:
        case Op.CLEAR:
            return _equal(given, came)
        case Op.DROP:
            return came is ABSENT
        case Op.NULL:
            return came is None or given is None
        case Op.REDACT:
            return came is not ABSENT and (not _equal(given, came) or came in (*_redacted(redaction), None))
        case Op.TOKEN:
            return given is None or not isinstance(came, str) or (came.startswith("tok_") and came != given)
        case Op.MASK | Op.MONTH | Op.YEAR | Op.BAND | Op.BUCKET | Op.ROUND:
            # The first of January is its own year, and a multiple its own rounding.
            return came is not ABSENT
        case Op.ENCRYPT | Op.PSEUDONYM:
            prefix = {Op.ENCRYPT: "enc_", Op.PSEUDONYM: "psn_"}[want.op]
            return given is None or not isinstance(came, str) or came.startswith(prefix)
        case _:
            return came is not ABSENT and (given is None or not _equal(given, came))


def _redacted(redaction: Redaction) -> tuple[object, ...]:
    return redaction.string, json.loads(redaction.number), json.loads(redaction.boolean)


def _equal(one: object, other: object) -> bool:
    """Equality of JSON values: `true` is not 1, but 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def _wanted_text(want: Want) -> str:
    if want.op is None:
        return value_text(want.literal)
    try:
        return str(Technique(want.op, want.args or ()))
    except (TechniqueError, KeyError):
        return str(want.op)


def value_text(value: object) -> str:
    """Return a JSON value as text, short enough for a line."""
    if value is ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"


_MAX_TEXT = 120


def path_text(path: Sequence[str | int]) -> str:
    """Return a path as JSONPath."""
    segments = (
        Segment(Select.NAME, name=step) if isinstance(step, str) else Segment(Select.INDEX, index=step) for step in path
    )
    return str(BodyPath(tuple(segments)))
