"""Compiling: the laws that hold for every policy, found by trying many."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.effort import examples

from gharial.model.errors import PolicyInvalid
from gharial.model.place import BodyPath, Segment, Select, fold_name, parse_place
from gharial.model.plan import NONE, NOWHERE, Plan, Step, dump_plan
from gharial.policy.compile import compile_plan
from gharial.policy.document import Policy, parse_policy
from gharial.policy.technique import Technique, compare
from gharial.policy.variants import MAX_FACTORS

NAMES = ["a", "b", "c"]


# --- a policy as data, so that it can be shuffled and extended ---------------------------------------------------


def segments() -> st.SearchStrategy[str]:
    return st.one_of(
        st.sampled_from(NAMES).map(lambda n: f".{n}"),
        st.sampled_from(NAMES).map(lambda n: f"..{n.upper()}"),
        st.sampled_from([".*", "..*", "[*]", "[0]", "[1]", "..[0]", "['a']"]),
    )


def place_of(path: str) -> str:
    """`$.a` and `$['a']` are one place, which a tag may name only once."""
    return str(parse_place(path))


paths = st.lists(segments(), max_size=4).map(lambda parts: "$" + "".join(parts))
# A chain of techniques: any two can be ordered, so that no combination is a contradiction.
chain = st.sampled_from(
    ["clear", "mask(last=4)", "mask(last=2)", "mask", "token(scope=team)", "redact", "null", "drop"]
)


@st.composite
def policies(draw: st.DrawFn, shown: st.SearchStrategy[str] = chain) -> dict[str, object]:
    tags = {
        f"t{n}": {
            "find": draw(st.lists(paths, min_size=1, max_size=2, unique_by=place_of)),
            "subject": "s" if n == 0 else "",
        }
        for n in range(draw(st.integers(1, 4)))
    }
    groups = {"g0": list(tags)} if draw(st.booleans()) else {}
    grants = {}
    for n in range(draw(st.integers(0, 3))):
        targets = draw(st.lists(st.sampled_from([*tags, *groups]), min_size=1, unique=True))
        show = {target: draw(shown) for target in targets}
        then = draw(st.none() | chain.filter(lambda t: t != "clear"))
        budget = {"people": "5/h", "then": then} if then and "clear" in show.values() else None
        grants[f"grant{n}"] = {"show": show, "budget": budget}
    return {"tags": tags, "groups": groups, "grants": grants}


def text_of(policy: Mapping[str, Mapping[str, object]], shuffle: random.Random | None = None) -> str:
    def ordered(items: object) -> list[object]:
        found = list(items)
        if shuffle:
            shuffle.shuffle(found)
        return found

    tags = [
        f"  {name}: {{ find: {ordered(tag['find'])!r}"
        + (f", subject: {tag['subject']}" if tag["subject"] else "")
        + " }"
        for name, tag in policy["tags"].items()
    ] + [f"  {name}: [{', '.join(ordered(members))}]" for name, members in policy["groups"].items()]
    grants = []
    for name, grant in ordered(policy["grants"].items()):
        show = ", ".join(f"{tag}: '{shown}'" for tag, shown in ordered(grant["show"].items()))
        budget = grant["budget"]
        extra = f", budget: {{ people: {budget['people']}, then: '{budget['then']}' }}" if budget else ""
        grants.append(f"  - {{ grant: {name}, to: w, show: {{ {show} }}{extra} }}")
    parts = ["policy: p", "version: 1", "tags:\n" + "\n".join(ordered(tags)), "who: { w: {} }"]
    if grants:
        parts.append("grants:\n" + "\n".join(grants))
    return "\n".join(ordered(parts)) + "\n"


def read(policy: object) -> Policy:
    return parse_policy(text_of(policy), "policy.yaml")


def compiled(policy: object) -> Plan:
    return compile_plan(read(policy), "r", (), tuple(policy["grants"]))


# --- walking a plan, and finding the same by naive means ---------------------------------------------------------

documents = st.recursive(
    st.sampled_from([1, "x", None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "A", "z"]), inner, max_size=3),
    max_leaves=10,
)
Path = tuple[str | int, ...]


def values(document: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    yield path, document
    children = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for step, child in children:
        yield from values(child, (*path, step))


def naive_selects(segments: tuple[Segment, ...], path: Path) -> bool:
    """RFC 9535 read aloud: a segment takes one step, a deep one any number of steps before it."""
    if not segments:
        return not path
    first, rest = segments[0], segments[1:]
    for skipped in range(len(path)) if first.deep else range(min(1, len(path))):
        step = path[skipped]
        fits = (
            first.select is Select.ANY
            or (first.select is Select.NAME and isinstance(step, str) and fold_name(step) == fold_name(first.name))
            or (first.select is Select.INDEX and step == first.index and isinstance(step, int))
        )
        if fits and naive_selects(rest, path[skipped + 1 :]):
            return True
    return False


def cell_at(plan: Plan, path: Path) -> int:
    """The cell that covers the value at `path`, walked as an executor does: the deepest on the way."""
    at, cell = 0, plan.nodes[0].cell
    for step in path:
        node = plan.nodes[at]
        if isinstance(step, str):
            at = node.names.get(fold_name(step), node.other_name)
        else:
            at = node.indexes.get(step, node.other_index)
        if at == NOWHERE:
            return cell
        cell = cell if plan.nodes[at].cell == NONE else plan.nodes[at].cell
    return cell


def technique(step: Step) -> Technique:
    return Technique(step.op, step.args)


def finders(policy: Policy, path: Path) -> set[str]:
    return {t.name for t in policy.tags.values() if any(naive_selects(p.segments, path) for p in t.body_paths)}


@settings(max_examples=examples(300))
@given(policies(), documents)
def test_the_automaton_finds_what_the_paths_say(written: dict[str, object], document: object):
    """Every value of a document gets the strictest of all tags that find it or something around it, and no other."""
    policy, plan = read(written), compiled(written)
    alone = {name: compile_plan_alone(written, name) for name in policy.tags}
    for path, _ in values(document):
        tags = set().union(*(finders(policy, path[:n]) for n in range(len(path) + 1)))
        cell = cell_at(plan, path)
        assert (cell != NONE) is bool(tags)
        for variant in range(len(plan.variants) if tags else 0):
            found = technique(plan.steps[plan.cells[cell].steps[variant]])
            wanted = [alone[tag][variant] for tag in tags]
            assert found in wanted
            assert all(compare(found, want) in (0, 1) for want in wanted)


def compile_plan_alone(written: dict[str, object], tag: str) -> list[Technique]:
    """What holds for one tag at a place where no other is: the same policy, all other paths put elsewhere."""
    tags = {
        name: {**own, "find": ["$.here" if name == tag else f"$.elsewhere.{name}"]}
        for name, own in written["tags"].items()
    }
    plan = compiled({**written, "tags": tags})
    return [technique(plan.steps[step]) for step in plan.cells[cell_at(plan, ("here",))].steps]


@settings(max_examples=examples(200))
@given(policies(), documents)
def test_the_subject_is_where_its_path_ends(written: dict[str, object], document: object):
    """An id names a person, and so do the elements of a list of ids; what an object contains does not."""
    policy, plan = read(written), compiled(written)
    for path, _ in values(document):
        bare = len(path)
        while bare and isinstance(path[bare - 1], int):
            bare -= 1
        wanted = any("t0" in finders(policy, path[:n]) for n in range(bare, len(path) + 1))
        cell = cell_at(plan, path)
        assert (cell != NONE and plan.cells[cell].subject == "s") is wanted


@settings(max_examples=examples(200))
@given(policies(), st.randoms(use_true_random=False))
def test_the_order_of_writing_does_not_matter(written: dict[str, object], shuffle: random.Random):
    """Tags, members, paths, grants and lines of `show` in any order give the very same bytes."""
    grants = list(written["grants"])
    shuffle.shuffle(grants)
    again = compile_plan(parse_policy(text_of(written, shuffle), "policy.yaml"), "r", (), tuple(grants))
    assert dump_plan(again) == dump_plan(compiled(written))


@settings(max_examples=examples(200))
@given(policies(chain.filter(lambda t: t not in ("null", "drop"))), documents)
def test_a_further_grant_makes_nothing_stricter(written: dict[str, object], document: object):
    """Grants only add: with one more, no value is shown more strictly than without it.

    Except that a grant may say null or drop, which are stricter than redact, of what no other grant speaks of.
    """
    assume(written["grants"])
    *fewer, _ = written["grants"]
    policy = read(written)
    few = compile_plan(policy, "r", (), tuple(fewer))
    more = compile_plan(policy, "r", (), tuple(written["grants"]))
    for path, _ in values(document):
        cell = cell_at(few, path)
        if cell == NONE:
            assert cell_at(more, path) == NONE
            continue
        before = technique(few.steps[few.cells[cell].steps[0]])
        after = technique(more.steps[more.cells[cell_at(more, path)].steps[0]])
        assert compare(after, before) in (-1, 0)


@settings(max_examples=examples(200))
@given(policies())
def test_a_crossed_budget_makes_nothing_more_open(written: dict[str, object]):
    """The more budgets are crossed, the stricter is every cell, and who is not shown clear is not charged."""
    plan = compiled(written)
    assert plan.variants[0].crossed == ()
    for cell in plan.cells:
        for one, smaller in enumerate(plan.variants):
            shown = technique(plan.steps[cell.steps[one]])
            assert not cell.charges[one] or str(shown) == "clear"
            assert not set(cell.charges[one]) & set(smaller.crossed)
            for other, larger in enumerate(plan.variants):
                if set(smaller.crossed) <= set(larger.crossed):
                    assert compare(technique(plan.steps[cell.steps[other]]), shown) in (0, 1)


# --- single facts ------------------------------------------------------------------------------------------------

POLICY = """\
policy: p
version: 1
tags:
  id: { find: ['$..id', 'path:id'], subject: customer }
  other: { find: 'path:other' }
  mail: { find: '$..mail' }
who: { w: {} }
grants:
  - { grant: counted, to: w, show: { other: clear }, budget: { people: 5/h, then: mask } }
  - { grant: mails, to: w, show: { mail: clear } }
"""


def test_a_budget_counts_only_where_its_grant_shows_something():
    """A budget whose grant shows nothing clear on a route is not in that route's plan."""
    policy = parse_policy(POLICY, "policy.yaml")
    assert compile_plan(policy, "r", ("id",), ("counted", "mails")).budgets == ()
    assert [b.grant for b in compile_plan(policy, "r", ("other",), ("counted", "mails")).budgets] == ["counted"]


def test_parameters_of_other_routes_are_not_in_the_plan():
    """A plan knows the tagged parameters of its own route, in the order of the template."""
    plan = compile_plan(parse_policy(POLICY, "policy.yaml"), "r", ("x", "other", "id"), ())
    assert [(p.name, p.tags, p.subject, p.reidentify) for p in plan.params] == [
        ("other", ("other",), "", False),
        ("id", ("id",), "customer", False),
    ]


def test_the_digest_tells_plans_apart():
    """Another class, route or version has another digest; the same has the same."""
    policy = parse_policy(POLICY, "policy.yaml")
    next_one = parse_policy(POLICY.replace("version: 1", "version: 2"), "policy.yaml")
    digests = [
        compile_plan(policy, "r", (), ()).digest,
        compile_plan(policy, "s", (), ()).digest,
        compile_plan(policy, "r", (), ("mails",)).digest,
        compile_plan(next_one, "r", (), ()).digest,
    ]
    assert len(set(digests)) == 4
    assert all(len(d) == 32 for d in digests)
    assert compile_plan(policy, "r", (), ()).digest == digests[0]


def test_too_many_budgets_for_one_class_is_a_mistake():
    """Each budget doubles the variants, hence a bound, told at the grant that goes beyond it."""
    grants = "".join(
        f"  - {{ grant: g{n}, to: w, show: {{ mail: clear }}, budget: {{ people: {n + 1}/h, then: mask }} }}\n"
        for n in range(MAX_FACTORS + 1)
    )
    policy = parse_policy(POLICY.partition("grants:")[0] + "grants:\n" + grants, "policy.yaml")
    assert compile_plan(policy, "r", (), tuple(f"g{n}" for n in range(MAX_FACTORS)))
    with pytest.raises(PolicyInvalid, match=r"policy\.yaml:17:5: .*more than 8 budgets"):
        compile_plan(policy, "r", (), tuple(f"g{n}" for n in range(MAX_FACTORS + 1)))


def test_an_unknown_grant_is_a_bug():
    """A class of callers names grants of this policy only."""
    with pytest.raises(KeyError):
        compile_plan(parse_policy(POLICY, "policy.yaml"), "r", (), ("nobody",))


def test_nested_tags_that_cannot_be_ordered_get_what_both_allow():
    """A mail within a phone number, possible on paper only, is masked completely; neither tag asks its author."""
    policy = parse_policy(
        "policy: p\nversion: 1\ntags: { mail: { find: '$..mail' }, phone: { find: '$..phone' } }\nwho: { w: {} }\n"
        "grants: [ { grant: g, to: w, show: { mail: mask(keep=domain), phone: mask(last=4) } } ]\n",
        "policy.yaml",
    )
    plan = compile_plan(policy, "r", (), ("g",))
    shown = {path: str(technique(plan.steps[plan.cells[cell_at(plan, path)].steps[0]])) for path in
             [("mail",), ("phone",), ("phone", "mail"), ("mail", "x", "phone")]}  # fmt: skip
    assert list(shown.values()) == ["mask(keep=domain)", "mask(last=4)", "mask", "mask"]


def test_the_naive_matcher_is_not_naive():
    """The oracle of these tests agrees with examples of the RFC."""
    deep = parse_place("$..a[*]")
    assert isinstance(deep, BodyPath)
    assert naive_selects(deep.segments, ("x", 0, "a", 2))
    assert not naive_selects(deep.segments, ("x", 0, "a"))
    assert not naive_selects(deep.segments, ("a", 1, 2))
