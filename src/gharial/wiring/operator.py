"""The operator's hand: through the admin socket of a running gateway, or on its store while none runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from gharial.adapters.admin import AdminClient
from gharial.adapters.key_file import load_keyset
from gharial.crypto.digest import credential_hash
from gharial.gate.operate import ClientFacts, Operations
from gharial.model.errors import RequestMalformed
from gharial.settings import Settings, load_settings
from gharial.wiring.world import SystemClock, random_bytes

_T = TypeVar("_T")


class Operator(Protocol):
    """What the command line can do, with or without a running gateway."""

    def add_client(self, facts: Mapping[str, Any]) -> dict[str, str]:
        """Register a client; returns `client_id`, `secret`, `key`."""

    def list_clients(self) -> list[dict[str, Any]]:
        """All clients."""

    def revoke_client(self, name: str) -> None:
        """Revoke a client."""

    def list_incidents(self) -> list[dict[str, Any]]:
        """All incidents, newest first."""

    def get_incident(self, incident_id: str) -> dict[str, Any]:
        """One incident."""


def operator(config_path: Path) -> Operator:
    """Return the hand that reaches this gateway. Raises ConfigInvalid."""
    settings = load_settings(config_path)
    base = config_path.resolve().parent
    admin_socket = base / settings.admin.socket
    if gate_answers(admin_socket):
        return RemoteOperator(AdminClient(admin_socket))
    return LocalOperator(settings, base)


def gate_answers(path: Path) -> bool:
    """True if a gateway listens on this admin socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class RemoteOperator:
    """Through the admin socket."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin

    def add_client(self, facts: Mapping[str, Any]) -> dict[str, str]:
        """See Operator."""
        return dict(self._admin.call("POST", "/clients", dict(facts)))

    def list_clients(self) -> list[dict[str, Any]]:
        """See Operator."""
        return list(self._admin.call("GET", "/clients"))

    def revoke_client(self, name: str) -> None:
        """See Operator."""
        self._admin.call("POST", f"/clients/{quote(name, safe='')}/revoke")

    def list_incidents(self) -> list[dict[str, Any]]:
        """See Operator."""
        return list(self._admin.call("GET", "/incidents"))

    def get_incident(self, incident_id: str) -> dict[str, Any]:
        """See Operator."""
        return dict(self._admin.call("GET", f"/incidents/{quote(incident_id, safe='')}"))


class LocalOperator:
    """On the store itself; its lock makes sure that no gateway runs meanwhile."""

    def __init__(self, settings: Settings, base: Path) -> None:
        self._settings = settings
        self._base = base

    def add_client(self, facts: Mapping[str, Any]) -> dict[str, str]:
        """See Operator."""
        wanted = msgspec.convert(facts, type=ClientFacts)
        try:
            return dict(self._with_operations(lambda operations: operations.add_client(wanted)))
        except ValueError as error:
            raise RequestMalformed(str(error)) from None

    def list_clients(self) -> list[dict[str, Any]]:
        """See Operator."""
        return self._with_operations(lambda operations: operations.list_clients())

    def revoke_client(self, name: str) -> None:
        """See Operator."""
        self._with_operations(lambda operations: operations.revoke_client(name))

    def list_incidents(self) -> list[dict[str, Any]]:
        """See Operator."""
        return [asdict(incident) for incident in self._with_operations(lambda o: o.list_incidents())]

    def get_incident(self, incident_id: str) -> dict[str, Any]:
        """See Operator."""
        return asdict(self._with_operations(lambda operations: operations.get_incident(incident_id)))

    def _with_operations(self, work: Callable[[Operations], Awaitable[_T]]) -> _T:
        return asyncio.run(self._run(work))

    async def _run(self, work: Callable[[Operations], Awaitable[_T]]) -> _T:
        from gharial.adapters.store import open_store
        from gharial.gate.clients import ClientDirectory

        keyset = await asyncio.to_thread(load_keyset, self._settings, self._base)
        store = open_store(self._base / self._settings.store.removeprefix("sqlite:"))
        try:
            directory = ClientDirectory(*await store.load_clients())
            operations = Operations(
                store, directory, SystemClock(), random_bytes, lambda text: credential_hash(keyset, text)
            )
            return await work(operations)
        finally:
            store.close()
