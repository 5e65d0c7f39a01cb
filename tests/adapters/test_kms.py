"""KEKs in key management services: what each promises, and what is said when one is down, slow, refuses, or lies."""

from __future__ import annotations

import base64
import json
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.key_needles import key_needles, leaks_in, leaks_in_error, materials
from support.kms import (
    AWS,
    GOOGLE,
    PKCS11,
    FakeGoogle,
    a_certificate,
    a_google_kek,
    a_pkcs11_kek,
    an_aws_kek,
    marked,
    transit_kek,
)

from gharial.adapters.kms.fake_transit import FakeTransit
from gharial.adapters.kms.transit import TransitKek
from gharial.crypto.kek import Kek, LocalKek, PassphraseKek
from gharial.crypto.keyfile import unwrap_keyset, wrap_keyset
from gharial.crypto.keyset import create_keyset
from gharial.crypto.secret import SecretBytes
from gharial.model.errors import ConfigInvalid, KekUnavailable, KeyFileUnusable

SOURCE = random.Random(71).randbytes
DATA_KEY = SecretBytes(SOURCE(32))
KEYSET = create_keyset(SOURCE, 1.0)
TOKEN = "hvs.a-token-that-nobody-may-see"


@pytest.fixture
def vault() -> Iterator[FakeTransit]:
    with FakeTransit(token=TOKEN) as fake:
        yield fake


# --- what every KEK promises --------------------------------------------------------------------------------------


@pytest.fixture(
    params=[
        "local",
        "passphrase",
        "transit",
        pytest.param("aws", marks=AWS),
        pytest.param("google", marks=GOOGLE),
        pytest.param("pkcs11", marks=PKCS11),
    ]
)
def kek(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kek]:
    """One KEK of each kind."""
    if request.param == "local":
        yield LocalKek(SOURCE(32))
    elif request.param == "passphrase":
        yield PassphraseKek("correct horse battery staple")
    elif request.param == "transit":
        with FakeTransit(token=TOKEN) as fake:
            yield transit_kek(fake)
    elif request.param == "aws":
        with an_aws_kek() as made:
            yield made
    elif request.param == "google":
        with a_google_kek(tmp_path_factory.mktemp("google"), monkeypatch) as made:
            yield made
    else:
        with a_pkcs11_kek(tmp_path_factory.mktemp("hsm")) as made:
            yield made


def test_a_kek_opens_what_it_wrapped_and_only_under_its_binding(kek: Kek):
    """The 32 bytes come back; under another binding, or with another letter in it, nothing does."""
    wrapped = kek.wrap(DATA_KEY, b"here", SOURCE)
    assert bytes(kek.unwrap(wrapped, b"here")) == DATA_KEY
    assert leaks_in(repr(wrapped), key_needles(DATA_KEY)) == []
    with pytest.raises((KeyFileUnusable, KekUnavailable)):
        kek.unwrap(wrapped, b"there")
    middle = len(wrapped.wrapped) // 2
    other = "A" if wrapped.wrapped[middle] != "A" else "B"
    edited = replace(wrapped, wrapped=wrapped.wrapped[:middle] + other + wrapped.wrapped[middle + 1 :])
    with pytest.raises((KeyFileUnusable, KekUnavailable)):
        kek.unwrap(edited, b"here")


def test_any_text_in_the_place_of_a_wrapped_key_is_an_expected_error(kek: Kek):
    """Whatever a hostile file holds, unwrapping ends in one of two errors."""
    wrapped = kek.wrap(DATA_KEY, b"here", SOURCE)
    for text in ("", "A", "A" * 80, "vault:v1:", "vault:v1:AAAA", "vault:v9:AAAA", "!" * 80, "ä" * 40, "A" * 9000):
        with pytest.raises((KeyFileUnusable, KekUnavailable)):
            kek.unwrap(replace(wrapped, wrapped=text), b"here")


def test_a_key_file_under_a_kek_reads_back_and_holds_no_key(kek: Kek):
    """Through the whole file; every file has a data key of its own, so two of one keyset share no wrapped key."""
    file = wrap_keyset(KEYSET, kek, SOURCE)
    assert unwrap_keyset(file, kek).keys == KEYSET.keys
    assert leaks_in(file, key_needles(*materials(KEYSET))) == []
    again = json.loads(wrap_keyset(KEYSET, kek, SOURCE))
    assert again["kek"]["wrapped"] != json.loads(file)["kek"]["wrapped"]
    assert again["keys"][0]["wrapped"] != json.loads(file)["keys"][0]["wrapped"]


def test_the_kek_of_another_kind_is_told(kek: Kek):
    """A file that one kind wrapped names that kind where another is given."""
    wrapped = kek.wrap(DATA_KEY, b"here", SOURCE)
    other: Kek = LocalKek(bytes(32)) if kek.kind != "local" else PassphraseKek("x" * 12)
    with pytest.raises(KeyFileUnusable, match=f"kind {kek.kind}"):
        other.unwrap(wrapped, b"here")


# --- transit ------------------------------------------------------------------------------------------------------


def said(kek: TransitKek) -> str:
    """What a failing KEK says, of both verbs; neither the token nor the data key is in it, its locals included."""
    texts = []
    for work in (
        lambda: kek.wrap(DATA_KEY, b"here", SOURCE),
        lambda: kek.unwrap(WRAPPED, b"here"),
    ):
        with pytest.raises(KekUnavailable) as caught:
            work()
        assert f"the KEK {kek.name} at {kek.url}" in str(caught.value)
        assert leaks_in_error(caught.value, [TOKEN.encode(), *key_needles(DATA_KEY)]) == []
        assert caught.value.__context__ is None
        texts.append(str(caught.value))
    return "\n".join(texts)


with FakeTransit(token=TOKEN) as _fake:
    WRAPPED = transit_kek(_fake).wrap(DATA_KEY, b"here", SOURCE)


def test_the_engine_is_asked_once_to_wrap_and_once_to_unwrap(vault: FakeTransit):
    """A file of any number of keys asks for its one data key alone."""
    kek = transit_kek(vault)
    unwrap_keyset(wrap_keyset(KEYSET, kek, SOURCE), kek)
    assert vault.asked == ["/v1/transit/encrypt/gharial", "/v1/transit/decrypt/gharial"]


def test_a_rotated_engine_key_still_opens(vault: FakeTransit):
    """After the KMS's own rotation old files open, and new ones are of the new version."""
    kek = transit_kek(vault)
    old = kek.wrap(DATA_KEY, b"here", SOURCE)
    vault.rotate()
    assert bytes(kek.unwrap(old, b"here")) == DATA_KEY
    assert kek.wrap(DATA_KEY, b"here", SOURCE).wrapped.startswith("vault:v2:")


def test_an_engine_that_is_down_or_slow_is_named(vault: FakeTransit):
    """Nothing listens: it says so. No answer in time: it says after how long, and how to wait longer."""
    vault.delay_s = 1.0
    assert "did not answer within 0.05 s" in said(transit_kek(vault, timeout_s=0.05))
    vault.stop()
    assert "can't be reached" in said(transit_kek(vault))


def test_an_engine_that_drips_is_given_up(vault: FakeTransit):
    """A server that sends a byte now and then is slow too: the limit is for the whole answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
            while not ended.wait(0.02):
                try:
                    connection.sendall(b"{")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    with pytest.raises(KekUnavailable, match=r"did not answer within 0\.3 s"):
        transit_kek(vault, url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3).wrap(
            DATA_KEY, b"", SOURCE
        )
    ended.set()
    thread.join(5)
    listener.close()


def test_what_the_engine_refuses_says_what_to_do(vault: FakeTransit):
    """Another token, mount, key or namespace, and a sealed server: each has words of its own."""
    assert "refuses the token (403)" in said(transit_kek(vault, token=SecretBytes(b"wrong")))
    with pytest.raises(KekUnavailable, match=r"\(404\).*keys\.kek\.transit\.mount"):
        transit_kek(vault, mount="elsewhere").wrap(DATA_KEY, b"", SOURCE)
    with pytest.raises(KekUnavailable, match=r"\(403\)"):
        transit_kek(vault, key="nosuch").wrap(DATA_KEY, b"", SOURCE)
    with pytest.raises(KeyFileUnusable, match="another transit key than transit/nosuch"):
        transit_kek(vault, key="nosuch").unwrap(WRAPPED, b"here")
    with pytest.raises(KekUnavailable, match=r"can't decrypt the data key \(400\)"):
        transit_kek(vault).unwrap(transit_kek(vault).wrap(DATA_KEY, b"x", SOURCE), b"y")
    vault.sealed = True
    assert "is sealed" in said(transit_kek(vault))


def test_a_namespace_is_sent(vault: FakeTransit):
    """Where keys live in a namespace, each request names it."""
    vault.namespace = "team-a"
    assert "(403)" in said(transit_kek(vault))
    kek = transit_kek(vault, namespace="team-a")
    assert bytes(kek.unwrap(kek.wrap(DATA_KEY, b"here", SOURCE), b"here")) == DATA_KEY


@pytest.mark.parametrize(
    "raw",
    [
        (200, b""),
        (200, b"<html>"),
        (200, b"[" * 50_000),
        (200, b"\xff\xfe"),
        (200, b"{}"),
        (200, b'{"data": null}'),
        (200, b'{"data": {"ciphertext": 7, "plaintext": 7}}'),
        (200, b'{"data": {"ciphertext": "vault:v1:", "plaintext": "not base64!"}}'),
        (
            200,
            json.dumps({"data": {"ciphertext": base64.b64encode(DATA_KEY).decode(), "plaintext": "\u00e4"}}).encode(),
        ),
        (200, b" " * 70_000),
        (307, b""),
        (429, b""),
        (500, b"{}"),
        (204, b""),
    ],
    ids=lambda raw: f"{raw[0]} {raw[1][:20]!r}",
)
def test_an_answer_that_is_none_is_never_used(vault: FakeTransit, raw: tuple[int, bytes]):
    """Garbage, too much of it, redirects and odd statuses are errors that name the KEK; no redirect is followed."""
    vault.raw = raw
    said(transit_kek(vault))
    assert not any("elsewhere" in path for path in vault.asked)


def test_a_data_key_of_another_length_or_content_opens_nothing(vault: FakeTransit):
    """A KMS that decrypts to something else is found: by its length, or by the file's own seals."""
    kek = transit_kek(vault)
    file = wrap_keyset(KEYSET, kek, SOURCE)
    for data_key, error in ((bytes(31), KekUnavailable), (b"", KekUnavailable), (bytes(32), KeyFileUnusable)):
        vault.raw = (200, json.dumps({"data": {"plaintext": base64.b64encode(data_key).decode()}}).encode())
        with pytest.raises(error):
            unwrap_keyset(file, kek)


def test_tls_is_checked_against_the_named_ca(tmp_path: Path):
    """With its CA the engine is asked; without, the certificate is refused and nothing is sent."""
    context, ca = a_certificate(tmp_path)
    with FakeTransit(token=TOKEN, tls=context) as vault:
        kek = transit_kek(vault, ca=ca)
        assert bytes(kek.unwrap(kek.wrap(DATA_KEY, b"here", SOURCE), b"here")) == DATA_KEY
        asked = len(vault.asked)
        with pytest.raises(KekUnavailable, match=r"certificate that is not accepted; keys\.kek\.transit\.ca"):
            transit_kek(vault).wrap(DATA_KEY, b"here", SOURCE)
        assert len(vault.asked) == asked


def test_no_proxy_of_the_environment_sees_the_token(vault: FakeTransit, monkeypatch):
    """HTTP_PROXY and its like are not followed: the engine is asked directly."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    transit_kek(vault).wrap(DATA_KEY, b"here", SOURCE)
    assert len(vault.asked) == 1


# --- aws ----------------------------------------------------------------------------------------------------------


@marked(AWS)
def test_aws_refusals_say_what_to_do():
    """A key that is not there, and a file of another keyset: by the name that AWS gives it, and without the key."""
    with an_aws_kek() as kek:
        wrapped = kek.wrap(DATA_KEY, b"here", SOURCE)
        with pytest.raises(KekUnavailable, match=r"alias/nosuch.*NotFoundException.*keys\.kek\.aws\.key") as caught:
            replace(kek, key="alias/nosuch").wrap(DATA_KEY, b"here", SOURCE)
        assert leaks_in_error(caught.value, key_needles(DATA_KEY)) == []
        with pytest.raises(KekUnavailable, match=r"InvalidCiphertextException; the file was edited"):
            kek.unwrap(wrapped, b"there")


@marked(AWS)
def test_aws_that_is_down_is_named(monkeypatch):
    """Nothing listens at the endpoint: one try, and the error says so; the data key is in no local variable."""
    from gharial.adapters.kms.aws import AwsKek

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    kek = AwsKek("alias/gharial", "eu-central-1", "http://127.0.0.1:9", 1.0)
    with pytest.raises(
        KekUnavailable, match="the KEK alias/gharial of AWS KMS in eu-central-1 can't be asked"
    ) as caught:
        kek.wrap(DATA_KEY, b"here", SOURCE)
    assert leaks_in_error(caught.value, key_needles(DATA_KEY)) == []


# --- google -------------------------------------------------------------------------------------------------------


@marked(GOOGLE)
def test_google_refusals_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another key, no permission, a file of another keyset, no credentials, nobody there: each has its words."""
    with a_google_kek(tmp_path, monkeypatch) as kek:
        wrapped = kek.wrap(DATA_KEY, b"here", SOURCE)
        nosuch = replace(kek, key=f"{kek.key}-2")
        with pytest.raises(KeyFileUnusable, match="another key of Google"):
            nosuch.unwrap(wrapped, b"here")
        for work, word in (
            (lambda: nosuch.wrap(DATA_KEY, b"", SOURCE), r"\(404\): see keys\.kek\.google\.key"),
            (lambda: kek.unwrap(wrapped, b"there"), "can't decrypt the data key"),
            (lambda: replace(kek, endpoint="http://127.0.0.1:9").wrap(DATA_KEY, b"", SOURCE), "can't be reached"),
        ):
            with pytest.raises(KekUnavailable, match=word) as caught:
                work()
            assert leaks_in_error(caught.value, [b"ya29.a-token", *key_needles(DATA_KEY)]) == []
        monkeypatch.setattr(FakeGoogle, "allowed", False)
        with pytest.raises(KekUnavailable, match="cryptoKeyEncrypterDecrypter"):
            kek.unwrap(wrapped, b"here")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
        with pytest.raises(KekUnavailable, match="no credentials"):
            kek.unwrap(wrapped, b"here")


# --- pkcs11 -------------------------------------------------------------------------------------------------------


@marked(PKCS11)
def test_pkcs11_refusals_say_what_to_do(tmp_path_factory: pytest.TempPathFactory):
    """Another token, key, PIN or library: each names the setting; PIN and data key are in no local variable."""
    with a_pkcs11_kek(tmp_path_factory.mktemp("hsm")) as kek:
        for other, word in (
            (replace(kek, token="nosuch"), r"pkcs11\.token"),
            (replace(kek, key="nosuch"), r"pkcs11\.key"),
            (replace(kek, pin=SecretBytes(b"97531")), r"pkcs11\.pin"),
            (replace(kek, module=Path("/nonexistent.so")), r"pkcs11\.module"),
        ):
            with pytest.raises(KekUnavailable, match=word) as caught:
                other.wrap(DATA_KEY, b"here", SOURCE)
            assert leaks_in_error(caught.value, [b"8642", b"97531", *key_needles(DATA_KEY)]) == []


@pytest.mark.parametrize(("name", "module"), [("boto3", "aws"), ("google.auth", "google"), ("pkcs11", "pkcs11")])
def test_a_missing_extra_says_how_to_get_it(name: str, module: str, monkeypatch):
    """Without the library the error names the setting and the command that installs it."""
    import sys

    from gharial.adapters.kms.aws import AwsKek
    from gharial.adapters.kms.google import GoogleKek
    from gharial.adapters.kms.pkcs11 import Pkcs11Kek

    monkeypatch.setitem(sys.modules, name, None)
    keks: dict[str, Kek] = {
        "aws": AwsKek("k", "r"),
        "google": GoogleKek("k"),
        "pkcs11": Pkcs11Kek(Path("/x"), "t", "k", SecretBytes(b"1")),
    }
    with pytest.raises(ConfigInvalid, match=rf"keys\.kek\.{module} needs .*gharial\[{module}\]"):
        keks[module].wrap(DATA_KEY, b"here", SOURCE)
