"""Hypothesis strategies: plans that use the whole language of plans, and documents in which all of it finds values."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
from hypothesis import strategies as st

from gharial.model.plan import Condition, Extra, Op, Plan, Step, Unlisted, Variant

from .documents import BY_PLACE, spelled
from .plans import a_step
from .reference import extra_plan

FEATURES = ("where", "general", "keys", "detector", "strings", "detect")
_NAMES = ["id", "email", "name", "value", "type", "by", "data", "a", "b", "x.y", "é"]
_TEXTS = [
    "", "Jo", "ann@ex.example", "write to ann [at] ex.example", "+49 171 1234567", "4111 1111 1111 1111", "1987-04-03",
    "DE89370400440532013000", "192.168.1.77", "msisdn", "MSISDN", "email", "x", "7", "[redacted]", "***", "ORD-12",
    "{[", "\x1f", "é😀", "null",
]  # fmt: skip
_NUMBERS = st.sampled_from(["0", "-0", "1.10", "1e5", "7", "42", "12345678901234567890", "4111111111111111"])
_SPACES = st.sampled_from(["", "", "", " ", "\n "])
_TEXT = spelled(st.sampled_from(_TEXTS))
_SCALARS = st.one_of(_TEXT, _TEXT, _NUMBERS, st.sampled_from(["true", "false", "null"]))


def _array(items: Sequence[str], space: str) -> str:
    return f"[{space}" + f"{space},{space}".join(items) + f"{space}]"


def _object(members: Sequence[tuple[str, str]], space: str) -> str:
    return f"{{{space}" + f"{space},{space}".join(f"{n}{space}:{space}{v}" for n, v in members) + f"{space}}}"


def _named(member: tuple[str, str]) -> str:
    return str(json.loads(member[0]))


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    names = spelled(st.sampled_from(_NAMES))
    members = st.lists(st.tuples(names, inner), max_size=4, unique_by=_named)
    pair = st.builds(
        lambda name, value, space: _object([('"name"', name), ('"value"', value)], space),
        spelled(st.sampled_from(["msisdn", "MSISDN", "colour"])), inner, _SPACES,
    )  # fmt: skip
    keyed = st.builds(
        lambda names, value, space: _object([('"by"', _object([(n, value) for n in names], space))], space),
        st.lists(spelled(st.sampled_from(_TEXTS)), max_size=3, unique_by=json.loads), inner, _SPACES,
    )  # fmt: skip
    record = st.builds(
        lambda one, two, space: _object([('"id"', one), ('"email"', two)], space), _SCALARS, _TEXT, _SPACES
    )
    return st.one_of(
        st.builds(_array, st.lists(inner, max_size=3), _SPACES),
        st.builds(_object, members, _SPACES),
        st.builds(_object, st.lists(st.tuples(names, inner), max_size=3), _SPACES),
        pair,
        keyed,
        record,
        st.builds(json.dumps, inner),
    )


def rich_documents() -> st.SearchStrategy[str]:
    """JSON documents with records, pairs of name and value, objects keyed by people, JSON in strings, and free text."""
    return st.builds(
        lambda text, space: space + text + space, st.recursive(_SCALARS, _containers, max_leaves=9), _SPACES
    )


STEPS = [
    a_step(Op.CLEAR), a_step(Op.CLEAR), a_step(Op.MASK), a_step(Op.MASK, last=2), a_step(Op.MASK, first=1),
    a_step(Op.MASK, keep="domain"), a_step(Op.YEAR), a_step(Op.BAND, width=10), a_step(Op.BAND, unit="y", width=5),
    a_step(Op.TOKEN, scope="client"), a_step(Op.TOKEN, scope="all"), a_step(Op.REDACT), a_step(Op.NULL),
    a_step(Op.DROP),
]  # fmt: skip
_PATHS = ["$..id", "$..email", "$..value", "$.a", "$..a", "$.data[*]", "$[*].b", "$..by", "$.*", "$[0]", "$", "$..é"]
_GENERAL = [
    "$..[?@.id]", "$..[?@.name == 'msisdn'].value", "$[1:]", "$..['a','b']", "$..[?match(@.type, '[a-z]+')].id",
    "$..[?length(@) > 3]", "$..[-1]", "$[?@.id == 7].email", "$..[?@ == null]", "$..[?search(@, 'e') && @ != 'email']",
    "$..[?count(@.*) == 2]", "$[?@.email != $[0].email]",
]  # fmt: skip


def _extra(feature: str) -> st.SearchStrategy[Extra]:
    match feature:
        case "where":
            where = st.sampled_from(
                [(("name", ("msisdn", "email")),), (("id", ("7", "true")),), (("name", ("msisdn",)), ("id", ("7",)))]
            )
            return st.builds(Extra, st.just(0), st.sampled_from(["$..value", "$..*", "$..email"]), where=where)
        case "general":
            return st.builds(Extra, st.just(0), st.sampled_from(_GENERAL), general=st.just(True))
        case "keys":
            return st.one_of(
                st.builds(Extra, st.just(0), st.sampled_from(["$..by", "$", "$.a"]), keys=st.just(True)),
                st.builds(
                    Extra, st.just(0), st.sampled_from(["$..[?@.id]", "$..['by','a']"]), general=st.just(True),
                    keys=st.just(True),
                ),
            )  # fmt: skip
        case _:
            return st.builds(Extra, st.just(0), detector=st.sampled_from(["email", "phone", "card", "iban", "ip"]))


@st.composite
def rich_plans(draw: st.DrawFn, features: Sequence[str] = ()) -> Plan:
    """Plans with any techniques, variants that hold conditions, reported facts, and these features beyond the trie."""
    conditions = draw(st.sampled_from([(), (), (Condition(fact="residency", values=("DE",), if_missing=True),)]))
    variants = (Variant(), Variant((0,))) if draw(st.booleans()) else (Variant(),)
    if conditions:
        variants += tuple(msgspec.structs.replace(variant, holds=(0,)) for variant in variants)

    def shown() -> list[Step]:
        return [draw(st.sampled_from(STEPS)) for _ in variants]

    extras = [draw(_extra(name)) for name in features if name not in ("strings", "detect")]
    paths = draw(st.lists(st.sampled_from(_PATHS), min_size=0 if extras else 1, max_size=3, unique=True))
    named = [*paths, *(extra.path or extra.detector for extra in extras)]
    plan = extra_plan(
        [(extra, shown()) for extra in extras],
        {path: shown() for path in paths},
        subjects={path: "customer" for path in named if draw(st.integers(0, 2)) == 0},
        reports=[path for path in named if draw(st.booleans())],
        unlisted=Unlisted.DETECT if "detect" in features else draw(st.sampled_from(BY_PLACE)),
        variants=len(variants),
        strings=draw(st.integers(1, 2)) if "strings" in features else 0,
    )
    return msgspec.structs.replace(plan, variants=variants, conditions=conditions)
