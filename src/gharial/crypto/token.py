"""Tokens: a value that only the gate can read, made for one recipient and accepted back from that one alone.

Layout in docs/keys-and-tokens.md. Deterministic: the same value gives the same recipient the same token.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from gharial.crypto.encoding import encode_parts, find_utf8
from gharial.crypto.keyset import Keyset, Purpose
from gharial.crypto.seal import find_opened, seal
from gharial.model.errors import TokenRefused
from gharial.model.finding import Kind

PREFIX = "tok_"
KIND_BYTE = {kind: kind.value.encode("ascii") for kind in Kind}
KIND_OF = {byte: kind for kind, byte in KIND_BYTE.items()}


class TokenScope(enum.StrEnum):
    """Who gets the same token for the same value, and may send it back."""

    CLIENT = "client"
    TEAM = "team"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who a plan's results are made for: verified facts of the caller. `team` may be empty."""

    tenant: str
    client: str
    team: str = ""


def handed_over(tenant: str) -> str:
    """Return the tenant for results of data that a client hands over itself, instead of getting it from an API.

    Without keys of their own a client could hand over guesses, and find by comparing what its tokens, pseudonyms and
    shifted dates stand for.
    """
    return f"{tenant}\x1fhanded over"


@dataclass(frozen=True, slots=True)
class Binding:
    """What a token belongs to: `tag` is the leaf tag, `scope` one of TokenScope.

    `recipient` is the client's name for scope client, the team's for team, and empty for all.
    """

    tenant: str
    tag: str
    scope: str
    recipient: str

    @property
    def sound(self) -> bool:
        """False for an unknown scope, and for a client or team without a name: all who have none would share tokens."""
        if self.scope == TokenScope.ALL:
            return self.recipient == ""
        return self.scope in (TokenScope.CLIENT, TokenScope.TEAM) and self.recipient != ""

    def aad(self) -> bytes:
        """Return the associated data: the length-prefixed (tenant, tag, scope, recipient)."""
        return encode_parts(self.tenant, self.tag, self.scope, self.recipient)


def find_binding(recipient: Recipient, tag: str, scope: str) -> Binding | None:
    """Return what a token of this scope is bound to for this recipient.

    None if there is none: a team's token for a caller without a team, or a scope that does not exist.
    """
    names: dict[str, str] = {TokenScope.CLIENT: recipient.client, TokenScope.TEAM: recipient.team, TokenScope.ALL: ""}
    binding = Binding(recipient.tenant, tag, scope, names.get(scope, ""))
    return binding if binding.sound else None


def seal_token(keyset: Keyset, binding: Binding, kind: Kind, text: str) -> str:
    """Return the token of a value under the primary key.

    Raises ValueError, without the value, if the text holds a lone surrogate or the binding is not sound.
    """
    if not binding.sound:
        raise ValueError("a token needs a named recipient, or scope all and none")
    data = find_utf8(text)
    if data is None:
        raise ValueError("the text is not well-formed Unicode")
    plaintext = KIND_BYTE[kind] + data
    return PREFIX + seal(keyset, Purpose.TOKEN, binding.tenant, binding.tag, binding.aad(), plaintext)


def open_token(keyset: Keyset, binding: Binding, token: str) -> tuple[Kind, str]:
    """Return type and text of the value behind a token.

    Raises TokenRefused, the same for everything that may be wrong: not a token, not spelled as it was made, forged, of
    an unknown or disabled key, or made for another tenant, tag, scope or recipient.
    """
    plaintext = None
    if binding.sound and looks_like_token(token):
        body = token[len(PREFIX) :]
        plaintext = find_opened(keyset, Purpose.TOKEN, binding.tenant, binding.tag, binding.aad(), body)
    kind = KIND_OF.get(plaintext[:1]) if plaintext else None
    if plaintext is None or kind is None:
        raise TokenRefused
    return kind, plaintext[1:].decode("utf-8")


def looks_like_token(text: str) -> bool:
    """Return whether the text begins as tokens do. Cheap; only `open_token` knows whether it is one."""
    return text.startswith(PREFIX)


def seems_token(text: str) -> bool:
    """Return whether somebody may have meant a token: also in quotes, between blanks, or in capitals.

    Where tokens are opened such a text is opened or refused; it never goes on as if it were a value.
    """
    return text.strip(" \t\r\n\"'").lower().startswith(PREFIX)
