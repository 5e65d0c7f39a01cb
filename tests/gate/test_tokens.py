"""Tokens in queries, headers and cookies: opened for their own client in their own place, and nowhere else."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from support.gate_world import Seen, World, refused

POLICY = """
policy: crm
version: 1
tags:
  person:  { find: ['$..customerId', 'query:id', 'header:X-Customer'], subject: customer }
  account: { find: ['$..accountNumber', 'query:account', 'header:X-Account', 'cookie:account'] }
  email:   { find: ['$..email', 'query:email'] }
  name:    { find: '$..fullName' }
  public:  { find: '$..plan' }
who:
  anyone: {}
  care: { role: care }
  partner: { client: 'acme-*' }
grants:
  - { grant: basics, to: anyone, show: { person: token, public: clear } }
  - { grant: care, to: care, show: { person: clear, name: clear }, budget: { people: 3/h, then: redact } }
  - grant: partner
    to: partner
    show: { account: token, person: token, email: token }
    reidentify: [account, person]
"""
ROUTES = (("list", "GET /customers", "crm"), ("one", "GET /customers/{id}", "crm"))
TOKEN_REFUSED = "token.refused"


def a_world(**more: Any) -> World:
    return World(POLICY, ROUTES, **more)


async def a_token(world: World, field: str, value: object, *, as_: str = "acme-billing") -> str:
    """The token that a client is shown for a value."""
    token = (await world.call("/customers", {field: value}, as_=as_)).json[field]
    assert token.startswith("tok_")
    return str(token)


def asked(seen: Seen) -> list[tuple[str, str]]:
    """The query as the upstream reads it."""
    assert seen.request is not None, seen.code
    assert seen.request.target is not None
    return parse_qsl(urlsplit(seen.request.target).query, keep_blank_values=True)


def sent(seen: Seen, name: str) -> list[str]:
    """The values of a header that are set, after all that came was removed."""
    assert seen.request is not None, seen.code
    found = [value for key, value in seen.request.set_headers if key == name]
    assert not found or name in seen.request.remove_headers
    return found


# --- the query ----------------------------------------------------------------------------------------------------


async def test_a_token_in_the_query_reaches_the_upstream_as_the_value():
    """What is no token keeps its spelling and its place; the audit counts the token and holds no value."""
    world = a_world()
    token = await a_token(world, "accountNumber", "DE02 1203")
    seen = await world.call(f"/customers?a=%41&account={token}&a=b+c&flag", as_="acme-billing")
    assert seen.request.target == "/customers?a=%41&account=DE02%201203&a=b+c&flag"
    assert world.audit.lines[-1]["reidentified"] == {"account": 1}
    assert "1203" not in str(world.audit.raw)


@pytest.mark.parametrize("value", ["a&b=c", "a#b", "a+b", "100%", "%26", "a;b", "ü/x", "=", "a b", "..", "tok_x"])
async def test_a_value_is_exactly_one_parameter(value: str):
    """Whatever a value holds, the upstream reads it as the value of this one parameter."""
    world = a_world()
    token = await a_token(world, "accountNumber", value)
    seen = await world.call(f"/customers?x=1&account={token}&y=2", as_="acme-billing")
    assert asked(seen) == [("x", "1"), ("account", value), ("y", "2")]
    assert not set("# ;") & set(seen.request.target)


async def test_a_number_comes_back_digit_for_digit():
    """A number's token becomes the digits that the upstream wrote."""
    world = a_world()
    token = await a_token(world, "accountNumber", 4815162342)
    assert asked(await world.call(f"/customers?account={token}", as_="acme-billing")) == [("account", "4815162342")]


async def test_every_one_of_several_is_opened():
    """A parameter that comes several times is opened each time, plain values between them stay."""
    world = a_world()
    one, two = await a_token(world, "accountNumber", "A1"), await a_token(world, "accountNumber", "A2")
    seen = await world.call(f"/customers?account={one}&account=plain&account={two}", as_="acme-billing")
    assert [value for _, value in asked(seen)] == ["A1", "plain", "A2"]
    assert world.audit.lines[-1]["reidentified"] == {"account": 2}


@pytest.mark.parametrize("name", ["account", "acc%6Funt", "%61ccount", "%61%63%63ount"])
async def test_names_are_compared_decoded(name: str):
    """However its name is percent-encoded, the upstream reads the same parameter, and so does the gate."""
    world = a_world()
    token = await a_token(world, "accountNumber", "A1")
    seen = await world.call(f"/customers?{name}={token.replace('_', '%5F')}", as_="acme-billing")
    assert asked(seen) == [("account", "A1")]


@pytest.mark.parametrize(
    "query",
    [
        "Account={}",
        "account%5B%5D={}",
        "account[0]={}",
        "account%5Bgte%5D={}",
        "acc%256Funt={}",
        "account%00={}",
        "account%20={}",
        "+account={}",
        "account.eq={}",
        "account__in={}",
        "account_eq={}",
        "filter[account]={}",
        "x=1;account={}",
        "account={};x=1",
        "account=%22{}%22",
        "account=%20{}",
        "account={}%20",
        "account={},{}",
        "account={}%00",
        "%75account={}&account%E2%80%8B={}",
        "%EF%BD%81ccount={}",
    ],
)
async def test_a_token_beside_its_place_is_refused(query: str):
    """Where only some servers would find the parameter nothing is opened, nor does the token slip by."""
    world = a_world()
    token = await a_token(world, "accountNumber", "A1")
    seen = await world.call("/customers?" + query.replace("{}", token), as_="acme-billing")
    assert refused(seen) == TOKEN_REFUSED


async def test_a_token_elsewhere_is_only_a_text():
    """A parameter of another name, and another tag's place, get nothing opened."""
    world = a_world()
    account, email = await a_token(world, "accountNumber", "A1"), await a_token(world, "email", "a@b.example")
    elsewhere = await world.call(f"/customers?note={account}&email={email}", as_="acme-billing")
    assert elsewhere.request.target is None
    for place in ("account", "id"):
        assert refused(await world.call(f"/customers?{place}={email}", as_="acme-billing")) == TOKEN_REFUSED
    assert refused(await world.call(f"/customers?id={account}", as_="acme-billing")) == TOKEN_REFUSED


@pytest.mark.parametrize("spoil", [str.upper, lambda t: t + "=", lambda t: t[:-1], lambda t: t + "A", lambda _: "tok_"])
async def test_forged_and_respelled_tokens_are_refused_alike(spoil: Any):
    """Another client's token, a forged one and one that is spelled otherwise can't be told apart by the answer."""
    world = a_world()
    token = await a_token(world, "accountNumber", "A1")
    foreign = (await world.call("/customers", {"customerId": "42"})).json["customerId"]
    seen = [
        await world.call(f"/customers?account={spoil(token)}", as_="acme-billing"),
        await world.call(f"/customers?id={foreign}", as_="acme-billing"),
        await world.call("/customers", headers=[("x-account", spoil(token))], as_="acme-billing"),
        await world.call("/customers", headers=[("cookie", f"account={spoil(token)}")], as_="acme-billing"),
    ]
    assert {refused(one) for one in seen} == {TOKEN_REFUSED}
    assert len({(one.refusal.error.title, one.refusal.error.status, one.refusal.set_headers) for one in seen}) == 1
    assert world.services.counters.refused[TOKEN_REFUSED] == len(seen)
    assert [line["error"] for line in world.audit.lines[-4:]] == [TOKEN_REFUSED] * 4


async def test_who_may_not_reidentify_sends_texts():
    """Without the grant a token goes to the upstream as it came."""
    world = a_world()
    token = (await world.call("/customers", {"customerId": "42"})).json["customerId"]
    assert (await world.call(f"/customers?id={token}")).request.target is None


@pytest.mark.parametrize(
    "query", ["account=%ff", "%ffaccount=1", "x=1&%c3=2", "&".join(["x=1"] * 1001), ";" * 1000, "x\xff=1"]
)
async def test_a_query_that_cant_be_read_one_way_is_refused(query: str):
    """Names and tagged values that are not UTF-8, and very many parameters, are not guessed at."""
    assert refused(await a_world().call(f"/customers?{query}", as_="acme-billing")) == "request.malformed"


async def test_very_many_cookies_are_not_judged():
    """Nobody needs so many, and each costs time; those that only some servers tell apart count too."""
    world = a_world()
    for cookies in ("a=1; " * 1001, "a=1, " * 1001):
        seen = await world.call("/customers", headers=[("cookie", cookies)], as_="acme-billing")
        assert refused(seen) == "request.malformed"


async def test_raw_bytes_in_a_query_are_read_as_the_upstream_reads_them():
    """A name outside ASCII is the tagged one, percent-encoded or raw; another normal form of it is alike."""
    world = World(POLICY.replace("query:account", "query:numéro"), ROUTES)
    token = await a_token(world, "accountNumber", "A1")
    for name in ("num%C3%A9ro", "numéro".encode().decode("latin-1")):
        seen = await world.call(f"/customers?{name}={token}", as_="acme-billing")
        assert seen.request.target == f"/customers?{name}=A1"
    seen = await world.call(f"/customers?nume%CC%81ro={token}", as_="acme-billing")
    assert refused(seen) == TOKEN_REFUSED


async def test_control_characters_never_come_out_of_a_token():
    """A value that would end a line, or a text in C, is refused wherever it is sent."""
    world = a_world()
    for value in ("a\r\nx-admin: 1", "a\0b", "a\x85b", "a\x1bb"):
        token = await a_token(world, "accountNumber", value)
        for target, headers in (
            (f"/customers?account={token}", []),
            ("/customers", [("x-account", token)]),
            ("/customers", [("cookie", f"account={token}")]),
        ):
            assert refused(await world.call(target, headers=headers, as_="acme-billing")) == TOKEN_REFUSED


# --- headers and cookies ------------------------------------------------------------------------------------------


async def test_a_token_in_a_header_becomes_the_value():
    """All values of the header stay, in their order, in one line; other headers are not touched."""
    world = a_world()
    token = await a_token(world, "accountNumber", "DE02 ü")
    headers = [("x-account", "first"), ("x-other", token), ("x-account", token)]
    seen = await world.call("/customers", headers=headers, as_="acme-billing")
    assert sent(seen, "x-account") == ["first, " + "DE02 ü".encode().decode("latin-1")]
    assert sent(seen, "x-other") == []


@pytest.mark.parametrize("value", ["a, b", " a", "a ", ""])
async def test_a_header_holds_one_value_or_is_refused(value: str):
    """A value that a server would split, trim or take for none is refused."""
    world = a_world()
    token = await a_token(world, "accountNumber", value)
    seen = await world.call("/customers", headers=[("x-account", token)], as_="acme-billing")
    assert refused(seen) == TOKEN_REFUSED


async def test_a_header_spelled_as_a_variable_is_refused():
    """`x_account` is the same header to a server that hands headers on as variables."""
    world = a_world()
    token = await a_token(world, "accountNumber", "A1")
    seen = await world.call("/customers", headers=[("x_account", token)], as_="acme-billing")
    assert refused(seen) == TOKEN_REFUSED


async def test_a_header_that_is_removed_stays_removed():
    """A credential's header does not come back because a tag names it."""
    world = World(POLICY.replace("header:X-Account", "header:X-Api-Key"), ROUTES)
    token = await a_token(world, "accountNumber", "A1")
    seen = await world.call("/customers", headers=[("gharial-x", token)], as_="acme-billing")
    assert "x-api-key" in seen.request.remove_headers
    assert sent(seen, "x-api-key") == []


async def test_a_token_in_a_cookie_becomes_the_value():
    """The other cookies stay, also where they came in a header of their own."""
    world = a_world()
    token = await a_token(world, "accountNumber", "A1")
    headers = [("cookie", f"s=1; account={token}"), ("cookie", "theme=dark")]
    seen = await world.call("/customers", headers=headers, as_="acme-billing")
    assert sent(seen, "cookie") == ["s=1; account=A1; theme=dark"]
    assert sent(await world.call("/customers", headers=[("cookie", "account=x")], as_="acme-billing"), "cookie") == []


@pytest.mark.parametrize("cookie", ['account="{}"', "Account={}", "x=1,account={}", "account={},x=1", "acc%6Funt={}"])
async def test_a_token_beside_its_cookie_is_refused(cookie: str):
    """Quotes, another case and commas, which some servers take for the cookie itself, do not let a token by."""
    world = a_world()
    token = await a_token(world, "accountNumber", "A1")
    seen = await world.call("/customers", headers=[("cookie", cookie.replace("{}", token))], as_="acme-billing")
    assert refused(seen) == TOKEN_REFUSED


@pytest.mark.parametrize("value", ["a b", "a;b", 'a"b', "a,b", "a\\b", "ü", ""])
async def test_a_value_that_is_no_cookies_is_refused(value: str):
    """What would end the cookie, or be read in several ways, is refused."""
    world = a_world()
    token = await a_token(world, "accountNumber", value)
    seen = await world.call("/customers", headers=[("cookie", f"account={token}")], as_="acme-billing")
    assert refused(seen) == TOKEN_REFUSED


# --- whom the query names -----------------------------------------------------------------------------------------


async def test_the_person_of_a_query_is_the_person_of_records_without_one():
    """A clerk who asks for five people by `?id=` sees three of them, and a known one again."""
    world = a_world()
    names = [(await world.call(f"/customers?id={i}", {"fullName": f"N{i}"}, as_="clerk-1")).json for i in range(5)]
    assert [n["fullName"] for n in names] == ["N0", "N1", "N2", "[redacted]", "[redacted]"]
    again = await world.call("/customers?%69d=1", {"fullName": "N1"}, as_="clerk-1")
    assert again.json["fullName"] == "N1"


async def test_several_people_of_a_query_are_all_counted():
    """Of `?id=1&id=2` both are charged: which one an upstream takes is not known here."""
    world = a_world()
    await world.call("/customers?id=1&id=2", {"fullName": "N"}, as_="clerk-1")
    assert len(world.store.charges) == 2


async def test_the_person_behind_a_token_is_the_one_that_is_counted():
    """The record of a partner's call by token is about the same person as a clerk's call by id."""
    world = a_world()
    token = await a_token(world, "customerId", "42")
    await world.call(f"/customers?id={token}", {"plan": "x"}, as_="acme-billing")
    await world.call("/customers?id=42", {"plan": "x"}, as_="acme-billing")
    people = [line["people"] for line in world.audit.lines[-2:]]
    assert people[0] == people[1]
    assert people[0]["clear_count"] == 1


@pytest.mark.parametrize("query", ["id=1&ID=2", "id=1&id%5B%5D=2", "id=1&i%2564=2", "id=1;id=2", "id=1&id%00=2"])
async def test_nobody_is_counted_in_anothers_place(query: str):
    """A second parameter that some server would take for the person's is refused: it could be the one that counts."""
    assert refused(await a_world().call(f"/customers?{query}", {"fullName": "N"}, as_="clerk-1")) == "request.malformed"


async def test_a_header_names_nobody():
    """Only path and query say whose record an answer is; a header would let a caller choose whom to charge."""
    world = a_world()
    await world.call("/customers", {"fullName": "N"}, headers=[("x-customer", "1")], as_="clerk-1")
    assert world.services.counters.people_unknown == 1


async def test_shadow_counts_what_it_would_refuse_and_changes_nothing():
    """A forged token in shadow goes on untouched, and is counted."""
    world = World(POLICY.replace("version: 1", "version: 1\nmode: shadow"), ROUTES)
    seen = await world.call("/customers?account=tok_forged", {"plan": "x"}, as_="acme-billing")
    assert seen.request.target is None
    assert world.services.counters.shadow_would_refuse["list"] == 1


# --- nothing but tokens -------------------------------------------------------------------------------------------

GUARDED = POLICY.replace("'query:account'", "'query:account', 'path:account'") + (
    "never:\n  - { never: no-guessing, only_tokens: [account, person], unless: clear }\n"
)
GUARDED_ROUTES = (*ROUTES, ("account", "GET /accounts/{account}", "crm"))


def a_guarded_world() -> World:
    return World(GUARDED, GUARDED_ROUTES)


async def test_own_tokens_still_come_back_where_nothing_else_may():
    """The partner's tokens are opened as before, in every kind of place."""
    world = a_guarded_world()
    token = await a_token(world, "accountNumber", "A1")
    seen = await world.call(f"/accounts/{token}?account={token}&x=1", as_="acme-billing")
    assert seen.request.target == "/accounts/A1?account=A1&x=1"
    seen = await world.call("/customers", headers=[("cookie", f"account={token}")], as_="acme-billing")
    assert sent(seen, "cookie") == ["account=A1"]
    assert (await world.call("/customers?page=2", as_="acme-billing")).code == ""


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/accounts/4815162342", ()),
        ("/accounts/%34815162342", ()),
        ("/accounts/TOK_x", ()),
        ("/customers?account=4815162342", ()),
        ("/customers?account=", ()),
        ("/customers?account", ()),
        ("/customers?x=1&%61ccount=1", ()),
        ("/customers?Account=1", ()),
        ("/customers?account[]=1", ()),
        ("/customers?account%5Bgte%5D=0", ()),
        ("/customers?account__startswith=4", ()),
        ("/customers?account_cont=4", ()),
        ("/customers?filter[account]=1", ()),
        ("/customers?acc%256funt=1", ()),
        ("/customers?acc%u006funt=1", ()),
        ("/customers?x=1;account=1", ()),
        ("/customers", (("x-account", "1"),)),
        ("/customers", (("x-account", ""),)),
        ("/customers", (("x_account", "1"),)),
        ("/customers", (("cookie", "account=1"),)),
        ("/customers", (("cookie", "s=1, account=1"),)),
        ("/customers", (("cookie", "s=1; ACCOUNT=1"),)),
        ("/customers", (("x-customer", "42"),)),
    ],
)
async def test_plain_values_are_refused_like_forged_tokens(target: str, headers: tuple[tuple[str, str], ...]):
    """An id that is guessed, however it is spelled, gets the answer of a forged token; the upstream is not asked."""
    world = a_guarded_world()
    token = await a_token(world, "accountNumber", "A1")
    seen = await world.call(target, headers=headers, as_="acme-billing")
    forged = await world.call(f"/accounts/{token}A", as_="acme-billing")
    assert refused(seen) == refused(forged) == TOKEN_REFUSED
    assert seen.refusal.error.title == forged.refusal.error.title


async def test_a_plain_value_beside_a_token_is_refused():
    """One token does not open the door for what comes with it."""
    world = a_guarded_world()
    token = await a_token(world, "accountNumber", "A1")
    seen = await world.call(f"/customers?account={token}&account=2", as_="acme-billing")
    assert refused(seen) == TOKEN_REFUSED


async def test_who_has_no_right_to_reidentify_can_send_nothing_there():
    """Without `reidentify` a token opens nothing, and so it is refused too."""
    world = a_guarded_world()
    token = (await world.call("/customers", {"customerId": "42"})).json["customerId"]
    assert refused(await world.call(f"/customers?id={token}")) == TOKEN_REFUSED


async def test_who_sees_it_in_clear_is_spared():
    """A clerk sees ids in clear and has no tokens: ids stay usable for her, those of accounts do not."""
    world = a_guarded_world()
    assert (await world.call("/customers?id=42", as_="clerk-1")).code == ""
    assert refused(await world.call("/accounts/1", as_="clerk-1")) == TOKEN_REFUSED


@pytest.mark.parametrize("query", ["account_type=savings", "accounts=2", "accounting=x", "sort=account"])
async def test_other_parameters_go_on(query: str):
    """What is not the id goes on as it came."""
    seen = await a_guarded_world().call(f"/customers?{query}", as_="acme-billing")
    assert (seen.code, seen.request.target) == ("", None)
