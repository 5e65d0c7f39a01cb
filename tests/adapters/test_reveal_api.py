"""The reveal API's HTTP side, without a gate: what goes wrong is a problem document, and nothing is told of values."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from gharial.adapters import reveal_api
from gharial.adapters.reveal_api import RevealApi
from gharial.gate.outcome import Headers
from gharial.gate.people import ERASED, Erased
from gharial.gate.reveal import Begun, Clear, Item
from gharial.model.caller import Caller
from gharial.model.errors import GharialError
from gharial.model.finding import Kind

PLANTED = "PLANTED-4711"
BODY = json.dumps({"values": [{"tag": "t", "value": PLANTED}]}).encode()


class FakeRevealer:
    """Answers what it is told to, or fails with what it is told to."""

    def __init__(self, found: Sequence[Clear | Erased | None] | Exception) -> None:
        self.found = found
        self.refused: list[str] = []
        self.free = asyncio.Event()
        self.free.set()

    def begin(self, exchange_id: str, headers: Headers, peer: str) -> Begun:
        return Begun(exchange_id, 0.0, Caller("default", client="c"))

    async def reveal(self, begun: Begun, items: Sequence[Item]) -> Sequence[Clear | Erased | None]:
        await self.free.wait()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def refuse(self, exchange_id: str, begun: Begun | None, error: GharialError) -> None:
        self.refused.append(error.code)


class Called:
    """One API on a fake, and what it logged."""

    def __init__(self, found: Sequence[Clear | Erased | None] | Exception) -> None:
        self.revealer = FakeRevealer(found)
        self.logged: list[dict[str, str]] = []
        self.app = RevealApi(
            self.revealer,  # type: ignore[arg-type]
            new_id=lambda: "ex",
            log=lambda event, /, **facts: self.logged.append({"event": event, **facts}),
        )

    async def call(self, *messages: dict[str, Any], then: str = "") -> tuple[int, bytes]:
        """Play one POST whose body comes in these messages; `then` says what follows: "wait" or "disconnect"."""
        queue = list(messages or ({"type": "http.request", "body": BODY, "more_body": False},))
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if queue:
                return queue.pop(0)
            if then == "wait":
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/reveal", "raw_path": b"/v1/reveal", "query_string": b"",
            "headers": [(b"content-type", b"application/json")], "client": ("127.0.0.1", 1), "http_version": "1.1",
            "scheme": "http", "server": ("127.0.0.1", 8082), "root_path": "",
        }  # fmt: skip
        await self.app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize(
    ("clear", "text"),
    [
        (Clear(Kind.STRING, "4711"), '"4711"'),
        (Clear(Kind.NUMBER, "1.50"), "1.50"),
        (Clear(Kind.NUMBER, "-0"), "-0"),
        (Clear(Kind.NUMBER, "12345678901234567890.1e5"), "12345678901234567890.1e5"),
        (Clear(Kind.NUMBER, '1,"a":2'), '"1,\\"a\\":2"'),
        (Clear(Kind.NUMBER, "NaN"), '"NaN"'),
        (Clear(Kind.NUMBER, "1\n"), '"1\\n"'),
        (Clear(Kind.BOOLEAN, "true"), "true"),
        (Clear(Kind.BOOLEAN, "yes"), '"yes"'),
        (Clear(Kind.NULL, ""), "null"),
    ],
)
async def test_values_have_their_json_type_and_never_break_the_answer(clear: Clear, text: str):
    """A number keeps each digit; what is none, whatever its type says, is a string."""
    status, body = await Called([clear, None]).call()
    assert status == 200
    assert body == b'{"exchange":"ex","values":[{"value":' + text.encode() + b'},{"error":"refused"}]}'


async def test_of_an_erased_person_it_says_so():
    """Neither a value nor a refusal."""
    assert await Called([ERASED, None]).call() == (
        200,
        b'{"exchange":"ex","values":[{"error":"erased"},{"error":"refused"}]}',
    )


async def test_a_bug_is_told_by_its_type_alone():
    """An exception that quotes a value is answered with 500, and logged without its text."""
    called = Called(ValueError(f"can't do {PLANTED}"))
    status, body = await called.call()
    assert (status, json.loads(body)["code"]) == (500, "internal")
    assert called.logged == [{"event": "reveal.crashed", "error": "ValueError"}]
    assert PLANTED not in body.decode()


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    """A caller that stops in the middle of its body gets 400 and holds no place for ever."""
    monkeypatch.setattr(reveal_api, "BODY_TIMEOUT_S", 0.01)
    called = Called([])
    status, body = await called.call({"type": "http.request", "body": BODY[:9], "more_body": True}, then="wait")
    assert (status, json.loads(body)["code"]) == (400, "request.malformed")
    assert called.revealer.refused == ["request.malformed"]


async def test_a_caller_that_hangs_up_reveals_nothing():
    """The half of a body is no call."""
    called = Called(AssertionError())
    await called.call({"type": "http.request", "body": BODY[:9], "more_body": True}, then="disconnect")
    assert called.logged == []


async def test_only_so_many_calls_are_under_way(monkeypatch: pytest.MonkeyPatch):
    """One more is answered 503 at once; when one ends there is room again, also after a failure."""
    monkeypatch.setattr(reveal_api, "MAX_IN_FLIGHT", 2)
    called = Called(GharialError())
    called.revealer.free.clear()
    waiting = [asyncio.create_task(called.call()) for _ in range(2)]
    await asyncio.sleep(0)
    status, body = await called.call()
    assert (status, json.loads(body)["code"]) == (503, "gate.full")
    called.revealer.free.set()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [500, 500]
    assert (await called.call())[0] == 500
