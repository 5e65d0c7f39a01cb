"""A look at a store without taking it over: can this version open it?"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from gharial.adapters.store.schema import read_version
from gharial.model.errors import StoreSchema


def check_store(path: Path) -> None:
    """Raise StoreSchema if a store at `path` can't be opened by this version; no store there is no mistake."""
    if not path.exists():
        return
    try:
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        try:
            read_version(db, path)
        finally:
            db.close()
    except sqlite3.Error as error:
        raise StoreSchema(f"{path} can't be opened ({type(error).__name__}); see its owner and mode") from None
