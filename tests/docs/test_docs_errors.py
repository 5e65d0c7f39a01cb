"""The errors page is held to the errors: each code has a heading, under whose fault it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import gharial.adapters.envoy.ext_proc
import gharial.adapters.store  # noqa: F401
from gharial.model.errors import GharialError, Invalid

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def kinds(base: type[GharialError]) -> Iterator[type[GharialError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


def test_every_error_code_has_a_heading():
    """Each code that a client or an operator can meet is explained, with its status; and no other."""
    page = PAGE.read_text(encoding="utf-8")
    found = dict(re.findall(r"^### `([a-z_.]+)`\n\nStatus ([0-9]{3})\.", page, re.MULTILINE))
    codes = {kind.code: str(kind.status) for kind in kinds(GharialError) if kind is not Invalid}
    assert found == codes
