"""Redirects of protected answers: they lead back to the gateway, and their path shows no more than a body would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gharial.crypto.transform import transforms_with_vault
from gharial.crypto.vault import Tokens
from gharial.gate.headers import local_location
from gharial.gate.persons import find_variant, unknown_holds
from gharial.gate.publish import ActivePolicies, Prepared
from gharial.gate.routes import RouteKind, RouteRule, RouteTable, has_open_part, replace_params
from gharial.model.caller import Caller
from gharial.model.errors import GharialError
from gharial.model.finding import Kind
from gharial.model.place import Carrier
from gharial.model.plan import NONE, Op, Param, Unlisted


@dataclass(frozen=True, slots=True)
class Location:
    """What stands in the header, and (id space, text) of the people whose ids it shows in clear."""

    text: str
    people: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def outgoing_location(
    location: str,
    rule: RouteRule,
    routes: RouteTable,
    policies: ActivePolicies,
    caller: Caller,
    now_s: float,
    tokens: Tokens,
    *,
    masked: bool = False,
) -> Location | None:
    """Return the `Location` that this caller may see, or None: then it is withheld. `masked` as in `prepare`.

    It must name the upstream, and a route of this gateway; tagged path parameters are shown as the policy shows them
    (a token stays usable). What no tag covers is a field that nobody listed: a query, an untagged parameter, what
    stands below a `/**`, and every variable part of a route without protection. The whole header is withheld for it,
    unless `unlisted_fields` is `pass`; for a query in any case.
    """
    local = local_location(location, rule.upstream_authorities)
    if local is None or "?" in local or "#" in local:
        return None
    try:
        target, match = routes.match("GET", local)
        protected = policies.kind(target) is RouteKind.PROTECT
        # A route without protection has no policy to ask; what this answer's own policy says of the unlisted holds.
        prepared = policies.prepare(target if protected else rule, caller, now_s, masked=masked)
        free = has_open_part(target.template, local) or (bool(match.params) and not protected)
        if free and prepared.plan.unlisted is not Unlisted.PASS:
            return None
        if not protected:
            return Location(local)
        shown = _shown_params(prepared, match.params, tokens)
        if shown is None:
            return None
        told = tuple(
            (param.subject, match.params[param.name])
            for param in prepared.plan.params
            if param.subject and _tells(prepared, param, match.params, shown)
        )
        return Location(replace_params(target.template, local, shown), told)
    except GharialError:
        return None


def _tells(prepared: Prepared, param: Param, params: Mapping[str, str], shown: Mapping[str, str]) -> bool:
    """Return whether a person's id stands in clear in the path, and not everybody may see such ids."""
    if param.carrier is not Carrier.PATH or param.name not in params or param.cell == NONE:
        return False
    is_clear = shown.get(param.name) == params[param.name]
    return is_clear and prepared.plan.cells[param.cell].tag not in prepared.open_tags


def _shown_params(prepared: Prepared, params: Mapping[str, str], tokens: Tokens) -> dict[str, str] | None:
    """Return the parameters that change, or None if one can't be shown as a segment."""
    plan = prepared.plan
    tagged = {param.name: param for param in plan.params if param.carrier is Carrier.PATH}
    if plan.unlisted is not Unlisted.PASS and any(name not in tagged for name in params):
        return None
    shown: dict[str, str] = {}
    for name, param in tagged.items():
        if name not in params:
            continue
        text = _shown_param(prepared, param, params[name], tokens)
        if text is None:
            return None
        shown[name] = text
    return shown


def _shown_param(prepared: Prepared, param: Param, value: str, tokens: Tokens) -> str | None:
    """Return clear and token values; a mask or a redaction in a path would lead nowhere, so the header is withheld."""
    if param.cell == NONE:
        return None
    # Of the person that a redirect names nothing is known here: what a guardrail asks counts as met.
    variant = find_variant(prepared.plan, unknown_holds(prepared.plan))
    index = prepared.plan.cells[param.cell].steps[variant]
    step = prepared.plan.steps[index]
    if step.op is Op.CLEAR:
        return _clear_unless_budgeted(prepared, param, value, variant)
    # Whose key a token of a path would need is not known here either.
    if step.op is not Op.TOKEN or step.arg("per", ""):
        return None
    (transform,) = transforms_with_vault((prepared.transforms[index],), tokens)
    kind, text = transform(Kind.STRING, value)
    return text if kind is Kind.STRING else None


def _clear_unless_budgeted(prepared: Prepared, param: Param, value: str, variant: int) -> str | None:
    """A person shown in a header would have to be charged; where a budget holds, the header is withheld instead."""
    charges = prepared.plan.cells[param.cell].charges
    return None if charges and charges[variant] else value
