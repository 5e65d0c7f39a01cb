"""Policy x route x class of caller -> Plan: pure data, the same whatever the order in which a policy is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gharial.model.errors import PolicyInvalid
from gharial.model.place import Carrier, RequestField, fold_name
from gharial.model.plan import NONE, PLAN_FORMAT, Cell, Condition, Node, Op, Param, Plan, Step, dump_plan
from gharial.policy.automaton import Automaton
from gharial.policy.conditions import GROUP
from gharial.policy.document import Policy
from gharial.policy.extras import check_same_places, extras_of, has_extras, rank_steps, reference_reason
from gharial.policy.grants import Grant
from gharial.policy.guardrails import Guardrail
from gharial.policy.incoming import incoming_plan
from gharial.policy.layout import Layout
from gharial.policy.sent import combine, verdicts_of
from gharial.policy.tags import Tag
from gharial.policy.technique import CLEAR, GENERALISED
from gharial.policy.variants import Atom, Factors, Table, find_factors
from gharial.policy.verdict import Verdict


def compile_plan(
    policy: Policy, route: str, params: tuple[str, ...], grants: Iterable[str], guardrails: Iterable[str] = ()
) -> Plan:
    """Return the plan of one route, whose template has the parameters `params`, for one class of callers.

    `grants` and `guardrails` are what `decide` says of the class. Raises PolicyInvalid where grants or tags contradict
    each other for this class, or the plan would be too large; `checks.check_policy` finds such contradictions
    beforehand. Raises KeyError for a grant or guardrail that does not exist.
    """
    wanted, acting = set(grants), set(guardrails)
    applying = [grant for grant in policy.grants if grant.name in wanted]
    floors = [guardrail for guardrail in policy.never if guardrail.name in acting]
    if len(applying) < len(wanted) or len(floors) < len(acting):
        known = {grant.name for grant in policy.grants} | {guardrail.name for guardrail in policy.never}
        raise KeyError(min((wanted | acting) - known, default=""))
    tags = {name: tag for name, tag in sorted(policy.tags.items()) if _is_here(tag, params, policy)}
    factors = find_factors(policy, applying, floors, tags.keys())
    layout = Layout(policy, *Table.of(policy, factors, applying, floors).fates(tags))
    check_same_places(policy, tags.values(), layout)
    automaton = Automaton.of((name, path) for name, tag in tags.items() for path in tag.body_paths)
    nodes = layout.nodes(automaton)
    demanded = _demanded(floors, params, tags, layout, factors)
    sent = verdicts_of(policy, applying, floors)
    xml_paths = [(name, path) for name, tag in tags.items() for path in tag.xml_paths]
    xml_nodes = layout.nodes(Automaton.of_xml(xml_paths)) if xml_paths else ()
    own_params = (
        *_params(params, tags, applying, demanded, layout),
        *_fields(policy, applying, demanded, sent, layout),
    )
    row_nodes = _row_nodes(automaton, layout, nodes)
    extras = extras_of(tags, layout, policy.unlisted)
    probes = _probes(floors, tags, layout, factors)
    cells, steps = layout.cells, tuple(layout.steps)
    conditions = tuple(_condition(atom, cells, steps) for atom in factors.atoms)
    names = tuple(grant.name for grant in applying)
    plan = Plan(
        format=PLAN_FORMAT,
        policy=policy.name,
        version=policy.version,
        route=route,
        mode=policy.mode,
        grants=names,
        unlisted=policy.unlisted,
        nodes=nodes,
        params=own_params,
        cells=tuple(_reporting(cells, conditions)),
        steps=rank_steps(steps, layout.techniques) if extras else steps,
        budgets=factors.budgets,
        variants=factors.variants,
        guardrails=tuple(guardrail.name for guardrail in floors),
        conditions=conditions,
        extras=extras,
        probes=probes,
        json_in_strings=policy.json_in_strings,
        lists=_lists(steps, policy),
        xml_nodes=xml_nodes,
        needs_reference=reference_reason(policy, tags),
        row_nodes=row_nodes,
        same=_same(policy, cells),
        incoming=incoming_plan(policy, route, names, _opened(frozenset(policy.tags), applying), demanded, sent),
    )
    if policy.redaction != plan.redaction:
        plan = msgspec.structs.replace(plan, redaction=policy.redaction)
    return msgspec.structs.replace(plan, digest=hashlib.sha256(dump_plan(plan)).hexdigest()[:32])


def _row_nodes(automaton: Automaton, layout: Layout, nodes: tuple[Node, ...]) -> tuple[Node, ...] | None:
    """The trie for rows: empty where it is that of whole documents, None where there can't be one."""
    of_rows = automaton.of_rows()
    if of_rows is None:
        return None
    if of_rows.start() == automaton.start():
        return ()
    try:
        found = layout.nodes(of_rows)
    except PolicyInvalid:
        # Tags that never meet in a document meet in a row, and can't be ordered: no reason to refuse documents.
        return None
    return () if found == nodes else found


def _is_here(tag: Tag, params: tuple[str, ...], policy: Policy) -> bool:
    in_body = bool(tag.body_paths or tag.xml_paths) or has_extras(tag, policy.unlisted)
    return in_body or any(name in params for name in tag.params)


def _params(
    params: tuple[str, ...], tags: Mapping[str, Tag], applying: list[Grant], demanded: frozenset[str], layout: Layout
) -> list[Param]:
    """The tagged parameters of the route, in the order of its template."""
    found: list[Param] = []
    for name in params:
        own = frozenset(tag.name for tag in tags.values() if name in tag.params)
        if not own:
            continue
        combined = layout.combine(own)
        opened = _opened(own, applying)
        found.append(
            Param(
                name,
                tuple(sorted(own)),
                layout.cell(combined),
                combined.subject,
                bool(opened),
                closed=tuple(sorted(own - opened)) if opened else (),
                only_tokens=bool(own & demanded),
            )
        )
    return found


def _fields(
    policy: Policy, applying: list[Grant], demanded: frozenset[str], sent: Mapping[str, Verdict], layout: Layout
) -> list[Param]:
    """Tagged parts of requests outside the path with which something is done, sorted. Only a query names people."""
    found: list[Param] = []
    for place, own in fields_of(policy.tags.values()).items():
        protected = own & sent.keys()
        # What is protected is not opened: `checks.check_policy` refuses a policy that asks for both.
        opened = frozenset[str]() if protected else _opened(own, applying)
        subjects = sorted({policy.tags[name].subject for name in own} - {""})
        # Of two id spaces the first; `checks.check_policy` refuses such a policy.
        subject = subjects[0] if subjects and place.carrier is Carrier.QUERY else ""
        only_tokens = bool(own & demanded)
        if opened or subject or only_tokens or protected:
            closed = tuple(sorted(own - opened)) if opened else ()
            how = combine(sent, protected) if protected else None
            step = layout.step(how.tag, how.verdict) if how else NONE
            tags = tuple(sorted(own))
            found.append(Param(place.name, tags, NONE, subject, bool(opened), place.carrier, closed, only_tokens, step))
    return found


def fields_of(tags: Iterable[Tag]) -> dict[RequestField, frozenset[str]]:
    """Return the parts of requests outside path and body that tags find, sorted, each with the names of its tags."""
    found: dict[RequestField, set[str]] = {}
    for tag in tags:
        for place in tag.fields:
            found.setdefault(place, set()).add(tag.name)
    return {place: frozenset(found[place]) for place in sorted(found, key=str)}


def _opened(tags: frozenset[str], applying: list[Grant]) -> frozenset[str]:
    """Which of these tags' tokens become real values."""
    return tags & frozenset[str]().union(*(grant.reidentify for grant in applying))


def _probes(
    guardrails: Sequence[Guardrail], tags: Mapping[str, Tag], layout: Layout, factors: Factors
) -> tuple[str, ...]:
    """Names of fields by which these callers may not filter or sort."""
    found: set[str] = set()
    for guardrail in guardrails:
        for name in sorted(guardrail.probe_tags & tags.keys()):
            if not (guardrail.unless_clear and _is_seen(name, layout, factors)):
                found |= {fold_name(field) for field in tags[name].field_names}
    return tuple(sorted(found))


def _demanded(
    guardrails: Sequence[Guardrail], params: tuple[str, ...], tags: Mapping[str, Tag], layout: Layout, factors: Factors
) -> frozenset[str]:
    """Tags in whose places in a request these callers may send nothing but tokens."""
    for name in params:
        # What is shown of a parameter counts too.
        if own := frozenset(tag.name for tag in tags.values() if name in tag.params):
            layout.combine(own)
    return frozenset(
        name
        for guardrail in guardrails
        for name in guardrail.token_tags
        if not (guardrail.unless_clear and name in tags and _is_seen(name, layout, factors))
    )


def _is_seen(tag: str, layout: Layout, factors: Factors) -> bool:
    """True if these callers see the tag in clear, for everybody's record and as long as no budget is crossed.

    Whom a filter or an id finds is counted like anybody else.
    """
    plain = [index for index, variant in enumerate(factors.variants) if not variant.crossed]
    layout.combine(frozenset([tag]))
    return all(fate[index].technique == CLEAR for fate in layout.fates_with(tag) for index in plain)


def _lists(steps: Iterable[Step], policy: Policy) -> dict[str, tuple[str, ...]]:
    """The lists that the plan's steps choose from."""
    named = sorted({str(step.arg("list", "")) for step in steps if step.op is Op.SUBSTITUTE})
    return {name: policy.lists[name] for name in named}


def _same(policy: Policy, cells: Sequence[Cell]) -> tuple[tuple[str, ...], ...]:
    """The spaces of the same people of which two or more may stand in one body of this route."""
    here = {cell.subject for cell in cells}
    classes = (tuple(space for space in joined if space in here) for joined in policy.same)
    return tuple(sorted(joined for joined in classes if len(joined) > 1))


def _condition(atom: Atom, cells: Sequence[Cell], steps: Sequence[Step]) -> Condition:
    """The plan's form of a condition; a group's cells have numbers by now."""
    if atom.condition.fact != GROUP:
        return atom.condition
    alike = tuple(
        index
        for index, cell in enumerate(cells)
        if cell.tag in atom.tags and any(steps[step].op in GENERALISED for step in cell.steps)
    )
    return Condition(GROUP, people=atom.condition.people, cells=alike)


def _reporting(cells: Iterable[Cell], conditions: Sequence[Condition]) -> Iterable[Cell]:
    """The cells, with `report` where a condition asks for the value."""
    facts = {condition.fact for condition in conditions}
    grouped = {index for condition in conditions for index in condition.cells}
    for index, cell in enumerate(cells):
        report = index in grouped or (bool(cell.fact) and cell.fact in facts)
        yield msgspec.structs.replace(cell, report=True) if report else cell
