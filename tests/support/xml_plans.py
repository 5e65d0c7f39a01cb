"""Plans over XML for tests: compiled from a few lines of policy, so that paths are read as people write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gharial.model.plan import Plan
from gharial.policy.compile import compile_plan
from gharial.policy.document import parse_policy


def plan_of_policy(text: str) -> Plan:
    """Compile the whole of a policy, with all its grants."""
    policy = parse_policy(text, "policy.yaml")
    return compile_plan(policy, "", (), [grant.name for grant in policy.grants])


def xml_plan(
    show: Mapping[str, str], *, unlisted: str = "drop", subjects: Mapping[str, str] | None = None, **tags: Any
) -> Plan:
    """Compile a policy in which the place shows its technique; `subjects` are id spaces of places."""
    found: dict[str, Any] = {}
    for at, place in enumerate(show):
        found[f"t{at}"] = {"find": place}
        if place in (subjects or {}):
            found[f"t{at}"]["subject"] = (subjects or {})[place]
    found |= tags
    grant = {"grant": "all", "to": "anyone", "show": {f"t{at}": how for at, how in enumerate(show.values())}}
    policy = {
        "policy": "test",
        "version": 1,
        "mode": "enforce",
        "unlisted_fields": unlisted,
        "tags": found,
        "who": {"anyone": {}},
        "grants": [grant],
    }
    return plan_of_policy(json.dumps(policy))
