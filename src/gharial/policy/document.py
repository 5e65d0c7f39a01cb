"""Policy: what people write, read from YAML with every mistake at once; `compile` says what it means for a caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gharial.model.errors import PolicyInvalid
from gharial.model.plan import Mode, Unlisted
from gharial.model.yaml_text import Entry, Node, Scalar, parse_yaml
from gharial.policy.case_syntax import PolicyCase, parse_cases
from gharial.policy.grants import Grant, Names, parse_grants
from gharial.policy.reading import Notes, choice_of, keyed, name_of
from gharial.policy.tags import Group, Tag, parse_tags
from gharial.policy.who import Who, parse_who

KEYS = ("policy", "version", "mode", "tags", "unlisted_fields", "who", "grants", "tests")
"""The keys of a policy."""
_LATER = ("never", "watch", "groups", "redaction", "population")
MAX_VERSION = 2**31
PERSON_FACTS = frozenset({"consent"})


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy without mistakes. `tags` and `groups` share one space of names; `grants` are sorted by name.

    `file` is the name under which it was read; tags, groups, who and grants know their line and column in it.
    """

    name: str
    version: int
    mode: Mode
    unlisted: Unlisted
    tags: Mapping[str, Tag]
    groups: Mapping[str, Group]
    who: Mapping[str, Who]
    grants: tuple[Grant, ...]
    tests: tuple[PolicyCase, ...]
    file: str

    def get_grant(self, name: str) -> Grant:
        """Return the grant of this name. Raises KeyError."""
        for grant in self.grants:
            if grant.name == name:
                return grant
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
    keys = keyed(root, "a policy", notes, known=KEYS, required=("policy", "version", "tags"), later=_LATER)
    tags, groups = parse_tags(keys["tags"].value, notes) if "tags" in keys else ({}, {})
    who = parse_who(keys["who"].value, notes) if "who" in keys else {}
    names = Names(tags, groups, frozenset(who))
    return Policy(
        name=name_of(keys["policy"].value, "policy", notes) if "policy" in keys else "",
        version=_parse_version(keys["version"].value, notes) if "version" in keys else 0,
        mode=Mode(_choice(keys, "mode", Mode, Mode.ENFORCE, notes)),
        unlisted=Unlisted(_choice(keys, "unlisted_fields", Unlisted, Unlisted.DROP, notes, later=("detect",))),
        tags=tags,
        groups=groups,
        who=who,
        grants=parse_grants(keys["grants"].value, names, notes) if "grants" in keys else (),
        tests=parse_cases(keys["tests"].value, frozenset(who), PERSON_FACTS, notes) if "tests" in keys else (),
        file=notes.file,
    )


def _parse_version(node: Node, notes: Notes) -> int:
    value = node.value if isinstance(node, Scalar) and not node.quoted else None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_VERSION:
        return value
    notes.add(node, "version must be a whole number from 1 on")
    return 0


def _choice(
    keys: Mapping[str, Entry],
    name: str,
    choices: type[Mode] | type[Unlisted],
    default: str,
    notes: Notes,
    later: tuple[str, ...] = (),
) -> str:
    if name not in keys:
        return default
    return choice_of(keys[name].value, name, [str(c) for c in choices], notes, later=later) or default
