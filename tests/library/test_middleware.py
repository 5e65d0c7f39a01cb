"""An app behind the middleware, ASGI and WSGI alike: what the gateway promises, without a proxy."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.apps import JSON, AsgiSite, Got, Said, Seen, Site, WsgiSite, said
from support.embedded import audit_of, write_home
from support.gateway import BIRTH, MARK, PLANTED, POLICY, ROUTES, customer, customer_id

import gharial
from gharial.adapters.audit_file import AuditFile
from gharial.gate.exchange import GateExchange
from gharial.model.errors import AuditUnwritable

LIMIT = 20_000
ONE = f"/customers/{customer_id(1)}"
SITES = {"asgi": AsgiSite, "wsgi": WsgiSite}


@pytest.fixture(params=SITES)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with gharial.load(write_home(tmp_path, limits={"body": LIMIT})) as gate:
        yield SITES[request.param](gate)


@pytest.fixture(params=SITES)
async def watched(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """A site whose policy is in shadow mode."""
    shadow = POLICY.replace("mode: enforce", "mode: shadow")
    with gharial.load(write_home(tmp_path, shadow, limits={"body": LIMIT})) as gate:
        yield SITES[request.param](gate)


def shows(got: Got) -> bool:
    return any(needle in repr(got.headers).encode() + got.body for needle in PLANTED)


def lines(tmp_path: Path, site: Site) -> list[dict[str, Any]]:
    """The audit, whole."""
    site.gate.close()
    return audit_of(tmp_path)


# --- what passes ------------------------------------------------------------------------------------------------------


async def test_a_record_is_rewritten_for_whoever_asks(site: Site):
    """A clerk sees the person, nobody else does; the length is the new body's."""
    site.script = lambda _: said(customer(1))
    clerk = await site.add_client("clerk", roles=("care",), purpose="support")
    mine, others = await site.ask(ONE, key=clerk), await site.ask(ONE)
    assert mine.json["fullName"] == customer(1)["fullName"]
    assert mine.json["dob"] == BIRTH[:4]
    assert not shows(others)
    assert others.json["plan"] == "magenta"
    for got in (mine, others):
        assert got.status == 200
        assert got.one("content-length") == str(len(got.body))


async def test_headers_of_an_answer_are_held_back_as_at_the_gateway(site: Site):
    """Only harmless headers pass; the policy and the exchange are named; an ETag is sealed."""
    site.script = lambda _: said(
        customer(1), ("x-person", MARK), ("set-cookie", MARK), ("etag", f'"{MARK}"'), ("vary", "accept")
    )
    got = await site.ask(ONE)
    assert not shows(got)
    assert got.one("x-person") is got.one("set-cookie") is None
    assert (got.one("vary"), got.one("cache-control")) == ("accept", "private, no-store")
    assert got.one("gharial-policy") == "customer-data;version=3;mode=enforce"
    assert got.one("gharial-exchange")
    assert got.one("etag") != f'"{MARK}"'


async def test_the_app_gets_no_key_and_no_way_to_another_path(site: Site):
    """Our key, ranges, validators and control headers go no further; the rest does."""
    clerk = await site.add_client("clerk", roles=("care",), purpose="support")
    await site.ask(
        f"{ONE}?a=1&b=%20",
        *(("x-original-url", "/x"), ("range", "bytes=0-1"), ("if-none-match", "*"), ("accept-encoding", "br, gzip")),
        *(("gharial-purpose", "support"), ("x-mine", "yes"), ("cookie", "a=1")),
        key=clerk,
    )
    (seen,) = site.seen
    assert set(seen.headers) == {"host", "x-mine", "cookie", "accept-encoding"}
    assert seen.headers["accept-encoding"] == "gzip"
    assert (seen.path, seen.query) == (ONE, "a=1&b=%20")


async def test_a_packed_answer_is_undone(site: Site):
    """gzip is read, and what leaves has no coding."""
    text = gzip.compress(json.dumps(customer(1)).encode())
    site.script = lambda _: Said([text], 200, (*JSON, ("content-encoding", "gzip")))
    got = await site.ask(ONE)
    assert got.one("content-encoding") is None
    assert got.json["plan"] == "magenta"
    assert not shows(got)


async def test_a_token_comes_back_in_a_path(site: Site):
    """The app gets the real id, in both spellings of its path, and nobody else's token leads anywhere."""
    acme = await site.add_client("acme-one", purpose="billing")
    other = await site.add_client("acme-two", purpose="billing")
    site.script = lambda _: said(customer(1))
    token = (await site.ask(ONE, key=acme)).json["customerId"]
    site.seen.clear()
    assert (await site.ask(f"/customers/{token}?x=1", key=acme)).status == 200
    refused = await site.ask(f"/customers/{token}", key=other)
    assert (refused.status, refused.code) == (400, "token.refused")
    (seen,) = site.seen
    assert (seen.path, seen.raw_path.partition("?")[0], seen.query) == (ONE, ONE, "x=1")


async def test_a_token_that_stands_for_a_slash_leads_nowhere(site: Site):
    """An app gets its path decoded: an id with a slash in it would be another path than the one that was judged."""
    acme = await site.add_client("acme-one", purpose="billing")
    site.script = lambda _: said({"customerId": "../open/x"})
    token = (await site.ask(ONE, key=acme)).json["customerId"]
    site.seen.clear()
    refused = await site.ask(f"/customers/{token}", key=acme)
    assert (refused.status, refused.code, site.seen) == (400, "token.refused", [])


async def test_a_token_comes_back_in_a_body(site: Site):
    """A request's body is read before the app sees any of it, and has its new length."""
    acme = await site.add_client("acme-one", purpose="billing")
    site.script = lambda _: said(customer(1))
    token = (await site.ask(ONE, key=acme)).json["customerId"]
    site.seen.clear()
    body = json.dumps({"customerId": token, "note": "x"}).encode()
    got = await site.ask(ONE, *JSON, method="POST", body=body, key=acme)
    assert got.status == 200
    (seen,) = site.seen
    assert json.loads(seen.body) == {"customerId": customer_id(1), "note": "x"}


async def test_a_body_that_is_too_large_to_be_read_never_reaches_the_app(site: Site):
    """Where tokens are looked for, a body beyond the limit is refused."""
    acme = await site.add_client("acme-one", purpose="billing")
    body = json.dumps({"note": "x" * (LIMIT + 1)}).encode()
    got = await site.ask(ONE, *JSON, method="POST", body=body, key=acme)
    assert (got.status, got.code, site.seen) == (413, "request.too_large", [])


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_an_answer_without_a_body_has_none(site: Site, method: str, status: int):
    """Not even where the app sends one; and no length tells of it."""
    text = json.dumps(customer(1)).encode()
    site.script = lambda _: Said([text], status, (*JSON, ("content-length", str(len(text)))))
    got = await site.ask(ONE, method=method)
    assert (got.status, got.body) == (status, b"")
    assert got.one("content-length") is None
    assert not shows(got)


async def test_an_answer_that_announces_no_body_has_none(site: Site):
    """As at the gateway an announced length of 0 is no body; what the app sends all the same stays here."""
    for pieces in ([], [MARK.encode()]):
        site.script = lambda _, pieces=pieces: Said(pieces, 200, (*JSON, ("content-length", "0")))  # type: ignore[misc]
        got = await site.ask(ONE)
        assert (got.status, got.body, got.one("content-length")) == (200, b"", "0")


async def test_a_redirect_is_rewritten_or_withheld(site: Site):
    """A location with an id leaves as a token of its own path, or not at all."""
    site.script = lambda _: Said([], 302, (("location", f"/customers/{customer_id(2)}"),))
    got = await site.ask(ONE)
    assert got.status == 302
    assert not shows(got)
    site.script = lambda _: Said([], 302, (("location", f"https://elsewhere.test/{MARK}"),))
    assert (await site.ask(ONE)).one("location") is None


async def test_budgets_count_over_the_middleware_and_the_library(site: Site):
    """One principal has one budget, through whichever door it comes."""
    clerk = await site.add_client("clerk", roles=("care",), purpose="support")
    site.script = lambda _: said([customer(n) for n in range(40)])
    await site.ask("/customers", key=clerk)
    same = gharial.Caller(client="clerk", roles=["care"], purpose="support")
    shown = site.gate.protect([customer(n) for n in range(40, 80)], caller=same, route="list")
    assert sum(record["fullName"].startswith(MARK) for record in shown) == 20


async def test_the_app_may_say_who_asks(site: Site):
    """A caller that the app vouches for stands in the place of headers; None leaves it to them."""
    site.script = lambda _: said(customer(1))
    clerk = gharial.Caller(client="session", roles=["care"], purpose="support")
    site.caller = lambda _: clerk
    assert (await site.ask(ONE, key="not-a-key")).json["fullName"] == customer(1)["fullName"]
    assert "x-api-key" not in site.seen[-1].headers
    site.caller = lambda _: None
    assert (await site.ask(ONE)).json["fullName"] == "[redacted]"


@pytest.mark.parametrize("answer", ["clerk", clerk_dict := {"client": "x"}])
async def test_a_caller_that_is_none_refuses(site: Site, answer: object):
    """The app's own mistake, or exception, about who asks is no way in."""
    site.caller = lambda _: answer
    assert (await site.ask(ONE)).code == "embedded.caller"

    def fails(_: object) -> None:
        raise KeyError(MARK)

    site.caller = fails
    got = await site.ask(ONE)
    assert (got.code, shows(got), site.seen) == ("internal", False, [])


# --- one path, one meaning --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"/customers/{MARK}%2Fx", 400),
        (f"/customers/{MARK}%5cx", 400),
        (f"/open/%2e%2e/customers/{MARK}", 400),
        (f"/open/../customers/{MARK}", 400),
        (f"/open/..;a/customers/{MARK}", 400),
        (f"/open%2F..%2Fcustomers/{MARK}", 400),
        ("/customers/%252e%252e", 400),
        ("/customers/%00", 400),
        ("/customers/a%0d%0ab", 400),
        ("/nowhere", 404),
        ("/CUSTOMERS/x", 404),
        ("/customers/x/", 404),
    ],
)
async def test_a_path_with_two_meanings_is_refused(site: Site, target: str, status: int):
    """The app never sees it."""
    got = await site.ask(target)
    assert (got.status, site.seen) == (status, [])
    assert not shows(got)


@pytest.mark.parametrize(
    "target",
    [
        ONE.replace("c", "%63"),
        ONE.replace("/", "//"),
        f"/open/..{ONE}".replace("/open/..", ""),
        f"{ONE}%20".strip("%20"),
    ],
)
async def test_another_spelling_is_the_same_path_to_routes_and_app(site: Site, target: str):
    """What an app takes for a customer's path is judged as one, and the app gets the spelling that was judged."""
    site.script = lambda _: said(customer(1))
    got = await site.ask(target)
    assert got.status == 200
    assert not shows(got)
    assert {(seen.path, seen.raw_path) for seen in site.seen} == {(ONE, ONE)}


async def test_the_passing_route_does_not_lead_to_a_protected_one(site: Site):
    """Whatever the app sees under /open was judged as /open, and control headers are gone there, too."""
    site.script = lambda _: said(customer(1))
    for target in ("/open/%63ustomers", "//open//customers", "/%6fpen/customers"):
        got = await site.ask(target, ("x-original-url", ONE), ("x-http-method-override", "PUT"))
        assert shows(got)
    assert {seen.path for seen in site.seen} == {"/open/customers"}
    assert all(set(seen.headers) == {"host"} for seen in site.seen)


# --- what is refused --------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[Said, str]] = {
    "a page": (Said([b"<p>" + MARK.encode()], 200, (("content-type", "text/html"),)), "media.unreadable"),
    "no type": (Said([MARK.encode()], 200, ()), "media.unreadable"),
    "two types": (Said([b"{}"], 200, (*JSON, ("content-type", "text/html"))), "media.unreadable"),
    "no JSON": (Said([b'{"plan": "', MARK.encode()], 200), "body.malformed"),
    "a name twice": (Said([f'{{"fullName":1,"fullName":"{MARK}"}}'.encode()]), "body.duplicate_name"),
    "no body": (Said([], 200), "body.malformed"),
    "a part": (Said([json.dumps(customer(1)).encode()], 206), "body.partial"),
    "too large": (Said([b'"' + MARK.encode() * LIMIT + b'"']), "body.too_large"),
    "announced too large": (Said([b"{}"], 200, (*JSON, ("content-length", str(LIMIT + 1)))), "body.too_large"),
    "an unknown coding": (Said([b"{}"], 200, (*JSON, ("content-encoding", "lz4"))), "coding.unknown"),
    "a broken coding": (Said([MARK.encode()], 200, (*JSON, ("content-encoding", "gzip"))), "coding.malformed"),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_cannot_be_protected_is_refused(site: Site, tmp_path: Path, what: str):
    """502 with the code that the gateway gives, a record of it, and nothing of the answer."""
    answer, code = BAD[what]
    site.script = lambda _: answer
    got = await site.ask(ONE)
    assert (got.status, got.code) == (502, code)
    assert got.one("cache-control") == "no-store"
    assert got.one("content-length") == str(len(got.body))
    assert not shows(got)
    assert [(line["outcome"], line["error"]) for line in lines(tmp_path, site)] == [("refuse", code)]


async def test_an_error_page_keeps_its_status_and_loses_its_text(site: Site):
    """A 500 with a stack trace in it stays a 500."""
    site.script = lambda _: Said([MARK.encode()], 503, (("content-type", "text/plain"),))
    got = await site.ask(ONE)
    assert (got.status, got.code) == (503, "media.unreadable")
    assert not shows(got)


async def test_an_answer_without_end_is_cut_off(site: Site):
    """No more than the limit is collected, and the app is stopped."""
    asked = itertools.count()
    site.script = lambda _: Said(b'"' + b"x" * 1000 for _ in asked)
    got = await site.ask(ONE)
    assert got.code == "body.too_large"
    assert next(asked) < LIMIT / 1000 + 5
    assert site.raised is None


async def test_an_app_that_breaks_off_is_a_500_without_a_body(site: Site, tmp_path: Path):
    """Whether before its first word or in the middle of its body: nothing of it passes."""
    record = json.dumps(customer(1)).encode()

    def raises(_: Seen) -> Said:
        raise ValueError(MARK)

    site.script = raises
    early = await site.ask(ONE)
    site.script = lambda _: Said([record], then=ValueError(MARK))
    late = await site.ask(ONE)
    site.script = lambda _: Said([record[:10]], then=ValueError(MARK))
    torn = await site.ask(ONE)
    assert [(got.status, got.body, shows(got)) for got in (early, late, torn)] == [(500, b"", False)] * 3
    if isinstance(site, WsgiSite):
        assert "ValueError" in site.errors.getvalue()
        assert MARK not in site.errors.getvalue()
    else:
        assert isinstance(site.raised, ValueError)  # for the server's own log, as without us
    assert lines(tmp_path, site)[0]["status"] == 500


async def test_an_audit_that_cannot_be_written_refuses(site: Site, monkeypatch: pytest.MonkeyPatch):
    """As at the gateway: no clear value leaves without its record."""

    async def full(*_: object, **__: object) -> None:
        raise AuditUnwritable

    monkeypatch.setattr(AuditFile, "append", full)
    site.script = lambda _: said(customer(1))
    got = await site.ask(ONE)
    assert (got.status, got.code) == (503, "audit.unwritable")
    assert not shows(got)


@pytest.mark.parametrize("step", ["on_request", "on_response", "on_body"])
async def test_a_bug_refuses(site: Site, monkeypatch: pytest.MonkeyPatch, step: str):
    """Whatever breaks in the gate: 500, and nothing of the answer or of the exception."""

    async def broken(*_: object) -> None:
        raise RuntimeError(MARK)

    monkeypatch.setattr(GateExchange, step, broken)
    site.script = lambda _: said(customer(1))
    got = await site.ask(ONE)
    assert (got.status, got.code) == (500, "internal")
    assert not shows(got)


async def test_a_closed_gate_refuses(site: Site):
    """503, and the app is not asked."""
    site.gate.close()
    got = await site.ask("/open/x")
    assert (got.status, got.code, site.seen) == (503, "gate.unavailable", [])


async def test_a_key_that_is_not_valid_refuses(site: Site):
    """Never anonymous in its place."""
    got = await site.ask(ONE, key="ghk_x_y")
    assert (got.status, got.code, site.seen) == (401, "identity.unknown_credential", [])
    assert got.one("www-authenticate")


# --- what is not enforced ---------------------------------------------------------------------------------------------


async def test_a_passing_route_passes_piece_by_piece(site: Site, tmp_path: Path):
    """Bytes as they are, whatever their type and length, and a record that it passed."""
    site.script = lambda _: Said([b"x" * LIMIT] * 3, 200, (("content-type", "image/png"), ("x-own", MARK)))
    got = await site.ask("/open/picture")
    assert got.body == b"x" * LIMIT * 3
    assert (got.one("x-own"), got.one("gharial-policy")) == (MARK, None)
    assert [line["outcome"] for line in lines(tmp_path, site)] == ["pass"]


async def test_shadow_changes_nothing_and_writes_down_what_it_would_do(watched: Site, tmp_path: Path):
    """The answer passes as it is, in its pieces, and one record says what enforcing would have done."""
    watched.script = lambda _: said(customer(1), ("set-cookie", "a=1"))
    got = await watched.ask(ONE)
    assert got.json == customer(1)
    assert (got.one("set-cookie"), got.one("content-length")) == ("a=1", str(len(got.body)))
    assert (got.one("gharial-policy") or "").endswith("mode=shadow")
    watched.script = lambda _: Said([MARK.encode()], 200, (("content-type", "text/html"),))
    assert (await watched.ask(ONE)).body == MARK.encode()
    watched.script = lambda _: said(customer(1))
    await watched.ask(ONE, method="HEAD")
    found = [(line["outcome"], line["error"]) for line in lines(tmp_path, watched)]
    assert found == [("shadow", None), ("shadow", "media.unreadable"), ("shadow", None)]


@pytest.mark.parametrize("kind", SITES)
async def test_a_stream_route_is_answered_whole(kind: str, tmp_path: Path):
    """There is no proxy that hands over pieces: rows leave when the last has come, as on other routes."""
    routes = [{**route, "stream": "policy" in route} for route in ROUTES]
    with gharial.load(write_home(tmp_path, POLICY, routes=routes)) as gate:
        site = SITES[kind](gate)
        row = json.dumps(customer(1)).encode() + b"\n"
        site.script = lambda _: Said([row * 2], 200, (("content-type", "application/x-ndjson"),))
        got = await site.ask(ONE)
    assert got.status == 200
    assert got.body.count(b"\n") == 2
    assert not shows(got)
