"""Places in XML in what is said of policies: plans, explanations, differences, warnings, tests."""

from __future__ import annotations

import pytest
from support.xml_plans import plan_of_policy, xml_plan

from gharial.model.errors import ConfigInvalid
from gharial.model.place import parse_place
from gharial.model.plan import dump_plan, load_plan, reads_json, reads_xml
from gharial.policy.advice import find_warnings
from gharial.policy.diff import Direction, diff_policies
from gharial.policy.document import Policy, parse_policy
from gharial.policy.places import find_cell, find_spots
from gharial.wiring.policy_explain import Explained, Situation, explain_policy

POLICY = """
policy: p
version: 1
tags:
  person: { find: ['$..id', '//Customer/@id'], subject: customer }
  name:   { find: ['$..name', '//Customer/Name', '//{urn:crm}FullName'] }
  all:    { find: '//Order/@*' }
who: { anyone: {} }
grants:
  - { grant: basics, to: anyone, show: { person: token, name: mask, all: clear } }
"""


def policy(text: str = POLICY) -> Policy:
    return parse_policy(text, "p.yaml")


def shown(text: str = POLICY) -> dict[str, str]:
    plan = plan_of_policy(text)
    cells = {spot.place: find_cell(plan, spot.steps, xml=spot.xml) for spot in find_spots(policy(text))[0]}
    return {place: plan.steps[cell.steps[0]].op.value if cell else "unlisted" for place, cell in cells.items()}


@pytest.mark.parametrize(
    "text",
    ["/a", "//a/b", "/a//*", "//@id", "//a/@*", "//{urn:crm/x}Na-me.1", "/*/@{http://ex.org/a}id", "//Stra\xdfe"],
)
def test_a_place_in_xml_is_printed_as_it_was_written(text: str) -> None:
    """What plans, explanations and problems call a place can be written into a policy."""
    assert str(parse_place(text)) == text


def test_every_kind_of_place_in_xml_is_told_with_what_holds_there() -> None:
    """Explanations and differences go through these places: XML's stand beside JSON's."""
    assert shown() == {
        "fields that no tag names": "unlisted",
        "$..id": "token",
        "$..name": "mask",
        "//Customer/@id": "token",
        "//Customer/Name, //{urn:crm}FullName": "mask",
        "//Order/@*": "clear",
    }


def test_a_name_of_a_namespace_is_found_by_a_path_of_any_too() -> None:
    """Where one path asks for the namespace and another does not, both find it, and the stricter one holds."""
    plan = xml_plan({"//{URN:Crm}Name": "clear", "//name": "mask"})
    for step in ("{urn:crm}name", "name", "{urn:other}name"):
        cell = find_cell(plan, (step,), xml=True)
        assert cell is not None
        assert plan.steps[cell.steps[0]].op == "mask"
    assert find_cell(plan, ("@name",), xml=True) is None


def test_one_place_in_xml_is_explained_without_a_body() -> None:
    """`--path` takes places in XML; a body is explained in JSON only, and says so."""

    def explained(path: str, body: bytes | None = None) -> list[Explained]:
        situation = Situation(as_="anyone", path=path)
        return explain_policy(policy(), situation, body)

    (one,) = explained("//Customer/Name")
    assert (one.explanation.tags, one.explanation.technique) == (("name",), "mask")
    (one,) = explained("/Order/@id")
    assert (one.explanation.tags, one.explanation.technique) == (("all",), "clear")
    with pytest.raises(ConfigInvalid):
        explained("//Customer/Name", b"{}")


def test_a_plan_with_places_in_xml_is_data_like_any_other() -> None:
    """It goes to bytes and back, and says which formats it reads."""
    plan = plan_of_policy(POLICY)
    assert load_plan(dump_plan(plan)) == plan
    assert (reads_json(plan), reads_xml(plan)) == (True, True)
    assert (reads_json(xml_plan({"//a": "mask"})), reads_xml(xml_plan({"$..a": "mask"}))) == (False, False)


def test_the_same_paths_in_another_order_make_the_same_plan() -> None:
    """The order of writing never matters."""
    turned = POLICY.replace(
        "['$..name', '//Customer/Name', '//{urn:crm}FullName']", "['//{urn:crm}FullName', '//Customer/Name', '$..name']"
    )
    assert dump_plan(plan_of_policy(turned)) == dump_plan(plan_of_policy(POLICY))


def test_what_a_change_opens_in_xml_is_told() -> None:
    """A tag that only XML has is compared like any other; so is the format, where one of both has no place in it."""
    opened = diff_policies(policy(POLICY.replace("all: clear", "all: mask")), policy())
    assert [(c.direction, c.place, c.before, c.after) for c in opened.changes] == [
        (Direction.MORE_OPEN, "//Order/@*", "mask", "clear")
    ]
    in_json = "unlisted_fields: pass\n" + POLICY
    for place in (", '//Customer/@id'", ", '//Customer/Name', '//{urn:crm}FullName'"):
        in_json = in_json.replace(place, "")
    in_json = in_json.replace("'//Order/@*'", "'$..all'")
    gained = diff_policies(policy(in_json), policy("unlisted_fields: pass\n" + POLICY))
    told = {(c.place, c.before, c.after) for c in gained.changes if c.direction is Direction.MORE_OPEN}
    assert ("fields that no tag names, in XML", "drop", "clear") in told
    assert ("//Customer/Name, //{urn:crm}FullName", "drop", "mask") in told


def test_a_tag_of_one_format_is_a_warning_where_the_rest_passes() -> None:
    """Under `pass` its values leave in the other format, as fields that no tag names."""
    (warning,) = find_warnings(policy("unlisted_fields: pass\n" + POLICY))
    assert "'all' has places in XML only" in warning.what
    assert find_warnings(policy()) == []
