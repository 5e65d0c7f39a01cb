"""The key file on disk: read if it is private, replaced as a whole, and changed by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from gharial.adapters.files import load_secret, write_private_file
from gharial.adapters.replace_file import replace_file, sync_folder
from gharial.crypto.kek import Kek, LocalKek, PassphraseKek
from gharial.crypto.keyfile import MAX_FILE_BYTES, unwrap_keyset
from gharial.crypto.keyset import Keyset, parse_kek
from gharial.crypto.secret import SecretBytes
from gharial.model.errors import AlreadyExists, KeyFileUnusable, KeyFileUnwritable
from gharial.settings import Settings


def load_kek(settings: Settings, base: Path) -> Kek:
    """Return what wraps the key file; nothing of a KMS is asked yet.

    Raises ConfigInvalid for a secret that is not there, KeyFileUnusable for one that is no KEK.
    """
    kek = settings.keys.kek
    if kek.passphrase is not None:
        return PassphraseKek(load_secret(kek.passphrase, base))
    if kek.transit is not None:
        from gharial.adapters.kms.transit import TransitKek

        one = kek.transit
        token = SecretBytes(load_secret(one.token, base).encode())
        return TransitKek(one.url, one.mount, one.key, token, one.namespace, one.ca, one.timeout_s)
    if kek.aws is not None:
        from gharial.adapters.kms.aws import AwsKek

        return AwsKek(kek.aws.key, kek.aws.region, kek.aws.endpoint or "", kek.aws.timeout_s)
    if kek.google is not None:
        from gharial.adapters.kms.google import ENDPOINT, GoogleKek

        return GoogleKek(kek.google.key, kek.google.endpoint or ENDPOINT, kek.google.timeout_s)
    if kek.pkcs11 is not None:
        from gharial.adapters.kms.pkcs11 import Pkcs11Kek

        pin = SecretBytes(load_secret(kek.pkcs11.pin, base).encode())
        return Pkcs11Kek(kek.pkcs11.module, kek.pkcs11.token, kek.pkcs11.key, pin)
    assert kek.bytes_ is not None  # noqa: S101 - the settings have exactly one of them
    return LocalKek(parse_kek(load_secret(kek.bytes_, base)))


def load_keyset(settings: Settings, base: Path) -> Keyset:
    """Return the keyset of the key file; blocks while a KMS is asked.

    Raises KeyFileUnusable, also where there is no file; ConfigInvalid; KekUnavailable.
    """
    return unwrap_keyset(read_key_file(base / settings.keys.file), load_kek(settings, base))


def read_key_file(path: Path) -> bytes:
    """Return what stands in a key file. Raises KeyFileUnusable, also where others can read it."""
    try:
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_mode & 0o077:
                raise KeyFileUnusable(f"the key file {path} can be read by others; chmod 600 it")
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = "'gharial keys init' makes one" if isinstance(error, FileNotFoundError) else type(error).__name__
        raise KeyFileUnusable(f"the key file {path} can't be read: {hint}") from None


def read_wrapped(path: Path) -> bytes:
    """Return what stands in a copy of a key file; who may read it does not matter. Raises KeyFileUnusable."""
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileUnusable(f"{path} can't be read ({error.strerror or type(error).__name__})") from None


def replace_key_file(path: Path, data: bytes) -> None:
    """Put a key file in the place of the one at `path`, or where there is none; durable when it returns.

    A link stays one: the file that it leads to is replaced. Raises KeyFileUnwritable, which says whether the old file
    stands there then or the new one; it is whole.
    """
    real = path.resolve()
    try:
        real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(real, data)
    except OSError as error:
        with contextlib.suppress(OSError):
            if real.read_bytes() == data:
                why = error.strerror or type(error).__name__
                raise KeyFileUnwritable(f"{path} is written, and it is not sure that it is on disk ({why})") from None
        raise KeyFileUnwritable(_why_unwritable(path, error)) from None


def create_key_file(path: Path, data: bytes) -> None:
    """Write a key file where there is none. Raises AlreadyExists, KeyFileUnwritable."""
    try:
        write_private_file(path, data)
        sync_folder(path.parent)
    except FileExistsError:
        raise AlreadyExists(f"there is a file {path} already") from None
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise KeyFileUnwritable(_why_unwritable(path, error)) from None


@contextlib.contextmanager
def key_file_lock(path: Path) -> Iterator[None]:
    """Hold a key file for one process that reads, changes and replaces it; others wait. Raises KeyFileUnwritable.

    The lock is a file beside it (`NAME.lock`), since the key file itself is another one after each change.
    """
    lock = path.resolve().with_name(f"{path.resolve().name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeyFileUnwritable(_why_unwritable(lock, error)) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _why_unwritable(path: Path, error: OSError) -> str:
    return f"{path} can't be written ({error.strerror or type(error).__name__}); what stood there is unchanged"
