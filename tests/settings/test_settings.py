"""gharial.yaml: every mistake at once, with its place, and never a secret in a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from gharial.model.errors import ConfigInvalid
from gharial.settings import load_settings, parse_settings, setting_keys

SMALL = """
upstreams:
  crm: { url: 'https://crm.internal:8443', ca: file:ca.pem, timeout: 2min, credentials: { inject: env:CRM } }
routes:
  - { route: customer, match: 'GET /customers/{id}', upstream: crm, policy: customer-data }
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        parse_settings(text, "g.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_units_and_files_are_read():
    """Durations become seconds, sizes bytes, file: paths absolute from the configuration's folder."""
    settings = parse_settings(SMALL + "limits: { body: 1MiB }\naudit: { rotate: 5KB }", "g.yaml", Path("/etc/gharial"))
    crm = settings.upstreams["crm"]
    assert (crm.timeout_s, crm.ca, crm.port, crm.host_header) == (
        120,
        Path("/etc/gharial/ca.pem"),
        8443,
        "crm.internal:8443",
    )
    assert crm.inject_reference == "env:CRM"
    assert (settings.limits.body_bytes, settings.audit.rotate_bytes) == (1_048_576, 5_000)


def test_defaults_listen_on_loopback():
    """Who configures nothing is reached by nobody else."""
    assert parse_settings(SMALL, "g.yaml").listen.address == "127.0.0.1"


def test_all_mistakes_come_at_once_with_their_places():
    """One run shows every mistake, each as file:line:column and what to do."""
    assert mistakes(
        """listen: { adress: 1.2.3.4, port: 99999 }
upstreams:
  crm: { url: ftp://x, timeout: 15 }
routes:
  - { route: customer, match: 'GET customers/{id}', upstream: crm, policy: p, stream: true }
hops: [1]
limits: { body: 16XB }
"""
    ) == [
        "g.yaml:1:11: unknown key 'adress'; did you mean 'address'?",
        "g.yaml:1:34: listen.port: Input should be less than or equal to 65535",
        "g.yaml:3:33: upstreams.crm.timeout: a duration is written with its unit, e.g. 500ms, 15s, 2min, 1h",
        "g.yaml:5:79: 'routes.stream' is not supported by this version",
        "g.yaml:6:1: 'hops' is not supported by this version",
        "g.yaml:7:17: limits.body: a size is a number of bytes, or one with its unit, e.g. 32KB, 16MB",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("policy: customer-data", "either 'policy: NAME' or 'pass: true'"),
        ("upstream: crm", "'upstream' is missing"),
    ],
)
def test_a_route_says_what_happens_on_it(change, said):
    """A route without policy and without `pass: true`, or without an upstream, is a mistake, never a way through."""
    text = SMALL.replace(", " + change, "")
    assert any(said in mistake for mistake in mistakes(text))


def test_a_route_cant_both_pass_and_be_protected():
    """`pass: true` beside a policy is a contradiction, not a preference."""
    text = SMALL.replace("policy: customer-data", "policy: customer-data, pass: true")
    assert any("either" in mistake for mistake in mistakes(text))


def test_names_that_lead_nowhere_are_mistakes():
    """An unknown upstream and a second route of one name are said with their places."""
    text = SMALL + "  - { route: customer, match: 'GET /x', upstream: crn, policy: p }\n"
    assert mistakes(text) == [
        "g.yaml:6:14: a second route 'customer'",
        "g.yaml:6:51: there is no upstream 'crn'; did you mean 'crm'?",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "keys: { kek: hunter2hunter2 }",
        "upstreams: { crm: { url: 'https://u:hunter2@x' } }",
        "upstreams: { crm: { url: 'http://x', credentials: hunter2 } }",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(text):
    """Secrets are references; one written out is an error that does not print it."""
    with pytest.raises(ConfigInvalid) as caught:
        parse_settings(text, "g.yaml")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


def test_a_file_that_cant_be_read_says_what_to_do(tmp_path):
    """No file: the message names it and the command that writes one."""
    with pytest.raises(ConfigInvalid, match="gharial init"):
        load_settings(tmp_path / "gharial.yaml")


def test_every_setting_has_a_meaning():
    """`gharial config explain` has something to say for each key."""
    assert [key for key, meaning in setting_keys() if not meaning] == []
