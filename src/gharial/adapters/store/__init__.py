"""The durable state of a gateway. `open_store` opens the embedded one: a SQLite file with one owner.

Holds no policy and no decision: what is charged, and what opens an incident, is decided elsewhere and only kept here.
"""

from gharial.adapters.store.look import check_store
from gharial.adapters.store.person_keys import SqlitePersonKeys
from gharial.adapters.store.sqlite import SqliteStore, open_store
from gharial.adapters.store.vault import SqliteVault

__all__ = ["SqlitePersonKeys", "SqliteStore", "SqliteVault", "check_store", "open_store"]
