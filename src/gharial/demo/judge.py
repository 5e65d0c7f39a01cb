"""The judge: whether a reply shows a person in clear. One function for the open door and the gate alike."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

PERSONAL_FIELDS = ("fullName", "email", "msisdn", "dob", "accountNumber")
PUBLIC_FIELDS = ("plan", "lines", "country")
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ROUNDS = 3


def in_clear(customer: Mapping[str, Any], reply: bytes) -> bool:
    """True if the name, e-mail, phone, birth date or account number of the asked customer stands in the reply.

    Looked for in the bytes as they came, and again with JSON's escapes undone (up to three times over, for JSON within
    a string), so that another spelling of a value is still that value. What can't be parsed is judged all the same.
    """
    values = [str(customer[name]) for name in PERSONAL_FIELDS]
    text = reply.decode("utf-8", "replace")
    for _ in range(_ROUNDS):
        if any(value in text for value in values):
            return True
        if "\\" not in text:
            return False
        text = _unescape(text)
    return any(value in text for value in values)


def _unescape(text: str) -> str:
    plain = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _SHORT.get(m[2], m[2]), text)
    # Characters beyond U+FFFF are escaped as two surrogates; joined, they are comparable again.
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def has_public_fields(customer: Mapping[str, Any], body: bytes) -> bool:
    """True if the reply is a record with plan, number of lines and country, and they are this customer's."""
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and all(
        name in record and type(record[name]) is type(customer[name]) and record[name] == customer[name]
        for name in PUBLIC_FIELDS
    )
