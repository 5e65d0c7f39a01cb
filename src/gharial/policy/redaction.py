"""`redaction`: what stands in place of a redacted value, by its type."""

from __future__ import annotations

import re

from gharial.model.plan import Redaction
from gharial.model.yaml_text import Node, Scalar
from gharial.policy.reading import Notes, keyed

MAX_REDACTION_CHARS = 200
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,10})?", re.ASCII)


def parse_redaction(node: Node, notes: Notes) -> Redaction:
    """Read the mapping under `redaction`: `string`, `number`, `boolean`; what is not named stays as by default."""
    keys = keyed(node, "redaction", notes, known=("string", "number", "boolean"))
    default = Redaction()
    string, number, boolean = default.string, default.number, default.boolean
    if "string" in keys:
        value = keys["string"].value
        if isinstance(value, Scalar) and isinstance(value.value, str) and len(value.value) <= MAX_REDACTION_CHARS:
            string = value.value
        else:
            notes.add(value, f"a text of at most {MAX_REDACTION_CHARS} characters is wanted here")
    if "number" in keys:
        value = keys["number"].value
        if isinstance(value, Scalar) and not value.quoted and _NUMBER.fullmatch(value.text):
            number = value.text
        else:
            notes.add(value, "a number is wanted here, e.g. 0 or -1")
    if "boolean" in keys:
        value = keys["boolean"].value
        if isinstance(value, Scalar) and isinstance(value.value, bool):
            boolean = "true" if value.value else "false"
        else:
            notes.add(value, "true or false is wanted here")
    return Redaction(string, number, boolean)
