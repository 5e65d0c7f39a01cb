"""`never`: what must not happen, whatever grants say. Reads guardrails, and says whether one acts for an exchange.

A fact that is missing makes a guardrail act; only facts that certainly speak against it keep it still.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gharial.model.yaml_text import Entries, Entry, Items, Node
from gharial.policy.conditions import Conditions, Vocabulary, find_outcome, parse_conditions
from gharial.policy.facts import ExchangeFacts
from gharial.policy.grants import Names, parse_leaves, parse_purposes, parse_shown_as
from gharial.policy.reading import Notes, items_of, keyed, name_of, text_of
from gharial.policy.tags import Tag
from gharial.policy.technique import CLEAR, Technique

MAX_GUARDRAILS = 500
"""Guardrails of one policy."""
GUARDRAIL_KEYS = ("never", "tag", "filter_or_sort_by", "only_tokens", "when", "unless", "at_least", "for")
"""The keys of a guardrail."""


MASKED = "(measure)"
"""The name of the guardrail by which a measure masks, in plans and findings; no author's guardrail can be called so."""


@dataclass(frozen=True, slots=True)
class Guardrail:
    """What must not happen to some single tags, of one of three kinds.

    A floor for what is shown of `tags`; or fields (`probe_tags`) by which nobody may filter or sort; or `token_tags`,
    in whose places in a request nothing but tokens may come.

    It acts where all of `when` may hold, unless all of `unless` certainly hold; for `purposes`, None being all.
    `at_least` is None for the other two; with `unless_clear` these spare what the caller sees in clear.
    """

    name: str
    tags: frozenset[str]
    at_least: Technique | None
    probe_tags: frozenset[str]
    token_tags: frozenset[str]
    unless_clear: bool
    when: Conditions
    unless: Conditions
    purposes: tuple[str, ...] | None
    line: int
    column: int

    def acts_for(self, facts: ExchangeFacts) -> bool:
        """True if it acts, or may, depending on the person. Raises PolicyExpressionFailed."""
        purpose = facts.caller.purpose
        if self.purposes is not None and purpose and purpose not in self.purposes:
            return False
        # Both are asked, so that an expression that fails is found whatever the other says.
        acts = find_outcome(self.when, facts) is not False
        spared = bool(self.unless) and not self.unless.person and find_outcome(self.unless, facts) is True
        return acts and not spared


def parse_guardrails(
    node: Node, names: Names, words: Vocabulary, taken: Mapping[str, int], notes: Notes
) -> tuple[Guardrail, ...]:
    """Read the list under `never`; sorted by name. `taken` are the names of grants and their lines."""
    if isinstance(node, Items) and not node.items:
        return ()
    items = items_of(node, "never", notes)
    if len(items) > MAX_GUARDRAILS:
        notes.add(items[MAX_GUARDRAILS], f"more than {MAX_GUARDRAILS} guardrails")
        return ()
    found: dict[str, Guardrail] = {}
    for item in items:
        guardrail = _parse_guardrail(item, names, words, notes)
        if guardrail is None:
            continue
        first = found[guardrail.name].line if guardrail.name in found else taken.get(guardrail.name)
        if first is not None:
            kind = "guardrail" if guardrail.name in found else "grant"
            notes.add(item, f"the name '{guardrail.name}' is taken by the {kind} in line {first}")
        else:
            found[guardrail.name] = guardrail
    return tuple(found[name] for name in sorted(found))


def _parse_guardrail(node: Node, names: Names, words: Vocabulary, notes: Notes) -> Guardrail | None:
    keys = keyed(node, "a guardrail", notes, known=GUARDRAIL_KEYS, required=("never",))
    if not keys:
        return None
    kinds = [key for key in ("tag", "filter_or_sort_by", "only_tokens") if key in keys]
    if len(kinds) != 1:
        what = (
            "a guardrail is about a 'tag' (with 'at_least'), or says 'filter_or_sort_by' or 'only_tokens'; one of them"
        )
        notes.add(node, what)
    about_requests = kinds and kinds[-1] != "tag"
    for key in ("at_least",):
        if about_requests and key in keys:
            notes.add(keys[key], f"'{key}' says nothing about requests; such a one is refused")
        if "tag" in keys and key not in keys:
            notes.add(node, f"a guardrail needs the key '{key}': how strictly the tag is shown then")
    when = parse_conditions(keys["when"].value, "'when'", words, notes) if "when" in keys else Conditions()
    unless, unless_clear = Conditions(), False
    if "unless" in keys:
        if about_requests and not isinstance(keys["unless"].value, Entries):
            unless_clear = _parse_unless_clear(keys["unless"].value, notes)
        else:
            unless = parse_conditions(keys["unless"].value, "'unless'", words, notes)
            if not unless and isinstance(keys["unless"].value, Entries) and not keys["unless"].value.entries:
                notes.add(keys["unless"].value, "'unless' without conditions would always hold; remove the guardrail")
    if unless.person and (unless.exchange or unless.expressions):
        notes.add(keys["unless"], "'unless' is about the caller or about the person, not about both")
    if about_requests and (when.person or unless.person):
        notes.add(keys[kinds[-1]], "a request is about no single person yet; use facts of the caller")
    name = name_of(keys["never"].value, "the name of a guardrail", notes) if "never" in keys else ""
    probe_tags = _leaves_under("filter_or_sort_by", keys, names, notes)
    if probe_tags:
        _check_names(keys["filter_or_sort_by"].value, probe_tags, names.tags, notes)
    token_tags = _leaves_under("only_tokens", keys, names, notes)
    for tag in (names.tags[name] for name in sorted(token_tags)):
        if tag.extra_paths:
            what = f"'{tag.name}' is found by more than plain paths, and a request's body is searched by no others"
            notes.add(keys["only_tokens"].value, what)
        elif not tag.find:
            notes.add(keys["only_tokens"].value, f"'{tag.name}' has no place where a token could come")
    guardrail = Guardrail(
        name=name,
        tags=_leaves_under("tag", keys, names, notes),
        at_least=_parse_at_least(keys["at_least"].value, notes) if "at_least" in keys else None,
        probe_tags=probe_tags,
        token_tags=token_tags,
        unless_clear=unless_clear,
        when=when,
        unless=unless,
        purposes=parse_purposes(keys["for"].value, notes) if "for" in keys else None,
        line=node.line,
        column=node.column,
    )
    return guardrail if name else None


def _leaves_under(key: str, keys: Mapping[str, Entry], names: Names, notes: Notes) -> frozenset[str]:
    return parse_leaves(keys[key].value, "a tag", names, notes) if key in keys else frozenset()


def _parse_unless_clear(node: Node, notes: Notes) -> bool:
    text = text_of(node, "unless", notes)
    if text and text != "clear":
        notes.add(node, "'unless' is conditions { … } here, or the word clear")
    return text == "clear"


def _parse_at_least(node: Node, notes: Notes) -> Technique | None:
    technique = parse_shown_as(node, notes)
    if technique == CLEAR:
        notes.add(node, "at_least: clear forbids nothing")
        return None
    return technique


def _check_names(node: Node, tags: frozenset[str], known: Mapping[str, Tag], notes: Notes) -> None:
    for name in sorted(tags):
        if not known[name].field_names:
            what = f"'{name}' finds nothing by a field's name, so a filter by it can't be recognised"
            notes.add(node, what)
