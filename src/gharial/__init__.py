"""Gharial: protects the data that leaves through APIs.

`gharial.load` opens a gate inside a Python program; see docs/library.md. Everything else of the package is its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["Caller", "Gharial", "GharialError", "GharialMiddleware", "GharialWsgiMiddleware", "__version__", "load"]

if TYPE_CHECKING:
    from gharial.adapters.embedded.asgi import GharialMiddleware
    from gharial.adapters.embedded.wsgi import GharialWsgiMiddleware
    from gharial.gate.vouch import Caller
    from gharial.model.errors import GharialError
    from gharial.wiring.library import Gharial, load

_HOMES = {
    "Caller": "gharial.gate.vouch",
    "Gharial": "gharial.wiring.library",
    "GharialError": "gharial.model.errors",
    "GharialMiddleware": "gharial.adapters.embedded.asgi",
    "GharialWsgiMiddleware": "gharial.adapters.embedded.wsgi",
    "load": "gharial.wiring.library",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import gharial` itself takes next to no time."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'gharial' has no attribute '{name}'")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
