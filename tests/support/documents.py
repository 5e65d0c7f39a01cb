"""Hypothesis strategies: JSON texts in all their spellings, and plans that meet them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st

from gharial.model.place import fold_name
from gharial.model.plan import NONE, NOWHERE, PLAN_FORMAT, Cell, Mode, Node, Op, Plan, Unlisted, Variant

from .plans import a_step, make_plan

BY_PLACE = [Unlisted.DROP, Unlisted.REDACT, Unlisted.PASS]
"""What every executor can do with what no tag names."""
NAMES = ["id", "email", "phone", "rows", "data", "a", "b", "prénom", "x.y", "", "tab\t", "quo'te\\"]
_SPACES = st.sampled_from(["", "", "", " ", "\n  ", "\t"])
_NUMBERS = st.sampled_from(["0", "-0", "1.10", "1e5", "1E400", "12345678901234567890", "-7", "0.1000", "9" * 400])


@st.composite
def spelled(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """A string as a JSON text, some characters escaped that need not be."""
    text = draw(texts)
    how = draw(st.sampled_from(["plain", "plain", "ascii", "first", "upper"]))
    if how == "plain":
        return json.dumps(text, ensure_ascii=False)
    if how == "first" and text and ord(text[0]) < 0x10000:
        return f'"\\u{ord(text[0]):04X}' + json.dumps(text[1:], ensure_ascii=False)[1:]
    if how == "upper":
        return json.dumps(text.upper(), ensure_ascii=False)
    return json.dumps(text)


_TEXTS = st.one_of(
    st.sampled_from(["", "a@b.org", "Jo", "[redacted]", "***", "{[", ',"id":', "\x1f", "é😀", "\u2028"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
_SCALARS = st.one_of(spelled(_TEXTS), spelled(_TEXTS), _NUMBERS, st.sampled_from(["true", "false", "null"]))


def _array(items: Sequence[str], space: str) -> str:
    return f"[{space}" + f"{space},{space}".join(items) + f"{space}]"


def _object(members: Sequence[tuple[str, str]], space: str) -> str:
    return f"{{{space}" + f"{space},{space}".join(f"{n}{space}:{space}{v}" for n, v in members) + f"{space}}}"


def _unique_name(member: tuple[str, str]) -> str:
    return str(json.loads(member[0]))


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    names = spelled(st.sampled_from(NAMES))
    return st.one_of(
        st.builds(_array, st.lists(inner, max_size=4), _SPACES),
        st.builds(_object, st.lists(st.tuples(names, inner), max_size=5, unique_by=_unique_name), _SPACES),
        st.builds(_object, st.lists(st.tuples(names, inner), max_size=5, unique_by=_unique_name), _SPACES),
        st.builds(_object, st.lists(st.tuples(names, inner), max_size=3), _SPACES),
    )


def documents() -> st.SearchStrategy[str]:
    """JSON documents, most of them with unique names, spelled in many ways."""
    values = st.recursive(_SCALARS, _containers, max_leaves=14)
    return st.builds(lambda before, text, after: before + text + after, _SPACES, values, _SPACES)


@st.composite
def pages(draw: st.DrawFn) -> str:
    """A page of flat records, most of them alike: the usual answer of an API, for which the reader has a short way."""
    space = draw(_SPACES)
    names = draw(st.lists(st.sampled_from(NAMES[:6]), min_size=1, max_size=4, unique=True))
    records = []
    for _ in range(draw(st.integers(1, 5))):
        here = names if draw(st.integers(0, 3)) else names[:-1] + draw(st.sampled_from([[], ["id"], ["x.y"]]))
        odd = draw(st.integers(0, 9)) == 0
        spell = spelled if odd else (lambda texts: texts.map(lambda text: json.dumps(text, ensure_ascii=False)))
        members = [(draw(spell(st.just(name))), draw(_SCALARS)) for name in here]
        records.append(_object(members, space))
    page = _array(records, space)
    return page if draw(st.booleans()) else _object([('"data"', page), ('"id"', draw(_SCALARS))], space)


_OPS = [Op.CLEAR, Op.CLEAR, Op.MASK, Op.TOKEN, Op.REDACT, Op.NULL, Op.DROP]
_SEGMENTS = [
    ".id",
    ".email",
    ".rows",
    "[*]",
    ".*",
    "..id",
    "..email",
    "..phone",
    ".data",
    "..rows",
    "[0]",
    "..[1]",
    ".a",
]


@st.composite
def path_plans(draw: st.DrawFn) -> Plan:
    """Plans of random paths, as policies make them."""
    variants = draw(st.integers(1, 3))
    paths = draw(
        st.lists(
            st.lists(st.sampled_from(_SEGMENTS), max_size=3).map(lambda s: "$" + "".join(s)), min_size=1, max_size=5
        )
    )
    show = {path: [draw(st.sampled_from(_OPS)) for _ in range(variants)] for path in paths}
    return make_plan(
        show,
        subjects={path: "customer" for path in show if draw(st.booleans())},
        reports=[path for path in show if draw(st.booleans())],
        unlisted=draw(st.sampled_from(BY_PLACE)),
        variants=variants,
    )


@st.composite
def wild_plans(draw: st.DrawFn) -> Plan:
    """Plans whose tries no policy would make: any node may lead to any other."""
    variants = draw(st.integers(1, 2))
    size = draw(st.integers(1, 4))
    cells = draw(st.integers(0, 3))
    to = st.sampled_from([NOWHERE, *range(size)])
    nodes = tuple(
        Node(
            names=draw(st.dictionaries(st.sampled_from([fold_name(name) for name in NAMES]), to, max_size=4)),
            indexes=draw(st.dictionaries(st.integers(0, 2), to, max_size=1)),
            other_name=draw(to),
            other_index=draw(to),
            cell=draw(st.sampled_from([NONE, NONE, *range(cells)])),
        )
        for _ in range(size)
    )
    steps = tuple(a_step(op) for op in dict.fromkeys(_OPS))
    return Plan(
        format=PLAN_FORMAT,
        policy="wild",
        version=1,
        route="wild",
        mode=Mode.ENFORCE,
        grants=(),
        unlisted=draw(st.sampled_from(BY_PLACE)),
        nodes=nodes,
        cells=tuple(
            Cell(
                tag="tag",
                steps=tuple(draw(st.integers(0, len(steps) - 1)) for _ in range(variants)),
                subject=draw(st.sampled_from(["", "customer"])),
                report=draw(st.booleans()),
            )
            for _ in range(cells)
        ),
        steps=steps,
        variants=tuple(Variant() for _ in range(variants)),
    )


def plans() -> st.SearchStrategy[Plan]:
    """Both kinds of plans."""
    return st.one_of(path_plans(), wild_plans())
