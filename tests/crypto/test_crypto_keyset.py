"""Keysets: derivation, rotation, states, and that key material shows up nowhere."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import random
import traceback

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.crypto.keyset import (
    Keyset,
    KeyState,
    Purpose,
    create_keyset,
    living_materials,
    new_kek,
    parse_kek,
    rotate,
    set_state,
)
from gharial.crypto.secret import SecretBytes
from gharial.crypto.token import Binding, open_token, seal_token
from gharial.model.errors import KeyFileUnusable, KeyUnknown, TokenRefused
from gharial.model.finding import Kind

PLANTED = b"PLANTED-KEY-MATERIAL-0123456789a"
KEYSET = rotate(create_keyset(random.Random(1).randbytes, 10.0), random.Random(2).randbytes, 20.0)
NAMES = st.text(max_size=4)


def planted_random(count: int) -> bytes:
    """A source whose every key is the planted one, so that it can be looked for; ids stay different."""
    return PLANTED if count == 32 else os.urandom(count)


def spellings(secret: bytes) -> list[str]:
    """The ways in which a secret could be seen in a text."""
    return [
        secret.decode("latin-1"),
        secret.hex(),
        base64.b64encode(secret).decode().rstrip("="),
        base64.urlsafe_b64encode(secret).decode().rstrip("="),
        repr(secret)[2:-1],
        str(list(secret))[1:-1],
    ]


def assert_hidden(text: str, *secrets: bytes) -> None:
    for secret in secrets:
        for spelling in spellings(secret):
            assert spelling not in text


def test_the_planted_key_would_be_found():
    """The search itself works: a key that does stand in a text is seen in each of its spellings."""
    for text in (repr(PLANTED), PLANTED.hex(), base64.b64encode(PLANTED).decode(), str(list(PLANTED))):
        with pytest.raises(AssertionError):
            assert_hidden(text, PLANTED)


def test_key_material_is_in_no_repr_and_no_text():
    """Neither a keyset, nor its parts, nor a derived key, nor a KEK prints its bytes."""
    keyset = rotate(create_keyset(planted_random, 1.0), planted_random, 2.0)
    derived = keyset.derive(Purpose.TOKEN, "t", "a", 64)
    kek = parse_kek(new_kek(planted_random))
    for thing in (keyset, living_materials(keyset), derived, kek, keyset.keys):
        shown = f"{thing!r} {thing!s} {thing} {[thing]} %s %r" % (thing, thing)
        assert_hidden(shown, PLANTED, bytes(derived))


def test_key_material_does_not_pickle_or_copy():
    """No way of the standard library to send or copy an object takes a key along."""
    keyset = create_keyset(planted_random, 1.0)
    for secret in (keyset, keyset.derive(Purpose.TOKEN, "t", "a", 32), parse_kek(new_kek(os.urandom))):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError):
                pickle.dumps(secret, protocol)
        for duplicate in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                duplicate(secret)
    with pytest.raises(TypeError):
        json.dumps(keyset, default=None)
    with pytest.raises(TypeError):
        msgspec.json.encode(keyset)


def test_key_material_is_in_no_traceback():
    """A traceback that shows local variables, as some loggers do, shows no key: not on any of the failing paths."""
    keyset = create_keyset(planted_random, 1.0)
    disabled = set_state(rotate(keyset, planted_random, 2.0), keyset.primary_id, KeyState.DISABLED)
    token = seal_token(keyset, Binding("t", "a", "client", "c"), Kind.STRING, "x")
    failing = [
        lambda: disabled.derive(Purpose.TOKEN, "t", "a", 64, keyset.primary_id),
        lambda: keyset.derive(Purpose.TOKEN, "t", "a", 10**9),
        lambda: open_token(keyset, Binding("t", "a", "client", "d"), token),
        lambda: Keyset("id", keyset.keys, 12345, living_materials(keyset)),
        lambda: seal_token(keyset, Binding("t", "a", "client", "c"), Kind.STRING, "\ud800"),
    ]
    for call in failing:
        with pytest.raises((KeyUnknown, ValueError, TokenRefused)) as caught:
            call()
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert_hidden("".join(shown.format()), PLANTED, bytes(keyset.derive(Purpose.TOKEN, "t", "a", 64)))


def test_secrets_compare_by_content():
    """`==` of secrets is true for equal bytes only, and their hash tells nothing."""
    assert SecretBytes(b"a" * 32) == SecretBytes(b"a" * 32) == b"a" * 32
    assert SecretBytes(b"a" * 32) != SecretBytes(b"a" * 31 + b"b")
    assert SecretBytes(b"a") != "a"
    assert hash(SecretBytes(b"a")) == hash(SecretBytes(b"b"))


def test_a_new_keyset_has_one_enabled_primary():
    """A created keyset holds one key, its primary, made at the given time."""
    keyset = create_keyset(random.Random(3).randbytes, 1234.9)
    (key,) = keyset.keys
    assert key.id == keyset.primary_id == keyset.oldest_enabled_id
    assert (key.state, key.created_s) == (KeyState.ENABLED, 1234)
    assert 0 < key.id < 2**31


def test_rotation_adds_a_primary_and_keeps_the_rest():
    """Rotation changes what the primary derives, keeps every old key as it was, and leaves the old keyset alone."""
    before = create_keyset(random.Random(4).randbytes, 1.0)
    after = rotate(before, random.Random(5).randbytes, 2.0)
    assert after.keyset_id == before.keyset_id
    assert after.keys[0] == before.keys[0]
    assert after.primary_id == after.keys[1].id != before.primary_id
    assert after.oldest_enabled_id == before.primary_id
    assert len(before.keys) == 1
    same = (Purpose.TOKEN, "t", "a", 64)
    assert after.derive(*same) != before.derive(*same)
    assert after.derive(*same, before.primary_id) == before.derive(*same)


@given(st.lists(st.tuples(st.sampled_from(Purpose), NAMES, NAMES, st.sampled_from([16, 32, 64])), unique=True))
def test_different_names_give_different_keys(names):
    """No two of (purpose, tenant, tag, length) share a key, and no key is the beginning of another."""
    beginnings = {bytes(KEYSET.derive(*name))[:16] for name in names}
    assert len(beginnings) == len(names)


def test_the_border_between_tenant_and_tag_counts():
    """('ab', 'c') and ('a', 'bc') are different, although they are the same letters."""
    assert KEYSET.derive(Purpose.TOKEN, "ab", "c", 32) != KEYSET.derive(Purpose.TOKEN, "a", "bc", 32)


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.DESTROYED])
def test_a_key_that_is_not_enabled_derives_nothing(state):
    """A disabled or destroyed key raises KeyUnknown, which names the key and its state."""
    old = KEYSET.keys[0].id
    with pytest.raises(KeyUnknown, match=f"key {old} .* is {state.value}"):
        set_state(KEYSET, old, state).derive(Purpose.TOKEN, "t", "a", 32, old)


def test_an_unknown_key_derives_nothing():
    """A key id that is not in the keyset raises KeyUnknown."""
    with pytest.raises(KeyUnknown, match="key 77 is not in keyset"):
        KEYSET.derive(Purpose.TOKEN, "t", "a", 32, 77)


def test_a_disabled_key_can_be_enabled_again_and_a_destroyed_one_cannot():
    """Disabling keeps the material; destroying drops it for good."""
    old = KEYSET.keys[0].id
    same = (Purpose.TOKEN, "t", "a", 32, old)
    again = set_state(set_state(KEYSET, old, KeyState.DISABLED), old, KeyState.ENABLED)
    assert again.derive(*same) == KEYSET.derive(*same)
    destroyed = set_state(KEYSET, old, KeyState.DESTROYED)
    assert old not in living_materials(destroyed)
    with pytest.raises(KeyUnknown, match="nothing brings it back"):
        set_state(destroyed, old, KeyState.ENABLED)


def test_the_primary_can_only_be_rotated_away():
    """The primary can't be disabled or destroyed: nothing could be sealed any more."""
    for state in (KeyState.DISABLED, KeyState.DESTROYED):
        with pytest.raises(KeyUnknown, match="rotate the keyset"):
            set_state(KEYSET, KEYSET.primary_id, state)


def test_the_oldest_enabled_key_is_the_first_in_order():
    """It is told by the order of the keys and not by their times, since a clock may have gone back."""
    keyset = rotate(create_keyset(random.Random(6).randbytes, 2_000.0), random.Random(7).randbytes, 1_000.0)
    assert keyset.oldest_enabled_id == keyset.keys[0].id


def test_a_random_source_that_fails_makes_no_key():
    """A source that gives too few bytes, or always the same key id, raises instead of making a weak keyset."""
    with pytest.raises(ValueError, match="gave 3 bytes"):
        create_keyset(lambda count: b"abc", 1.0)
    with pytest.raises(ValueError, match="repeats itself"):
        create_keyset(bytes, 1.0)
    stuck = create_keyset(lambda count: b"\x11" * count, 1.0)
    with pytest.raises(ValueError, match="repeats itself"):
        rotate(stuck, lambda count: b"\x11" * count, 2.0)


def test_a_kek_reads_back():
    """What `new_kek` prints is what `parse_kek` reads, with white space around it."""
    text = new_kek(lambda count: PLANTED)
    assert bytes(parse_kek(f" {text}\n")) == PLANTED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret-PLANTED",
        base64.b64encode(PLANTED[:31]).decode(),
        base64.b64encode(PLANTED + b"x").decode(),
        base64.b64encode(PLANTED).decode().rstrip("="),
        PLANTED.hex(),
        "ä" + base64.b64encode(PLANTED).decode()[1:],
        base64.b64encode(bytes(32)).decode(),
    ],
)
def test_a_bad_kek_is_refused_without_being_quoted(text):
    """A KEK that is not 32 random bytes in base64 is refused, and the error, its causes too, quotes nothing of it."""
    with pytest.raises(KeyFileUnusable, match="KEK") as caught:
        parse_kek(text)
    said = "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    if text:
        assert text not in said.replace("parse_kek(text)", "")
    assert "PLANTED" not in str(caught.value)
