"""Tokens and envelopes inside a document become values again: which ones stand there, and how they are put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gharial.crypto.envelope import PREFIX as ENVELOPE
from gharial.crypto.token import PREFIX as TOKEN
from gharial.gate.publish import Prepared
from gharial.gate.reveal import Clear, Item
from gharial.model.finding import Kind, Limits, Transform
from gharial.model.plan import Op, Step
from gharial.payload.media import Media
from gharial.payload.rewrite import open_body

Opened = Mapping[tuple[str, str], Clear]
"""By tag and by the token or envelope: what it stands for."""


def find_sealed(prepared: Prepared, media: Media, body: bytes, limits: Limits) -> list[Item]:
    """Return the distinct tokens and envelopes that stand where the plan redacts. Raises as the payload room does."""
    found: dict[tuple[str, str], None] = {}

    def noting(step: Step) -> Transform:
        def run(kind: Kind, text: str) -> tuple[Kind, str]:
            if step.op is Op.REDACT and kind is Kind.STRING and text.startswith((TOKEN, ENVELOPE)):
                found[step.tag, text] = None
            return Kind.NULL, ""

        return run

    reader = open_body(prepared.plan, media, body, limits)
    plain: Sequence[int] = [0] * len(reader.survey())
    reader.finish(plain, tuple(noting(step) for step in prepared.plan.steps))
    return [Item(tag, text) for tag, text in found]


def reopening(step: Step, transform: Transform, opened: Opened) -> Transform:
    """Return the step that puts back what was opened, where it would redact; for all else it is as it was."""
    if step.op is not Op.REDACT:
        return transform
    tag = step.tag

    def run(kind: Kind, text: str) -> tuple[Kind, str]:
        clear = opened.get((tag, text)) if kind is Kind.STRING else None
        return transform(kind, text) if clear is None else (clear.kind, clear.text)

    return run
