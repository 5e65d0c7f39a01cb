"""What the benches run on, said the same way by each of them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path


def describe_machine(*packages: str) -> dict[str, str]:
    """Return CPU model, cores, kernel, Python, and the versions of these installed packages."""
    facts = {
        "cpu": cpu_model(),
        "cores": str(os.cpu_count() or "unknown"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    return facts | {name: _version(name) for name in packages}


def machine_line(facts: dict[str, str]) -> str:
    """Return the facts as one line."""
    return "  ".join(f"{key}: {value}" for key, value in facts.items())


def cpu_model() -> str:
    """Return the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
