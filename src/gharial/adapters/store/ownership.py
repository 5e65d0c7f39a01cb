"""One owner per store: a lock beside the file, because two owners of one budget are none."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from gharial.model.errors import StoreInUse, StoreUnwritable


class OwnerLock:
    """An exclusive `flock` on `<store>.lock`, held until `release` or the end of the process, however it ends."""

    def __init__(self, store: Path) -> None:
        """Take the lock. Raises StoreInUse if another process (or this one) holds it, StoreUnwritable if it can't."""
        path = store.with_name(store.name + ".lock")
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise StoreUnwritable(f"{path} can't be opened: {err.strerror}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise StoreInUse(
                f"{store} is already open in process {owner or '(unknown)'}: two owners of one budget are none. "
                "Stop that process, or give this one a store of its own."
            ) from None
        except OSError as err:
            os.close(self._fd)
            raise StoreUnwritable(f"{path} can't be locked: {err.strerror}") from None
        # Only for the message above; a full disk must not keep the owner from starting.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go of the store. The lock file stays: removing it would let two processes lock two files."""
        os.close(self._fd)
