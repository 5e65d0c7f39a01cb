"""An AES key in a PKCS #11 token (an HSM) as a KEK: AES-GCM of the data key, by python-pkcs11 (the extra `pkcs11`).

https://docs.oasis-open.org/pkcs11/pkcs11-base/v3.0/pkcs11-base-v3.0.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gharial.crypto.encoding import find_base64url, to_base64url
from gharial.crypto.kek import NONCE_BYTES, WrappedKey, refuse_other_kind
from gharial.crypto.keyset import Random, draw
from gharial.crypto.secret import SecretBytes
from gharial.model.errors import ConfigInvalid, KekUnavailable, KeyFileUnusable, Problem

_TAG_BITS = 128
_HINTS = {
    "NoSuchToken": "there is no token of that label; see keys.kek.pkcs11.token",
    "MultipleTokensReturned": "several tokens have that label; give them labels of their own",
    "NoSuchKey": "there is no AES key of that label on it; see keys.kek.pkcs11.key",
    "MultipleObjectsReturned": "several keys have that label; give the one a label of its own",
    "PinIncorrect": "the PIN is not right; see keys.kek.pkcs11.pin before the token locks itself",
    "PinLocked": "the PIN is locked; the security officer of the token unlocks it",
    "PinLenRange": "the PIN is not right; see keys.kek.pkcs11.pin before the token locks itself",
    "KeyFunctionNotPermitted": "the key may not encrypt and decrypt; it needs CKA_ENCRYPT and CKA_DECRYPT",
    "MechanismInvalid": "the token has no CKM_AES_GCM",
    "EncryptedDataInvalid": "the file was edited, or another key wrapped it",
    "GeneralError": "the file was edited, another key wrapped it, or the token is out of order",
    "PKCS11Error": "see keys.kek.pkcs11.module",
}


@dataclass(frozen=True, slots=True)
class Pkcs11Kek:
    """One AES-256 key of a token. `module` is the vendor's library."""

    module: Path
    token: str
    key: str
    pin: SecretBytes = field(repr=False)

    @property
    def kind(self) -> str:
        """See Kek."""
        return "pkcs11"

    @property
    def name(self) -> str:
        """Token and key, as key files name them."""
        return f"{self.token}/{self.key}"

    def wrap(self, data_key: bytes, binding: bytes, random: Random) -> WrappedKey:
        """See Kek. The nonce is drawn here: tokens do not agree on who makes it."""
        nonce = bytes(draw(random, NONCE_BYTES))
        sealed = self._use("encrypt", SecretBytes(data_key), nonce, binding)
        if len(sealed) != len(data_key) + _TAG_BITS // 8:
            raise KekUnavailable(f"{self._named} gave a ciphertext of {len(sealed)} bytes, which AES-GCM does not give")
        return WrappedKey(self.kind, self.name, to_base64url(nonce + bytes(sealed)))

    def unwrap(self, wrapped: WrappedKey, binding: bytes) -> bytes:
        """See Kek."""
        refuse_other_kind(self, wrapped)
        if wrapped.name != self.name:
            raise KeyFileUnusable(
                f"the key file is wrapped by another PKCS #11 key than {self.name}; give keys.kek that one"
            )
        blob = find_base64url(wrapped.wrapped)
        if blob is None or len(blob) <= NONCE_BYTES + _TAG_BITS // 8:
            raise KeyFileUnusable("the key file was edited: its data key is no ciphertext of a PKCS #11 token")
        return self._use("decrypt", SecretBytes(blob[NONCE_BYTES:]), blob[:NONCE_BYTES], binding)

    @property
    def _named(self) -> str:
        return f"the KEK {self.name} of {self.module}"

    def _use(self, verb: str, data: SecretBytes, nonce: bytes, binding: bytes) -> SecretBytes:
        """Return what the token makes of the data. Raises KekUnavailable, ConfigInvalid without python-pkcs11."""
        try:
            import pkcs11
        except ImportError:
            what = "keys.kek.pkcs11 needs python-pkcs11: pip install 'gharial[pkcs11]'"
            raise ConfigInvalid([Problem("gharial.yaml", 1, 1, what)]) from None

        def work(session: Any) -> bytes:
            key = session.get_key(
                label=self.key, object_class=pkcs11.ObjectClass.SECRET_KEY, key_type=pkcs11.KeyType.AES
            )
            param = pkcs11.GCMParams(nonce, binding, _TAG_BITS)
            use = key.encrypt if verb == "encrypt" else key.decrypt
            return bytes(use(bytes(data), mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=param))

        result, problem = self._in_session(pkcs11, work)
        if problem:
            raise KekUnavailable(f"{self._named} {problem}")
        return result

    def _in_session(self, pkcs11: Any, work: Callable[[Any], bytes]) -> tuple[SecretBytes, str]:
        try:
            library = pkcs11.lib(str(self.module))
            token = library.get_token(token_label=self.token)
            with token.open(user_pin=bytes(self.pin).decode("utf-8")) as session:
                return SecretBytes(work(session)), ""
        except pkcs11.PKCS11Error as error:
            name = type(error).__name__
            return SecretBytes(
                b""
            ), f"can't be used ({name}): {_HINTS.get(name, 'see the documentation of its vendor')}"
        except Exception as error:  # noqa: BLE001 - a library that is none, or breaks, raises what it likes
            name = type(error).__name__
            return SecretBytes(b""), f"can't be loaded or used ({name}); see keys.kek.pkcs11.module"
