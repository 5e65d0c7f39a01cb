"""What earlier versions wrote is still read: the exemplars of keysets and tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gharial.crypto.envelope import open_envelope
from gharial.crypto.fpe import Format, Fpe
from gharial.crypto.kek import LocalKek, PassphraseKek
from gharial.crypto.keyfile import unwrap_keyset
from gharial.crypto.keyset import Purpose, parse_kek
from gharial.crypto.pseudonym import pseudonymiser, shift_of, substituter
from gharial.crypto.receipt import verify_receipt
from gharial.crypto.subject import (
    PersonKey,
    SubjectSealer,
    find_sealed_envelope,
    find_sealed_token,
    find_subject,
    open_with_subject,
)
from gharial.crypto.token import Binding, open_token, seal_token
from gharial.model.finding import Kind

EXEMPLARS = Path(__file__).parent.parent / "exemplars"
KEYSETS = sorted((EXEMPLARS / "keyset").glob("v*/*.json"))
TOKENS = sorted((EXEMPLARS / "token" / "v1").glob("*.json"))


def test_there_are_exemplars():
    """The folders are found, so that the tests below run on something."""
    assert len(KEYSETS) >= 5
    assert len(TOKENS) >= 6


@pytest.mark.parametrize("path", KEYSETS, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_a_keyset_of_every_version_is_read_and_derives_the_same_keys(path):
    """A key file of any version opens, with the same keys and states; every derived key is the same to the byte."""
    exemplar = json.loads(path.read_text())
    kek = PassphraseKek(exemplar["passphrase"]) if "passphrase" in exemplar else LocalKek(parse_kek(exemplar["kek"]))
    keyset = unwrap_keyset(exemplar["key_file"].encode(), kek)
    assert keyset.revision == exemplar.get("revision", 0)
    keys = [{"id": key.id, "state": key.state.value, "created_s": key.created_s} for key in keyset.keys]
    assert keys == exemplar["keys"]
    assert keyset.primary_id == exemplar["primary"]
    for want in exemplar["derived"]:
        got = keyset.derive(Purpose(want["purpose"]), want["tenant"], want["tag"], want["length"], want["key_id"])
        assert got.hex() == want["hex"]


@pytest.mark.parametrize("path", TOKENS, ids=lambda path: path.stem)
def test_a_token_of_version_1_is_opened_and_made_again(path):
    """A token of version 1 opens to its value, and the same value still gives the same token."""
    exemplar = json.loads(path.read_text())
    keyset = unwrap_keyset(exemplar["key_file"].encode(), LocalKek(parse_kek(exemplar["kek"])))
    binding = Binding(**exemplar["binding"])
    assert open_token(keyset, binding, exemplar["token"]) == (Kind(exemplar["kind"]), exemplar["text"])
    assert seal_token(keyset, binding, Kind(exemplar["kind"]), exemplar["text"]) == exemplar["token"]


def read_exemplar(name: str):
    exemplar = json.loads((EXEMPLARS / name).read_text())
    return exemplar, unwrap_keyset(exemplar["key_file"].encode(), LocalKek(parse_kek(exemplar["kek"])))


def test_an_envelope_of_version_1_is_opened():
    """What was encrypted comes back."""
    exemplar, keyset = read_exemplar("envelope/v1/number.json")
    opened = open_envelope(keyset, exemplar["tenant"], exemplar["tag"], exemplar["envelope"])
    assert opened == (Kind(exemplar["kind"]), exemplar["text"])


def test_fpe_of_version_1_is_made_again_and_opened():
    """Formats, check digits and recipients give the same texts as ever, and lead back."""
    exemplar, keyset = read_exemplar("fpe/v1/formats.json")
    assert len(exemplar["results"]) == 5
    for result in exemplar["results"]:
        fpe = Fpe(keyset, Binding(**result["binding"]), Format(*result["format"]))
        assert fpe.seal(result["text"]) == result["sealed"]
        assert fpe.open(result["sealed"]) == result["text"]


def test_one_way_results_of_version_1_are_made_again():
    """A pseudonym, a substitute and a person's shift are what they were."""
    exemplar, keyset = read_exemplar("pseudonym/v1/one_way.json")
    binding = Binding(**exemplar["binding"])
    assert pseudonymiser(keyset, binding)(Kind.STRING, "Ann") == exemplar["pseudonym"]
    assert substituter(keyset, binding, exemplar["choices"])(Kind.STRING, "Ann") == exemplar["substitute"]
    assert shift_of(keyset, binding, "AAAAAAAAAAAAAAAAAAAAAA", 30) == exemplar["shift_days"]


def test_what_was_made_with_a_persons_key_is_opened():
    """The wrapped key, a token, which is made again, an envelope and a receipt of version 1."""
    exemplar, keyset = read_exemplar("person/v1/number.json")
    row = exemplar["row"]
    key = PersonKey(row["person"], bytes.fromhex(row["handle"]), bytes.fromhex(row["wrapped"]), 1.0)
    subject = find_subject(keyset, exemplar["tenant"], key)
    binding = Binding(**exemplar["binding"])
    token = find_sealed_token(keyset, [binding], exemplar["token"])
    envelope = find_sealed_envelope(keyset, exemplar["tenant"], binding.tag, exemplar["envelope"])
    assert subject is not None
    assert token is not None
    assert envelope is not None
    want = (Kind(exemplar["kind"]), exemplar["text"])
    assert open_with_subject(subject, token[1]) == want == open_with_subject(subject, envelope)
    assert SubjectSealer(keyset, binding).token(subject, want[0], want[1].encode()) == exemplar["token"]
    assert verify_receipt(keyset, exemplar["receipt"])
