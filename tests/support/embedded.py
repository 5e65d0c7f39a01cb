"""A gharial.yaml for the library and the middleware: keys, store and audit in a folder of the test's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.gateway import POLICY, ROUTES, settings_for

from gharial.wiring.keyfiles import make_key_files


def write_home(base: Path, policy: str = POLICY, routes: Any = ROUTES, **more: Any) -> Path:
    """Write configuration, policy and keys, and return the path of the configuration."""
    (base / "policies").mkdir(parents=True)
    (base / "policies" / "customer-data.yaml").write_text(policy)
    make_key_files(base / "run" / "keys.json", base / "secret" / "kek")
    config = base / "gharial.yaml"
    more = {"keys": {"file": "run/keys.json", "kek": "file:secret/kek"}, **more}
    upstreams = {"api": {"url": "http://127.0.0.1:9"}}
    config.write_text(json.dumps(settings_for(8080, upstreams, **{"routes": list(routes), **more})))
    return config


def audit_of(base: Path) -> list[dict[str, Any]]:
    """All audit records of a folder."""
    files = sorted((base / "run" / "audit").glob("audit-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
