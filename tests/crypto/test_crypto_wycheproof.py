"""Project Wycheproof's and NIST's vectors, against the calls that this room makes of its libraries."""

from __future__ import annotations

import json
from pathlib import Path

import fastfpe.ff1
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from ffx import FF1
from hypothesis import given
from hypothesis import strategies as st

VECTORS = Path(__file__).parents[1] / "vectors"
BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


def groups(name: str):
    """The groups of a file of Wycheproof."""
    return json.loads((VECTORS / "wycheproof" / name).read_text())["testGroups"]


def unhex(test, *names: str) -> list[bytes]:
    return [bytes.fromhex(test[name]) for name in names]


def test_aes_siv():
    """Every vector of AES-SIV with one associated data: what is valid seals and opens, what is not never opens."""
    ran = 0
    for test in (test for group in groups("aes_siv_cmac_test.json") for test in group["tests"]):
        key, aad, message, sealed = unhex(test, "key", "aad", "msg", "ct")
        siv, ran = AESSIV(key), ran + 1
        if test["result"] == "valid":
            assert siv.encrypt(message, [aad]) == sealed, test["tcId"]
            assert siv.decrypt(sealed, [aad]) == message, test["tcId"]
        else:
            with pytest.raises(InvalidTag):
                siv.decrypt(sealed, [aad])
    assert ran == 442


def test_aes_gcm_siv():
    """Every vector of AES-GCM-SIV: what is valid seals and opens, what is not never opens."""
    ran = 0
    for test in (test for group in groups("aes_gcm_siv_test.json") for test in group["tests"]):
        key, nonce, aad, message, sealed, tag = unhex(test, "key", "iv", "aad", "msg", "ct", "tag")
        aead, ran = AESGCMSIV(key), ran + 1
        if test["result"] == "valid":
            assert aead.encrypt(nonce, message, aad) == sealed + tag, test["tcId"]
            assert aead.decrypt(nonce, sealed + tag, aad) == message, test["tcId"]
        else:
            with pytest.raises((InvalidTag, ValueError)):
                aead.decrypt(nonce, sealed + tag, aad)
    assert ran == 202


def test_hkdf():
    """Every vector of HKDF-SHA256: the same bytes, and an error where more are asked for than there can be."""
    ran = 0
    for test in (test for group in groups("hkdf_sha256_test.json") for test in group["tests"]):
        material, salt, info, derived = unhex(test, "ikm", "salt", "info", "okm")
        ran += 1
        if test["result"] == "valid":
            hkdf = HKDF(hashes.SHA256(), length=test["size"], salt=salt or None, info=info)
            assert hkdf.derive(material) == derived, test["tcId"]
        else:
            with pytest.raises(ValueError, match="derive"):
                HKDF(hashes.SHA256(), length=test["size"], salt=salt or None, info=info)
    assert ran == 86


@pytest.mark.parametrize(
    "sample", json.loads((VECTORS / "nist" / "ff1_samples.json").read_text()), ids=lambda s: s["sample"]
)
def test_ff1(sample):
    """Each of NIST's nine samples, with the library that is used and with its oracle."""
    key, tweak = unhex(sample, "key", "tweak")
    alphabet = BASE36[: sample["radix"]]
    cipher = FF1(key, alphabet=alphabet)
    assert cipher.encrypt(sample["plaintext"], tweak=tweak) == sample["ciphertext"]
    assert cipher.decrypt(sample["ciphertext"], tweak=tweak) == sample["plaintext"]
    other = fastfpe.ff1.encrypt(sample["key"], sample["tweak"], alphabet, sample["plaintext"])
    assert other == sample["ciphertext"]


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
    st.text("0123456789", min_size=6, max_size=40),
)
def test_two_implementations_of_ff1_agree(key, tweak, digits):
    """libffx and fastfpe, which share no code, make the same of any digits."""
    ours = FF1(key, alphabet="0123456789").encrypt(digits, tweak=tweak)
    assert fastfpe.ff1.encrypt(key.hex(), tweak.hex(), "0123456789", digits) == ours
