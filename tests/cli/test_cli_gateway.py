"""What the commands around a gateway say, how they end, and that none of them prints a secret."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.envoy_harness import free_port
from support.gateway import MARK, PLANTED, POLICY, Home, a_gateway, customer, needles, write_gateway

from gharial.cli import main

UPSTREAM = {"api": {"url": "http://127.0.0.1:9"}}


@dataclass
class Folder:
    """The files of a gateway that does not run, and the commands on them."""

    home: Home

    def run(self, *words: str) -> Result:
        """Run `gharial WORDS -c …`; a traceback or a secret in what it says fails the test."""
        result = CliRunner().invoke(main, [*words, "-c", str(self.home.config)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        hidden = (*PLANTED, *needles(*self.home.secrets))
        assert not any(needle in result.output.encode() for needle in hidden)
        return result

    def json(self, *words: str) -> object:
        """What a command prints with `--json`; it must succeed."""
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def states(self, *words: str) -> dict[str, str]:
        """What a command that checks finds: text and state."""
        result = self.run(*words, "--json")
        found = {item["what"]: item["state"] for item in json.loads(result.stdout)}
        assert result.exit_code == (1 if "fail" in found.values() else 0)
        return found


@pytest.fixture
def folder() -> Iterator[Folder]:
    base = Path(tempfile.mkdtemp(prefix="gc", dir="/tmp"))
    home = Home(base, free_port(), "")
    write_gateway(home, UPSTREAM)
    yield Folder(home)
    shutil.rmtree(base)


# --- up --check and doctor ---------------------------------------------------------------------------------------


@pytest.mark.envoy
def test_up_check_of_a_sound_gateway_ends_with_0(folder: Folder):
    """Everything is ok; what passes unprotected is a warning; nothing is started or made."""
    found = folder.states("up", "--check")
    assert set(found.values()) == {"ok", "warn"}
    assert any("open" in what and "unprotected" in what for what, state in found.items() if state == "warn")
    assert any("Envoy accepts" in what for what in found)
    assert sorted(path.name for path in folder.home.run.iterdir()) == ["keys.json"]
    assert "✓" in folder.run("up", "--check").output


def test_up_check_says_every_mistake_with_its_place_and_ends_with_1(folder: Folder):
    """File, line and column of each mistake of the policy."""
    policy = folder.home.base / "policies" / "customer-data.yaml"
    policy.write_text(POLICY.replace("clear", "claer"))
    lines = [number for number, line in enumerate(POLICY.splitlines(), 1) if "clear" in line]
    found = folder.states("up", "--check")
    for line in lines:
        assert any(f"customer-data.yaml:{line}:" in what and state == "fail" for what, state in found.items())


def test_a_secret_that_stands_in_the_configuration_is_not_repeated(folder: Folder):
    """Where a reference belongs somebody wrote the secret itself: the mistake is said, the secret is not."""
    text = folder.home.config.read_text()
    folder.home.config.write_text(text.replace("file:secret/kek", f"{MARK}-the-secret"))
    result = folder.run("up", "--check")
    assert result.exit_code == 1
    assert "never the secret itself" in result.output
    folder.home.config.write_text(text.replace('"alarms": [', f'"alarms": ["nosuch://{MARK}:secret@host/x",'))
    assert folder.run("up", "--check").exit_code == 1


@pytest.mark.envoy
def test_doctor_says_what_is_wrong_around_a_gateway_and_what_to_do(folder: Folder):
    """A KEK that others can read and a dead upstream are failures with a hint; the rest is looked at as well."""
    (folder.home.base / "secret" / "kek").chmod(0o644)
    result = folder.run("doctor", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    failures = {item["what"]: item["hint"] for item in found if item["state"] == "fail"}
    assert len(failures) == 2
    assert any("can be read by others" in what and "chmod 600" in hint for what, hint in failures.items())
    assert any("upstream api" in what and hint for what, hint in failures.items())
    for word in ("fdatasync", "is free", "Envoy accepts"):
        assert any(word in item["what"] for item in found)


# --- status ------------------------------------------------------------------------------------------------------


def test_status_without_a_gateway_says_how_to_start_one(folder: Folder):
    """No gateway runs: exit status 1, the reason on standard error, nothing on standard output."""
    result = folder.run("status", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "gharial up" in result.stderr


@pytest.mark.envoy
async def test_status_and_doctor_of_a_running_gateway():
    """Policies, routes, parts and counters as a table and as JSON, which say the same."""
    async with a_gateway(UPSTREAM) as home:
        found = (await home.cli("status", "--json")).json()
        assert [(policy["policy"], policy["mode"]) for policy in found["policies"]] == [("customer-data", "enforce")]
        assert [route["kind"] for route in found["routes"]] == ["protect", "protect", "protect", "pass"]
        assert [(part["name"], part["state"]) for part in found["parts"]] == [("gate", "ready"), ("envoy", "ready")]
        assert found["counters"]["bytes_without_plan"] == 0
        table = await home.cli("status")
        assert table.status == 0
        for word in ("customer-data", "GET /open/**", "gate: ready, restarts 0", "without a plan: 0"):
            assert word in table.out
        doctor = await home.cli("doctor", "--json")
        assert any("the gateway is running" in item["what"] for item in doctor.json())


# --- clients and incidents, without a running gateway ------------------------------------------------------------


def test_clients_are_registered_without_a_gateway_and_only_hashes_are_kept(folder: Folder):
    """Key and secret are printed once; neither is in the store, and no later command shows them."""
    made = folder.json(
        "clients", "add", "acme", "--team", "finance", "--role", "a", "--role", "b", "--may-assert", "purpose"
    )
    assert isinstance(made, dict)
    assert set(made) == {"client_id", "secret", "key"}
    folder.home.secrets |= {made["secret"], made["key"]}
    (listed,) = folder.json("clients", "list")  # type: ignore[misc]
    assert (listed["name"], listed["team"], listed["roles"]) == ("acme", "finance", ["a", "b"])
    assert "acme" in folder.run("clients", "list").output
    for file in folder.home.run.rglob("*.db*"):
        assert made["key"].encode() not in file.read_bytes()
        assert made["secret"].encode() not in file.read_bytes()
    assert folder.run("clients", "add", "acme").exit_code == 1
    assert folder.run("clients", "revoke", "acme").exit_code == 0
    assert "revoked" in folder.run("clients", "list").output
    assert folder.run("clients", "revoke", "nobody").exit_code == 1


@pytest.mark.parametrize("name", ["anonymous", "A B", "", "../x", "x" * 65, "a\nb"])
def test_a_name_that_cannot_be_one_is_refused(folder: Folder, name: str):
    """The words of the mistake, exit status 1, no traceback."""
    result = folder.run("clients", "add", name)
    assert result.exit_code == 1
    assert result.stderr.startswith("error")


def test_incidents_of_an_empty_store(folder: Folder):
    """A list that is empty, and an id that there is not."""
    assert folder.json("incidents", "list") == []
    result = folder.run("incidents", "show", "inc_none")
    assert result.exit_code == 1
    assert "incidents list" in result.stderr


def test_a_store_that_a_newer_version_wrote_is_refused_by_every_command(folder: Folder):
    """Also the commands that only look: exit status 1, and what to do."""
    folder.json("incidents", "list")
    db = sqlite3.connect(folder.home.run / "gharial.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    for words in (("incidents", "list"), ("clients", "list"), ("clients", "add", "x"), ("up", "--check")):
        result = folder.run(*words)
        assert result.exit_code == 1
        assert "schema version 99" in result.output


# --- init, keys, config ------------------------------------------------------------------------------------------


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def test_init_never_overwrites_and_takes_names_only(tmp_path: Path):
    """A second `init` in the same folder is refused; a sample's values are in no file that it made."""
    sample = tmp_path / "sample.json"
    sample.write_text(json.dumps(customer(1)))
    words = ["init", "--upstream", "http://127.0.0.1:9", "--sample", str(sample), "--dir", str(tmp_path / "g")]
    assert run(*words).exit_code == 0
    made = [path for path in (tmp_path / "g").rglob("*") if path.is_file()]
    assert len(made) == 4
    for path in made:
        assert path.stat().st_mode & 0o077 == 0
        assert not any(needle in path.read_bytes() for needle in PLANTED)
    again = run(*words)
    assert again.exit_code == 1
    assert "never overwrites" in again.output


@pytest.mark.parametrize(
    "url", ["127.0.0.1:9", "ftp://a", "http://", "http://a/path", "http://u:secret@a", "http://a:x", "http://a?b"]
)
def test_init_says_what_an_upstream_looks_like(tmp_path: Path, url: str):
    """Anything but a scheme, a host and a port is refused, before a file is made."""
    result = run("init", "--upstream", url, "--dir", str(tmp_path / "g"))
    assert result.exit_code == 1
    assert "--upstream" in result.output
    assert "secret" not in result.output
    assert not (tmp_path / "g").exists()


def test_init_refuses_a_sample_that_is_no_json_without_quoting_it(tmp_path: Path):
    """The sample is somebody's data: the mistake is named, the text is not."""
    sample = tmp_path / "sample.json"
    for text in (f"{MARK}", f'{{"{MARK}": }}', "[" * 100_000):
        sample.write_text(text)
        result = run("init", "--upstream", "http://a", "--sample", str(sample), "--dir", str(tmp_path / "g"))
        assert result.exit_code == 1
        assert MARK not in result.output
        assert not (tmp_path / "g").exists()


def test_keys_are_made_once_and_never_printed(folder: Folder):
    """`keys init` writes a file of mode 0600, prints where, and does not replace one; `new-kek` prints a fresh key."""
    result = folder.run("keys", "init")
    assert result.exit_code == 1
    assert "already" in result.output
    (folder.home.run / "keys.json").unlink()
    result = folder.run("keys", "init")
    assert result.exit_code == 0
    assert (folder.home.run / "keys.json").stat().st_mode & 0o777 == 0o600
    first, second = run("keys", "new-kek").output.strip(), run("keys", "new-kek").output.strip()
    assert first != second
    assert len(first) == 44


def test_config_explain_tells_every_setting_and_guesses_at_a_misspelt_one():
    """One key, a section, all of them; as JSON too; a wrong key names the nearest."""
    one = run("config", "explain", "limits.in_flight")
    assert one.exit_code == 0
    assert "512" in one.output
    section = json.loads(run("config", "explain", "limits", "--json").stdout)
    assert {"limits", "limits.body", "limits.in_flight"} <= {item["key"] for item in section}
    assert all(item["meaning"] for item in section)
    assert "upstreams.NAME.url" in run("config", "explain").output
    wrong = run("config", "explain", "limits.inflight")
    assert wrong.exit_code == 1
    assert "limits.in_flight" in wrong.output
