"""Three doors, one gate: the same exchanges through the real Envoy, both middlewares and the library say the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.apps import AsgiSite, Said, Seen, Site, WsgiSite
from support.embedded import audit_of
from support.gateway import ACCOUNTS_FROM, Api, a_gateway, customer, customer_id
from support.upstreams import an_upstream, answer

import gharial

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("library-differential")]

CLIENTS: dict[str, dict[str, Any]] = {
    "clerk": {"roles": ("care",), "purpose": "support"},
    "auditor": {"roles": ("auditor",)},
    "acme-one": {"purpose": "billing"},
    "idle": {"roles": ("care",)},
}


@dataclass(frozen=True)
class Step:
    """One exchange: who asks for what, and what the API answers."""

    client: str
    target: str
    body: bytes
    status: int = 200
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    as_data: bool = True
    """The library can be given this answer: it is JSON with status 200, and the request alone refuses nothing."""
    sent: bytes = b""
    """The body of a POST. In it and in `target`, TOKEN stands for the token that acme-one got of the first customer."""


TOKEN = "THE-TOKEN"
SENT = json.dumps({"customerId": TOKEN}).encode()


def record(number: int) -> bytes:
    return json.dumps(customer(number)).encode()


ODD = json.dumps({**customer(3), "lines": [1e-300, 2**70, "é\u2028", None]}, indent=1).encode()
LISTS = [json.dumps([customer(n) for n in range(start, start + 25)]).encode() for start in (10, 35, 60)]

STEPS = [
    *(Step(client, f"/customers/{customer_id(1)}", record(1)) for client in ("", *CLIENTS)),
    Step("clerk", f"/customers/{customer_id(2)}?team=7", ODD),
    *(Step("clerk", "/customers", text) for text in LISTS),  # crosses the budget of 60 people
    Step("clerk", f"/customers/{customer_id(99)}", record(99)),
    Step("acme-one", "/customers", LISTS[0]),
    Step("acme-one", f"/customers/{TOKEN}?x=1", record(1)),
    Step("idle", f"/customers/{TOKEN}", record(1), as_data=False),
    Step(
        "acme-one",
        f"/customers/{customer_id(1)}",
        record(2),
        as_data=False,
        sent=b'{"customerId": "%s"}' % TOKEN.encode(),
    ),
    Step("auditor", "/any/other", b'{"accountNumber": %d, "deep": [[{"email": "x@y.example"}]]}' % ACCOUNTS_FROM),
    Step("clerk", "/any/other", b"", as_data=False),  # over HTTP an announced length of 0 is no body
    Step("clerk", "/any/other", b"{"),
    Step("clerk", "/any/other", b'{"fullName": 1, "fullName": 2}'),
    Step("clerk", "/any/other", b"[" * 100 + b"]" * 100),
    Step("clerk", "/any/other", b"<p>page</p>", kind="text/html", as_data=False),
    Step("clerk", "/any/other", b"no such customer", status=404, kind="text/plain", as_data=False),
    Step("clerk", f"/customers/{customer_id(1)}", record(1), status=404, as_data=False),
    Step("clerk", "/any/other", b"{}", status=206, as_data=False),
    Step("", "/customers/tok_forged", record(1), headers=(("x-api-key", "ghk_a_b"),), as_data=False),
    Step("", "/nowhere", b"{}", as_data=False),  # Envoy itself answers this one, and tells the gate nothing
]

Result = tuple[int, bytes, dict[str, Any]]


def told(line: Mapping[str, Any], *but: str) -> dict[str, Any]:
    """An audit line but for its time, its id, and how long it took."""
    return {name: value for name, value in line.items() if name not in ("time", "exchange", "ms", *but)}


def document(body: bytes) -> Any:
    """A body but for the id in a problem; the text itself where it is not a problem."""
    try:
        found = json.loads(body)
    except ValueError:
        return body
    if isinstance(found, dict) and str(found.get("type", "")).startswith("urn:gharial:error:"):
        return {name: value for name, value in found.items() if name != "exchange"}
    return body


def filled(text: str, got: Sequence[Any]) -> str:
    """A target or body with the token that this door gave: it is the same at each."""
    if TOKEN not in text:
        return text
    first = next(at for at, step in enumerate(STEPS) if step.client == "acme-one")
    return text.replace(TOKEN, json.loads(got[first][1])["customerId"])


async def through_envoy(base: Path, copies: list[Path]) -> tuple[list[tuple[int, Any, dict[str, str]]], list[Any]]:
    """Run the steps through a gateway; before them, copy its folder with keys and clients to each of `copies`."""
    api = Api()
    async with an_upstream(api) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        keys = {name: await home.add_client(name, **facts) for name, facts in CLIENTS.items()}
        base.joinpath("keys.json").write_text(json.dumps(keys))
        await home.stop()
        for copy in copies:
            shutil.copytree(home.base, copy, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
        await home.start()
        got = []
        for step in STEPS:
            target, sent = filled(step.target, got), filled(step.sent.decode(), got).encode()
            raw = answer(f"{step.status} Said", step.body, f"content-type: {step.kind}")
            api.answers = {target.partition("?")[0]: raw, f"/customers/{customer_id(1)}": raw}
            headers = [f"{name}: {value}" for name, value in step.headers]
            headers += ["content-type: application/json"] if sent else []
            method = "POST" if sent else "GET"
            reply = await home.get(target, *headers, method=method, body=sent, key=keys.get(step.client, ""))
            if sent:
                assert json.loads(upstream.seen[-1].body) == {"customerId": customer_id(1)}
            assert reply.one("content-length") == str(len(reply.body))
            kept = {name: value for name, value in reply.headers if name in COMPARED}
            got.append((reply.status, document(reply.body), kept))
        await home.stop()
        return got, home.audit()


COMPARED = (
    *("content-type", "cache-control", "gharial-policy", "www-authenticate", "etag", "location"),
    *("set-cookie", "retry-after"),
)


async def through_middleware(site: Site, keys: Mapping[str, str]) -> list[tuple[int, Any, dict[str, str]]]:
    got = []
    for step in STEPS:

        def say(_: Seen, step: Step = step) -> Said:
            length = ("content-length", str(len(step.body)))
            return Said([step.body], step.status, (("content-type", step.kind), length))

        site.script = say
        target, sent = filled(step.target, got), filled(step.sent.decode(), got).encode()
        headers = (*step.headers, *((("content-type", "application/json"),) if sent else ()))
        method = "POST" if sent else "GET"
        reply = await site.ask(target, *headers, method=method, body=sent, key=keys.get(step.client, ""))
        if sent:
            assert json.loads(site.seen[-1].body) == {"customerId": customer_id(1)}
        assert reply.one("content-length") == str(len(reply.body))
        kept = {name: value for name, value in reply.headers if name in COMPARED}
        got.append((reply.status, document(reply.body), kept))
    return got


def through_library(gate: gharial.Gharial) -> list[tuple[int, Any] | None]:
    got: list[tuple[int, Any] | None] = []
    for step in STEPS:
        if not step.as_data:
            got.append(None)
            continue
        facts = CLIENTS.get(step.client)
        caller = gharial.Caller() if facts is None else gharial.Caller(client=step.client, **facts)
        try:
            line = f"{'POST' if step.sent else 'GET'} {filled(step.target, got)}"
            got.append((200, gate.protect(step.body, caller=caller, route=line)))
        except gharial.GharialError as error:
            got.append((error.status, error.code))
    return got


async def test_three_doors_say_the_same(tmp_path: Path):
    """Bodies, statuses and headers that Gharial sets are equal, and so are the audit's lines but for id and time.

    Of the library's lines, too, but for the credential: its caller is vouched for, and has none.
    """
    copies = {name: tmp_path / name for name in ("asgi", "wsgi", "library")}
    wanted, audit = await through_envoy(tmp_path, list(copies.values()))
    keys = json.loads((tmp_path / "keys.json").read_text())
    assert len(audit) + 1 == len(wanted) == len(STEPS)
    assert sum(bool(line["budgets_crossed"]) for line in audit) >= 2
    for name, kind in (("asgi", AsgiSite), ("wsgi", WsgiSite)):
        with gharial.load(copies[name] / "gharial.yaml") as gate:
            got = await through_middleware(kind(gate), keys)
        for step, one, other in zip(STEPS, got, wanted, strict=True):
            assert one == other, (name, step.client, step.target)
        *lines, nowhere = (told(line) for line in audit_of(copies[name]))
        assert lines == [told(line) for line in audit]
        assert nowhere["error"] == "route.none"
    with gharial.load(copies["library"] / "gharial.yaml") as gate:
        data = through_library(gate)
    pairs = [(one, other) for one, other, step in zip(data, wanted, STEPS, strict=True) if step.as_data]
    for one, (status, body, _) in pairs:
        assert one == (status, body["code"] if isinstance(body, dict) else body)
    of_data = [line for line, step in zip(audit, STEPS, strict=False) if step.as_data]
    but = ("credential", "source")
    assert [told(line, *but) for line in audit_of(copies["library"])] == [told(line, *but) for line in of_data]
