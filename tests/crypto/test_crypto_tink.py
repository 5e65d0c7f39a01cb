"""Tink's format: what Tink wrote is read, what it read is still written so, hostile texts end in expected errors."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.key_needles import key_needles, leaks_in, leaks_in_error, materials

from gharial.crypto.kek import LocalKek
from gharial.crypto.keyfile import unwrap_keyset
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
from gharial.crypto.tink import (
    MAX_TINK_BYTES,
    adopt,
    export_cleartext,
    export_cleartext_tokens,
    export_encrypted,
    export_encrypted_tokens,
    import_tink,
)
from gharial.model.errors import KeyFileUnusable, KeyNeeded

EXEMPLARS = Path(__file__).parents[1] / "exemplars" / "tink" / "v1"
THEIRS = json.loads((EXEMPLARS / "written_by_tink.json").read_text())
OURS = json.loads((EXEMPLARS / "read_by_tink.json").read_text())
SOURCE = random.Random(81).randbytes
KEK = LocalKek(parse_kek(new_kek(SOURCE)))
KEYSET = rotate(rotate(rotate(create_keyset(SOURCE, 1.0), SOURCE, 2.0), SOURCE, 3.0), SOURCE, 4.0)
KEYSET = set_state(KEYSET, KEYSET.keys[1].id, KeyState.DISABLED)
KEYSET = set_state(KEYSET, KEYSET.keys[2].id, KeyState.DESTROYED)


def kek_of(exemplar: dict[str, Any]) -> LocalKek:
    return LocalKek(parse_kek(exemplar["kek"]))


def token_key(keyset: Keyset) -> str:
    return keyset.derive(Purpose.TOKEN, "default", "email", 64).hex()


@pytest.mark.parametrize("form", ["cleartext", "encrypted"])
def test_what_tink_wrote_is_read_and_computes_the_same(form: str):
    """A PRF keyset of Tink's own becomes a keyset, and derives what Tink's `compute` gave for the same info."""
    keyset = import_tink(THEIRS[form].encode(), kek_of(THEIRS), "an-id", 7.0)
    assert token_key(keyset) == THEIRS["derived_hex"]
    assert (keyset.keyset_id, keyset.keys[0].created_s, keyset.revision) == ("an-id", 7, 1)


def test_what_tink_read_is_still_written_so():
    """The exports of the exemplar's key file are byte for byte what Tink read; encrypted ones hold the same keys."""
    keyset = unwrap_keyset(OURS["key_file"].encode(), kek_of(OURS))
    assert bytes(export_cleartext(keyset)).decode() == OURS["cleartext"]
    assert bytes(export_cleartext_tokens(keyset, "default", "email")).decode() == OURS["tokens_cleartext"]
    assert token_key(keyset) == OURS["derived_hex"]
    for form in ("cleartext", "encrypted"):
        again = import_tink(OURS[form].encode(), kek_of(OURS), keyset.keyset_id, 1.0)
        assert living_materials(again) == living_materials(keyset)


def test_a_token_is_a_ciphertext_of_tinks():
    """The bytes of a token are what Tink's DeterministicAead made and opened with the exported keys of its tag."""
    token = OURS["token"].removeprefix("tok_")
    assert base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).hex() == OURS["ciphertext_hex"]


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_keyset_goes_there_and_back(encrypted: bool):
    """Ids, states, order, primary and material come back, those of destroyed keys without material."""
    data = export_encrypted(KEYSET, KEK, SOURCE) if encrypted else bytes(export_cleartext(KEYSET))
    again = import_tink(data, KEK, "other", 9.0)
    assert [(key.id, key.state) for key in again.keys] == [(key.id, key.state) for key in KEYSET.keys]
    assert again.primary_id == KEYSET.primary_id
    assert living_materials(again) == living_materials(KEYSET)


def test_an_encrypted_export_shows_no_key_and_a_cleartext_one_prints_none():
    """Encrypted, no key stands in the file. In clear it does, but its repr, in a log by mistake, holds nothing."""
    needles = key_needles(*materials(KEYSET), KEYSET.derive(Purpose.TOKEN, "t", "a", 64))
    for data in (export_encrypted(KEYSET, KEK, SOURCE), export_encrypted_tokens(KEYSET, "t", "a", KEK, SOURCE)):
        assert leaks_in(data, needles) == []
    for clear in (export_cleartext(KEYSET), export_cleartext_tokens(KEYSET, "t", "a")):
        assert leaks_in(f"{clear!r} {clear}", needles) == []
        assert leaks_in(bytes(clear), needles) != []


def test_the_keys_of_one_tag_tell_nothing_of_another():
    """An export of tokens holds keys of enabled keys only, of that tenant and tag, and no key of the keyset."""
    content = json.loads(export_cleartext_tokens(KEYSET, "t", "a"))
    assert [key["keyId"] for key in content["key"]] == [KEYSET.keys[0].id, KEYSET.keys[3].id]
    others = [KEYSET.derive(Purpose.TOKEN, tenant, tag, 64) for tenant, tag in (("t", "b"), ("u", "a"))]
    assert leaks_in(bytes(export_cleartext_tokens(KEYSET, "t", "a")), key_needles(*materials(KEYSET), *others)) == []


def changed(change: Any) -> bytes:
    content = json.loads(export_cleartext(KEYSET))
    change(content)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (bytes(export_cleartext_tokens(KEYSET, "t", "a")), "AES-SIV key, which is derived for one tag"),
        (changed(lambda c: c["key"][0]["keyData"].update(typeUrl="type.googleapis.com/x")), "of another type"),
        (changed(lambda c: c["key"][0]["keyData"].update(value="EgIIBBog" + "A" * 43 + "=")), "not HKDF-SHA256"),
        (changed(lambda c: c["key"][0]["keyData"].update(value="")), "not HKDF-SHA256"),
        (changed(lambda c: c["key"][0].pop("keyData")), "of another type"),
        (changed(lambda c: c["key"][0].update(keyId=2**31)), "2147483648 .* 2\\*\\*31 - 1"),
        (changed(lambda c: c["key"][0].update(keyId=0)), "key 0 "),
        (changed(lambda c: c["key"].append(c["key"][0])), "not unique"),
        (changed(lambda c: c.update(primaryKeyId=5)), "primary"),
        (changed(lambda c: c["key"][3].update(status="DISABLED")), "primary"),
        (changed(lambda c: c["key"][0].update(status="UNKNOWN_STATUS")), "no Tink keyset"),
        (changed(lambda c: c.update(key=[])), "primary"),
        (b"", "no Tink keyset"),
        (b"[" * 100_000, "no Tink keyset"),
        (b" " * (MAX_TINK_BYTES + 1), "larger than"),
        (b'{"encryptedKeyset": "AAAA"}', "is not what encrypted it"),
        (b'{"encryptedKeyset": "!"}', "no Tink keyset"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_can_not_be_imported_is_said(data: bytes, word: str):
    """Another type of key, ids and states that can't be, no keyset at all: each in its words, and without a key."""
    with pytest.raises(KeyFileUnusable, match=word) as caught:
        import_tink(data, KEK, "id", 1.0)
    assert leaks_in_error(caught.value, key_needles(*materials(KEYSET))) == []


def test_an_encrypted_keyset_needs_the_kek_that_encrypted_it():
    """Another KEK, none, and any changed byte: refused, the keyset stays shut."""
    data = export_encrypted(KEYSET, KEK, SOURCE)
    for kek in (LocalKek(SOURCE(32)), None):
        with pytest.raises(KeyFileUnusable, match="is not what encrypted it"):
            import_tink(data, kek, "id", 1.0)
    sealed = bytearray(base64.b64decode(json.loads(data)["encryptedKeyset"]))
    for at in range(0, len(sealed), 7):
        edited = bytes(sealed[:at]) + bytes([sealed[at] ^ 1]) + bytes(sealed[at + 1 :])
        with pytest.raises(KeyFileUnusable):
            import_tink(json.dumps({"encryptedKeyset": base64.b64encode(edited).decode()}).encode(), KEK, "id", 1.0)


@given(st.binary(max_size=120))
def test_any_protocol_buffer_under_the_right_kek_is_an_expected_error(plain: bytes):
    """Whoever has the KEK may still have garbage in it: no other error than the expected one."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from gharial.crypto.kek import from_kek

    sealed = bytes(12) + AESGCM(from_kek(KEK.key, "tink", "", 32)).encrypt(bytes(12), plain, None)
    with pytest.raises(KeyFileUnusable):
        import_tink(json.dumps({"encryptedKeyset": base64.b64encode(sealed).decode()}).encode(), KEK, "id", 1.0)


def test_an_import_becomes_the_next_revision_of_what_is_there():
    """Keyset id and times of known keys stay, the revision goes on; one id for two keys is refused by its number."""
    imported = import_tink(bytes(export_cleartext(rotate(KEYSET, SOURCE, 5.0))), None, "x", 9.0)
    joined = adopt(imported, KEYSET)
    assert (joined.keyset_id, joined.revision, len(joined.keys)) == (KEYSET.keyset_id, KEYSET.revision + 1, 5)
    assert [key.created_s for key in joined.keys] == [1, 2, 3, 4, 9]
    first = KEYSET.keys[0].id
    other = changed(
        lambda c: c["key"][0]["keyData"].update(
            value=base64.b64encode(b"\x12\x02\x08\x03\x1a\x20" + SOURCE(32)).decode()
        )
    )
    with pytest.raises(KeyNeeded, match=f"key {first} of the Tink keyset is another one"):
        adopt(import_tink(other, None, "x", 9.0), KEYSET)
