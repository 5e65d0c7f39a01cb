"""XML played through the gate: people, budgets, facts and guardrails are those of JSON."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from support.gate_world import Answer, Seen, World, refused

POLICY = """
policy: customer-data
version: 7
mode: enforce
tags:
  person: { find: ['$..customerId', '//Customer/@id', 'path:id'], subject: customer }
  home:   { find: '//Customer/Country', fact: residency }
  name:   { find: ['$..fullName', '//Customer/Name'] }
  email:  { find: '//Email' }
who:
  anyone: {}
  care: { role: care }
grants:
  - { grant: basics, to: anyone, show: { person: token, home: clear } }
  - { grant: support-view, to: care, for: [support], show: { name: clear, email: mask(keep=domain) },
      budget: { people: 3/h, then: mask } }
never:
  - { never: eu-stays, tag: email, when: { subject.residency: EU }, at_least: redact }
"""


def customers(*numbers: int, country: str = "US") -> Answer:
    rows = "".join(
        f'<Customer id="{n}"><Name>Ann {n}</Name><Email>a{n}@ex.org</Email><Country>{country}</Country></Customer>'
        for n in numbers
    )
    body = f'<s:Envelope xmlns:s="urn:s"><s:Body>{rows}</s:Body></s:Envelope>'
    return Answer(body.encode(), headers=(("content-type", "application/soap+xml; charset=utf-8"),))


def texts(seen: Seen, name: str) -> list[str]:
    assert seen.body is not None, seen.code
    assert seen.body.body is not None
    return [element.text or "" for element in ET.fromstring(seen.body.body).iter(name)]


async def test_people_in_xml_are_counted_like_those_in_json():
    """A page of five under a budget of three shows three; the same person in JSON is nobody new."""
    world = World(POLICY)
    seen = await world.call("/customers", customers(1, 2, 3, 4, 5), as_="clerk-1")
    assert texts(seen, "Name") == ["Ann 1", "Ann 2", "Ann 3", "***", "***"]
    assert seen.set["content-type"] == "application/soap+xml"
    again = await world.call("/customers/2", {"customerId": "2", "fullName": "Ann 2"}, as_="clerk-1")
    assert again.json["fullName"] == "Ann 2"
    other = await world.call("/customers/9", {"customerId": "9", "fullName": "Ann 9"}, as_="clerk-1")
    assert other.json["fullName"] == "***"


async def test_a_fact_in_xml_decides_about_its_person():
    """Who lives in the EU is redacted by the guardrail, whatever the grant says; the next record is not."""
    world = World(POLICY)
    seen = await world.call("/customers", customers(1, country="DE"), as_="clerk-1")
    assert texts(seen, "Email") == ["[redacted]"]
    seen = await world.call("/customers", customers(2, country="US"), as_="clerk-1")
    assert texts(seen, "Email") == ["***@ex.org"]


async def test_without_a_country_the_guardrail_holds():
    """A missing fact always satisfies a guardrail's condition, in XML too."""
    seen = await World(POLICY).call("/customers", customers(1, country=""), as_="clerk-1")
    assert texts(seen, "Email") == ["[redacted]"]


async def test_xml_in_a_request_is_refused_where_only_tokens_may_come_in_it():
    """Places in XML are not looked for in requests, so no request in XML goes on; one in JSON does."""
    guarded = POLICY + "  - { never: no-guessing, only_tokens: email }\n"
    xml, json = [("content-type", "text/xml"), ("content-length", "9")], [("content-type", "application/json")]
    for policy, headers, code in ((guarded, xml, "request.unreadable"), (guarded, json, ""), (POLICY, xml, "")):
        seen = await World(policy).call(
            "/customers/1",
            {},
            as_="clerk-1",
            method="POST",
            headers=headers,
            body=b"<a>1</a>" if headers is xml else b"{}",
        )
        assert seen.code == code


async def test_what_cannot_be_read_is_refused_without_a_word_of_it():
    """A DTD, half a document, and JSON that calls itself XML leave a code, and nothing in the audit."""
    world = World(POLICY)
    for body in (b"<!DOCTYPE a><a>ann@ex.org</a>", b"<a>ann@ex.org", b'{"a":"ann@ex.org"}'):
        seen = await world.call("/customers", Answer(body, headers=(("content-type", "text/xml"),)), as_="clerk-1")
        assert refused(seen) == "body.malformed"
        assert "ann@ex.org" not in str(seen.refusal)
    assert b"ann@ex.org" not in b"".join(world.audit.raw)


async def test_random_tokens_in_xml_are_kept_before_the_answer_leaves():
    """What `token(from=vault)` stands for is in the vault for each value; the same value has the same token."""
    world = World(POLICY.replace("person: token,", "person: token(from=vault),"))
    first = await world.call("/customers", customers(1, 2, 1))
    tokens = [element.get("id") for element in ET.fromstring(first.body.body).iter("Customer")]
    assert tokens[0] == tokens[2] != tokens[1]
    assert {str(token)[:4] for token in tokens} == {"tok_"}
    again = await world.call("/customers/1", {"customerId": "1"})
    assert again.json["customerId"] == tokens[0]
