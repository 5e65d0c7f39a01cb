"""Policy: what people write, read from YAML with every mistake at once; `compile` says what it means for a caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gharial.model.errors import PolicyInvalid
from gharial.model.plan import Mode, Redaction, Unlisted
from gharial.model.yaml_text import Entry, Node, Scalar, parse_yaml
from gharial.policy.case_syntax import PolicyCase, parse_cases
from gharial.policy.conditions import CONSENT, Vocabulary
from gharial.policy.countries import parse_country_groups
from gharial.policy.grants import Grant, Names, parse_grants
from gharial.policy.guardrails import Guardrail, parse_guardrails
from gharial.policy.lists import parse_lists
from gharial.policy.reading import Notes, choice_of, keyed, name_of
from gharial.policy.redaction import parse_redaction
from gharial.policy.spaces import Same, find_populations, find_same, note_spaces
from gharial.policy.tags import Group, Tag, parse_tags
from gharial.policy.uses import find_misuses, uses_of
from gharial.policy.watch_syntax import Watch, parse_watch
from gharial.policy.who import Who, parse_who

KEYS = (
    "policy", "version", "mode", "tags", "unlisted_fields", "json_in_strings", "redaction", "lists", "groups", "who",
    "grants", "never", "watch", "tests",
)  # fmt: skip
"""The keys of a policy."""
_IN_TAGS = ("population", "same_as")
"""Keys that stand in a tag and not beside the tags."""
MAX_VERSION = 2**31
MAX_JSON_LEVELS = 5
"""The most levels of JSON in strings."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy without mistakes. `tags` and `groups` share one space of names; `grants`, `never`, `watch` are sorted.

    `countries` are the groups of countries that it knows, with their members. `json_in_strings` is how many levels of
    JSON text in strings are opened. `lists` are what `substitute` chooses from. `same` are classes of id spaces that
    mean the same people, `populations` says of some spaces how many people there are.

    `file` is the name under which it was read; tags, groups, who, grants and guardrails know their line and column in
    it.
    """

    name: str
    version: int
    mode: Mode
    unlisted: Unlisted
    json_in_strings: int
    redaction: Redaction
    lists: Mapping[str, tuple[str, ...]]
    countries: Mapping[str, frozenset[str]]
    tags: Mapping[str, Tag]
    groups: Mapping[str, Group]
    who: Mapping[str, Who]
    grants: tuple[Grant, ...]
    never: tuple[Guardrail, ...]
    watch: tuple[Watch, ...]
    tests: tuple[PolicyCase, ...]
    file: str
    same: Same = ()
    populations: Mapping[str, int] = field(default_factory=dict)

    def get_grant(self, name: str) -> Grant:
        """Return the grant of this name. Raises KeyError."""
        for grant in self.grants:
            if grant.name == name:
                return grant
        raise KeyError(name)

    def get_guardrail(self, name: str) -> Guardrail:
        """Return the guardrail of this name. Raises KeyError."""
        for guardrail in self.never:
            if guardrail.name == name:
                return guardrail
        raise KeyError(name)


def parse_policy(text: str, file: str) -> Policy:
    """Read a policy; `file` is the name that problems carry.

    Raises PolicyInvalid with all mistakes. What only the routes can tell (`path:` parameters), and which grants clash,
    is told by `checks.check_policy`.
    """
    root, problems = parse_yaml(text, file)
    if root is None:
        raise PolicyInvalid(problems)
    notes = Notes(file, problems)
    policy = _parse_root(root, notes)
    if notes.problems:
        raise PolicyInvalid(notes.problems)
    return policy


def _parse_root(root: Node, notes: Notes) -> Policy:
    keys = keyed(root, "a policy", notes, known=KEYS + _IN_TAGS, required=("policy", "version", "tags"))
    tags, groups = parse_tags(keys["tags"].value, notes) if "tags" in keys else ({}, {})
    if "tags" in keys:
        note_spaces(keys["tags"].value, tags, notes)
    for name in _IN_TAGS:
        if name in keys:
            notes.add(keys[name], f"'{name}' stands in the tag that names the people, beside 'subject'")
    countries = parse_country_groups(keys["groups"].value if "groups" in keys else None, notes)
    who = parse_who(keys["who"].value, Vocabulary(countries), notes) if "who" in keys else {}
    names = Names(tags, groups, frozenset(who))
    facts = frozenset({CONSENT} | {tag.fact for tag in tags.values() if tag.fact})
    words = Vocabulary(countries, facts)
    grants = parse_grants(keys["grants"].value, names, words, notes) if "grants" in keys else ()
    taken = {grant.name: grant.line for grant in grants}
    never = parse_guardrails(keys["never"].value, names, words, taken, notes) if "never" in keys else ()
    lists = parse_lists(keys["lists"].value, notes) if "lists" in keys else {}
    notes.problems.extend(find_misuses(uses_of(grants, never), tags, lists, notes.file))
    return Policy(
        name=name_of(keys["policy"].value, "policy", notes) if "policy" in keys else "",
        version=_parse_version(keys["version"].value, notes) if "version" in keys else 0,
        mode=Mode(_choice(keys, "mode", Mode, Mode.ENFORCE, notes)),
        unlisted=Unlisted(_choice(keys, "unlisted_fields", Unlisted, Unlisted.DROP, notes)),
        json_in_strings=_parse_levels(keys["json_in_strings"].value, notes) if "json_in_strings" in keys else 0,
        redaction=parse_redaction(keys["redaction"].value, notes) if "redaction" in keys else Redaction(),
        lists=lists,
        countries=countries,
        tags=tags,
        groups=groups,
        who=who,
        grants=grants,
        never=never,
        watch=parse_watch(keys["watch"].value, notes) if "watch" in keys else (),
        tests=parse_cases(keys["tests"].value, frozenset(who), facts, notes) if "tests" in keys else (),
        file=notes.file,
        same=find_same(tags.values()),
        populations=find_populations(tags.values()),
    )


def _parse_version(node: Node, notes: Notes) -> int:
    value = node.value if isinstance(node, Scalar) and not node.quoted else None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_VERSION:
        return value
    notes.add(node, "version must be a whole number from 1 on")
    return 0


def _parse_levels(node: Node, notes: Notes) -> int:
    value = node.value if isinstance(node, Scalar) and not node.quoted else None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_JSON_LEVELS:
        return value
    notes.add(node, f"json_in_strings is a number of levels, 1 to {MAX_JSON_LEVELS}")
    return 0


def _choice(
    keys: Mapping[str, Entry],
    name: str,
    choices: type[Mode] | type[Unlisted],
    default: str,
    notes: Notes,
) -> str:
    if name not in keys:
        return default
    return choice_of(keys[name].value, name, [str(c) for c in choices], notes) or default
