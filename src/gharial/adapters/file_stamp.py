"""Whether a file changed: what its folder says about it, without reading it."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[int, int, int]


def find_stamp(path: Path) -> Stamp | None:
    """Return (inode, time of the last change in ns, size), or None where the file can't be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
