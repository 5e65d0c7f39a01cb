"""Makes a plan's steps runnable: each becomes a function from value to value, with everything looked up beforehand.

The functions are total. What a technique does not fit comes out redacted, and so does a step whose parameters this
version does not know: nothing here answers with the clear value but CLEAR. Null stays null under every technique.
"""

from __future__ import annotations

from collections.abc import Callable

from gharial.crypto.encoding import find_utf8, to_base64url
from gharial.crypto.keyset import Keyset, Purpose
from gharial.crypto.mask import HIDDEN, KEEP_DOMAIN, band, blank_date, mask, year
from gharial.crypto.seal import get_siv, header
from gharial.crypto.token import KIND_BYTE, PREFIX, Recipient, TokenScope, find_binding
from gharial.model.finding import Kind, Transform
from gharial.model.plan import Op, Plan, Redaction, Step

_NULL = (Kind.NULL, "")
_Redacted = dict[Kind, tuple[Kind, str]]


def transforms_for(plan: Plan, keyset: Keyset, recipient: Recipient) -> tuple[Transform, ...]:
    """Return one function per step of the plan, in the same order, for this recipient and the keyset's primary.

    They may be kept as long as plan, keyset and recipient stay the same. Raises KeyUnknown if a key can't be had.
    """
    redacted = _redacted(plan.redaction)
    return tuple(_compile(step, redacted, keyset, recipient) for step in plan.steps)


def _redacted(redaction: Redaction) -> _Redacted:
    return {
        Kind.STRING: (Kind.STRING, redaction.string),
        Kind.NUMBER: (Kind.NUMBER, redaction.number),
        Kind.BOOLEAN: (Kind.BOOLEAN, redaction.boolean),
        Kind.NULL: _NULL,
    }


def _compile(step: Step, redacted: _Redacted, keyset: Keyset, recipient: Recipient) -> Transform:
    match step.op:
        case Op.CLEAR:
            return _clear
        case Op.NULL:
            return _null
        case Op.MASK:
            return _mask(step, redacted)
        case Op.YEAR:
            return _coarser(redacted, year, numbers=False)
        case Op.BAND:
            return _band(step, redacted)
        case Op.TOKEN:
            return _token(step, redacted, keyset, recipient)
        case _:
            # REDACT; DROP, which readers carry out and never ask for; and whatever a later plan format may add.
            return _redact_date(redacted) if step.arg("type", "") == "date" else _redact(redacted)


def _clear(kind: Kind, text: str) -> tuple[Kind, str]:
    return kind, text


def _null(kind: Kind, text: str) -> tuple[Kind, str]:  # noqa: ARG001 - the shape of a Transform
    return _NULL


def _redact(redacted: _Redacted) -> Transform:
    def run(kind: Kind, text: str) -> tuple[Kind, str]:  # noqa: ARG001 - the shape of a Transform
        return redacted[kind]

    return run


def _redact_date(redacted: _Redacted) -> Transform:
    """A date becomes the first of January of the year 1 in its own format; what is no date becomes the text."""

    def run(kind: Kind, text: str) -> tuple[Kind, str]:
        nothing = blank_date(text) if kind is Kind.STRING else None
        return redacted[kind] if nothing is None else (Kind.STRING, nothing)

    return run


def _mask(step: Step, redacted: _Redacted) -> Transform:
    first, last, keep = step.arg("first", 0), step.arg("last", 0), step.arg("keep", "")
    known = _are_known(step, "first", "last", "keep") and keep in ("", KEEP_DOMAIN)
    if not known or not isinstance(first, int) or not isinstance(last, int) or first < 0 or last < 0:
        return _redact(redacted)
    keep = str(keep)
    hides_all = (Kind.STRING, HIDDEN)

    def run(kind: Kind, text: str) -> tuple[Kind, str]:
        if kind is Kind.STRING or kind is Kind.NUMBER:
            return Kind.STRING, mask(text, first, last, keep)
        return redacted[kind]

    def run_hiding_all(kind: Kind, text: str) -> tuple[Kind, str]:  # noqa: ARG001 - the shape of a Transform
        return hides_all if kind is Kind.STRING or kind is Kind.NUMBER else redacted[kind]

    return run if first or last or keep else run_hiding_all


def _band(step: Step, redacted: _Redacted) -> Transform:
    width, unit = step.arg("width", 0), step.arg("unit", "")
    if not _are_known(step, "width", "unit") or not isinstance(width, int) or unit not in ("", "y"):
        return _redact(redacted)
    unit = str(unit)
    return _coarser(redacted, lambda text: band(text, width, unit), numbers=unit == "")


def _coarser(redacted: _Redacted, coarsen: Callable[[str], str | None], *, numbers: bool) -> Transform:
    """Wrap a function that gives None where it does not fit. A JSON number is a quantity, never a date."""

    def run(kind: Kind, text: str) -> tuple[Kind, str]:
        if kind is Kind.STRING or (numbers and kind is Kind.NUMBER):
            result = coarsen(text)
            if result is not None:
                return Kind.STRING, result
        return redacted[kind]

    return run


def _token(step: Step, redacted: _Redacted, keyset: Keyset, recipient: Recipient) -> Transform:
    binding = find_binding(recipient, step.tag, str(step.arg("scope", TokenScope.CLIENT)))
    if not _are_known(step, "scope") or binding is None:
        return _redact(redacted)
    key_id = keyset.primary_id
    encrypt = get_siv(keyset, Purpose.TOKEN, binding.tenant, binding.tag, key_id).encrypt
    aad, head = [binding.aad()], header(key_id)
    kind_byte, prefix, null = KIND_BYTE, PREFIX, Kind.NULL

    def run(kind: Kind, text: str) -> tuple[Kind, str]:
        data = find_utf8(text)
        # A lone surrogate has no UTF-8, so such a text has no token.
        if kind is null or data is None:
            return redacted[kind]
        return Kind.STRING, prefix + to_base64url(head + encrypt(kind_byte[kind] + data, aad))

    return run


def _are_known(step: Step, *names: str) -> bool:
    # The tag's type may stand in every step; what it means for a technique, the technique says.
    return all(name in names or name == "type" for name, _ in step.args)
