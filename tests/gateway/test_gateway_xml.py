"""SOAP and other XML through a whole gateway: rewritten or refused, never clear."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from support.envoy_harness import Answer
from support.gateway import MARK, POLICY, Api, a_gateway, customer_id, shows
from support.upstreams import Raw, an_upstream, answer, json_answer

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("gateway-xml")]

IN_XML = (
    POLICY.replace("'$..customerId', ", "'$..customerId', '//Customer/@id', ")
    .replace("find: '$..fullName'", "find: ['$..fullName', '//Customer/Name']")
    .replace("'$..lines'", "'$..lines', '//Customer/Plan'")
)
SOAP = f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><!-- {MARK} -->
<s:Body><r:Found xmlns:r="urn:crm"><r:Customer id="{customer_id(1)}">
<r:Name>J\xfcrgen {MARK}</r:Name><r:Plan>magenta f\xfcr alle</r:Plan><r:Note>{MARK}</r:Note>
</r:Customer></r:Found></s:Body></s:Envelope>"""


def soap(text: str, *headers: str, kind: str = "text/xml; charset=iso-8859-1") -> Raw:
    return answer("200 OK", text.encode("iso-8859-1"), f"content-type: {kind}", *headers)


def refused(reply: Answer, code: str) -> None:
    assert (reply.status, reply.code) == (502, code)
    assert not shows(reply)


async def test_soap_is_protected_and_a_dtd_is_refused():
    """A SOAP answer leaves masked, in UTF-8 and without comments; one that can't be read safely does not leave."""
    api = Api()
    async with an_upstream(api) as upstream, a_gateway({"api": {"url": upstream.url}}, policy=IN_XML) as home:
        auditor = await home.add_client("auditor", roles=["auditor"])

        async def answered(raw: Raw, key: str = "") -> Answer:
            api.answers["/any/x"] = raw
            return await home.get("/any/x", "accept: application/xml", key=key)

        reply = await answered(soap(SOAP))
        assert (reply.status, reply.one("content-type")) == (200, "text/xml")
        assert not shows(reply)
        text = reply.body.decode("utf-8")
        assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>')
        assert "<r:Name>[redacted]</r:Name><r:Plan>magenta f\xfcr alle</r:Plan>" in text
        assert 'id="tok_' in text
        assert "Note" not in text
        seen = await answered(soap(SOAP), auditor)
        assert f"<r:Name>J\xfcrgen {MARK}</r:Name>" in seen.body.decode("utf-8")
        await _refuses(answered)
        # The same tags, the other format.
        assert not shows(await answered(json_answer(f'{{"fullName": "{MARK}"}}')))
        home.look_for_leaks()


async def _refuses(answered: Callable[[Raw], Awaitable[Answer]]) -> None:
    with_dtd = f'<!DOCTYPE a [<!ENTITY e "{MARK}">]><a><Customer><Plan>&e;</Plan></Customer></a>'
    refused(await answered(soap(with_dtd)), "body.malformed")
    refused(await answered(soap(SOAP, kind="text/xml; charset=utf-8")), "media.unreadable")
    refused(await answered(soap(SOAP, kind="text/xml; charset=utf-7")), "media.unreadable")
    refused(await answered(soap(f'{{"plan": "{MARK}"}}', kind="application/xml")), "body.malformed")
    refused(await answered(soap(SOAP, kind="application/json")), "body.malformed")
    refused(await answered(soap(SOAP[:-5])), "body.malformed")


async def test_a_policy_without_places_in_xml_lets_no_xml_out():
    """A policy that knows JSON alone refuses XML, whatever it says of fields that no tag names."""
    api = Api({"/any/x": soap(SOAP)})
    passing = POLICY.replace("unlisted_fields: drop", "unlisted_fields: pass")
    async with an_upstream(api) as upstream, a_gateway({"api": {"url": upstream.url}}, policy=passing) as home:
        refused(await home.get("/any/x", "accept: application/xml"), "media.unreadable")
