"""What `gharial keys` says and asks, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.key_needles import key_needles, leaks_in, materials

from gharial.cli import main
from gharial.wiring.keyfiles import KeyDesk, make_key_files

CONFIG = """\
upstreams: { api: { url: "http://127.0.0.1:9" } }
routes: [{ route: all, match: "ANY /**", upstream: api, pass: true }]
keys: { file: run/keys.json, kek: file:secret/kek }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gharial.yaml"
    path.write_text(CONFIG)
    make_key_files(tmp_path / "run" / "keys.json", tmp_path / "secret" / "kek")
    return path


def run(config: Path, *words: str, say: str | None = None) -> Result:
    """Run `gharial keys WORDS`; it ends without a traceback, and no key of the file is in what it says."""
    needles = key_needles(*materials(KeyDesk(config).load()))
    result = CliRunner().invoke(main, ["keys", *words, "-c", str(config)], input=say)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert leaks_in(result.output, needles) == []
    return result


def listed(config: Path) -> dict[str, object]:
    return json.loads(run(config, "list", "--json").stdout)


def states(config: Path) -> list[str]:
    return [key["state"] for key in listed(config)["keys"]]  # type: ignore[attr-defined]


def test_keys_are_listed_with_what_hangs_on_them(config: Path):
    """JSON and table name every key, its state, the primary, and the key of people and credentials."""
    first = listed(config)["primary"]
    assert run(config, "rotate").exit_code == 0
    found = listed(config)
    assert found["oldest_enabled"] == first != found["primary"]
    assert [(key["seals"], key["people_and_credentials"]) for key in found["keys"]] == [(False, True), (True, False)]
    table = run(config, "list").output
    for word in (str(first), str(found["primary"]), "new tokens (primary)", "people and credentials"):
        assert word in table


def test_a_key_goes_through_its_life(config: Path):
    """Disable, enable and destroy each say what they did; a mistaken id is an error with status 1."""
    run(config, "rotate")
    key = str(listed(config)["primary"])
    run(config, "rotate")
    for word, state in (("disable", "disabled"), ("enable", "enabled")):
        result = run(config, word, key)
        assert (result.exit_code, states(config)[1]) == (0, state)
        assert key in result.output
    assert run(config, "destroy", key, "--yes").exit_code == 0
    assert states(config)[1] == "destroyed"
    for words in (("enable", key), ("disable", "77"), ("destroy", str(listed(config)["primary"]), "--yes")):
        result = run(config, *words)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"key {words[1]}" in result.stderr
    assert run(config, "disable", "key").exit_code == 2


def test_destroy_asks_and_takes_silence_for_no(config: Path):
    """What dies is said first; `n`, and an input that ends, destroy nothing; `y` does."""
    run(config, "rotate")
    key = str(listed(config)["primary"])
    run(config, "rotate")
    for answer in ("n\n", ""):
        result = run(config, "destroy", key, say=answer)
        assert result.exit_code == 1
        assert "refused for ever" in result.stderr
        assert states(config)[1] == "enabled"
    assert run(config, "destroy", key, say="y\n").exit_code == 0
    assert states(config)[1] == "destroyed"


def test_the_oldest_key_needs_its_option(config: Path):
    """Without the option: status 1, the option is named, nothing changes. With it: done."""
    key = str(listed(config)["primary"])
    run(config, "rotate")
    for words in (("disable", key), ("destroy", key, "--yes")):
        result = run(config, *words)
        assert result.exit_code == 1
        assert "--reset-people-and-credentials" in result.stderr
        assert "key.needed" in result.stderr
    unasked = run(config, "destroy", key)
    assert (unasked.exit_code, "for good?" in unasked.output) == (1, False)
    assert states(config) == ["enabled", "enabled"]
    assert run(config, "disable", key, "--reset-people-and-credentials").exit_code == 0
    assert states(config) == ["disabled", "enabled"]


def test_export_and_import_go_there_and_back(config: Path, tmp_path: Path):
    """A copy restores what was; an older one is refused unless that is said."""
    copy = tmp_path / "copy.json"
    assert run(config, "export", "--wrapped", str(copy)).exit_code == 0
    assert run(config, "import", str(copy)).exit_code == 0
    run(config, "rotate")
    result = run(config, "import", str(copy))
    assert result.exit_code == 1
    assert f"key {listed(config)['primary']} is not in it" in result.stderr
    assert run(config, "import", str(copy), "--replace").exit_code == 0
    assert len(states(config)) == 1


def test_a_tink_export_says_what_is_in_the_file(config: Path, tmp_path: Path):
    """Encrypted or IN CLEAR, all keys or those of one tag; options that do not go together are a usage error."""
    assert "encrypted" in run(config, "export", "--tink", str(tmp_path / "a.json")).output
    assert "IN CLEAR" in run(config, "export", "--tink", str(tmp_path / "b.json"), "--cleartext").output
    one = run(config, "export", "--tink", str(tmp_path / "c.json"), "--tag", "email", "--cleartext")
    assert "the tokens of 'email', IN CLEAR" in one.output
    assert run(config, "import", str(tmp_path / "a.json"), "--tink").exit_code == 0
    refused = run(config, "import", str(tmp_path / "c.json"), "--tink")
    assert (refused.exit_code, "AES-SIV" in refused.stderr) == (1, True)
    for words in (
        (),
        ("--wrapped", "x", "--tink", "y"),
        ("--wrapped", "x", "--cleartext"),
        ("--tink", "y", "--tenant", "t"),
    ):
        assert run(config, "export", *words).exit_code == 2
