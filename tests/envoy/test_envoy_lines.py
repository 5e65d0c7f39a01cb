"""Several lines of one header, through the real Envoy: what the gate sets arrives line by line, both ways.

Envoy 1.40 does not read `append_action` as it is written: see `messages._set`.
"""

from __future__ import annotations

import pytest
from support.envoy_harness import ScriptedExchange, a_gateway
from support.upstreams import an_upstream, json_answer

from gharial.gate.outcome import ForwardBody, ForwardHead, ForwardRequest, Headers, Refuse
from gharial.model.errors import UnknownCredential

pytestmark = pytest.mark.envoy

THREE: Headers = (("set-cookie", "a=1"), ("x-many", "1"), ("set-cookie", "b=2"), ("x-many", "2"), ("set-cookie", "c=3"))
OLD = json_answer("{}", "set-cookie: old=1", "set-cookie: old=2", "x-many: old")


async def test_lines_of_an_answer_that_its_head_sets():
    """All of them arrive, in their order, and none of the upstream's own."""
    play = ScriptedExchange(response=lambda _: ForwardHead(THREE))
    async with an_upstream(OLD) as upstream, a_gateway(upstream.url, lambda: play) as gateway:
        reply = await gateway.get()
    assert reply.all("set-cookie") == ["a=1", "b=2", "c=3"]
    assert reply.all("x-many") == ["1", "2"]


async def test_lines_of_an_answer_that_its_body_sets():
    """The same where they come with the body."""
    play = ScriptedExchange(body=lambda _: ForwardBody(b"{}", THREE))
    async with an_upstream(OLD) as upstream, a_gateway(upstream.url, lambda: play) as gateway:
        reply = await gateway.get()
    assert reply.all("set-cookie") == ["a=1", "b=2", "c=3"]
    assert reply.all("x-many") == ["1", "2"]


async def test_lines_of_a_refusal():
    """The same where the gate answers itself."""
    play = ScriptedExchange(request=lambda _: Refuse(UnknownCredential(), "x", THREE))
    async with an_upstream(OLD) as upstream, a_gateway(upstream.url, lambda: play) as gateway:
        reply = await gateway.get()
    assert reply.all("set-cookie") == ["a=1", "b=2", "c=3"]
    assert reply.all("x-many") == ["1", "2"]


async def test_lines_of_a_request():
    """The upstream gets what the gate set, and nothing of what came; what the gate leaves alone stays as it is."""
    play = ScriptedExchange(request=lambda _: ForwardRequest(set_headers=(("x-many", "1"), ("x-many", "2"))))
    async with an_upstream(OLD) as upstream, a_gateway(upstream.url, lambda: play) as gateway:
        await gateway.get("/protected/1", "x-many: old", "x-many: older", "x-kept: 1", "x-kept: 2")
    assert upstream.seen[0].all("x-many") == ["1", "2"]
    assert upstream.seen[0].all("x-kept") == ["1", "2"]


async def test_lines_that_nobody_touches_stay():
    """Two cookies of the upstream are two for the client."""
    async with an_upstream(OLD) as upstream, a_gateway(upstream.url) as gateway:
        reply = await gateway.get()
    assert reply.all("set-cookie") == ["old=1", "old=2"]
