"""The routes of the Envoy that we start ourselves: written into its file, and watched until it goes by them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from gharial.adapters.envoy.config import RouteFile, envoy_routes, route_file
from gharial.adapters.envoy.process import EnvoyAdmin
from gharial.adapters.replace_file import replace_file
from gharial.gate.routes import RouteKind, RouteRule
from gharial.model.errors import ProxyNotChanged
from gharial.settings import Settings

TAKEN_WITHIN_S = 10.0
"""How long Envoy may take; it may just be starting anew."""

_POLL_S = 0.02


class EnvoyRoutes:
    """Implements `gate.ports.ProxyRoutes` for one Envoy."""

    def __init__(
        self,
        settings: Settings,
        rules: Sequence[RouteRule],
        path: Path,
        admin: EnvoyAdmin,
        within_s: float = TAKEN_WITHIN_S,
    ) -> None:
        self._settings = settings
        self._rules = rules
        self._path = path
        self._admin = admin
        self._within_s = within_s
        self._made = RouteFile("", b"")

    def tell(self, kinds: Mapping[str, RouteKind], reads: Collection[str] = ()) -> None:
        """See ProxyRoutes. A file that says the same already is left alone."""
        self._made = route_file(self._settings, envoy_routes(self._settings, self._rules, kinds, reads))
        with contextlib.suppress(OSError):
            if self._path.read_bytes() == self._made.data:
                return
        self.tell_again()

    def tell_again(self) -> None:
        """Put the file in its place once more, so that Envoy looks at it. Raises ProxyNotChanged."""
        try:
            replace_file(self._path, self._made.data)
        except OSError as error:
            raise ProxyNotChanged(f"{self._path} can't be written ({type(error).__name__})") from None

    async def until_taken(self) -> None:
        """See ProxyRoutes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._within_s):
                while not await self.is_taken():  # noqa: ASYNC110 - another process's word, so it is polled
                    await asyncio.sleep(_POLL_S)
                return
        raise ProxyNotChanged(
            f"Envoy did not take the routes in {self._path} within {self._within_s:g} s, so the old policies stay "
            "active; 'gharial status' shows whether it runs, its log (envoy.log, beside that file) what it complains of"
        )

    async def is_taken(self) -> bool | None:
        """True if Envoy goes by what it was told last, False if by something else, None if it does not answer."""
        version = await self._admin.fetch_routes_version()
        return None if version is None else version == self._made.version
