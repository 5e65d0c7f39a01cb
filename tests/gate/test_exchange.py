"""The exchange, played as conversations: what the upstream gets, what the client gets, what is written down."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from support.gate_world import POLICY, Answer, World, refused

from gharial.gate.outcome import BodyMode, Refuse, RequestHead, ResponseHead
from gharial.model.errors import GharialError, ProtocolViolation
from gharial.model.finding import Limits

ANN = {"customerId": "42", "fullName": "Ann Lee", "email": "ann@ex.org", "accountNumber": "A-77", "plan": "gold"}


async def test_anonymous_sees_what_policy_says_and_no_more():
    """Without a credential the caller is anonymous: tokens, public fields, and redaction for the rest."""
    world = World()
    seen = await world.call("/customers/42", ANN)
    assert seen.json["plan"] == "gold"
    assert seen.json["fullName"] == "[redacted]"
    assert seen.json["customerId"].startswith("tok_")
    assert world.audit.lines[0]["client"] == "anonymous"


async def test_a_granted_caller_sees_the_value():
    """A clerk with the role and the purpose sees name and number in clear, and a masked address."""
    seen = await World().call("/customers/42", ANN, as_="clerk-1")
    assert seen.json["fullName"] == "Ann Lee"
    assert seen.json["email"] == "***@ex.org"


async def test_an_unknown_key_is_refused_and_never_becomes_anonymous():
    """A credential that is not valid is 401, even where anonymous callers are served."""
    seen = await World().call("/customers/42", ANN, headers=[("x-api-key", "ghk_nobody_knows")])
    assert refused(seen) == "identity.unknown_credential"
    assert ("www-authenticate", 'Bearer realm="gharial", ApiKey realm="gharial"') in seen.refusal.set_headers


async def test_our_keys_do_not_reach_the_upstream_and_a_company_token_does():
    """The API key and the purpose header are removed; Authorization, which is not ours, goes on."""
    seen = await World().call(
        "/customers/42", ANN, as_="clerk-1", headers=[("authorization", "Bearer x.y.z"), ("gharial-purpose", "a")]
    )
    assert {"x-api-key", "gharial-purpose"} <= set(seen.request.remove_headers)
    assert "authorization" not in seen.request.remove_headers


@pytest.mark.parametrize("route", ["/customers/42", "/health"])
async def test_strip_and_inject(route):
    """An upstream with `inject` gets the gateway's credential and never the caller's; with `strip` none."""
    headers = [("authorization", "Bearer caller")]
    injected = await World(inject_authorization="Bearer ours").call(route, ANN, headers=headers)
    assert ("authorization", "Bearer ours") in injected.request.set_headers
    stripped = await World(strip_headers=frozenset({"authorization"})).call(route, ANN, headers=headers)
    assert "authorization" in stripped.request.remove_headers


async def test_a_purpose_counts_only_from_who_may_assert_it():
    """`Gharial-Purpose` changes the purpose of a client that may assert it, and of no other."""
    world = World()
    may = await world.call("/customers/42", ANN, as_="acme-desk", headers=[("gharial-purpose", "support")])
    may_not = await world.call("/customers/42", ANN, as_="acme-billing", headers=[("gharial-purpose", "support")])
    assert may.json["fullName"] == "Ann Lee"
    assert may_not.json["fullName"] == "[redacted]"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/nothing", "route.none"),
        ("/customers/42/", "route.none"),
        ("/customers", ""),
        ("/customers/4#2", "request.malformed"),
        ("/customers/%ff", "request.malformed"),
        ("*", "request.malformed"),
        ("/Customers/42", "route.none"),
    ],
)
async def test_only_routes_lead_through(target, code):
    """Another spelling of a path is another path, and a path without a route is 404."""
    assert (await World().call(target, ANN)).code == code


async def test_the_proxy_and_the_gate_must_agree_on_the_route():
    """If Envoy chose another route than the gate, its body mode and upstream are wrong: refuse."""
    assert refused(await World().call("/customers/42", ANN, proxy_route="health")) == "route.disagreement"


@pytest.mark.parametrize("mode", [BodyMode.NONE, BodyMode.STREAMED, BodyMode.UNKNOWN])
async def test_a_protected_route_insists_on_buffered_bodies(mode):
    """In any other mode a clear body could pass by the gate, so the request does not even go upstream."""
    seen = await World().call("/customers/42", ANN, mode=mode)
    assert refused(seen) == "gate.protocol"
    assert seen.request is None


async def test_chunks_on_a_protected_route_are_a_bug_that_counts_and_refuses():
    """`on_chunk` passes bytes unchanged; on an enforced route it raises, and the counter of such bytes moves."""
    world = World()
    exchange = world.exchange()
    await exchange.on_request(RequestHead("GET", "/customers/42", "g", "http", (), "", BodyMode.BUFFERED))
    with pytest.raises(ProtocolViolation):
        await exchange.on_chunk(b"clear", end=True)
    assert world.services.counters.bytes_without_plan == 5


async def test_a_body_before_its_head_is_refused():
    """Messages out of order never lead to a forwarded body."""
    outcome = await World().exchange().on_body(b'{"email":"ann@ex.org"}')
    assert isinstance(outcome, Refuse)
    outcome = await World().exchange().on_response(ResponseHead(200, (), from_upstream=True))
    assert isinstance(outcome, Refuse)


# --- tokens that come back --------------------------------------------------------------------------------------


async def test_a_partners_token_comes_back_as_the_real_value():
    """A token from an answer, sent in a path, reaches the upstream as the value it stands for."""
    world = World()
    token = (await world.call("/customers/42", ANN, as_="acme-billing")).json["customerId"]
    seen = await world.call(f"/customers/{token}?x=1", ANN, as_="acme-billing")
    assert seen.request.target == "/customers/42?x=1"
    assert world.audit.lines[-1]["reidentified"] == {"person": 1}


async def test_a_foreign_token_is_refused():
    """A token made for one client says the same to another as a forged one: refused, uniformly."""
    world = World()
    token = (await world.call("/customers/42", ANN)).json["customerId"]
    seen = await world.call(f"/customers/{token}", ANN, as_="acme-billing")
    forged = await world.call("/customers/tok_AQAAAAAAAA", ANN, as_="acme-billing")
    assert (refused(seen), refused(forged)) == ("token.refused", "token.refused")
    assert seen.refusal.error.title == forged.refusal.error.title


async def test_without_reidentify_a_token_is_only_a_text():
    """A caller without the right to re-identify sends the token upstream as it is."""
    world = World()
    token = (await world.call("/customers/42", ANN)).json["customerId"]
    seen = await world.call(f"/customers/{token}", ANN)
    assert seen.request.target is None


@pytest.mark.parametrize("value", ["..", ".", "a/b", "a?b#c", "ü x", "%2e"])
async def test_a_resolved_value_is_exactly_one_segment(value):
    """Whatever a value holds, it can't choose another path: percent-encoded as one segment, dots refused."""
    world = World()
    token = (await world.call("/customers/1", {"customerId": value}, as_="acme-billing")).json["customerId"]
    seen = await world.call(f"/customers/{token}", ANN, as_="acme-billing")
    if value in ("..", "."):
        assert refused(seen) == "token.refused"
    else:
        assert seen.request.target.count("/") == 2
        assert not set("?#. ") & set(seen.request.target.removeprefix("/customers/").replace("%2F", ""))


# --- what the answer's head may say -----------------------------------------------------------------------------


async def test_response_headers_are_default_deny():
    """Unknown headers, lengths and digests of the clear body stay here; what is known to be harmless passes."""
    answer = Answer(
        json.dumps(ANN).encode(),
        headers=(
            ("content-type", "application/json"),
            ("x-customer-email", "ann@ex.org"),
            ("digest", "sha-256=abc"),
            ("content-md5", "abc"),
            ("content-length", "99"),
            ("last-modified", "Mon"),
            ("set-cookie", "email=ann@ex.org"),
            ("link", "</customers/42>; rel=self"),
            ("retry-after", "3"),
            ("x-kept", "1"),
        ),
    )
    seen = await World(keep_headers=["x-kept"]).call("/customers/42", answer)
    gone = {"x-customer-email", "digest", "content-md5", "content-length", "last-modified", "set-cookie", "link"}
    assert gone <= set(seen.head.remove_headers)
    assert not {"retry-after", "x-kept", "content-type"} & set(seen.head.remove_headers)
    assert seen.set["cache-control"] == "private, no-store"
    assert seen.set["gharial-policy"] == "customer-data;version=7;mode=enforce"


async def test_validators_are_removed_from_reads():
    """A conditional or partial read would tell of the clear body, so it is asked for in full."""
    headers = [("if-none-match", '"x"'), ("range", "bytes=0-1"), ("if-range", '"x"'), ("if-modified-since", "Mon")]
    seen = await World().call("/customers/42", ANN, headers=headers)
    assert {name for name, _ in headers} <= set(seen.request.remove_headers)


async def test_an_etag_leaves_as_a_token_and_comes_back_in_if_match():
    """The upstream's entity tag is sealed for this caller and plan, and is itself again in a write's condition."""
    world = World()
    answer = Answer(json.dumps(ANN).encode(), headers=(("content-type", "application/json"), ("etag", 'W/"v1"')))
    etag = (await world.call("/customers/42", answer, as_="clerk-1")).set["etag"]
    assert "v1" not in etag
    back = await world.call("/customers/42", ANN, as_="clerk-1", method="PUT", headers=[("if-match", etag)])
    assert ("if-match", 'W/"v1"') in back.request.set_headers
    other = await world.call("/customers/42", ANN, as_="clerk-2", method="PUT", headers=[("if-match", etag)])
    assert refused(other) == "request.precondition"
    star = await world.call("/customers/42", ANN, as_="clerk-1", method="PUT", headers=[("if-none-match", "*")])
    assert ("if-none-match", "*") in star.request.set_headers


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/accounts/A-77", None),
        ("https://crm.internal:8443/customers", "/customers"),
        ("http://CRM.internal/customers", "/customers"),
        ("/customers?email=ann@ex.org", None),
        ("https://elsewhere.example/customers", None),
        ("//elsewhere.example/customers", None),
        ("/unrouted/ann@ex.org", None),
        ("/health", "/health"),
        ("customers", None),
        ("/customers\\42", None),
    ],
)
async def test_a_redirect_shows_no_more_than_a_body_would(location, shown):
    """`Location` leads back here, its tagged parameters are shown as policy shows them, all else is withheld."""
    answer = Answer(b"", 302, (("location", location),), has_body=False)
    seen = await World().call("/customers/42", answer)
    assert seen.set.get("location") == shown
    assert ("location" in seen.head.remove_headers) == (shown is None)


async def test_a_redirect_to_a_person_carries_a_token():
    """Where the policy shows a token, the redirect carries one, and following it works for who may re-identify."""
    world = World()
    answer = Answer(b"", 303, (("location", "/customers/42"),), has_body=False)
    location = (await world.call("/customers/42", answer, as_="acme-billing")).set["location"]
    assert location.startswith("/customers/tok_")
    assert (await world.call(location, ANN, as_="acme-billing")).request.target == "/customers/42"


async def test_a_redirect_never_goes_round_a_budget():
    """A header that shows a person in clear would have to be charged; where a budget holds it is withheld."""
    answer = Answer(b"", 303, (("location", "/customers/43"),), has_body=False)
    assert "location" not in (await World().call("/customers/42", answer, as_="clerk-1")).set


@pytest.mark.parametrize(("status", "method"), [(200, "HEAD"), (204, "GET"), (304, "GET")])
async def test_answers_without_a_body_tell_no_length(status, method):
    """HEAD, 204 and 304 go through without the clear body's length, and are recorded."""
    world = World()
    headers = (("content-type", "application/json"), ("content-length", "123"))
    seen = await world.call("/customers/42", Answer(b"", status, headers), method=method)
    assert "content-length" in seen.head.remove_headers
    assert world.audit.lines[0]["outcome"] == "forward"


# --- bodies that can't be read ----------------------------------------------------------------------------------

SECRET = b"ann@ex.org"


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ((("content-type", "text/html"),), b"<p>ann@ex.org", "media.unreadable"),
        ((), b'{"email":"ann@ex.org"}', "media.unreadable"),
        ((("content-type", "application/json"),), b"<p>ann@ex.org", "body.malformed"),
        ((("content-type", "application/json"),), b'{"email":"ann@ex.org"', "body.malformed"),
        ((("content-type", "application/json"),), b'{"email":"ann@ex.org","email":"x"}', "body.duplicate_name"),
        ((("content-type", "application/json"), ("content-encoding", "dcb")), b"ann@ex.org", "coding.unknown"),
        ((("content-type", "application/json"), ("content-encoding", "br")), b"ann@ex.org", "coding.malformed"),
        ((("content-type", "application/json"),), b")]}',ann@ex.org", "body.wrapped"),
        ((("content-type", "application/json"), ("content-encoding", "gzip")), b"ann@ex.org", "coding.malformed"),
        ((("content-type", "application/json"),), b"[" * 100_000, "body.too_deep"),
        ((("content-type", "application/json"), ("content-length", "2000")), b"x", "body.too_large"),
        ((("content-type", "application/json"),), b'"' + b"a" * 999 + b'"', "body.too_large"),
    ],
)
async def test_what_cant_be_read_is_refused_without_a_word_of_it(headers, body, code):
    """Whatever the label claims: no reader, no way through; and neither refusal nor audit quotes the body."""
    world = World(limits=Limits(body_bytes=1000) if code == "body.too_large" else None)
    seen = await world.call("/customers/42", Answer(body, headers=headers))
    assert refused(seen) == code
    assert SECRET not in str(seen.refusal.error).encode()
    assert world.audit.lines[-1]["error"] == code
    assert SECRET not in b"".join(world.audit.raw)


async def test_an_unreadable_error_keeps_its_status_and_loses_its_text():
    """A 404 in HTML stays a 404; its body becomes problem details that say nothing of the upstream's."""
    answer = Answer(b"<p>customer ann@ex.org not found", 404, (("content-type", "text/html"),))
    seen = await World().call("/customers/42", answer)
    assert seen.json["status"] == 404
    assert seen.json["code"] == "media.unreadable"
    assert seen.set["content-type"] == "application/problem+json"
    redirect = await World().call("/customers/42", Answer(b"<a href=x>", 302, (("content-type", "text/html"),)))
    assert redirect.body.body == b""


FAULT = b"<Fault><Reason>customer ann@ex.org not found</Reason><Code>7</Code></Fault>"
XML_POLICY = POLICY.replace("find: '$..plan'", "find: ['$..plan', '//Fault/Code']")


async def test_a_fault_in_xml_is_rewritten_where_the_policy_has_places_in_xml():
    """A SOAP fault is a body like any other: what no tag names is gone."""
    seen = await World(XML_POLICY).call("/customers/42", Answer(FAULT, 500, (("content-type", "text/xml"),)))
    assert seen.body is not None
    assert seen.body.body == b"<Fault><Code>7</Code></Fault>"


async def test_xml_where_the_policy_has_no_place_in_it_is_refused_whatever_it_says_of_fields():
    """`unlisted_fields: pass` is said of JSON: an answer in XML is refused, an error in XML keeps only its status."""
    world = World(POLICY.replace("tags:", "unlisted_fields: pass\ntags:", 1))
    xml = (("content-type", "application/xml"),)
    assert refused(await world.call("/customers/42", Answer(FAULT, headers=xml))) == "media.unreadable"
    seen = await world.call("/customers/42", Answer(FAULT, 500, xml))
    assert seen.json == {**seen.json, "status": 500, "code": "media.unreadable"}
    assert SECRET not in b"".join(world.audit.raw)


async def test_a_readable_error_is_rewritten_like_any_body():
    """An error body in JSON follows the plan: unlisted text does not leave."""
    answer = Answer(b'{"detail":"no ann@ex.org","plan":"gold"}', 404)
    assert (await World().call("/customers/42", answer)).json == {"plan": "gold"}


async def test_a_part_is_refused():
    """206 on a protected route is refused, although no range was asked for."""
    assert refused(await World().call("/customers/42", Answer(b"{}", 206))) == "body.partial"


async def test_gzip_is_undone_and_other_codings_are_not_asked_for():
    """A gzipped answer is read and leaves plain; the upstream is asked for gzip at the most."""
    answer = Answer(
        gzip.compress(json.dumps(ANN).encode()),
        headers=(("content-type", "application/json"), ("content-encoding", "gzip")),
    )
    seen = await World().call("/customers/42", answer, headers=[("accept-encoding", "br, gzip;q=0.5, zstd")])
    assert ("accept-encoding", "gzip") in seen.request.set_headers
    assert seen.json["plan"] == "gold"
    assert "content-encoding" in seen.head.remove_headers


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (
            Answer(SECRET, 503, from_upstream=False, proxy_detail="upstream_reset_before_response_started"),
            "upstream.unreachable",
        ),
        (Answer(SECRET, 504, from_upstream=False, proxy_detail="response_timeout"), "upstream.timeout"),
        (Answer(SECRET, 200, from_upstream=False, proxy_detail=""), "upstream.unreachable"),
    ],
)
async def test_an_answer_of_the_proxys_own_becomes_ours(answer, code):
    """What does not come from the upstream for certain is replaced by problem details."""
    assert refused(await World().call("/customers/42", answer)) == code


# --- budgets, durability ----------------------------------------------------------------------------------------


def person(number: int) -> dict[str, str]:
    return {**ANN, "customerId": str(number), "fullName": f"Name {number}"}


async def test_a_page_shows_as_many_people_as_the_budget_allows():
    """Under a budget of 3 a page of 10 shows the first 3 in clear and masks the rest; an incident opens, once."""
    world = World()
    seen = await world.call("/customers", [person(n) for n in range(10)], as_="clerk-1")
    clear = [row["fullName"] for row in seen.json if row["fullName"].startswith("Name")]
    assert clear == ["Name 0", "Name 1", "Name 2"]
    assert all(row["customerId"] == "***" for row in seen.json[3:])
    assert len(world.store.incidents) == len(world.store.alarms) == world.woken == 1
    await world.call("/customers", [person(n) for n in range(20, 30)], as_="clerk-1")
    assert len(world.store.alarms) == 1
    incident = next(iter(world.store.incidents.values()))
    assert (incident.client, incident.people_clear, incident.measure) == ("clerk-1", 3, "mask")


async def test_the_limit_is_exact_under_concurrent_calls():
    """Forty calls at once under a budget of 3 show exactly 3 people in clear between them."""
    world = World()
    seen = await asyncio.gather(*(world.call(f"/customers/{n}", person(n), as_="clerk-1") for n in range(40)))
    assert sum(s.json["fullName"].startswith("Name") for s in seen) == 3


async def test_people_seen_before_stay_as_they_were_also_after_a_crash():
    """Whoever was counted stays visible, whoever was not stays masked, and a restart gives no room."""
    world = World()
    for number in range(5):
        await world.call(f"/customers/{number}", person(number), as_="clerk-1")
    again = world.restarted()
    names = [(await again.call(f"/customers/{n}", person(n), as_="clerk-1")).json["fullName"] for n in range(5)]
    assert names[:3] == ["Name 0", "Name 1", "Name 2"]
    assert not any(name.startswith("Name") for name in names[3:])
    assert len(again.store.alarms) == 1


async def test_one_clerks_budget_is_not_anothers():
    """Budgets belong to the principal: another clerk goes on working."""
    world = World()
    for number in range(5):
        await world.call(f"/customers/{number}", person(number), as_="clerk-1")
    assert (await world.call("/customers/9", person(9), as_="clerk-2")).json["fullName"] == "Name 9"


async def test_records_without_a_person_count_one_by_one():
    """A record that names nobody is one unknown person, so leaving the number out is no way round a budget."""
    world = World()
    rows = [{"fullName": f"Name {n}"} for n in range(10)]
    seen = await world.call("/customers", rows, as_="clerk-1")
    assert sum(row["fullName"].startswith("Name") for row in seen.json) == 3
    assert world.services.counters.people_unknown == 10


async def test_the_person_of_a_path_is_the_person_of_a_record_without_one():
    """Repeated looks at one path's person are one person, however often, and cost one place of the budget."""
    world = World()
    for _ in range(5):
        seen = await world.call("/customers/42", {"fullName": "Ann Lee"}, as_="clerk-1")
    assert seen.json["fullName"] == "Ann Lee"
    assert len({charge.person for charge in world.store.charges}) == 1


async def test_a_clear_value_waits_for_its_audit_record():
    """The record of an answer that shows a value is durable; one that shows none need not be waited for."""
    world = World()
    await world.call("/customers/42", ANN, as_="clerk-1")
    await world.call("/customers/42", {"fullName": "Ann Lee"})
    assert world.audit.durable == [True, False]


@pytest.mark.parametrize("part", ["audit", "store"])
async def test_a_full_disk_refuses_and_recovers(part):
    """If audit or reservation can't be written nothing leaves; when the disk is back, calls go on."""
    world = World()
    getattr(world, part).broken = True
    assert refused(await world.call("/customers/42", ANN, as_="clerk-1")) == f"{part}.unwritable"
    getattr(world, part).broken = False
    assert (await world.call("/customers/42", ANN, as_="clerk-1")).json["fullName"] == "Ann Lee"


async def test_a_broken_audit_stops_answers_without_clear_values_too():
    """An exchange that can't be written down does not happen, whatever it shows."""
    world = World()
    world.audit.broken = True
    assert refused(await world.call("/customers/42", {"fullName": "Ann"})) == "audit.unwritable"


async def test_the_audit_never_holds_a_value():
    """No name, address, number, key or token of any call stands in the audit, as text or escaped."""
    world = World()
    token = (await world.call("/customers/42", ANN, as_="acme-billing")).json["customerId"]
    await world.call(f"/customers/{token}?email=ann@ex.org", ANN, as_="acme-billing")
    await world.call("/customers/42", ANN, as_="clerk-1")
    await world.call("/customers", [person(n) for n in range(9)], as_="clerk-1")
    text = b"".join(world.audit.raw).decode()
    for value in (*ANN.values(), token, *world.keys.values()):
        assert value not in text or value in ("42", "gold")
    assert '"42"' not in text
    assert '"gold"' not in text


async def test_an_abandoned_call_is_recorded():
    """A client that hangs up in the middle leaves a line, and no body."""
    world = World()
    exchange = world.exchange()
    await exchange.on_request(RequestHead("GET", "/customers/42", "g", "http", (), "", BodyMode.BUFFERED))
    exchange.on_end(completed=False)
    assert world.audit.lines[0]["outcome"] == "abandoned"
    assert world.services.counters.abandoned == 1


# --- shadow and pass --------------------------------------------------------------------------------------------

SHADOW = POLICY.replace("mode: enforce", "mode: shadow")


async def test_shadow_changes_nothing_and_counts_everything():
    """In shadow mode the body passes as it came, and what enforcing would have done is counted and recorded."""
    world = World(SHADOW)
    seen = await world.call("/customers/42", ANN)
    assert seen.body.body is None
    assert seen.set["gharial-policy"].endswith("mode=shadow")
    await world.call("/customers/42", Answer(b"<html>", headers=(("content-type", "text/html"),)))
    await world.call("/customers/42", Answer(b"{broken"))
    await world.call("/customers/42", ANN, headers=[("x-api-key", "ghk_wrong")])
    counters = world.services.counters
    assert counters.shadow_would_change["customer"] == 1
    assert counters.shadow_would_refuse["customer"] == 3
    assert [line["outcome"] for line in world.audit.lines] == ["shadow"] * 4
    assert world.store.charges == []


async def test_shadow_survives_a_broken_audit():
    """A watch that can't write must not break what it only watches."""
    world = World(SHADOW)
    world.audit.broken = True
    assert (await world.call("/customers/42", ANN)).body.body is None
    assert world.services.counters.audit_lines_lost == 1


async def test_shadow_looks_at_chunks_and_gives_up_beyond_the_limit():
    """A body in pieces is looked at as a whole; one beyond the limit passes and counts as would-refuse."""
    world = World(SHADOW, limits=Limits(body_bytes=100))
    for body in (json.dumps(ANN)[:90].encode(), json.dumps(ANN).encode() * 2):
        exchange = world.exchange()
        await exchange.on_request(RequestHead("GET", "/customers/42", "g", "http", (), "", BodyMode.STREAMED))
        await exchange.on_response(ResponseHead(200, (("content-type", "application/json"),), from_upstream=True))
        for start in range(0, len(body), 7):
            await exchange.on_chunk(body[start : start + 7], end=start + 7 >= len(body))
        exchange.on_end(completed=True)
    assert [line["error"] for line in world.audit.lines] == ["body.malformed", "body.too_large"]


async def test_a_pass_route_is_counted_apart_and_still_loses_our_keys():
    """`pass: true` forwards unread, removes Gharial's own headers, rewrites redirects, and says so in the audit."""
    world = World()
    answer = Answer(b"", 302, (("location", "https://crm.internal/health?x=1"),), has_body=False)
    seen = await world.call("/health", answer, as_="clerk-1", mode=BodyMode.NONE)
    assert seen.request.remove_headers == ("x-api-key",)
    assert seen.set["location"] == "/health?x=1"
    assert world.services.counters.passed["health"] == 1
    assert world.audit.lines[0]["outcome"] == "pass"


async def test_control_headers_do_not_reach_the_upstream():
    """No header of a caller makes the upstream serve another path or method than the one that was judged."""
    headers = [("x-original-url", "/admin"), ("x-http-method-override", "DELETE"), ("gharial-bypass", "1")]
    seen = await World().call("/customers/42", ANN, headers=headers)
    assert {name for name, _ in headers} <= set(seen.request.remove_headers)


async def test_errors_are_all_expected_ones():
    """A refusal always carries an error with a stable code."""
    seen = await World().call("/nothing")
    assert isinstance(seen.refusal.error, GharialError)


async def test_a_passing_route_is_no_way_to_another_path():
    """Headers by which an upstream could serve another path or method are removed on passing routes too."""
    headers = [("x-original-url", "/customers/42"), ("x-rewrite-url", "/x"), ("x-http-method-override", "DELETE")]
    seen = await World().call("/health", ANN, headers=headers, mode=BodyMode.NONE)
    assert {name for name, _ in headers} <= set(seen.request.remove_headers)


@pytest.mark.parametrize("target", ["/customers/42", "/health"])
async def test_our_key_in_the_wrong_header_goes_no_further(target):
    """A key of ours that a client sends as a bearer token does not reach the upstream."""
    seen = await World().call(target, ANN, headers=[("authorization", "Bearer ghk_abc_def")])
    assert "authorization" in seen.request.remove_headers


async def test_entity_tags_of_equal_resources_differ():
    """Two resources with one tag upstream have two here, and one's does not fit the other."""
    world = World()
    answer = Answer(json.dumps(ANN).encode(), headers=(("content-type", "application/json"), ("etag", '"same"')))
    one = (await world.call("/customers/1", answer, as_="clerk-1")).set["etag"]
    two = (await world.call("/customers/2", answer, as_="clerk-1")).set["etag"]
    assert one != two
    wrong = await world.call("/customers/2", ANN, as_="clerk-1", method="PUT", headers=[("if-match", one)])
    assert refused(wrong) == "request.precondition"


async def test_a_content_type_carries_no_text():
    """Parameters of the content type are free text of the upstream's, and stay here."""
    answer = Answer(b"{}", headers=(("content-type", 'application/json; profile="ann@ex.org"'),))
    assert (await World().call("/customers/42", answer)).set["content-type"] == "application/json"


# --- bodies of rows ----------------------------------------------------------------------------------------------

ROWS = [{"customerId": str(n), "fullName": f"Ann {n}", "email": f"ann{n}@ex.org", "secret": "s"} for n in range(5)]


def rows_as(kind: str) -> bytes:
    """The rows in one of the formats."""
    match kind:
        case "application/x-ndjson":
            return "".join(json.dumps(row) + "\n" for row in ROWS).encode()
        case "application/json-seq":
            return "".join("\x1e" + json.dumps(row) + "\n" for row in ROWS).encode()
        case "text/event-stream":
            return "".join(f"id: {row['email']}\ndata: {json.dumps(row)}\n\n" for row in ROWS).encode()
        case _:
            sign = "," if kind == "text/csv" else "\t"
            lines = [sign.join(ROWS[0]), *(sign.join(row.values()) for row in ROWS)]
            return "".join(line + "\r\n" for line in lines).encode()


@pytest.mark.parametrize(
    "kind",
    ["application/x-ndjson", "application/json-seq", "text/event-stream", "text/csv", "text/tab-separated-values"],
)
async def test_rows_are_charged_and_recorded_person_by_person(kind):
    """A budget of three shows three of five rows in clear; the audit counts the people; what nobody named is gone."""
    world = World()
    head = (("content-type", f"{kind}; charset=utf-8"),)
    seen = await world.call("/customers", Answer(rows_as(kind), headers=head), as_="clerk-1")
    body = seen.body.body.decode()
    assert [f"Ann {n}" in body for n in range(5)] == [True, True, True, False, False]
    assert ("secret" in body, "ann4@" in body) == (False, False)
    people = world.audit.lines[-1]["people"]
    assert (people["clear_count"], people["protected_count"]) == (3, 2)
    table = kind.startswith("text/") and "event" not in kind
    assert ("content-type", kind + ("; charset=utf-8" if table else "")) in seen.head.set_headers


@pytest.mark.parametrize("kind", ["application/x-ndjson", "text/event-stream", "text/csv"])
async def test_one_broken_row_refuses_all_of_them(kind):
    """Nothing of the rows before it leaves, and neither refusal nor audit quotes it."""
    world = World()
    seen = await world.call("/customers", Answer(rows_as(kind) + b"ann@ex.org,", headers=(("content-type", kind),)))
    assert refused(seen) == "body.malformed"
    assert SECRET not in str(seen.refusal.error).encode()
    assert "ann" not in json.dumps(world.audit.lines)


async def test_a_policy_that_lets_pass_what_it_does_not_name_covers_rows_and_no_tables():
    """Lines have the names that documents have, columns have not."""
    world = World(POLICY.replace("who:", "unlisted_fields: pass\nwho:", 1))
    for kind, code in (("application/x-ndjson", None), ("text/csv", "media.unreadable")):
        seen = await world.call("/customers", Answer(rows_as(kind), headers=(("content-type", kind),)))
        assert (refused(seen) if code else seen.refusal) == code
