"""What an operator does with a key file: nothing is lost, nothing is half written, and no key is shown."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.key_needles import key_needles, leaks_in, leaks_in_error, leaks_in_files, materials

from gharial.crypto.keyset import KeyState, parse_kek
from gharial.crypto.token import Binding, open_token, seal_token
from gharial.model.errors import AlreadyExists, GharialError, KeyFileUnusable, KeyFileUnwritable, KeyNeeded, KeyUnknown
from gharial.model.finding import Kind
from gharial.wiring.keyfiles import KeyDesk, describe_keys, make_key_file, make_key_files, what_dies_with

CONFIG = """\
upstreams: { api: { url: "http://127.0.0.1:9" } }
routes: [{ route: all, match: "ANY /**", upstream: api, pass: true }]
keys: { file: run/keys.json, kek: file:secret/kek }
"""
EMAIL = Binding("default", "email", "client", "acme")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a fresh key file."""
    path = tmp_path / "gharial.yaml"
    path.write_text(CONFIG)
    make_key_files(tmp_path / "run" / "keys.json", tmp_path / "secret" / "kek")
    return path


@pytest.fixture
def desk(config: Path) -> KeyDesk:
    return KeyDesk(config)


def kek_of(desk: KeyDesk) -> bytes:
    return parse_kek((desk.base / "secret" / "kek").read_text())


def test_a_rotation_adds_a_primary_and_old_tokens_still_open(desk: KeyDesk):
    """The file has one key more, mode 0600 as before; what the key before it sealed opens with the new file."""
    before = desk.load()
    token = seal_token(before, EMAIL, Kind.STRING, "ann@ex.example")
    desk.rotate()
    after = desk.load()
    assert after.keys[:1] == before.keys
    assert after.primary_id == after.keys[1].id != before.primary_id
    assert open_token(after, EMAIL, token) == (Kind.STRING, "ann@ex.example")
    assert stat.S_IMODE(desk.key_file.stat().st_mode) == 0o600


def test_processes_that_rotate_at_once_lose_nothing(desk: KeyDesk, config: Path):
    """Four processes with five rotations each leave twenty keys more, and a file that opens."""
    code = "import sys; from pathlib import Path; from gharial.wiring.keyfiles import KeyDesk\n"
    code += "for _ in range(5): KeyDesk(Path(sys.argv[1])).rotate()"
    running = [subprocess.Popen([sys.executable, "-c", code, str(config)]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert len(desk.load().keys) == 21


def test_a_disabled_key_refuses_and_comes_back(desk: KeyDesk):
    """A token of a disabled key is refused, and opens again when the key is enabled."""
    desk.rotate()
    second = desk.load()
    token = seal_token(second, EMAIL, Kind.STRING, "ann")
    desk.rotate()
    with pytest.raises(GharialError):
        open_token(desk.set_state(second.primary_id, KeyState.DISABLED), EMAIL, token)
    assert open_token(desk.set_state(second.primary_id, KeyState.ENABLED), EMAIL, token)[1] == "ann"


def test_the_oldest_enabled_key_is_not_changed_by_accident(desk: KeyDesk):
    """Disabling, destroying and also enabling what makes another key the oldest needs the option that says so."""
    oldest = desk.load().primary_id
    desk.rotate()
    before = desk.key_file.read_bytes()
    for state in (KeyState.DISABLED, KeyState.DESTROYED):
        with pytest.raises(KeyNeeded, match=f"key {oldest} is the oldest.*--reset-people-and-credentials"):
            desk.set_state(oldest, state)
    assert desk.key_file.read_bytes() == before
    desk.set_state(oldest, KeyState.DISABLED, reset=True)
    with pytest.raises(KeyNeeded, match="--reset-people-and-credentials"):
        desk.set_state(oldest, KeyState.ENABLED)
    desk.set_state(oldest, KeyState.ENABLED, reset=True)
    assert desk.load().oldest_enabled_id == oldest


def test_what_dies_with_a_key_is_said(desk: KeyDesk):
    """Tokens, copies, and for the oldest enabled key people and credentials too; the primary may not be destroyed."""
    oldest = desk.load().primary_id
    newest = desk.rotate().primary_id
    lost = " ".join(what_dies_with(desk.load(), oldest))
    assert "people" in lost
    assert "random tokens" in lost
    desk.rotate()
    said = " ".join(what_dies_with(desk.load(), newest))
    assert str(newest) in said
    assert "people" not in said
    desk.set_state(newest, KeyState.DESTROYED)
    entry = next(key for key in json.loads(desk.key_file.read_text())["keys"] if key["id"] == newest)
    assert (entry["state"], entry["wrapped"]) == ("destroyed", "")
    for wrong in (desk.load().primary_id, 1):
        with pytest.raises(KeyUnknown, match=str(wrong)):
            what_dies_with(desk.load(), wrong)


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_whole(desk: KeyDesk, monkeypatch, step: str):
    """Wherever the disk fails: the file is byte for byte the old one, nothing lies beside it, the error says so."""
    before = desk.key_file.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "open":
        real = os.open
        monkeypatch.setattr(os, "open", lambda path, *rest: fail() if ".new" in str(path) else real(path, *rest))
    elif step == "write":
        monkeypatch.setattr(os, "fdopen", fail)
    elif step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyFileUnwritable, match=r"No space left.*unchanged"):
        desk.rotate()
    monkeypatch.undo()
    assert desk.key_file.read_bytes() == before
    assert sorted(path.name for path in desk.key_file.parent.iterdir()) == ["keys.json", "keys.json.lock"]


def test_a_folder_that_can_not_be_synced_is_told_from_a_failed_write(desk: KeyDesk, monkeypatch):
    """Where the last step fails the new file stands, and the error says so; folders that know no sync are fine."""
    real = os.fsync
    failure = errno.EIO

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(failure, os.strerror(failure))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyFileUnwritable, match="is written, and it is not sure that it is on disk"):
        desk.rotate()
    assert len(desk.load().keys) == 2
    failure = errno.EINVAL
    desk.rotate()
    assert len(desk.load().keys) == 3


def test_a_key_file_behind_a_link_is_replaced_where_it_lies(desk: KeyDesk, tmp_path: Path):
    """The link stays a link; the file that it leads to is the new one."""
    real = tmp_path / "elsewhere.json"
    desk.key_file.rename(real)
    desk.key_file.symlink_to(real)
    desk.rotate()
    assert desk.key_file.is_symlink()
    assert len(desk.load().keys) == 2
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_an_export_comes_back_and_an_older_one_is_refused(desk: KeyDesk, tmp_path: Path):
    """An export restores a lost file byte for byte; put over a newer one it is refused by the key that it lacks."""
    copy = tmp_path / "copy.json"
    desk.export(copy)
    data = desk.key_file.read_bytes()
    assert (copy.read_bytes(), stat.S_IMODE(copy.stat().st_mode)) == (data, 0o600)
    with pytest.raises(AlreadyExists):
        desk.export(copy)
    desk.key_file.unlink()
    desk.import_(copy)
    assert desk.key_file.read_bytes() == data
    new = desk.rotate().primary_id
    with pytest.raises(KeyNeeded, match=f"key {new} is not in it.*--replace"):
        desk.import_(copy)
    desk.import_(copy, replace=True)
    assert desk.key_file.read_bytes() == data


def test_an_import_brings_no_destroyed_key_back(desk: KeyDesk, tmp_path: Path):
    """A copy from before a key was destroyed holds the key: it is refused, and the key is named."""
    desk.rotate()
    middle = desk.rotate().keys[1].id
    desk.export(tmp_path / "copy.json")
    desk.set_state(middle, KeyState.DESTROYED)
    with pytest.raises(KeyNeeded, match=f"key {middle} was destroyed"):
        desk.import_(tmp_path / "copy.json")


def test_no_command_shows_a_key(desk: KeyDesk, tmp_path: Path):
    """No key and no KEK, in any spelling, is in what is listed, in an error with its local variables, or in a file."""
    first = desk.load()
    needles = [*key_needles(*materials(first, desk.rotate()), kek_of(desk))]
    shown = [
        json.dumps(describe_keys(desk.load())),
        repr(desk.load()),
        repr(desk),
        *what_dies_with(desk.load(), first.primary_id),
    ]
    assert leaks_in("\n".join(shown), needles) == []
    (tmp_path / "cut.json").write_bytes(desk.key_file.read_bytes()[:-9])
    errors: list[BaseException] = []
    for work in (
        lambda: desk.set_state(first.primary_id, KeyState.DISABLED),
        lambda: desk.set_state(1, KeyState.ENABLED),
        lambda: desk.import_(tmp_path / "cut.json"),
        lambda: desk.import_(tmp_path / "nothing.json"),
        lambda: desk.export(desk.key_file),
    ):
        with pytest.raises(GharialError) as caught:
            work()
        errors.append(caught.value)
    desk.key_file.chmod(0o644)
    with pytest.raises(KeyFileUnusable) as caught:
        desk.rotate()
    for error in (*errors, caught.value):
        assert leaks_in_error(error, needles) == []
    assert leaks_in_files(tmp_path, needles, but=[desk.base / "secret" / "kek"]) == []


def test_the_needles_are_found_in_every_spelling():
    """The search above finds a key in hexadecimal, base64 at any place, and a repr: it can fail."""
    import base64

    secret = bytes(range(100, 132))
    for text in (
        secret.hex(),
        repr(secret),
        base64.b64encode(b"x" + secret).decode(),
        base64.b64encode(secret + b"yz").decode(),
    ):
        assert leaks_in(f"key={text}!", key_needles(secret))


def test_a_key_file_is_rewrapped_by_another_kek(desk: KeyDesk, config: Path, monkeypatch):
    """From bytes to a passphrase: keys and tokens stay, the old KEK opens it no more, a wrong one changes nothing."""
    monkeypatch.setenv("GHARIAL_TEST_PASSPHRASE", "correct horse battery staple")
    keyset = desk.rotate()
    token = seal_token(keyset, EMAIL, Kind.STRING, "ann")
    other = config.with_name("other.yaml")
    other.write_text(CONFIG.replace("file:secret/kek", "{ passphrase: env:GHARIAL_TEST_PASSPHRASE }"))
    before = desk.key_file.read_bytes()
    with pytest.raises(KeyFileUnusable, match="kind local"):
        KeyDesk(config).rewrap(other)
    assert desk.key_file.read_bytes() == before
    KeyDesk(other).rewrap(config)
    again = KeyDesk(other).load()
    assert (again.keys, again.revision) == (keyset.keys, keyset.revision)
    assert open_token(again, EMAIL, token)[1] == "ann"
    assert open_token(KeyDesk(other).rotate(), EMAIL, token)[1] == "ann"
    with pytest.raises(KeyFileUnusable, match="kind passphrase"):
        desk.load()


def test_a_key_file_of_version_1_is_written_as_version_2_at_the_first_change(desk: KeyDesk):
    """A file that an earlier Gharial wrote is read, and after a rotation it is one of today's with the same keys."""
    exemplar = json.loads((Path(__file__).parents[1] / "exemplars" / "keyset" / "v1" / "one_key.json").read_text())
    desk.key_file.write_text(exemplar["key_file"])
    (desk.base / "secret" / "kek").write_text(exemplar["kek"])
    first = desk.load()
    desk.rotate()
    assert json.loads(desk.key_file.read_text())["version"] == 2
    assert desk.load().keys[:1] == first.keys


def test_a_tink_keyset_restores_what_a_gateway_had(desk: KeyDesk, tmp_path: Path):
    """Exported in clear or encrypted and imported where the key file was lost: old tokens open, people are the same."""
    keyset = desk.rotate()
    token = seal_token(keyset, EMAIL, Kind.STRING, "ann")
    for cleartext in (False, True):
        target = tmp_path / f"tink-{cleartext}.json"
        desk.export_tink(target, cleartext=cleartext)
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert (leaks_in(target.read_bytes(), key_needles(*materials(keyset))) != []) is cleartext
        desk.key_file.unlink()
        again = desk.import_tink(target)
        assert open_token(desk.load(), EMAIL, token)[1] == "ann"
        assert again.oldest_enabled_id == keyset.oldest_enabled_id


def test_a_tink_import_over_a_key_file_loses_nothing_by_accident(desk: KeyDesk, tmp_path: Path):
    """An older export, and one in which another key is the oldest, are refused by the key; `--replace` accepts it."""
    desk.rotate()
    desk.export_tink(tmp_path / "old.json", cleartext=True)
    newest = desk.rotate().primary_id
    with pytest.raises(KeyNeeded, match=f"key {newest} is not in it"):
        desk.import_tink(tmp_path / "old.json")
    desk.export_tink(tmp_path / "turned.json", cleartext=True)
    content = json.loads((tmp_path / "turned.json").read_text())
    content["key"].reverse()
    (tmp_path / "turned.json").write_text(json.dumps(content))
    with pytest.raises(KeyNeeded, match="is the oldest enabled key"):
        desk.import_tink(tmp_path / "turned.json")
    desk.import_tink(tmp_path / "old.json", replace=True)
    assert len(desk.load().keys) == 2


def test_a_kms_encrypts_no_tink_keyset(desk: KeyDesk, config: Path, tmp_path: Path, monkeypatch):
    """Where the KEK is no 32 bytes only the option that names the danger exports; the error says so."""
    monkeypatch.setenv("GHARIAL_TEST_PASSPHRASE", "correct horse battery staple")
    config.write_text(CONFIG.replace("file:secret/kek", "{ passphrase: env:GHARIAL_TEST_PASSPHRASE }"))
    desk.key_file.unlink()
    make_key_file(config)
    with pytest.raises(KeyNeeded, match=r"kind passphrase; --cleartext"):
        KeyDesk(config).export_tink(tmp_path / "tink.json")
    assert not (tmp_path / "tink.json").exists()
