"""The story, told before a small gateway of the tests: what it measures, says and writes, and how it ends."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from rich.console import Console

from gharial.demo import DemoOptions
from gharial.demo.parts import DemoFailed
from gharial.demo.story import tell
from gharial.demo.telecom import CUSTOMERS, bill, customer
from gharial.demo.thief import Pace

SHORT = Pace(seconds=0.0, min_requests=210)
PUBLIC = ("plan", "lines", "country")


class FakeGateway:
    """A gateway with a budget of `limit` people per clerk; tokens are the value turned round."""

    def __init__(self, url: str, *, limit: int = 60, opens_incidents: bool = True, resolves: bool = True) -> None:
        self.url = url
        self.folder = Path("/nowhere")
        self.limit = limit
        self.opens_incidents = opens_incidents
        self.resolves = resolves
        self.roles: dict[str, tuple[str, str]] = {}
        self.seen: dict[str, set[int]] = {}

    async def add_client(self, name: str, role: str, purpose: str) -> str:
        """Register; the key is the name."""
        self.roles[f"key-{name}"] = (name, f"{role}/{purpose}")
        return f"key-{name}"

    async def list_incidents(self) -> Sequence[dict[str, Any]]:
        """An incident for whoever has asked for more people than the limit."""
        return [
            {
                "incident_id": f"inc_{client}",
                "client": client,
                "grant": "support-view",
                "people_clear": self.limit,
                "people_withheld": len(seen) - self.limit,
                "measure": "mask",
            }
            for client, seen in self.seen.items()
            if len(seen) > self.limit and self.opens_incidents
        ]

    async def answer(self, request: web.Request) -> web.Response:
        """Protect by role, as the demo's policy says."""
        client, role = self.roles.get(request.headers.get("X-Api-Key", ""), ("", ""))
        if request.path == "/customers":
            first, count = int(request.query["from"]), int(request.query["limit"])
            return web.json_response(
                {"items": [self._view(customer(n), client, role) for n in range(first, first + count)]}
            )
        text = request.match_info["id"]
        number = int(text.removeprefix("tok_")[::-1]) if self.resolves and text.startswith("tok_") else int(text)
        record = bill(number) if request.path.endswith("/bill") else customer(number)
        return web.json_response(self._view(record, client, role))

    def _view(self, record: dict[str, Any], client: str, role: str) -> dict[str, Any]:
        public = {name: record[name] for name in PUBLIC}
        if role == "care/support":
            seen = self.seen.setdefault(client, set())
            seen.add(record["customerId"])
            return record if len(seen) <= self.limit else {"fullName": "***", **public}
        if role == "partner/billing":
            return {**{n: f"tok_{str(record[n])[::-1]}" for n in ("customerId", "fullName")}, **public}
        return public


def opener(upstreams: list[str], **settings: Any) -> Any:
    """Return what the story opens its gateway with; the upstream's URL is kept in `upstreams`."""

    @asynccontextmanager
    async def open_gateway(upstream: str) -> AsyncIterator[FakeGateway]:
        upstreams.append(upstream)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            gateway = FakeGateway(f"http://127.0.0.1:{listener.getsockname()[1]}", **settings)
            app = web.Application()
            for path in ("/customers", "/customers/{id}", "/customers/{id}/bill"):
                app.router.add_get(path, gateway.answer)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.SockSite(runner, listener).start()
            try:
                yield gateway
            finally:
                await runner.cleanup()

    return open_gateway


def told(tmp_path: Path, **settings: Any) -> tuple[int, str, dict[str, Any]]:
    """Tell the story before a fake gateway; return status, what was printed, and the figures."""
    text, upstreams = io.StringIO(), list[str]()
    status = tell(
        DemoOptions(json_file=tmp_path / "figures.json"),
        console=Console(file=text, width=120, highlight=False),
        open_gateway=opener(upstreams, **settings),
        pace=SHORT,
    )
    assert_nobody_listens(upstreams)
    return status, text.getvalue(), json.loads((tmp_path / "figures.json").read_text())


def assert_nobody_listens(urls: list[str]) -> None:
    """The telecom has ended."""
    assert urls
    for url in urls:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


def test_a_gateway_that_holds_gives_the_figures_of_the_story(tmp_path: Path):
    """Everybody through the open door, nobody without or with a partner's key, 60 with a clerk's; status 0."""
    status, text, figures = told(tmp_path)
    assert status == 0, text
    assert figures["door"]["people_in_clear"] == figures["door"]["requests"] > 200
    assert figures["anonymous"]["people_in_clear"] == figures["partner_key"]["people_in_clear"] == 0
    assert figures["stolen_clerk"]["people_in_clear"] == 60
    assert figures["stolen_clerk"]["incident"] == "inc_clerk-17"
    assert figures["honest_clerk"] == {"requests": 40, "ok": True}
    assert figures["partner_token"] == {"ok": True}
    speed = figures["door"]["people_in_clear"] / figures["door"]["seconds"]
    assert abs(figures["door"]["days_for_all"] - CUSTOMERS / speed / 86_400) < 0.01


def test_one_person_too_many_fails_the_demo(tmp_path: Path):
    """61 people are not 60: the demo says so and ends with 1, and writes what it saw."""
    status, text, figures = told(tmp_path, limit=61)
    assert status == 1
    assert "saw 61 people in clear; it must be 60" in text
    assert figures["stolen_clerk"]["people_in_clear"] == 61


def test_tokens_that_do_not_come_back_fail_the_demo(tmp_path: Path):
    """A partner whose tokens are not resolved can't work: the demo says so and ends with 1."""
    status, text, figures = told(tmp_path, resolves=False)
    assert status == 1
    assert "did not bring the right record" in text
    assert figures["partner_token"] == {"ok": False}


def test_what_goes_to_a_file_is_plain_text(tmp_path: Path):
    """Where nobody watches there is no escape sequence, no bar, and still every figure."""
    _, text, figures = told(tmp_path)
    assert "\x1b" not in text
    assert "\r" not in text
    assert f"{figures['door']['requests']:,}" in text
    assert "inc_clerk-17" in text


def test_the_table_fits_a_terminal_of_80_columns(tmp_path: Path):
    """No line is longer than 80 characters, and no word of the table is cut."""
    text = io.StringIO()
    tell(DemoOptions(), console=Console(file=text, width=80, highlight=False), open_gateway=opener([]), pace=SHORT)
    assert max(map(len, text.getvalue().splitlines())) <= 80
    table = text.getvalue().partition("What left the house")[2]
    assert "…" not in table
    assert re.search(r"thief, clerk's key +\d+ +\d+ +60 +inc_clerk-17", table)


def test_a_gateway_that_does_not_start_is_said_and_the_telecom_ends():
    """The demo ends with 1, with the reason, and leaves nothing running."""
    upstreams, text = list[str](), io.StringIO()

    @asynccontextmanager
    async def broken(upstream: str) -> AsyncIterator[FakeGateway]:
        upstreams.append(upstream)
        raise DemoFailed("the gateway ended with status 1: [no such key file]")
        yield

    status = tell(DemoOptions(), console=Console(file=text, width=200), open_gateway=broken, pace=SHORT)
    assert status == 1
    assert "the gateway ended with status 1: [no such key file]" in text.getvalue()
    assert_nobody_listens(upstreams)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path):
    """The figures asked for and not written are a failure, told without a traceback."""
    text = io.StringIO()
    status = tell(
        DemoOptions(json_file=tmp_path / "no" / "such" / "folder.json"),
        console=Console(file=text, width=200),
        open_gateway=opener([]),
        pace=SHORT,
    )
    assert status == 1
    assert "can't be written: FileNotFoundError" in text.getvalue()


class Interrupting(io.StringIO):
    """A terminal at which somebody presses Ctrl-C as soon as a certain text is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def write(self, text: str) -> int:
        """Write, then interrupt if this was the text."""
        count = super().write(text)
        if self.text in text:
            signal.raise_signal(signal.SIGINT)
        return count


def test_keep_prints_what_to_try_and_ends_with_ctrl_c():
    """`--keep` names both addresses and every key in lines to paste, waits, and ends well: nothing runs afterwards."""
    upstreams, out = list[str](), Interrupting("Ctrl-C ends it.")
    status = tell(
        DemoOptions(keep=True), console=Console(file=out, width=80), open_gateway=opener(upstreams), pace=SHORT
    )
    assert status == 0, out.getvalue()
    lines = [line.strip() for line in out.getvalue().splitlines() if "curl" in line]
    assert lines[0] == f"curl -s {upstreams[0]}/customers/1000001"
    assert {"key-acme-billing", "key-clerk-17", "key-clerk-23"} == set(re.findall(r"X-Api-Key: ([\w-]+)'", str(lines)))
    assert_nobody_listens(upstreams)


def test_ctrl_c_in_the_middle_ends_the_parts():
    """Interrupted while it tells, the demo ends with 130 and leaves nothing running."""
    upstreams, out = list[str](), Interrupting("Through the gate")
    status = tell(DemoOptions(), console=Console(file=out, width=80), open_gateway=opener(upstreams), pace=SHORT)
    assert status == 130
    assert "have ended" in out.getvalue()
    assert_nobody_listens(upstreams)
