"""What a body hides can't be read by asking about it."""

from __future__ import annotations

import pytest
from support.gate_world import POLICY, World, refused

from gharial.gate.probing import refuse_probing
from gharial.model.errors import RequestProbes
from gharial.model.place import fold_name

HIDDEN = ("email", "date_of_birth", "msisdn")


@pytest.mark.parametrize(
    "query",
    [
        "email=ann@ex.org",
        "EMAIL=x",
        "%65mail=x",
        "email[]=x",
        "email%5Bgte%5D=x",
        "filter[email]=x",
        "filter.email=x",
        "email__startswith=a",
        "email_contains=a",
        "user.email=a",
        "page=1&email=a",
        "page=1;email=a",
        "sort=email",
        "sort=-email",
        "sort=name,-date_of_birth",
        "order_by=email+desc",
        "$orderby=email%20asc",
        "$filter=startswith(email,'a')",
        "q=email:ann*",
        "where={%22msisdn%22:%221%22}",
        "sort=name&sort=email",
        "groupBy=email",
        "em%2561il=x",
        "%2565mail=x",
        "%u0065mail=x",
        "em%ail=x",
        "em%ffail=x",
        "%EF%BD%85mail=x",
        "e%6dail%00=x",
        "sort=%2565mail",
        "s%6frt=x%email",
        "sort=-em%C2%AD%2561il,email",
    ],
)
def test_a_query_that_filters_or_sorts_by_a_hidden_field_is_refused(query):
    """However a framework spells it, a hidden field is neither a filter nor an order."""
    with pytest.raises(RequestProbes):
        refuse_probing(HIDDEN, query)


@pytest.mark.parametrize(
    "query", ["", "page=2&limit=10", "channel=email", "emails_per_page=3", "sort=name", "q=ann", "mail=x", "from=1"]
)
def test_honest_queries_pass(query):
    """A word that only looks alike, or a value of a parameter that chooses nothing, is no probe."""
    refuse_probing(HIDDEN, query)


@pytest.mark.parametrize(
    "name", ["prénom".encode().decode("latin-1"), "prénom", "pr%C3%A9nom", "pr%E9nom", "PR%C3%89NOM"]
)
def test_a_name_outside_ascii_is_found_in_raw_bytes_too(name):
    """In UTF-8 and in latin-1, raw and escaped."""
    with pytest.raises(RequestProbes):
        refuse_probing(frozenset({fold_name("prénom")}), f"{name}=x")


def test_a_query_of_endless_parameters_is_refused():
    """What can't be judged with bounded work is refused."""
    with pytest.raises(RequestProbes):
        refuse_probing(HIDDEN, "&".join(["a=1"] * 2_000))


async def test_a_guardrail_on_probing_refuses_whom_the_field_is_hidden_from():
    """Who may see the name may search by it; who may not is refused before the upstream is asked."""
    policy = POLICY + "never:\n  - { never: no-probing, filter_or_sort_by: [name], unless: clear }\n"
    policy = policy.replace("budget: { people: 3/h, then: mask } }", "}")
    world = World(policy)
    assert refused(await world.call("/customers?fullName=Ann", [])) == "request.probes"
    assert (await world.call("/customers?fullName=Ann", [], as_="clerk-1")).code == ""
    assert (await world.call("/customers?page=2", [])).code == ""
