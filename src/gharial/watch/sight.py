"""What one exchange tells the watch, and what a detector makes of it. Digests and counts, never a value but ids.

The ids that were asked for are values: a detector compares one with the next, and keeps the last one in memory alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sight:
    """One exchange. `people` are digests of those shown in clear, or who would have been but for a measure.

    `asked` are (parameter, text) of the ids in path and query. `refusal` is the code of a refusal, "" for none.
    """

    at_s: float
    tenant: str
    client: str
    user: str = ""
    team: str = ""
    route: str = ""
    people: tuple[str, ...] = ()
    asked: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    refusal: str = ""

    @property
    def principal(self) -> str:
        """(tenant, client, user) as one text."""
        return "\x1f".join((self.tenant, self.client, self.user))

    def who(self, per: str) -> str:
        """Return the key of whom a count is kept for: `client`, `user`, `team`, `tenant` or `route`."""
        parts = {
            "client": (self.tenant, self.client),
            "user": (self.tenant, self.client, self.user),
            "team": (self.tenant, self.team or f"?{self.client}"),
            "tenant": (self.tenant,),
            "route": (self.tenant, self.route),
        }[per]
        return "\x1f".join((per, *parts))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a detector says of an exchange: too much.

    `detector` is the kind ("harvest"), `watch` the name in the policy. `key` tells of whom: one incident each. `count`
    of `limit` within `window_s` seconds; `people` are the digests of this exchange that counted. `what` says it in
    words, without a value.
    """

    detector: str
    watch: str
    key: str
    severity: str
    count: int
    limit: int
    window_s: int
    what: str
    people: tuple[str, ...] = ()
