"""The published vectors, against the very calls that this room makes of its library."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given
from hypothesis import strategies as st

from gharial.crypto.keyset import Purpose, create_keyset
from gharial.crypto.token import Binding, seal_token
from gharial.model.finding import Kind


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def test_rfc5297_a1_one_associated_data():
    """RFC 5297, A.1: one associated data and no nonce, which is how tokens are made."""
    siv = AESSIV(unhex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0 f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"))
    aad = [unhex("101112131415161718191a1b1c1d1e1f2021222324252627")]
    sealed = unhex("85632d07c6e8f37f950acd320a2ecc93 40c02b9690c4dc04daef7f6afe5c")
    assert siv.encrypt(unhex("112233445566778899aabbccddee"), aad) == sealed
    assert siv.decrypt(sealed, aad) == unhex("112233445566778899aabbccddee")


def test_rfc5297_a2_several_associated_data():
    """RFC 5297, A.2: two associated data and a nonce as the last component of the vector."""
    siv = AESSIV(unhex("7f7e7d7c7b7a79787776757473727170 404142434445464748494a4b4c4d4e4f"))
    aad = [
        unhex("00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100"),
        unhex("102030405060708090a0"),
        unhex("09f911029d74e35bd84156c5635688c0"),
    ]
    plaintext = unhex("7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67205349562d414553")
    sealed = unhex(
        "7bdb6e3b432667eb06f4d14bff2fbd0f cb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829"
        "ea64ad544a272e9c485b62a3fd5c0d"
    )
    assert siv.encrypt(plaintext, aad) == sealed


def siv_by_hand(key: bytes, aad: bytes, plaintext: bytes) -> bytes:
    """AES-SIV of RFC 5297, sections 2.4 and 2.6, from CMAC and CTR alone."""

    def cmac(data: bytes) -> bytes:
        mac = CMAC(algorithms.AES(key[: len(key) // 2]))
        mac.update(data)
        return mac.finalize()

    def dbl(block: bytes) -> bytes:
        number = int.from_bytes(block, "big") << 1
        return ((number & (2**128 - 1)) ^ (0x87 if number >> 128 else 0)).to_bytes(16, "big")

    def xor(left: bytes, right: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(left, right, strict=True))

    d = xor(dbl(cmac(bytes(16))), cmac(aad))
    if len(plaintext) >= 16:
        siv = cmac(plaintext[:-16] + xor(plaintext[-16:], d))
    else:
        siv = cmac(xor(dbl(d), (plaintext + b"\x80").ljust(16, b"\0")))
    counter = bytearray(siv)
    counter[8] &= 0x7F
    counter[12] &= 0x7F
    encryptor = Cipher(algorithms.AES(key[len(key) // 2 :]), modes.CTR(bytes(counter))).encryptor()
    return siv + encryptor.update(plaintext) + encryptor.finalize()


def hkdf_by_hand(material: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 of RFC 5869 with no salt, from HMAC alone."""
    prk = hmac.digest(bytes(32), material, "sha256")
    out, block, number = b"", b"", 0
    while len(out) < length:
        number += 1
        block = hmac.digest(prk, block + info + bytes([number]), "sha256")
        out += block
    return out[:length]


def parts(*texts: str) -> bytes:
    return b"".join(len(t.encode()).to_bytes(4, "big") + t.encode() for t in texts)


def test_hkdf_by_hand_agrees_with_rfc5869_a3():
    """The oracle below is HKDF: RFC 5869, test case 3 (no salt, no info)."""
    assert hkdf_by_hand(b"\x0b" * 22, b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )
    assert hashlib.sha256().digest_size == 32


@given(text=st.text(max_size=60), tag=st.text("abc", max_size=3), client=st.text("abcé", min_size=1, max_size=3))
def test_a_token_is_what_the_page_says(text, tag, client):
    """A token made by hand, from CMAC, CTR and HMAC and the documented layout, is the token that is made."""
    source = random.Random(5)
    keyset = create_keyset(source.randbytes, 0)
    replay = random.Random(5)
    replay.randbytes(16)  # the keyset's id
    key_id = int.from_bytes(replay.randbytes(4), "big") & 0x7FFFFFFF
    material = replay.randbytes(32)
    key = hkdf_by_hand(material, parts("gharial/derive/v1", "token", "t", tag, "64"), 64)
    assert key == keyset.derive(Purpose.TOKEN, "t", tag, 64)
    sealed = siv_by_hand(key, parts("t", tag, "client", client), b"s" + text.encode())
    want = "tok_" + base64.urlsafe_b64encode(b"\x01" + key_id.to_bytes(4, "big") + sealed).decode().rstrip("=")
    assert seal_token(keyset, Binding("t", tag, "client", client), Kind.STRING, text) == want
