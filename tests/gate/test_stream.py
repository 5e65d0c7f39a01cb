"""Streams in the gate: the same rows leave however the answer comes, each on record first; what can't go on is cut."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gate_world import POLICY, Answer, World

from gharial.gate.outcome import BodyMode, ForwardHead, ForwardPart, Refuse, RequestHead, ResponseHead
from gharial.model.errors import AuditUnwritable
from gharial.model.finding import Limits
from gharial.policy.document import parse_policy

NDJSON = "application/x-ndjson"


@dataclass
class Run:
    """What left of a stream, and how it ended."""

    body: bytes = b""
    refusal: Refuse | None = None
    cut: bool = False
    head: ForwardHead | None = None
    parts: list[bytes] = field(default_factory=list)

    @property
    def rows(self) -> list[Any]:
        return [json.loads(row) for row in self.body.splitlines()]


def row(number: int, **more: Any) -> bytes:
    return json.dumps({"customerId": f"c{number}", "email": f"{number}@ex.org", "plan": "x", **more}).encode() + b"\n"


def a_world(policy: str = POLICY, **more: Any) -> World:
    return World(policy, stream=True, **more)


async def stream(
    world: World,
    *pieces: bytes,
    as_: str = "clerk-1",
    content_type: str = NDJSON,
    headers: tuple[tuple[str, str], ...] = (),
    status: int = 200,
    end: bool = True,
) -> Run:
    """Play one stream as the proxy would."""
    exchange = world.exchange()
    credential = (("x-api-key", world.keys[as_]),) if as_ else ()
    request = await exchange.on_request(
        RequestHead("GET", "/customers", "g", "http", credential, response_body=BodyMode.DUPLEX)
    )
    assert not isinstance(request, Refuse), request
    assert dict(request.set_headers)["accept-encoding"] == "identity"
    head = await exchange.on_response(
        ResponseHead(status, (("content-type", content_type), *headers), True, True, "via_upstream")
    )
    if isinstance(head, Refuse):
        exchange.on_end(completed=True)
        return Run(refusal=head)
    run = Run(head=head)
    for at, piece in enumerate(pieces):
        part = await exchange.on_part(piece, end=end and at == len(pieces) - 1)
        if isinstance(part, Refuse):
            run.refusal, run.cut = part, bool(run.body)
            break
        assert isinstance(part, ForwardPart)
        run.body += part.body
        run.parts.append(part.body)
        run.cut = part.cut
        if part.cut:
            break
    exchange.on_end(completed=not run.cut and end)
    return run


def outcomes(world: World) -> list[str]:
    return [line["outcome"] for line in world.audit.lines]


ROWS = st.lists(
    st.fixed_dictionaries(
        {"plan": st.text(max_size=5) | st.lists(st.integers(), max_size=2)},
        optional={"customerId": st.sampled_from("abcde"), "email": st.text(max_size=5), "other": st.none()},
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, places=st.lists(st.integers(0, 600), max_size=8), ends=st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
async def test_where_packets_end_makes_no_difference(rows, places, ends):
    """The same bytes leave, the same people are charged, under a budget that is crossed in the middle."""
    # Rows in which nothing changes are among them, with white space and escapes that a rewritten row would not have.
    texts = [json.dumps(one, ensure_ascii=at % 2 == 0).replace('"pl', '"\\u0070l') for at, one in enumerate(rows)]
    body = b"".join(text.encode("utf-8", "replace") + ends for text in texts)
    cuts = sorted(min(place, len(body)) for place in places)
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    whole, torn, alone = a_world(), a_world(), a_world()
    first = await stream(whole, body)
    second = await stream(torn, *pieces)
    third = await stream(alone, *(body[at : at + 1] for at in range(len(body))), b"")
    assert first.body == second.body == third.body
    assert not first.cut
    charged = {(c.grant, c.person) for c in whole.store.charges}
    assert charged == {(c.grant, c.person) for c in torn.store.charges}
    people = {one.get("customerId") for one in rows if "customerId" in one}
    assert len(charged) == min(3, len(people))


@pytest.mark.parametrize("broken", [b'{"email": "z@ex.org"\n', b"{} {}\n", b"\xff\n", b'{"a":1,"a":2}\n'])
async def test_a_broken_row_ends_a_stream_wherever_packets_end(broken):
    """The rows before it leave, it and those behind it don't, whether they came together or apart."""
    for pieces in ([row(1) + broken + row(2)], [row(1), broken, row(2)], [row(1) + broken[:3], broken[3:] + row(2)]):
        world = a_world()
        run = await stream(world, *pieces)
        assert [one["customerId"] for one in run.rows] == ["c1"]
        assert run.cut
        assert world.services.counters.refused.total() == 1
        assert outcomes(world) == ["open", "rows", "close"]
        last = world.audit.lines[-1]
        assert last["error"] in ("body.malformed", "body.duplicate_name")
        assert last["status"] == 200


async def test_a_broken_first_row_is_a_refusal():
    """Nothing has left, so the client can be told; the audit has the refusal alone."""
    world = a_world()
    run = await stream(world, b"{\n", row(1))
    assert run.refusal is not None
    assert run.refusal.error.code == "body.malformed"
    assert (run.body, outcomes(world)) == (b"", ["refuse"])


async def test_each_batch_is_on_disk_before_it_leaves():
    """Where its line can't be written, it does not leave, and the stream is over."""
    world = a_world()
    exchange = world.exchange()
    key = (("x-api-key", world.keys["clerk-1"]),)
    await exchange.on_request(RequestHead("GET", "/customers", "g", "http", key, response_body=BodyMode.DUPLEX))
    await exchange.on_response(ResponseHead(200, (("content-type", NDJSON),), True, True, "via_upstream"))
    first = await exchange.on_part(row(1), end=False)
    assert isinstance(first, ForwardPart)
    assert first.body
    assert world.audit.durable == [line["outcome"] == "rows" for line in world.audit.lines]
    world.audit.broken = True
    second = await exchange.on_part(row(2), end=False)
    assert isinstance(second, Refuse)
    assert isinstance(second.error, AuditUnwritable)


async def test_all_lines_of_a_stream_have_one_id_and_count_what_left():
    """`open`, a line for each batch, `close`; blank lines and packets without a whole row are no batch."""
    world = a_world()
    await stream(world, row(1), b"\n\n", row(2)[:9], row(2)[9:] + row(3), b"")
    lines = world.audit.lines
    assert [line["outcome"] for line in lines] == ["open", "rows", "rows", "close"]
    assert len({line["exchange"] for line in lines}) == 1
    assert [line["people"]["clear_count"] for line in lines] == [0, 1, 2, 0]
    assert world.services.counters.forwarded["list"] == 1


async def test_a_client_that_goes_leaves_a_stream_abandoned():
    """The last line says that it did not end."""
    world = a_world()
    await stream(world, row(1), end=False)
    assert outcomes(world) == ["open", "rows", "abandoned"]


async def test_a_row_that_is_too_long_ends_the_stream_wherever_packets_end():
    """Whether its end has come or not."""
    for pieces in ([row(1) + row(2, note="y" * 300) + row(3)], [row(1), row(2, note="y" * 300)[:250], b"more"]):
        run = await stream(a_world(limits=Limits(row_bytes=200)), *pieces)
        assert [one["customerId"] for one in run.rows] == ["c1"]
        assert run.cut


async def test_the_size_of_all_rows_has_no_limit():
    """Neither what is announced nor what comes: a limit for bodies is one for what is held."""
    world = a_world(limits=Limits(body_bytes=1_000, values=20))
    run = await stream(world, *(row(number) for number in range(100)), b"", headers=(("content-length", "9999999"),))
    assert len(run.rows) == 100
    assert not run.cut


async def test_whoever_is_unknown_in_two_batches_is_two():
    """A record without a person is somebody else in each row, also for a budget."""
    world = a_world()
    for_two = [json.dumps({"email": f"{n}@ex.org"}).encode() + b"\n" for n in range(4)]
    run = await stream(world, *for_two, b"")
    assert [one["email"] for one in run.rows][:3] == ["***@ex.org"] * 3
    assert world.services.counters.people_unknown == 4


FACTS = POLICY.replace("  public:  {", "  home:    { find: '$..country', fact: residency }\n  public:  {").replace(
    "grants:", "never:\n  - { never: stays, tag: name, when: { subject.residency: [US] }, at_least: redact }\ngrants:"
)


async def test_a_fact_counts_in_its_own_row_wherever_packets_end():
    """Elsewhere it is missing, which satisfies a guardrail: what comes together tells no more than what comes apart."""
    rows = [row(1, fullName="Ann", country="DE"), row(1, fullName="Ann")]
    together = await stream(a_world(FACTS), b"".join(rows))
    apart = await stream(a_world(FACTS), *rows, b"")
    assert together.body == apart.body
    assert [one["fullName"] for one in together.rows] == ["Ann", "[redacted]"]


async def test_what_only_a_whole_can_decide_is_collected():
    """How many people are in an answer is known at its end."""
    policy = POLICY.replace("{ grant: basics, to: anyone,", "{ grant: basics, to: anyone, min_group: 2,")
    world = a_world(policy)
    run = await stream(world, row(1), row(2), b"", as_="")
    assert run.parts[:2] == [b"", b""]
    assert [one["plan"] for one in run.rows] == ["x", "x"]
    assert outcomes(world) == ["forward"]


async def test_a_document_is_collected_and_limited():
    """JSON leaves as on any other route, at its end; above the limit it is refused."""
    body = json.dumps([{"plan": "x", "email": "a@ex.org"}]).encode()
    world = a_world(limits=Limits(body_bytes=100))
    run = await stream(world, body[:9], body[9:], content_type="application/json")
    assert json.loads(run.body)[0]["plan"] == "x"
    assert outcomes(world) == ["forward"]
    run = await stream(world, body, body, body, content_type="application/json")
    assert run.refusal is not None
    assert run.refusal.error.code == "body.too_large"


async def test_rows_in_a_coding_that_nobody_asked_for_are_refused():
    """The API was asked for none."""
    run = await stream(a_world(), b"x", headers=(("content-encoding", "gzip"),))
    assert run.refusal is not None
    assert run.refusal.error.code == "coding.unknown"


async def test_an_error_that_cant_be_read_keeps_its_status_and_loses_its_body():
    """As on any other route."""
    run = await stream(a_world(), b"<html>z@ex.org", b"", content_type="text/html", status=500)
    assert b"ex.org" not in run.body
    assert json.loads(run.body)["status"] == 500


@pytest.mark.parametrize("mode", sorted(set(BodyMode) - {BodyMode.DUPLEX}))
async def test_a_protected_stream_route_insists_on_full_duplex(mode):
    """A proxy that is set up otherwise is refused before the upstream is asked."""
    seen = await a_world().call("/customers", Answer(), as_="clerk-1", mode=mode)
    assert (seen.code, seen.request) == ("gate.protocol", None)


async def test_full_duplex_on_another_route_is_refused():
    """Nobody has said that its rows may leave one by one; in shadow mode the answer must pass."""
    for world in (World(), a_world(POLICY.replace("mode: enforce", "mode: shadow"))):
        seen = await world.call("/customers", Answer(), as_="clerk-1", mode=BodyMode.DUPLEX)
        assert seen.code == "gate.protocol"


async def test_parts_without_a_stream_are_refused():
    """Messages out of order never lead to anything that leaves."""
    assert isinstance(await World().exchange().on_part(b'{"email":"ann@ex.org"}\n', end=True), Refuse)


async def test_a_mode_goes_live_on_a_stream_route_by_full_duplex():
    """While both sets are held, the mode that the proxy announces tells which of them a stream begins with."""
    world = World(POLICY.replace("mode: enforce", "mode: shadow"), stream=True)
    publisher = world.services.publisher
    held = publisher.prepare({"customer-data": parse_policy(POLICY, "policy.yaml")})
    rule = next(rule for rule in world.services.routes.rules if rule.name == "list")
    assert publisher.begin(rule, BodyMode.DUPLEX) is held.policies
    for mode in (BodyMode.STREAMED, BodyMode.BUFFERED):
        assert publisher.begin(rule, mode) is publisher.active
