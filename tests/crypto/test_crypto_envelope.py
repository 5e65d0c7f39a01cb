"""Envelopes: another one each time, opened by the keyset alone, and bound to tenant and tag."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.crypto.envelope import PREFIX, open_envelope, sealer
from gharial.crypto.keyset import KeyState, create_keyset, rotate, set_state
from gharial.model.errors import TokenRefused
from gharial.model.finding import Kind

SOURCE = random.Random(71).randbytes
KEYSET = create_keyset(SOURCE, 1.0)
SEAL = sealer(KEYSET, "default", "account", SOURCE)

kinds = st.sampled_from(list(Kind))


def sealed(kind: Kind, text: str) -> str:
    envelope = SEAL(kind, text)
    assert envelope is not None
    return envelope


@given(kinds, st.text())
def test_the_way_leads_back(kind, text):
    """Type and text come back, and two envelopes of one value have nothing but the key id in common."""
    one, other = sealed(kind, text), sealed(kind, text)
    assert open_envelope(KEYSET, "default", "account", one) == (kind, text)
    assert one.startswith(PREFIX)
    # Prefix, and version and key id in base64url.
    assert one[:10] == other[:10]
    assert one[11:] != other[11:]


def test_a_lone_surrogate_has_no_envelope():
    """It has no UTF-8, so it can't be encrypted."""
    assert SEAL(Kind.STRING, "\ud800") is None


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_change_of_any_byte_is_refused(at, by):
    """Nothing that was changed opens, whatever was changed, and always with the same error."""
    text = sealed(Kind.STRING, "4711")
    at %= len(text)
    changed = text[:at] + chr((ord(text[at]) + by) % 128) + text[at + 1 :]
    if changed != text:
        with pytest.raises(TokenRefused):
            open_envelope(KEYSET, "default", "account", changed)


@given(st.text())
def test_any_text_is_opened_or_refused(text):
    """No text raises anything else."""
    with pytest.raises(TokenRefused):
        open_envelope(KEYSET, "default", "account", text)


@pytest.mark.parametrize(("tenant", "tag"), [("other", "account"), ("default", "iban")])
def test_of_another_tenant_or_tag_is_refused(tenant, tag):
    """An envelope is bound to both."""
    with pytest.raises(TokenRefused):
        open_envelope(KEYSET, tenant, tag, sealed(Kind.STRING, "4711"))


def test_after_a_rotation_old_envelopes_open_until_their_key_goes():
    """A rotation makes new ones with a new key; the old ones open while their key is enabled."""
    old = sealed(Kind.NUMBER, "1.10")
    rotated = rotate(KEYSET, random.Random(72).randbytes, 2.0)
    assert open_envelope(rotated, "default", "account", old) == (Kind.NUMBER, "1.10")
    new = sealer(rotated, "default", "account", SOURCE)(Kind.NUMBER, "1.10")
    with pytest.raises(TokenRefused):
        open_envelope(KEYSET, "default", "account", str(new))
    gone = set_state(rotated, KEYSET.primary_id, KeyState.DESTROYED)
    with pytest.raises(TokenRefused):
        open_envelope(gone, "default", "account", old)


def test_a_source_that_gives_too_little_is_an_error():
    """A nonce that is not random through and through must never be used."""
    with pytest.raises(ValueError, match="random source"):
        sealer(KEYSET, "default", "account", lambda count: bytes(count - 1))(Kind.STRING, "a")
