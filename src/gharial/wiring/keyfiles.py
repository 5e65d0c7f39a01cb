"""What an operator does with the key file: makes it, looks at it, changes it, takes it elsewhere and back.

Every change reads, decides and replaces under one lock, so that of two that come at once none is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gharial.adapters.admin import AdminClient
from gharial.adapters.files import write_private_file
from gharial.adapters.key_file import (
    create_key_file,
    key_file_lock,
    load_kek,
    load_keyset,
    read_key_file,
    read_wrapped,
    replace_key_file,
)
from gharial.crypto.kek import Kek, LocalKek
from gharial.crypto.keyfile import unwrap_keyset, wrap_keyset
from gharial.crypto.keyset import Keyset, KeyState, create_keyset, new_kek, parse_kek, rotate, set_state
from gharial.crypto.keyset_history import find_losses, known_of
from gharial.crypto.secret import SecretBytes
from gharial.crypto.tink import (
    adopt,
    export_cleartext,
    export_cleartext_tokens,
    export_encrypted,
    export_encrypted_tokens,
)
from gharial.crypto.tink import import_tink as parse_tink
from gharial.model.errors import AlreadyExists, KeyNeeded
from gharial.settings import load_settings
from gharial.wiring.operator import gate_answers
from gharial.wiring.world import SystemClock, random_bytes

RELOAD_TIMEOUT_S = 60.0
"""How long a running gate may take to read the key file, its KEK included, and to remember its keys."""

RESET_FLAG = "--reset-people-and-credentials"
"""The option that accepts that digests of people and hashes of credentials change."""

_LAST_S = 253_402_300_799
"""The end of the year 9999, beyond which no date is written."""

REPLACE_FLAG = "--replace"
"""The option that accepts that keys are lost."""


def make_key_files(key_file: Path, kek_file: Path) -> None:
    """Write a fresh KEK and a fresh keyset wrapped by it, both of mode 0600."""
    kek = new_kek(random_bytes)
    write_private_file(kek_file, kek.encode() + b"\n")
    _create(key_file, LocalKek(parse_kek(kek)))


def make_key_file(config_path: Path) -> Path:
    """Write the key file that a configuration names, wrapped by the KEK that it names. Raises AlreadyExists."""
    desk = KeyDesk(config_path)
    kek = load_kek(desk.settings, desk.base)
    if desk.key_file.exists():
        raise AlreadyExists(f"there is a key file {desk.key_file} already; a new one would make its tokens unreadable")
    _create(desk.key_file, kek)
    return desk.key_file


def _create(key_file: Path, kek: Kek) -> None:
    data = wrap_keyset(create_keyset(random_bytes, SystemClock().now_s()), kek, random_bytes)
    # Read back at once: a KMS that wraps may refuse to unwrap, and then nothing that the key makes ever comes back.
    unwrap_keyset(data, kek)
    create_key_file(key_file, data)


class KeyDesk:
    """The key file of one configuration. Errors name key ids and paths, never material."""

    def __init__(self, config_path: Path) -> None:
        """Raises ConfigInvalid."""
        self.settings = load_settings(config_path)
        self.base = config_path.resolve().parent
        self.key_file = self.base / self.settings.keys.file

    def load(self) -> Keyset:
        """Return the keyset. Raises KeyFileUnusable, ConfigInvalid."""
        return load_keyset(self.settings, self.base)

    def rotate(self) -> Keyset:
        """Add a new primary and return the keyset; the keys before it still open what they sealed."""
        return self._change(lambda keyset: rotate(keyset, random_bytes, SystemClock().now_s()))

    def set_state(self, key_id: int, state: KeyState, *, reset: bool = False) -> Keyset:
        """Put one key into another state and return the keyset.

        Raises KeyUnknown as `crypto.keyset.set_state` does, and KeyNeeded if digests of people and hashes of
        credentials would change, unless `reset`.
        """
        return self._change(lambda keyset: with_state(keyset, key_id, state, reset=reset))

    def export(self, target: Path) -> Keyset:
        """Write a copy of the key file, wrapped as it is, where there is no file yet; return what is in it."""
        data = read_key_file(self.key_file)
        # What can't be opened is no backup.
        keyset = unwrap_keyset(data, load_kek(self.settings, self.base))
        create_key_file(target, data)
        return keyset

    def import_(self, source: Path, *, replace: bool = False) -> Keyset:
        """Make a key file that this KEK wrapped the one of the gateway, and return what is in it.

        Raises KeyNeeded unless `replace` if there is one that holds keys which `source` lacks; StoreInUse for `replace`
        while a gateway runs, since what it remembers of the lost keys is forgotten with them.
        """
        kek = load_kek(self.settings, self.base)
        data = read_wrapped(source)
        keyset = unwrap_keyset(data, kek)
        with key_file_lock(self.key_file):
            present = None if replace else self._find_present(kek)
            self._put(source, keyset, data, present, replace=replace)
        return keyset

    def import_tink(self, source: Path, *, replace: bool = False) -> Keyset:
        """Make a Tink keyset of PRF keys, in clear or encrypted under a KEK of 32 bytes, the keyset of the gateway.

        Raises what `import_` does, and KeyNeeded if a key of the same id is another one there.
        """
        kek = load_kek(self.settings, self.base)
        local = kek if isinstance(kek, LocalKek) else None
        keyset = parse_tink(SecretBytes(read_wrapped(source)), local, random_bytes(16).hex(), SystemClock().now_s())
        with key_file_lock(self.key_file):
            present = None if replace else self._find_present(kek)
            if present is not None:
                keyset = adopt(keyset, present)
            data = wrap_keyset(keyset, kek, random_bytes)
            unwrap_keyset(data, kek)
            self._put(source, keyset, data, present, replace=replace)
        return keyset

    def export_tink(self, target: Path, *, tag: str = "", tenant: str = "", cleartext: bool = False) -> Keyset:
        """Write all keys, or with `tag` what opens that tag's tokens, as a Tink keyset where there is no file yet.

        Raises KeyNeeded if it is not to be in clear, and the KEK is not one of 32 bytes: nothing else can encrypt it.
        """
        kek = load_kek(self.settings, self.base)
        keyset = unwrap_keyset(read_key_file(self.key_file), kek)
        tenant = tenant or self.settings.tenant
        if cleartext:
            data: bytes = export_cleartext_tokens(keyset, tenant, tag) if tag else export_cleartext(keyset)
        elif isinstance(kek, LocalKek):
            if tag:
                data = export_encrypted_tokens(keyset, tenant, tag, kek, random_bytes)
            else:
                data = export_encrypted(keyset, kek, random_bytes)
        else:
            raise KeyNeeded(
                f"a Tink keyset is encrypted under 32 bytes, and keys.kek is of kind {kek.kind}; --cleartext writes it "
                "in clear"
            )
        create_key_file(target, data)
        return keyset

    def _find_present(self, kek: Kek) -> Keyset | None:
        return unwrap_keyset(read_key_file(self.key_file), kek) if self.key_file.exists() else None

    def _put(self, source: Path, keyset: Keyset, data: bytes, present: Keyset | None, *, replace: bool) -> None:
        """Replace the key file by one that was brought; with `replace`, whatever it costs. The lock is held."""
        if replace:
            asyncio.run(self._replace(data, keyset))
            return
        if present is not None:
            losses = find_losses(known_of(present), keyset)
            if losses:
                raise KeyNeeded(
                    f"{source} is older than {self.key_file}, or of another keyset: {'; '.join(losses)}; "
                    f"{REPLACE_FLAG} accepts that"
                )
            if keyset.oldest_enabled_id != present.oldest_enabled_id:
                raise KeyNeeded(
                    f"key {present.oldest_enabled_id} is the oldest enabled key, in {source} it is key "
                    f"{keyset.oldest_enabled_id}: all people would count as new and every credential would have to be "
                    f"issued again; {REPLACE_FLAG} accepts that"
                )
        replace_key_file(self.key_file, data)

    async def _replace(self, data: bytes, keyset: Keyset) -> None:
        from gharial.adapters.store import open_store

        path = self.base / self.settings.store.removeprefix("sqlite:")
        if not path.exists():
            replace_key_file(self.key_file, data)
            return
        # Opened first: while a gateway runs it is refused, and nothing has changed.
        store = open_store(path)
        try:
            replace_key_file(self.key_file, data)
            await store.remember_keys(known_of(keyset), alone=True)
        finally:
            store.close()

    def tell_gate(self) -> bool:
        """Have a running gateway take the key file as it is now; False if none runs here.

        Raises AdminRefused if it does not take it: then it goes on with the keys that it has.
        """
        admin_socket = self.base / self.settings.admin.socket
        if not gate_answers(admin_socket):
            return False
        AdminClient(admin_socket, RELOAD_TIMEOUT_S).call("POST", "/keys/reload")
        return True

    def rewrap(self, old_config: Path) -> Keyset:
        """Wrap the key file by the KEK of this configuration, where it is wrapped by that of `old_config` still.

        Raises KeyFileUnusable, KekUnavailable, ConfigInvalid; the file is as it was then.
        """
        old_kek = load_kek(load_settings(old_config), old_config.resolve().parent)
        with key_file_lock(self.key_file):
            keyset = unwrap_keyset(read_key_file(self.key_file), old_kek)
            self._write(keyset, load_kek(self.settings, self.base))
        return keyset

    def _change(self, change: Callable[[Keyset], Keyset]) -> Keyset:
        with key_file_lock(self.key_file):
            kek = load_kek(self.settings, self.base)
            changed = change(unwrap_keyset(read_key_file(self.key_file), kek))
            self._write(changed, kek)
        return changed

    def _write(self, keyset: Keyset, kek: Kek) -> None:
        data = wrap_keyset(keyset, kek, random_bytes)
        # Read back before it replaces anything: what can't be opened again must not get there.
        unwrap_keyset(data, kek)
        replace_key_file(self.key_file, data)


def with_state(keyset: Keyset, key_id: int, state: KeyState, *, reset: bool = False) -> Keyset:
    """Return the keyset with one key in another state. Raises what `KeyDesk.set_state` raises."""
    changed = set_state(keyset, key_id, state)
    if changed.oldest_enabled_id != keyset.oldest_enabled_id and not reset:
        raise KeyNeeded(
            f"key {keyset.oldest_enabled_id} is the oldest enabled key, and key {changed.oldest_enabled_id} would be: "
            "all people would count as new and every credential would have to be issued again; "
            f"{RESET_FLAG} accepts that"
        )
    return changed


def describe_keys(keyset: Keyset) -> dict[str, Any]:
    """Return what may be shown of a keyset, as JSON: its keys in the order of their making, and what hangs on which."""
    return {
        "keyset": keyset.keyset_id,
        "primary": keyset.primary_id,
        "oldest_enabled": keyset.oldest_enabled_id,
        "keys": [
            {
                "id": key.id,
                "state": key.state.value,
                "created": datetime.fromtimestamp(min(key.created_s, _LAST_S), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "seals": key.id == keyset.primary_id,
                "people_and_credentials": key.id == keyset.oldest_enabled_id,
            }
            for key in keyset.keys
        ],
    }


def what_dies_with(keyset: Keyset, key_id: int) -> list[str]:
    """Return what is lost for good when this key is destroyed, a sentence each. Raises KeyUnknown if it may not be."""
    gone = set_state(keyset, key_id, KeyState.DESTROYED)
    described = describe_keys(keyset)["keys"]
    index = next(number for number, key in enumerate(described) if key["id"] == key_id)
    until = f" to {described[index + 1]['created']}" if index + 1 < len(described) else ""
    sealed = f"(primary from {described[index]['created']}{until})"
    lines = [f"Every token and entity tag made with key {key_id} {sealed} is refused for ever, and opens nowhere."]
    if gone.oldest_enabled_id != keyset.oldest_enabled_id:
        lines.append(
            f"Digests of people and hashes of credentials hang on key {key_id}: all people count as new, and every "
            "credential must be issued again."
        )
        lines.append(
            f"Values of fpe, random tokens and keys of people hang on key {key_id} too: those that were handed out "
            "open nowhere. Pseudonyms, substitutes and shifted dates come out otherwise."
        )
    lines.append("Copies of the key file that were made before still hold it: destroy them too, if it must be gone.")
    return lines
