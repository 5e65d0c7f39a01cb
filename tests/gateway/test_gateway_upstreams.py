"""Upstreams that are dead, slow, or behind TLS: a clear error, and no name of anything inside."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.envoy_harness import Answer, free_port
from support.gateway import Api, Held, Home, a_gateway, customer_id, shows
from support.upstreams import Raw, Upstream, an_upstream, json_answer

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.xdist_group("gateway-upstreams"),
    pytest.mark.asyncio(loop_scope="module"),
]

TIMEOUT_S = 0.6
RECORD = f"/{customer_id(1)}"


# --- certificates of our own -------------------------------------------------------------------------------------


@dataclass
class Authority:
    """A certificate authority made for a test."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        self.certificate = self._builder(self.subject, self.key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file = self.folder / f"{self.name}.pem"
        self.file.write_bytes(pem(self.certificate.sign(self.key, hashes.SHA256())))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def context(self, *names: str, seen: list[str | None]) -> ssl.SSLContext:
        """A server's context with a certificate for these names; the SNI of every handshake is added to `seen`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        alternatives = [_alternative(name) for name in names]
        builder = self._builder(subject, key).add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        with tempfile.NamedTemporaryFile(dir=self.folder) as file:
            file.write(pem(builder.sign(self.key, hashes.SHA256())) + private_pem(key))
            file.flush()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file.name)
        context.sni_callback = lambda _socket, name, _context: seen.append(name)
        return context


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# --- one gateway, many upstreams ---------------------------------------------------------------------------------


@dataclass
class World:
    """One gateway before a plain upstream, three with TLS, and one that is not there."""

    home: Home
    api: Api
    plain: Upstream
    secure: Upstream
    sni: list[str | None]


async def _answer_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that speaks no TLS and says so."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_world() -> AsyncIterator[World]:
    api, sni = Api(), []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
        plain = await stack.enter_async_context(an_upstream(api))
        secure = await stack.enter_async_context(
            an_upstream(api, tls=ours.context("crm.internal", "127.0.0.1", seen=sni))
        )
        deaf = await stack.enter_async_context(await asyncio.start_server(_answer_at_once, "127.0.0.1", 0))
        url = f"https://127.0.0.1:{secure.port}"
        upstreams = {
            "plain": {"url": plain.url, "timeout": f"{int(TIMEOUT_S * 1000)}ms"},
            "dead": {"url": f"http://127.0.0.1:{free_port()}"},
            "nowhere": {"url": "http://no-such-host.invalid"},
            "secure": {"url": url, "ca": f"file:{ours.file}", "host": "crm.internal"},
            "by_address": {"url": url, "ca": f"file:{ours.file}"},
            "wrong_ca": {"url": url, "ca": f"file:{theirs.file}", "host": "crm.internal"},
            "wrong_name": {"url": url, "ca": f"file:{ours.file}", "host": "other.internal"},
            "not_tls": {"url": f"https://127.0.0.1:{deaf.sockets[0].getsockname()[1]}", "ca": f"file:{ours.file}"},
        }
        routes = [
            {"route": name, "match": f"GET /{name}/{{id}}", "upstream": name, "policy": "customer-data"}
            for name in upstreams
        ]
        home = await stack.enter_async_context(a_gateway(upstreams, routes=routes))
        yield World(home, api, plain, secure, sni)


@pytest.fixture
def world(the_world: World) -> Iterator[World]:
    """The gateway; after the test no file of it may hold anything planted."""
    the_world.api.answers.clear()
    the_world.plain.seen.clear()
    the_world.secure.seen.clear()
    the_world.sni.clear()
    yield the_world
    the_world.home.look_for_leaks()


def tells_nothing(world: World, reply: Answer) -> None:
    """The problem names no upstream, address, port or reason."""
    text = reply.body.decode() + repr(reply.headers)
    for word in (
        "127.0.0.1",
        str(world.plain.port),
        str(world.secure.port),
        "internal:",
        "crm",
        "TLS",
        "CERT",
        "gate.",
    ):
        assert word not in text
    assert set(reply.problem()) <= {"type", "title", "status", "code", "exchange"}
    assert not shows(reply)


@pytest.mark.parametrize("name", ["dead", "nowhere", "wrong_ca", "wrong_name", "not_tls"])
async def test_an_upstream_that_cannot_be_reached_or_trusted_is_a_502(world: World, name: str):
    """Nobody there, no such name, a certificate of another authority or name, no TLS: one and the same problem."""
    reply = await world.home.get(f"/{name}{RECORD}")
    assert (reply.status, reply.code) == (502, "upstream.unreachable")
    tells_nothing(world, reply)
    assert world.secure.seen == []


async def test_an_upstream_that_hangs_is_a_504_in_time(world: World):
    """Silent from the start, or in the middle of a body: after its timeout, not after ours."""
    half = json_answer('{"plan":"a"}').data[:-3]
    for raw in (Raw(b"", then_hang=True), Raw(half, then_hang=True)):
        world.api.answers[f"/plain{RECORD}"] = raw
        began = time.monotonic()
        reply = await world.home.get(f"/plain{RECORD}")
        assert TIMEOUT_S - 0.1 < time.monotonic() - began < 5 * TIMEOUT_S
        assert (reply.status, reply.code) == (504, "upstream.timeout")
        tells_nothing(world, reply)


async def test_a_slow_upstream_holds_nobody_else_up(world: World):
    """While one call waits, others are answered."""
    held = Held(json_answer('{"plan":"late"}'))
    world.api.answers["/plain/slow"] = held
    world.api.answers["/plain/fast"] = json_answer('{"plan":"now"}')
    slow = asyncio.create_task(world.home.get("/plain/slow"))
    for _ in range(5):
        assert json.loads((await world.home.get("/plain/fast")).body) == {"plan": "now"}
    held.free.set()
    assert json.loads((await slow).body) == {"plan": "late"}


async def test_an_https_upstream_gets_its_name_in_sni_and_host(world: World):
    """`host` is what the upstream is called in SNI and Host, and what its certificate must be made out to."""
    world.api.answers[f"/secure{RECORD}"] = json_answer('{"plan":"magenta"}')
    reply = await world.home.get(f"/secure{RECORD}", "x-forwarded-host: elsewhere.example")
    assert (reply.status, json.loads(reply.body)) == (200, {"plan": "magenta"})
    assert world.sni == ["crm.internal"]
    assert world.secure.seen[0].all("host") == ["crm.internal"]


async def test_an_https_upstream_without_a_name_is_checked_by_its_address(world: World):
    """With a bare address the certificate must be made out to it; SNI never names an address (RFC 6066)."""
    world.api.answers[f"/by_address{RECORD}"] = json_answer('{"plan":"magenta"}')
    reply = await world.home.get(f"/by_address{RECORD}")
    assert reply.status == 200
    assert world.sni in ([], [None])
    assert world.secure.seen[0].all("host") == [f"127.0.0.1:{world.secure.port}"]


async def test_redirects_that_name_an_https_upstream_come_back_relative(world: World):
    """By its own name or by its address: the client only ever learns a path of ours."""
    names = ("crm.internal", f"127.0.0.1:{world.secure.port}")
    for at in [f"{scheme}://{name}" for scheme in ("https", "http") for name in names]:
        world.api.answers[f"/secure{RECORD}"] = Raw(
            f"HTTP/1.1 302 Found\r\nlocation: {at}/secure{RECORD}\r\ncontent-length: 0\r\n\r\n".encode()
        )
        reply = await world.home.get(f"/secure{RECORD}")
        assert (reply.one("location") or "").startswith("/secure/tok_")
        assert not shows(reply)


async def test_doctor_says_which_upstream_and_why(world: World):
    """The operator is told what clients are not: which one, and whether it is its certificate or its absence."""
    said = await world.home.cli("doctor", "--json")
    assert said.status == 1
    found = {item["what"]: item for item in said.json()}

    def about(name: str) -> tuple[str, str]:
        (what,) = [what for what in found if what.startswith(f"upstream {name} ")]
        return found[what]["state"], what + found[what]["hint"]

    assert about("secure")[0] == "ok"
    assert about("plain")[0] == "ok"
    assert about("by_address")[0] == "ok"
    words = {
        "dead": "refused",
        "nowhere": "reached",
        "wrong_ca": "certificate",
        "wrong_name": "match",
        "not_tls": "TLS",
    }
    for name, word in words.items():
        state, what = about(name)
        assert state == "fail"
        assert word in what
