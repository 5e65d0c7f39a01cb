"""Writes tiny files in MaxMind's format, version 2.0 (maxmind.github.io/MaxMind-DB): just what a lookup needs."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

_EMPTY = -1


def write_mmdb(countries: Mapping[str, str], *, ip_version: int = 6) -> bytes:
    """Return a file that tells `{"country": {"iso_code": …}}` for each network; IPv4 lies below ::/96."""
    nodes: list[list[int]] = [[_EMPTY, _EMPTY]]
    data = b""
    offsets: dict[str, int] = {}
    for network_text, code in countries.items():
        if code not in offsets:
            offsets[code] = len(data)
            data += _map({"country": _map({"iso_code": _text(code)})})
        _insert(nodes, _bits(network_text, ip_version), -2 - offsets[code])
    count = len(nodes)

    def record(value: int) -> bytes:
        pointer = value if value >= 0 else count if value == _EMPTY else count + 16 + (-2 - value)
        return pointer.to_bytes(3, "big")

    tree = b"".join(record(left) + record(right) for left, right in nodes)
    metadata = {
        "binary_format_major_version": _number(2, 5),
        "binary_format_minor_version": _number(0, 5),
        "build_epoch": _number(1_700_000_000, 9),
        "database_type": _text("Test-Country"),
        "description": _map({}),
        "ip_version": _number(ip_version, 5),
        "languages": b"\x00\x04",
        "node_count": _number(count, 6),
        "record_size": _number(24, 5),
    }
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + _map(metadata)


def _bits(network_text: str, ip_version: int) -> list[int]:
    network = ipaddress.ip_network(network_text)
    length = 32 if network.version == 4 else 128
    number = int(network.network_address)
    bits = [number >> (length - 1 - at) & 1 for at in range(network.prefixlen)]
    return [0] * 96 + bits if network.version == 4 and ip_version == 6 else bits


def _insert(nodes: list[list[int]], bits: list[int], leaf: int) -> None:
    at = 0
    for bit in bits[:-1]:
        if nodes[at][bit] == _EMPTY:
            nodes.append([_EMPTY, _EMPTY])
            nodes[at][bit] = len(nodes) - 1
        at = nodes[at][bit]
    nodes[at][bits[-1]] = leaf


def _text(text: str) -> bytes:
    raw = text.encode()
    assert len(raw) < 29
    return bytes([2 << 5 | len(raw)]) + raw


def _number(value: int, kind: int) -> bytes:
    """An unsigned integer of kind 5 (16 bits), 6 (32) or 9 (64, an extended kind)."""
    raw = value.to_bytes(8, "big").lstrip(b"\0")
    return (bytes([kind << 5 | len(raw)]) if kind < 8 else bytes([len(raw), kind - 7])) + raw


def _map(entries: Mapping[str, bytes]) -> bytes:
    assert len(entries) < 29
    return bytes([7 << 5 | len(entries)]) + b"".join(_text(key) + value for key, value in entries.items())
