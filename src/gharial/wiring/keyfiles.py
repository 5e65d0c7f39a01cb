"""Makes key files: the keyset wrapped by its KEK, and for a first try the KEK's own file."""

from __future__ import annotations

from pathlib import Path

from gharial.adapters.files import load_kek, write_private_file
from gharial.crypto.keyfile import wrap_keyset
from gharial.crypto.keyset import create_keyset, new_kek, parse_kek
from gharial.model.errors import AlreadyExists
from gharial.settings import load_settings
from gharial.wiring.world import SystemClock, random_bytes


def make_key_files(key_file: Path, kek_file: Path) -> None:
    """Write a fresh KEK and a fresh keyset wrapped by it, both of mode 0600."""
    kek = new_kek(random_bytes)
    write_private_file(kek_file, kek.encode() + b"\n")
    _write_keyset(key_file, parse_kek(kek))


def make_key_file(config_path: Path) -> Path:
    """Write the key file that a configuration names, wrapped by the KEK that it names. Raises AlreadyExists."""
    settings = load_settings(config_path)
    base = config_path.resolve().parent
    key_file = base / settings.keys.file
    kek = load_kek(settings, base)
    if key_file.exists():
        raise AlreadyExists(f"there is a key file {key_file} already; a new one would make its tokens unreadable")
    _write_keyset(key_file, kek)
    return key_file


def _write_keyset(key_file: Path, kek: bytes) -> None:
    keyset = create_keyset(random_bytes, SystemClock().now_s())
    write_private_file(key_file, wrap_keyset(keyset, kek, random_bytes))
