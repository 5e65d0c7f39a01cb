"""The country of an address: from a real file in MaxMind's format, replaced and broken while in use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.mmdb import write_mmdb

from gharial.adapters.geo import GeoFile
from gharial.model.errors import ConfigInvalid

pytest.importorskip("maxminddb", reason="the extra geo is not installed")
pytestmark = pytest.mark.services

NETWORKS = {"198.51.100.0/24": "IT", "203.0.113.7/32": "CH", "2001:db8:9::/48": "DE"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "geo.mmdb"
    path.write_bytes(write_mmdb(NETWORKS))
    return path


def replace(path: Path, content: bytes) -> None:
    """As a careful tool does it: a new file takes the name of the old one."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    os.replace(fresh, path)


@pytest.mark.parametrize(
    ("address", "country"),
    [
        ("198.51.100.9", "IT"),
        ("203.0.113.7", "CH"),
        ("203.0.113.8", ""),
        ("2001:db8:9::1", "DE"),
        ("2001:db8:8::1", ""),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_the_file_tells_the_country(path, address, country):
    """Both kinds of addresses; what the file does not know is empty, and so is what is no address."""
    assert GeoFile(path).find_country(address) == country


def test_an_ipv6_address_in_a_file_of_ipv4_is_unknown(path):
    """The library raises; the answer is that nothing is known."""
    path.write_bytes(write_mmdb({"198.51.100.0/24": "IT"}, ip_version=4))
    geo = GeoFile(path)
    assert (geo.find_country("198.51.100.1"), geo.find_country("2001:db8::1")) == ("IT", "")


def test_a_new_file_counts_at_once(path):
    """Replaced by another name or written in place: the next lookup reads it, and forgets what the old one said."""
    geo = GeoFile(path)
    assert geo.find_country("198.51.100.9") == "IT"
    replace(path, write_mmdb({"198.51.100.0/24": "FR"}))
    assert geo.find_country("198.51.100.9") == "FR"
    path.write_bytes(write_mmdb({"198.51.100.0/24": "SE", "8.8.8.8/32": "US"}))
    assert geo.find_country("198.51.100.9") == "SE"


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xab\xcd\xefMaxMind.com", write_mmdb(NETWORKS)[:-40]])
def test_a_file_that_can_not_be_used(path, tmp_path, content):
    """At the start it stops the gateway; later the old one stays in use, and that is told once and taken back."""
    told: list[str] = []
    geo = GeoFile(path, told.append)
    replace(path, content)
    with pytest.raises(ConfigInvalid):
        GeoFile(path)
    assert [geo.find_country("198.51.100.9") for _ in range(3)] == ["IT"] * 3
    path.unlink()
    assert geo.find_country("203.0.113.7") == "CH"
    replace(path, write_mmdb(NETWORKS))
    assert geo.find_country("203.0.113.7") == "CH"
    assert told[0]
    assert (told[-1], geo.problem) == ("", "")


def test_a_record_of_another_kind_is_unknown(path):
    """City, network and company files have other records; only a country's code counts, checked by who asks."""
    path.write_bytes(write_mmdb(NETWORKS).replace(b"iso_code", b"iso_kode"))
    assert GeoFile(path).find_country("198.51.100.9") == ""


def test_what_is_remembered_is_bounded(path):
    """A caller behind many addresses takes no more memory than ten thousand of them."""
    geo = GeoFile(path)
    for number in range(12_000):
        geo.find_country(f"198.{number // 256}.{number % 256}.1")
    assert len(geo._known) == 10_000
