"""Who is believed to be who, and what a request with two stories gets."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.gate.identify import (
    ApiKeySource,
    ClientDirectory,
    Identified,
    Identifier,
    JwtSource,
    NewClient,
    new_client,
)
from gharial.gate.outcome import Headers
from gharial.model.caller import Caller
from gharial.model.errors import (
    AlreadyExists,
    AmbiguousCredentials,
    GharialError,
    NotFound,
    RequestMalformed,
    UnknownCredential,
)

NOW = 1_800_000_000.0
STATEMENTS = ("gharial-claims", "gharial-country", "gharial-purpose")
"""The headers in which a caller states something of itself."""


def hash_credential(text: str) -> bytes:
    return hmac.new(b"test key", text.encode(), hashlib.sha256).digest()


class FakeVerifier:
    """A faithful verifier over a table: a token is known, or refused."""

    def __init__(self, tokens: Mapping[str, Mapping[str, object]]) -> None:
        self.tokens = tokens

    def verify(self, token: str, now_s: float) -> Mapping[str, object]:
        if token not in self.tokens:
            raise UnknownCredential
        return self.tokens[token]


class Randomness:
    """Different bytes at each call, the same in each run."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, count: int) -> bytes:
        self.calls += 1
        return hashlib.shake_256(str(self.calls).encode()).digest(count)


RANDOM = Randomness()


def a_client(name: str = "acme-billing", **facts: object) -> NewClient:
    return new_client(name, random=RANDOM, hash_credential=hash_credential, now_s=NOW, **facts)  # type: ignore[arg-type]


BILLING = a_client(team="finance", roles=("partner",), purpose="billing")
CARE = a_client("acme-care", purpose="support", may_assert=("purpose",))
TOKENS: dict[str, Mapping[str, object]] = {
    "good": {
        "iss": "https://idp.example",
        "client_id": "portal",
        "sub": "u-1",
        "team": "care",
        "roles": ["care", "lead"],
        "purpose": "support",
        "jti": "j1",
        "amr": ["pwd", "mfa"],
        "level": 3,
        "nested": {"a": 1},
        "mixed": [1, {"a": 1}],
        "nothing": None,
    }
}


def an_identifier(
    tokens: Mapping[str, Mapping[str, object]] = TOKENS, directory: ClientDirectory | None = None, **claims: str
) -> Identifier:
    if directory is None:
        directory = ClientDirectory((BILLING.client, CARE.client), (*BILLING.credentials, *CARE.credentials))
    return Identifier(
        (ApiKeySource("X-Api-Key"), JwtSource(FakeVerifier(tokens), "Authorization", **claims)),
        directory,
        hash_credential=hash_credential,
        tenant="default",
    )


def identify(*headers: tuple[str, str], **given_by: object) -> Identified:
    return an_identifier(**given_by).identify(headers, NOW)  # type: ignore[arg-type]


def caller_of(claims: Mapping[str, object], **names: str) -> Caller:
    return identify(("authorization", "Bearer t"), tokens={"t": claims}, **names).caller


# --- API keys ----------------------------------------------------------------------------------------------------


def test_a_registered_key_gives_the_registered_facts():
    """Client, team, roles and purpose are those of the registration; the key itself is nowhere in the caller."""
    got = identify(("host", "h"), ("x-api-key", BILLING.api_key))
    assert got.caller == Caller(
        "default",
        client="acme-billing",
        team="finance",
        roles=("partner",),
        purpose="billing",
        credential_id=BILLING.credentials[0].credential_id,
        source="api_key",
    )
    assert BILLING.api_key not in repr(got)


@pytest.mark.parametrize(
    "key",
    [
        "",
        " ",
        "ghk_unknown",
        BILLING.api_key[:-1],
        BILLING.api_key + "x",
        BILLING.api_key.upper(),
        f"{BILLING.api_key}, {CARE.api_key}",
        f"Bearer {BILLING.api_key}",
        BILLING.credentials[0].credential_id,
        "acme-billing",
        "é" * 40,
        "k" * 100_000,
    ],
    ids=range(12),
)
def test_a_key_that_is_not_valid_never_becomes_anonymous(key):
    """Empty, unknown, cut, joined or huge: refused, and the key is not in the error."""
    with pytest.raises(UnknownCredential) as caught:
        identify(("x-api-key", key))
    assert str(caught.value) == UnknownCredential.title


def test_a_client_s_secret_is_no_api_key():
    """The secret is for another purpose; in the key's header it is as unknown as any other text."""
    with pytest.raises(UnknownCredential):
        identify(("x-api-key", BILLING.secret))


def test_a_revoked_client_is_refused_from_the_next_call_on():
    """Revoking needs no restart, and keys of others go on."""
    directory = ClientDirectory((BILLING.client, CARE.client), (*BILLING.credentials, *CARE.credentials))
    identifier = an_identifier(directory=directory)
    assert identifier.identify((("x-api-key", BILLING.api_key),), NOW)
    directory.revoke("acme-billing", NOW)
    with pytest.raises(UnknownCredential):
        identifier.identify((("x-api-key", BILLING.api_key),), NOW)
    assert identifier.identify((("x-api-key", CARE.api_key),), NOW).caller.client == "acme-care"


@pytest.mark.parametrize("which", ["client", "credential", "missing"])
def test_what_the_store_says_is_revoked_stays_so_after_a_restart(which):
    """Revoked records, of the client or of one key, and a key without its client, are refused as loaded."""
    client, credentials = BILLING.client, BILLING.credentials
    if which == "client":
        client = replace(client, revoked_s=1.0)
    elif which == "credential":
        credentials = tuple(replace(credential, revoked_s=1.0) for credential in credentials)
    clients = () if which == "missing" else (client,)
    with pytest.raises(UnknownCredential):
        identify(("x-api-key", BILLING.api_key), directory=ClientDirectory(clients, credentials))


def test_our_own_headers_never_reach_the_upstream():
    """Key and purpose headers are to be removed in any case, and a company's token is not."""
    for headers in ((("x-api-key", BILLING.api_key),), (("authorization", "Bearer good"),), ()):
        assert identify(*headers).remove_headers == (*STATEMENTS, "x-api-key")
    assert an_identifier().own_headers == {*STATEMENTS, "x-api-key"}


# --- none and two ------------------------------------------------------------------------------------------------


def test_no_credential_is_anonymous():
    """Nothing presented: the caller is anonymous, without facts."""
    assert identify(("accept", "*/*")).caller == Caller("default")


@pytest.mark.parametrize(
    "headers",
    [
        (("x-api-key", BILLING.api_key), ("x-api-key", BILLING.api_key)),
        (("x-api-key", BILLING.api_key), ("x-api-key", CARE.api_key)),
        (("x-api-key", BILLING.api_key), ("X-API-KEY", "")),
        (("x-api-key", BILLING.api_key), ("authorization", "Bearer good")),
        (("authorization", "Bearer good"), ("x-api-key", "wrong")),
        (("authorization", "Bearer good"), ("authorization", "Bearer good")),
        (("authorization", "Basic YTpi"), ("authorization", "Bearer good")),
        (("authorization", "Bearer good"), ("Authorization", "Basic YTpi")),
        (("authorization", "Basic YTpi, Bearer good"),),
        (("authorization", "Basic YTpi,bearer\tgood"),),
    ],
    ids=range(10),
)
def test_two_credentials_are_refused(headers):
    """Which of them counts would be a guess, and the upstream's guess could be another."""
    with pytest.raises(AmbiguousCredentials):
        identify(*headers)


@pytest.mark.parametrize("value", ["Basic YTpi", 'Digest username="x", realm="y"', "", "Bearerx good", "Negotiate a"])
def test_other_schemes_are_between_the_caller_and_the_upstream(value):
    """They are no credential for the gateway, are not judged, and are forwarded."""
    got = identify(("authorization", value))
    assert got.caller.source == "none"
    assert "authorization" not in got.remove_headers


def test_without_a_source_its_header_is_not_a_credential():
    """A gateway without `identity` knows anonymous callers only."""
    identifier = Identifier((), ClientDirectory(), hash_credential=hash_credential, tenant="default")
    got = identifier.identify((("x-api-key", BILLING.api_key), ("authorization", "Bearer good")), NOW)
    assert got == Identified(Caller("default"), STATEMENTS)


# --- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_gives_its_claims_as_facts():
    """Client, user, team, roles, purpose and issuer; other scalar claims and lists of scalars for policy."""
    caller = identify(("authorization", "Bearer good")).caller
    assert caller == Caller(
        "default",
        client="portal",
        user="u-1",
        team="care",
        roles=("care", "lead"),
        claims=caller.claims,
        purpose="support",
        issuer="https://idp.example",
        credential_id="j1",
        source="jwt",
    )
    assert caller.claims["amr"] == ("pwd", "mfa")
    assert caller.claims["level"] == 3
    assert not {"nested", "mixed", "nothing"} & caller.claims.keys()


@pytest.mark.parametrize("value", ["bearer good", "BEARER good", "  Bearer   good  "])
def test_the_scheme_is_read_as_http_has_it(value):
    """Case does not matter (RFC 9110, section 11.1), and spaces around are not part of the value."""
    assert identify(("Authorization", value)).caller.client == "portal"


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer ", "Bearer bad", "Bearer good good", "Bearer\tgood", "Bearer,good"]
)
def test_a_bad_token_never_becomes_anonymous(value):
    """Missing, unknown or malformed behind `Bearer`: refused."""
    with pytest.raises(UnknownCredential):
        identify(("authorization", value))


@pytest.mark.parametrize("value", ["good", "Bearer good", "bearer good"])
def test_a_header_of_its_own_holds_nothing_but_tokens(value):
    """In a header that exists for tokens alone the scheme may be left out, and anything else is a bad token."""
    identifier = Identifier(
        (JwtSource(FakeVerifier(TOKENS), "X-Token"),), ClientDirectory(), hash_credential=hash_credential, tenant="t"
    )
    assert identifier.identify((("x-token", value),), NOW).caller.client == "portal"
    for bad in ("", "Basic good", "other"):
        with pytest.raises(UnknownCredential):
            identifier.identify((("x-token", bad),), NOW)


def test_two_issuers_may_share_a_header():
    """The one that vouches for the token is asked about its client; if none does, the call is refused."""
    identifier = Identifier(
        (
            JwtSource(FakeVerifier({"one": {"client_id": "a"}})),
            JwtSource(FakeVerifier({"two": {"app": "b"}}), client_claim="app"),
        ),
        ClientDirectory(),
        hash_credential=hash_credential,
        tenant="t",
    )
    assert identifier.identify((("authorization", "Bearer one"),), NOW).caller.client == "a"
    assert identifier.identify((("authorization", "Bearer two"),), NOW).caller.client == "b"
    with pytest.raises(UnknownCredential):
        identifier.identify((("authorization", "Bearer three"),), NOW)


@pytest.mark.parametrize(
    ("claims", "configured", "client"),
    [
        ({"client_id": "a", "azp": "b", "sub": "c"}, "", "a"),
        ({"azp": "b", "sub": "c"}, "", "b"),
        ({"sub": "acme-partner"}, "", "sub:acme-partner"),
        ({"sub": "acme-partner"}, "sub", "acme-partner"),
        ({"app": "d", "client_id": "a"}, "app", "d"),
        ({"client_id": 17}, "", "17"),
    ],
)
def test_where_a_token_s_client_comes_from(claims, configured, client):
    """The configured claim alone; else client_id, azp, and the subject, marked so that no glob takes it for more."""
    assert caller_of(claims, client_claim=configured).client == client


@pytest.mark.parametrize(
    ("claims", "configured"),
    [
        ({}, ""),
        ({"client_id": "a"}, "app"),
        ({"client_id": "", "azp": "b"}, ""),
        ({"client_id": None, "sub": "c"}, ""),
        ({"client_id": ["a"]}, ""),
        ({"client_id": True}, ""),
        ({"client_id": 10**3000}, ""),
        ({"client_id": "a\x1fb"}, ""),
        ({"client_id": "a\nb"}, ""),
        ({"client_id": "a\u202eb"}, ""),
        ({"client_id": "\ud800"}, ""),
        ({"client_id": " a"}, ""),
        ({"client_id": "a" * 129}, ""),
        ({"sub": ""}, ""),
        ({"client_id": "anonymous"}, ""),
    ],
    ids=range(15),
)
def test_a_token_without_a_proper_client_is_refused(claims, configured):
    """No name, or one that could forge a line, a key or another's name: refused, not passed over for the next claim."""
    with pytest.raises(UnknownCredential):
        caller_of(claims, client_claim=configured)


@pytest.mark.parametrize("revoked", [False, True])
def test_a_token_can_not_speak_for_a_registered_client(revoked):
    """A token's client of a registered name would share its grants and budgets; revoked, it would come back."""
    directory = ClientDirectory((BILLING.client,), BILLING.credentials)
    if revoked:
        directory.revoke("acme-billing", NOW)
    with pytest.raises(UnknownCredential):
        identify(("authorization", "Bearer t"), tokens={"t": {"client_id": "acme-billing"}}, directory=directory)


@pytest.mark.parametrize("value", [None, 1.5, True, {"a": 1}, ["x"], "", "a\nb", "x" * 200, " x"])
def test_facts_of_a_wrong_shape_are_missing(value):
    """A user, team or purpose that is no name is as if it were not there, and grants nothing."""
    caller = caller_of({"client_id": "a", "sub": value, "team": value, "purpose": value})
    assert (caller.user, caller.team, caller.purpose) == ("", "", "")


@pytest.mark.parametrize(
    ("value", "roles"),
    [
        (["a", "b", "a"], ("a", "b")),
        ("a b", ("a b",)),
        ([], ()),
        (["a", 1], ()),
        (["a", "b\n"], ()),
        ({"a": 1}, ()),
        (None, ()),
        (7, ()),
    ],
    ids=range(8),
)
def test_roles_are_all_names_or_none(value, roles):
    """A text is one role and is not taken apart; a list with something else in it counts for nothing."""
    assert caller_of({"client_id": "a", "roles": value}).roles == roles


# --- purpose -----------------------------------------------------------------------------------------------------


def test_a_stated_purpose_counts_only_where_the_credential_may_assert_it():
    """With the right it replaces the registered one; without, and for anonymous callers and tokens, it is missing."""
    stated = ("gharial-purpose", "fraud")
    assert identify(("x-api-key", CARE.api_key), stated).caller.purpose == "fraud"
    assert identify(("x-api-key", CARE.api_key)).caller.purpose == "support"
    assert identify(("x-api-key", BILLING.api_key), stated).caller.purpose == "billing"
    assert identify(("authorization", "Bearer good"), stated).caller.purpose == "support"
    assert identify(stated).caller.purpose == ""


@pytest.mark.parametrize("value", ["", "a b", "a,b", "a;b", "-a", "é", "a" * 65, "a\n", "*"])
@pytest.mark.parametrize("key", [CARE.api_key, BILLING.api_key])
def test_a_purpose_that_is_no_name_is_refused(value, key):
    """Whoever sends it; globs and lists are not purposes."""
    with pytest.raises(RequestMalformed):
        identify(("x-api-key", key), ("gharial-purpose", value))


def test_two_purposes_are_refused():
    """At most one purpose per exchange, even the same one twice."""
    with pytest.raises(RequestMalformed):
        identify(("x-api-key", CARE.api_key), ("gharial-purpose", "fraud"), ("Gharial-Purpose", "fraud"))


# --- set-up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sources",
    [
        (ApiKeySource("Authorization"), JwtSource(FakeVerifier({}))),
        (ApiKeySource("x-key"), ApiKeySource("X-Key")),
        (ApiKeySource("Gharial-Purpose"),),
        (ApiKeySource("Gharial-Country"),),
        (JwtSource(FakeVerifier({}), "Gharial-Claims"),),
    ],
    ids=range(5),
)
def test_sources_that_could_be_confused_stop_the_start(sources):
    """A header means one thing."""
    with pytest.raises(ValueError, match="header"):
        Identifier(sources, ClientDirectory(), hash_credential=hash_credential, tenant="t")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["x-api-key", "authorization", *STATEMENTS, "X-Api-Key", "accept"]),
            st.text(st.characters(max_codepoint=255))
            | st.sampled_from([BILLING.api_key, CARE.api_key, "Bearer good", "Bearer bad", "fraud"]),
        ),
        max_size=4,
    )
)
def test_whatever_is_sent_the_answer_is_a_caller_or_a_refusal(headers):
    """No text in these headers raises anything else, and a source is named only for a credential that was sent."""
    try:
        caller = an_identifier().identify(tuple(headers), NOW).caller
    except GharialError:
        return
    values = [value for _, value in headers]
    assert (caller.source == "api_key") <= any(
        key in value for key in (BILLING.api_key, CARE.api_key) for value in values
    )
    assert (caller.source == "jwt") <= any("good" in value for value in values)
    if caller.source == "none":
        assert caller == Caller("default")


# --- the directory and new clients -------------------------------------------------------------------------------


def test_a_new_client_s_credentials_have_their_form_and_are_not_kept():
    """Two different credentials of 256 random bits; the records hold ids and hashes, and no repr shows a text."""
    made = a_client("fresh")
    key_id, secret_id = (credential.credential_id for credential in made.credentials)
    assert made.api_key.startswith(f"ghk_{key_id}_")
    assert made.secret.startswith(f"ghs_{secret_id}_")
    assert len(made.api_key) == len(f"ghk_{key_id}_") + 43
    assert [credential.kind for credential in made.credentials] == ["api_key", "secret"]
    assert made.credentials[0].hash == hash_credential(made.api_key)
    assert made.client_id == "fresh"
    for secret in (made.api_key, made.secret):
        assert secret not in repr(made)
        assert secret.rpartition("_")[2] not in repr((made.client, made.credentials))


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("", {}),
        ("Acme", {}),
        ("-acme", {}),
        ("a" * 65, {}),
        ("acme\n", {}),
        ("acme:x", {}),
        ("anonymous", {}),
        ("ok", {"team": "a\nb"}),
        ("ok", {"roles": ("",)}),
        ("ok", {"roles": ("a\x00",)}),
        ("ok", {"purpose": "two words"}),
        ("ok", {"may_assert": ("role",)}),
    ],
    ids=range(12),
)
def test_names_and_facts_that_can_not_be_are_refused(name, facts):
    """An operator's typing mistake is told, and nothing is made."""
    with pytest.raises(ValueError, match=r" is | knows "):
        a_client(name, **facts)


def test_a_name_is_given_once():
    """A second client of a name is refused, even after the first was revoked: budgets and audit know it by name."""
    directory = ClientDirectory()
    directory.add(BILLING.client, BILLING.credentials)
    directory.revoke("acme-billing", NOW)
    assert directory.find("acme-billing") == replace(BILLING.client, revoked_s=NOW)
    directory.revoke("acme-billing", NOW + 5)
    assert directory.find("acme-billing") == replace(BILLING.client, revoked_s=NOW)
    with pytest.raises(AlreadyExists):
        directory.add(BILLING.client, BILLING.credentials)
    with pytest.raises(NotFound):
        directory.revoke("nobody", NOW)
    assert directory.find("nobody") is None


def test_an_added_client_is_known_at_once():
    """`gharial clients add` needs no restart."""
    directory = ClientDirectory()
    identifier = an_identifier(directory=directory)
    headers: Headers = (("x-api-key", CARE.api_key),)
    with pytest.raises(UnknownCredential):
        identifier.identify(headers, NOW)
    directory.add(CARE.client, CARE.credentials)
    assert identifier.identify(headers, NOW).caller.client == "acme-care"
