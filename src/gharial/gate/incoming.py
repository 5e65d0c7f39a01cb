"""Bodies of requests: a caller's own tokens in them become real values, and protected ones what the plan says.

By the plan's `incoming`, which says where; what is no token there stays as it came, unless only tokens may come. What
is protected on its way is rewritten as it would be in an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import assert_never
from urllib.parse import unquote_plus

import msgspec

from gharial.crypto.token import seems_token
from gharial.gate.carriers import Change, rewrite_query
from gharial.gate.headers import first_value
from gharial.gate.outcome import Headers
from gharial.gate.sending import Gone, Sending
from gharial.gate.tokens import Opener
from gharial.model.errors import (
    BodyMalformed,
    BodyTooDeep,
    BodyTooLarge,
    BodyWrapped,
    CodingUnknown,
    DuplicateName,
    MediaUnreadable,
    RequestMalformed,
    RequestTooLarge,
    RequestUnreadable,
    TokenRefused,
    TooManyValues,
)
from gharial.model.finding import Kind, Limits, Transform
from gharial.model.place import Carrier, fold_name
from gharial.model.plan import NONE, NOWHERE, Op, Param, Plan, Step
from gharial.payload.charset import Charset
from gharial.payload.json_text import WHITE_SPACE
from gharial.payload.media import Format, Media, RequestFormat, choose_request_format
from gharial.payload.program import Program, State
from gharial.payload.rewrite import open_body
from gharial.policy.incoming import DEMANDED, is_sending, protects_bodies

BODY_DIGESTS = frozenset(["content-digest", "content-md5", "digest", "repr-digest"])
"""Headers of a request that would no longer fit its body."""

_NO_FORM = re.compile(r"[^!#-;=?-\[\]_a-z~]")
"""Blanks, control characters, and quotes, braces and the like: every encoder of forms escapes them."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def choose_format(plan: Plan, headers: Headers, limits: Limits) -> RequestFormat:
    """Return how the body of this request is read. `plan` is the `incoming` one.

    Raises RequestUnreadable for a type, charset or coding that can't be read, and RequestTooLarge where the head says
    so already. A JSON Patch names fields in values, where no plan looks for them: it is refused where only tokens may
    come, or values are protected.
    """
    length = first_value(headers, "content-length")
    if length is not None and length.isdecimal() and int(length) > limits.body_bytes:
        raise RequestTooLarge(f"announced more than {limits.body_bytes} bytes")
    try:
        found = choose_request_format(headers)
    except (MediaUnreadable, CodingUnknown) as error:
        raise RequestUnreadable(str(error)) from None
    if found is RequestFormat.JSON_PATCH and (_demands(plan) or protects_bodies(plan)):
        raise RequestUnreadable("a JSON Patch, where only tokens may come, or values are protected")
    return found


def _refuse_patch(body: bytes) -> None:
    """Raise RequestUnreadable for what is a JSON Patch by its shape, whatever its label says (RFC 6902, section 3)."""
    try:
        root = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Whoever reads it next says what is wrong with it.
        return
    if isinstance(root, list) and any(isinstance(one, dict) and {"op", "path"} <= one.keys() for one in root):
        raise RequestUnreadable("a JSON Patch, where only tokens may come, or values are protected")


def _demands(plan: Plan) -> bool:
    return any(step.rule == DEMANDED for step in plan.steps)


def resolve_body(
    plan: Plan,
    found: RequestFormat,
    body: bytes,
    limits: Limits,
    opener: Opener,
    transforms: Sequence[Transform],
) -> bytes | None:
    """Return the body as it is sent on, or None if it stays as it is.

    This caller's tokens are real values in it, and what is protected is as `transforms`, one for each step of the plan,
    make it. While the opener's vault lacks something, the result, or what was raised, is of no use.

    Raises TokenRefused as `tokens.resolve_tokens` does, RequestTooLarge, and RequestMalformed for what can't be read in
    one way only: grammar, a name twice in an object that is opened, too deep, too many values.
    """
    try:
        match found:
            case RequestFormat.JSON | RequestFormat.JSON_PATCH:
                if _demands(plan) or protects_bodies(plan):
                    _refuse_patch(body)
                return _resolve_json(plan, body, limits, opener, transforms)
            case RequestFormat.FORM:
                return _resolve_form(plan, body, limits, _InForm(opener, Sending(plan.steps, transforms)))
            case _:
                assert_never(found)
    except BodyTooLarge as error:
        raise RequestTooLarge(str(error)) from None
    except (BodyMalformed, BodyTooDeep, BodyWrapped, DuplicateName, MediaUnreadable, TooManyValues) as error:
        raise RequestMalformed(f"the body: {error}") from None


# --- JSON ---------------------------------------------------------------------------------------------------------


def _resolve_json(
    plan: Plan, body: bytes, limits: Limits, opener: Opener, transforms: Sequence[Transform]
) -> bytes | None:
    reader = open_body(plan, Media(Format.JSON, charset=Charset.UTF8), body, limits)
    scopes = reader.survey()
    if _demands(plan):
        _refuse_shapes(plan, body)
    before = sum(opener.counts.values())
    pairs = zip(plan.steps, transforms, strict=True)
    runs = [transform if is_sending(step) else _opening(step, opener) for step, transform in pairs]
    rewritten = reader.finish([0] * len(scopes), runs)
    opened = sum(opener.counts.values()) > before
    hidden = rewritten.changed and protects_bodies(plan)
    # Else the bytes stay: a plain text in a place of tokens would only be spelled otherwise.
    return rewritten.body if opened or hidden else None


def _opening(step: Step, opener: Opener) -> Transform:
    tags = tuple(str(step.arg("tags", "")).split())
    demanded = step.rule == DEMANDED

    def run(kind: Kind, text: str) -> tuple[Kind, str]:
        if kind is Kind.STRING and tags and seems_token(text):
            return opener.open(text, tags)
        if demanded:
            raise TokenRefused("only tokens may come here")
        return kind, text

    return run


def _refuse_shapes(plan: Plan, body: bytes) -> None:
    """Raise TokenRefused for an object, or an empty list, where only tokens may come.

    `{"$ne": token}` is a query to some servers, and `{}` or `[]` one for everything. For a body that a reader took.
    """
    # The trie alone: what only the reference executor does beyond it is done here.
    program = Program(msgspec.structs.replace(plan, json_in_strings=0, needs_reference=""))
    waiting: list[tuple[object, State, int]] = [(_decoded(body), program.root, plan.json_in_strings)]
    while waiting:
        value, state, levels = waiting.pop()
        names = program.resolve(state)
        demanded = state.cell != NONE and plan.steps[plan.cells[state.cell].steps[0]].rule == DEMANDED
        if isinstance(value, str) and levels and value.lstrip()[:1] in ("{", "["):
            inner = _decoded(value.encode("utf-8", "surrogatepass"))
            if isinstance(inner, (dict, list)):
                waiting.append((inner, state, levels - 1))
        elif isinstance(value, dict):
            if demanded:
                raise TokenRefused("an object stands where only tokens may come")
            waiting += [(v, names.get(fold_name(name), state.other_name), levels) for name, v in value.items()]
        elif isinstance(value, list):
            if demanded and not value:
                raise TokenRefused("an empty list stands where only tokens may come")
            waiting += [(v, state.indexes.get(at, state.other_index), levels) for at, v in enumerate(value)]


def _decoded(text: bytes) -> object:
    try:
        return msgspec.json.decode(text.removeprefix(_BYTE_ORDER_MARK).strip(WHITE_SPACE))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Of the whole body a reader has made sure; a string that is no JSON is only a string.
        return None


# --- forms --------------------------------------------------------------------------------------------------------


class _InForm(Change):
    """What is done with the parameters of a form; their steps are those of the plan of bodies."""

    def __init__(self, opener: Opener, sending: Sending) -> None:
        self._opener, self._sending = opener, sending

    def resolve(self, param: Param, text: str) -> str | Gone | None:
        if param.step != NONE and not param.only_tokens:
            return self._opener.send(param, text, self._sending)
        return self._opener.resolve(param, text)

    def refuse_alike(self, param: Param, text: str, *, same: bool) -> None:
        if param.step != NONE and self._sending.hides(param.step):
            raise RequestMalformed("a field is spelled almost like one whose value is protected on its way")
        self._opener.refuse_alike(msgspec.structs.replace(param, step=NONE), text, same=same)


def _resolve_form(plan: Plan, body: bytes, limits: Limits, change: Change) -> bytes | None:
    """A form is one object, whose members are its parameters (application/x-www-form-urlencoded, WHATWG URL, 5)."""
    if len(body) > limits.body_bytes:
        raise BodyTooLarge(f"longer than {limits.body_bytes} bytes")
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        # What a browser sends is ASCII; servers differ in what they make of anything else.
        raise RequestMalformed("a form holds bytes that are not percent-encoded") from None
    if _NO_FORM.search(text):
        # `curl -d '{"id":1}'` calls it a form, and there are servers that read it as JSON all the same.
        raise RequestMalformed("a form holds what would be percent-encoded in one")
    for part in text.split("&"):
        name, _, value = part.partition("=")
        if fold_name(unquote_plus(name)) == "_charset_" and unquote_plus(value).lower() not in ("utf-8", "utf8"):
            raise RequestMalformed("a form says that it is not UTF-8")
    here, anywhere = _form_fields(plan)
    rewritten = rewrite_query(text, anywhere, change, find=lambda name: here.get(fold_name(name)))
    return None if rewritten is None else rewritten.encode("ascii")


def _form_fields(plan: Plan) -> tuple[dict[str, Param], dict[str, Param]]:
    """Return, by folded name, what is opened in a form, and what any place of a body is called.

    A form reaches the members of the root. What a path finds deeper is opened nowhere in a form, and nothing passes
    under its name in silence.
    """
    root = plan.nodes[0]
    others = (root.other_name, root.other_index, *root.indexes.values())
    if root.cell != NONE or any(to != NOWHERE and plan.nodes[to].cell != NONE for to in others):
        raise RequestUnreadable("a form, where a tag finds the whole body, elements, or members of any name")
    cells: dict[str, set[int]] = {}
    for node in plan.nodes:
        for name, to in node.names.items():
            if plan.nodes[to].cell != NONE:
                cells.setdefault(name, set()).add(plan.nodes[to].cell)
    here = {n: {plan.nodes[to].cell} for n, to in root.names.items() if plan.nodes[to].cell != NONE}
    return (
        {name: _form_param(plan, name, found) for name, found in here.items()},
        {name: _form_param(plan, name, found) for name, found in cells.items()},
    )


def _form_param(plan: Plan, name: str, cells: set[int]) -> Param:
    """`cells` are more than one only for a name that is looked for, and not found: then whatever is refused is."""
    numbers = sorted({plan.cells[cell].steps[0] for cell in cells})
    steps = [plan.steps[number] for number in numbers]
    tags = sorted({tag for step in steps if not is_sending(step) for tag in str(step.arg("tags", "")).split()})
    demanded = any(step.rule == DEMANDED for step in steps)
    sending = [number for number in numbers if is_sending(plan.steps[number])]
    # The first that hides something, if one does.
    sending.sort(key=lambda number: plan.steps[number].op is Op.CLEAR)
    step = sending[0] if sending else NONE
    return Param(name, tuple(tags), NONE, "", bool(tags), Carrier.QUERY, only_tokens=demanded, step=step)
