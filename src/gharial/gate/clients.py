"""The registered clients of one gateway, in memory, and how a new one is made."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from gharial.gate.ports import ClientRecord, CredentialRecord
from gharial.model.caller import ANONYMOUS
from gharial.model.errors import AlreadyExists, NotFound

API_KEY = "api_key"
SECRET = "secret"  # noqa: S105 - a kind of credential, not one
MAY_ASSERT = ("purpose", "country", "claims")
"""What a credential's `may_assert` can name: what its caller may state of itself in headers."""

CLIENT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
PURPOSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_MAX_FACT = 128
_SECRET_BYTES = 32
_ID_BYTES = 10


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client that was just made. The last three are shown once, to a person, and kept nowhere."""

    client: ClientRecord
    credentials: tuple[CredentialRecord, ...]
    client_id: str
    secret: str = field(repr=False)
    api_key: str = field(repr=False)


class ClientDirectory:
    """Clients by name and API keys by hash. Follows the store: whoever changes one changes the other."""

    def __init__(self, clients: Iterable[ClientRecord] = (), credentials: Iterable[CredentialRecord] = ()) -> None:
        self._clients = {client.name: client for client in clients}
        self._by_hash = {credential.hash: credential for credential in credentials}

    def find(self, name: str) -> ClientRecord | None:
        """Return the client of that name, revoked or not."""
        return self._clients.get(name)

    def find_by_key(self, key_hash: bytes) -> tuple[ClientRecord, CredentialRecord] | None:
        """Return whose API key has this keyed hash; None if nobody's, or if key or client is revoked."""
        return self._find(key_hash, API_KEY)

    def find_by_secret(self, secret_hash: bytes) -> tuple[ClientRecord, CredentialRecord] | None:
        """Return whose secret has this keyed hash; None as `find_by_key`."""
        return self._find(secret_hash, SECRET)

    def _find(self, key_hash: bytes, kind: str) -> tuple[ClientRecord, CredentialRecord] | None:
        credential = self._by_hash.get(key_hash)
        # The look-up takes as long as it takes, but on a keyed hash, which nobody outside can steer.
        if credential is None or not hmac.compare_digest(credential.hash, key_hash):
            return None
        client = self._clients.get(credential.client)
        if client is None or credential.kind != kind:
            return None
        if client.revoked_s is not None or credential.revoked_s is not None:
            return None
        return client, credential

    def add(self, client: ClientRecord, credentials: Sequence[CredentialRecord]) -> None:
        """Add a client. Raises AlreadyExists; a revoked client keeps its name."""
        if client.name in self._clients:
            raise AlreadyExists(f"there is a client '{client.name}' already")
        self._clients[client.name] = client
        self._by_hash.update((credential.hash, credential) for credential in credentials)

    def revoke(self, name: str, at_s: float) -> None:
        """Refuse all credentials of a client from now on. Raises NotFound."""
        client = self._clients.get(name)
        if client is None:
            raise NotFound(f"there is no client '{name}'")
        if client.revoked_s is None:
            self._clients[name] = replace(client, revoked_s=at_s)


def new_client(
    name: str,
    *,
    team: str = "",
    roles: Sequence[str] = (),
    purpose: str = "",
    may_assert: Sequence[str] = (),
    random: Callable[[int], bytes],
    hash_credential: Callable[[str], bytes],
    now_s: float,
) -> NewClient:
    """Make a client with an API key (`ghk_ID_…`) and a secret (`ghs_ID_…`), 256 random bits each.

    `random` gives that many random bytes; `hash_credential` is the keyed hash that is kept in their place. Raises
    ValueError, with a text for the operator, for a name or fact that can't be one.
    """
    if not CLIENT_NAME.fullmatch(name):
        raise ValueError("a client's name is 1 to 64 of a-z, 0-9, '.', '_', '-', and begins with a letter or digit")
    if name == ANONYMOUS:
        raise ValueError(f"'{ANONYMOUS}' is the name of calls without a credential")
    if team and not is_fact(team):
        raise ValueError(f"a team is 1 to {_MAX_FACT} printable characters")
    if not all(map(is_fact, roles)):
        raise ValueError(f"a role is 1 to {_MAX_FACT} printable characters")
    if purpose and not PURPOSE.fullmatch(purpose):
        raise ValueError("a purpose is 1 to 64 letters, digits, '.', '_', '-', and begins with a letter or digit")
    unknown = sorted(set(may_assert) - set(MAY_ASSERT))
    if unknown:
        raise ValueError(f"may_assert knows {', '.join(MAY_ASSERT)}; not {', '.join(unknown)}")
    client = ClientRecord(
        name=name,
        team=team,
        roles=tuple(dict.fromkeys(roles)),
        purpose=purpose,
        may_assert=tuple(sorted(set(may_assert))),
        created_s=now_s,
    )
    key_id, api_key = _new_text("ghk", random)
    secret_id, secret = _new_text("ghs", random)
    credentials = (
        CredentialRecord(key_id, name, API_KEY, hash_credential(api_key), now_s),
        CredentialRecord(secret_id, name, SECRET, hash_credential(secret), now_s),
    )
    return NewClient(client, credentials, client_id=name, secret=secret, api_key=api_key)


def is_fact(text: str) -> bool:
    """Say whether `text` can be the name of a client, user, team or role: short, printable, no line breaks.

    Names are written to audit, alarms and terminals, and joined to keys: a control character could forge any of them.
    """
    return 0 < len(text) <= _MAX_FACT and text.isprintable() and text == text.strip()


def _new_text(kind: str, random: Callable[[int], bytes]) -> tuple[str, str]:
    """Return (credential id, text of the credential)."""
    credential_id = base64.b32encode(random(_ID_BYTES)).decode("ascii").lower()
    secret = base64.urlsafe_b64encode(random(_SECRET_BYTES)).decode("ascii").rstrip("=")
    return credential_id, f"{kind}_{credential_id}_{secret}"
