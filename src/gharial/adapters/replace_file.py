"""One way to put a file in the place of another: as a whole, on disk, for its owner alone."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Have `data` stand at `path`, mode 0600; whoever reads finds the old content or the new one. Raises OSError.

    When it returns, the new content and its name are on disk; when it raises, the old content stands there as it was
    (only after a failed sync of the folder, the very last step, it is the new one).
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on disk, or its file system knows no such thing. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
