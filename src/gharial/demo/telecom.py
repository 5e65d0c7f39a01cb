"""A made-up telecom: 37,000,000 customers computed from their ids, and the API that hands them out to anybody.

Nothing is stored and nobody is real: e-mail addresses end in `.example` (RFC 2606), numbers begin with +999, a code
that no country has. Run it alone with `python -m gharial.demo.telecom --port 9000`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import socket
import unicodedata
from datetime import date, timedelta
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gharial.demo.names import CITIES, FIRST_NAMES, LAST_NAMES, STREETS

CUSTOMERS = 37_000_000
MAX_PAGE = 100
_KEY = b"gharial demo: nobody in here is real"
_FIRST_BIRTH = date(1935, 1, 1)
_BIRTH_DAYS = (date(2006, 12, 31) - _FIRST_BIRTH).days

_PLANS = ("Basic 5", "Family 40", "Unlimited", "Unlimited Plus", "Prepaid", "Business 100")
_COUNTRIES = ("US", "US", "US", "DE", "FR", "ES", "SE", "GB", "CA", "NL")


def customer(customer_id: int) -> dict[str, Any]:
    """Return the record of one customer (ids 1 to CUSTOMERS); the same id always gives the same person."""
    draw = hashlib.blake2b(customer_id.to_bytes(8, "big"), key=_KEY, digest_size=32).digest()

    def pick(at: int) -> int:
        return int.from_bytes(draw[at : at + 4], "big")

    first, last = FIRST_NAMES[pick(0) % len(FIRST_NAMES)], LAST_NAMES[pick(4) % len(LAST_NAMES)]
    digits = str(10**12 + int.from_bytes(draw[8:16], "big") % 10**12)[1:]
    return {
        "customerId": customer_id,
        "fullName": f"{first} {last}",
        "email": f"{_EMAIL[first]}.{_EMAIL[last]}{draw[16] * 256 + draw[17]}@mail.example",
        "msisdn": f"+999{int.from_bytes(draw[18:23], 'big') % 10**9:09d}",
        "dob": (_FIRST_BIRTH + timedelta(days=pick(23) % _BIRTH_DAYS)).isoformat(),
        "accountNumber": f"{digits[:4]}-{digits[4:8]}-{digits[8:]}",
        "billingAddress": {
            "street": f"{draw[27] + 1} {STREETS[draw[28] % len(STREETS)]}",
            "city": CITIES[draw[28] // 16 % len(CITIES)],
            "postalCode": digits[3:8],
        },
        "plan": _PLANS[draw[29] % len(_PLANS)],
        "lines": draw[30] % 5 + 1,
        "country": _COUNTRIES[draw[31] % len(_COUNTRIES)],
    }


def bill(customer_id: int) -> dict[str, Any]:
    """Return what a billing partner works with: one customer's contract, as it stands on the bill."""
    record = customer(customer_id)
    return {name: record[name] for name in ("customerId", "fullName", "accountNumber", "plan", "lines", "country")}


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFD", name.lower().replace("ø", "o"))
    return "".join(char for char in plain if char.isascii() and char.isalpha())


_EMAIL = {name: _ascii(name) for name in (*FIRST_NAMES, *LAST_NAMES)}


# --- the API: no credential, no question asked --------------------------------------------------------------------


def app() -> Starlette:
    """Return the API: `/customers/{id}`, `/customers/{id}/bill`, `/customers?from=&limit=`."""
    return Starlette(
        routes=[
            Route("/customers", _list),
            Route("/customers/{id}", _customer),
            Route("/customers/{id}/bill", _bill),
        ]
    )


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _find_id(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal() and len(text) <= 8):
        return None
    number = int(text)
    return number if 1 <= number <= CUSTOMERS else None


async def _customer(request: Request) -> Response:
    customer_id = _find_id(request.path_params["id"])
    return _no_customer() if customer_id is None else _json(customer(customer_id))


async def _bill(request: Request) -> Response:
    customer_id = _find_id(request.path_params["id"])
    return _no_customer() if customer_id is None else _json(bill(customer_id))


async def _list(request: Request) -> Response:
    first = _find_id(request.query_params.get("from", "1"))
    limit = request.query_params.get("limit", "20")
    if first is None or not (limit.isascii() and limit.isdecimal() and len(limit) <= 3):
        return _json({"error": "from is an id, limit a number"}, 400)
    count = max(1, min(int(limit), MAX_PAGE))
    end = min(first + count, CUSTOMERS + 1)
    return _json({"items": [customer(n) for n in range(first, end)], "next": f"/customers?from={end}&limit={count}"})


def _no_customer() -> Response:
    return _json({"error": "there is no such customer"}, 404)


def main(arguments: list[str] | None = None) -> None:
    """Serve on a loopback port, or on a listening socket that the parent hands over, until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m gharial.demo.telecom", description="The API of a made-up telecom.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int, help="listen on this port of 127.0.0.1")
    where.add_argument("--fd", type=int, help="serve on this listening socket")
    chosen = parser.parse_args(arguments)
    listener = (
        socket.create_server(("127.0.0.1", chosen.port)) if chosen.fd is None else socket.socket(fileno=chosen.fd)
    )
    config = uvicorn.Config(
        app(), http="httptools", lifespan="off", access_log=False, log_level="warning", timeout_graceful_shutdown=2
    )
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
