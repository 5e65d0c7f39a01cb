"""Tokens in the bodies of requests: JSON and forms, opened in their places, everything else as it came or refused."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, quote

import pytest
from support.gate_world import Answer, Seen, World, refused

from gharial.gate.outcome import BodyMode, RequestHead, ResponseHead
from gharial.model.finding import Limits

POLICY = """
policy: crm
version: 1
tags:
  person:  { find: '$..customerId', subject: customer }
  account: { find: ['$..accountNumber', '$.from.account'] }
  email:   { find: '$..email' }
  flag:    { find: '$..vip' }
  public:  { find: '$..plan' }
who:
  anyone: {}
  care: { role: care }
  partner: { client: 'acme-*' }
grants:
  - { grant: basics, to: anyone, show: { person: token, public: clear } }
  - grant: partner
    to: partner
    show: { account: token, email: token, flag: token }
    reidentify: [account, person, flag]
"""
GUARDED = POLICY + "never:\n  - { never: no-guessing, only_tokens: account }\n"
ROUTES = (("pay", "ANY /payments", "crm"), ("get", "GET /customers", "crm"), ("open", "ANY /open", ""))
JSON = ("content-type", "application/json")
FORM = ("content-type", "application/x-www-form-urlencoded")
ACME = "acme-billing"


def a_world(policy: str = POLICY, **more: object) -> World:
    return World(policy, ROUTES, **more)


async def a_token(world: World, field: str, value: object) -> str:
    return str((await world.call("/customers", {field: value}, as_=ACME)).json[field])


async def posted(world: World, body: bytes | str, *headers: tuple[str, str], as_: str = ACME) -> Seen:
    data = body if isinstance(body, bytes) else body.encode()
    return await world.call("/payments", method="POST", as_=as_, headers=headers or (JSON,), body=data)


# --- JSON ---------------------------------------------------------------------------------------------------------


async def test_tokens_become_values_with_their_type_and_all_else_stays():
    """A number's token is a number again, digit for digit; what is not opened keeps every byte."""
    world = a_world()
    number = (await world.call("/customers", Answer(b'{"accountNumber": 12.340E+2}'), as_=ACME)).json["accountNumber"]
    text, flag = await a_token(world, "accountNumber", 'a"b\n'), await a_token(world, "vip", True)
    seen = await posted(
        world,
        f'{{ "amount": 1.10, "note" : {{"x": [1, 2 ]}}, "accountNumber": "{number}", "VIP": "{flag}",'
        f'  "deep": [{{"accountNumber": "{text}"}}] }}',
    )
    assert seen.sent == (
        b'{"amount":1.10,"note":{"x":[1,2]},"accountNumber":12.340E+2,"VIP":true,"deep":[{"accountNumber":"a\\"b\\n"}]}'
    )
    assert world.audit.lines[-1]["reidentified"] == {"account": 2, "flag": 1}
    assert b"12.340" not in b"".join(world.audit.raw)


@pytest.mark.parametrize(
    "body",
    [b'{ "accountNumber" : "DE02", "a": 1.0 }', b'{"accountNumber":[1,null,true,{"x":"y"}]}', b"[]", b'"x"', b"7"],
)
async def test_a_body_without_tokens_stays_byte_for_byte(body: bytes):
    """Plain values in tagged places are the caller's own, and go on as they came."""
    assert (await posted(a_world(), body)).sent == body


async def test_a_token_is_found_as_the_upstream_would_find_it():
    """An escaped name, another case, a list, and everything below the tagged value are the tagged place."""
    world = a_world()
    token = await a_token(world, "accountNumber", "A1")
    for body in (
        f'{{"\\u0061ccountNumber":"{token}"}}',
        f'{{"ACCOUNTNUMBER":"{token}"}}',
        f'{{"accountNumber":["{token}",{{"x":"{token}"}}]}}',
        f'{{"from":{{"account":"\\u0074{token[1:]}"}}}}',
        f'[[{{"accountNumber":"{token}"}}]]',
        f'\ufeff{{"accountNumber":"{token}"}}',
    ):
        seen = await posted(world, body)
        assert b"tok_" not in (seen.sent or b"tok_")
        assert b"A1" in (seen.sent or b"")


async def test_a_token_elsewhere_in_a_body_is_only_a_text():
    """No place but the tag's own opens it: not another field, nor a tag that this caller may not re-identify."""
    world = a_world()
    account, email = await a_token(world, "accountNumber", "A1"), await a_token(world, "email", "a@b.example")
    body = json.dumps({"note": account, account: 1, "email": email, "account": account}).encode()
    assert (await posted(world, body)).sent == body
    assert refused(await posted(world, json.dumps({"customerId": account}))) == "token.refused"


@pytest.mark.parametrize("spoil", [lambda t: t[:-1], lambda t: t + " ", str.upper, lambda t: f" {t}", lambda _: "tok_"])
async def test_forged_and_foreign_tokens_are_refused(spoil):
    """They are refused as in a path, and the upstream is not asked."""
    world = a_world()
    token = await a_token(world, "accountNumber", "A1")
    foreign = (await world.call("/customers", {"customerId": "42"})).json["customerId"]
    for body in ({"accountNumber": spoil(token)}, {"customerId": foreign}, [{"accountNumber": ["x", spoil(token)]}]):
        seen = await posted(world, json.dumps(body))
        assert refused(seen) == "token.refused"
        assert world.audit.lines[-1]["error"] == "token.refused"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"accountNumber":"x"', "request.malformed"),
        (b'{"accountNumber":"x"}{}', "request.malformed"),
        (b'{"accountNumber":1,"accountNumber":2}', "request.malformed"),
        (b'{"accountNumber":1,"\\u0061ccountNumber":2}', "request.malformed"),
        (b'{"accountNumber":NaN}', "request.malformed"),
        (b"{'accountNumber':1}", "request.malformed"),
        (b'{"accountNumber":"\xff"}', "request.malformed"),
        (b"[" * 100 + b"]" * 100, "request.malformed"),
        (b"[" * 100_000, "request.malformed"),
        ('{"accountNumber":"x"}'.encode("utf-16"), "request.malformed"),
        (b'{"accountNumber":"\\ud800"}', "request.malformed"),
        (b')]}\'{"accountNumber":"x"}', "request.malformed"),
        (b"[" + b"1," * 999 + b"1]", "request.malformed"),
        (b'"' + b"x" * 10_000 + b'"', "request.too_large"),
    ],
)
async def test_what_cant_be_read_in_one_way_is_refused(body: bytes, code: str):
    """Broken, doubled, too deep, too many, too large: the upstream does not get it, and the error quotes nothing."""
    world = a_world(limits=Limits(body_bytes=10_001, depth=64, values=500))
    if len(body) == 100_000:
        body = body[:10_000]
    seen = await posted(world, body)
    assert refused(seen) == code
    assert seen.refusal.error.fault.value == "caller"


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("content-type", "text/plain"),),
        (("content-type", "multipart/form-data; boundary=x"),),
        (("content-type", "application/xml"),),
        (JSON, JSON),
        (("content-type", "application/json; charset=utf-16"),),
        (("content-type", "application/x-www-form-urlencoded; charset=iso-8859-1"),),
        (JSON, ("content-encoding", "gzip")),
        (JSON, ("content-encoding", "br")),
    ],
)
async def test_what_there_is_no_reader_for_is_refused_before_it_is_read(headers: tuple[tuple[str, str], ...]):
    """By the head alone: type, charset and coding."""
    world = a_world()
    seen = await world.call("/payments", method="POST", as_=ACME, headers=headers, body=b'{"accountNumber":"x"}')
    assert refused(seen) == "request.unreadable"
    assert seen.request is None


async def test_a_length_that_is_too_large_is_refused_by_the_head():
    """Nothing needs to be read for it."""
    world = a_world(limits=Limits(body_bytes=10))
    seen = await posted(world, b"{}", JSON, ("content-length", "11"))
    assert refused(seen) == "request.too_large"
    assert seen.request is None


async def test_requests_without_a_body_and_callers_without_the_right_go_on():
    """A GET needs no content type, and of who may not re-identify nothing is read."""
    world = a_world()
    assert (await world.call("/customers", as_=ACME)).code == ""
    anything = await world.call(
        "/payments", method="POST", as_="clerk-1", headers=[("content-type", "x/y")], body=b"\xff"
    )
    assert (anything.code, anything.sent) == ("", b"\xff")
    assert (await world.call("/open", method="POST", body=b"\xff")).sent == b"\xff"
    assert (await posted(world, b"", JSON)).sent == b""


async def test_a_proxy_that_keeps_bodies_to_itself_is_refused():
    """A proxy that does not hand over a body in which tokens may come gets it nowhere; without a body it does."""
    world = a_world()
    for request_mode in (BodyMode.NONE, BodyMode.STREAMED):
        seen = await world.call(
            "/payments", method="POST", as_=ACME, headers=[JSON], body=b"{}", request_mode=request_mode
        )
        assert refused(seen) == "gate.protocol"
    assert (await world.call("/payments", as_=ACME, request_mode=BodyMode.NONE)).code == ""


async def test_an_answer_to_a_body_that_nobody_saw_is_refused():
    """If an upstream answers before the gate has seen the body, something let it pass."""
    world = a_world()
    exchange = world.exchange()
    key = ("x-api-key", world.keys[ACME])
    head = RequestHead(
        "POST", "/payments", "g", "http", (JSON, key), "", BodyMode.BUFFERED, "", True, BodyMode.BUFFERED
    )
    await exchange.on_request(head)
    answer = await exchange.on_response(ResponseHead(200, (JSON,), from_upstream=True))
    assert answer.error.code == "gate.protocol"


async def test_shadow_counts_bodies_that_would_be_refused_by_their_type():
    """The body goes on unseen; that its type would be refused is counted, so that nobody is surprised by enforcing."""
    world = a_world(POLICY.replace("version: 1", "version: 1\nmode: shadow"))
    for header, refusals in ((JSON, 0), (("content-type", "text/plain"), 1)):
        seen = await world.call(
            "/payments", {"plan": "x"}, method="POST", as_=ACME, headers=[header], body=b"x", request_mode=BodyMode.NONE
        )
        assert seen.code == ""
        assert world.services.counters.shadow_would_refuse["pay"] == refusals


async def test_digests_of_the_body_do_not_go_on():
    """What was computed over the tokens does not fit the values."""
    names = ("content-md5", "digest", "content-digest", "repr-digest")
    seen = await posted(a_world(), b"{}", JSON, *((name, "x") for name in names))
    assert set(names) <= set(seen.request.remove_headers)


# --- forms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a&b=c", "a+b", "100%", "ü x", "a;b", "="])
async def test_a_token_in_a_form_is_exactly_one_value(value: str):
    """Whatever it holds; everything else keeps its spelling."""
    world = a_world()
    token = await a_token(world, "accountNumber", value)
    seen = await posted(world, f"amount=1%2e5&AccountNumber={token}&x", FORM)
    assert seen.sent == f"amount=1%2e5&AccountNumber={quote(value, safe='')}&x".encode()
    assert parse_qsl(seen.sent.decode(), keep_blank_values=True)[1] == ("AccountNumber", value)


@pytest.mark.parametrize(
    "body",
    [
        "accountNumber[]={}",
        "from[accountNumber]={}",
        "account%4eumber%00={}",
        "account%254eumber={}",
        "a=1;accountNumber={}",
        "account={}",
        "from.account={}",
    ],
)
async def test_a_token_beside_its_place_in_a_form_is_refused(body: str):
    """Where only some servers would find the field, or where it stands deeper than a form reaches."""
    world = a_world()
    token = await a_token(world, "accountNumber", "A1")
    assert refused(await posted(world, body.replace("{}", token), FORM)) == "token.refused"


@pytest.mark.parametrize(
    "body",
    [
        "a=\xff",
        '{"accountNumber":1}',
        "[1]=\\",
        "a=1\r\nb=2",
        "&" * 500 + ";" * 500,
        "a b=1",
        "_charset_=utf-16&a=1",
        "%ff=1",
        "&" * 1001,
        "a=\0",
    ],
)
async def test_a_form_that_cant_be_read_one_way_is_refused(body: str):
    """Raw bytes, blanks, other charsets, and JSON that is called a form, are not guessed at."""
    assert refused(await posted(a_world(), body.encode("latin-1"), FORM)) == "request.malformed"


async def test_a_form_against_a_path_of_any_name_is_refused():
    """Where a tag finds members of any name a form has no name to look for."""
    for path in ("$.*", "$", "$[0]", "$[*]"):
        world = a_world(POLICY.replace("'$.from.account'", f"'{path}'"))
        assert refused(await posted(world, "a=1", FORM)) == "request.unreadable"


# --- nothing but tokens -------------------------------------------------------------------------------------------


async def test_only_own_tokens_and_lists_of_them_may_come():
    """What the partner was shown goes through, one or several."""
    world = a_world(GUARDED)
    token = await a_token(world, "accountNumber", "A1")
    seen = await posted(world, json.dumps({"accountNumber": [token, token], "amount": 5}))
    assert seen.sent == b'{"accountNumber":["A1","A1"],"amount":5}'
    assert (await posted(world, f"accountNumber={token}&b=2", FORM)).sent == b"accountNumber=A1&b=2"
    assert (await posted(world, b'{"amount":5}')).sent == b'{"amount":5}'


@pytest.mark.parametrize(
    "body",
    [
        '{"accountNumber":"4815162342"}',
        '{"accountNumber":4815162342}',
        '{"ACCOUNTNUMBER":1}',
        '{"\\u0061ccountNumber":1}',
        '{"accountNumber":null}',
        '{"accountNumber":true}',
        '{"accountNumber":""}',
        '{"accountNumber":[]}',
        '{"accountNumber":{}}',
        '{"accountNumber":{"$ne":"{}"}}',
        '{"accountNumber":["{}",1]}',
        '{"accountNumber":[["{}",[]]]}',
        '{"accountNumber":[{"$gt":"{}"}]}',
        '{"accountNumber":"{}","more":[{"accountNumber":"x"}]}',
        '{"accountNumber":" {}"}',
        '{"from":{"account":"x"}}',
        '\ufeff{"accountNumber":{}}',
    ],
)
async def test_plain_values_in_a_body_are_refused(body: str):
    """Guessed ids, nothing at all, and what some databases take for a query, are refused like a forged token."""
    world = a_world(GUARDED)
    token = await a_token(world, "accountNumber", "A1")
    assert (
        refused(await posted(world, body.replace('"{}"', f'"{token}"').replace(" {}", f" {token}"))) == "token.refused"
    )


@pytest.mark.parametrize(
    "body", ["accountNumber=1", "accountNumber=", "accountNumber", "AccountNumber[$ne]=1", "account=1"]
)
async def test_plain_values_in_a_form_are_refused(body: str):
    """Also under names that only some servers take for the field."""
    assert refused(await posted(a_world(GUARDED), body, FORM)) == "token.refused"


async def test_a_json_patch_is_refused_where_only_tokens_may_come():
    """It names its fields in values, where nothing looks for them."""
    patch = ("content-type", "application/json-patch+json")
    body = b'[{"op":"test","path":"/accountNumber","value":"1"}]'
    assert refused(await posted(a_world(GUARDED), body, patch)) == "request.unreadable"
    assert refused(await posted(a_world(GUARDED), body, ("content-type", "application/json"))) == "request.unreadable"
    assert (await posted(a_world(), body, patch)).sent == body


async def test_json_in_strings_is_opened_in_requests_too():
    """As deep as the policy says for answers: a token is opened there, and a plain value is refused."""
    world = a_world(GUARDED.replace("version: 1", "version: 1\njson_in_strings: 1"))
    token = await a_token(world, "accountNumber", "A1")
    inner = json.dumps({"accountNumber": token})
    assert b"A1" in ((await posted(world, json.dumps({"payload": inner}))).sent or b"")
    for plain in ({"accountNumber": "1"}, {"accountNumber": {}}, {"accountNumber": []}):
        assert refused(await posted(world, json.dumps({"payload": json.dumps(plain)}))) == "token.refused"
