"""The one entry that the gate uses."""

from __future__ import annotations

import gzip

import pytest
from support.plans import make_plan, transforms_of

from gharial.model.errors import BodyTooLarge, CodingMalformed
from gharial.model.finding import Limits
from gharial.model.plan import Op
from gharial.payload.coding import Coding
from gharial.payload.media import Format, Media
from gharial.payload.rewrite import open_body

PLAN = make_plan({"$..email": Op.MASK})
BODY = b'{"email":"a@b.org"}'
GZIP = Media(Format.JSON, (Coding.GZIP,))


@pytest.mark.parametrize(
    ("media", "body"), [(Media(), BODY), (GZIP, gzip.compress(BODY, mtime=0))], ids=["plain", "gzip"]
)
def test_a_body_is_decoded_and_rewritten(media: Media, body: bytes) -> None:
    """Plain or gzip, what comes out is plain and protected."""
    reader = open_body(PLAN, media, body, Limits())
    assert len(reader.survey()) == 1
    assert reader.finish([0], transforms_of(PLAN)).body == b'{"email":"***"}'


def test_the_size_limit_holds_after_decoding() -> None:
    """A body is measured as it is read."""
    with pytest.raises(BodyTooLarge):
        open_body(PLAN, GZIP, gzip.compress(BODY * 100), Limits(body_bytes=1000))
    with pytest.raises(BodyTooLarge):
        open_body(PLAN, Media(), BODY, Limits(body_bytes=len(BODY) - 1))


def test_a_coding_that_is_not_what_it_says_is_refused() -> None:
    """Plain bytes under gzip, and gzip bytes under nothing, are both refused."""
    with pytest.raises(CodingMalformed):
        open_body(PLAN, GZIP, BODY, Limits())
