"""What clients read when Envoy itself answers: problem details that name nothing of what is inside. Pure."""

from __future__ import annotations

import json
from typing import Any

from gharial.adapters.envoy.messages import DETAILS
from gharial.model.errors import (
    BodyTooLarge,
    GateUnavailable,
    GharialError,
    NoRoute,
    RequestMalformed,
    UpstreamTimeout,
    UpstreamUnreachable,
    problem_body,
)

Json = dict[str, Any]

_DETAILS_IS_OURS = f'response.code_details == "{DETAILS}"'
_EXT_PROC = (
    'response.code_details.contains("ext_proc") || '
    'response.code_details.startsWith("mismatch_between_content_length")'  # a body reply that Envoy does not take
)
_TOO_LARGE = 'response.code_details == "response_payload_too_large"'
_UPSTREAM_TIMEOUT = 'response.code_details in ["response_timeout", "upstream_per_try_timeout"]'
_FROM_UPSTREAM_SIDE = (
    'response.code_details.startsWith("upstream_") || response.code_details in '
    '["no_healthy_upstream", "cluster_not_found", "maintenance_mode"]'
)


def local_reply_config() -> Json:
    """Return the mapping from Envoy's reasons to problem details; the first that fits counts, the last fits all."""
    return {
        "mappers": [
            # The gate's own refusals pass through here too; they already are what they should be.
            {"filter": _when(_DETAILS_IS_OURS)},
            _problem(_EXT_PROC, GateUnavailable()),
            _problem(_TOO_LARGE, BodyTooLarge()),
            _problem(_UPSTREAM_TIMEOUT, UpstreamTimeout()),
            _problem(_FROM_UPSTREAM_SIDE, UpstreamUnreachable()),
            _problem("response.code == 404", NoRoute()),
            # What is wrong with a request keeps the status that says so best (400, 408, 413, 426, 431).
            _problem("response.code >= 400 && response.code < 500", RequestMalformed(), keep_status=True),
            _problem("true", GharialError(), keep_status=True),
        ],
    }


def _problem(condition: str, error: GharialError, *, keep_status: bool = False) -> Json:
    body: dict[str, object] = problem_body(error)
    text = json.dumps(body, separators=(",", ":"))
    if keep_status:
        text = text.replace(f'"status":{error.status}', '"status":%RESPONSE_CODE%')
    mapper: Json = {
        "filter": _when(condition),
        "body_format_override": {
            "text_format_source": {"inline_string": text},
            "content_type": "application/problem+json",
        },
        "headers_to_add": [
            {"header": {"key": "cache-control", "value": "no-store"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ],
    }
    if not keep_status:
        mapper["status_code"] = error.status
    return mapper


def _when(condition: str) -> Json:
    return {
        "extension_filter": {
            "name": "cel",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": condition,
            },
        }
    }
