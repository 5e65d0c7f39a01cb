"""Ids of several spaces that mean the same people (`same_as`): which of them are one person. Pure.

Some ids in a body may be forged: an attacker writes what he likes into his own profile. So each question gets the
answer that is safe for it. Who is counted by budgets (`join_ids`): the most people that there may be, short of one
and the same pair of ids twice. Who is one in a crowd, and whom a fact concerns (`find_together`): the fewest.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from gharial.watch.meter import join_digests

Id = tuple[str, str]
"""Id space and digest of an id."""
Same = tuple[tuple[str, ...], ...]
_T = TypeVar("_T", bound=Hashable)


def join_ids(same: Same, scopes: Sequence[Sequence[Id]], apart: Iterable[Id]) -> tuple[tuple[str, ...], ...]:
    """Return the people of each scope as digests, those that are one person joined.

    `scopes` are the ids that each scope names itself. Ids of one class of `same` are one person in a scope that names
    one id of each of two or more of its spaces, if no other scope names one of these ids otherwise, and none is among
    `apart`. Else, and for all others, each id is a person. The order of scopes does not matter.
    """
    class_of = {space: number for number, spaces in enumerate(same) for space in spaces}
    # Equal companies are one object, so that telling them apart takes no look at all their members.
    known: dict[frozenset[Id], frozenset[Id]] = {}
    companies = [
        {number: known.setdefault(company, company) for number, company in _companies(class_of, ids).items()}
        for ids in scopes
    ]
    seen: dict[Id, frozenset[Id]] = dict.fromkeys(apart, _AMBIGUOUS)
    for company in known:
        for one in company:
            if seen.setdefault(one, company) is not company:
                seen[one] = _AMBIGUOUS
    joined = {company for company in known if _is_one_person(company, seen)}
    return tuple(_people(class_of, ids, own, joined) for ids, own in zip(scopes, companies, strict=True))


_AMBIGUOUS: frozenset[Id] = frozenset()


def _companies(class_of: Mapping[str, int], ids: Iterable[Id]) -> dict[int, frozenset[Id]]:
    """The ids of each class that a scope names."""
    found: dict[int, set[Id]] = {}
    for one in ids:
        if one[0] in class_of:
            found.setdefault(class_of[one[0]], set()).add(one)
    return {number: frozenset(company) for number, company in found.items()}


def _is_one_person(company: frozenset[Id], seen: Mapping[Id, frozenset[Id]]) -> bool:
    # One id per space: of two customers and one login it can't be told whose the login is.
    plain = 1 < len(company) == len({space for space, _ in company})
    return plain and all(seen[one] is company for one in company)


def _people(
    class_of: Mapping[str, int],
    ids: Sequence[Id],
    companies: Mapping[int, frozenset[Id]],
    joined: Collection[frozenset[Id]],
) -> tuple[str, ...]:
    people: dict[str, None] = {}
    for one in ids:
        company = companies.get(class_of.get(one[0], -1), _AMBIGUOUS)
        if company in joined:
            people[join_digests(digest for _, digest in sorted(company))] = None
        else:
            people[one[1]] = None
    return tuple(people)


def find_together(same: Same, scopes: Iterable[Iterable[tuple[str, _T]]]) -> dict[tuple[str, _T], tuple[str, _T]]:
    """Return, for each id of a class of `same`, the one that stands for all that may be the same person.

    That is all ids that stand together in any scope, and all that stand together with one of these.
    """
    class_of = {space: number for number, spaces in enumerate(same) for space in spaces}
    leads: dict[tuple[str, _T], tuple[str, _T]] = {}

    def lead(one: tuple[str, _T]) -> tuple[str, _T]:
        path = []
        while (above := leads.setdefault(one, one)) != one:
            path.append(one)
            one = above
        leads.update(dict.fromkeys(path, one))
        return one

    for ids in scopes:
        first: dict[int, tuple[str, _T]] = {}
        for one in ids:
            if one[0] in class_of:
                leads[lead(one)] = lead(first.setdefault(class_of[one[0]], one))
    return {one: lead(one) for one in list(leads)}
