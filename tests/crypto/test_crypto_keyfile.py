"""The key file: it reads back, and any change of it is found and named."""

from __future__ import annotations

import json
import random
import re
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.crypto.kek import Kek, LocalKek
from gharial.crypto.keyfile import MAX_FILE_BYTES, unwrap_keyset, wrap_keyset
from gharial.crypto.keyset import (
    KeyState,
    Purpose,
    create_keyset,
    living_materials,
    new_kek,
    parse_kek,
    rotate,
    set_state,
)
from gharial.model.errors import KeyFileUnusable

SOURCE = random.Random(11).randbytes
KEK = LocalKek(parse_kek(new_kek(SOURCE)))
OTHER_KEK = LocalKek(parse_kek(new_kek(SOURCE)))
KEYSET = rotate(rotate(rotate(create_keyset(SOURCE, 1.0), SOURCE, 2.0), SOURCE, 3.0), SOURCE, 4.0)
KEYSET = set_state(KEYSET, KEYSET.keys[0].id, KeyState.DESTROYED)
KEYSET = set_state(KEYSET, KEYSET.keys[1].id, KeyState.DISABLED)
FILE = wrap_keyset(KEYSET, KEK, SOURCE)
_EXEMPLAR = json.loads((Path(__file__).parents[1] / "exemplars" / "keyset" / "v1" / "after_a_life.json").read_text())
FILE_V1 = _EXEMPLAR["key_file"].encode()
KEK_V1 = LocalKek(parse_kek(_EXEMPLAR["kek"]))
FILES = pytest.mark.parametrize(("file", "kek"), [(FILE, KEK), (FILE_V1, KEK_V1)], ids=["v2", "v1"])


def edited(change) -> bytes:
    """Return the file after a change of its content, spelled exactly as the writer spells it."""
    content = json.loads(FILE)
    change(content)
    return (json.dumps(content, indent=2) + "\n").encode()


def refusal(data: bytes, kek: Kek = KEK) -> str:
    with pytest.raises(KeyFileUnusable) as caught:
        unwrap_keyset(data, kek)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_a_key_file_reads_back():
    """Keys, states, order, times, primary and material come back as they were."""
    again = unwrap_keyset(FILE, KEK)
    assert (again.keyset_id, again.keys, again.primary_id) == (KEYSET.keyset_id, KEYSET.keys, KEYSET.primary_id)
    assert again.revision == KEYSET.revision == 6
    assert dict(living_materials(again)) == dict(living_materials(KEYSET))
    assert again.derive(Purpose.TOKEN, "t", "a", 64) == KEYSET.derive(Purpose.TOKEN, "t", "a", 64)


def test_a_key_file_holds_no_material():
    """No spelling of a key or of the KEK stands in the file, and two files of one keyset share no wrapped key."""
    for secret in (*living_materials(KEYSET).values(), KEK.key):
        assert bytes(secret) not in FILE
        assert secret.hex().encode() not in FILE
    again = json.loads(wrap_keyset(KEYSET, KEK, SOURCE))
    wrapped = {key["wrapped"] for key in json.loads(FILE)["keys"] if key["wrapped"]}
    assert len(wrapped) == 3
    assert wrapped.isdisjoint(key["wrapped"] for key in again["keys"])


@FILES
def test_every_single_byte_change_is_refused(file: bytes, kek: Kek):
    """Whichever byte is changed, to whatever: the file is refused, white space and letters' case included."""
    choose = random.Random(12)
    for at in range(len(file)):
        for byte in {file[at] ^ 1, file[at] ^ 0x20, ord("0"), choose.randrange(256)} - {file[at]}:
            refusal(file[:at] + bytes([byte]) + file[at + 1 :], kek)


@FILES
def test_every_truncation_and_every_deletion_is_refused(file: bytes, kek: Kek):
    """A file cut anywhere, or with one byte missing or doubled, is refused."""
    for at in range(len(file)):
        refusal(file[:at], kek)
        refusal(file[:at] + file[at + 1 :], kek)
        refusal(file[:at] + file[at : at + 1] + file[at:], kek)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
).map(lambda content: json.dumps(content).encode()))  # fmt: skip
def test_any_bytes_are_refused_with_the_expected_error(data):
    """Whatever stands in the file, reading ends in KeyFileUnusable and nothing else."""
    refusal(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"format":' * 50_000,
        b'{"format": "gharial.keyset", "version": ' + b"9" * 5_000 + b"}",
        b" " * (MAX_FILE_BYTES + 1),
        b'{"x":' + b"[" * 100_000,
        b'{"format": "\xff"}',
        b'{"format": "\\ud800", "version": 1}',
    ],
    ids=[
        "brackets",
        "braces",
        "long number",
        "too large",
        "brackets in an unknown name",
        "not utf-8",
        "lone surrogate",
    ],
)
def test_hostile_files_are_refused_with_the_expected_error(data):
    """Depth, length and odd bytes end in KeyFileUnusable too."""
    refusal(data)


def test_a_wrong_kek_is_named():
    """With another KEK the error names both KEKs by their ids and says what to give."""
    ours, other = json.loads(FILE)["kek"]["name"], OTHER_KEK.kek_id
    said = refusal(FILE, OTHER_KEK)
    assert ours != other
    assert f"names KEK {ours}, the one given is {other}" in said
    with pytest.raises(KeyFileUnusable, match="5 bytes instead of 32"):
        LocalKek(b"short")


def test_a_wrong_kek_does_not_open_a_file_that_claims_it():
    """The KEK's id is a help, not the lock: a file edited to name another KEK stays shut."""
    claimed = edited(lambda file: file["kek"].update(name=OTHER_KEK.kek_id))
    assert "can't be unwrapped" in refusal(claimed, OTHER_KEK)
    v1 = json.loads(FILE_V1)
    v1["kek"] = OTHER_KEK.kek_id
    assert "can't be unwrapped" in refusal((json.dumps(v1, indent=2) + "\n").encode(), OTHER_KEK)


def test_a_newer_format_is_named():
    """A file of a later format says its version and asks for a newer Gharial, even if nothing else of it is known."""
    assert "version 3" in refusal(edited(lambda file: file.update(version=3)))
    assert "newer Gharial" in refusal(b'{"format": "gharial.keyset", "version": 4, "boxes": []}')
    for file, version in ((FILE, 1), (FILE_V1, 2)):
        relabelled = file.replace(b'"version": %d' % (3 - version), b'"version": %d' % version)
        assert f"not of format version {version}" in refusal(relabelled)


def test_a_damaged_key_is_named():
    """If one wrapped key was changed, the error names that key."""
    for index in (1, 2, 3):
        damaged = edited(
            lambda file, index=index: file["keys"][index].update(wrapped=file["keys"][index - 1]["wrapped"])
        )
        assert f"key {KEYSET.keys[index].id} can't be unwrapped" in refusal(damaged)


def swap_keys(file) -> None:
    file["keys"][2], file["keys"][3] = file["keys"][3], file["keys"][2]


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.update(primary=file["keys"][2]["id"]),
        lambda file: file["keys"][1].update(state="enabled"),
        lambda file: file["keys"][2].update(state="disabled"),
        lambda file: file["keys"][2].update(state="destroyed", wrapped=""),
        lambda file: file["keys"][2].update(created_s=7),
        lambda file: file["keys"].pop(0),
        lambda file: file["keys"].pop(2),
        lambda file: file["keys"].append(file["keys"][2]),
        swap_keys,
        lambda file: file.update(seal=""),
        lambda file: file.update(seal="é"),
    ],
    ids=["primary", "enable", "disable", "destroy", "time", "drop destroyed", "drop", "double", "order", "none", "odd"],
)
def test_edited_metadata_is_found(change):
    """Primary, states, times, order and number of keys can't be changed without the KEK."""
    assert "edited: its seal does not hold" in refusal(edited(change))


def test_a_key_of_another_keyset_does_not_fit():
    """A wrapped key moved from another keyset under the same KEK, with the same key id, is not taken."""
    other = json.loads(wrap_keyset(rotate(create_keyset(SOURCE, 1.0), SOURCE, 2.0), KEK, SOURCE))
    moved = edited(lambda file: file["keys"][2].update(id=other["keys"][0]["id"], wrapped=other["keys"][0]["wrapped"]))
    assert re.search(r"key \d+ can't be unwrapped", refusal(moved))


def test_the_same_content_in_another_spelling_is_refused():
    """White space, a name given twice or an extra name are found, although the authenticated content is the same."""
    refusal(json.dumps(json.loads(FILE)).encode())
    refusal(FILE + b"\n")
    refusal(FILE.replace(b"\n", b"\r\n"))
    refusal(FILE.replace(b'"version": 2,', b'"version": 2,\n  "version": 2,'))
    refusal(FILE.replace(b'"version": 2,', b'"version": 2,\n  "note": "",'))


def test_no_key_in_any_traceback_of_a_bad_file():
    """Local variables on the failing paths show neither a key nor the KEK."""
    secrets = [KEK.key, *living_materials(KEYSET).values()]
    for data in (FILE[:-9], edited(lambda file: file.update(seal="")), edited(lambda file: file["keys"].pop(2))):
        with pytest.raises(KeyFileUnusable) as caught:
            unwrap_keyset(data, KEK)
        shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
        for secret in secrets:
            assert repr(bytes(secret))[2:-1] not in shown
            assert secret.hex() not in shown
