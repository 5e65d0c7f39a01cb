"""Where one gateway keeps what its random tokens stand for: built from the settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gharial.adapters.consent import Trouble
from gharial.adapters.files import load_secret
from gharial.adapters.memory import MemoryPersonKeys, MemoryStore, MemoryVault
from gharial.adapters.postgres import parse_postgres_url
from gharial.adapters.store import SqlitePersonKeys, SqliteStore, SqliteVault
from gharial.adapters.vault_postgres import PostgresVault
from gharial.gate.ports import PersonKeys, Store, Vault
from gharial.model.errors import ConfigInvalid, Problem
from gharial.settings import Settings, VaultPostgres
from gharial.wiring.facts import told
from gharial.wiring.log import Log


@dataclass(frozen=True, slots=True)
class OpenVault:
    """The vault, and the troubles of one that is a server."""

    vault: Vault
    trouble: Trouble

    def report(self) -> dict[str, Any]:
        """What `gharial status` shows of it."""
        place = "postgres" if isinstance(self.vault, PostgresVault) else "store"
        return {"place": place, "failures": self.trouble.failures, "problem": self.trouble.problem}

    async def close(self) -> None:
        """Close what has connections."""
        if isinstance(self.vault, PostgresVault):
            await self.vault.close()


def open_vault(settings: Settings, base: Path, store: SqliteStore | MemoryStore, log: Log) -> OpenVault:
    """Return what the settings name; beside a store in memory, a vault in memory.

    A server is not asked yet. Raises ConfigInvalid for what can't be used.
    """
    trouble = Trouble(told(log, "vault"))
    if isinstance(store, MemoryStore):
        return OpenVault(MemoryVault(), trouble)
    if settings.vault is None:
        return OpenVault(SqliteVault(store), trouble)
    return OpenVault(open_postgres(settings.vault.postgres, base, trouble), trouble)


def person_keys_in(store: Store) -> PersonKeys:
    """Return where the keys of people are kept: in the store itself; for a store in memory, in memory."""
    return SqlitePersonKeys(store) if isinstance(store, SqliteStore) else MemoryPersonKeys()


def open_postgres(found: VaultPostgres, base: Path, trouble: Trouble) -> PostgresVault:
    """Return a vault at a server, which is not asked yet. Raises ConfigInvalid."""
    try:
        place = parse_postgres_url(found.url)
    except ValueError as error:
        raise ConfigInvalid([Problem("gharial.yaml", 1, 1, f"vault.postgres: {error}")]) from None
    password = load_secret(found.password, base) if found.password else ""
    return PostgresVault(replace(place, password=password, ca=found.ca), found.timeout_s, trouble)
