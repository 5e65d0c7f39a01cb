"""A stand-in for the transit engine of Vault or OpenBao, for tests of a gateway without one. It protects nothing.

    with FakeTransit() as vault:
        ...  # keys.kek: { transit: { url: <vault.url>, key: gharial, token: … } }, the token is vault.token

It answers `encrypt` and `decrypt` as the real one does, also to what is wrong: another token, another key or mount, an
edited ciphertext, other associated data, a sealed server. Keys live as long as the object, across `stop` and `start`.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_CIPHERTEXT = re.compile(r"vault:v([0-9]+):(.+)", re.DOTALL)


class _Refused(Exception):
    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that give up, or that do not take the certificate, are what tests are about."""


class FakeTransit:
    """One engine with one token. What a test may change while it runs: `sealed`, `delay_s`, and `raw`."""

    def __init__(
        self,
        *,
        token: str = "test-token",  # noqa: S107 - of a fake
        mount: str = "transit",
        keys: tuple[str, ...] = ("gharial",),
        namespace: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.token = token
        self.mount = mount
        self.namespace = namespace
        self.sealed = False
        self.delay_s = 0.0
        self.raw: tuple[int, bytes] | None = None
        """Where set, the status and body of every answer, whatever was asked."""
        self.asked: list[str] = []
        """The path of each request, oldest first."""
        self._tls = tls
        self._port = 0
        self._keys = {name: [AESGCM.generate_key(256)] for name in keys}
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """Where it listens; the same after a stop and a start."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def rotate(self, key: str = "gharial") -> None:
        """Add a version to a key; what earlier ones encrypted is still decrypted."""
        self._keys[key].append(AESGCM.generate_key(256))

    def start(self) -> None:
        """Listen on a port of its own choice, or on the one that it had."""
        server = _Server(("127.0.0.1", self._port), _handler(self))
        if self._tls is not None:
            server.socket = self._tls.wrap_socket(server.socket, server_side=True)
        self._port = server.server_address[1]
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Listen no more; connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Return status and body of one request."""
        self.asked.append(path)
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.raw is not None:
            return self.raw
        try:
            data = self._data(path, headers, body)
        except _Refused as refused:
            return refused.status, json.dumps({"errors": [refused.error]}).encode()
        envelope = {"request_id": os.urandom(8).hex(), "lease_id": "", "renewable": False, "lease_duration": 0}
        return 200, json.dumps({**envelope, "data": data, "wrap_info": None, "warnings": None, "auth": None}).encode()

    def _data(self, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        if self.sealed:
            raise _Refused(503, "Vault is sealed")
        if headers.get("X-Vault-Token") != self.token or headers.get("X-Vault-Namespace", "") != self.namespace:
            raise _Refused(403, "permission denied")
        match = re.fullmatch(rf"/v1/{re.escape(self.mount)}/(encrypt|decrypt)/([A-Za-z0-9_.-]+)", path)
        if match is None:
            raise _Refused(404, f'no handler for route "{path[4:]}". route entry not found.')
        verb, name = match.groups()
        if name not in self._keys:
            raise _Refused(*((403, "permission denied") if verb == "encrypt" else (400, "encryption key not found")))
        try:
            wanted = json.loads(body)
            associated = base64.b64decode(wanted.get("associated_data", ""), validate=True)
            return (self._encrypt if verb == "encrypt" else self._decrypt)(self._keys[name], wanted, associated)
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            raise _Refused(400, "failed to parse the request") from None

    @staticmethod
    def _encrypt(versions: list[bytes], wanted: Mapping[str, Any], associated: bytes) -> dict[str, Any]:
        plaintext = base64.b64decode(wanted["plaintext"], validate=True)
        nonce = os.urandom(12)
        sealed = base64.b64encode(nonce + AESGCM(versions[-1]).encrypt(nonce, plaintext, associated)).decode()
        return {"ciphertext": f"vault:v{len(versions)}:{sealed}", "key_version": len(versions)}

    @staticmethod
    def _decrypt(versions: list[bytes], wanted: Mapping[str, Any], associated: bytes) -> dict[str, Any]:
        match = _CIPHERTEXT.fullmatch(wanted["ciphertext"])
        if match is None or not 1 <= int(match[1]) <= len(versions):
            raise _Refused(400, "invalid ciphertext: no prefix")
        sealed = base64.b64decode(match[2], validate=True)
        try:
            plaintext = AESGCM(versions[int(match[1]) - 1]).decrypt(sealed[:12], sealed[12:], associated)
        except InvalidTag:
            raise _Refused(400, "cipher: message authentication failed") from None
        return {"plaintext": base64.b64encode(plaintext).decode()}


def _handler(fake: FakeTransit) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, data = fake.answer(self.path, dict(self.headers.items()), body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if 300 <= status < 400:
                self.send_header("Location", f"{fake.url}/elsewhere")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing: what is asked of a KMS is in no log."""

    return Handler
