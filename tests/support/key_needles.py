"""Key material as it could lie in a text or a file: raw, hexadecimal, base64 at each alignment, Python's repr."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Iterable
from pathlib import Path

from gharial.crypto.keyset import Keyset, living_materials


def key_needles(*secrets: bytes) -> tuple[bytes, ...]:
    """Each spelling of each secret. A run of twelve bytes of it is enough to be found."""
    found: list[bytes] = []
    for secret in map(bytes, secrets):
        for part in (secret[:12], secret[-12:]):
            found += [part, part.hex().encode(), part.hex().upper().encode(), repr(part)[2:-1].encode()]
            for shift in range(3):
                for encode in (base64.b64encode, base64.urlsafe_b64encode):
                    # What depends on the neighbours alone is cut off at both ends.
                    found.append(encode(b"\0" * shift + part)[4 if shift else 0 : (shift + len(part)) // 3 * 4])
    return tuple(dict.fromkeys(found))


def materials(*keysets: Keyset) -> tuple[bytes, ...]:
    """The material of all keys of these keysets that are not destroyed."""
    return tuple(bytes(material) for keyset in keysets for material in living_materials(keyset).values())


def leaks_in(text: str | bytes, needles: Iterable[bytes]) -> list[bytes]:
    """The needles that stand in a text."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return [needle for needle in needles if needle in data]


def leaks_in_error(error: BaseException, needles: Iterable[bytes]) -> list[bytes]:
    """The needles in an error's text, its repr, and its traceback with all local variables of all its causes."""
    frames = error.__traceback__
    while frames is not None and "/tests/" in frames.tb_frame.f_code.co_filename:
        # The test itself knows the keys; what it called is looked at.
        frames = frames.tb_next
    told = traceback.TracebackException(type(error), error, frames, capture_locals=True)
    return leaks_in("".join([str(error), repr(error), *told.format()]), needles)


def leaks_in_files(folder: Path, needles: Iterable[bytes], *, but: Iterable[Path] = ()) -> list[Path]:
    """The files under a folder, without some, that hold a needle."""
    skipped = {path.resolve() for path in but}
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.resolve() not in skipped and leaks_in(path.read_bytes(), needles)
    ]
