"""Values on their way to the API (`in: [request]`): sent as the policy shows them to this caller, or not at all."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.gate_world import Seen, World, refused

from gharial.policy.checks import check_policy
from gharial.policy.document import parse_policy

POLICY = """
policy: crm
version: 1
lists: { names: [Kim, Lou, Max, Nia, Ole, Pia, Rui, Sam, Tea, Uma] }
tags:
  name:  { find: ['$..fullName', '$.owner.name'], in: [request] }
  email: { find: ['$..email', 'query:email', 'header:X-Email', 'cookie:email'], in: [request, response] }
  phone: { find: ['$..phone', 'query:phone', 'header:X-Phone', 'cookie:phone'], in: [request] }
  birth: { find: ['$..dob', 'query:dob'], type: date, in: [request] }
  limit: { find: '$..limit', type: number, in: [request] }
  note:  { find: ['$..note', 'query:note', 'header:X-Note', 'cookie:note'], in: [request] }
  card:  { find: '$..card', in: [request] }
  back:  { find: ['$..accountNumber', 'query:account'] }
who:
  anyone: {}
  app: { client: 'acme-*' }
  desk: { client: 'clerk-1' }
grants:
  - grant: saas
    to: app
    show: { name: token(scope=all), email: token(scope=all), phone: mask(last=2), birth: year, limit: round(100),
            note: drop, card: token(from=vault), back: token }
    reidentify: [back]
  - { grant: trusted, to: desk, show: { name: clear, email: clear, phone: clear, birth: clear, limit: clear },
      budget: { people: 1/h, then: redact } }
"""
ROUTES = (("pay", "ANY /payments", "crm"), ("get", "GET /customers", "crm"))
JSON = ("content-type", "application/json")
FORM = ("content-type", "application/x-www-form-urlencoded")
ACME = "acme-billing"
MARK = "Zx81Planted"


def a_world(policy: str = POLICY, **more: Any) -> World:
    return World(policy, ROUTES, **more)


async def posted(world: World, body: bytes | str, *headers: tuple[str, str], as_: str = ACME) -> Seen:
    data = body if isinstance(body, bytes) else body.encode()
    return await world.call("/payments", method="POST", as_=as_, headers=headers or (JSON,), body=data)


def sent(seen: Seen) -> Any:
    """The document that the upstream gets."""
    assert seen.sent is not None, seen.code
    return json.loads(seen.sent)


# --- JSON ---------------------------------------------------------------------------------------------------------


async def test_each_value_is_sent_as_the_caller_may_see_it():
    """Tokens, masks, coarser values, nothing at all; what no tag names arrives verbatim."""
    seen = await posted(
        a_world(),
        f'{{"fullName":"{MARK}","amount":1.10,"phone":"+49 151 123","dob":"1979-11-23","limit":1234,"note":"{MARK}",'
        f'"deep":[{{"EMAIL":"{MARK}@x.example"}}],"memo":"as \\u0069t is","owner":{{"name":"{MARK}"}}}}',
    )
    found = sent(seen)
    assert found["fullName"].startswith("tok_")
    assert found["deep"][0]["EMAIL"].startswith("tok_")
    assert found["owner"]["name"] == found["fullName"]
    assert (found["phone"][-2:], found["dob"], found["limit"]) == ("23", "1979-01-01", 1200)
    assert "note" not in found
    assert b'"amount":1.10' in seen.sent
    assert b'"memo":"as \\u0069t is"' in seen.sent
    assert MARK.encode() not in seen.sent


async def test_what_a_caller_may_see_in_clear_goes_in_clear_and_nobody_is_counted():
    """The body stays byte for byte, of however many people it tells: a budget is about what is shown."""
    world = a_world()
    body = json.dumps([{"fullName": f"{MARK}-{n}", "email": "a@b.example"} for n in range(20)]).encode()
    assert (await posted(world, body, as_="clerk-1")).sent == body
    assert world.store.charges == []


async def test_who_has_no_grant_sends_redacted_values():
    """Nothing granted means redact, in this direction too."""
    seen = await posted(a_world(), f'{{"fullName":"{MARK}","limit":7,"x":1}}', as_="")
    assert sent(seen) == {"fullName": "[redacted]", "limit": 0, "x": 1}


async def test_a_tag_of_requests_alone_is_no_tag_of_answers():
    """A name in an answer is a field that nobody listed; an email is protected in both directions by one token."""
    world = a_world()
    seen = await world.call("/payments", {"fullName": MARK, "email": "a@b.example"}, method="POST", as_=ACME)
    assert set(seen.json) == {"email"}
    assert sent(await posted(world, '{"email":"a@b.example"}'))["email"] == seen.json["email"]


async def test_random_tokens_are_kept_before_the_request_leaves():
    """What the upstream gets stands in the vault; if the vault is away, nothing is sent."""
    world = a_world()
    found = sent(await posted(world, f'{{"card":"{MARK}"}}'))
    assert found["card"].startswith("tok_")
    assert len(world.vault.rows) == 1
    broken = a_world()
    broken.vault.broken = True
    assert refused(await posted(broken, f'{{"card":"{MARK}"}}')) == "vault.unavailable"


async def test_tokens_come_back_beside_what_is_protected():
    """One body may hold both: the one place is opened, the other is protected."""
    world = a_world()
    token = (await world.call("/customers", {"accountNumber": "DE02"}, as_=ACME)).json["accountNumber"]
    found = sent(await posted(world, json.dumps({"accountNumber": token, "fullName": MARK})))
    assert found["accountNumber"] == "DE02"
    assert found["fullName"].startswith("tok_")
    # Nested, what is protected is not opened.
    nested = sent(await posted(world, json.dumps({"fullName": {"accountNumber": token}})))
    assert nested["fullName"]["accountNumber"] not in (token, "DE02")


@pytest.mark.parametrize(
    ("body", "header", "code"),
    [
        (f'{{"fullName":"{MARK}"', JSON, "request.malformed"),
        (f'{{"fullName":"{MARK}","fullName":1}}', JSON, "request.malformed"),
        (f"<a><fullName>{MARK}</fullName></a>", ("content-type", "application/xml"), "request.unreadable"),
        (f'[{{"op":"add","path":"/fullName","value":"{MARK}"}}]', ("content-type", "application/json-patch+json"), ""),
        (MARK, ("content-type", "text/plain"), "request.unreadable"),
        (MARK, ("x-none", "1"), "request.unreadable"),
        (f"--x\r\n\r\n{MARK}\r\n--x--", ("content-type", "multipart/form-data; boundary=x"), "request.unreadable"),
        (f"fullName[]={MARK}", FORM, "request.malformed"),
        (f"owner[name]={MARK}", FORM, "request.malformed"),
        (f"name={MARK}", FORM, "request.malformed"),
        (f"x=1;fullName={MARK}", FORM, "request.malformed"),
        (f"full%4eame%00={MARK}", FORM, "request.malformed"),
        (f'{{"fullName":"{MARK}"}}', FORM, "request.malformed"),
        (f"fullName={MARK}&full%ffName=1", FORM, "request.malformed"),
    ],
)
async def test_what_cant_be_read_or_is_almost_a_tagged_place_is_refused(body: str, header: tuple[str, str], code: str):
    """Nothing of it reaches the upstream, and the problem names no value."""
    seen = await posted(a_world(), body, header)
    assert refused(seen) == (code or "request.unreadable")
    assert MARK not in str(seen.refusal)


async def test_a_form_s_fields_are_protected():
    """Each time one comes, however its name is escaped; a dropped one is not there at all."""
    seen = await posted(
        a_world(), f"a=%41&FULLNAME={MARK}&full%4eame={MARK}&note={MARK}&phone=%2B49+151&dob=1979-11-23", FORM
    )
    assert seen.sent is not None
    pairs = parse_qsl(seen.sent.decode(), keep_blank_values=True)
    assert [name for name, _ in pairs] == ["a", "FULLNAME", "fullName", "phone", "dob"]
    assert pairs[1][1] == pairs[2][1]
    assert pairs[1][1].startswith("tok_")
    assert pairs[4] == ("dob", "1979-01-01")
    assert seen.sent.startswith(b"a=%41&")
    assert MARK.encode() not in seen.sent


# --- query, headers, cookies ----------------------------------------------------------------------------------------


async def asked(world: World, target: str, *headers: tuple[str, str], as_: str = ACME) -> Seen:
    return await world.call(target, {}, as_=as_, headers=headers)


async def test_query_header_and_cookie_are_protected():
    """The same value has the same token in each of them; other parameters, lines and cookies stay as they came."""
    world = a_world()
    seen = await asked(
        *(world, "/customers?q=%41&email=a%40b.example&phone=12345&note=x&note=y&account=1"),
        *(("x-email", "a@b.example"), ("x-email", "ü@b.example".encode().decode("latin-1")), ("x-phone", "12345")),
        *(("x-note", "x"), ("x-other", "1"), ("cookie", "s=1; email=a@b.example"), ("cookie", "note=x; phone=12345")),
    )
    assert seen.request is not None, seen.code
    query = parse_qsl(urlsplit(seen.request.target or "").query)
    assert [name for name, _ in query] == ["q", "email", "phone", "account"]
    token = dict(query)["email"]
    assert token.startswith("tok_")
    assert "?q=%41&" in (seen.request.target or "")
    headers = dict(seen.request.set_headers)
    first, second = headers["x-email"].split(", ")
    assert first == token
    body = sent(await posted(world, '{"email":"ü@b.example"}'))
    assert second == body["email"]
    assert headers["x-phone"] == "***45"
    assert headers["cookie"] == f"s=1; email={token}; phone=***45"
    assert {"x-email", "x-phone", "x-note", "cookie"} <= {*seen.request.remove_headers}
    assert "x-note" not in headers
    assert "x-other" not in seen.request.remove_headers


async def test_a_header_of_which_nothing_is_left_goes():
    """The only cookie dropped is no cookie header, and not an empty one."""
    seen = await asked(a_world(), "/customers?note=x", ("cookie", "note=x"), ("x-note", "y"))
    assert seen.request is not None, seen.code
    assert seen.request.target == "/customers?"
    assert not {"cookie", "x-note"} & {name for name, _ in seen.request.set_headers}
    assert {"cookie", "x-note"} <= {*seen.request.remove_headers}


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (f"/customers?Email={MARK}", ()),
        (f"/customers?email[]={MARK}", ()),
        (f"/customers?filter[email]={MARK}", ()),
        (f"/customers?a=1;email={MARK}", ()),
        (f"/customers?%2565mail={MARK}", ()),
        ("/customers", (("x_email", MARK),)),
        ("/customers", (("cookie", f"Email={MARK}"),)),
        ("/customers", (("cookie", f"a=1, email={MARK}"),)),
    ],
)
async def test_what_only_some_servers_would_find_is_refused(target: str, headers: tuple[tuple[str, str], ...]):
    """A value that would go in clear to a server which reads names loosely does not go."""
    assert refused(await asked(a_world(), target, *headers)) == "request.malformed"
    # To whom it is shown in clear it may be sent as he likes.
    assert (await asked(a_world(), target, *headers, as_="clerk-1")).refusal is None


async def test_what_cant_be_written_is_refused():
    """A masked name with a comma is no header's value."""
    policy = POLICY.replace("phone: mask(last=2)", "phone: mask(last=4)")
    assert refused(await asked(a_world(policy), "/customers", ("x-phone", "1234567, 9"))) == "request.malformed"


async def test_shadow_changes_nothing_and_keeps_no_token():
    """In shadow mode requests go as they came, and the vault learns nothing."""
    world = a_world(POLICY.replace("version: 1", "version: 1\nmode: shadow"))
    seen = await world.call(f"/customers?email={MARK}", {}, as_=ACME)
    assert seen.request is not None
    assert seen.request.target is None
    assert world.vault.rows == {}


# --- a law ----------------------------------------------------------------------------------------------------------

_NAMES = st.sampled_from(["fullName", "FULLNAME", "email", "x", "owner", "name", "note", "phone"])
_LEAVES = st.one_of(st.just(MARK), st.integers(), st.booleans(), st.none())
_VALUES = st.recursive(
    _LEAVES, lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(_NAMES, v, max_size=4)), max_leaves=12
)


def marks(value: Any, *, tagged: bool = False, path: tuple[str, ...] = ()) -> int:
    """How many marks stand where no tag finds them."""
    if isinstance(value, dict):
        return sum(
            marks(
                v,
                tagged=tagged
                or n.lower() in ("fullname", "email", "note", "phone")
                or (path == ("owner",) and n == "name"),
                path=(*path, n),
            )
            for n, v in value.items()
        )
    if isinstance(value, list):
        return sum(marks(v, tagged=tagged, path=(*path, "[]")) for v in value)
    return int(value == MARK and not tagged)


@given(_VALUES)
@settings(max_examples=examples(300))
def test_no_value_in_a_tagged_place_is_sent_in_clear(value: Any):
    """Of any document the upstream gets exactly the marks that no tag finds, or the request is refused."""
    import asyncio

    seen = asyncio.run(posted(a_world(), json.dumps(value)))
    if seen.refusal is None:
        assert (seen.sent or b"").count(MARK.encode()) == marks(value)


# --- what can't be meant ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("reidentify: [back]", "reidentify: [back, email]", "'saas' opens its tokens there"),
        ("find: ['$..accountNumber', 'query:account']", "find: ['$..email']", "finds the same place"),
        ("find: ['$..accountNumber', 'query:account']", "find: ['query:email']", "finds the same place"),
        ("grants:", "never:\n  - { never: n, only_tokens: email }\ngrants:", "'n' opens its tokens there"),
    ],
)
def test_a_policy_that_both_opens_and_protects_is_refused(old: str, new: str, what: str):
    """One place of a request is protected or opened, never both; the problem says where."""
    policy = parse_policy(POLICY.replace(old, new), "p.yaml")
    assert any(what in str(problem) for problem in check_policy(policy, {}))


async def test_persons_are_not_known_in_requests():
    """A grant that asks for something about a person does not hold there, and a guardrail that does acts."""
    trusted = "{ grant: trusted, to: desk, "
    needing = POLICY.replace(trusted, trusted + "needs: { subject.consent: sharing }, ")
    assert sent(await posted(a_world(needing), '{"fullName":"x"}', as_="clerk-1")) == {"fullName": "[redacted]"}
    floor = "never:\n  - { never: eu, tag: phone, when: { subject.residency: EU }, at_least: redact }\n"
    body = '{"fullName":"x","phone":"1234"}'
    residency = "tags:\n  where: { find: '$..country', fact: residency }"
    seen = await posted(a_world(POLICY.replace("tags:", residency) + floor), body, as_="clerk-1")
    assert sent(seen) == {"fullName": "x", "phone": "[redacted]"}
