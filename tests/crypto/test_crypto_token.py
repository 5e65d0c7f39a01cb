"""Tokens: they open for whom they were made, and for nobody else, and only as they were spelled."""

from __future__ import annotations

import base64
import itertools
import random
import traceback
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gharial.crypto.keyset import KeyState, Purpose, create_keyset, rotate, set_state
from gharial.crypto.seal import seal
from gharial.crypto.token import (
    PREFIX,
    Binding,
    Recipient,
    TokenScope,
    find_binding,
    looks_like_token,
    open_token,
    seal_token,
)
from gharial.model.errors import TokenRefused
from gharial.model.finding import Kind

KEYSET = create_keyset(random.Random(21).randbytes, 1.0)
OTHER_KEYSET = create_keyset(random.Random(22).randbytes, 1.0)
BINDING = Binding("default", "account", "client", "acme-billing")
TOKEN = seal_token(KEYSET, BINDING, Kind.STRING, "PLANTED-4711")

KINDS = st.sampled_from(Kind)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SOUND = st.builds(Binding, NAMES, NAMES, st.sampled_from(["client", "team"]), NAMES.filter(bool)) | st.builds(
    Binding, NAMES, NAMES, st.just("all"), st.just("")
)


def assert_refused(token: str, binding: Binding = BINDING, keyset=KEYSET) -> None:
    """Every refusal is the same one: its text, its cause and its context say nothing."""
    with pytest.raises(TokenRefused) as caught:
        open_token(keyset, binding, token)
    assert str(caught.value) == TokenRefused.title
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@given(SOUND, KINDS, st.text())
def test_a_token_opens_to_what_it_was_made_from(binding, kind, text):
    """Type and text come back, for every type and every text, under every binding."""
    token = seal_token(KEYSET, binding, kind, text)
    assert open_token(KEYSET, binding, token) == (kind, text)


@pytest.mark.parametrize("text", ["", "a", "\x00", "😀", "\U0010ffff", "e\u0301", "tok_", "1.0", "a" * 100_000])
@pytest.mark.parametrize("kind", list(Kind))
def test_edge_texts_come_back(kind, text):
    """Nothing, one character, characters beyond the BMP, decomposed ones and long texts come back as they were."""
    assert open_token(KEYSET, BINDING, seal_token(KEYSET, BINDING, kind, text)) == (kind, text)


@given(SOUND, KINDS, st.text())
def test_the_same_value_gives_the_same_token(binding, kind, text):
    """Tokens are deterministic, so that they can be joined and counted by their recipient."""
    assert seal_token(KEYSET, binding, kind, text) == seal_token(KEYSET, binding, kind, text)


@given(SOUND, st.text(), st.text())
def test_different_values_give_different_tokens(binding, one, other):
    """Two values never share a token, and neither do a string and a number of the same text."""
    assume(one != other)
    tokens = {seal_token(KEYSET, binding, kind, text) for kind in Kind for text in (one, other)}
    assert len(tokens) == 2 * len(Kind)


@given(st.text())
def test_a_token_has_the_form_of_a_token(text):
    """A token is `tok_` and base64url: it is safe in a path, and no spreadsheet takes it for a formula."""
    token = seal_token(KEYSET, BINDING, Kind.STRING, text)
    assert looks_like_token(token)
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    data = base64.urlsafe_b64decode(token[4:] + "==")
    assert data[:5] == b"\x01" + KEYSET.primary_id.to_bytes(4, "big")
    assert len(data) == 5 + 16 + 1 + len(text.encode())


@given(SOUND, SOUND, KINDS, st.text())
def test_a_token_opens_under_its_own_binding_only(made_for, shown_by, kind, text):
    """No other tenant, tag, scope or recipient opens it."""
    assume(made_for != shown_by)
    assert_refused(seal_token(KEYSET, made_for, kind, text), shown_by)


@pytest.mark.parametrize(
    "other",
    [
        replace(BINDING, tenant="default2"),
        replace(BINDING, tag="iban"),
        replace(BINDING, recipient="acme-shipping"),
        replace(BINDING, scope="team"),
        replace(BINDING, scope="all", recipient=""),
        replace(BINDING, tenant="defaulta", tag="ccount"),
        replace(BINDING, scope="clientacme-", recipient="billing"),
    ],
    ids=["tenant", "tag", "client", "scope", "all", "border of tenant and tag", "border of scope and recipient"],
)
def test_each_part_of_the_binding_counts(other):
    """Changing one part of the binding, or moving a letter over a border between parts, refuses."""
    assert_refused(TOKEN, other)


def test_a_team_token_needs_a_team():
    """Callers without a team do not share an empty team: nothing is made for them and nothing opens for them."""
    nobody = Recipient("default", "acme-billing", "")
    assert find_binding(nobody, "account", "team") is None
    empty = Binding("default", "account", "team", "")
    with pytest.raises(ValueError, match="named recipient"):
        seal_token(KEYSET, empty, Kind.STRING, "x")
    made_anyway = PREFIX + seal(KEYSET, Purpose.TOKEN, "default", "account", empty.aad(), b"sx")
    assert_refused(made_anyway, empty)
    assert find_binding(Recipient("default", "", "finance"), "account", "client") is None


def test_a_binding_follows_its_scope():
    """The recipient is the client's name, the team's, or nobody's; an unknown scope binds to nothing."""
    recipient = Recipient("default", "acme-billing", "finance")
    bound = {scope: find_binding(recipient, "account", scope) for scope in ("client", "team", "all", "world", "")}
    assert bound["client"] == Binding("default", "account", TokenScope.CLIENT, "acme-billing")
    assert bound["team"] == Binding("default", "account", TokenScope.TEAM, "finance")
    assert bound["all"] == Binding("default", "account", TokenScope.ALL, "")
    assert bound["world"] is bound[""] is None
    assert_refused(TOKEN, Binding("default", "account", "all", "acme-billing"))
    assert_refused(TOKEN, Binding("default", "account", "world", "acme-billing"))


def test_every_single_byte_change_is_refused():
    """Whichever character of the token, or byte beneath it, is changed to whatever else: it is refused."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=. \n\0é"
    for at, character in itertools.product(range(len(TOKEN)), alphabet):
        if character != TOKEN[at]:
            assert_refused(TOKEN[:at] + character + TOKEN[at + 1 :])
    data = base64.urlsafe_b64decode(TOKEN[4:] + "=" * (-len(TOKEN[4:]) % 4))
    for at, flip in itertools.product(range(len(data)), range(1, 256)):
        changed = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
        assert_refused(PREFIX + base64.urlsafe_b64encode(changed).decode().rstrip("="))


def test_every_cut_and_every_addition_is_refused():
    """A token cut anywhere, or with something before or behind it, is refused."""
    for at in range(len(TOKEN)):
        assert_refused(TOKEN[:at])
    for extra in ("A", "AA", "AAAA", "=", "==", "\n", " ", "\0", "."):
        assert_refused(TOKEN + extra)
        assert_refused(extra + TOKEN)


def respellings(token: str) -> list[str]:
    body = token[4:]
    pad = "=" * (-len(body) % 4)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = [body[:-1] + other for other in alphabet if other != body[-1]]
    others = [body + pad, body + "=", body.replace("-", "+").replace("_", "/")]
    spaced = [f" {body}", f"{body}\n", f"{body[:8]}\n{body[8:]}"]
    prefixes = [p + body for p in ("TOK_", "Tok_", "tok-", "tok", "", "\uff54ok_", "tok_tok_")]
    return [s for s in [*prefixes, *(PREFIX + b for b in last + others + spaced)] if s != token]


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "abcd", "~~~~~~~~~???"])
def test_a_token_in_another_spelling_is_refused(text):
    """Padding, the other alphabet, spare bits, white space, another case of the prefix: one token has one spelling."""
    token = seal_token(KEYSET, BINDING, Kind.STRING, text)
    for other in respellings(token):
        assert_refused(other)


@given(st.text() | st.text("ABab01-_=", max_size=80).map(PREFIX.__add__) | st.binary().map(
    lambda data: PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")
))  # fmt: skip
def test_any_text_is_refused_with_the_one_error(text):
    """Whatever is sent as a token, opening ends in TokenRefused and nothing else."""
    assert_refused(text)


def test_lone_surrogates_are_refused_without_being_quoted():
    """A text that has no UTF-8 gives no token, and its error, with all causes, does not carry it along."""
    with pytest.raises(ValueError, match="not well-formed") as caught:
        seal_token(KEYSET, BINDING, Kind.STRING, "PLANTED\ud800")
    assert "PLANTED" not in "".join(traceback.format_exception(caught.value)).replace('"PLANTED\\ud800"', "")
    assert caught.value.__context__ is None
    assert_refused("tok_\ud800")


def test_tokens_of_another_version_are_refused():
    """Version 2 does not exist yet: its tokens are refused, not tried."""
    data = base64.urlsafe_b64decode(TOKEN[4:] + "=" * (-len(TOKEN[4:]) % 4))
    assert_refused(PREFIX + base64.urlsafe_b64encode(b"\x02" + data[1:]).decode().rstrip("="))


def test_another_keyset_opens_nothing():
    """A token of another installation, whose key id is unknown here, is refused like any forged one."""
    assert_refused(TOKEN, keyset=OTHER_KEYSET)


def test_rotation_keeps_old_tokens_readable():
    """After a rotation, old tokens open, new ones are made with the new key, and both mean the same value."""
    rotated = rotate(KEYSET, random.Random(23).randbytes, 2.0)
    new = seal_token(rotated, BINDING, Kind.STRING, "PLANTED-4711")
    assert new != TOKEN
    assert open_token(rotated, BINDING, TOKEN) == open_token(rotated, BINDING, new) == (Kind.STRING, "PLANTED-4711")
    assert_refused(new)


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.DESTROYED])
def test_tokens_of_a_key_that_is_not_enabled_are_refused(state):
    """Disabling or destroying a key refuses its tokens, even after they were opened before; the others still open."""
    rotated = rotate(KEYSET, random.Random(24).randbytes, 2.0)
    new = seal_token(rotated, BINDING, Kind.STRING, "x")
    assert open_token(rotated, BINDING, TOKEN)
    without = set_state(rotated, KEYSET.primary_id, state)
    assert_refused(TOKEN, keyset=without)
    assert open_token(without, BINDING, new) == (Kind.STRING, "x")


def test_looks_like_token_goes_by_the_prefix():
    """Only a text that begins with `tok_`, in this case of letters, may be a token."""
    assert looks_like_token(TOKEN)
    assert not any(map(looks_like_token, ("", "tok", "TOK_x", " tok_x", "xtok_")))
