"""Content codings undone: all of it, within bounds."""

from __future__ import annotations

import contextlib
import gzip
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.model.errors import BodyTooLarge, CodingMalformed
from gharial.model.finding import Limits
from gharial.payload.coding import MAX_MEMBERS, RATIO_FREE_BYTES, Coding, undo_codings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMITS = Limits(body_bytes=4_000_000)


def raw_deflate(data: bytes) -> bytes:
    """The bare stream of RFC 1951, as many servers send it."""
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


PACK: dict[str, tuple[Coding, Callable[[bytes], bytes]]] = {
    "gzip": (Coding.GZIP, gzip.compress),
    "zlib": (Coding.DEFLATE, zlib.compress),
    "raw": (Coding.DEFLATE, raw_deflate),
    "br": (Coding.BR, brotli.compress),
    "zstd": (Coding.ZSTD, zstd.compress),
}
EACH = pytest.mark.parametrize("name", PACK)


def undo(body: bytes, limits: Limits, *codings: Coding) -> bytes:
    return undo_codings(body, codings or (Coding.GZIP,), limits)


@given(st.lists(st.binary(max_size=300_000), min_size=1, max_size=4))
def test_every_member_is_inflated(parts: list[bytes]) -> None:
    """A body of several members gives the content of all of them."""
    assert undo(b"".join(map(gzip.compress, parts)), LIMITS) == b"".join(parts)


@pytest.mark.parametrize("rest", [b"\0", b"x", b"\x1f\x8b", b"\0" * 512, b'{"email":"a@b.org"}'])
def test_anything_after_the_last_member_is_refused(rest: bytes) -> None:
    """What a client might read and the gate did not is refused, padding too."""
    with pytest.raises(CodingMalformed):
        undo(gzip.compress(b"{}") + rest, LIMITS)


@given(st.binary(min_size=1, max_size=2000), st.data())
def test_a_truncated_body_is_refused(content: bytes, data: st.DataObject) -> None:
    """No prefix of a gzip body passes for the whole."""
    packed = gzip.compress(content)
    with pytest.raises(CodingMalformed):
        undo(packed[: data.draw(st.integers(0, len(packed) - 1))], LIMITS)


def test_a_wrong_checksum_is_refused() -> None:
    """The CRC is checked."""
    packed = bytearray(gzip.compress(b'{"a":1}'))
    packed[-8] ^= 1
    with pytest.raises(CodingMalformed):
        undo(bytes(packed), LIMITS)


def test_a_wrong_length_is_refused() -> None:
    """The length in the trailer is checked."""
    packed = bytearray(gzip.compress(b'{"a":1}'))
    packed[-1] ^= 1
    with pytest.raises(CodingMalformed):
        undo(bytes(packed), LIMITS)


@pytest.mark.parametrize("body", [b"", b"{}", zlib.compress(b"{}")])
def test_what_is_not_gzip_is_refused(body: bytes) -> None:
    """A body that only claims to be gzip is not read some other way."""
    with pytest.raises(CodingMalformed):
        undo(body, LIMITS)


def test_the_size_limit_is_exact() -> None:
    """`body_bytes` passes, one byte more does not."""
    content = bytes(range(250)) * 4
    assert undo(gzip.compress(content), Limits(body_bytes=1000)) == content
    with pytest.raises(BodyTooLarge):
        undo(gzip.compress(content), Limits(body_bytes=999))


def test_a_body_too_large_as_sent_is_refused() -> None:
    """The limit holds before decoding as well."""
    with pytest.raises(BodyTooLarge):
        undo(gzip.compress(b"{}"), Limits(body_bytes=5))


def test_a_bomb_is_refused_by_its_ratio() -> None:
    """What inflates beyond the ratio is refused before the size limit is reached."""
    with pytest.raises(CodingMalformed, match="100 times"):
        undo(gzip.compress(bytes(50_000_000)), Limits(body_bytes=1 << 30))


def test_small_regular_bodies_pass_whatever_their_ratio() -> None:
    """A small list of equal records is no bomb."""
    content = b'{"plan":"gold"},' * (RATIO_FREE_BYTES // 16)
    packed = gzip.compress(content, 9)
    assert len(content) > 100 * len(packed)
    assert undo(packed, LIMITS) == content


def test_a_bomb_takes_no_memory() -> None:
    """No more is held than the bound, and the joining of it."""
    packed = gzip.compress(bytes(200_000_000))
    tracemalloc.start()
    with pytest.raises(CodingMalformed):
        undo(packed, Limits(body_bytes=1 << 30, inflate_ratio=10))
    assert tracemalloc.get_traced_memory()[1] < 3 * max(RATIO_FREE_BYTES, 10 * len(packed))
    tracemalloc.stop()


def test_a_crowd_of_empty_members_is_refused_quickly() -> None:
    """Many members cost no more than bounded time."""
    empty = gzip.compress(b"")
    assert undo(empty * MAX_MEMBERS, LIMITS) == b""
    started = time.perf_counter()
    with pytest.raises(CodingMalformed):
        undo(empty * 150_000, LIMITS)
    assert time.perf_counter() - started < 30


@given(st.binary(min_size=1, max_size=400), st.integers(0, 10_000), st.integers(0, 255))
def test_a_flipped_byte_is_refused_or_harmless(content: bytes, at: int, value: int) -> None:
    """A damaged body is refused, or damaged only where nothing of the content stands (the header's time)."""
    packed = bytearray(gzip.compress(content))
    packed[at % len(packed)] = value
    with contextlib.suppress(CodingMalformed):
        assert undo(bytes(packed), LIMITS) == content


@EACH
@given(st.binary(max_size=200_000))
def test_each_coding_is_undone(name: str, content: bytes) -> None:
    """What was packed comes out, whatever it is."""
    coding, pack = PACK[name]
    assert undo(pack(content), LIMITS, coding) == content


@given(st.lists(st.sampled_from(sorted(PACK)), min_size=2, max_size=3), st.binary(max_size=3000))
def test_codings_on_top_of_each_other_are_undone_from_the_last(names: list[str], content: bytes) -> None:
    """Codings come off in the opposite order; in another order the body is refused or wrong, never half read."""
    packed = content
    for name in names:
        packed = PACK[name][1](packed)
    assert undo(packed, LIMITS, *(PACK[name][0] for name in names)) == content


@EACH
@pytest.mark.parametrize("rest", [b"\0", b"x", b"\0" * 70_000, b'{"email":"a@b.org"}', b"\x1f\x8b"])
def test_bytes_behind_the_end_are_refused(name: str, rest: bytes) -> None:
    """What a client might read and the gate did not is refused, near the end and far behind it."""
    coding, pack = PACK[name]
    for content in (b"{}", bytes(100_000)):
        with pytest.raises(CodingMalformed):
            undo(pack(content) + rest, LIMITS, coding)


@EACH
@given(st.binary(min_size=1, max_size=2000), st.data())
def test_no_beginning_passes_for_the_whole(name: str, content: bytes, data: st.DataObject) -> None:
    """A truncated body is refused."""
    coding, pack = PACK[name]
    packed = pack(content)
    with pytest.raises(CodingMalformed):
        undo(packed[: data.draw(st.integers(0, len(packed) - 1))], LIMITS, coding)


@EACH
def test_a_second_stream_is_read_or_refused(name: str) -> None:
    """gzip and zstd are made of members, all of which are read; of the others a second one is refused."""
    coding, pack = PACK[name]
    if name in ("gzip", "zstd"):
        assert undo(pack(b"one") + pack(b"two"), LIMITS, coding) == b"onetwo"
        with pytest.raises(CodingMalformed):
            undo(pack(b"") * (MAX_MEMBERS + 1), LIMITS, coding)
    else:
        with pytest.raises(CodingMalformed):
            undo(pack(b"one") + pack(b"two"), LIMITS, coding)


@EACH
@given(st.binary(max_size=300))
def test_any_bytes_are_undone_or_refused(name: str, body: bytes) -> None:
    """Rubbish raises what is expected and nothing else."""
    with contextlib.suppress(CodingMalformed):
        undo(body, LIMITS, PACK[name][0])


@EACH
def test_the_limits_of_each_coding_are_exact(name: str) -> None:
    """`body_bytes` passes, one more does not; a bomb is refused by its ratio before it is held."""
    coding, pack = PACK[name]
    content = bytes(range(250)) * 4
    assert undo(pack(content), Limits(body_bytes=1000), coding) == content
    with pytest.raises(BodyTooLarge):
        undo(pack(content), Limits(body_bytes=999), coding)
    packed = pack(bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(CodingMalformed, match="10 times"):
        undo(packed, Limits(body_bytes=1 << 30, inflate_ratio=10), coding)
    assert tracemalloc.get_traced_memory()[1] < 4 * max(RATIO_FREE_BYTES, 10 * len(packed))
    tracemalloc.stop()


def test_a_bomb_in_a_bomb_is_measured_by_what_was_sent() -> None:
    """The ratio holds for all codings together, so that bombs don't multiply."""
    packed = brotli.compress(gzip.compress(bytes(20_000_000)))
    with pytest.raises(CodingMalformed, match="100 times"):
        undo(packed, Limits(body_bytes=1 << 30), Coding.GZIP, Coding.BR)


def test_a_zstd_frame_may_not_demand_more_than_8_megabytes_of_window() -> None:
    """RFC 9659: what needs a larger window is refused before it is allocated."""
    options = {zstd.CompressionParameter.window_log: 25, zstd.CompressionParameter.enable_long_distance_matching: 1}
    stream = zstd.ZstdCompressor(options=options)
    packed = stream.compress(bytes(30_000_000)) + stream.flush()
    with pytest.raises(CodingMalformed):
        undo(packed, Limits(body_bytes=1 << 30, inflate_ratio=1 << 20), Coding.ZSTD)


def test_a_skippable_frame_is_read_over_and_a_cut_one_refused() -> None:
    """Skippable frames of zstd hold nothing for readers; they count as members."""
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    assert undo(skipped + zstd.compress(b"{}") + skipped, LIMITS, Coding.ZSTD) == b"{}"
    with pytest.raises(CodingMalformed):
        undo(zstd.compress(b"{}") + skipped[:-1], LIMITS, Coding.ZSTD)
