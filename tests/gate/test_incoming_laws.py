"""Bodies of requests against the policy read aloud: for any document and paths, tokens open where a path leads."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.gate_world import FakeVault

from gharial.crypto.keyset import create_keyset
from gharial.crypto.token import Binding, Recipient, seal_token
from gharial.crypto.transform import transforms_for
from gharial.gate.incoming import resolve_body
from gharial.gate.sending import Sending
from gharial.gate.tokens import Opener
from gharial.gate.vault import ExchangeTokens, TokenBook
from gharial.model.caller import Caller
from gharial.model.errors import TokenRefused
from gharial.model.finding import Kind, Limits
from gharial.model.place import BodyPath, Segment, Select, fold_name, parse_place
from gharial.model.plan import Plan
from gharial.payload.media import RequestFormat
from gharial.policy.compile import compile_plan
from gharial.policy.document import parse_policy

PATHS = (
    "$..id",
    "$.email",
    "$..rows[*].a",
    "$.data",
    "$.rows[0].b",
    "$.*.phone",
    "$[*]",
    "$..rows[1]",
    "$..b.*",
    "$..['x.y']",
)
KEYSET = create_keyset(lambda size: b"\x31" * size, 1_700_000_000.0)
CALLER = Caller("t", "acme")
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Number:
    """A number as it is written."""

    text: str


@st.composite
def values(draw: st.DrawFn, depth: int = 3) -> Any:
    """A document whose objects hold no name twice."""
    kind = draw(
        st.sampled_from(("text", "number", "other", "list", "object", "object") if depth else ("text", "number"))
    )
    match kind:
        case "text":
            return draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
        case "number":
            return Number(draw(st.sampled_from(("0", "1.10", "1e5", "-7", "12345678901234567890"))))
        case "list":
            return [draw(values(depth - 1)) for _ in range(draw(st.integers(0, 3)))]
        case "object":
            names = st.sampled_from(("id", "email", "rows", "a", "data", "b", "phone", "x.y", "ID", "note"))
            found = draw(st.lists(names, max_size=4, unique_by=fold_name))
            return {name: draw(values(depth - 1)) for name in found}
        case _:
            return draw(st.sampled_from((True, False, None)))


def written(value: Any) -> str:
    if isinstance(value, Number):
        return value.text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} : {written(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def read(text: bytes) -> Any:
    return json.loads(text, parse_int=Number, parse_float=Number)


@lru_cache
def plan_of(paths: tuple[str, ...], *, guarded: bool) -> Plan:
    policy = {
        "policy": "p",
        "version": 1,
        "tags": {"t": {"find": list(paths)}},
        "who": {"anyone": {}},
        "grants": [{"grant": "g", "to": "anyone", "show": {"t": "token"}, "reidentify": "t"}],
        "never": [{"never": "n", "only_tokens": "t"}],
    }
    made = compile_plan(parse_policy(json.dumps(policy), "p"), "r", (), ["g"], ["n"] if guarded else [])
    assert made.incoming is not None
    return made.incoming


def leads(segments: tuple[Segment, ...], path: Path) -> bool:
    """True if a path leads to this very place, by the words of the docs."""
    if not segments:
        return not path
    first, rest = segments[0], segments[1:]
    if first.deep and path and leads(segments, path[1:]):
        return True
    if not path:
        return False
    step = path[0]
    fits = (
        first.select is Select.ANY
        or (first.select is Select.NAME and isinstance(step, str) and fold_name(step) == fold_name(first.name))
        or (first.select is Select.INDEX and step == first.index)
    )
    return fits and leads(rest, path[1:])


def is_tagged(paths: tuple[str, ...], path: Path) -> bool:
    places = [parse_place(text) for text in paths]
    return any(
        isinstance(place, BodyPath) and leads(place.segments, path[:end])
        for place in places
        for end in range(len(path) + 1)
    )


def token(value: str | Number) -> str:
    kind, text = (Kind.NUMBER, value.text) if isinstance(value, Number) else (Kind.STRING, value)
    return seal_token(KEYSET, Binding("t", "t", "client", "acme"), kind, text)


def with_tokens(
    value: Any, path: Path, paths: tuple[str, ...], draw: st.DrawFn, often: st.SearchStrategy[bool]
) -> tuple[Any, Any, bool]:
    """Put tokens in place of some values; return what is sent, what should arrive, and whether only tokens came."""
    if isinstance(value, dict):
        parts = {name: with_tokens(inner, (*path, name), paths, draw, often) for name, inner in value.items()}
        pure = all(part[2] for part in parts.values()) and not is_tagged(paths, path)
        return {n: p[0] for n, p in parts.items()}, {n: p[1] for n, p in parts.items()}, pure
    if isinstance(value, list):
        found = [with_tokens(inner, (*path, at), paths, draw, often) for at, inner in enumerate(value)]
        pure = all(part[2] for part in found) and (bool(found) or not is_tagged(paths, path))
        return [p[0] for p in found], [p[1] for p in found], pure
    here = is_tagged(paths, path)
    if not isinstance(value, (str, Number)) or not draw(often):
        return value, value, not here
    sent = token(value)
    return sent, value if here else sent, True


def run(plan: Plan, body: bytes, opener: Opener) -> bytes | None:
    transforms = transforms_for(plan, KEYSET, Recipient("t", "acme"), os.urandom)
    return resolve_body(plan, RequestFormat.JSON, body, Limits(), opener, transforms)


@given(st.data(), st.lists(st.sampled_from(PATHS), min_size=1, max_size=3, unique=True).map(lambda p: tuple(sorted(p))))
@settings(max_examples=examples(1000))
def test_tokens_open_where_a_path_leads_and_nowhere_else(data: st.DataObject, paths: tuple[str, ...]):
    """What arrives is what was sent, but for tokens in tagged places; under `only_tokens` all else there is refused."""
    often = data.draw(st.sampled_from((st.just(True), st.booleans())))
    sent, arrives, pure = with_tokens(data.draw(values()), (), paths, data.draw, often)
    body = written(sent).encode()
    opener = Opener(KEYSET, CALLER, ExchangeTokens(TokenBook(FakeVault(), os.urandom)), Sending((), ()))
    came = run(plan_of(paths, guarded=False), body, opener)
    assert read(body if came is None else came) == arrives
    assert (came is None) == (sent == arrives)
    try:
        came = run(plan_of(paths, guarded=True), body, opener)
    except TokenRefused:
        assert not pure
    else:
        assert pure
        assert read(body if came is None else came) == arrives
