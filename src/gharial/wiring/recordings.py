"""The recording of a running gate: at most one, switched on and off by its operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gharial.adapters.recording_file import Bounds, RecordingFile
from gharial.gate.recording import Describer
from gharial.gate.services import Services
from gharial.model.errors import AlreadyExists, RequestMalformed


class FileRecordings:
    """Implements `adapters.admin.Recordings`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._file: RecordingFile | None = None

    def start(self, path: Path, for_s: float, exchanges: int, size_bytes: int, routes: frozenset[str]) -> None:
        """See Recordings. Raises AlreadyExists while one runs, and for a file that is there; RequestMalformed."""
        services = self._services
        if self._file is not None and self._file.state.ended is None:
            raise AlreadyExists("a recording runs already; 'gharial record --stop' ends it")
        if not path.is_absolute() or for_s <= 0 or exchanges < 1 or size_bytes < 1:
            raise RequestMalformed("a recording needs an absolute path, and bounds above 0")
        unknown = routes - {rule.name for rule in services.routes.rules if rule.policy}
        if unknown:
            raise RequestMalformed(f"there is no protected route {', '.join(sorted(unknown))}")
        self.close()
        describer = Describer(
            tenant=services.tenant,
            keyset=services.keyset,
            limits=services.limits,
            iso_time=services.iso_time,
        )
        bounds = Bounds(services.clock.now_s() + for_s, exchanges, size_bytes, routes)
        self._file = RecordingFile(path, bounds, describer, now_s=services.clock.now_s, on_end=self._switch_off)
        services.recording.recorder = self._file

    def stop(self) -> None:
        """See Recordings. Nothing happens where none runs."""
        self.close()

    def status(self) -> dict[str, Any]:
        """See Recordings."""
        if self._file is None:
            return {"state": "none"}
        state = self._file.state
        return {
            "state": "ended" if state.ended else "running",
            "why": str(state.ended or ""),
            "file": str(state.path),
            "exchanges": state.exchanges,
            "bytes": state.size_bytes,
            "lost": state.lost,
            "left_s": 0.0 if state.ended else round(max(0.0, state.until_s - self._services.clock.now_s()), 1),
        }

    def close(self) -> None:
        """End the recording if one runs, and its thread."""
        self._switch_off()
        if self._file is not None:
            self._file.close()

    def _switch_off(self) -> None:
        self._services.recording.recorder = None
