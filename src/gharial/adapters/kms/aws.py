"""A key of AWS KMS as a KEK: `Encrypt` and `Decrypt` of the data key, by boto3 (the extra `aws`).

https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html. Credentials come from where boto3 looks for them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gharial.crypto.encoding import find_base64url, to_base64url
from gharial.crypto.kek import WrappedKey, refuse_other_kind
from gharial.crypto.keyset import Random
from gharial.crypto.secret import SecretBytes
from gharial.model.errors import ConfigInvalid, KekUnavailable, KeyFileUnusable, Problem

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
_HINTS = {
    "AccessDeniedException": "the credentials lack kms:Encrypt or kms:Decrypt on it",
    "NotFoundException": "there is no such key in this account and region; see keys.kek.aws.key",
    "DisabledException": "the key is disabled",
    "KMSInvalidStateException": "the key waits for its deletion, or is not ready",
    "InvalidCiphertextException": "the file was edited, or is of another keyset or key",
    "IncorrectKeyException": "another key wrapped the key file; give keys.kek.aws.key that one",
    "UnrecognizedClientException": "the credentials are not valid",
    "ExpiredTokenException": "the credentials are expired",
    "InvalidKeyUsageException": "the key is not for encryption; it must be symmetric (SYMMETRIC_DEFAULT)",
}


@dataclass(frozen=True, slots=True)
class AwsKek:
    """One symmetric key of AWS KMS, by key id, ARN, `alias/NAME` or alias ARN; `endpoint` if not the region's own."""

    key: str
    region: str
    endpoint: str = ""
    timeout_s: float = 5.0

    @property
    def kind(self) -> str:
        """See Kek."""
        return "aws"

    def wrap(self, data_key: bytes, binding: bytes, random: Random) -> WrappedKey:
        """See Kek. The binding is the encryption context, which AWS writes into its own trail; it is no secret."""
        del random  # KMS has its own
        answer = self._ask("encrypt", {"Plaintext": SecretBytes(data_key), **self._common(binding)})
        blob = answer.get("CiphertextBlob")
        if not isinstance(blob, bytes) or not 1 <= len(blob) <= 6_144:
            raise KekUnavailable(f"{self._named} answered 'encrypt' with something that is no ciphertext")
        return WrappedKey(self.kind, self.key, to_base64url(blob))

    def unwrap(self, wrapped: WrappedKey, binding: bytes) -> bytes:
        """See Kek. That the same key is meant is for KMS to say: an alias and an ARN may name one key."""
        refuse_other_kind(self, wrapped)
        blob = find_base64url(wrapped.wrapped)
        if blob is None or not 1 <= len(blob) <= 6_144:
            raise KeyFileUnusable("the key file was edited: its data key is no ciphertext of AWS KMS")
        answer = self._ask("decrypt", {"CiphertextBlob": blob, **self._common(binding)})
        plaintext = answer.get("Plaintext")
        if not isinstance(plaintext, bytes):
            raise KekUnavailable(f"{self._named} answered 'decrypt' with something that is no plaintext")
        return SecretBytes(plaintext)

    @property
    def _named(self) -> str:
        return f"the KEK {self.key} of AWS KMS in {self.region}"

    def _common(self, binding: bytes) -> dict[str, Any]:
        context = {"gharial": base64.b64encode(binding).decode("ascii")}
        return {"KeyId": self.key, "EncryptionContext": context, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}

    def _ask(self, verb: str, wanted: dict[str, Any]) -> dict[str, Any]:
        """Return KMS's answer, its plaintext as SecretBytes. Raises KekUnavailable, ConfigInvalid without boto3."""
        call = self._client(verb)
        answer, problem = _called(call, wanted)
        if problem:
            raise KekUnavailable(f"{self._named} {problem}")
        return answer

    def _client(self, verb: str) -> Callable[..., Any]:
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            what = "keys.kek.aws needs boto3: pip install 'gharial[aws]'"
            raise ConfigInvalid([Problem("gharial.yaml", 1, 1, what)]) from None
        # One try: whoever starts or reloads wants to know now, and may try again.
        limits = Config(connect_timeout=self.timeout_s, read_timeout=self.timeout_s, retries={"total_max_attempts": 1})
        try:
            client = boto3.client("kms", region_name=self.region, endpoint_url=self.endpoint or None, config=limits)
        except Exception as error:  # noqa: BLE001 - boto3 raises of its own, of botocore and ValueError, by its settings
            problem = f"can't be asked ({type(error).__name__}); see boto3's own settings"
        else:
            return getattr(client, verb)  # type: ignore[no-any-return]
        raise KekUnavailable(f"{self._named} {problem}")


def _called(call: Callable[..., Any], wanted: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the answer, or why there is none. A function of its own, whose locals are gone when an error is raised."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        plain = {name: bytes(value) if isinstance(value, SecretBytes) else value for name, value in wanted.items()}
        answer = dict(call(**plain))
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        code = code if _CODE.fullmatch(code) else "an error without a name"
        return {}, f"refuses: {code}; {_HINTS.get(code, 'see the documentation of AWS KMS')}"
    except BotoCoreError as error:
        return {}, f"can't be asked ({type(error).__name__}); see network, region and credentials"
    except Exception as error:  # noqa: BLE001 - an answer that is none breaks the library's parser in its own ways
        return {}, f"gave no answer that can be read ({type(error).__name__})"
    if isinstance(answer.get("Plaintext"), bytes):
        answer["Plaintext"] = SecretBytes(answer["Plaintext"])
    return answer, ""
