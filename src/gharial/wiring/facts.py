"""Who vouches for facts and for consent in one gateway: built from the settings, and checked before it starts."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gharial.adapters.consent import FileConsent, HttpConsent, SqlConsent, Trouble
from gharial.adapters.consent_postgres import PostgresConsent
from gharial.adapters.files import load_secret
from gharial.adapters.geo import GeoFile
from gharial.adapters.postgres import parse_postgres_url
from gharial.gate.facts import FactSources
from gharial.gate.ports import Consent, NoConsent
from gharial.model.errors import ConfigInvalid, Problem
from gharial.settings import ConsentPostgres, Settings
from gharial.wiring.log import Log


@dataclass(frozen=True, slots=True)
class Facts:
    """The sources of facts about callers, and the consent resolver, with its troubles."""

    sources: FactSources
    consent: Consent
    geo: GeoFile | None
    trouble: Trouble

    def report(self) -> dict[str, Any]:
        """What `gharial status` shows of them."""
        return {
            "geo": {"problem": self.geo.problem} if self.geo is not None else None,
            "consent": {"failures": self.trouble.failures, "problem": self.trouble.problem},
        }

    async def close(self) -> None:
        """Close what has connections."""
        if isinstance(self.consent, HttpConsent | PostgresConsent):
            await self.consent.close()


def open_facts(settings: Settings, base: Path, log: Log) -> Facts:
    """Return what the settings name. Raises ConfigInvalid for a file, query or CA that can't be used."""
    found = settings.facts
    geo = GeoFile(found.geo, told(log, "geo")) if found.geo is not None else None
    sources = FactSources(
        hops=tuple(ipaddress.ip_network(hop) for hop in settings.hops),
        country_header=found.country.header.lower() if found.country is not None else "",
        network_header=found.network.header.lower() if found.network is not None else "",
        geo=geo,
    )
    trouble = Trouble(told(log, "consent"))
    return Facts(sources, _open_consent(settings, base, trouble), geo, trouble)


def _open_consent(settings: Settings, base: Path, trouble: Trouble) -> Consent:
    found = settings.consent
    if found is None:
        return NoConsent()
    if found.file is not None:
        return FileConsent(found.file, trouble)
    if found.sql is not None:
        path = base / found.sql.database.removeprefix("sqlite:")
        consent = SqlConsent(path, found.sql.query, found.sql.timeout_s, trouble)
        consent.check()
        return consent
    if found.postgres is not None:
        return _open_postgres(found.postgres, base, trouble)
    assert found.http is not None  # noqa: S101 - the settings have exactly one of the four
    return HttpConsent(
        found.http.url,
        timeout_s=found.http.timeout_s,
        cache_s=found.http.cache_s,
        cache_people=found.http.cache_people,
        authorization=load_secret(found.http.authorization, base) if found.http.authorization else "",
        ca=found.http.ca,
        trouble=trouble,
    )


def _open_postgres(found: ConsentPostgres, base: Path, trouble: Trouble) -> PostgresConsent:
    try:
        place = parse_postgres_url(found.url)
    except ValueError as error:
        raise ConfigInvalid([Problem("gharial.yaml", 1, 1, f"consent.postgres: {error}")]) from None
    password = load_secret(found.password, base) if found.password else ""
    return PostgresConsent(replace(place, password=password, ca=found.ca), found.query, found.timeout_s, trouble)


def told(log: Log, what: str) -> Callable[[str], None]:
    """Return what writes to the log when something begins to fail, and when it works again."""

    def tell(problem: str) -> None:
        if problem:
            log(f"{what}.failing", problem=problem)
        else:
            log(f"{what}.working")

    return tell
