"""The country of an address, from a file in MaxMind's format (GeoLite2, GeoIP2; maxmind.github.io/MaxMind-DB).

Needs the extra `geo`. The file is read into memory, so that replacing it in place can't pull it away underneath.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gharial.adapters.file_stamp import find_stamp
from gharial.model.errors import ConfigInvalid, Problem

if TYPE_CHECKING:
    import maxminddb

_MAX_FILE_BYTES = 1_000_000_000
_MAX_CACHED = 10_000


class _FileUnusable(Exception):
    """The file can't be used; the text says why, without quoting it."""


class GeoFile:
    """The port `GeoLookup` over a file. Raises ConfigInvalid if the first file can't be used.

    The file is re-read when it changed. A new one that can't be used leaves the old one in place; `problem` then says
    why, and is empty otherwise; `on_problem` is told each time it changes.
    """

    def __init__(self, path: Path, on_problem: Callable[[str], object] = lambda _: None) -> None:
        self._path = path
        self._on_problem = on_problem
        self._known: OrderedDict[str, str] = OrderedDict()
        self.problem = ""
        self._seen = find_stamp(path)
        try:
            self._reader = _load(path)
        except _FileUnusable as error:
            raise ConfigInvalid([Problem(str(path), 1, 1, str(error))]) from None

    def find_country(self, address: str) -> str:
        """Return where an IP address is used: the file's `country.iso_code`, or empty if it does not say."""
        self._look()
        known = self._known.get(address)
        if known is not None:
            self._known.move_to_end(address)
            return known
        found = self._known[address] = self._find(address)
        if len(self._known) > _MAX_CACHED:
            self._known.popitem(last=False)
        return found

    def _find(self, address: str) -> str:
        import maxminddb

        try:
            record = self._reader.get(address)
        except (ValueError, maxminddb.InvalidDatabaseError):
            # An IPv6 address and a file of IPv4, or a file that is broken at this place only.
            return ""
        country = record.get("country") if isinstance(record, dict) else None
        code = country.get("iso_code") if isinstance(country, dict) else None
        return code if isinstance(code, str) else ""

    def _look(self) -> None:
        stamp = find_stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._reader = _load(self._path)
        except _FileUnusable as error:
            self._tell(str(error))
            return
        self._known.clear()
        self._tell("")

    def _tell(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            self._on_problem(problem)


def _load(path: Path) -> maxminddb.Reader:
    try:
        import maxminddb
    except ImportError:
        raise _FileUnusable("reading it needs the extra geo: pip install 'gharial[geo]'") from None
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise _FileUnusable("the file is too large")
        reader = maxminddb.open_database(path, maxminddb.MODE_MEMORY)
    except OSError as error:
        raise _FileUnusable(f"can't be read ({type(error).__name__})") from None
    except (maxminddb.InvalidDatabaseError, ValueError, TypeError, KeyError, IndexError, UnicodeDecodeError):
        raise _FileUnusable("this is not a file in MaxMind's format") from None
    return reader
