"""The documents of the ladder: records with seven tagged fields, every value of which is planted and looked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

TAGS = ("customerId", "countryOfResidence", "fullName", "email", "msisdn", "dob", "accountNumber")
HIDDEN = "***"
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{20,}")


@dataclass(frozen=True, slots=True)
class Size:
    """One size of document: how many records it holds, and how many different documents there are."""

    name: str
    records: int
    documents: int


SIZES = (Size("0.4KB", 2, 32), Size("10KB", 50, 16), Size("230KB", 1150, 4))


class WrongOutput(Exception):
    """The client did not get what the rung promises."""


def record(number: int) -> dict[str, str]:
    """Return one made-up customer; every value of it holds a number that no other has."""
    return {
        "customerId": f"C-{number:08d}",
        "countryOfResidence": f"Land {number:07d}",
        "fullName": f"Ann Planted{number:07d}",
        "email": f"ann.{number:07d}@planted.example",
        "msisdn": f"+1555{number:07d}",
        "dob": f"19{number % 90 + 10}-04-{number % 28 + 1:02d}",
        "accountNumber": f"77{number:08d}",
    }


def records_of(size: Size, index: int) -> list[dict[str, str]]:
    """Return the records of one document."""
    first = 1_000_000 + index * size.records
    return [record(number) for number in range(first, first + size.records)]


def encode(records: list[dict[str, str]]) -> bytes:
    """Return a document as it stands on the wire."""
    return json.dumps({"customers": records}, separators=(",", ":")).encode()


def body_of(size: Size, index: int) -> bytes:
    """Return one document's bytes."""
    return encode(records_of(size, index))


def planted_values(size: Size, index: int) -> Iterator[bytes]:
    """Yield every value that may not leave unless a rung says so."""
    for one in records_of(size, index):
        yield from (value.encode() for value in one.values())


def check_same(size: Size, index: int, body: bytes) -> None:
    """Raise WrongOutput unless the body is the upstream's, byte for byte."""
    if body != body_of(size, index):
        raise WrongOutput("the body is not the upstream's")


def check_masked(size: Size, index: int, body: bytes) -> None:
    """Raise WrongOutput unless every value is the mask, and nothing planted is left."""
    if body != encode([dict.fromkeys(TAGS, HIDDEN) for _ in range(size.records)]):
        raise WrongOutput("the body is not the masked document")
    _check_nothing_planted(size, index, body)


def check_tokens(size: Size, index: int, body: bytes) -> None:
    """Raise WrongOutput unless every value is a token of its own and nothing planted is left."""
    out = json.loads(body)["customers"]
    if [list(one) for one in out] != [list(TAGS)] * size.records:
        raise WrongOutput("the tokenised document has another shape")
    tokens = [one[tag] for one in out for tag in TAGS]
    if not all(isinstance(token, str) and _TOKEN.fullmatch(token) for token in tokens):
        raise WrongOutput("a value is not a token")
    given = [(tag, one[tag]) for one in records_of(size, index) for tag in TAGS]
    if len(set(tokens)) != len(set(given)):
        raise WrongOutput("two values share a token")
    _check_nothing_planted(size, index, body)


def _check_nothing_planted(size: Size, index: int, body: bytes) -> None:
    if any(value in body for value in planted_values(size, index)):
        raise WrongOutput("a planted value is in the body")
