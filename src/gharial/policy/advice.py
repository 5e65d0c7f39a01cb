"""What is allowed in a policy and probably not meant, or not yet carried out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, combinations

from gharial.model.errors import Problem
from gharial.model.place import Carrier
from gharial.model.plan import Op, Unlisted
from gharial.policy.cel import CelProgram
from gharial.policy.cel_trial import Trials, find_faults
from gharial.policy.checks import may_meet, techniques_of
from gharial.policy.conditions import CONSENT
from gharial.policy.document import Policy
from gharial.policy.extras import detectors_matter
from gharial.policy.grants import Grant
from gharial.policy.guardrails import Guardrail
from gharial.policy.technique import CLEAR
from gharial.policy.uses import find_doubtful, uses_of
from gharial.policy.variants import MAX_FACTORS, grant_atoms, guardrail_atoms
from gharial.policy.watch_syntax import Watch

MAX_STARTS = 50
"""Grants from which a search for too many budgets begins."""


def find_warnings(policy: Policy) -> list[Problem]:
    """Return what is allowed and probably not meant."""
    found: list[Problem] = []
    has_subject = any(tag.subject for tag in policy.tags.values())
    for grant in policy.grants:
        whats = (*_without_subject(grant, has_subject), *_useless_budgets(grant))
        found += [Problem(policy.file, grant.line, grant.column, what) for what in whats]
        found += [
            Problem(policy.file, grant.line, grant.column, f"'{grant.name}' reidentifies '{tag}', {why}")
            for tag in sorted(grant.reidentify)
            if (why := _useless_reidentify(policy, tag))
        ]
        found += [
            Problem(policy.file, grant.line, grant.column, f"'{grant.name}' reveals '{tag}', {why}")
            for tag in sorted(grant.reveal)
            if (why := _doubtful_reveal(policy, grant, tag))
        ]
    for tag in policy.tags.values():
        if tag.detect and not tag.find and not detectors_matter(policy.unlisted):
            what = f"'{tag.name}' finds nothing: 'unlisted_fields: {policy.unlisted}' leaves nothing to detect"
            found.append(Problem(policy.file, tag.line, tag.column, what))
    found += _idle_places(policy)
    found += _one_format_only(policy)
    for watch in policy.watch:
        found += [Problem(policy.file, watch.line, watch.column, what) for what in _doubtful_watch(watch, has_subject)]
    for tag in policy.tags.values():
        if tag.population:
            what = f"the population of '{tag.subject}' is read and checked, but this version does not measure by it yet"
            found.append(Problem(policy.file, tag.line, tag.column, what))
    found += _failing_expressions(policy)
    found += find_doubtful(uses_of(policy.grants, policy.never), policy.tags, policy.file)
    return sorted([*found, *_too_many_factors(policy)])


def _idle_places(policy: Policy) -> Iterator[Problem]:
    """Places in requests with which nothing is done: who wrote them may believe that what comes there is protected."""
    opened = frozenset[str]().union(*(grant.reidentify for grant in policy.grants))
    demanded = frozenset[str]().union(*(guardrail.token_tags for guardrail in policy.never))
    probed = frozenset[str]().union(*(guardrail.probe_tags for guardrail in policy.never))
    for tag in policy.tags.values():
        if tag.name in opened | demanded:
            continue
        for place in tag.fields:
            heeded = place.carrier is Carrier.QUERY and (tag.subject or tag.name in probed)
            if not heeded:
                what = f"'{tag.name}' finds {place}, and nothing is done there: no grant reidentifies '{tag.name}'"
                yield Problem(policy.file, tag.line, tag.column, what)


def _one_format_only(policy: Policy) -> Iterator[Problem]:
    """Tags whose values pass in one format, since only the other one has places of them."""
    if policy.unlisted not in (Unlisted.PASS, Unlisted.DETECT):
        return
    tags = policy.tags.values()
    in_json = {tag.name for tag in tags if tag.body_paths or tag.extra_paths}
    in_xml = {tag.name for tag in tags if tag.xml_paths}
    if not in_json or not in_xml:
        return
    for tag in tags:
        if (tag.name in in_json) != (tag.name in in_xml):
            here, there = ("JSON", "XML") if tag.name in in_json else ("XML", "JSON")
            what = f"'{tag.name}' has places in {here} only: in {there} its values are fields that no tag names"
            yield Problem(policy.file, tag.line, tag.column, f"{what} (unlisted_fields: {policy.unlisted})")


def _failing_expressions(policy: Policy) -> Iterator[Problem]:
    """Expressions that have no outcome for claims of some types: whoever brings one is refused everywhere."""
    rules: list[tuple[str, int, int, Iterable[CelProgram]]] = [
        # In the order of names, for the trials are limited and the order of writing never matters.
        *((f"'{who.name}'", who.line, who.column, who.expressions) for _, who in sorted(policy.who.items())),
        *((f"the grant '{g.name}'", g.line, g.column, g.needs.expressions) for g in policy.grants),
        *(
            (f"the guardrail '{g.name}'", g.line, g.column, (*g.when.expressions, *g.unless.expressions))
            for g in policy.never
        ),
    ]
    trials = Trials()
    for rule, line, column, expressions in rules:
        for fault in (fault for expression in expressions for fault in find_faults(expression, trials)):
            what = f"{rule} refuses exchanges of a caller whose {fault.claim} is {' or '.join(fault.types)}"
            advice = f"test it first: {fault.test} && …" if fault.test else "no type of it fits"
            yield Problem(policy.file, line, column, f"{what}; {advice}")


def _doubtful_watch(watch: Watch, has_subject: bool) -> Iterator[str]:
    names = {measure.name for measure in watch.do}
    if (watch.people_per or watch.ids) and not has_subject:
        yield f"'{watch.name}' counts nobody: no tag has a subject"
    if "decoy" in names:
        yield f"'{watch.name}' asks for made-up values (decoy), which this version does not make: it masks instead"


def _without_subject(grant: Grant, has_subject: bool) -> Iterator[str]:
    if has_subject:
        return
    if grant.budgets and (CLEAR in grant.shown.values() or not grant.reveal):
        yield f"the grant '{grant.name}' has a budget, but no tag has a subject: each record counts as one person"
    if any(condition.fact == CONSENT for condition in grant.needs.person):
        yield f"the grant '{grant.name}' needs consent, but no tag has a subject: nobody can be asked for"


def _useless_budgets(grant: Grant) -> Iterator[str]:
    if grant.budgets and CLEAR not in grant.shown.values() and not grant.reveal:
        yield f"the budget of '{grant.name}' counts nobody: the grant shows nothing clear"
    for short, long in combinations(grant.budgets, 2):
        if long.people <= short.people:
            yield (
                f"the budgets of '{grant.name}' contradict each other: {short.people} people in the shorter window "
                f"can't be reached, for the longer one allows {long.people}"
            )


def _too_many_factors(policy: Policy) -> Iterable[Problem]:
    """Grants that one caller may have together and that depend on too much: such a caller is refused."""
    always = frozenset[object]().union(*(guardrail_atoms(guardrail) for guardrail in policy.never))
    counted = [grant for grant in policy.grants if grant.budgets or grant_atoms(grant)]
    about = [guardrail for guardrail in policy.never if guardrail_atoms(guardrail)]
    # A warning may overlook what only a search among very many would find: such a caller is refused all the same.
    for start in range(min(max(1, len(counted)), MAX_STARTS)):
        together: list[Grant] = counted[start : start + 1]
        for grant in counted:
            if grant is not together[0] and all(may_meet(policy, grant, other) for other in together):
                together.append(grant)
        atoms = always.union(*(grant_atoms(grant) for grant in together))
        if sum(len(grant.budgets) for grant in together) + len(atoms) > MAX_FACTORS:
            rules: list[Grant | Guardrail] = [*together, *about]
            line, column = min((rule.line, rule.column) for rule in rules)
            names = ", ".join(sorted(rule.name for rule in rules))
            what = f"a caller to whom all of {names} apply is refused: together they have more than {MAX_FACTORS} "
            yield Problem(policy.file, line, column, f"{what}budgets and conditions about persons")
            return


def _doubtful_reveal(policy: Policy, grant: Grant, tag: str) -> str:
    techniques = chain.from_iterable(techniques_of(other, tag) for other in policy.grants)
    if not any(technique.op in (Op.TOKEN, Op.ENCRYPT) for technique in techniques):
        return "which no grant shows as a token or an envelope"
    if not grant.budgets:
        return "without a budget: whoever has this caller's credential can have every value of its tokens"
    return ""


def _useless_reidentify(policy: Policy, tag: str) -> str:
    found = policy.tags[tag]
    if not (found.params or found.fields or found.body_paths):
        return "which has no place in a request: path:, query:, header:, cookie:, or a plain path of a body"
    techniques = chain.from_iterable(techniques_of(grant, tag) for grant in policy.grants)
    if not any(technique.op is Op.TOKEN for technique in techniques):
        return "which no grant shows as a token"
    return ""
