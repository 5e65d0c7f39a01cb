"""KEKs that this process holds: bytes and passphrases. They open what they wrapped, and say what is wrong otherwise."""

from __future__ import annotations

import copy
import json
import pickle
import random

import pytest
from support.key_needles import key_needles, leaks_in, leaks_in_error, materials

import gharial.crypto.kek
from gharial.crypto.kek import Kek, LocalKek, PassphraseKek, WrappedKey
from gharial.crypto.keyfile import unwrap_keyset, wrap_keyset
from gharial.crypto.keyset import create_keyset, new_kek, parse_kek
from gharial.model.errors import GharialError, KekUnavailable, KeyFileUnusable

SOURCE = random.Random(61).randbytes
PASSPHRASE = "correct horse battery stäple"
DATA_KEY = SOURCE(32)
WRAPPED = PassphraseKek(PASSPHRASE).wrap(DATA_KEY, b"here", SOURCE)
LOCAL = LocalKek(parse_kek(new_kek(SOURCE)))


@pytest.mark.parametrize("kek", [LOCAL, PassphraseKek(PASSPHRASE)], ids=["local", "passphrase"])
def test_a_kek_opens_what_it_wrapped_and_only_where_it_belongs(kek: Kek):
    """The data key comes back under the same binding; under another one the file counts as edited."""
    wrapped = kek.wrap(DATA_KEY, b"here", SOURCE)
    assert bytes(kek.unwrap(wrapped, b"here")) == DATA_KEY
    assert wrapped.kind == kek.kind
    with pytest.raises(KeyFileUnusable, match="edited"):
        kek.unwrap(wrapped, b"there")


def test_a_passphrase_is_the_same_however_it_was_typed():
    """A letter with its accent in one character or in two is one passphrase (Unicode NFC)."""
    typed = PASSPHRASE.replace("ä", "a\u0308")
    assert typed != PASSPHRASE
    assert bytes(PassphraseKek(typed).unwrap(WRAPPED, b"here")) == DATA_KEY


def test_a_wrong_passphrase_is_told_from_an_edited_file():
    """Whoever mistypes is told so; nothing of either passphrase is in the error."""
    with pytest.raises(KeyFileUnusable, match="not the one that wrapped") as caught:
        PassphraseKek(PASSPHRASE + "x").unwrap(WRAPPED, b"here")
    assert leaks_in_error(caught.value, [PASSPHRASE.encode(), *key_needles(DATA_KEY)]) == []


def test_salts_are_fresh_and_a_short_passphrase_wraps_nothing():
    """Two files of one passphrase share no salt and no id; one of eleven characters is refused without quoting it."""
    again = PassphraseKek(PASSPHRASE).wrap(DATA_KEY, b"here", SOURCE)
    assert again.parameters["salt"] != WRAPPED.parameters["salt"]
    assert again.name != WRAPPED.name
    with pytest.raises(KeyFileUnusable, match="fewer than 12") as caught:
        PassphraseKek("elevenchars").wrap(DATA_KEY, b"here", SOURCE)
    assert leaks_in_error(caught.value, [b"elevenchars"]) == []


@pytest.mark.parametrize(
    "change",
    [
        {"memory_kib": 262_145},
        {"memory_kib": 2**52},
        {"memory_kib": 8_191},
        {"memory_kib": "65536"},
        {"passes": 11},
        {"passes": 0},
        {"lanes": 17},
        {"lanes": 0},
        {"salt": "AAAA"},
        {"salt": "!" * 22},
        {"salt": 7},
    ],
    ids=str,
)
def test_costs_of_a_hostile_file_are_refused_before_they_are_paid(change, monkeypatch):
    """More memory or passes than Gharial ever writes, or fewer, and odd salts: refused, and nothing is derived."""

    def paid(**_: object) -> None:
        raise AssertionError("the costs were paid")

    monkeypatch.setattr(gharial.crypto.kek, "Argon2id", paid)
    hostile = WrappedKey(WRAPPED.kind, WRAPPED.name, WRAPPED.wrapped, {**WRAPPED.parameters, **change})
    with pytest.raises(KeyFileUnusable, match="edited"):
        PassphraseKek(PASSPHRASE).unwrap(hostile, b"here")


def test_a_missing_parameter_is_refused():
    """Each of the four has to be there."""
    for name in WRAPPED.parameters:
        rest = {key: value for key, value in WRAPPED.parameters.items() if key != name}
        with pytest.raises(KeyFileUnusable, match="edited"):
            PassphraseKek(PASSPHRASE).unwrap(WrappedKey(WRAPPED.kind, WRAPPED.name, WRAPPED.wrapped, rest), b"here")


def test_another_sort_of_kek_is_named():
    """A file that a passphrase wrapped, and bytes to open it with: the error names both sorts, no odd characters."""
    with pytest.raises(KeyFileUnusable, match=r"kind passphrase, keys\.kek is of kind local"):
        LOCAL.unwrap(WRAPPED, b"here")
    with pytest.raises(KeyFileUnusable, match=r"kind \?\[31mx"):
        LOCAL.unwrap(WrappedKey("\x1b[31mx" + "y" * 500, "", ""), b"here")


def test_a_file_under_a_passphrase_reads_back_and_shows_it_nowhere():
    """Wrapped and unwrapped as a whole; passphrase and data key stand in no spelling in the file."""
    keyset = create_keyset(SOURCE, 1.0)
    file = wrap_keyset(keyset, PassphraseKek(PASSPHRASE), SOURCE)
    assert unwrap_keyset(file, PassphraseKek(PASSPHRASE)).keys == keyset.keys
    assert json.loads(file)["kek"]["parameters"].keys() == {"salt", "memory_kib", "passes", "lanes"}
    assert leaks_in(file, key_needles(PASSPHRASE.encode(), *materials(keyset))) == []


def test_a_file_of_version_1_needs_the_bytes_that_wrapped_it():
    """A passphrase can't open it, and the error says what can."""
    v1 = b'{"format":"gharial.keyset","version":1,"keyset":"a","kek":"00000000","primary":1,"keys":[],"seal":""}'
    with pytest.raises(KeyFileUnusable, match="keys rewrap"):
        unwrap_keyset(v1, PassphraseKek(PASSPHRASE))


class Short:
    """A KMS that answers with something."""

    kind = "local"

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def wrap(self, data_key: bytes, binding: bytes, random: object) -> WrappedKey:
        return WrappedKey(self.kind, "x", "y")

    def unwrap(self, wrapped: WrappedKey, binding: bytes) -> bytes:
        return self.answer

    def __repr__(self) -> str:
        return "<the KMS at x>"


def test_a_kek_that_answers_garbage_opens_nothing():
    """Too short a data key names the KEK; one of the right length that is another one is found by what it wraps."""
    file = wrap_keyset(create_keyset(SOURCE, 1.0), Short(b""), SOURCE)
    with pytest.raises(KekUnavailable, match=r"the KMS at x.* 31 bytes"):
        unwrap_keyset(file, Short(bytes(31)))
    with pytest.raises(KeyFileUnusable, match="can't be unwrapped"):
        unwrap_keyset(file, Short(bytes(32)))


@pytest.mark.parametrize("kek", [LOCAL, PassphraseKek(PASSPHRASE)], ids=["local", "passphrase"])
def test_a_kek_prints_and_pickles_nowhere(kek: Kek):
    """Neither repr nor str shows it, and it can't be pickled or copied."""
    assert leaks_in(f"{kek!r} {kek} {vars(kek)}", [PASSPHRASE.encode(), *key_needles(LOCAL.key)]) == []
    for work in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            work(kek)


def test_errors_are_of_the_expected_kind():
    """Whatever text stands as the wrapped key, unwrapping ends in an expected error."""
    for text in ("", "A", "A" * 60, "ä", "\ud800", "=" * 40):
        for kek, wrapped in ((LOCAL, WrappedKey("local", LOCAL.kek_id, text)),):
            with pytest.raises(GharialError):
                kek.unwrap(wrapped, b"here")
