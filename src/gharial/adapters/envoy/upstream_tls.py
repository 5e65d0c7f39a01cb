"""Who an upstream says it is, and how Envoy checks that. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gharial.settings import Upstream


@dataclass(frozen=True, slots=True)
class Authority:
    """The name of an upstream: as its Host header (with a port, if one is named) and as its certificate has it."""

    host_header: str
    name: str

    @classmethod
    def of(cls, upstream: Upstream) -> Authority:
        """Return `upstream.host`, or what its URL says."""
        return cls(host_header=upstream.host_header, name=urlsplit(f"//{upstream.host_header}").hostname or "")

    @property
    def is_address(self) -> bool:
        """True if the name is an IP address."""
        try:
            ipaddress.ip_address(self.name)
        except ValueError:
            return False
        return True


def upstream_transport_socket(authority: Authority, ca: Path) -> dict[str, Any]:
    """Return Envoy's TLS towards an upstream: certificate signed under `ca` and made out to exactly this name.

    Without a matcher for the name Envoy would take any certificate that the CA has ever signed.
    """
    context: dict[str, Any] = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "validation_context": {
                "trusted_ca": {"filename": str(ca)},
                "match_typed_subject_alt_names": [
                    {
                        "san_type": "IP_ADDRESS" if authority.is_address else "DNS",
                        "matcher": {"exact": authority.name},
                    }
                ],
            },
        },
    }
    if not authority.is_address:  # RFC 6066, section 3: addresses are not sent as a server name
        context["sni"] = authority.name
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
