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
  - { route: customer, match: 'GET customers/{id}', upstream: crm, policy: p, stream: 1s }
hops: [1]
limits: { body: 16XB }
"""
    ) == [
        "g.yaml:1:11: unknown key 'adress'; did you mean 'address'?",
        "g.yaml:1:34: listen.port: Input should be less than or equal to 65535",
        "g.yaml:3:33: upstreams.crm.timeout: a duration is written with its unit, e.g. 500ms, 15s, 2min, 1h",
        "g.yaml:5:87: routes.stream: Input should be a valid boolean, unable to interpret input",
        "g.yaml:6:8: hops: a hop is an address or a network without host bits, e.g. 10.1.2.3 or 10.0.0.0/8",
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
        "keys: { kek: { passphrase: hunter2hunter2 } }",
        "keys: { kek: { transit: { url: 'https://v', token: hunter2hunter2 } } }",
        "keys: { kek: { transit: { url: 'https://u:hunter2@v', token: 'env:T' } } }",
        "keys: { kek: { pkcs11: { module: 'file:x.so', token: t, key: k, pin: hunter2 } } }",
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


@pytest.mark.parametrize(
    ("kek", "word"),
    [
        ("{ transit: { url: 'http://vault:8200', token: 'env:T' } }", "under TLS alone"),
        ("{ transit: { url: 'https://vault/v1', token: 'env:T' } }", "no path"),
        ("{ transit: { url: 'https://vault', token: 'env:T', key: 'a/../b' } }", "letters, digits"),
        ("{ transit: { url: 'https://vault', token: 'env:T', mount: '' } }", "letters, digits"),
        ("{ transit: { url: 'https://vault' } }", "'token' is missing"),
        ("{ aws: { key: k, region: 'EU West' } }", "region is one of AWS"),
        ("{ aws: { key: k, region: eu-west-1, endpoint: 'http://kms' } }", "under TLS alone"),
        ("{ bytes: 'env:A', passphrase: 'env:B' }", "one of 'passphrase"),
        ("{ }", "one of 'passphrase"),
        ("{ tranist: { } }", "did you mean 'transit'?"),
        ("7", "kek"),
    ],
)
def test_a_kek_that_can_not_be_one_is_a_mistake(kek: str, word: str):
    """Exactly one kind, TLS to other machines, names that are no paths: each mistake has its words."""
    (mistake,) = mistakes(SMALL + f"keys: {{ kek: {kek} }}\n")
    assert word in mistake


def test_a_reference_alone_is_a_kek_of_bytes():
    """`kek: env:NAME` is short for `kek: { bytes: env:NAME }`, and without a word it is env:GHARIAL_KEK."""
    for text in ("keys: { kek: 'env:K' }", "keys: { kek: { bytes: 'env:K' } }"):
        assert parse_settings(SMALL + text, "g.yaml").keys.kek.secret == "env:K"
    assert parse_settings(SMALL, "g.yaml").keys.kek.secret == "env:GHARIAL_KEK"


def test_a_file_that_cant_be_read_says_what_to_do(tmp_path):
    """No file: the message names it and the command that writes one."""
    with pytest.raises(ConfigInvalid, match="gharial init"):
        load_settings(tmp_path / "gharial.yaml")


def test_every_setting_has_a_meaning():
    """`gharial config explain` has something to say for each key."""
    assert [key for key, meaning in setting_keys() if not meaning] == []


HOPS = "hops: [10.0.0.0/8, '2001:db8::1']\n"


def test_hops_facts_and_consent_are_read():
    """Who is believed, which headers tell facts, and who is asked for consent, each with its defaults."""
    text = SMALL + HOPS + "facts: { country: { header: X-Country }, geo: file:geo.mmdb }\n"
    settings = parse_settings(text + "consent: { http: { url: 'https://c.example/ask' } }", "g.yaml", Path("/etc/g"))
    assert settings.hops == ("10.0.0.0/8", "2001:db8::1")
    assert settings.facts.country is not None
    assert (settings.facts.country.header, settings.facts.network) == ("X-Country", None)
    assert settings.facts.geo == Path("/etc/g/geo.mmdb")
    assert settings.consent is not None
    assert settings.consent.http is not None
    assert (settings.consent.http.timeout_s, settings.consent.http.cache_s) == (1.0, 60.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hops: [10.1.2.3/8]", "without host bits"),
        ("hops: [0.0.0.0/0]", "anybody would be believed"),
        ("hops: ['::/0']", "anybody would be believed"),
        ("hops: [10]", "an address or a network"),
        ("facts: { country: { header: X-Country } }", "without hops nobody vouches"),
        (HOPS + "facts: { country: { header: Host } }", "another meaning"),
        (HOPS + "facts: { country: { header: Gharial-Country } }", "another meaning"),
        (HOPS + "facts: { country: { header: X-Forwarded-For } }", "another meaning"),
        (HOPS + "facts: { country: { header: X-F }, network: { header: x-f } }", "another meaning"),
        (
            HOPS + "facts: { country: { header: X-Key } }\nidentity: [{ api_keys: { header: x-key } }]",
            "another meaning",
        ),
        ("consent: {}", "one of 'file"),
        ("consent: { file: file:a, http: { url: 'http://x' } }", "one of 'file"),
        ("consent: { file: a.yaml }", "file:PATH"),
        ("consent: { sql: { database: 'postgresql://x', query: 'SELECT :person' } }", "'postgres: {…}'"),
        ("consent: { postgres: { url: 'postgresql://u:hunter2@h/d', query: 'SELECT asked.person' } }", "of its own"),
        ("consent: { postgres: { url: 'postgresql://u@h/d', query: 'SELECT 1', password: hunter2 } }", "a reference"),
        ("consent: { postgres: { url: 'postgresql://u@h/d', query: 'SELECT 1' } }", "asked.person"),
        ("consent: { sql: { database: 'sqlite:x.db', query: 'SELECT kind FROM c' } }", ":person"),
        ("consent: { http: { url: 'ftp://x' } }", "http:// or https://"),
        ("consent: { http: { url: 'http://u:hunter2@x' } }", "no user or password"),
        ("consent: { http: { url: 'http://x', authorization: hunter2 } }", "a secret is a reference"),
    ],
    ids=range(21),
)
def test_whom_nobody_could_vouch_for_is_a_mistake(text, said):
    """What would believe everybody, mean two things, or ask nobody, stops the start; no secret is shown."""
    found = mistakes(SMALL + text + "\n")
    assert any(said in mistake for mistake in found), found
    assert not any("hunter2" in mistake for mistake in found)


@pytest.mark.parametrize(
    "line",
    [
        "consent: { postgres: { url: 'postgresql://u:hunter2/x@h/d', query: 'SELECT asked.person' } }",
        "consent: { http: { url: 'http://u:hunter2/x@h' } }",
        "consent: { http: { url: 'http://u:hunter2\u2100@h' } }",
        "upstreams: { a: { url: 'http://u:hunter2/x@h' } }",
        "upstreams: { a: { url: 'http://u:hunter2\u2100@h' } }",
    ],
)
def test_a_password_that_is_read_as_a_port_is_not_quoted(line: str):
    """A '/' in a password ends the host: what stands before it is no port, and in no error."""
    head = "routes: [ { route: r, match: GET /x, upstream: a, pass: true } ]\n"
    if not line.startswith("upstreams"):
        head += "upstreams: { a: { url: 'http://h' } }\n"
    with pytest.raises(ConfigInvalid) as refused:
        parse_settings(head + line, "g.yaml")
    assert "hunter2" not in str([str(problem) for problem in refused.value.problems])


@pytest.mark.parametrize(
    ("api", "said"),
    [
        ("{ address: 0.0.0.0 }", "needs api.tls"),
        ("{ address: 192.0.2.7, port: 8443 }", "needs api.tls"),
        ("{ port: 8080 }", "the gateway itself listens there"),
        ("{ calls_per_minute: 0 }", "calls_per_minute"),
        ("{ address: nowhere }", "api"),
    ],
)
def test_an_api_that_would_be_open_is_a_mistake(api: str, said: str):
    """Clear values leave here: only loopback may do without TLS, on a port of its own."""
    found = mistakes(SMALL + f"identity: [{{ api_keys: {{}} }}]\napi: {api}\n")
    assert any(said in mistake for mistake in found), found


def test_an_api_nobody_could_be_known_at_is_a_mistake():
    """Without a source of identity everybody is anonymous, and nothing is revealed to them."""
    assert any("without 'identity'" in mistake for mistake in mistakes(SMALL + "api: {}\n"))


def test_an_api_is_off_unless_it_is_named():
    """Nothing listens that nobody asked for; named, it is on loopback; elsewhere with a certificate."""
    assert parse_settings(SMALL, "g.yaml").api is None
    identity = "identity: [{ api_keys: {} }]\n"
    named = parse_settings(SMALL + identity + "api: {}\n", "g.yaml").api
    assert named is not None
    assert (named.address, named.port) == ("127.0.0.1", 8082)
    tls = "api: { address: 0.0.0.0, tls: { cert: file:c.pem, key: file:k.pem } }\n"
    assert parse_settings(SMALL + identity + tls, "g.yaml").api is not None


JWT_ALONE = "identity: [{ jwt: { issuer: i, audience: a, jwks: file:j } }]"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("manifests: { M: { policy: p } }", "set 'api'"),
        (f"api: {{}}\n{JWT_ALONE}\nmanifests: {{ M: {{ policy: p }} }}", "api_keys"),
        ("manifests: { 'a/b': { policy: p } }", "a manifest's name"),
        ("manifests: { M: { policy: p, publik: [x] } }", "did you mean 'public'"),
    ],
)
def test_manifests_that_nobody_could_use_are_mistakes(settings: str, said: str):
    """They need a listener, clients that are believed, and a name that can be sent."""
    found = mistakes(SMALL + settings + "\n")
    assert any(said in mistake for mistake in found), found
