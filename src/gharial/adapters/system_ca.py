"""Where this machine keeps the certificates of public authorities, for HTTPS upstreams without a `ca` of their own."""

from __future__ import annotations

import importlib.util
import ssl
from pathlib import Path

_USUAL = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def find_system_ca_bundle() -> Path | None:
    """Return the PEM file of the system's authorities, or that of the package certifi, or None."""
    paths = ssl.get_default_verify_paths()
    for candidate in (paths.cafile, paths.openssl_cafile, *_USUAL):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    if importlib.util.find_spec("certifi") is None:
        return None
    import certifi

    return Path(certifi.where())
