"""Plans that need the reference executor, made by hand from plans that don't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from gharial.model.plan import Extra, Op, Plan, Unlisted

from .plans import Show, make_plan

RANKS = {op: at for at, op in enumerate(Op)}


def extra_plan(
    finds: Sequence[tuple[Extra, Show]],
    show: Mapping[str, Show] | None = None,
    *,
    subjects: Mapping[str, str] | None = None,
    reports: Sequence[str] = (),
    unlisted: Unlisted = Unlisted.PASS,
    variants: int = 1,
    strings: int = 0,
) -> Plan:
    """A plan of the trie `show` and of `finds`, each extra with what is shown there (its own cell number is ignored).

    `subjects` and `reports` name paths of `show`, or the path or detector of an extra.
    """
    show = dict(show or {})
    # Places of their own, under names that no document here has: only their cells are wanted.
    stand_ins = {f"$['\ue000{at}']": shown for at, (_, shown) in enumerate(finds)}
    named = {extra.path or extra.detector: path for path, (extra, _) in zip(stand_ins, finds, strict=True)}
    plan = make_plan(
        {**show, **stand_ins},
        subjects={named.get(path, path): space for path, space in (subjects or {}).items()},
        reports=[named.get(path, path) for path in reports],
        unlisted=unlisted,
        variants=variants,
    )
    extras = tuple(msgspec.structs.replace(extra, cell=len(show) + at) for at, (extra, _) in enumerate(finds))
    nodes = tuple(
        msgspec.structs.replace(node, names={name: to for name, to in node.names.items() if name[:1] != "\ue000"})
        for node in plan.nodes
    )
    return msgspec.structs.replace(
        plan,
        nodes=nodes,
        steps=tuple(msgspec.structs.replace(step, rank=RANKS[step.op]) for step in plan.steps),
        extras=extras,
        json_in_strings=strings,
        needs_reference="made so" if extras or strings or unlisted is Unlisted.DETECT else "",
    )
