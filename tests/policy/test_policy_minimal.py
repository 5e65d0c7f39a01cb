"""Fewer nodes, the same results: places that lead to the same are one node, and a container's cell holds below it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.documents import documents, pages, plans
from support.effort import examples
from support.plans import transforms_of
from support.policies import policy_maps, read

from gharial.model.errors import GharialError, PolicyInvalid
from gharial.model.finding import Limits
from gharial.model.plan import NONE, NOWHERE, Cell, Node, Plan
from gharial.payload.json_reader import JsonReader
from gharial.policy.automaton import Automaton, Move
from gharial.policy.compile import compile_plan
from gharial.policy.document import Policy, parse_policy
from gharial.policy.layout import Found, Layout
from gharial.policy.minimal import merge_alike
from gharial.policy.variants import Table, find_factors

Step = str | int
NAMES = ("email", "phone", "person", "rows", "id", "note", "birth", "other")
PATHS = st.lists(st.sampled_from([*NAMES, 0, 1]), max_size=6)


def ran(plan: Plan, text: str, variants: Sequence[int]) -> object:
    """All that a reader does with a body; or the code of its refusal."""
    reader = JsonReader(plan, Limits())
    try:
        reader.feed(text.encode())
        scopes = [(scope.cells, scope.subjects, scope.values) for scope in reader.survey()]
        chosen = [variants[at % len(variants)] % len(plan.variants) for at in range(len(scopes))]
        done = reader.finish(chosen, transforms_of(plan), want_places=True)
    except GharialError as error:
        return error.code
    return scopes, done


@settings(max_examples=examples(1_000))
@given(plans(), st.one_of(documents(), pages()), st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_merged_nodes_do_the_same(plan: Plan, text: str, variants: list[int]):
    """With alike nodes merged, scopes, bytes, counts and places are the same for any document, also in wild tries."""
    merged = msgspec.structs.replace(plan, nodes=merge_alike(plan.nodes))
    assert len(merged.nodes) <= len(plan.nodes)
    assert ran(merged, text, variants) == ran(plan, text, variants)


@settings(max_examples=examples(1_000))
@given(plans(), st.data())
def test_no_two_nodes_are_alike_afterwards(plan: Plan, data: st.DataObject):
    """Merging once is enough, how nodes were numbered does not matter, and what is too much work changes nothing."""
    merged = merge_alike(plan.nodes)
    assert merge_alike(merged) == merged
    assert merge_alike(plan.nodes, 0) == plan.nodes
    order = [0, *data.draw(st.permutations(range(1, len(plan.nodes))))]
    number = {at: order.index(at) for at in order} | {NOWHERE: NOWHERE}
    mixed = tuple(
        Node(
            names={name: number[to] for name, to in plan.nodes[at].names.items()},
            indexes={index: number[to] for index, to in plan.nodes[at].indexes.items()},
            other_name=number[plan.nodes[at].other_name],
            other_index=number[plan.nodes[at].other_index],
            cell=plan.nodes[at].cell,
        )
        for at in order
    )
    assert merge_alike(mixed) == merged


# --- a container's cell holds below it ----------------------------------------------------------------------------


def layout_of(policy: Policy, grants: Sequence[str]) -> tuple[Layout, Automaton]:
    applying = [policy.get_grant(name) for name in grants]
    tags = {name: tag for name, tag in sorted(policy.tags.items()) if tag.body_paths}
    factors = find_factors(policy, applying, [], tags.keys())
    layout = Layout(policy, *Table.of(policy, factors, applying, []).fates(tags))
    return layout, Automaton.of((name, path) for name, tag in tags.items() for path in tag.body_paths)


def cells_named(layout: Layout, automaton: Automaton, path: Sequence[Step]) -> list[Cell | None]:
    """The cell of each value on a path, each worked out from all tags that find it or a container around it."""
    move, around = automaton.start(), Found("", NONE, "", "")
    found = [around := landed(layout, move, around, by_name=True)]
    for step in path:
        moves = automaton.moves(move.positions)
        move = (
            moves.names.get(step, moves.other_name)
            if isinstance(step, str)
            else moves.indexes.get(step, moves.other_index)
        )
        found.append(around := landed(layout, move, around, by_name=isinstance(step, str)))
    return [layout.cells[layout.cell(one)] if one.tag else None for one in found]


def landed(layout: Layout, move: Move, around: Found, *, by_name: bool) -> Found:
    subject, fact = ("", "") if by_name else (around.subject, around.fact)
    if not move.found:
        return around._replace(subject=subject, fact=fact)
    own = layout.combine(move.found)
    fate = layout._join(own.fate, around.fate) if around.tag else own.fate
    return Found(own.tag, fate, own.subject or subject, own.fact or fact)


def cells_walked(plan: Plan, path: Sequence[Step]) -> list[Cell | None]:
    """The cell of each value on a path, as an executor finds it: the deepest on the way."""
    at, cell = 0, plan.nodes[0].cell
    found = [cell]
    for step in path:
        if at != NOWHERE:
            here = plan.nodes[at]
            at = (
                here.names.get(step, here.other_name)
                if isinstance(step, str)
                else here.indexes.get(step, here.other_index)
            )
        cell = cell if at == NOWHERE or plan.nodes[at].cell == NONE else plan.nodes[at].cell
        found.append(cell)
    return [None if number == NONE else plan.cells[number] for number in found]


def said(cells: Sequence[Cell | None], plan_steps: Sequence[object]) -> list[object]:
    return [
        None if cell is None else (cell.tag, [plan_steps[s] for s in cell.steps], cell.charges, cell.subject, cell.fact)
        for cell in cells
    ]


@settings(max_examples=examples(2_000))
@given(policy_maps(), st.data(), PATHS)
def test_each_value_has_the_cell_that_its_tags_give_it(written: dict[str, Any], data: st.DataObject, path: list[Step]):
    """Whatever is shared between nodes: for any policy and path, every value on it has the cell that is worked out."""
    written["tags"] = {**written["tags"], "home": {"find": ["$..home", "$..note"], "fact": "residency"}}
    policy = read(written)
    names = [grant.name for grant in policy.grants]
    grants = data.draw(st.lists(st.sampled_from(names), unique=True).map(sorted)) if names else []
    try:
        plan = compile_plan(policy, "r", (), grants)
        layout, automaton = layout_of(policy, grants)
        wanted = cells_named(layout, automaton, path)
    except PolicyInvalid:
        assume(False)
    assert said(cells_walked(plan, path), plan.steps) == said(wanted, layout.steps)


# --- how many there are -------------------------------------------------------------------------------------------


def nodes_of(paths: Sequence[str], techniques: Sequence[str] = ("clear",)) -> int:
    tags = "".join(f"  t{at}: {{ find: '{path}' }}\n" for at, path in enumerate(paths))
    show = ", ".join(f"t{at}: {techniques[at % len(techniques)]}" for at in range(len(paths)))
    text = f"policy: p\nversion: 1\ntags:\n{tags}who: {{ w: {{}} }}\n"
    policy = parse_policy(f"{text}grants: [ {{ grant: g, to: w, show: {{ {show} }} }} ]\n", "policy.yaml")
    return len(compile_plan(policy, "r", (), ["g"]).nodes)


@pytest.mark.parametrize(
    ("paths", "techniques", "most"),
    [
        ([f"$..a{n}.b{n}" for n in range(50)], ("clear",), 101),
        ([f"$..a{n}.b" for n in range(50)], ("clear",), 101),
        ([f"$..a{n}.b{n}" for n in range(50)], ("clear", "mask", "redact"), 254),
        ([f"$..a{n}.b{n}.c{n}" for n in range(50)], ("clear",), 151),
        ([f"$..a{n}" for n in range(50)], ("clear",), 51),
    ],
)
def test_deep_paths_do_not_multiply(paths: list[str], techniques: tuple[str, ...], most: int):
    """Fifty tags of `$..a.b` need about two nodes each, not one for each pair of them; three techniques, five each."""
    assert nodes_of(paths, techniques) <= most


def test_what_still_multiplies_ends_in_a_mistake_soon():
    """Paths of which each may be in the middle of any other (`$..a..b`) have a limit, and the mistake says so."""
    started = time.perf_counter()
    with pytest.raises(PolicyInvalid, match="need more than 20,000 nodes"):
        nodes_of([f"$..a{n}..b{n}" for n in range(16)])
    assert time.perf_counter() - started < 60
