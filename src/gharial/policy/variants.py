"""On what a plan depends per person: budgets and conditions, and what each tag gets in every combination of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from gharial.model.errors import PolicyInvalid, Problem
from gharial.model.plan import Budget, Condition, Variant
from gharial.policy.conditions import GROUP, grant_atom, guardrail_atom
from gharial.policy.document import Policy
from gharial.policy.grants import Grant
from gharial.policy.guardrails import Guardrail
from gharial.policy.technique import CLEAR, GENERALISED
from gharial.policy.verdict import (
    Fate,
    Floor,
    Undecided,
    Verdict,
    decide_tag,
    floor_of,
    technique_of,
    undecided_problem,
)

MAX_FACTORS = 8
"""Budgets and conditions of one class of callers together: each doubles the number of variants."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A condition of the plan. Of a group, `tags` are those whose cells it compares: cells have no numbers yet."""

    condition: Condition
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Factors:
    """What decides per person for one class of callers, and the variants: every combination, plain first.

    `needs` and `spares` hold, by the names of grants and guardrails, the conditions (indexes of `atoms`) that must all
    hold for it to act, and those that, all holding, keep a guardrail still (empty: nothing does). `own` maps a grant to
    its budgets (indexes of `budgets`), in the order of `Grant.budgets`.
    """

    budgets: tuple[Budget, ...]
    atoms: tuple[Atom, ...]
    variants: tuple[Variant, ...]
    own: Mapping[str, tuple[int, ...]]
    needs: Mapping[str, frozenset[int]]
    spares: Mapping[str, frozenset[int]]


def find_factors(
    policy: Policy, grants: Sequence[Grant], guardrails: Sequence[Guardrail], here: Collection[str]
) -> Factors:
    """Return what decides about the tags that are `here` on a route. Raises PolicyInvalid where it is too much."""
    shows = [grant for grant in grants if any(tag in here for tag in grant.shown)]
    acts = [guardrail for guardrail in guardrails if any(tag in here for tag in guardrail.tags)]
    budgets: list[Budget] = []
    own: dict[str, tuple[int, ...]] = {}
    for grant in shows:
        if any(technique == CLEAR and tag in here for tag, technique in grant.shown.items()):
            own[grant.name] = tuple(range(len(budgets), len(budgets) + len(grant.budgets)))
            budgets += [Budget(grant.name, rule.people, rule.window_s) for rule in grant.budgets]
    wanted = {grant.name: grant_atoms(grant) for grant in shows}
    wanted |= {g.name: frozenset(Atom(guardrail_atom(c)) for c in g.when.person) for g in acts}
    sparing = {g.name: frozenset(Atom(grant_atom(c)) for c in g.unless.person) for g in acts}
    atoms = tuple(sorted(frozenset[Atom]().union(*wanted.values(), *sparing.values()), key=_sort_key))
    if len(budgets) + len(atoms) > MAX_FACTORS:
        raise PolicyInvalid([_too_many(policy, shows, acts, own)])
    number = {atom: index for index, atom in enumerate(atoms)}
    return Factors(
        budgets=tuple(budgets),
        atoms=atoms,
        variants=tuple(Variant(crossed, holds) for holds in _subsets(len(atoms)) for crossed in _subsets(len(budgets))),
        own=own,
        needs={name: frozenset(number[atom] for atom in found) for name, found in wanted.items()},
        spares={name: frozenset(number[atom] for atom in found) for name, found in sparing.items()},
    )


def grant_atoms(grant: Grant) -> frozenset[Atom]:
    """Return what a grant needs to be so about a person."""
    found = {Atom(grant_atom(condition)) for condition in grant.needs.person}
    if grant.min_group:
        alike = tuple(sorted(tag for tag, technique in grant.shown.items() if technique.op in GENERALISED))
        found.add(Atom(Condition(GROUP, people=grant.min_group), alike))
    return frozenset(found)


def guardrail_atoms(guardrail: Guardrail) -> frozenset[Atom]:
    """Return what about a person decides whether a guardrail acts."""
    return frozenset(
        {Atom(guardrail_atom(c)) for c in guardrail.when.person}
        | {Atom(grant_atom(c)) for c in guardrail.unless.person}
    )


def _sort_key(atom: Atom) -> tuple[object, ...]:
    c = atom.condition
    return c.fact, c.values, c.negated, c.if_missing, c.people, atom.tags


def _subsets(count: int) -> list[tuple[int, ...]]:
    return [subset for size in range(count + 1) for subset in combinations(range(count), size)]


def _too_many(
    policy: Policy, grants: Sequence[Grant], guardrails: Sequence[Guardrail], own: Mapping[str, tuple[int, ...]]
) -> Problem:
    involved: list[Grant | Guardrail] = [g for g in grants if own.get(g.name) or g.needs.person or g.min_group]
    involved += [g for g in guardrails if g.when.person or g.unless.person]
    last = max(involved, key=lambda g: (g.line, g.column))
    names = ", ".join(sorted(g.name for g in involved))
    what = f"callers to whom all of {names} apply have more than {MAX_FACTORS} budgets and conditions about persons"
    return Problem(policy.file, last.line, last.column, what)


@dataclass(slots=True)
class Table:
    """What each tag gets by itself in every variant: from grants, and at least, from guardrails."""

    policy: Policy
    factors: Factors
    grants_of: dict[str, list[Grant]] = field(default_factory=dict)
    guardrails_of: dict[str, list[Guardrail]] = field(default_factory=dict)

    @classmethod
    def of(cls, policy: Policy, factors: Factors, grants: Iterable[Grant], guardrails: Iterable[Guardrail]) -> Table:
        """Sort grants and guardrails by the tags that they speak of."""
        table = cls(policy, factors)
        for grant in grants:
            for tag in grant.shown:
                table.grants_of.setdefault(tag, []).append(grant)
        for guardrail in guardrails:
            for tag in guardrail.tags:
                table.guardrails_of.setdefault(tag, []).append(guardrail)
        return table

    def fates(self, tags: Iterable[str]) -> tuple[dict[str, Fate], dict[str, tuple[Floor | None, ...]]]:
        """Return what grants say and what guardrails ask, per tag and variant.

        Raises PolicyInvalid with every tag about which grants disagree.
        """
        fates: dict[str, Fate] = {}
        floors: dict[str, tuple[Floor | None, ...]] = {}
        problems: set[Problem] = set()
        for tag in tags:
            try:
                fates[tag] = self._fate(tag)
            except Undecided as clash:
                problems.add(undecided_problem(self.policy, tag, clash))
            floors[tag] = self._floors(tag)
        if problems:
            raise PolicyInvalid(problems)
        return fates, floors

    def _fate(self, tag: str) -> Fate:
        grants = self.grants_of.get(tag, [])
        relevant = self._relevant([g.name for g in grants])
        budgets = frozenset(index for grant in grants for index in self.factors.own.get(grant.name, ()))
        # Most variants differ in what this tag does not depend on.
        known: dict[tuple[frozenset[int], frozenset[int]], Verdict] = {}
        found: list[Verdict] = []
        for variant in self.factors.variants:
            key = (budgets.intersection(variant.crossed), relevant.intersection(variant.holds))
            if key not in known:
                known[key] = self._verdict(tag, grants, *key)
            found.append(known[key])
        return tuple(found)

    def _verdict(self, tag: str, grants: list[Grant], crossed: frozenset[int], holds: frozenset[int]) -> Verdict:
        says = []
        for grant in grants:
            if not self.factors.needs.get(grant.name, frozenset()) <= holds:
                continue
            own = self.factors.own.get(grant.name, ())
            beyond = [at for at, index in enumerate(own) if index in crossed]
            says.append((grant, technique_of(grant, grant.shown[tag], beyond), frozenset(own)))
        return decide_tag(says)

    def _floors(self, tag: str) -> tuple[Floor | None, ...]:
        guardrails = self.guardrails_of.get(tag, [])
        relevant = self._relevant([g.name for g in guardrails])
        known: dict[frozenset[int], Floor | None] = {}
        found: list[Floor | None] = []
        for variant in self.factors.variants:
            holds = relevant.intersection(variant.holds)
            if holds not in known:
                known[holds] = floor_of([g for g in guardrails if self._acts(g, holds)])
            found.append(known[holds])
        return tuple(found)

    def _acts(self, guardrail: Guardrail, holds: frozenset[int]) -> bool:
        spares = self.factors.spares[guardrail.name]
        return self.factors.needs[guardrail.name] <= holds and not (spares and spares <= holds)

    def _relevant(self, names: Iterable[str]) -> frozenset[int]:
        none = frozenset[int]()
        return none.union(*(self.factors.needs.get(n, none) | self.factors.spares.get(n, none) for n in names))
