"""Plans made by hand for tests: a tiny builder from JSONPath to trie, and transforms that are easy to recognise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gharial.model.finding import Kind, Transform
from gharial.model.place import BodyPath, Segment, Select, fold_name, parse_place
from gharial.model.plan import NONE, NOWHERE, PLAN_FORMAT, Cell, Mode, Node, Op, Plan, Step, Unlisted, Variant

Show = Op | Step | Sequence[Op | Step]
"""What is shown at a place: one step, or one for each variant."""


def a_step(op: Op, tag: str = "tag", **args: str | int) -> Step:
    """A step with a made-up tag and rule."""
    return Step(op=op, tag=tag, rule="test", args=tuple(sorted(args.items())))


def make_plan(
    show: Mapping[str, Show],
    *,
    subjects: Mapping[str, str] | None = None,
    reports: Collection[str] = (),
    unlisted: Unlisted = Unlisted.DROP,
    variants: int = 1,
) -> Plan:
    """Build a plan: `show` maps a JSONPath to its steps, `subjects` some of these paths to their id space; the
    values at `reports` are handed to the gate.

    Where two paths meet the same place the later one in `show` wins. What lies below a tagged place and is not listed
    itself gets no cell of its own: it inherits.
    """
    steps: list[Step] = []
    cells: list[Cell] = []
    patterns: list[tuple[Segment, ...]] = []
    for path, what in show.items():
        place = parse_place(path)
        assert isinstance(place, BodyPath)
        patterns.append(place.segments)
        chosen = [what] * variants if isinstance(what, (Op, Step)) else list(what)
        assert len(chosen) == variants
        numbers = []
        for one in chosen:
            step = a_step(one) if isinstance(one, Op) else one
            if step not in steps:
                steps.append(step)
            numbers.append(steps.index(step))
        subject = (subjects or {}).get(path, "")
        cells.append(Cell(tag="tag", steps=tuple(numbers), subject=subject, report=path in reports))
    return Plan(
        format=PLAN_FORMAT,
        policy="test",
        version=1,
        route="test",
        mode=Mode.ENFORCE,
        grants=(),
        unlisted=unlisted,
        nodes=_trie(patterns),
        cells=tuple(cells),
        steps=tuple(steps),
        variants=tuple(Variant() if not at else Variant((0,)) for at in range(variants)),
    )


_Positions = frozenset[tuple[int, int]]


def _trie(patterns: Sequence[tuple[Segment, ...]]) -> tuple[Node, ...]:
    """The subset construction over 'how far each pattern has come'."""

    def on(positions: _Positions, name: str | None, index: int | None) -> _Positions:
        found = set()
        for pattern, at in positions:
            if at == len(patterns[pattern]):
                continue
            segment = patterns[pattern][at]
            if segment.deep:
                found.add((pattern, at))
            if (
                segment.select is Select.ANY
                or (segment.select is Select.NAME and name is not None and fold_name(segment.name) == name)
                or (segment.select is Select.INDEX and segment.index == index)
            ):
                found.add((pattern, at + 1))
        return frozenset(found)

    numbers: dict[_Positions, int] = {}
    waiting: list[_Positions] = []

    def number(positions: _Positions) -> int:
        if not positions:
            return NOWHERE
        if positions not in numbers:
            numbers[positions] = len(numbers)
            waiting.append(positions)
        return numbers[positions]

    number(frozenset((pattern, 0) for pattern in range(len(patterns))) or frozenset({(-1, -1)}))
    nodes: list[Node] = []
    while waiting:
        positions = waiting.pop(0)
        live = [patterns[p][at] for p, at in sorted(positions) if p >= 0 and at < len(patterns[p])]
        ended = [p for p, at in positions if p >= 0 and at == len(patterns[p])]
        real = frozenset(position for position in positions if position[0] >= 0)
        nodes.append(
            Node(
                names={
                    fold_name(s.name): number(on(real, fold_name(s.name), None))
                    for s in live
                    if s.select is Select.NAME
                },
                indexes={s.index: number(on(real, None, s.index)) for s in live if s.select is Select.INDEX},
                other_name=number(on(real, "\0", None)),
                other_index=number(on(real, None, -1)),
                cell=max(ended, default=NONE),
            )
        )
    return tuple(nodes)


def stars(kind: Kind, text: str) -> tuple[Kind, str]:
    """A mask that keeps nothing but null."""
    return (kind, text) if kind is Kind.NULL else (Kind.STRING, "***")


def redact(kind: Kind, text: str) -> tuple[Kind, str]:
    """Redaction by type."""
    return {
        Kind.STRING: (Kind.STRING, "[redacted]"),
        Kind.NUMBER: (Kind.NUMBER, "0"),
        Kind.BOOLEAN: (Kind.BOOLEAN, "false"),
        Kind.NULL: (Kind.NULL, ""),
    }[kind]


def to_null(kind: Kind, text: str) -> tuple[Kind, str]:
    """Null in place of everything."""
    return Kind.NULL, ""


def upper(kind: Kind, text: str) -> tuple[Kind, str]:
    """Changes letters only, so that some values stay as they are."""
    return (kind, text.upper()) if kind is Kind.STRING else (kind, text)


def never(kind: Kind, text: str) -> tuple[Kind, str]:
    """Stands where a reader must not ask."""
    raise AssertionError("this step is carried out by the reader itself")


_BY_OP: dict[Op, Transform] = {
    Op.CLEAR: never,
    Op.DROP: never,
    Op.MASK: stars,
    Op.TOKEN: upper,
    Op.REDACT: redact,
    Op.NULL: to_null,
    Op.YEAR: redact,
    Op.BAND: redact,
}


def transforms_of(plan: Plan) -> list[Transform]:
    """Simple transforms for the plan's steps, by their operation alone."""
    return [_BY_OP[step.op] for step in plan.steps]
