"""Routes from a file, told by the real Envoy: another file in its place is taken up while it runs, never by half."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.envoy_harness import MASKED, PLANTED, Answer, Gateway, ScriptedExchange, a_gateway, settings_for
from support.gateway import until
from support.upstreams import Raw, SeenRequest, Upstream, an_upstream, json_answer

from gharial.adapters.envoy.config import EnvoyRoute, RouteFile, route_file
from gharial.adapters.envoy.process import EnvoyAdmin
from gharial.adapters.envoy.routes import EnvoyRoutes
from gharial.adapters.replace_file import replace_file
from gharial.gate.outcome import BodyMode
from gharial.gate.routes import RouteKind, RouteRule, parse_template
from gharial.model.errors import ProxyNotChanged

pytestmark = pytest.mark.envoy

CLEAR = json_answer(json.dumps({"x": PLANTED}))


def routes(kind: RouteKind) -> list[EnvoyRoute]:
    return [EnvoyRoute("one", ("GET",), "/protected/[^/]+", "api", kind)]


def file_of(gateway: Gateway, upstream: Upstream, kind: RouteKind) -> RouteFile:
    return route_file(settings_for({"api": {"url": upstream.url}}, port=gateway.port), routes(kind))


async def counts(gateway: Gateway, *names: str) -> list[int]:
    prefix = "http.gharial.rds.routes."
    found = await gateway.admin.fetch_stats(f"^{prefix}update_(attempt|success|rejected|failure)$")
    return [found[prefix + name] for name in names]


async def put(gateway: Gateway, data: bytes) -> None:
    """Replace the file and wait until Envoy has looked at it."""
    (before,) = await counts(gateway, "update_attempt")
    replace_file(gateway.folder / "routes.json", data)

    async def looked() -> bool:
        return await counts(gateway, "update_attempt") != [before]

    await until(looked)


def announced(gateway: Gateway) -> list[BodyMode]:
    """The mode that Envoy announced for each exchange, in order."""
    return [exchange.named("request")[0].response_body for exchange in gateway.exchanges]


def shows(answer: Answer) -> bool:
    return PLANTED.encode() in answer.body


async def test_another_file_is_taken_up_and_told_by_its_version():
    """The next exchange has the mode that the new file says; `version_text` names the file that is in use."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, routes=routes(RouteKind.SHADOW)) as gateway:
        assert shows(await gateway.get())
        for kind in (RouteKind.PROTECT, RouteKind.SHADOW, RouteKind.PROTECT):
            file = file_of(gateway, upstream, kind)
            assert await gateway.admin.fetch_routes_version() != file.version
            await put(gateway, file.data)
            assert await gateway.admin.fetch_routes_version() == file.version
            assert shows(await gateway.get()) is (kind is RouteKind.SHADOW)
        assert announced(gateway) == [BodyMode.STREAMED, BodyMode.BUFFERED] * 2


async def test_a_running_exchange_keeps_its_mode_and_its_connection_does_not():
    """What began under one mode ends under it; the next request on the same connection has the new one."""
    free = asyncio.Event()

    async def held(_: SeenRequest) -> Raw:
        await free.wait()
        return CLEAR

    head = b"GET /protected/1 HTTP/1.1\r\nhost: g\r\n%s\r\n"
    async with an_upstream(held) as upstream, a_gateway(upstream.url, routes=routes(RouteKind.SHADOW)) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head % b"")
        await until(lambda: upstream.seen)
        await put(gateway, file_of(gateway, upstream, RouteKind.PROTECT).data)
        free.set()
        async with asyncio.timeout(10):
            first = await reader.readuntil(b"0\r\n\r\n")
            writer.write(head % b"connection: close\r\n")
            second = await reader.read()
        writer.close()
        assert PLANTED.encode() in first
        assert (PLANTED.encode() in second, MASKED.encode() in second) == (False, True)
        assert announced(gateway) == [BodyMode.STREAMED, BodyMode.BUFFERED]


async def test_a_bad_file_leaves_the_routes_as_they_are():
    """No JSON, nothing at all, an upstream that is not there, a wrong expression: the old table goes on, as a whole."""
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, routes=routes(RouteKind.PROTECT)) as gateway:
        good = file_of(gateway, upstream, RouteKind.SHADOW).data
        before = await gateway.admin.fetch_routes_version()
        for bad in (b"{", b"", good.replace(b"upstream_api", b"upstream_none"), good.replace(b"[^/]+", b"(")):
            assert bad != good
            await put(gateway, bad)
            assert await gateway.admin.fetch_routes_version() == before
            answer = await gateway.get()
            assert (answer.status, shows(answer)) == (200, False)
        assert await counts(gateway, "update_success", "update_rejected", "update_failure") == [1, 2, 2]
        (gateway.folder / "routes.json").unlink()
        assert not shows(await gateway.get())
        await put(gateway, good)
        assert shows(await gateway.get())


async def test_without_the_file_envoy_does_not_start():
    """Envoy does not start, and says which file it misses."""

    def none(table: dict[str, Any]) -> None:
        table.clear()

    async with an_upstream(CLEAR) as upstream:
        with pytest.raises(AssertionError, match=r"routes\.json"):
            async with a_gateway(upstream.url, ScriptedExchange, change_routes=none):
                pass
        assert upstream.seen == []


async def test_routes_that_are_told_already_are_left_alone_and_others_replace_them(tmp_path):
    """The same routes leave the file as it is; others are written as a whole, for its owner alone."""
    path = tmp_path / "routes.json"
    of = settings_for({"api": {"url": "http://127.0.0.1:9"}}, port=1)
    rule = RouteRule("any", parse_template("GET /any"), RouteKind.PROTECT, "p")
    envoy = EnvoyRoutes(of, [rule], path, EnvoyAdmin(tmp_path / "none.sock"), within_s=0.05)
    inodes = []
    for kind in (RouteKind.PROTECT, RouteKind.PROTECT, RouteKind.SHADOW):
        envoy.tell({"any": kind})
        inodes.append(path.stat().st_ino)
        assert ("STREAMED" in path.read_text()) is (kind is RouteKind.SHADOW)
    assert (inodes[0] == inodes[1] != inodes[2], path.stat().st_mode & 0o777) == (True, 0o600)
    assert await envoy.is_taken() is None
    with pytest.raises(ProxyNotChanged, match="gharial status"):
        await envoy.until_taken()


def test_a_file_that_cant_be_written_is_an_error_that_names_it(tmp_path):
    """A publication must not wait for an Envoy that nobody could tell."""
    of = settings_for({"api": {"url": "http://127.0.0.1:9"}}, port=1)
    rule = RouteRule("any", parse_template("GET /any"), RouteKind.PROTECT, "p")
    envoy = EnvoyRoutes(of, [rule], tmp_path / "gone" / "routes.json", EnvoyAdmin(tmp_path / "none.sock"))
    with pytest.raises(ProxyNotChanged, match=r"gone/routes\.json"):
        envoy.tell({"any": RouteKind.PROTECT})
