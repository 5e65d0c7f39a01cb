"""One request to a KMS over HTTP: JSON there and back, bounded in time and size; no key is in an error's frames."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec

from gharial.crypto.secret import SecretBytes

_MAX_ANSWER_BYTES = 65_536
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of any status, or in `problem` why there is none and what to do."""

    status: int = 0
    body: SecretBytes = field(default=SecretBytes(b""), repr=False)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """Whom to ask. `setting` is the section of gharial.yaml that says so (`keys.kek.transit`), for what is said."""

    setting: str
    ca: Path | None
    timeout_s: float


def post(server: Server, url: str, content: Mapping[str, bytes], headers: Mapping[str, bytes]) -> Answer:
    """POST these texts as a JSON object and return the answer. Blocks; not for a thread that runs an event loop.

    No redirect is followed and no proxy of the environment is asked: what authorizes goes to this server alone.
    """
    body = SecretBytes(json.dumps({name: bytes(text).decode("ascii") for name, text in content.items()}).encode())
    return asyncio.run(_post(server, url, body, headers))


async def _post(server: Server, url: str, body: SecretBytes, headers: Mapping[str, bytes]) -> Answer:
    problem = ""
    try:
        tls = ssl.create_default_context(cafile=server.ca) if url.startswith("https:") else False
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls),
                timeout=aiohttp.ClientTimeout(total=server.timeout_s),
                trust_env=False,
            ) as session,
            session.post(
                url,
                data=bytes(body),
                headers={name: bytes(value).decode("latin-1") for name, value in headers.items()},
                allow_redirects=False,
            ) as response,
        ):
            return Answer(response.status, SecretBytes(await _bounded(response.content)))
    except TimeoutError:
        problem = (
            f"did not answer within {server.timeout_s:g} s; see whether it is up, or raise {server.setting}.timeout"
        )
    except (aiohttp.ClientConnectorCertificateError, ssl.SSLError):
        problem = f"has a certificate that is not accepted; {server.setting}.ca names the CA"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        problem = f"can't be reached ({type(error).__name__}); see whether it is up, and {server.setting}"
    # Built out here: the errors of the library hold requests, and those what authorizes.
    return Answer(problem=problem)


async def _bounded(stream: aiohttp.StreamReader) -> bytes:
    data = bytearray()
    async for chunk in stream.iter_chunked(8_192):
        data += chunk
        if len(data) > _MAX_ANSWER_BYTES:
            raise ValueError("the answer is too long to be one")
    return bytes(data)


def find_decoded(data: bytes, kind: type[_T]) -> _T | None:
    """Return the JSON text as this type, or None if it is not one."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def find_base64(text: str) -> SecretBytes | None:
    """Return what base64 (RFC 4648, section 4) spells, or None."""
    try:
        return SecretBytes(base64.b64decode(text.encode("ascii"), validate=True))
    except (UnicodeEncodeError, binascii.Error):
        return None
