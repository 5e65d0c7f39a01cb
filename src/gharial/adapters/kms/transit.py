"""The transit engine of Vault and OpenBao as a KEK: `encrypt` and `decrypt` over HTTP.

https://developer.hashicorp.com/vault/api-docs/secret/transit, https://openbao.org/api-docs/secret/transit/
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gharial.adapters.kms.http import Answer, Server, find_base64, find_decoded, post
from gharial.crypto.kek import WrappedKey, refuse_other_kind
from gharial.crypto.keyset import Random
from gharial.crypto.secret import SecretBytes
from gharial.model.errors import KekUnavailable, KeyFileUnusable

_CIPHERTEXT = re.compile(r"vault:v[0-9]{1,9}:[A-Za-z0-9+/]{1,4096}={0,2}")


class _Encrypted(msgspec.Struct):
    ciphertext: str


class _EncryptAnswer(msgspec.Struct):
    data: _Encrypted


class _Decrypted(msgspec.Struct):
    plaintext: str


class _DecryptAnswer(msgspec.Struct):
    data: _Decrypted


@dataclass(frozen=True, slots=True)
class TransitKek:
    """One key of a transit engine.

    It must be of an AEAD type (aes256-gcm96, the default): `associated_data` binds the data key to its keyset.
    """

    url: str
    mount: str
    key: str
    token: SecretBytes = field(repr=False)
    namespace: str = ""
    ca: Path | None = None
    timeout_s: float = 5.0

    @property
    def kind(self) -> str:
        """See Kek."""
        return "transit"

    @property
    def name(self) -> str:
        """The engine and the key, as key files name them."""
        return f"{self.mount}/{self.key}"

    def wrap(self, data_key: bytes, binding: bytes, random: Random) -> WrappedKey:
        """See Kek."""
        del random  # the engine has its own
        content = {
            "plaintext": SecretBytes(base64.b64encode(data_key)),
            "associated_data": SecretBytes(base64.b64encode(binding)),
        }
        ciphertext = _find_ciphertext(self._ask("encrypt", content).body)
        if ciphertext is None:
            raise KekUnavailable(
                f"{self._named} answered 'encrypt' with something that is no ciphertext; see keys.kek.transit.url"
            )
        return WrappedKey(self.kind, self.name, ciphertext)

    def unwrap(self, wrapped: WrappedKey, binding: bytes) -> bytes:
        """See Kek."""
        refuse_other_kind(self, wrapped)
        if wrapped.name != self.name:
            raise KeyFileUnusable(
                f"the key file is wrapped by another transit key than {self.name}; give keys.kek that one"
            )
        if not _CIPHERTEXT.fullmatch(wrapped.wrapped):
            raise KeyFileUnusable("the key file was edited: its data key is no ciphertext of a transit engine")
        content = {
            "ciphertext": wrapped.wrapped.encode("ascii"),
            "associated_data": SecretBytes(base64.b64encode(binding)),
        }
        data_key = _find_plaintext(self._ask("decrypt", content).body)
        if data_key is None:
            raise KekUnavailable(
                f"{self._named} answered 'decrypt' with something that is no plaintext; see keys.kek.transit.url"
            )
        return data_key

    @property
    def _named(self) -> str:
        return f"the KEK {self.name} at {self.url}"

    def _ask(self, verb: str, content: Mapping[str, bytes]) -> Answer:
        """Return the answer of status 200. Raises KekUnavailable."""
        headers = {"X-Vault-Request": b"true", "X-Vault-Token": self.token}
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace.encode()
        url = f"{self.url.rstrip('/')}/v1/{self.mount}/{verb}/{self.key}"
        answer = post(Server("keys.kek.transit", self.ca, self.timeout_s), url, content, headers)
        problem = answer.problem or self._explained(verb, answer.status)
        if problem:
            raise KekUnavailable(f"{self._named} {problem}")
        return answer

    def _explained(self, verb: str, status: int) -> str:
        """Say what a status means and what to do; empty for 200. What the server says besides is not repeated."""
        path = f"{self.mount}/{verb}/{self.key}"
        if status == 200:
            return ""
        if status == 400 and verb == "decrypt":
            return (
                "can't decrypt the data key (400): the file was edited, the key is not the one that wrapped "
                "it, or it has lost a version"
            )
        if status == 400:
            return f"does not encrypt (400): see whether {self.name} exists and is of type aes256-gcm96"
        if status == 403:
            return f"refuses the token (403): it is expired, or its policy lacks 'update' on {path}"
        if status == 404:
            return f"knows no {path} (404): see keys.kek.transit.mount and the namespace"
        if status in (429, 472, 473, 503):
            return f"is sealed, on standby or overloaded ({status}): unseal it, or give the active node's url"
        if 300 <= status < 400:
            return f"answers with a redirect ({status}): give the active node's own url"
        return f"answered '{verb}' with status {status}"


def _find_ciphertext(data: bytes) -> str | None:
    found = find_decoded(data, _EncryptAnswer)
    return found.data.ciphertext if found is not None and _CIPHERTEXT.fullmatch(found.data.ciphertext) else None


def _find_plaintext(data: bytes) -> SecretBytes | None:
    """Return what was wrapped. A function of its own, whose local variables are gone when an error is raised."""
    found = find_decoded(data, _DecryptAnswer)
    return find_base64(found.data.plaintext) if found is not None else None
