"""gzip undone: all of it, within bounds."""

from __future__ import annotations

import contextlib
import gzip
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.model.errors import BodyTooLarge, CodingMalformed
from gharial.model.finding import Limits
from gharial.payload.coding import MAX_MEMBERS, RATIO_FREE_BYTES, inflate

LIMITS = Limits(body_bytes=4_000_000)


@given(st.lists(st.binary(max_size=300_000), min_size=1, max_size=4))
def test_every_member_is_inflated(parts: list[bytes]) -> None:
    """A body of several members gives the content of all of them."""
    assert inflate(b"".join(map(gzip.compress, parts)), LIMITS) == b"".join(parts)


@pytest.mark.parametrize("rest", [b"\0", b"x", b"\x1f\x8b", b"\0" * 512, b'{"email":"a@b.org"}'])
def test_anything_after_the_last_member_is_refused(rest: bytes) -> None:
    """What a client might read and the gate did not is refused, padding too."""
    with pytest.raises(CodingMalformed):
        inflate(gzip.compress(b"{}") + rest, LIMITS)


@given(st.binary(min_size=1, max_size=2000), st.data())
def test_a_truncated_body_is_refused(content: bytes, data: st.DataObject) -> None:
    """No prefix of a gzip body passes for the whole."""
    packed = gzip.compress(content)
    with pytest.raises(CodingMalformed):
        inflate(packed[: data.draw(st.integers(0, len(packed) - 1))], LIMITS)


def test_a_wrong_checksum_is_refused() -> None:
    """The CRC is checked."""
    packed = bytearray(gzip.compress(b'{"a":1}'))
    packed[-8] ^= 1
    with pytest.raises(CodingMalformed):
        inflate(bytes(packed), LIMITS)


def test_a_wrong_length_is_refused() -> None:
    """The length in the trailer is checked."""
    packed = bytearray(gzip.compress(b'{"a":1}'))
    packed[-1] ^= 1
    with pytest.raises(CodingMalformed):
        inflate(bytes(packed), LIMITS)


@pytest.mark.parametrize("body", [b"", b"{}", zlib.compress(b"{}")])
def test_what_is_not_gzip_is_refused(body: bytes) -> None:
    """A body that only claims to be gzip is not read some other way."""
    with pytest.raises(CodingMalformed):
        inflate(body, LIMITS)


def test_the_size_limit_is_exact() -> None:
    """`body_bytes` passes, one byte more does not."""
    content = bytes(range(250)) * 4
    assert inflate(gzip.compress(content), Limits(body_bytes=1000)) == content
    with pytest.raises(BodyTooLarge):
        inflate(gzip.compress(content), Limits(body_bytes=999))


def test_a_body_too_large_as_sent_is_refused() -> None:
    """The limit holds before decoding as well."""
    with pytest.raises(BodyTooLarge):
        inflate(gzip.compress(b"{}"), Limits(body_bytes=5))


def test_a_bomb_is_refused_by_its_ratio() -> None:
    """What inflates beyond the ratio is refused before the size limit is reached."""
    with pytest.raises(CodingMalformed, match="100 times"):
        inflate(gzip.compress(bytes(50_000_000)), Limits(body_bytes=1 << 30))


def test_small_regular_bodies_pass_whatever_their_ratio() -> None:
    """A small list of equal records is no bomb."""
    content = b'{"plan":"gold"},' * (RATIO_FREE_BYTES // 16)
    packed = gzip.compress(content, 9)
    assert len(content) > 100 * len(packed)
    assert inflate(packed, LIMITS) == content


def test_a_bomb_takes_no_memory() -> None:
    """No more is held than the bound, and the joining of it."""
    packed = gzip.compress(bytes(200_000_000))
    tracemalloc.start()
    with pytest.raises(CodingMalformed):
        inflate(packed, Limits(body_bytes=1 << 30, inflate_ratio=10))
    assert tracemalloc.get_traced_memory()[1] < 3 * max(RATIO_FREE_BYTES, 10 * len(packed))
    tracemalloc.stop()


def test_a_crowd_of_empty_members_is_refused_quickly() -> None:
    """Many members cost no more than bounded time."""
    empty = gzip.compress(b"")
    assert inflate(empty * MAX_MEMBERS, LIMITS) == b""
    started = time.perf_counter()
    with pytest.raises(CodingMalformed):
        inflate(empty * 150_000, LIMITS)
    assert time.perf_counter() - started < 30


@given(st.binary(min_size=1, max_size=400), st.integers(0, 10_000), st.integers(0, 255))
def test_a_flipped_byte_is_refused_or_harmless(content: bytes, at: int, value: int) -> None:
    """A damaged body is refused, or damaged only where nothing of the content stands (the header's time)."""
    packed = bytearray(gzip.compress(content))
    packed[at % len(packed)] = value
    with contextlib.suppress(CodingMalformed):
        assert inflate(bytes(packed), LIMITS) == content
