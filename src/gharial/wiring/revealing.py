"""The command line's side of the reveal API: reads tokens from a text, sends them in bounded calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from gharial.adapters.files import load_secret
from gharial.adapters.reveal_client import RevealClient
from gharial.model.errors import ConfigInvalid, Problem, RequestMalformed
from gharial.settings import Settings, load_settings

MAX_INPUT_BYTES = 50_000_000
BATCH = 200
BATCH_BYTES = 500_000

_SEALED = re.compile(r"(?:tok|enc)_[A-Za-z0-9_-]{23,}")


@dataclass(frozen=True, slots=True)
class Asked:
    """One token or envelope, and the tags that it may be of, in the order in which they are tried."""

    sealed: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What came back: `tag` is empty where the value was refused under every tag; `erased`: there is none any more."""

    sealed: str
    tag: str
    value: object = field(default=None, repr=False)
    erased: bool = False


def read_asked(stream: BinaryIO, tags: Sequence[str]) -> list[Asked]:
    """Return the distinct tokens and envelopes of a text, in its order.

    A JSON list of objects with `tag` and `value` says of which tag each is; of anything else what looks like a token or
    an envelope is taken, wherever it stands, to be tried under `tags`. Raises RequestMalformed for a text that is too
    large, and where tags are missing.
    """
    data = stream.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise RequestMalformed(f"more than {MAX_INPUT_BYTES:,} bytes; send it in parts")
    found = _listed(data)
    if found is None:
        texts = dict.fromkeys(_SEALED.findall(data.decode("utf-8", "replace")))
        found = [Asked(text, tuple(tags)) for text in texts]
    if found and not all(asked.tags for asked in found):
        raise RequestMalformed("a token does not tell its tag: name it with --tag, or several to be tried in turn")
    return found


class _Listed(msgspec.Struct, frozen=True):
    tag: str
    value: str


def _listed(data: bytes) -> list[Asked] | None:
    try:
        items = msgspec.json.decode(data, type=list[_Listed])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    tags: dict[str, list[str]] = {}
    for item in items:
        tags.setdefault(item.value, []).append(item.tag)
    return [Asked(sealed, tuple(dict.fromkeys(of))) for sealed, of in tags.items()] or None


def reveal_all(
    config_path: Path,
    asked: Sequence[Asked],
    *,
    credential: str,
    purpose: str,
    url: str,
    ca: Path | None,
    progress: Callable[[int], None],
) -> list[Told]:
    """Ask the reveal API for all of them; `progress` is told how many are done.

    `credential` is `env:NAME` or `file:PATH`. `url` is where the API is, empty: where the configuration says. A call
    that is told to wait is sent again. Raises ApiUnavailable, ApiRefused, ConfigInvalid.
    """
    settings = load_settings(config_path)
    api = RevealClient(url or _url_of(settings, config_path), ca)
    headers = _headers(settings, load_secret(credential, Path()), purpose)
    told: dict[str, Told] = {}
    left = list(asked)
    while left:
        later: list[Asked] = []
        for batch in _batches(left):
            values = [{"tag": one.tags[0], "value": one.sealed} for one in batch]
            for one, answer in zip(batch, api.reveal(values, headers), strict=True):
                if "error" not in answer:
                    told[one.sealed] = Told(one.sealed, one.tags[0], answer["value"])
                elif answer["error"] == "erased":
                    told[one.sealed] = Told(one.sealed, one.tags[0], erased=True)
                elif len(one.tags) > 1:
                    later.append(Asked(one.sealed, one.tags[1:]))
                else:
                    told[one.sealed] = Told(one.sealed, "")
            progress(len(told))
        left = later
    return [told[one.sealed] for one in asked]


def _batches(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    batch: list[Asked] = []
    size = 0
    for one in asked:
        if batch and (len(batch) >= BATCH or size + len(one.sealed) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one.sealed)
    if batch:
        yield batch


def _url_of(settings: Settings, config_path: Path) -> str:
    if settings.api is None:
        raise ConfigInvalid(
            [Problem(str(config_path), 1, 1, "there is no 'api' here; set it, or name the API by --url")]
        )
    host = f"[{settings.api.address}]" if ":" in settings.api.address else settings.api.address
    return f"{'https' if settings.api.tls else 'http'}://{host}:{settings.api.port}"


def _headers(settings: Settings, credential: str, purpose: str) -> dict[str, str]:
    """Return the headers that carry the credential: a key of Gharial's in its header, any other as a bearer token."""
    keys = [source.api_keys.header for source in settings.identity if source.api_keys is not None]
    tokens = [source.jwt.header for source in settings.identity if source.jwt is not None]
    headers = {"Content-Type": "application/json"}
    if keys and (credential.startswith("ghk_") or not tokens):
        headers[keys[0]] = credential
    else:
        headers[tokens[0] if tokens else "Authorization"] = f"Bearer {credential}"
    if purpose:
        headers["Gharial-Purpose"] = purpose
    return headers
