"""SecretBytes: key material as bytes that libraries take and that print, pickle and copy nowhere."""

from __future__ import annotations

import hmac
from typing import NoReturn


class SecretBytes(bytes):
    """Key material. Its repr and str are constant, it can't be pickled or copied, and `==` takes constant time.

    Not a vault: Python can't wipe memory, and whoever can read the process can read the key. It keeps keys out of
    logs, tracebacks with local variables, and messages between processes.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"

    def __str__(self) -> str:
        return "<secret>"

    def __format__(self, spec: str) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and hmac.compare_digest(bytes(self), bytes(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    # Constant, since the hash of a key would be a fact about the key; no table of secrets grows large.
    def __hash__(self) -> int:
        return 0

    def __reduce__(self) -> NoReturn:
        raise TypeError("key material can't be pickled or copied")
