"""What keeps a gateway from starting: each is said clearly, exit status 1, and nothing is left running or half made."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from support.gateway import (
    MARK,
    POLICY,
    Api,
    Home,
    Said,
    a_gateway,
    a_home,
    customer_id,
    settings_for,
    shows,
    until,
    write_gateway,
)
from support.upstreams import an_upstream

from gharial.crypto.keyset import new_kek

pytestmark = pytest.mark.envoy

UPSTREAMS = {"api": {"url": "http://127.0.0.1:9"}}


@pytest_asyncio.fixture
async def home() -> AsyncIterator[Home]:
    """The files of a gateway that is not running."""
    async with a_home() as made:
        write_gateway(made, UPSTREAMS)
        yield made


async def refuses_to_start(home: Home) -> Said:
    """Run `gharial up`, which must end by itself with status 1 and leave nothing behind."""
    said = await home.cli("up")
    assert said.status == 1
    assert "Traceback" not in said.err
    assert said.out == ""
    assert home.left_running() == []
    for name in ("parts.json", "gate.sock", "admin.sock", "envoy.log"):
        assert not (home.run / name).exists(), name
    return said


async def test_every_mistake_of_a_configuration_is_said_at_once_with_its_place(home: Home):
    """Unknown keys, wrong values, a missing upstream: file, line and column of each, in one go."""
    home.config.write_text(
        "listen: { address: 127.0.0.1, prot: 8080 }\n"
        "upstreams:\n"
        "  api: { url: 'ftp://127.0.0.1' }\n"
        "routes:\n"
        "  - { route: customer, match: 'GET customers', upstream: api, policy: customer-data }\n"
        "limits: { body: much, in_flight: 0 }\n"
        "surprise: true\n"
    )
    said = await refuses_to_start(home)
    lines = said.err.splitlines()
    for place in (":1:31: ", ":3:", ":5:", ":6:17: ", ":6:34: ", ":7:1: "):
        assert any(f"gharial.yaml{place}" in line for line in lines), (place, lines)


async def test_a_route_that_names_what_is_not_there_is_said(home: Home):
    """A policy or an upstream of another name."""
    routes = [
        {"route": "a", "match": "GET /a", "upstream": "api", "policy": "customers"},
        {"route": "b", "match": "GET /b", "upstream": "api", "policy": "customer-date"},
    ]
    home.config.write_text(json.dumps(settings_for(home.port, UPSTREAMS, routes=routes)))
    said = await refuses_to_start(home)
    assert "'customers'" in said.err
    assert "'customer-date'" in said.err
    home.config.write_text(json.dumps(settings_for(home.port, {"other": UPSTREAMS["api"]})))
    assert "'api'" in (await refuses_to_start(home)).err


async def test_every_mistake_of_a_policy_is_said_at_once_with_its_place(home: Home):
    """Misspelt techniques, tags and keys: all of them, by line and column, with a suggestion."""
    policy = POLICY.replace("public: clear", "public: claer").replace("reidentify: [person]", "reidentify: [persn]")
    policy = policy.replace("unlisted_fields: drop", "unlisted_fields: dorp")
    (home.base / "policies" / "customer-data.yaml").write_text(policy)
    said = await refuses_to_start(home)
    for wrong, right in (("claer", "clear"), ("persn", "person"), ("dorp", "drop")):
        (line, *_) = [line for line in said.err.splitlines() if wrong in line]
        number = 1 + next(i for i, text in enumerate(policy.splitlines()) if wrong in text)
        assert f"policies/customer-data.yaml:{number}:" in line
        assert right in line


async def test_a_folder_without_a_configuration_is_said():
    """No file there, an empty one, not UTF-8: a line that names it, no traceback."""
    async with a_home() as home:
        assert (await home.cli("up")).status == 1
        for data in (b"", b"\xff\xfe"):
            home.config.write_bytes(data)
            said = await home.cli("up")
            assert said.status == 1
            assert "gharial.yaml" in said.err
            assert "Traceback" not in said.err


async def test_the_wrong_kek_is_said_and_not_shown(home: Home):
    """Another key, something that is no key, none at all: the key file stays shut, and no key is printed."""
    kek = home.base / "secret" / "kek"
    for text, word in ((new_kek(os.urandom), "the KEK that wrapped it"), (f"{MARK}-not-a-key", "32"), ("", "empty")):
        kek.write_text(text)
        said = await refuses_to_start(home)
        assert word in said.err, said.err
        assert not text or text not in said.err
    kek.unlink()
    assert "secret/kek" in (await refuses_to_start(home)).err


async def test_a_key_file_that_others_can_read_is_refused(home: Home):
    """Mode 0640 is one reader too many; what to do is said."""
    (home.run / "keys.json").chmod(0o640)
    said = await refuses_to_start(home)
    assert "chmod 600" in said.err
    (home.run / "keys.json").chmod(0o600)
    (home.run / "keys.json").write_text("{}")
    assert "key" in (await refuses_to_start(home)).err
    (home.run / "keys.json").unlink()
    assert "gharial keys init" in (await refuses_to_start(home)).err


async def test_a_store_of_a_newer_version_is_left_as_it_is(home: Home):
    """`user_version` is above what this Gharial knows: `up` says what to do, and the file is not touched."""
    made = await home.cli("clients", "add", "clerk", secret_in_output=True)
    assert made.status == 0
    store = home.run / "gharial.db"
    with sqlite3.connect(store) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        db.execute(f"PRAGMA user_version = {version + 1}")
    db.close()
    before = store.read_bytes()
    said = await refuses_to_start(home)
    assert f"schema version {version + 1}" in said.err
    assert "store.schema" in said.err
    assert store.read_bytes() == before
    store.write_bytes(b"this is no database" * 300)
    assert "store.schema" in (await refuses_to_start(home)).err


async def test_a_port_in_use_is_said(home: Home):
    """Another program listens there: nothing starts, instead of sharing the port with it."""
    with socket.create_server(("127.0.0.1", home.port)):
        said = await refuses_to_start(home)
    assert f"127.0.0.1:{home.port}" in said.err
    assert "listen.port" in said.err


async def test_a_folder_with_too_long_a_name_is_said(home: Home):
    """Unix sockets have short names: said at once, instead of a part that doesn't come up."""
    settings = settings_for(home.port, UPSTREAMS, admin={"socket": "run/" + "x" * 80 + "/admin.sock"})
    home.config.write_text(json.dumps(settings))
    assert "too long" in (await refuses_to_start(home)).err


async def test_an_audit_folder_that_can_not_be_written_keeps_the_gate_from_starting(home: Home):
    """A file where the folder should be: no gate without an audit, and the reason is said."""
    (home.base / "audit").write_text("")
    home.config.write_text(json.dumps(settings_for(home.port, UPSTREAMS, audit={"dir": "audit"})))
    said = await home.cli("up")
    assert said.status == 1
    assert "audit" in said.err
    assert home.left_running() == []


async def test_a_second_gateway_on_the_same_folder_does_not_disturb_the_first():
    """The same files, also on another port: refused, and the one that runs goes on answering, its sockets untouched."""
    async with an_upstream(Api()) as upstream, a_gateway({"api": {"url": upstream.url}}) as home:
        before = home.parts()
        first = home.config.read_text()
        said = await home.cli("up")
        assert said.status == 1
        assert "another gateway runs" in said.err
        other = json.loads(first)
        other["listen"]["port"] = other["listen"]["port"] + 1 if other["listen"]["port"] < 65_000 else 20_000
        home.config.write_text(json.dumps(other))
        assert "another gateway runs" in (await home.cli("up")).err
        home.config.write_text(first)
        assert home.parts() == before
        reply = await home.get(f"/customers/{customer_id(1)}")
        assert reply.status == 200
        assert not shows(reply)
        assert (await home.cli("status", "--json")).status == 0
        assert await home.add_client("late")
        assert f'"port_value": {home.port}' in (home.run / "envoy.json").read_text()


async def test_a_gate_that_can_not_start_ends_the_start_and_says_why(home: Home):
    """The store is held by another process: `up` gives up, tells the gate's last words, and leaves nothing."""
    with (home.run / "gharial.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = await home.cli("up")
    assert said.status == 1
    assert "gate" in said.err
    assert home.left_running() == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_gateway_that_is_told_to_stop_while_it_starts_stops(how: signal.Signals):
    """Told to end before anything is ready, it ends with status 0 and leaves nothing."""
    async with a_home() as home:
        write_gateway(home, UPSTREAMS)
        starting = await home.spawn()
        await until(lambda: len(home.left_running()) > 1)
        starting.send_signal(how)
        async with asyncio.timeout(30):
            assert await starting.wait() == 0
        assert home.left_running() == []


async def test_the_harness_sees_what_must_not_be_there(home: Home):
    """The look for leaks finds a planted value and a secret in any file, also in base64."""
    for name, data in (
        ("a.log", f"x{MARK}y"),
        ("b.log", base64.b64encode(f"ab{MARK}".encode()).decode()),
        ("c.log", (home.base / "secret" / "kek").read_text()),
    ):
        with _a_file(home.run / name, data), pytest.raises(AssertionError, match=name):
            home.look_for_leaks()


@contextlib.contextmanager
def _a_file(path: Path, text: str) -> Iterator[None]:
    path.write_text(text)
    yield
    path.unlink()
