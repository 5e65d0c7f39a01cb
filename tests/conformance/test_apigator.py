"""The APIgator wire contract, page by page, against a live gate over HTTP and TLS."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from support.envoy_harness import free_port
from support.gateway import Home, a_home, until, write_gateway
from support.kms import a_certificate
from support.upstreams import an_upstream, json_answer

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("apigator"), pytest.mark.asyncio(loop_scope="module")]

POLICY = """\
policy: customer-data
version: 3
mode: enforce
tags:
  first: { find: ['$..firstName', '//firstName'] }
  last:  { find: ['$..lastName', '$..fullName', '//lastName'] }
  birth: { find: '$..DOB', type: date }
  email: { find: '$..email' }
  pay:   { find: '$..salary', type: number }
  public: { find: ['$..id', '//id'] }
unlisted_fields: pass
who:
  anyone: {}
  hr: { role: hr }
  admin: { claim.Role: Admin }
  analyst: { claim.adgroup: Analytics }
grants:
  - { grant: basics, to: anyone, show: { public: clear, first: clear, last: clear, birth: clear, pay: clear } }
  - { grant: admins, to: admin, show: { email: clear } }
  - { grant: analysts, to: analyst, for: ['430'], show: { email: mask(keep=domain) } }
  - { grant: back, to: hr, reveal: [first, last, birth, email, pay], budget: { people: 100/h, then: redact } }
never:
  - { never: at-home, tag: email, when: { caller.country: { not: GB } }, at_least: redact }
"""

STRICT = (
    POLICY.replace("policy: customer-data", "policy: strict")
    .replace("unlisted_fields: pass", "unlisted_fields: redact")
    .replace("show: { public: clear, first: clear, last: clear, birth: clear, pay: clear }", "show: { public: clear }")
)
SHADOW = POLICY.replace("policy: customer-data", "policy: shadowed").replace("mode: enforce", "mode: shadow")

JOBS = ("Default", "DataMasking", "Pseudonymise", "Encrypt", "Restrict", "Reconstruct", "Decrypt")

EXAMPLE = (
    "{'employees':{'employee':[{'id':'1','firstName':'Robert','lastName':'Brownforest','fullName':'RobertBrownforest',"
    "'DOB':'18/12/1965','email':'RB1@exate.com','photo':'https://example.com/735509975649378305/B81JwLT7.jpg'}]}}"
)
"""The data set of the contract's example, which a public client sends."""


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The data set that came back; the answer has nothing else."""
        assert self.status == 200, self.body
        assert list(self.json) == ["dataSet"]
        return str(self.json["dataSet"])

    @property
    def data(self) -> Any:
        return json.loads(self.text)


@dataclass
class World:
    """A gate with manifests, and its clients by name: hr (may have values back), app, trusted (may assert)."""

    home: Home
    port: int
    tls: ssl.SSLContext
    clients: dict[str, dict[str, str]]

    async def post(self, path: str, body: bytes | str, headers: Mapping[str, str] | list[tuple[str, str]]) -> Reply:
        pairs = list(headers.items()) if isinstance(headers, Mapping) else headers

        def run() -> Reply:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self.tls)
            try:
                connection.putrequest("POST", path)
                content = body.encode() if isinstance(body, str) else body
                for name, value in (*pairs, ("Content-Length", str(len(content)))):
                    connection.putheader(name, value)
                connection.endheaders(content)
                answer = connection.getresponse()
                lowered = {name.lower(): value for name, value in answer.getheaders()}
                return Reply(answer.status, lowered, answer.read())
            finally:
                connection.close()

        return await asyncio.to_thread(run)

    async def fetch_token(self, who: str = "app", header: str = "X-Api-Key", **fields: str) -> Reply:
        made = self.clients[who]
        form = {
            "client_id": made["client_id"],
            "client_secret": made["secret"],
            "grant_type": "client_credentials",
            **fields,
        }
        body = "&".join(f"{name}={quote(value)}" for name, value in form.items())
        headers = {header: made["key"], "Content-Type": "application/x-www-form-urlencoded"}
        return await self.post("/apigator/identity/v1/token", body, headers)

    async def token(self, who: str) -> str:
        made = self.clients[who]
        if "token" not in made:
            made["token"] = (await self.fetch_token(who)).json["access_token"]
        return made["token"]

    async def protect(
        self,
        data: str,
        job: str = "Restrict",
        *,
        as_: str = "app",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Reply:
        """Send a data set as a public client does; `more` are fields of the body."""
        body = {
            "manifestName": "Employee",
            "jobType": job,
            "countryCode": "GB",
            "dataSet": data,
            "protectNullValues": False,
            "preserveStringLength": False,
            **more,
        }
        sent = {
            "X-Api-Key": self.clients[as_]["key"],
            "X-Resource-Token": f"bearer {await self.token(as_)}",
            "X-Data-Set-Type": "JSON",
            "Content-Type": "application/json",
            **(headers or {}),
        }
        return await self.post("/apigator/protect/v1/dataset", json.dumps(body), sent)

    async def add_client(self, name: str, *options: str) -> None:
        said = await self.home.cli("clients", "add", name, "--json", *options, secret_in_output=True)
        self.clients[name] = json.loads(said.out)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("tls")
    _, cert = a_certificate(folder)
    key = folder / "key.pem"
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(an_upstream(lambda _: json_answer({})))
        home = await stack.enter_async_context(a_home())
        port = free_port()
        write_gateway(
            home,
            {"api": {"url": upstream.url}},
            policy=POLICY,
            files={"policies/strict.yaml": STRICT, "policies/shadowed.yaml": SHADOW},
            api={"port": port, "tls": {"cert": f"file:{cert}", "key": f"file:{key}"}, "calls_per_minute": 60_000},
            manifests={
                "Employee": {"policy": "customer-data"},
                "Strict": {"policy": "strict"},
                "Shadowed": {"policy": "shadowed"},
            },
        )
        await home.start()
        made = World(home, port, ssl.create_default_context(cafile=str(cert)), {})
        await made.add_client("app")
        await made.add_client("hr", "--role", "hr")
        await made.add_client("trusted", *(f"--may-assert={what}" for what in ("purpose", "country", "claims")))
        yield made


def squeezed(text: str) -> str:
    """A text as public clients compare it: without spaces and line feeds."""
    return text.replace(" ", "").replace("\n", "")


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_a_valid_pair_gets_a_token_of_the_documented_shape(world: World):
    """Exactly the documented members; `expires_in` is an integer, and nothing is cached."""
    reply = await world.fetch_token("app")
    assert reply.status == 200
    assert set(reply.json) == {"access_token", "expires_in", "token_type", "scope", "refresh_token"}
    assert reply.json["expires_in"] == 3600
    assert isinstance(reply.json["expires_in"], int)
    assert reply.json["token_type"].lower() == "bearer"
    assert reply.json["refresh_token"] is None
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("header", ["X-Api-Key", "x-api-key", "X-API-KEY"])
async def test_the_key_header_comes_in_any_case(world: World, header: str):
    """Clients differ in how they write it."""
    assert (await world.fetch_token("app", header)).status == 200


async def test_every_wrong_credential_gets_the_same_refusal(world: World):
    """No such client, another's secret, a wrong secret, an API key as the secret, another's key: one answer."""
    app, hr = world.clients["app"], world.clients["hr"]
    wrong = [
        await world.fetch_token("app", client_id="nobody"),
        await world.fetch_token("app", client_secret=hr["secret"]),
        await world.fetch_token("app", client_secret="ghs_x"),
        await world.fetch_token("app", client_secret=app["key"]),
        await world.fetch_token("hr", client_id=app["client_id"], client_secret=app["secret"]),
    ]
    assert {(reply.status, reply.body) for reply in wrong} == {(401, b'{"error":"invalid_client"}')}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("grant_type=password&client_id=a&client_secret=b", "unsupported_grant_type"),
        ("client_id=a&client_secret=b", "invalid_request"),
        ("", "invalid_request"),
        ("grant_type=client_credentials&client_id=a&client_id=b&client_secret=c", "invalid_request"),
        ("x" * 20_000, "invalid_request"),
    ],
)
async def test_other_requests_for_tokens_get_an_error_of_rfc_6749(world: World, body: str, error: str):
    """Another grant, missing or repeated fields, too much."""
    headers = {"X-Api-Key": world.clients["app"]["key"], "Content-Type": "application/x-www-form-urlencoded"}
    reply = await world.post("/apigator/identity/v1/token", body, headers)
    assert (reply.status, reply.json) == (400, {"error": error})


async def test_guessing_is_slowed_down_and_locks_nobody_out(world: World):
    """After some wrong secrets there is 429 with Retry-After; the right one is still taken."""
    await world.add_client("guessed")
    seen = [await world.fetch_token("guessed", client_secret=f"ghs_{n}") for n in range(12)]
    assert [reply.status for reply in seen[:10]] == [401] * 10
    assert seen[-1].status == 429
    assert int(seen[-1].headers["retry-after"]) >= 1
    assert (await world.fetch_token("guessed")).status == 200


@pytest.mark.parametrize("scheme", ["", "Bearer", "Bearer ", "Bearer nonsense", "Basic abc"])
async def test_without_a_good_token_there_is_401(world: World, scheme: str):
    """Also for `Bearer` alone, on which clients fetch a token and try again."""
    assert (await world.protect(EXAMPLE, headers={"X-Resource-Token": scheme})).status == 401


async def test_the_scheme_comes_in_any_case(world: World):
    """Clients send `token_type` back as they got it."""
    token = await world.token("app")
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert (await world.protect("{}", headers={"X-Resource-Token": f"{scheme} {token}"})).status == 200


async def test_a_token_with_another_clients_key_is_worth_nothing(world: World):
    """The two belong together; so a stolen token alone opens nothing."""
    assert (await world.protect("{}", headers={"X-Api-Key": world.clients["hr"]["key"]})).status == 401
    assert (await world.protect("{}", headers={"X-Api-Key": "ghk_x"})).status == 401


async def test_a_revoked_client_has_no_access_any_more(world: World):
    """From its next call on, with the token that it has."""
    await world.add_client("leaver")
    assert (await world.protect("{}", as_="leaver")).status == 200
    await world.home.cli("clients", "revoke", "leaver")
    assert (await world.protect("{}", as_="leaver")).status == 401
    assert (await world.fetch_token("leaver")).status == 401


# --- data sets --------------------------------------------------------------------------------------------------------


async def test_the_contracts_example_is_restricted(world: World):
    """Tagged strings become the restricted text, a date 01/01/0001 in its format, the rest stays."""
    reply = await world.protect(
        EXAMPLE,
        "Restrict",
        protectNullValues=True,
        dataOwningCountryCode="GB",
        snapshotDate="2021-11-18T00:00:00Z",
        restrictedText="*********",
        dataUsageId=430,
        matchingRule={"claims": [{"attributeName": "Role", "attributeValue": "Admin"}]},
    )
    assert reply.data == {
        "employees": {
            "employee": [
                {
                    "id": "1",
                    "firstName": "*********",
                    "lastName": "*********",
                    "fullName": "*********",
                    "DOB": "01/01/0001",
                    "email": "*********",
                    "photo": "https://example.com/735509975649378305/B81JwLT7.jpg",
                }
            ]
        }
    }
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["gharial-decision"] == "Restrict;policy=customer-data;version=3"


async def test_the_printed_form_is_two_spaces_and_line_feeds(world: World):
    """Key order, digits and letters stay; an empty container is printed in one piece."""
    sent = '{"z":1.50,"a":{"é":[1,{"b":"x  y"}],"e":[],"o":{}},"n":1e400,"t":true,"u":null}'
    reply = await world.protect(sent, "Default")
    assert reply.text.startswith('{\n  "z": 1.50,\n  "a": {\n    "é": [\n      1,\n      {\n        "b": "x  y"\n')
    assert "\r" not in reply.text
    assert squeezed(reply.text) == squeezed(sent)


async def test_single_quotes_come_back_double(world: World):
    """Also with an apostrophe that is a letter, and with JSON in double quotes the same comes out."""
    single = await world.protect("{'id':1,'of':'O'Brien','note':'say \"hi\"'}", "Default")
    double = await world.protect('{"id":1,"of":"O\'Brien","note":"say \\"hi\\""}', "Default")
    assert single.text == double.text
    assert single.data == {"id": 1, "of": "O'Brien", "note": 'say "hi"'}


@pytest.mark.parametrize("sent", ["", "{", "{'a':'b", "{'a':'dogs', cats'}", "not json", '{"a":1,"a":2}', "{'a':tRUE}"])
async def test_a_data_set_that_cant_be_read_is_refused(world: World, sent: str):
    """With 400, and nothing of it comes back."""
    reply = await world.protect(sent, "Default")
    assert reply.status == 400
    assert reply.json["code"] == "request.malformed"


async def test_masking_keeps_the_length_if_asked(world: World):
    """Hex-like text, the same for the same value, of its length; what has no tag stays."""
    sent = '[{"firstName":"John","lastName":"doe","age":7},{"firstName":"John"}]'
    rows = (await world.protect(sent, "DataMasking", preserveStringLength=True)).data
    assert re.fullmatch("[0-9a-f]{4}", rows[0]["firstName"])
    assert re.fullmatch("[0-9a-f]{3}", rows[0]["lastName"])
    assert rows[0]["age"] == 7
    assert rows[0]["firstName"] == rows[1]["firstName"]
    again = (await world.protect(sent, "DataMasking")).data
    assert re.fullmatch("[0-9a-f]{32}", again[0]["firstName"])


async def test_restricting_keeps_the_length_if_asked(world: World):
    """The text is cut or repeated."""
    sent = '{"firstName":"Jo","lastName":"Featherstonehaugh","DOB":"1965-12-18","salary":"12.50"}'
    found = (await world.protect(sent, "Restrict", preserveStringLength=True, restrictedText="abc")).data
    assert found == {"firstName": "ab", "lastName": "abcabcabcabcabcab", "DOB": "0001-01-01", "salary": "0"}


async def test_nulls_are_replaced_only_if_asked(world: World):
    """Of tagged fields; a null without a tag stays."""
    sent = '{"firstName":null,"other":null}'
    assert (await world.protect(sent, "Restrict", restrictedText="x")).data == {"firstName": None, "other": None}
    found = await world.protect(sent, "Restrict", restrictedText="x", protectNullValues=True)
    assert found.data == {"firstName": "x", "other": None}


@pytest.mark.parametrize(("there", "back"), [("Pseudonymise", "Reconstruct"), ("Encrypt", "Decrypt")])
async def test_who_may_gets_the_originals_back(world: World, there: str, back: str):
    """Strings, a number and a date, with their types; a plain value that comes along is restricted."""
    sent = '{"id":"1","firstName":"Ann","lastName":"O\'Brien","DOB":"18/12/1965","salary":12.50}'
    sealed = await world.protect(sent, there, as_="hr")
    assert "Ann" not in sealed.text
    assert sealed.data["id"] == "1"
    opened = await world.protect(sealed.text, back, as_="hr")
    assert squeezed(opened.text) == squeezed(sent)
    mixed = {**sealed.data, "lastName": "plain"}
    found = (await world.protect(json.dumps(mixed), back, as_="hr", restrictedText="no")).data
    assert (found["firstName"], found["lastName"]) == ("Ann", "no")
    line = next(one for one in world.home.audit() if one["exchange"] == opened.headers["gharial-exchange"])
    assert line["client"] == "hr"


async def test_who_may_not_gets_the_restricted_text(world: World):
    """With 200: somebody without the right, and somebody who has the right for another client's tokens."""
    sent = '{"firstName":"Ann","DOB":"18/12/1965"}'
    own = await world.protect(sent, "Pseudonymise", as_="app")
    restricted = {"firstName": "no", "DOB": "no"}
    for who in ("app", "hr"):
        reply = await world.protect(own.text, "Reconstruct", as_=who, restrictedText="no")
        assert reply.data == restricted, who


@pytest.mark.parametrize(
    "job", ["Default", "DataMasking", "Pseudonymise", "Encrypt", "Restrict", "Reconstruct", "Decrypt"]
)
async def test_no_job_shows_more_than_the_policy(world: World, job: str):
    """What the policy redacts for this client is redacted under every job."""
    found = (await world.protect('{"email":"ann@ex.org"}', job, restrictedText="no")).data
    assert found == {"email": "no"}


@pytest.mark.parametrize(
    "claims",
    [
        [{"attributeName": "Role", "attributeValue": "Admin"}],
        [{"Role": "Admin"}],
        [{"adgroup": "x"}, {"Role": "Admin"}],
        [{"Role": "User"}, {"Role": "Admin"}],
    ],
)
async def test_claims_of_both_shapes_count_for_who_may_assert(world: World, claims: Any):
    """A trusted client's count, another's are missing."""
    fields = {"matchingRule": {"claims": claims}, "restrictedText": "no"}
    assert (await world.protect('{"email":"ann@ex.org"}', "Default", as_="trusted", **fields)).data == {
        "email": "ann@ex.org"
    }
    assert (await world.protect('{"email":"ann@ex.org"}', "Default", as_="app", **fields)).data == {"email": "no"}


async def test_purpose_and_country_count_for_who_may_assert(world: World):
    """The purpose opens a mask; another country closes it again."""
    fields = {"matchingRule": {"claims": [{"adgroup": "Analytics"}]}, "restrictedText": "no"}
    seen = [
        (await world.protect('{"email":"ann@ex.org"}', "Default", as_="trusted", **fields, **more)).data["email"]
        for more in ({"dataUsageId": 430}, {"dataUsageId": 431}, {"dataUsageId": 430, "countryCode": "US"})
    ]
    assert seen == ["***@ex.org", "no", "no"]


async def test_headers_of_the_original_weaken_nothing(world: World):
    """Silent mode and the like switch nothing off."""
    plain = await world.protect(EXAMPLE)
    for header in ("X-Silent-Mode", "X-Dataset-On-Invalid-Manifest", "X-Execution-Context", "X-Validation-Key"):
        assert (await world.protect(EXAMPLE, headers={header: "true"})).text == plain.text


async def test_what_the_manifest_does_not_list_is_redacted_and_named(world: World):
    """Names that may be values are told as `?`."""
    sent = '{"id":1,"people":[{"nickName":"Annie","ann@ex.org":{"x":true}}],"ü":"v"}'
    reply = await world.protect(sent, "Default", manifestName="Strict", restrictedText="no")
    assert reply.data == {"id": 1, "people": [{"nickName": "no", "ann@ex.org": {"x": False}}], "ü": "no"}
    assert reply.headers["gharial-withheld"] == "nickName,x,?"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"manifestName": "Nobody"}, 404),
        ({"manifestName": "Shadowed"}, 409),
        ({"jobType": "Show"}, 400),
        ({"jobType": "restrict"}, 400),
        ({"countryCode": "ZZ"}, 400),
        ({"countryCode": None}, 400),
        ({"dataSet": {"a": 1}}, 400),
        ({"protectNullValues": "yes"}, 400),
        ({"unheardOf": 1}, 400),
        ({"snapshotDate": "yesterday"}, 400),
        ({"snapshotDate": "2021-02-30T00:00:00Z"}, 400),
        ({"snapshotDate": "2021-11-18T00:00:00.1234567891Z"}, 400),
        ({"snapshotDate": "2021-11-18T00:00:00.123456789+01:00"}, 200),
        ({"restrictedText": "x" * 257}, 400),
        ({"matchingRule": {"claims": [{"attributeName": "Role"}]}}, 400),
        ({"matchingRule": None, "thirdPartyIdentifer": {"thirdPartyName": "x"}, "sqlType": None}, 200),
    ],
)
async def test_each_field_has_its_rule(world: World, change: dict[str, Any], status: int):
    """What can't be read, or is not known, is refused as a whole."""
    assert (await world.protect('{"firstName":"Ann"}', **change)).status == status


@pytest.mark.parametrize("name", ["jobType", "countryCode", "dataSet", "protectNullValues", "preserveStringLength"])
async def test_required_fields_are_required(world: World, name: str):
    """None of them has a default."""
    body = {
        "manifestName": "Employee",
        "jobType": "Restrict",
        "countryCode": "GB",
        "dataSet": "{}",
        "protectNullValues": False,
        "preserveStringLength": False,
    }
    del body[name]
    headers = {
        "X-Api-Key": world.clients["app"]["key"],
        "X-Resource-Token": f"bearer {await world.token('app')}",
        "X-Data-Set-Type": "JSON",
        "Content-Type": "application/json",
    }
    assert (await world.post("/apigator/protect/v1/dataset", json.dumps(body), headers)).status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, 200),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "text/html"}, 415),
        ({"X-Data-Set-Type": "json"}, 200),
        ({"X-Data-Set-Type": "SQL"}, 415),
        ({"X-Data-Set-Type": ""}, 415),
    ],
)
async def test_types_are_told_by_headers(world: World, headers: dict[str, str], status: int):
    """Some clients send a form's type with JSON; what there is no reader for is refused."""
    assert (await world.protect("{}", headers=headers)).status == status


async def test_lengths_are_counted_in_bytes(world: World):
    """Characters of several bytes arrive whole, both ways."""
    reply = await world.protect('{"note":"Zoë 🐊 — ünïcode"}', "Default")
    assert reply.data == {"note": "Zoë 🐊 — ünïcode"}


async def test_xml_is_protected_too(world: World):
    """Elements by the same tags; JSON's printed form is not for it."""
    sent = "<e><id>1</id><firstName>Ann</firstName></e>"
    reply = await world.protect(
        sent, "Restrict", manifestName="Strict", restrictedText="no", headers={"X-Data-Set-Type": "XML"}
    )
    assert reply.text == "<e><id>1</id><firstName>no</firstName></e>"


async def test_a_call_leaves_its_line_in_the_audit(world: World):
    """Who, under which manifest, and what was done; no value."""
    reply = await world.protect('{"firstName":"Quendolyn"}', "Restrict")
    wanted = reply.headers["gharial-exchange"]

    def look() -> dict[str, Any] | None:
        return next((one for one in world.home.audit() if one["exchange"] == wanted), None)

    line = await until(look)
    assert (line["client"], line["route"], line["outcome"]) == ("app", "manifest:Employee", "forward")
    assert "Quendolyn" not in json.dumps(line)


async def test_a_published_policy_holds_from_the_next_data_set_on(world: World):
    """Manifests follow publications like routes; one that opens a mode of shadow closes the manifest."""
    file = world.home.base / "policies" / "strict.yaml"
    before = file.read_text()
    sent = '{"id":"1","firstName":"Ann"}'
    try:
        file.write_text(
            before.replace("version: 3", "version: 4").replace("show: { public: clear }", "show: { public: redact }")
        )
        said = await world.home.cli("policy", "publish")
        assert said.status == 0, said
        reply = await world.protect(sent, "Default", manifestName="Strict", restrictedText="no")
        assert (reply.data["id"], reply.headers["gharial-decision"]) == ("no", "Default;policy=strict;version=4")
        file.write_text(before.replace("version: 3", "version: 5").replace("mode: enforce", "mode: shadow"))
        assert (await world.home.cli("policy", "publish")).status == 0
        assert (await world.protect(sent, "Default", manifestName="Strict")).status == 409
    finally:
        file.write_text(before.replace("version: 3", "version: 6"))
        await world.home.cli("policy", "publish")


async def test_a_large_data_set_comes_back_whole(world: World):
    """One that is worked on beside the others; each of its values is protected."""
    sent = json.dumps([{"id": str(n), "firstName": f"Ann {n}"} for n in range(5_000)])
    found = (await world.protect(sent, restrictedText="no")).data
    assert found == [{"id": str(n), "firstName": "no"} for n in range(5_000)]
