"""Tokens that must be refused, one attack each, and those that must not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk, jws

from gharial.adapters.jwks import JwksFileVerifier
from gharial.model.errors import ConfigInvalid, UnknownCredential

NOW = 1_800_000_000.0
ISSUER = "https://idp.example"
AUDIENCE = "crm"
RSA = jwk.RSAKey.generate_key(2048, {"kid": "rsa"})
EC = jwk.ECKey.generate_key("P-256", {"kid": "ec"})
ED = jwk.OKPKey.generate_key("Ed25519", {"kid": "ed"})
KEYS = {"RS256": RSA, "ES256": EC, "EdDSA": ED, "Ed25519": ED}
ANY_ALG = jws.JWSRegistry(
    algorithms=["RS256", "RS512", "PS256", "ES256", "ES384", "HS256", "EdDSA", "Ed25519", "Ed448"],
    strict_check_header=False,
)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public(*keys: jwk.Key, **extra: Any) -> list[dict[str, Any]]:
    return [{**key.as_dict(private=False), **extra} for key in keys]


def write(path: Path, keys: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"keys": keys}))
    return path


def claims(**changes: Any) -> dict[str, Any]:
    base = {"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 600, "iat": NOW - 5, "client_id": "acme", "sub": "u-1"}
    return {name: value for name, value in {**base, **changes}.items() if value is not ...}


def sign_text(header: str, payload: str, key: jwk.Key, alg: str) -> str:
    """Sign exactly these texts, whatever they hold."""
    data = f"{b64(header.encode())}.{b64(payload.encode())}"
    # The two names stand for one algorithm; joserfc warns of the older one.
    model = ANY_ALG.get_alg("Ed25519" if alg == "EdDSA" and key is ED else alg)
    return f"{data}.{b64(model.sign(data.encode(), key))}"


def token(alg: str = "ES256", key: jwk.Key | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
    key = key or KEYS[alg]
    head = {"alg": alg, "typ": "JWT", "kid": key.kid, **(header or {})}
    head = {name: value for name, value in head.items() if value is not ...}
    return sign_text(json.dumps(head), json.dumps(claims(**changes)), key, alg)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> JwksFileVerifier:
    path = write(tmp_path_factory.mktemp("jwks") / "keys.json", public(RSA, EC, ED))
    return JwksFileVerifier(path, ISSUER, AUDIENCE)


def refused(verifier: JwksFileVerifier, text: str, now_s: float = NOW) -> bool:
    with pytest.raises(UnknownCredential) as caught:
        verifier.verify(text, now_s)
    assert str(caught.value) == UnknownCredential.title
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return True


# --- what is accepted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA", "Ed25519"])
def test_a_good_token_gives_its_claims(verifier, alg):
    """Each supported algorithm is accepted, and the claims come back as they were."""
    assert dict(verifier.verify(token(alg), NOW)) == claims()


def test_an_audience_among_several_is_enough(verifier):
    """`aud` may be a list (RFC 7519, section 4.1.3)."""
    assert verifier.verify(token(aud=["other", AUDIENCE]), NOW)["client_id"] == "acme"


@pytest.mark.parametrize("typ", ["jwt", "at+jwt", "application/at+JWT", ...])
def test_types_of_access_tokens_are_accepted(verifier, typ):
    """JWT, access token (RFC 9068), or no type at all."""
    assert verifier.verify(token(header={"typ": typ}), NOW)


def test_without_a_key_id_the_only_fitting_key_is_used(verifier):
    """A token without `kid` is checked where only one key fits its algorithm."""
    assert verifier.verify(token("RS256", header={"kid": ...}), NOW)


def test_clocks_may_differ_by_the_leeway(verifier):
    """Within 30 seconds a token just expired, or not yet valid, is accepted; beyond it is not."""
    late, early = token(exp=NOW - 29), token(nbf=NOW + 29, iat=NOW + 29)
    assert verifier.verify(late, NOW)
    assert verifier.verify(early, NOW)
    assert refused(verifier, late, NOW + 2)
    assert refused(verifier, early, NOW - 2)


# --- algorithms and keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", "nOnE"])
@pytest.mark.parametrize("signature", ["", "AA"])
def test_unsigned_tokens_are_refused(verifier, alg, signature):
    """`alg: none` in any spelling, with or without something where the signature belongs."""
    head = b64(json.dumps({"alg": alg, "typ": "JWT"}).encode())
    assert refused(verifier, f"{head}.{b64(json.dumps(claims()).encode())}.{signature}")


@pytest.mark.parametrize("form", ["pem", "der", "n"])
def test_a_public_key_used_as_an_hmac_secret_is_refused(verifier, form):
    """The classic confusion: HS256 over the RSA public key, which everybody knows."""
    key = RSA.public_key
    formats = {
        "pem": key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "der": key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        "n": base64.urlsafe_b64decode(RSA.as_dict()["n"] + "=="),
    }
    head = b64(json.dumps({"alg": "HS256", "kid": "rsa"}).encode())
    data = f"{head}.{b64(json.dumps(claims()).encode())}"
    mac = hmac.new(formats[form], data.encode(), hashlib.sha256).digest()
    assert refused(verifier, f"{data}.{b64(mac)}")


@pytest.mark.parametrize(("said", "signed_with"), [("ES256", RSA), ("RS256", EC), ("EdDSA", EC), ("ES256", ED)])
def test_an_algorithm_that_does_not_fit_the_key_is_refused(verifier, said, signed_with):
    """The header names one algorithm and, by its key id, a key of another type."""
    right = {"RSA": "RS256", "EC": "ES256", "OKP": "Ed25519"}[signed_with.key_type]
    head = json.dumps({"alg": said, "kid": signed_with.kid})
    assert refused(verifier, sign_text(head, json.dumps(claims()), signed_with, right))


@pytest.mark.parametrize("alg", ["RS512", "PS256"])
def test_other_algorithms_of_the_same_key_are_refused(verifier, alg):
    """Only RS256 of the RSA family, although the key could do the others."""
    assert refused(verifier, token(alg, key=RSA))


def test_another_curve_is_refused(tmp_path):
    """ES384 and Ed448 keys are not picked up, and their tokens refused."""
    p384 = jwk.ECKey.generate_key("P-384", {"kid": "p384"})
    ed448 = jwk.OKPKey.generate_key("Ed448", {"kid": "ed448"})
    verifier = JwksFileVerifier(write(tmp_path / "k", public(p384, ed448, EC)), ISSUER, AUDIENCE)
    assert refused(verifier, token("ES384", key=p384))
    assert refused(verifier, token("Ed448", key=ed448))
    head = json.dumps({"alg": "EdDSA", "kid": "ed448"})
    assert refused(verifier, sign_text(head, json.dumps(claims()), ed448, "Ed448"))


def test_a_key_meant_for_another_algorithm_is_refused(tmp_path):
    """A key whose `alg` says RS512 does not check RS256."""
    verifier = JwksFileVerifier(write(tmp_path / "k", [*public(RSA, alg="RS512"), *public(EC)]), ISSUER, AUDIENCE)
    assert refused(verifier, token("RS256"))


@pytest.mark.parametrize("extra", [{"use": "enc"}, {"key_ops": ["encrypt"]}])
def test_a_key_for_encryption_is_refused(tmp_path, extra):
    """A key that the issuer publishes for encryption does not vouch for anybody."""
    verifier = JwksFileVerifier(write(tmp_path / "k", [*public(RSA, **extra), *public(EC)]), ISSUER, AUDIENCE)
    assert refused(verifier, token("RS256"))


def test_a_weak_rsa_key_is_refused(tmp_path):
    """1024 bits can be factored by who wants it enough."""
    with pytest.warns(match="Key size"):
        weak = jwk.RSAKey.generate_key(1024, {"kid": "weak"})
    with pytest.warns(match="Key size"):
        verifier = JwksFileVerifier(write(tmp_path / "k", public(weak, EC)), ISSUER, AUDIENCE)
    assert refused(verifier, token("RS256", key=weak))


def test_a_stranger_s_key_is_refused(verifier):
    """Right form, right key id, another key."""
    assert refused(verifier, token(key=jwk.ECKey.generate_key("P-256", {"kid": "ec"})))


def test_an_unknown_key_id_is_refused(verifier):
    """A key id that the file does not have is not replaced by trying its keys."""
    assert refused(verifier, token(header={"kid": "other"}))


@pytest.mark.parametrize("kid", [1, None, ["ec"], {"ec": 1}])
def test_a_key_id_that_is_no_text_is_refused(verifier, kid):
    """`kid` is a string (RFC 7515, section 4.1.4); null is not the same as none."""
    assert refused(verifier, token(header={"kid": kid}))


def test_two_fitting_keys_and_no_key_id_is_refused(tmp_path):
    """Without `kid`, two keys of a kind leave it open which one vouched."""
    other = jwk.ECKey.generate_key("P-256", {"kid": "ec2"})
    verifier = JwksFileVerifier(write(tmp_path / "k", public(EC, other)), ISSUER, AUDIENCE)
    assert refused(verifier, token(header={"kid": ...}))
    assert verifier.verify(token(), NOW)


@pytest.mark.parametrize(
    "member",
    [
        {"jwk": jwk.ECKey.generate_key("P-256").as_dict(private=False)},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"b64": True},
        {"cty": "JWT"},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
        {"nonce": "x"},
    ],
    ids="+".join,
)
def test_header_members_that_change_the_check_are_refused(verifier, member):
    """Keys brought along, critical extensions, unencoded payloads, and whatever else is not known."""
    assert refused(verifier, token(header=member))


def test_an_embedded_key_does_not_vouch_for_itself(verifier):
    """A token signed with the very key that its header brings along."""
    own = jwk.ECKey.generate_key("P-256", {"kid": "ec"})
    assert refused(verifier, token(key=own, header={"jwk": own.as_dict(private=False)}))


@pytest.mark.parametrize("typ", ["logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", "", 7])
def test_tokens_made_for_other_ends_are_refused(verifier, typ):
    """The issuer signs more than access tokens with the same key (RFC 8725, section 3.11)."""
    assert refused(verifier, token(header={"typ": typ}))


# --- claims ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://other.example"},
        {"iss": ISSUER + "/"},
        {"iss": [ISSUER]},
        {"iss": ...},
        {"aud": "crm2"},
        {"aud": ["a", "b"]},
        {"aud": []},
        {"aud": {"crm": 1}},
        {"aud": ...},
        {"exp": ...},
        {"exp": None},
        {"exp": NOW - 30},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": -1},
        {"exp": 10**400},
        {"nbf": NOW + 31},
        {"nbf": "0"},
        {"nbf": None},
        {"nbf": True},
        {"iat": False},
        {"iat": NOW + 31},
        {"iat": [0]},
    ],
    ids=repr,
)
def test_claims_that_do_not_hold_are_refused(verifier, change):
    """Another issuer or audience, none, expired, never expiring, from the future, or of a wrong type."""
    assert refused(verifier, token(**change))


@pytest.mark.parametrize("exp", ["NaN", "Infinity", "1e999", "-Infinity"])
def test_dates_that_are_no_numbers_are_refused(verifier, exp):
    """A comparison with NaN is false, so such a token would never expire."""
    text = json.dumps(claims(exp=0)).replace('"exp": 0', f'"exp": {exp}')
    assert refused(verifier, sign_text('{"alg":"ES256","kid":"ec"}', text, EC, "ES256"))


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(claims())[:-1] + ', "client_id": "admin"}',
        json.dumps(claims())[:-1] + ', "realm_access": {"roles": ["a"], "roles": ["b"]}}',
        json.dumps(claims()) + " {}",
        "[]",
        "7",
        "",
        "{",
        "[" * 5000,
        '{"a":' * 800,
    ],
    ids=["twice", "twice-deep", "trailing", "array", "number", "empty", "broken", "brackets", "objects"],
)
def test_payloads_that_can_be_read_in_two_ways_are_refused(verifier, payload):
    """Duplicate claims, trailing text, other JSON, nesting that would exhaust the stack; all properly signed."""
    assert refused(verifier, sign_text('{"alg":"ES256","kid":"ec"}', payload, EC, "ES256"))


@pytest.mark.parametrize(
    "header",
    ['{"alg":"none","alg":"ES256","kid":"ec"}', '{"alg":"ES256","kid":"ec","kid":"ed"}', "[]", "", "[" * 4000, "nul"],
)
def test_headers_that_can_be_read_in_two_ways_are_refused(verifier, header):
    """Duplicate header members and other JSON, properly signed."""
    assert refused(verifier, sign_text(header, json.dumps(claims()), EC, "ES256"))


# --- form --------------------------------------------------------------------------------------------------------


def test_an_oversize_token_is_refused(verifier):
    """More than 8 KB are not even looked at, however well signed."""
    assert refused(verifier, token(pad="x" * 8192))


def test_a_token_has_one_spelling(verifier):
    """Padding, the other base64 alphabet, spare bits, spaces and more parts are refused."""
    good = token("EdDSA")
    head, payload, signature = good.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare = signature[:-1] + last[last.index(signature[-1]) ^ 1]
    assert base64.urlsafe_b64decode(spare + "==") == base64.urlsafe_b64decode(signature + "==")
    for text in (
        f"{head}.{payload}.{spare}",
        f"{good}=",
        f"{good}==",
        f" {good}",
        f"{good}\n",
        f"{good}.",
        f".{good}",
        f"{head}.{payload}",
        f"{head}..{signature}",
        f"{head}.{payload}.",
        f"{head}.{payload}.{signature}.{signature}",
        good.replace(".", "\u2024"),
        good + "é",
        "",
        "..",
        "....",
    ):
        assert refused(verifier, text)


@given(data=st.data())
def test_no_changed_character_is_accepted(verifier, data):
    """Whatever single character of a valid token is replaced, the token is refused."""
    good = GOOD
    at = data.draw(st.integers(0, len(good) - 1))
    char = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != good[at]))
    assert refused(verifier, good[:at] + char + good[at + 1 :])


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}", fullmatch=True))
def test_no_text_is_anything_but_refused(verifier, text):
    """Whatever is sent, the answer is a refusal and never another exception."""
    assert refused(verifier, text)


@given(
    st.dictionaries(
        st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.floats() | st.text(), max_size=4
    )
    | st.lists(st.integers())
)
def test_no_signed_payload_breaks_the_reader(verifier, payload):
    """An issuer's key over anything: claims that do not hold are refused, not stumbled over."""
    assert refused(verifier, sign_text('{"alg":"ES256","kid":"ec"}', json.dumps(payload), EC, "ES256"))


def test_ecdsa_signatures_are_not_taken_in_der(verifier):
    """ES256 is r and s, 32 bytes each (RFC 7518, section 3.4); another form of the same signature is refused."""
    head, payload, _ = token().split(".")
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    der = EC.private_key.sign(f"{head}.{payload}".encode(), ECDSA(SHA256()))
    assert refused(verifier, f"{head}.{payload}.{b64(der)}")
    assert refused(verifier, f"{head}.{payload}.{b64(bytes(64))}")


def test_rs256_is_pkcs1_and_not_pss(verifier):
    """A PSS signature under the name RS256 is refused."""
    head, payload, _ = token("RS256").split(".")
    pss = RSA.private_key.sign(
        f"{head}.{payload}".encode(), padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH), SHA256()
    )
    assert refused(verifier, f"{head}.{payload}.{b64(pss)}")


# --- the cache ---------------------------------------------------------------------------------------------------


def test_a_remembered_token_still_expires(verifier):
    """A token that was accepted a moment ago is refused at its end, and before its beginning."""
    text = token(exp=NOW + 10, nbf=NOW - 10)
    assert verifier.verify(text, NOW)
    assert verifier.verify(text, NOW + 9)
    assert verifier.verify(text, NOW + 39)
    assert refused(verifier, text, NOW + 40)
    assert refused(verifier, text, NOW - 41)


def test_the_memory_for_tokens_is_bounded(tmp_path):
    """However many tokens come, no more than 4,096 are remembered, and none after its end."""
    verifier = JwksFileVerifier(write(tmp_path / "k", public(ED)), ISSUER, AUDIENCE)
    for number in range(4200):
        verifier.verify(token("EdDSA", jti=str(number)), NOW)
    assert len(verifier._cache) == 4096
    late = token("EdDSA", exp=NOW - 1)
    verifier.verify(late, NOW)
    assert hashlib.sha256(late.encode()).digest() not in verifier._cache


# --- the file ----------------------------------------------------------------------------------------------------


def replace(path: Path, text: str, tick: int) -> None:
    """Write a file that is newer than before, whatever the file system's clock does."""
    path.write_text(text)
    os.utime(path, ns=(tick * 10**9, tick * 10**9))


def test_a_changed_file_is_taken_up_and_a_removed_key_refused(tmp_path):
    """After a rotation new tokens work and old ones do not, remembered ones included, within a second."""
    new = jwk.ECKey.generate_key("P-256", {"kid": "new"})
    path = write(tmp_path / "k", public(EC))
    verifier = JwksFileVerifier(path, ISSUER, AUDIENCE)
    old_token, new_token = token(), token(key=new)
    assert verifier.verify(old_token, NOW)
    replace(path, json.dumps({"keys": public(new)}), 1000)
    assert verifier.verify(old_token, NOW + 0.5)  # not looked at yet
    assert refused(verifier, old_token, NOW + 1)
    assert verifier.verify(new_token, NOW + 1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys":[]}', '{"keys":7}', '{"keys":[7]}', "[" * 100_000])
def test_a_broken_file_keeps_the_old_keys_and_says_so(tmp_path, text):
    """A file that is being written, or is broken, does not lock everybody out; `problem` names it until it is good."""
    path = write(tmp_path / "k", public(EC))
    verifier = JwksFileVerifier(path, ISSUER, AUDIENCE)
    replace(path, text, 1000)
    assert verifier.verify(token(), NOW)
    assert "stay in use" in verifier.problem
    replace(path, json.dumps({"keys": public(EC)}), 2000)
    assert verifier.verify(token(), NOW + 1)
    assert verifier.problem == ""


def test_a_removed_file_keeps_the_old_keys_and_says_so(tmp_path):
    """The file's absence is a problem to report, not a reason to accept or to refuse everybody."""
    path = write(tmp_path / "k", public(EC))
    verifier = JwksFileVerifier(path, ISSUER, AUDIENCE)
    path.unlink()
    assert verifier.verify(token(), NOW)
    assert "FileNotFoundError" in verifier.problem


def test_a_clock_set_back_does_not_stop_the_looking(tmp_path):
    """The file is looked at again although the time of the last look lies ahead."""
    path = write(tmp_path / "k", public(EC))
    verifier = JwksFileVerifier(path, ISSUER, AUDIENCE)
    text = token(iat=NOW - 500)
    verifier.verify(text, NOW)
    replace(path, json.dumps({"keys": public(ED)}), 1000)
    assert refused(verifier, text, NOW - 100)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [EC.as_dict(private=True)],
        [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"}],
        [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}],
        [{"kty": "RSA", "n": "AA"}],
        [{"kty": "OKP", "crv": "X25519", "x": ED.as_dict()["x"]}],
        [{"kty": ["EC"]}],
    ],
    ids=["none", "private", "secret", "off-curve", "incomplete", "exchange", "list"],
)
def test_a_first_file_without_public_keys_stops_the_start(tmp_path, keys):
    """Nothing starts on a file that holds no usable key, or one that should never have been in it."""
    path = write(tmp_path / "k", keys)
    with pytest.raises(ConfigInvalid) as caught:
        JwksFileVerifier(path, ISSUER, AUDIENCE)
    assert EC.as_dict(private=True)["d"] not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("issuer", "audience"), [("", AUDIENCE), (ISSUER, "")])
def test_an_issuer_and_an_audience_are_needed(tmp_path, issuer, audience):
    """An empty expectation would be met by an empty claim."""
    with pytest.raises(ValueError, match="issuer and an audience"):
        JwksFileVerifier(write(tmp_path / "k", public(EC)), issuer, audience)


GOOD = token("EdDSA")
