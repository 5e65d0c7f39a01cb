"""Before an API that is not ours: httpbin from PyPI, behind a gateway that enforces some routes and watches others."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.envoy_harness import Answer, free_port
from support.gateway import Home, a_gateway, until

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.services,
    pytest.mark.xdist_group("gateway-httpbin"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        importlib.util.find_spec("httpbin") is None,
        reason="httpbin is not installed: uv sync --group services",
    ),
]

ENFORCED = """\
policy: httpbin
version: 1
tags:
  public: { find: ['$..title', '$.gzipped', '$.deflated', '$.brotli', '$.method'] }
  where:  { find: '$..origin' }
who: { anyone: {} }
grants:
  - { grant: all, to: anyone, show: { public: clear, where: mask } }
"""

WATCHED = ENFORCED.replace("policy: httpbin", "policy: watched\nmode: shadow")

ENFORCED_PATHS = (
    "/json /gzip /deflate /brotli /html /xml /image/png /stream/{n} /status/{code} /redirect/{n} /bytes/{n}"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[Home]:
    port = free_port()
    httpbin = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "httpbin.core", "--port", str(port)],
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    routes = [
        {"route": f"r{number}", "match": f"GET {path}", "upstream": "httpbin", "policy": "httpbin"}
        for number, path in enumerate(ENFORCED_PATHS.split())
    ]
    routes.append({"route": "rest", "match": "ANY /**", "upstream": "httpbin", "policy": "watched"})
    try:
        await until(lambda: _listens(port))
        async with a_gateway(
            {"httpbin": {"url": f"http://127.0.0.1:{port}"}},
            policy=ENFORCED,
            files={"policies/watched.yaml": WATCHED},
            routes=routes,
        ) as home:
            yield home
    finally:
        httpbin.kill()
        await httpbin.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def document(reply: Answer) -> object:
    assert reply.status == 200, reply
    return json.loads(reply.body)


async def test_json_and_gzip_are_rewritten(gateway: Home):
    """What the policy lists comes, everything else of these answers is gone."""
    show = document(await gateway.get("/json"))
    assert show == {
        "slideshow": {
            "slides": [{"title": "Wake up to WonderWidgets!"}, {"title": "Overview"}],
            "title": "Sample Slide Show",
        }
    }
    packed = document(await gateway.get("/gzip", "accept-encoding: gzip"))
    assert isinstance(packed, dict)
    assert (packed["gzipped"], packed["method"]) == (True, "GET")
    assert set(packed["origin"]) == {"*"}
    assert "headers" not in packed


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/html", "media.unreadable"),
        ("/xml", "media.unreadable"),
        ("/image/png", "media.unreadable"),
        ("/bytes/100", "media.unreadable"),
        ("/stream/3", "body.malformed"),
    ],
)
async def test_what_cannot_be_read_is_refused(gateway: Home, path: str, code: str):
    """Pages, pictures, and JSON lines that call themselves one document."""
    reply = await gateway.get(path, "accept-encoding: gzip, deflate, br")
    assert (reply.status, reply.code) == (502, code)


@pytest.mark.parametrize(("path", "told"), [("/gzip", "gzipped"), ("/deflate", "deflated"), ("/brotli", "brotli")])
async def test_codings_are_undone(gateway: Home, path: str, told: str):
    """A coded answer is read, also in a coding that nobody asked for, and leaves uncoded and masked."""
    reply = await gateway.get(path, "accept-encoding: gzip, deflate, br")
    assert (reply.status, reply.one("content-encoding")) == (200, None)
    assert json.loads(reply.body) == {told: True, "method": "GET", "origin": "***"}


@pytest.mark.parametrize("status", [204, 304, 400, 404, 418, 500, 503])
async def test_statuses_pass(gateway: Home, status: int):
    """An answer that is no success keeps its status, whatever its body was."""
    reply = await gateway.get(f"/status/{status}")
    assert reply.status == status
    assert b"teapot" not in reply.body


async def test_a_chain_of_redirects_is_followed_through_the_gateway(gateway: Home):
    """Watched, each step leads back here and at last to the answer; enforced, a path that no tag covers is withheld."""
    target, steps = "/absolute-redirect/2", 0
    while (reply := await gateway.get(target)).status == 302:
        target, steps = str(reply.one("location")), steps + 1
        assert target.startswith("/")
    assert (reply.status, steps) == (200, 2)
    reply = await gateway.get("/redirect/2")
    assert (reply.status, reply.all("location")) == (302, [])


async def test_what_is_watched_passes_as_it_is(gateway: Home):
    """HTML, brotli, pictures and uploads through a route in shadow are httpbin's own."""
    assert (await gateway.get("/encoding/utf8")).status == 200
    assert (await gateway.get("/image/jpeg")).body.startswith(b"\xff\xd8")
    reply = await gateway.get("/post", "content-type: text/plain", method="POST", body=b"a body")
    assert json.loads(reply.body)["data"] == "a body"
    assert (reply.one("gharial-policy") or "").endswith("mode=shadow")


async def test_a_key_is_not_seen_by_the_upstream(gateway: Home):
    """httpbin tells which headers it got: our key is not among them."""
    key = await gateway.add_client("somebody")
    seen = json.loads((await gateway.get("/headers", "authorization: Basic eDp5", key=key)).body)["headers"]
    assert "X-Api-Key" not in seen
    assert seen["Authorization"] == "Basic eDp5"
