"""What the trie of a plan can't express: the plan's extras, the order of its steps, and why it is slow.

Extras meet cells only when a body is read; the step of the highest rank holds then. Two that name the very same place
are known beforehand, and where it can't be told which is stricter the author is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from gharial.model.errors import PolicyInvalid
from gharial.model.place import BodyPath, GeneralPath, Segment, fold_name
from gharial.model.plan import Extra, Step, Unlisted
from gharial.policy.document import Policy
from gharial.policy.layout import Layout, overlap_problem, overlap_text
from gharial.policy.tags import Tag, Where
from gharial.policy.technique import Technique, compare, strictness


def extras_of(tags: Mapping[str, Tag], layout: Layout, unlisted: Unlisted) -> tuple[Extra, ...]:
    """Return the extras of these tags, in an order that does not depend on the order of writing."""
    found: list[Extra] = []
    for name, tag in sorted(tags.items()):
        if not has_extras(tag, unlisted):
            continue
        cell = layout.cell(layout.combine(frozenset([name])))
        for path in tag.extra_paths:
            general = isinstance(path, GeneralPath)
            found.append(Extra(cell, place_text(path), general, tag.where, tag.keys))
        if tag.detect and detectors_matter(unlisted):
            found.append(Extra(cell, detector=tag.detect))
    return tuple(found)


def has_extras(tag: Tag, unlisted: Unlisted) -> bool:
    """True if only the reference executor finds all values of a tag."""
    return bool(tag.extra_paths) or bool(tag.detect and detectors_matter(unlisted))


def detectors_matter(unlisted: Unlisted) -> bool:
    """True if a value that no path finds may leave at all: else it is dropped or redacted, whatever it looks like."""
    return unlisted not in (Unlisted.DROP, Unlisted.REDACT)


def find_same_places(tags: Iterable[Tag]) -> set[tuple[str, str]]:
    """Return pairs of tags, in the order of their names, that literally name one place, one of them by an extra."""
    users: dict[tuple[str, bool], list[tuple[Tag, bool]]] = {}
    for tag in tags:
        for path in tag.extra_paths:
            users.setdefault((place_text(path), tag.keys), []).append((tag, True))
        for path in tag.body_paths:
            users.setdefault((place_text(path), False), []).append((tag, False))
    pairs: set[tuple[str, str]] = set()
    for found in users.values():
        if not any(extra for _, extra in found):
            continue
        for (one, one_extra), (other, other_extra) in combinations(found, 2):
            if (one_extra or other_extra) and one is not other and _may_both(one.where, other.where):
                pairs.add((min(one.name, other.name), max(one.name, other.name)))
    return pairs


def check_same_places(policy: Policy, tags: Iterable[Tag], layout: Layout) -> None:
    """Raise PolicyInvalid where two tags name one place, one of them by an extra, and can't be ordered."""
    here = [tag for tag in tags if tag.extra_paths or tag.body_paths]
    shown = {verdict.technique for tag in here for verdict in layout.tag_fates[tag.name]}
    if all(compare(one, other) is not None for one, other in combinations(shown, 2)):
        return
    problems = []
    for first, second in sorted(find_same_places(here)):
        for one, other in zip(layout.tag_fates[first], layout.tag_fates[second], strict=True):
            if compare(one.technique, other.technique) is None:
                problems.append(overlap_problem(policy, first, second, overlap_text(one.technique, other.technique)))
                break
    if problems:
        raise PolicyInvalid(problems)


def rank_steps(steps: Sequence[Step], techniques: Sequence[Technique]) -> tuple[Step, ...]:
    """Give each step its rank, from 1: the stricter the higher; techniques that can't be ordered in a fixed order."""
    order = {key: rank for rank, key in enumerate(sorted({strictness(t) for t in techniques}), start=1)}
    return tuple(
        Step(step.op, step.tag, step.rule, step.args, order[strictness(technique)])
        for step, technique in zip(steps, techniques, strict=True)
    )


def reference_reason(policy: Policy, tags: Mapping[str, Tag]) -> str:
    """Say what in the policy needs the reference executor; "" if nothing does."""
    reasons: list[str] = []
    for name, tag in sorted(tags.items()):
        what = "names of members" if tag.keys else "where" if tag.where else "a filter, slice or union"
        reasons += [f"'{name}' finds {path} ({what})" for path in tag.extra_paths]
        if tag.detect and detectors_matter(policy.unlisted):
            reasons.append(f"'{name}' is found by its look ({tag.detect})")
    if policy.unlisted is Unlisted.DETECT:
        reasons.append("what no tag names is looked at (unlisted_fields: detect)")
    if policy.json_in_strings:
        reasons.append(f"JSON in strings is opened, {policy.json_in_strings} deep")
    return "; ".join(reasons)


def place_text(path: BodyPath | GeneralPath) -> str:
    """Return a path as plans carry it: names of the regular subset folded, others verbatim."""
    if isinstance(path, GeneralPath):
        return path.text
    return str(BodyPath(tuple(Segment(s.select, fold_name(s.name), s.index, s.deep) for s in path.segments)))


def _may_both(one: Where, other: Where) -> bool:
    """True if one object may have what both ask: only different texts of one member exclude each other."""
    texts = dict(other)
    return all(set(values) & set(texts.get(member, values)) for member, values in one)
