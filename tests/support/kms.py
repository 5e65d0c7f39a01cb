"""KEKs of every kind for tests: the shipped fake of Vault's transit engine, moto for AWS, SoftHSM for PKCS #11."""

from __future__ import annotations

import base64
import datetime
import importlib.util
import ipaddress
import json
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID

from gharial.adapters.kms.aws import AwsKek
from gharial.adapters.kms.fake_transit import FakeTransit
from gharial.adapters.kms.google import GoogleKek
from gharial.adapters.kms.pkcs11 import Pkcs11Kek
from gharial.adapters.kms.transit import TransitKek
from gharial.crypto.secret import SecretBytes

_F = TypeVar("_F", bound=Callable[..., Any])
_SOFTHSM = next(
    (
        path
        for folder in (
            "/usr/lib/softhsm",
            "/usr/lib64/pkcs11",
            "/usr/lib/x86_64-linux-gnu/softhsm",
            "/opt/homebrew/lib/softhsm",
        )
        if (path := Path(folder) / "libsofthsm2.so").is_file()
    ),
    None,
)
HAS_AWS = all(importlib.util.find_spec(name) for name in ("boto3", "moto"))
HAS_PKCS11 = bool(importlib.util.find_spec("pkcs11") and shutil.which("softhsm2-util") and _SOFTHSM)


HAS_GOOGLE = all(importlib.util.find_spec(name) for name in ("google.auth", "requests"))
GOOGLE = (
    pytest.mark.services,
    pytest.mark.skipif(not HAS_GOOGLE, reason="needs google-auth: uv sync --group services"),
)
AWS = (pytest.mark.services, pytest.mark.skipif(not HAS_AWS, reason="needs moto: uv sync --group services"))
PKCS11 = (
    pytest.mark.services,
    pytest.mark.skipif(not HAS_PKCS11, reason="needs python-pkcs11 (uv sync --group services) and softhsm2"),
)
"""Marks of tests that run only where the group `services` (and SoftHSM: apt install softhsm2) is installed."""


def marked(marks: tuple[pytest.MarkDecorator, ...]) -> Callable[[_F], _F]:
    """Put these marks on a test."""

    def mark(test: _F) -> _F:
        for one in marks:
            test = one(test)
        return test

    return mark


def transit_kek(vault: FakeTransit, **other: Any) -> TransitKek:
    """The KEK of a fake, with anything of it otherwise."""
    facts = {
        "url": vault.url,
        "mount": vault.mount,
        "key": "gharial",
        "token": SecretBytes(vault.token.encode()),
        "timeout_s": 5.0,
    }
    return TransitKek(**{**facts, **other})


@contextmanager
def an_aws_kek(**other: Any) -> Iterator[AwsKek]:
    """A KEK in moto's memory; it replaces the network of boto3 in this process."""
    import boto3
    from moto import mock_aws

    with mock_aws():
        client = boto3.client("kms", region_name="eu-central-1")
        arn = client.create_key(Description="gharial")["KeyMetadata"]["Arn"]
        client.create_alias(AliasName="alias/gharial", TargetKeyId=arn)
        yield AwsKek(**{"key": "alias/gharial", "region": "eu-central-1", **other})


@contextmanager
def a_pkcs11_kek(folder: Path) -> Iterator[Pkcs11Kek]:
    """A KEK in a fresh SoftHSM token; all tokens of a process lie in the folder of the first."""
    import pkcs11

    label = f"gharial-{os.urandom(4).hex()}"
    if "SOFTHSM2_CONF" not in os.environ:
        (folder / "tokens").mkdir()
        config = folder / "softhsm2.conf"
        config.write_text(
            f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        os.environ["SOFTHSM2_CONF"] = str(config)
    words = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", "8642", "--so-pin", "97531"]
    subprocess.run(words, check=True, capture_output=True)
    assert _SOFTHSM is not None
    library = pkcs11.lib(str(_SOFTHSM))
    library.reinitialize()
    with library.get_token(token_label=label).open(user_pin="8642", rw=True) as session:
        session.generate_key(pkcs11.KeyType.AES, 256, label="kek", store=True)
    yield Pkcs11Kek(_SOFTHSM, label, "kek", SecretBytes(b"8642"))


GOOGLE_KEY = "projects/acme/locations/europe-west1/keyRings/gharial/cryptoKeys/kek"


class FakeGoogle(BaseHTTPRequestHandler):
    """Google's token endpoint and its KMS, as the documentation of both has them; one key, one token."""

    aead = AESGCM(bytes(range(32)))
    allowed = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/token":
            assert b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer" in body
            self._say(200, {"access_token": "ya29.a-token", "expires_in": 3600, "token_type": "Bearer"})
        elif not self.allowed or self.headers["authorization"] != "Bearer ya29.a-token":
            self._say(403, {"error": {"code": 403, "status": "PERMISSION_DENIED"}})
        else:
            self._use(json.loads(body))

    def _use(self, wanted: dict[str, str]) -> None:
        associated = base64.b64decode(wanted["additionalAuthenticatedData"])
        if self.path == f"/v1/{GOOGLE_KEY}:encrypt":
            nonce = os.urandom(12)
            sealed = nonce + self.aead.encrypt(nonce, base64.b64decode(wanted["plaintext"]), associated)
            self._say(
                200, {"name": f"{GOOGLE_KEY}/cryptoKeyVersions/1", "ciphertext": base64.b64encode(sealed).decode()}
            )
        elif self.path == f"/v1/{GOOGLE_KEY}:decrypt":
            sealed = base64.b64decode(wanted["ciphertext"])
            try:
                plaintext = self.aead.decrypt(sealed[:12], sealed[12:], associated)
            except (InvalidTag, ValueError):
                self._say(400, {"error": {"code": 400, "status": "INVALID_ARGUMENT"}})
            else:
                self._say(200, {"plaintext": base64.b64encode(plaintext).decode(), "usedPrimary": True})
        else:
            self._say(404, {"error": {"code": 404, "status": "NOT_FOUND"}})

    def _say(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def a_google_kek(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleKek]:
    """A KEK at a stand-in of Google's KMS, with a service account whose token endpoint is the stand-in's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeGoogle)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": "gate@acme.iam.gserviceaccount.com",
        "token_uri": f"{url}/token",
    }
    (folder / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "account.json"))
    try:
        yield GoogleKek(GOOGLE_KEY, url)
    finally:
        server.shutdown()
        server.server_close()


def a_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context for 127.0.0.1, and the file of the CA that vouches for it: itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a kms")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca, private = folder / "ca.pem", folder / "key.pem"
    ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, private)
    return context, ca
