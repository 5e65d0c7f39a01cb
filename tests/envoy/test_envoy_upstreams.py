"""Reaching upstreams: names that change, certificates, the Host header; and TLS towards clients."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.envoy_harness import PLANTED, a_gateway
from support.upstreams import SeenRequest, a_dns_server, an_upstream, json_answer

pytestmark = pytest.mark.envoy

CLEAR = json_answer(f'{{"name":"{PLANTED}"}}')


@dataclass(frozen=True)
class Authority:
    """A certificate authority of a test; `pem` is its certificate."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> Path:
        path = self.folder / f"{self.name}.pem"
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(self, *names: str) -> tuple[Path, Path]:
        """Files of (certificate, key) for names or addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [_general_name(name) for name in names]
        builder = _builder("leaf", self.certificate.subject, key).add_extension(
            x509.SubjectAlternativeName(alternatives), critical=False
        )
        certificate = builder.sign(self.key, hashes.SHA256())
        cert_path, key_path = self.folder / f"{names[0]}.crt", self.folder / f"{names[0]}.key"
        cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_path, key_path

    def server_context(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(*names))
        return context


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(name: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def an_authority(folder: Path, name: str = "ca") -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, None, key).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Authority(folder, name, key, builder.sign(key, hashes.SHA256()))


async def test_an_https_upstream_is_asked_by_its_name(tmp_path):
    """SNI and Host are the name of the URL's host, or what `host` says; the certificate must be made out to it."""
    authority = an_authority(tmp_path)
    context = authority.server_context("api.internal", "other.internal", "127.0.0.1")
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with an_upstream(CLEAR, tls=context) as upstream, a_dns_server({"api.internal": "127.0.0.1"}) as dns:
        common = {"ca": f"file:{authority.pem}", "resolver": f"127.0.0.1:{dns.port}"}
        by_name = f"https://api.internal:{upstream.port}"
        for host, upstream_settings in {
            f"api.internal:{upstream.port}": {"url": by_name},
            "other.internal": {"url": by_name, "host": "other.internal"},
            f"127.0.0.1:{upstream.port}": {"url": f"https://127.0.0.1:{upstream.port}"},
        }.items():
            async with a_gateway(upstreams={"api": {**upstream_settings, **common}}) as gateway:
                assert (await gateway.get()).body == b'{"name":"*"}', host
                assert upstream.seen[-1].all("host") == [host]
    assert asked == ["api.internal", "other.internal", None]


@pytest.mark.parametrize("wrong", ["ca", "name", "plain"])
async def test_an_upstream_that_is_not_who_it_should_be_is_never_sent_a_request(tmp_path, wrong):
    """Another CA, another name, or no TLS at all: 502, and not even the request's head left."""
    authority, stranger = an_authority(tmp_path), an_authority(tmp_path, "stranger")
    signer = stranger if wrong == "ca" else authority
    context = signer.server_context("evil.internal" if wrong == "name" else "api.internal")
    async with (
        an_upstream(CLEAR, tls=None if wrong == "plain" else context) as upstream,
        a_dns_server({"api.internal": "127.0.0.1"}) as dns,
    ):
        api = {
            "url": f"https://api.internal:{upstream.port}",
            "ca": f"file:{authority.pem}",
            "resolver": f"127.0.0.1:{dns.port}",
            "timeout": "1s",
        }
        async with a_gateway(upstreams={"api": api}) as gateway:
            reply = await gateway.get()
            assert (reply.status, reply.code) == (502, "upstream.unreachable")
        assert upstream.seen == []


async def test_a_certificate_for_a_wildcard_is_for_each_name_below_it(tmp_path):
    """As RFC 6125 has it: one label, and nothing deeper."""
    authority = an_authority(tmp_path)
    names = {"api.internal.example": "127.0.0.1", "a.b.internal.example": "127.0.0.1"}
    context = authority.server_context("*.internal.example")
    async with an_upstream(CLEAR, tls=context) as upstream, a_dns_server(names) as dns:
        statuses = []
        for name in names:
            api = {
                "url": f"https://{name}:{upstream.port}",
                "ca": f"file:{authority.pem}",
                "resolver": f"127.0.0.1:{dns.port}",
            }
            async with a_gateway(upstreams={"api": api}) as gateway:
                statuses.append((await gateway.get()).status)
        assert statuses == [200, 502]


async def test_a_name_that_moves_is_followed():
    """When the name gets another address, calls go there within seconds, without a restart."""

    def at(place: str):
        def script(_: SeenRequest):
            return json_answer(f'{{"at":"{place}"}}')

        return script

    async with a_dns_server({"api.internal": "127.0.0.1"}) as dns, an_upstream(at("old")) as old:
        # The second upstream listens on another address of this machine and on the same port.
        server = await asyncio.start_server(_new_home, "127.0.0.2", old.port)
        api = {"url": f"http://api.internal:{old.port}", "resolver": f"127.0.0.1:{dns.port}"}
        async with server, a_gateway(upstreams={"api": api}) as gateway:
            assert (await gateway.get()).body == b'{"at":"old"}'
            dns.addresses["api.internal"] = "127.0.0.2"
            async with asyncio.timeout(15):
                while (body := (await gateway.get()).body) == b'{"at":"old"}':  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert body == b'{"at":"new"}'


async def _new_home(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readline() not in (b"\r\n", b""):
        pass
    writer.write(json_answer('{"at":"new"}').data)
    await writer.drain()
    writer.close()


async def test_a_name_that_nobody_knows_is_502():
    """Without any address the answer is a refusal that does not tell the name."""
    async with a_dns_server({}) as dns:
        api = {"url": "http://nowhere.internal:80", "resolver": f"127.0.0.1:{dns.port}"}
        async with a_gateway(upstreams={"api": api}) as gateway:
            reply = await gateway.get()
            assert (reply.status, reply.code) == (502, "upstream.unreachable")
            assert "nowhere" not in repr(reply)


async def test_clients_are_served_over_tls_with_http_2_and_1(tmp_path):
    """ALPN chooses; several calls use one connection; an old protocol version gets no answer."""
    authority = an_authority(tmp_path)
    cert, key = authority.issue("localhost")
    tls = {"cert": f"file:{cert}", "key": f"file:{key}"}
    async with an_upstream(CLEAR) as upstream, a_gateway(upstream.url, listen_tls=tls) as gateway:

        async def curl(*arguments: str) -> tuple[int | None, str]:
            process = await asyncio.create_subprocess_exec(
                "curl", "-s", "--max-time", "10", "--cacert", str(authority.pem), *arguments,
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await process.communicate()
            return process.returncode, out.decode()

        url = f"https://localhost:{gateway.port}/protected/"
        write = ("-w", " %{http_code} %{http_version} %{num_connects}\n")
        for option, version in (("--http2", "2"), ("--http1.1", "1.1")):
            code, out = await curl(option, *write, url + "1", url + "2")
            assert (code, out) == (0, f'{{"name":"*"}} 200 {version} 1\n{{"name":"*"}} 200 {version} 0\n')
        code, _ = await curl("--tls-max", "1.1", url + "1")
        assert code == 35
