"""The facts of an exchange under the names that conditions use; a fact that nobody vouched for is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gharial.model.caller import ANONYMOUS, Caller
from gharial.policy.countries import COUNTRIES

Value = str | int | float | bool
CLAIM = "claim."
FACTS = ("client", "team", "role", "user", "purpose", "country", "network", "time.hour", "time.weekday")
"""The facts of an exchange; claims are `claim.NAME`."""
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EXPRESSION_NAMES = {"roles": "role", "hour": "time.hour", "weekday": "time.weekday"}
_ALL_CLAIMS = "claims"


@dataclass(frozen=True, slots=True)
class ExchangeFacts:
    """Who asks, and when (seconds since the epoch)."""

    caller: Caller
    now_s: float

    def values(self, name: str) -> tuple[Value, ...]:
        """Return the values of a fact of FACTS, or of `claim.NAME`; empty where it is missing."""
        caller = self.caller
        if name == "client":
            # A call without a credential has no client; `anonymous` is only what audit and budgets call it. Else
            # `client: '*'` or `client: { not: acme }` would open to callers of whom nothing is known.
            return () if caller.client in ("", ANONYMOUS) else (caller.client,)
        if name == "role":
            return tuple(role for role in caller.roles if role)
        if name == "country":
            code = caller.country.upper()
            # A code that is no country's must not count as "not in the EU".
            return (code,) if code in COUNTRIES else ()
        if name == "time.hour":
            return (int(self.now_s // 3_600) % 24,)
        if name == "time.weekday":
            # The epoch began on a Thursday.
            return (WEEKDAYS[int(self.now_s // 86_400 + 3) % 7],)
        if name in ("team", "user", "purpose", "network"):
            text: str = getattr(caller, name)
            return (text,) if text else ()
        claim = caller.claims.get(name.removeprefix(CLAIM))
        values: Iterable[object] = claim if isinstance(claim, (tuple, list)) else (claim,)
        return tuple(value for value in values if isinstance(value, (str, int, float)) and value != "")

    def for_expressions(self) -> Mapping[str, object]:
        """Return the variables of CEL; missing ones are left out."""
        facts: dict[str, object] = {"roles": self.values("role"), "claims": self.caller.claims}
        for name in ("client", "team", "user", "purpose", "country", "network", "hour", "weekday"):
            known = self.values(_EXPRESSION_NAMES.get(name, name))
            if known:
                facts[name] = known[0]
        return facts

    def key(self, names: tuple[str, ...]) -> tuple[object, ...]:
        """Return something hashable that is equal exactly where these facts are; `claims` stands for all claims."""
        return tuple(
            _hashable(self.caller.claims) if name == _ALL_CLAIMS else tuple(map(_typed, self.values(name)))
            for name in names
        )


def fact_of_variable(name: str) -> str:
    """Return the fact that a CEL variable (or `claims.NAME`) reads."""
    head = name.partition(".")[0]
    # Also of a single claim: an expression may look at its shape, which the scalars of `claim.NAME` do not tell.
    return _ALL_CLAIMS if head == _ALL_CLAIMS else _EXPRESSION_NAMES.get(head, head)


def _typed(value: Value) -> object:
    # 1, 1.0 and True are equal keys in Python, and not the same claim.
    return value if type(value) is str else (type(value).__name__, value)


def _hashable(value: object) -> object:
    if isinstance(value, Mapping):
        return ("map", tuple(sorted((str(key), _hashable(item)) for key, item in value.items())))
    if isinstance(value, (tuple, list)):
        return ("list", tuple(map(_hashable, value)))
    return (type(value).__name__, repr(value))
