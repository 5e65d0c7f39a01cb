"""What a gateway runs by, kept in its run folder: a gate that is started anew runs by the same, whatever was edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gharial.adapters.replace_file import replace_file
from gharial.gate.publishing import PolicyText
from gharial.model.errors import GateUnavailable, StoreUnwritable


class _File(msgspec.Struct, forbid_unknown_fields=True):
    config: str
    policies: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ActiveTexts:
    """The text of gharial.yaml, and of each policy file."""

    config: str = field(repr=False)
    policies: tuple[PolicyText, ...]


class ActiveFile:
    """The texts that are active, in one file that is replaced as a whole."""

    def __init__(self, path: Path, texts: ActiveTexts) -> None:
        self._path = path
        self.texts = texts

    @classmethod
    def load(cls, path: Path) -> ActiveFile:
        """Read what `keep` wrote. Raises GateUnavailable if it is not there, or is not that."""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            raise GateUnavailable(f"{path} can't be used; start the gateway anew with 'gharial up'") from None
        policies = tuple(PolicyText(file, text) for file, text in found.policies)
        return cls(path, ActiveTexts(found.config, policies))

    def keep(self, policies: Sequence[PolicyText]) -> None:
        """Have these policies be the active ones from now on; returns when that is on disk. Raises StoreUnwritable."""
        texts = ActiveTexts(self.texts.config, tuple(policies))
        data = msgspec.json.encode(_File(texts.config, [(one.file, one.text) for one in texts.policies]))
        try:
            replace_file(self._path, data)
        except OSError as error:
            raise StoreUnwritable(f"{self._path} can't be written ({type(error).__name__})") from None
        self.texts = texts
