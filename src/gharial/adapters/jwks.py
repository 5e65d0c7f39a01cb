"""Checks JSON Web Tokens against the public keys in a JWKS file (RFC 7515, 7517, 7519, 8037; practice of RFC 8725).

What a token says about its own verification is never believed further than picking one of the file's keys: the
algorithm must be one of three and fit the key's type and curve, and a header that brings a key along is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from joserfc import jwk, jws
from joserfc.errors import JoseError

from gharial.model.errors import ConfigInvalid, Problem, UnknownCredential

_MAX_TOKEN_CHARS = 8192
_MAX_FILE_BYTES = 1_000_000
_MAX_CACHED = 4096
_MAX_DATE = 10**12
_MIN_RSA_BITS = 2048
_LOOK_EVERY_S = 1.0

_HEADER_MEMBERS = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
"""Everything else is refused: `jwk`, `jku`, `x5u`, `x5c` bring a key along, `crit` and `b64` change the meaning, and
what an unknown member asks for can't be known."""

_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""Other types (`logout+jwt`, `dpop+jwt` …) are signed with the same keys for other ends (RFC 8725, section 3.11)."""

# RFC 9864 calls EdDSA over Ed25519 `Ed25519`; both names are the same algorithm here.
_KIND_OF_ALG = {"RS256": "RSA", "ES256": "P-256", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}

_ALG_OF_KTY = {"RSA": "RS256", "EC": "ES256", "OKP": "Ed25519"}
_ALGORITHMS = jws.JWSRegistry(algorithms=list(_ALG_OF_KTY.values()))


@dataclass(frozen=True, slots=True)
class _Key:
    """A usable public key. `kind` is RSA, P-256 or Ed25519; `alg` what the file restricts it to, or empty."""

    kid: str | None
    kind: str
    alg: str
    key: jwk.Key


class JwksFileVerifier:
    """The port `JwtVerifier` over a JWKS file, for one issuer and one audience.

    The file is looked at again at most once a second (by the time that is handed in) and re-read when it changed. A
    new file that can't be used leaves the old keys in place; `problem` then says why, and is empty otherwise.
    Raises ConfigInvalid if the first file can't be used.
    """

    def __init__(self, path: Path, issuer: str, audience: str, leeway_s: int = 30) -> None:
        if not issuer or not audience:
            raise ValueError("a verifier needs an issuer and an audience")
        self._path = path
        self._issuer = issuer
        self._audience = audience
        self._leeway_s = leeway_s
        self._looked_s = float("-inf")
        self._cache: OrderedDict[bytes, Mapping[str, object]] = OrderedDict()
        self.problem = ""
        self._seen: tuple[int, ...] = ()
        try:
            self._keys, self._seen = _load_keys(path)
        except _FileUnusable as error:
            raise ConfigInvalid([Problem(str(path), 1, 1, str(error))]) from None

    def verify(self, token: str, now_s: float) -> Mapping[str, object]:
        """Return the claims of a valid token. Raises UnknownCredential for every other, always in the same words.

        `now_s` is the time in seconds since the epoch. Valid: signed by a key of the file with RS256, ES256 or EdDSA;
        `iss` and `aud` as configured; `exp` present and ahead; `nbf` and `iat`, if present, not ahead.
        """
        self._look(now_s)
        if not token.isascii() or len(token) > _MAX_TOKEN_CHARS:
            raise UnknownCredential
        digest = hashlib.sha256(token.encode("ascii")).digest()
        claims = self._cache.get(digest)
        try:
            if claims is None:
                claims = self._check(token)
            self._check_times(claims, now_s)
        except _TokenRefused:
            self._cache.pop(digest, None)
            raise UnknownCredential from None
        self._keep(digest, claims, now_s)
        return claims

    def _keep(self, digest: bytes, claims: Mapping[str, object], now_s: float) -> None:
        """Remember a checked token until its end; in the leeway after it, each call is checked anew."""
        exp = claims["exp"]
        if isinstance(exp, int | float) and now_s < exp:
            self._cache[digest] = claims
            self._cache.move_to_end(digest)
            if len(self._cache) > _MAX_CACHED:
                self._cache.popitem(last=False)
        else:
            self._cache.pop(digest, None)

    def _check(self, token: str) -> Mapping[str, object]:
        """Return the claims of a token whose form, signature, issuer and audience hold; times are another matter."""
        parts = token.split(".")
        if len(parts) != 3:
            _refuse("not three parts")
        header = _parse_object(_decode(parts[0]))
        alg, kid = _check_header(header)
        key = self._pick(alg, kid)
        if not _is_signed(f"{parts[0]}.{parts[1]}", _decode(parts[2]), key):
            _refuse("bad signature")
        claims = _parse_object(_decode(parts[1]))
        if claims.get("iss") != self._issuer:
            _refuse("another issuer")
        audiences = claims.get("aud")
        if isinstance(audiences, str):
            audiences = [audiences]
        if not isinstance(audiences, list) or self._audience not in audiences:
            _refuse("another audience")
        return MappingProxyType(claims)

    def _pick(self, alg: str, kid: str | None) -> jwk.Key:
        """Return the one key that fits. Two that fit would make the token's meaning a guess."""
        kind = _KIND_OF_ALG[alg]
        fitting = [
            key.key
            for key in self._keys
            if key.kind == kind
            and (not key.alg or _KIND_OF_ALG.get(key.alg) == kind)
            and (kid is None or key.kid == kid)
        ]
        if len(fitting) != 1:
            _refuse("no single key fits")
        return fitting[0]

    def _check_times(self, claims: Mapping[str, object], now_s: float) -> None:
        if _date(claims.get("exp")) + self._leeway_s <= now_s:
            _refuse("expired")
        for name in ("nbf", "iat"):
            if name in claims and _date(claims[name]) - self._leeway_s > now_s:
                _refuse("from the future")

    def _look(self, now_s: float) -> None:
        # A clock that was set back must not stop the looking.
        if 0 <= now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            if _fingerprint(os.stat(self._path)) == self._seen:
                self.problem = ""
                return
            keys, seen = _load_keys(self._path)
        except OSError as error:
            self.problem = f"{self._path}: can't be read ({type(error).__name__}); the keys of before stay in use"
            return
        except _FileUnusable as error:
            self.problem = f"{self._path}: {error}; the keys of before stay in use"
            return
        self._keys, self._seen, self.problem = keys, seen, ""
        # A token that was checked with a key that is gone now must be checked again.
        self._cache.clear()


class _TokenRefused(Exception):
    """Why a token is not valid, for a reader of this module; it leaves here as UnknownCredential without the why."""


class _FileUnusable(Exception):
    """Why a JWKS file can't be used, for its owner."""


def _refuse(why: str) -> NoReturn:
    raise _TokenRefused(why)


def _decode(part: str) -> bytes:
    """Decode base64url strictly (RFC 7515, section 2): no padding, no other characters, no second spelling."""
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError:
        _refuse("not base64url")
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        _refuse("not canonical base64url")
    return data


def _parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object. Refuses a name that occurs twice at any depth, NaN and infinities, and what is no object."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        _refuse("not JSON")
    if not isinstance(value, dict):
        _refuse("not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        _refuse("a name twice")
    return out


def _check_header(header: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return algorithm and key id."""
    if not header.keys() <= _HEADER_MEMBERS:
        _refuse("a header member that is not known, or brings a key along")
    if not all(isinstance(value, str) for value in header.values()):
        _refuse("a header member that is no text")
    if header.get("alg") not in _KIND_OF_ALG:
        _refuse("another algorithm")
    if header.get("typ", "JWT").lower() not in _TYPES:
        _refuse("another type of token")
    return header["alg"], header.get("kid")


def _is_signed(signing_input: str, signature: bytes, key: jwk.Key) -> bool:
    # The key's own kind chooses the algorithm; the header was only allowed to agree with it.
    algorithm = _ALGORITHMS.get_alg(_ALG_OF_KTY[key.key_type])
    try:
        algorithm.check_key(key)
        return algorithm.verify(signing_input.encode("ascii"), signature, key)
    except (JoseError, ValueError):
        return False


def _date(value: object) -> float:
    """Return a NumericDate (RFC 7519, section 2) in seconds."""
    # The comparison is false for NaN, too, and comes before float(), which fails on very large integers.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_DATE:
        _refuse("not a date")
    return float(value)


def _fingerprint(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _load_keys(path: Path) -> tuple[tuple[_Key, ...], tuple[int, ...]]:
    """Read the keys that can be used, and what the file looked like. Raises _FileUnusable."""
    try:
        with path.open("rb") as file:
            seen = _fingerprint(os.fstat(file.fileno()))
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _FileUnusable(f"can't be read ({type(error).__name__})") from None
    if len(data) > _MAX_FILE_BYTES:
        raise _FileUnusable(f"is larger than {_MAX_FILE_BYTES} bytes")
    try:
        entries = _parse_object(data).get("keys")
    except _TokenRefused as error:
        raise _FileUnusable(f"is no JWKS: {error}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _FileUnusable("is no JWKS: it has no list 'keys'")
    if any("d" in entry or entry.get("kty") == "oct" for entry in entries):
        raise _FileUnusable("holds a private or secret key; publish the public keys only, and replace this one")
    keys = tuple(key for key in map(_read_key, entries) if key is not None)
    if not keys:
        raise _FileUnusable("holds no key for RS256 (2048 bits or more), ES256 or EdDSA (Ed25519)")
    return keys, seen


def _read_key(entry: dict[str, Any]) -> _Key | None:
    """Return a key that can check signatures, or None for one of another kind, use or strength."""
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
        return None
    kid, alg = entry.get("kid"), entry.get("alg", "")
    if not (kid is None or isinstance(kid, str)) or not isinstance(alg, str):
        return None
    kind = "RSA" if entry.get("kty") == "RSA" else entry.get("crv")
    if (entry.get("kty"), kind) not in (("RSA", "RSA"), ("EC", "P-256"), ("OKP", "Ed25519")):
        return None
    wanted = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}[entry["kty"]]
    try:
        key = jwk.import_key({"kty": entry["kty"], **{name: entry[name] for name in wanted}})
    except (JoseError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if isinstance(key, jwk.RSAKey) and key.public_key.key_size < _MIN_RSA_BITS:
        return None
    return _Key(kid, str(kind), alg, key)
