"""The first files of a new gateway, as `gharial init` writes them; a sample gives names, never values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gharial.model.names import is_ordinary_name
from gharial.model.place import BodyPath, Segment, Select

MAX_SAMPLE_DEPTH = 64
MAX_SAMPLE_FIELDS = 2_000


@dataclass(slots=True)
class SampleField:
    """A field of a sample: where it is, and which JSON types its values had."""

    path: BodyPath
    types: set[str] = field(default_factory=set)


def sample_fields(document: object) -> list[SampleField]:
    """Return every leaf field of a decoded JSON document, once, in order.

    Items of arrays count as one place (`[*]`). A name that looks like data rather than like a name (`ann@ex.org`,
    `4711`) becomes `.*`, because a key of that kind may be somebody's personal data. Raises ValueError beyond
    MAX_SAMPLE_FIELDS fields or MAX_SAMPLE_DEPTH levels.
    """
    found: dict[str, SampleField] = {}
    for segments, kind in _leaves(document, ()):
        path = BodyPath(segments)
        found.setdefault(str(path), SampleField(path)).types.add(kind)
        if len(found) > MAX_SAMPLE_FIELDS:
            raise ValueError(f"the sample has more than {MAX_SAMPLE_FIELDS} fields; give a smaller one")
    return list(found.values())


def _leaves(value: object, path: tuple[Segment, ...]) -> Iterator[tuple[tuple[Segment, ...], str]]:
    if len(path) > MAX_SAMPLE_DEPTH:
        raise ValueError(f"the sample nests deeper than {MAX_SAMPLE_DEPTH} levels")
    if isinstance(value, dict):
        for name, inner in value.items():
            ordinary = is_ordinary_name(name)
            yield from _leaves(inner, (*path, Segment(Select.NAME, name=name) if ordinary else Segment(Select.ANY)))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, (*path, Segment(Select.ANY)))
    else:
        yield path, _json_type(value)


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "string"


def policy_text(name: str, fields: Iterable[SampleField]) -> str:
    """Return a first policy in shadow mode that lists the fields for their owner to tag."""
    listed = [f"      - {_yaml_text(str(f.path))}    # {' or '.join(sorted(f.types))}" for f in fields]
    if listed:
        to_tag = "\n".join(
            [
                "  to_be_tagged:               # nobody was granted these: enforced, they leave redacted",
                "    find:",
                *listed,
            ]
        )
    else:
        to_tag = (
            "  # No sample was given. List fields like this (gharial init --sample answer.json does it for you):\n"
            "  to_be_tagged:\n    find:\n      - '$..email'"
        )
    return _POLICY.format(name=name, to_tag=to_tag)


def config_text(upstream_url: str, policy: str, port: int) -> str:
    """Return a first gharial.yaml before one upstream, everything on loopback."""
    parts = urlsplit(upstream_url)
    return _CONFIG.format(url=f"{parts.scheme}://{parts.netloc}", policy=policy, port=port)


def _yaml_text(text: str) -> str:
    if text.isprintable() and text.isascii() and "'" not in text:
        return f"'{text}'"
    return json.dumps(text)


_POLICY = """\
# A first policy, in shadow mode: it decides, counts and records, and changes nothing on the wire.
#
# What to do next:
#   1. gharial up                       put it before the API, and send it some traffic
#   2. gharial status                   see what it would change, and what it would refuse
#   3. in this file: give every field below a tag that says what it is (name, email, account …); a tag that names
#      a person gets 'subject: customer', so that people can be counted
#   4. write grants: who may see which tag, for which purpose, and how many people an hour
#   5. gharial up --check               says what is wrong, with line and column
#   6. gharial clients add NAME --role ROLE --purpose PURPOSE     a key for each client
#   7. mode: enforce                    and gharial policy publish; what is not granted no longer leaves

policy: {name}
version: 1
mode: shadow                          # shadow | enforce
unlisted_fields: drop                 # a field that no tag names does not leave: drop | redact | pass

tags:
{to_tag}
  # Move each path under a tag of its own, for example:
  # person:  {{ find: ['$..customerId', 'path:id'], subject: customer }}
  # email:   {{ find: '$..email' }}
  # public:  {{ find: ['$..status', '$..plan'] }}
  # contact: [email]                  # a tag may group tags

who:
  anyone: {{}}                          # every caller, also one without a credential
  # support: {{ role: support }}

grants:
  # What is not granted leaves redacted. For example:
  # - grant: basics
  #   to: anyone
  #   show: {{ person: token, public: clear }}
  # - grant: support-view
  #   to: support
  #   for: [support]
  #   show: {{ person: clear, email: clear }}
  #   reidentify: [person]
  #   budget: {{ people: 60/h, then: mask }}
  - grant: nothing-yet
    to: anyone
    show: {{ to_be_tagged: redact }}
"""

_CONFIG = """\
# One gateway. Every key: gharial config explain KEY.  Mistakes: gharial up --check.  Surroundings: gharial doctor.

listen: {{ address: 127.0.0.1, port: {port} }}
upstreams:
  api: {{ url: '{url}', timeout: 15s }}
routes:                                 # the first that matches wins; no match: 404
  # - {{ route: customer, match: 'GET /customers/{{id}}', upstream: api, policy: {policy} }}
  - {{ route: everything, match: 'ANY /**', upstream: api, policy: {policy} }}
policies: [policies/*.yaml]
identity:
  - {{ api_keys: {{ header: X-Api-Key }} }}  # made with: gharial clients add NAME …
store: sqlite:run/gharial.db
# The key file is worthless without the key that wraps it. Before production, move that key out of this folder:
# into the environment (kek: env:GHARIAL_KEK) or a mounted secret (kek: file:/run/secrets/gharial-kek).
keys: {{ file: run/keys.json, kek: file:run/kek }}
alarms: ['file://run/alarms.jsonl']     # and e.g. 'json://host:port/path', 'mailto://…' (apprise)
audit: {{ dir: run/audit, rotate: 256MB }}
"""
