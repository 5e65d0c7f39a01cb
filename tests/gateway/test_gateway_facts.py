"""Facts through a whole gateway: who may state what, who vouches for what, and what the upstream gets to see of it."""

from __future__ import annotations

import json

import pytest
from support.gateway import MARK, Api, a_gateway, customer_id, shows
from support.postgres import a_postgres, needs_postgres, url_of
from support.upstreams import an_upstream

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("gateway-facts")]

POLICY = """\
policy: customer-data
version: 1
mode: enforce
tags:
  person: { find: ['$..customerId', 'path:id'], subject: customer }
  name:   { find: '$..fullName' }
who:
  anyone: {}
  north: { claim.desk: north }
grants:
  - { grant: basics, to: anyone, show: { person: token } }
  - { grant: desk, to: north, show: { person: clear, name: clear }, reidentify: [person] }
"""

ONE = f"/customers/{customer_id(1)}"
STATED = 'Gharial-Claims: {"desk":"north"}'
FACTS = (STATED, "Gharial-Country: DE", "X-Country: DE", "X-Network: corporate")


async def test_stated_claims_open_only_what_the_client_was_registered_for():
    """The same header shows the name to the client that may assert claims and to no other; no upstream sees it."""
    api = Api()
    async with (
        an_upstream(api) as upstream,
        a_gateway(
            {"api": {"url": upstream.url}},
            policy=POLICY,
            hops=["10.0.0.0/8"],
            facts={"country": {"header": "X-Country"}, "network": {"header": "X-Network"}},
        ) as home,
    ):
        trusted = await home.add_client("desk", may_assert=["claims"])
        other = await home.add_client("other", may_assert=["purpose", "country"])
        assert (await home.get(ONE, *FACTS, key=trusted)).body.count(MARK.encode()) == 2
        for key in (trusted, other, ""):
            answer = await home.get(ONE, *(FACTS if key != trusted else ()), key=key)
            assert answer.status == 200
            assert not shows(answer)
        assert (await home.get("/open/x", *FACTS)).status == 404  # the upstream's own answer on a passing route
        assert len(upstream.seen) == 5
        for seen in upstream.seen:
            assert not {name.lower() for name, _ in seen.headers} & {
                "gharial-claims",
                "gharial-country",
                "x-country",
                "x-network",
            }
        answer = await home.get(ONE, "Gharial-Claims: [1]", key=other)
        assert (answer.status, answer.code) == (400, "request.malformed")


async def test_status_tells_of_consent_without_a_name():
    """Status counts the resolver's failures; a consent file that can't be used stops the next start."""
    table = {"customer": {customer_id(1): ["sharing"]}}
    async with (
        an_upstream(Api()) as upstream,
        a_gateway(
            {"api": {"url": upstream.url}}, consent={"file": "file:c.json"}, files={"c.json": json.dumps(table)}
        ) as home,
    ):
        status = await home.status()
        assert status["consent"] == {"failures": 0, "problem": ""}
        assert status["geo"] is None
        (home.base / "c.json").write_text(f'["{MARK}"')
        said = await home.cli("up", "--check")
        assert said.status != 0
        assert "c.json" in said.out + said.err
        assert (await home.status())["consent"]["failures"] == 0  # nobody has asked it for anybody since


@needs_postgres
async def test_consent_of_a_database_opens_a_record_and_its_failure_closes_it():
    """Who consented at the server is shown, who did not is not, and nobody is once it can't be asked; calls go on."""
    policy = POLICY.replace("to: north, show", "to: anyone, needs: { subject.consent: sharing }, show")
    policy = policy.replace(", reidentify: [person]", "")
    script = f"CREATE TABLE consents (person text); INSERT INTO consents VALUES ('{customer_id(1)}');"
    two = f"/customers/{customer_id(2)}"
    async with an_upstream(Api()) as upstream:
        with a_postgres(script) as server:
            consent = {
                "url": url_of(server),
                "query": "SELECT 'sharing' FROM consents c WHERE c.person = asked.person",
                "timeout": "5s",
            }
            async with a_gateway({"api": {"url": upstream.url}}, policy=policy, consent={"postgres": consent}) as home:
                assert shows(await home.get(ONE))
                assert not shows(await home.get(two))
                assert "consent: the database answers" in (await home.cli("doctor")).out
                server.psql("DROP TABLE consents;")
                answer = await home.get(ONE)
                assert (answer.status, shows(answer)) == (200, False)
                told = (await home.status())["consent"]
                assert told == {"failures": 1, "problem": "the database can't be asked (UndefinedTableError)"}
                doctor = await home.cli("doctor")
                assert doctor.status == 1
                assert "consent: the database can't be asked (UndefinedTableError)" in doctor.out
