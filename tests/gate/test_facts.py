"""Country, network and stated claims: from whom they count, and that nobody else can bring them in."""

from __future__ import annotations

import contextlib
import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.gate.facts import FactSources, client_address, parse_address, read_stated, with_facts
from gharial.gate.identify import ApiKeySource, ClientDirectory, Identifier, JwtSource, new_client
from gharial.gate.outcome import Headers
from gharial.model.caller import ANONYMOUS, Caller
from gharial.model.errors import RequestMalformed

HOPS = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8:1::/48"))
HOP, STRANGER = "10.0.0.7:4711", "203.0.113.9:4711"


class Atlas:
    """A geo file over a table; remembers what it was asked for."""

    def __init__(self, **countries: str) -> None:
        self.countries = {key.replace("_", "."): value for key, value in countries.items()}
        self.asked: list[str] = []

    def find_country(self, address: str) -> str:
        self.asked.append(address)
        return self.countries.get(address, "")


SOURCES = FactSources(HOPS, "x-country", "x-network")
ALL = ("purpose", "country", "claims")


def facts(
    *headers: tuple[str, str],
    peer: str = HOP,
    caller: Caller | None = None,
    may_assert: tuple[str, ...] = (),
    sources: FactSources = SOURCES,
) -> Caller:
    return with_facts(caller or Caller("t"), may_assert, read_stated(headers), headers, peer, sources)


# --- the client's address ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (STRANGER, [], "203.0.113.9"),
        (STRANGER, ["198.51.100.1"], "203.0.113.9"),
        (STRANGER, ["198.51.100.1, 10.0.0.7"], "203.0.113.9"),
        (STRANGER, ["not an address"], "203.0.113.9"),
        (STRANGER, [", ".join(["10.0.0.1"] * 500)], "203.0.113.9"),
        (HOP, [], "10.0.0.7"),
        (HOP, ["198.51.100.1"], "198.51.100.1"),
        (HOP, ["198.51.100.1, 10.0.0.7"], "198.51.100.1"),
        (HOP, ["8.8.8.8, 198.51.100.1, 10.2.2.2, 10.0.0.7"], "198.51.100.1"),
        (HOP, ["8.8.8.8", "198.51.100.1", "10.2.2.2"], "198.51.100.1"),
        (HOP, ["8.8.8.8, nonsense"], ""),
        (HOP, ["8.8.8.8,"], ""),
        (HOP, ["nonsense, 198.51.100.1"], "198.51.100.1"),
        (HOP, ["198.51.100.1:5060, 10.0.0.7:80"], "198.51.100.1"),
        (HOP, ["[2001:db8:9::1]:443, 10.0.0.7"], "2001:db8:9::1"),
        (HOP, ["::ffff:198.51.100.1, ::ffff:10.0.0.7"], "198.51.100.1"),
        (HOP, ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (HOP, [", ".join(["8.8.8.8", *["10.0.0.1"] * 100])], ""),
        ("[2001:db8:1::5]:80", ["2001:db8:9::9"], "2001:db8:9::9"),
        ("", ["198.51.100.1"], ""),
        ("/tmp/envoy.sock", ["198.51.100.1"], ""),
    ],
)
def test_the_address_is_the_last_one_that_no_hop_wrote_itself_into(peer, forwarded, address):
    """A client's own entries stand left of the one that the first hop wrote for it, and are never believed."""
    assert client_address(peer, tuple(("x-forwarded-for", value) for value in forwarded), HOPS) == address


@given(st.lists(st.text(max_size=20), max_size=4), st.ip_addresses(), st.integers(1, 65535))
def test_who_is_no_hop_can_not_choose_its_address(forged, real, port):
    """Whatever X-Forwarded-For says, the address of a stranger is the one of its connection."""
    mapped = real.ipv4_mapped if isinstance(real, ipaddress.IPv6Address) else None
    if any((mapped or real) in hop for hop in HOPS):
        return
    peer = f"{real}:{port}" if real.version == 4 else f"[{real}]:{port}"
    headers = tuple(("x-forwarded-for", value) for value in forged)
    assert client_address(peer, headers, HOPS) == str(mapped or real)


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "1.2.3.4:x", "[::1", "::1]", "fe80::1%eth0", "a:b", "01.2.3.4"]
)
def test_what_is_no_address_is_none(text):
    """Anything that could be read in two ways is not read."""
    assert parse_address(text) is None


# --- headers of hops --------------------------------------------------------------------------------------------


def test_a_hop_s_headers_are_believed_and_nobody_else_s():
    """The same headers give facts from a hop, and nothing from a stranger or an unknown peer."""
    headers = (("x-country", "DE"), ("x-network", "tor"))
    assert (facts(*headers).country, facts(*headers).network) == ("DE", "tor")
    for peer in (STRANGER, "", "unix:/tmp/x"):
        got = facts(*headers, ("x-forwarded-for", "10.0.0.7"), peer=peer)
        assert (got.country, got.network) == ("", "")


@pytest.mark.parametrize("value", ["de", "Germany", "XX", "T1", "", "DEU", "D\xc9", "DE,US", "EU", "*"])
def test_a_country_that_is_none_is_missing(value):
    """Only assigned codes in capitals count: what a hop does not know must not look like a country."""
    assert facts(("x-country", value)).country == ""


@pytest.mark.parametrize("value", ["TOR", "", "a b", "*", "tor,hosting", "a" * 33])
def test_a_network_that_is_no_name_is_missing(value):
    """A kind of network is a short name in small letters."""
    assert facts(("x-network", value)).network == ""


def test_a_header_that_came_twice_is_missing():
    """The hop added its own to the client's: which one is whose can't be told."""
    got = facts(("x-country", "DE"), ("x-country", "DE"), ("x-network", "tor"), ("x-network", "corporate"))
    assert (got.country, got.network) == ("", "")


def test_headers_that_were_not_configured_say_nothing():
    """Without `facts.country` no header is one."""
    assert facts(("", "DE"), ("x-country", "DE"), sources=FactSources(HOPS)).country == ""


# --- the order of sources ---------------------------------------------------------------------------------------


def test_the_sources_of_a_country_in_their_order():
    """A verified claim, then the caller's word if it may give it, then the hop, then the file over the address."""
    sources = FactSources(HOPS, "x-country", "", Atlas(**{"198_51_100_1": "IT"}))
    headers = (("x-country", "FR"), ("x-forwarded-for", "198.51.100.1"), ("gharial-country", "ES"))
    claimed = Caller("t", country="DE")
    assert facts(*headers, caller=claimed, may_assert=ALL, sources=sources).country == "DE"
    assert facts(*headers, may_assert=ALL, sources=sources).country == "ES"
    assert facts(*headers, may_assert=("purpose", "claims"), sources=sources).country == "FR"
    assert facts(*headers[1:], sources=sources).country == "IT"
    assert facts(sources=sources).country == ""


def test_the_geo_file_is_asked_for_the_address_that_hops_vouch_for():
    """A stranger's X-Forwarded-For never reaches the file; without an address it is not asked."""
    atlas = Atlas(**{"203_0_113_9": "IT", "8_8_8_8": "US"})
    sources = FactSources(HOPS, geo=atlas)
    assert facts(("x-forwarded-for", "8.8.8.8"), peer=STRANGER, sources=sources).country == "IT"
    assert facts(("x-forwarded-for", "8.8.8.8, junk"), sources=sources).country == ""
    assert facts(peer="", sources=sources).country == ""
    assert atlas.asked == ["203.0.113.9"]


def test_what_a_geo_file_says_is_checked_too():
    """A file of another kind may answer anything."""
    assert facts(peer="10.9.9.9", sources=FactSources(HOPS, geo=Atlas(**{"10_9_9_9": "Intranet"}))).country == ""


# --- what a caller states ---------------------------------------------------------------------------------------


def test_stated_claims_count_only_where_they_may_and_never_replace_verified_ones():
    """`may_assert: [claims]` adds claims for this exchange; what an issuer vouched for stays as it is."""
    stated = ("gharial-claims", json.dumps({"desk": "north", "level": 9, "tags": ["a", 1, True, None][:3]}))
    caller = Caller("t", claims={"level": 3})
    got = facts(stated, caller=caller, may_assert=("claims",))
    assert dict(got.claims) == {"desk": "north", "level": 3, "tags": ("a", 1, True)}
    assert dict(facts(stated, caller=caller, may_assert=("purpose", "country")).claims) == {"level": 3}


def test_a_stated_claim_is_no_country_and_no_network():
    """Claims are stated as claims: `country` among them vouches for nothing."""
    got = facts(("gharial-claims", '{"country": "DE", "network": "corporate"}'), may_assert=("claims",))
    assert (got.country, got.network) == ("", "")


def test_claims_are_utf_8():
    """Header values come as latin-1; what was meant is the text that was sent."""
    value = '{"name": "Ünal"}'.encode().decode("latin-1")
    assert dict(read_stated((("gharial-claims", value),)).claims) == {"name": "Ünal"}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "[]",
        "3",
        "{",
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1}}',
        '{"a": [[1]]}',
        '{"a": null}',
        '{"a": [null]}',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": 9223372036854775808}',
        '{"a": ' + "9" * 400 + "}",
        '{"": 1}',
        '{"a b": 1}',
        '{"a": "x\\u0000"}',
        '{"a": "\\ud800"}',
        '{"a": "' + "x" * 4096 + '"}',
        json.dumps({f"c{n}": n for n in range(65)}),
        json.dumps({"a": list(range(65))}),
        "[" * 3000,
        '{"a": "\xff"}',
    ],
    ids=range(22),
)
def test_claims_that_can_not_be_read_in_one_way_are_refused(value):
    """Whoever sends them; the refusal quotes nothing."""
    with pytest.raises(RequestMalformed) as caught:
        read_stated((("gharial-claims", value),))
    assert str(caught.value).startswith("gharial-claims holds a JSON object")
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("value", ["", "de", "XX", "DEU", "DE,FR", "*"])
def test_a_stated_country_that_is_none_is_refused(value):
    """Like a purpose that is no name."""
    with pytest.raises(RequestMalformed):
        read_stated((("gharial-country", value),))


@pytest.mark.parametrize("name", ["gharial-country", "Gharial-Claims"])
def test_two_statements_are_refused(name):
    """One exchange, one statement, even the same one twice."""
    value = "DE" if name.endswith("country") else "{}"
    with pytest.raises(RequestMalformed):
        read_stated(((name.lower(), value), (name, value)))


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_text_is_claims_or_refused(text):
    """No header makes the reader raise anything else."""
    with contextlib.suppress(RequestMalformed):
        assert all(
            isinstance(v, str | int | float | tuple) for v in read_stated((("gharial-claims", text),)).claims.values()
        )


# --- as the identifier uses it ----------------------------------------------------------------------------------


class Verifier:
    """Every token is valid and says this."""

    def __init__(self, **claims: object) -> None:
        self.claims = {"client_id": "portal", **claims}

    def verify(self, token: str, now_s: float) -> dict[str, object]:
        return self.claims


def identify(headers: Headers, peer: str, claims: dict[str, object] | None = None, **names: str) -> Caller:
    made = new_client(
        "acme", may_assert=ALL, random=lambda n: b"\x01" * n, hash_credential=lambda t: t.encode(), now_s=0.0
    )
    identifier = Identifier(
        (ApiKeySource(), JwtSource(Verifier(**(claims or {})), **names)),
        ClientDirectory((made.client,), made.credentials),
        hash_credential=lambda t: t.encode(),
        tenant="t",
        facts=SOURCES,
    )
    assert {"x-country", "x-network"} <= identifier.own_headers
    key = tuple((n, made.api_key if v == "KEY" else v) for n, v in headers)
    return identifier.identify(key, 0.0, peer).caller


def test_a_token_s_claims_tell_country_and_network():
    """By the default names or configured ones; before what a hop says."""
    bearer = (("authorization", "Bearer x"), ("x-country", "FR"))
    assert identify(bearer, HOP, {"country": "DE", "network": "corporate"}).country == "DE"
    assert identify(bearer, HOP, {"country": "DE", "network": "corporate"}).network == "corporate"
    assert identify(bearer, HOP, {"ctry": "DE"}, country_claim="ctry").country == "DE"
    assert identify(bearer, HOP, {"country": "Germany"}).country == "FR"
    assert identify(bearer, STRANGER, {"country": ["DE"]}).country == ""


def test_an_anonymous_caller_has_a_country_too():
    """Hops vouch for the connection, not for a credential; what it states itself counts for nothing."""
    got = identify((("x-country", "FR"), ("gharial-country", "DE"), ("gharial-claims", '{"a": 1}')), HOP)
    assert (got.client, got.country, dict(got.claims)) == (ANONYMOUS, "FR", {})


def test_a_key_that_may_assert_states_country_and_claims():
    """Both headers count for a client registered so, and for a token they do not."""
    stated = (("gharial-country", "DE"), ("gharial-claims", '{"desk": "n"}'))
    got = identify((("x-api-key", "KEY"), *stated), STRANGER)
    assert (got.country, dict(got.claims)) == ("DE", {"desk": "n"})
    got = identify((("authorization", "Bearer x"), *stated), STRANGER)
    assert (got.country, dict(got.claims)) == ("", {"client_id": "portal"})


def test_a_header_of_facts_carries_no_credentials():
    """A header means one thing."""
    with pytest.raises(ValueError, match="x-country"):
        Identifier(
            (ApiKeySource("X-Country"),), ClientDirectory(), hash_credential=str.encode, tenant="t", facts=SOURCES
        )
