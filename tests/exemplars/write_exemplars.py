"""Writes exemplars that are not there yet; touches none that is. Run: python tests/exemplars/write_exemplars.py"""

from __future__ import annotations

import json
import random
from pathlib import Path

from gharial.crypto.digest import person_digest
from gharial.crypto.envelope import sealer
from gharial.crypto.fpe import Format, Fpe
from gharial.crypto.kek import LocalKek, PassphraseKek
from gharial.crypto.keyfile import wrap_keyset
from gharial.crypto.keyset import KeyState, Purpose, create_keyset, new_kek, parse_kek, rotate, set_state
from gharial.crypto.pseudonym import pseudonymiser, shift_of, substituter
from gharial.crypto.receipt import sign_receipt
from gharial.crypto.subject import SubjectEncrypter, SubjectSealer, find_subject, new_person_key
from gharial.crypto.token import Binding, seal_token
from gharial.model.finding import Kind

HERE = Path(__file__).parent

TOKENS = {
    "email_client": (Binding("default", "email", "client", "acme-billing"), Kind.STRING, "ann@ex.example"),
    "empty_team": (Binding("default", "name", "team", "finance"), Kind.STRING, ""),
    "beyond_the_bmp_all": (Binding("tenant-2", "name", "all", ""), Kind.STRING, "Zoë 😀 \U0001d49c"),
    "number_client": (Binding("default", "account", "client", "acme-billing"), Kind.NUMBER, "1.10e2"),
    "boolean_client": (Binding("default", "flag", "client", "acme-billing"), Kind.BOOLEAN, "true"),
    "names_not_ascii": (Binding("münchen", "straße", "client", "søk"), Kind.STRING, "Änne"),
}
BINDING = {"tenant": "default", "tag": "account", "scope": "client", "recipient": "acme-billing"}
FPE_TEXTS = (
    (("digits", "", 0), "8993-4948-6033"),
    (("digits", "luhn", 16), "4111 1111 1111 1111"),
    (("digits", "iban", 0), "DE89 3704 0044 0532 0130 00"),
    (("alnum", "", 0), "Ab3dE"),
    (("0123456789ABCDEF", "", 8), "0123ABCD"),
)
DERIVED = ((Purpose.TOKEN, "default", "email", 64), (Purpose.PERSON, "default", "customer", 32),
           (Purpose.CREDENTIAL, "", "", 32), (Purpose.ETAG, "default", "", 64))  # fmt: skip


def write_new(path: Path, content: object) -> None:
    """Write the exemplar unless it exists."""
    if path.exists():
        print(f"kept    {path.relative_to(HERE)}")  # noqa: T201
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=True) + "\n", encoding="ascii")
    print(f"written {path.relative_to(HERE)}")  # noqa: T201


def write_keysets() -> None:
    """One fresh keyset, one after a life (a destroyed key, a disabled one, two enabled ones), one under a passphrase.

    Those of version 1 were written by a Gharial that wrote version 1.
    """
    for name, seed, rotations in (("one_key", 111, 0), ("after_a_life", 112, 3), ("passphrase", 113, 1)):
        source = random.Random(seed).randbytes
        kek_text = "an exemplary pa\u00dfphrase" if name == "passphrase" else new_kek(source)
        kek = PassphraseKek(kek_text) if name == "passphrase" else LocalKek(parse_kek(kek_text))
        keyset = create_keyset(source, 1_795_000_000)
        for number in range(rotations):
            keyset = rotate(keyset, source, 1_795_000_000 + 86_400 * (number + 1))
        if rotations == 3:
            keyset = set_state(keyset, keyset.keys[0].id, KeyState.DESTROYED)
            keyset = set_state(keyset, keyset.keys[1].id, KeyState.DISABLED)
        derived = [
            {"key_id": key.id, "purpose": purpose.value, "tenant": tenant, "tag": tag, "length": length,
             "hex": keyset.derive(purpose, tenant, tag, length, key.id).hex()}
            for key in keyset.keys if key.state is KeyState.ENABLED
            for purpose, tenant, tag, length in DERIVED
        ]  # fmt: skip
        keys = [{"id": key.id, "state": key.state.value, "created_s": key.created_s} for key in keyset.keys]
        content = {
            "key_file": wrap_keyset(keyset, kek, source).decode("ascii"),
            "passphrase" if name == "passphrase" else "kek": kek_text,
            "revision": keyset.revision, "primary": keyset.primary_id, "keys": keys, "derived": derived,
        }  # fmt: skip
        write_new(HERE / "keyset" / "v2" / f"{name}.json", content)


def write_tokens() -> None:
    """Every kind of value and scope, each under a keyset of its own."""
    for number, (name, (binding, kind, text)) in enumerate(TOKENS.items()):
        source = random.Random(200 + number).randbytes
        kek_text = new_kek(source)
        keyset = rotate(create_keyset(source, 1_795_000_000), source, 1_795_086_400)
        content = {
            "key_file": wrap_keyset(keyset, LocalKek(parse_kek(kek_text)), source).decode("ascii"),
            "kek": kek_text,
            "binding": {"tenant": binding.tenant, "tag": binding.tag, "scope": binding.scope,
                        "recipient": binding.recipient},
            "kind": kind.value,
            "text": text,
            "token": seal_token(keyset, binding, kind, text),
        }  # fmt: skip
        write_new(HERE / "token" / "v1" / f"{name}.json", content)


def write_keyed() -> None:
    """What the other keyed techniques make: an envelope, and the results that name no key."""
    source = random.Random(300).randbytes
    kek_text = new_kek(source)
    keyset = rotate(create_keyset(source, 1_795_000_000), source, 1_795_086_400)
    file = {"key_file": wrap_keyset(keyset, LocalKek(parse_kek(kek_text)), source).decode("ascii"), "kek": kek_text}
    sealed = sealer(keyset, "default", "account", source)(Kind.NUMBER, "1.10e2")
    content = {"tenant": "default", "tag": "account", "kind": "n", "text": "1.10e2", "envelope": sealed}
    write_new(HERE / "envelope" / "v1" / "number.json", file | content)
    results = [
        {
            "binding": BINDING,
            "format": list(form),
            "text": text,
            "sealed": Fpe(keyset, Binding(**BINDING), Format(*form)).seal(text),
        }
        for form, text in FPE_TEXTS
    ]
    write_new(HERE / "fpe" / "v1" / "formats.json", file | {"results": results})
    binding = Binding(**BINDING)
    content = {
        "binding": BINDING,
        "pseudonym": pseudonymiser(keyset, binding)(Kind.STRING, "Ann"),
        "choices": ["Springfield", "Riverton", "Lakeside"],
        "substitute": substituter(keyset, binding, ["Springfield", "Riverton", "Lakeside"])(Kind.STRING, "Ann"),
        "shift_days": shift_of(keyset, binding, "AAAAAAAAAAAAAAAAAAAAAA", 30),
    }
    write_new(HERE / "pseudonym" / "v1" / "one_way.json", file | content)


def write_person() -> None:
    """A person's wrapped key, what is made with it, and a receipt."""
    source = random.Random(400).randbytes
    kek_text = new_kek(source)
    keyset = rotate(create_keyset(source, 1_795_000_000), source, 1_795_086_400)
    file = {"key_file": wrap_keyset(keyset, LocalKek(parse_kek(kek_text)), source).decode("ascii"), "kek": kek_text}
    row = new_person_key(keyset, "default", person_digest(keyset, "default", "customer", "42"), source, 1_795_000_000.0)
    subject = find_subject(keyset, "default", row)
    assert subject is not None
    encrypter = SubjectEncrypter(keyset, "default", "account", source)
    content = {
        "tenant": "default",
        "row": {"person": row.person, "handle": row.handle.hex(), "wrapped": row.wrapped.hex()},
        "binding": BINDING,
        "kind": "n",
        "text": "1.10e2",
        "token": SubjectSealer(keyset, Binding(**BINDING)).token(subject, Kind.NUMBER, b"1.10e2"),
        "envelope": encrypter.envelope(subject, Kind.NUMBER, b"1.10e2"),
        "receipt": sign_receipt(
            keyset,
            {
                "tenant": "default",
                "space": "customer",
                "people": [row.person],
                "keys": [row.handle.hex()],
                "erased": "2026-11-18T00:00:00.000Z",
            },
        ),
    }
    write_new(HERE / "person" / "v1" / "number.json", file | content)


if __name__ == "__main__":
    write_person()
    write_keysets()
    write_tokens()
    write_keyed()
