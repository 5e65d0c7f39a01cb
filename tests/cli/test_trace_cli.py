"""`gharial trace` names the client whose tokens a dump holds, and shows no value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gharial.cli import main
from gharial.crypto.token import Binding, seal_token
from gharial.model.finding import Kind
from gharial.wiring.keyfiles import KeyDesk, make_key_files

CONFIG = """\
upstreams: { api: { url: "http://127.0.0.1:9" } }
routes: [{ route: all, match: "ANY /**", upstream: api, policy: p }]
policies: [p.yaml]
keys: { file: run/keys.json, kek: file:secret/kek }
"""
POLICY = """\
policy: p
version: 1
tags: { account: { find: '$..account' }, email: { find: '$..email' }, both: [account, email] }
who: { anyone: {} }
grants: [{ grant: g, to: anyone, show: { both: token(scope=client) } }]
"""
PLANTED = "PLANTED-4711"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gharial.yaml"
    path.write_text(CONFIG)
    (tmp_path / "p.yaml").write_text(POLICY)
    make_key_files(tmp_path / "run" / "keys.json", tmp_path / "secret" / "kek")
    for words in (["acme", "--team", "sales"], ["rival", "--team", "sales"]):
        assert run("clients", "add", *words, "-c", str(path)).exit_code == 0
    return path


def run(*words: str, data: bytes = b"") -> Result:
    result = CliRunner().invoke(main, list(words), input=data)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert PLANTED not in result.output
    return result


def token(config: Path, tag: str, scope: str, recipient: str) -> str:
    keyset = KeyDesk(config).load()
    return seal_token(keyset, Binding("default", tag, scope, recipient), Kind.STRING, PLANTED)


def traced(config: Path, data: bytes, *words: str) -> tuple[int, dict]:
    result = run("trace", "-", "--json", "-c", str(config), *words, data=data)
    return result.exit_code, json.loads(result.stdout)


def test_a_dump_names_its_client_and_key(config: Path, tmp_path: Path):
    """A revoked client, a team, tags and the key with its time are named; what is forged is counted apart."""
    first = KeyDesk(config).load().primary_id
    texts = [token(config, "account", "client", "acme"), token(config, "email", "client", "acme")]
    assert run("keys", "rotate", "-c", str(config)).exit_code == 0
    assert run("clients", "revoke", "acme", "-c", str(config)).exit_code == 0
    texts += [token(config, "email", "team", "sales"), texts[0][:-5] + "AAAAA"]
    dump = tmp_path / "dump.csv"
    dump.write_text("id;mail\n" + "".join(f'7;"{text}"\n' for text in texts))
    result = run("trace", str(dump), "--json", "-c", str(config))
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (found["found"], found["tried"], found["named"]) == (4, 4, 3)
    acme, sales = found["recipients"]
    assert (acme["recipient"], acme["scope"], acme["revoked"], acme["tokens"]) == ("acme", "client", True, 2)
    assert acme["tags"] == {"account": 1, "email": 1}
    assert [(key["id"], key["tokens"]) for key in acme["keys"]] == [(first, 2)]
    assert acme["keys"][0]["until"] is not None
    assert (sales["recipient"], sales["clients"], sales["keys"][0]["until"]) == ("sales", ["acme", "rival"], None)
    table = run("trace", str(dump), "-c", str(config)).output
    for word in ("acme", "client, revoked", str(first), "team sales: acme, rival", "1 fit nobody"):
        assert word in table


def test_callers_without_a_credential_are_a_client_too(config: Path):
    """What anonymous callers got is traced to them."""
    status, found = traced(config, token(config, "email", "client", "anonymous").encode())
    assert (status, found["recipients"][0]["recipient"]) == (0, "anonymous")


def test_clients_that_are_not_registered_are_named_or_read_from_the_audit(config: Path):
    """Clients of a JSON Web Token's claim are in no register: they are found by name, or by the audit's lines."""
    data = token(config, "email", "client", "sub:ann").encode()
    status, found = traced(config, data)
    assert (status, found["nobody"]["fits_nobody"]) == (1, 1)
    assert traced(config, data, "--client", "sub:ann")[1]["recipients"][0]["recipient"] == "sub:ann"
    audit = config.parent / "run" / "audit"
    audit.mkdir(parents=True, exist_ok=True)
    (audit / "audit-20260101T000000.000000Z-000001.jsonl").write_text('{"client":"sub:ann","team":""}\n{"cli')
    assert traced(config, data, "--from-audit")[1]["recipients"][0]["recipient"] == "sub:ann"


def test_a_file_without_tokens_is_an_error(config: Path):
    """Status 1 and a sentence, also for results that name nobody."""
    result = run("trace", "-", "-c", str(config), data=b"enc_AAAA psn_BBBB tok_ tok_short")
    assert result.exit_code == 1
    assert "there is no token in it" in result.output


def test_all_tries_every_occurrence(config: Path):
    """By default distinct tokens are tried, up to a number; with --all each one, each time that it stands there."""
    data = (token(config, "email", "client", "acme") + "\n").encode() * 7
    assert traced(config, data)[1]["tried"] == 1
    assert traced(config, data, "--all")[1]["tried"] == 7
