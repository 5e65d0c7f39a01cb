"""Tokens that come back: a caller's own tokens in path parameters become real values for the upstream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gharial.crypto.keyset import Keyset
from gharial.crypto.token import Recipient, TokenScope, find_binding, looks_like_token, open_token
from gharial.model.caller import Caller
from gharial.model.errors import TokenRefused
from gharial.model.plan import Param, Plan


@dataclass(frozen=True, slots=True)
class Resolved:
    """Path parameters after resolution. `changed` holds only those that were tokens; `counts` says how many per tag."""

    params: Mapping[str, str] = field(repr=False)
    changed: Mapping[str, str] = field(repr=False)
    counts: Mapping[str, int]


def resolve_params(plan: Plan, params: Mapping[str, str], keyset: Keyset, caller: Caller) -> Resolved:
    """Turn this caller's tokens in path parameters into real values, where a grant says `reidentify`.

    Anything that is not a token stays as it came; a token that is not this caller's raises TokenRefused.
    """
    changed: dict[str, str] = {}
    counts: dict[str, int] = {}
    for param in plan.params:
        value = params.get(param.name)
        if value is None or not param.reidentify or not looks_like_token(value):
            continue
        tag, real = _open_any(param, value, keyset, caller)
        changed[param.name] = real
        counts[tag] = counts.get(tag, 0) + 1
    return Resolved({**params, **changed}, changed, counts)


def _open_any(param: Param, token: str, keyset: Keyset, caller: Caller) -> tuple[str, str]:
    """Try every binding under which a policy could have handed this token to this caller."""
    recipient = Recipient(caller.tenant, caller.client, caller.team)
    for tag in param.tags:
        for scope in TokenScope:
            binding = find_binding(recipient, tag, scope)
            if binding is None:
                continue
            try:
                _, text = open_token(keyset, binding, token)
            except TokenRefused:
                continue
            return tag, text
    raise TokenRefused
