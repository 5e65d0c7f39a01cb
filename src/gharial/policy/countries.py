"""Countries (ISO 3166-1 alpha-2) and groups of them; groups are replaced by their members when a policy is read."""

from __future__ import annotations

from collections.abc import Mapping

from gharial.model.yaml_text import Node
from gharial.policy.reading import Notes, distinct, entries_of, items_of, name_of, text_of
from gharial.policy.suggest import did_you_mean

_CODES = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ "
    "CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO "
    "FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE "
    "JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO "
    "MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW "
    "PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM "
    "TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
)
COUNTRIES = frozenset(_CODES.split())
"""All codes of ISO 3166-1 that are officially assigned."""

_EU_CODES = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
_EU = frozenset(_EU_CODES.split())
BUILT_IN: Mapping[str, frozenset[str]] = {
    "EU": _EU,
    "EEA": _EU | {"IS", "LI", "NO"},
    "EFTA": frozenset({"CH", "IS", "LI", "NO"}),
    "FIVE_EYES": frozenset({"AU", "CA", "GB", "NZ", "US"}),
}
"""The groups that every policy knows, with their members of 2025."""
MAX_GROUPS = 500
"""Own groups of countries of one policy."""


def parse_country_groups(node: Node | None, notes: Notes) -> dict[str, frozenset[str]]:
    """Read the mapping under `groups`, {name: [codes or groups]}, and return it with the built-in groups.

    A group may hold other groups, in any order; one that holds itself is a mistake.
    """
    groups = dict(BUILT_IN)
    if node is None:
        return groups
    entries = entries_of(node, "groups", notes)
    if len(entries) > MAX_GROUPS:
        notes.add(entries[MAX_GROUPS], f"more than {MAX_GROUPS} groups of countries")
        return groups
    own = {entry.name: entry for entry in entries if name_of(entry.key, "the name of a group", notes)}
    members: dict[str, tuple[tuple[str, Node], ...]] = {}
    for name, entry in own.items():
        if name in COUNTRIES or name in BUILT_IN:
            notes.add(entry, f"'{name}' is the name of a country or of a built-in group")
        items = items_of(entry.value, f"the group '{name}'", notes)
        found = distinct(items, lambda item: text_of(item, "a country", notes), notes)
        for text, item in found:
            if text not in COUNTRIES and text not in BUILT_IN and text not in own:
                notes.add(item, unknown_country(text, [*BUILT_IN, *own]))
        members[name] = found
    return groups | _resolve(members, groups, notes)


def unknown_country(text: str, groups: list[str]) -> str:
    """Say that a code is neither a country nor a group."""
    # Codes of two letters are all alike: only a name of a group is worth a suggestion.
    near = did_you_mean(text, groups) if len(text) > 2 else did_you_mean(text, [])
    if text.upper() in COUNTRIES:
        near = f"'{text}'; did you mean '{text.upper()}'?"
    return f"unknown country or group of countries {near} (countries are two letters, ISO 3166-1)"


def _resolve(
    members: Mapping[str, tuple[tuple[str, Node], ...]], known: Mapping[str, frozenset[str]], notes: Notes
) -> dict[str, frozenset[str]]:
    done: dict[str, frozenset[str]] = {}
    waiting = dict(members)
    # Each round resolves at least one group; there are at most MAX_GROUPS rounds.
    while waiting:
        ready = [name for name, items in waiting.items() if not any(text in waiting for text, _ in items)]
        if not ready:
            first = min(waiting, key=lambda n: (waiting[n][0][1].line, waiting[n][0][1].column))
            text, item = next((text, item) for text, item in waiting[first] if text in waiting)
            notes.add(item, f"groups of countries can't contain each other: {first} -> {text} -> …")
            return done
        for name in ready:
            codes: set[str] = set()
            for text, _ in waiting.pop(name):
                codes |= known.get(text) or done.get(text) or ({text} & COUNTRIES)
            done[name] = frozenset(codes)
    return done
