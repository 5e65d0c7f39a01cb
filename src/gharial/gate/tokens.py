"""Tokens that come back: a caller's own tokens in a request become real values for the upstream.

Where to look for them is said by the plan's `params`; how each carrier is read and written, by `carriers`. What is
protected on its way (`sending`) is changed in the same pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from gharial.crypto.keyset import Keyset
from gharial.crypto.subject import Subject, find_sealed_token, is_subject_token, open_with_subject
from gharial.crypto.token import Recipient, TokenScope, find_binding, open_token, seems_token
from gharial.crypto.vault import find_token, open_sealed
from gharial.gate.carriers import Change, rewrite_cookies, rewrite_headers, rewrite_query
from gharial.gate.outcome import Headers
from gharial.gate.people import Erased
from gharial.gate.sending import Gone, Sending
from gharial.gate.vault import ExchangeTokens
from gharial.model.caller import Caller
from gharial.model.errors import RequestMalformed, TokenErased, TokenRefused
from gharial.model.finding import Kind
from gharial.model.place import Carrier
from gharial.model.plan import NONE, Param, Plan

_STAND_IN = (Kind.STRING, "0")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A request after resolution.

    `params` are all path parameters, `changed` those that were tokens. `query` is the new query and `headers` are the
    headers to set in place of all of their names; None and empty where nothing changed. `gone` are headers of which
    nothing goes on. `counts` says how many tokens of each tag were opened. `asked` are (place, id space, text) of the
    people whom the query names.
    """

    params: Mapping[str, str] = field(repr=False)
    changed: Mapping[str, str] = field(repr=False)
    query: str | None = field(repr=False)
    headers: Headers = field(repr=False)
    counts: Mapping[str, int]
    asked: tuple[tuple[str, str, str], ...] = field(repr=False)
    gone: tuple[str, ...] = ()


def resolve_tokens(
    plan: Plan,
    params: Mapping[str, str],
    query: str,
    headers: Headers,
    removed: Collection[str],
    opener: Opener,
) -> Resolved:
    """Turn this caller's tokens in a request into real values, where a grant says `reidentify`.

    While the opener's vault lacks something, the result, or what was raised, is of no use (see `gate.vault`).
    `removed` are the headers that don't reach the upstream: nothing in them is resolved. Anything that is not a token
    stays as it came, unless only tokens may come. Raises TokenRefused for a token that is not this caller's, stands
    beside its place, or whose value can't be written there, and for anything else where only tokens may come;
    RequestMalformed for what upstreams read in different ways.
    """
    of: dict[Carrier, dict[str, Param]] = {}
    for param in plan.params:
        of.setdefault(param.carrier, {})[param.name] = param
    changed: dict[str, str] = {}
    for name, param in of.get(Carrier.PATH, {}).items():
        text = params.get(name)
        if text is not None and isinstance(real := opener.resolve(param, text), str):
            changed[name] = real
    new_query = rewrite_query(query, of[Carrier.QUERY], opener) if Carrier.QUERY in of else None
    set_headers: Headers = ()
    if Carrier.HEADER in of:
        set_headers = rewrite_headers(headers, of[Carrier.HEADER], removed, opener)
    if Carrier.COOKIE in of and "cookie" not in removed:
        set_headers += rewrite_cookies(headers, of[Carrier.COOKIE], opener)
    gone = tuple(name for name, value in set_headers if not value)
    set_headers = tuple((name, value) for name, value in set_headers if value)
    return Resolved({**params, **changed}, changed, new_query, set_headers, opener.counts, tuple(opener.asked), gone)


class Opener(Change):
    """Opens tokens of one caller. `counts` says how many of each tag; `asked` whom the query names, as in Resolved.

    `sending` protects what is not opened, by the steps of the plan that the params are of.
    """

    def __init__(self, keyset: Keyset, caller: Caller, vault: ExchangeTokens, sending: Sending) -> None:
        self._keyset = keyset
        self._sending = sending
        self._vault = vault
        self._recipient = Recipient(caller.tenant, caller.client, caller.team)
        self.counts: dict[str, int] = {}
        self.asked: list[tuple[str, str, str]] = []

    def recount(self, counts: Mapping[str, int]) -> None:
        """Count on from here: what was opened in a run for nothing does not count."""
        self.counts.clear()
        self.counts.update(counts)

    def resolve(self, param: Param, text: str) -> str | Gone | None:
        real: str | None = None
        if param.only_tokens and not (param.reidentify and seems_token(text)):
            raise TokenRefused("only tokens may come here")
        if param.reidentify and seems_token(text):
            _, real = self.open(text, (tag for tag in param.tags if tag not in param.closed))
        if param.subject and param.carrier is Carrier.QUERY and (named := text if real is None else real).strip():
            self.asked.append((param.place, param.subject, named))
        return real if param.step == NONE else self.send(param, text, self._sending)

    def send(self, param: Param, text: str, sending: Sending) -> str | Gone | None:
        """Return what is sent in place of a value, as `resolve` does."""
        if param.carrier in (Carrier.HEADER, Carrier.COOKIE):
            # Else the same value would have one token in a body and another one in a header.
            with contextlib.suppress(UnicodeError):
                text = text.encode("latin-1").decode("utf-8")
        return sending.protect(param.step, text)

    def refuse_alike(self, param: Param, text: str, *, same: bool) -> None:
        if param.step != NONE and self._sending.hides(param.step):
            raise RequestMalformed("a name is spelled almost like one whose value is protected on its way")
        if param.only_tokens or (param.reidentify and seems_token(text)):
            raise TokenRefused("a token, or what should be one, stands beside the place where it would be opened")
        if param.subject and same:
            raise RequestMalformed("a parameter is spelled almost like the one that names a person")

    def open(self, token: str, tags: Iterable[str]) -> tuple[Kind, str]:
        """Return type and text of the value, after trying every binding under which this caller could have the token.

        Something else comes back while the vault lacks something. Raises TokenRefused; TokenErased for a token that is
        this caller's own, of a person who was erased.
        """
        if is_subject_token(token):
            return self._open_of_person(token, tags)
        number = find_token(token)
        sealed = None if number is None else self._vault.find_sealed(number)
        if self._vault.lacks:
            # This run is for nothing but learning what else it asks for.
            return _STAND_IN
        for tag in tags:
            for scope in TokenScope:
                binding = find_binding(self._recipient, tag, scope)
                if binding is None:
                    continue
                try:
                    if number is None:
                        found = open_token(self._keyset, binding, token)
                    else:
                        found = open_sealed(self._keyset, binding, number, sealed or b"")
                except TokenRefused:
                    continue
                self.counts[tag] = self.counts.get(tag, 0) + 1
                return found
        raise TokenRefused

    def _open_of_person(self, token: str, tags: Iterable[str]) -> tuple[Kind, str]:
        bindings = [b for tag in tags for scope in TokenScope if (b := find_binding(self._recipient, tag, scope))]
        found = find_sealed_token(self._keyset, bindings, token)
        # The handle is authentic only for whom the token was made: nobody else learns that it was of an erased person.
        if found is None:
            raise TokenRefused
        binding, sealed = found
        subject = self._vault.find_subject(sealed.handle)
        if self._vault.lacks:
            return _STAND_IN
        if isinstance(subject, Erased):
            raise TokenErased
        if not isinstance(subject, Subject):
            raise TokenRefused
        opened = open_with_subject(subject, sealed)
        self.counts[binding.tag] = self.counts.get(binding.tag, 0) + 1
        return opened
