"""A key of Google Cloud KMS as a KEK: `encrypt` and `decrypt` over its REST API, with credentials by google-auth.

https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys (the extra `google`)
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gharial.adapters.kms.http import Answer, Server, find_base64, find_decoded, post
from gharial.crypto.encoding import find_base64url, to_base64url
from gharial.crypto.kek import WrappedKey, refuse_other_kind
from gharial.crypto.keyset import Random
from gharial.crypto.secret import SecretBytes
from gharial.model.errors import ConfigInvalid, KekUnavailable, KeyFileUnusable, Problem

ENDPOINT = "https://cloudkms.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/cloudkms"
_MAX_CIPHERTEXT_BYTES = 8_192


class _EncryptAnswer(msgspec.Struct):
    ciphertext: str


class _DecryptAnswer(msgspec.Struct):
    plaintext: str


@dataclass(frozen=True, slots=True)
class GoogleKek:
    """One symmetric key, by its full name: projects/P/locations/L/keyRings/R/cryptoKeys/K."""

    key: str
    endpoint: str = ENDPOINT
    timeout_s: float = 5.0

    @property
    def kind(self) -> str:
        """See Kek."""
        return "google"

    def wrap(self, data_key: bytes, binding: bytes, random: Random) -> WrappedKey:
        """See Kek."""
        del random  # the KMS has its own
        content = {
            "plaintext": SecretBytes(base64.b64encode(data_key)),
            "additionalAuthenticatedData": SecretBytes(base64.b64encode(binding)),
        }
        blob = _find_ciphertext(self._ask("encrypt", content).body)
        if blob is None:
            raise KekUnavailable(f"{self._named} answered 'encrypt' with something that is no ciphertext")
        return WrappedKey(self.kind, self.key, to_base64url(blob))

    def unwrap(self, wrapped: WrappedKey, binding: bytes) -> bytes:
        """See Kek."""
        refuse_other_kind(self, wrapped)
        if wrapped.name != self.key:
            raise KeyFileUnusable(
                f"the key file is wrapped by another key of Google than {self.key}; give keys.kek that one"
            )
        blob = find_base64url(wrapped.wrapped)
        if blob is None or not 1 <= len(blob) <= _MAX_CIPHERTEXT_BYTES:
            raise KeyFileUnusable("the key file was edited: its data key is no ciphertext of Google Cloud KMS")
        content = {
            "ciphertext": base64.b64encode(blob),
            "additionalAuthenticatedData": SecretBytes(base64.b64encode(binding)),
        }
        data_key = _find_plaintext(self._ask("decrypt", content).body)
        if data_key is None:
            raise KekUnavailable(f"{self._named} answered 'decrypt' with something that is no plaintext")
        return data_key

    @property
    def _named(self) -> str:
        return f"the KEK {self.key} at {self.endpoint}"

    def _ask(self, verb: str, content: Mapping[str, bytes]) -> Answer:
        """Return the answer of status 200. Raises KekUnavailable, ConfigInvalid without google-auth."""
        access, problem = self._access()
        if not problem:
            server = Server("keys.kek.google", None, self.timeout_s)
            headers = {"Authorization": SecretBytes(b"Bearer " + access), "Content-Type": b"application/json"}
            answer = post(server, f"{self.endpoint.rstrip('/')}/v1/{self.key}:{verb}", content, headers)
            problem = answer.problem or _explained(verb, answer.status)
        if problem:
            raise KekUnavailable(f"{self._named} {problem}")
        return answer

    def _access(self) -> tuple[SecretBytes, str]:
        """Return an access token of the credentials that google-auth finds, or why there is none."""
        try:
            import google.auth
            from google.auth.transport.requests import Request
        except ImportError:
            what = "keys.kek.google needs google-auth: pip install 'gharial[google]'"
            raise ConfigInvalid([Problem("gharial.yaml", 1, 1, what)]) from None
        try:
            credentials: Any
            credentials, _ = google.auth.default(scopes=[_SCOPE])
            credentials.refresh(functools.partial(Request(), timeout=self.timeout_s))
            return SecretBytes(str(credentials.token).encode()), ""
        except Exception as error:  # noqa: BLE001 - google-auth raises of its own, and what its transport and files raise
            hint = "give it GOOGLE_APPLICATION_CREDENTIALS or an attached service account"
            return SecretBytes(b""), f"can't be asked: no credentials ({type(error).__name__}); {hint}"


def _explained(verb: str, status: int) -> str:
    """Say what a status means and what to do; empty for 200. What the server says besides is not repeated."""
    if status == 200:
        return ""
    if status == 400 and verb == "decrypt":
        return (
            "can't decrypt the data key (400): the file was edited, or another key wrapped it, or its version is gone"
        )
    if status in (401, 403):
        return f"refuses the credentials ({status}): they need cloudkms.cryptoKeyEncrypterDecrypter on the key"
    if status == 404:
        return "is not there (404): see keys.kek.google.key"
    return f"answered '{verb}' with status {status}; see whether the key is enabled and for ENCRYPT_DECRYPT"


def _find_ciphertext(data: bytes) -> bytes | None:
    found = find_decoded(data, _EncryptAnswer)
    blob = find_base64(found.ciphertext) if found is not None else None
    return bytes(blob) if blob is not None and 1 <= len(blob) <= _MAX_CIPHERTEXT_BYTES else None


def _find_plaintext(data: bytes) -> SecretBytes | None:
    """Return what was wrapped. A function of its own, whose local variables are gone when an error is raised."""
    found = find_decoded(data, _DecryptAnswer)
    return find_base64(found.plaintext) if found is not None else None
