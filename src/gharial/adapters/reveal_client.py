"""The client's side of the reveal API, for the command line."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gharial.model.errors import ApiUnavailable, ConfigInvalid, GharialError, Problem

TIMEOUT_S = 30.0
MAX_WAITS = 20
"""How often in a row a call is sent again after it was told to wait."""


class ApiRefused(GharialError):
    """The API refused a call as a whole; `code` and text are its own."""

    def __init__(self, code: str, title: str) -> None:
        super().__init__(title)
        self.code = code


class RevealClient:
    """Speaks to one API. Raises ConfigInvalid for a URL or a CA file that can't be used."""

    def __init__(self, url: str, ca: Path | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigInvalid([Problem("--url", 1, 1, "is http:// or https:// with a host")])
        self._shown = f"{parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(":")
        self._host, self._port = parts.hostname, parts.port
        try:
            self._tls = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None
        except OSError as error:
            raise ConfigInvalid([Problem("--ca", 1, 1, f"can't be read ({type(error).__name__})")]) from None

    def reveal(self, values: Sequence[Mapping[str, str]], headers: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return one answer per value; a number that is not whole is a Decimal, with each digit.

        Raises ApiUnavailable, ApiRefused.
        """
        body = json.dumps({"values": list(values)})
        for _ in range(MAX_WAITS):
            status, wait_s, answer = self._post(body, headers)
            if status == 200:
                return list(answer["values"])
            if status != 429:
                raise ApiRefused(str(answer.get("code", "internal")), str(answer.get("title", "refused")))
            time.sleep(wait_s)
        raise ApiUnavailable(f"the API at {self._shown} says again and again that there are too many calls")

    def _post(self, body: str, headers: Mapping[str, str]) -> tuple[int, float, dict[str, Any]]:
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._tls)
            if self._tls is not None
            else http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        )
        try:
            connection.request("POST", "/v1/reveal", body, dict(headers))
            response = connection.getresponse()
            wait = response.headers.get("retry-after", "1")
            return (
                response.status,
                float(wait) if wait.isdecimal() else 1.0,
                dict(json.loads(response.read(), parse_float=Decimal)),
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ApiUnavailable(f"no reveal API answers at {self._shown} ({type(error).__name__})") from None
        finally:
            connection.close()
