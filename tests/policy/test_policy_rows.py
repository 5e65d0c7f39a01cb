"""How a policy's paths meet the rows of a body: as the whole document and as an element of a list, at once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import transforms_of

from gharial.model.errors import MediaUnreadable
from gharial.model.finding import Limits
from gharial.model.plan import Plan
from gharial.payload.media import Format, Media
from gharial.payload.rewrite import check_plan, open_body
from gharial.policy.compile import compile_plan
from gharial.policy.document import parse_policy

ROW = {"email": "ann@ex.org", "kind": "mail", "customer": {"email": "bob@ex.org"}}


def compiled(*paths: str, show: str = "mask", more: str = "", unlisted: str = "pass") -> Plan:
    text = f"""
policy: p
version: 1
unlisted_fields: {unlisted}
tags:
  email: {{ find: {json.dumps(list(paths))} }}
  {more or "other: { find: ['$.never'] }"}
who: {{ anyone: {{}} }}
grants:
  - {{ grant: g, to: anyone, show: {{ email: {show}, other: clear }} }}
"""
    policy = parse_policy(text, "p.yaml")
    return compile_plan(policy, "r", (), ["g"])


def rewritten(plan: Plan, body: bytes, form: Format = Format.LINES, *, header: bool = False) -> bytes:
    reader = open_body(plan, Media(form, header=header), body, Limits())
    return reader.finish([0] * len(reader.survey()), transforms_of(plan)).body


@pytest.mark.parametrize(
    "path",
    [
        "$.email",
        "$[*].email",
        "$..email",
        "$.*.email",
        "$[*].customer.email",
        "$.customer.email",
        "$[*]..email",
        "$[?@.kind=='mail'].email",
        "$[*][?@.email].email",
        "$",
        "$[*]",
        "$.*",
        "$..*",
    ],
)
@pytest.mark.parametrize("show", ["mask", "redact", "drop", "null"])
def test_what_a_path_finds_in_a_list_of_records_or_in_a_record_it_finds_in_a_row(path: str, show: str) -> None:
    """No value that either form of answer would protect is clear in a row, even where what is unlisted passes."""
    plan = compiled(path, show=show)
    check_plan(plan)
    row = json.dumps(ROW)
    found = rewritten(plan, f"{row}\n{row}\n".encode())
    for form in (row, f"[{row}]"):
        protected = rewritten(plan, form.encode(), Format.JSON)
        for clear in (b"ann@", b"bob@"):
            assert clear in protected or clear not in found


@pytest.mark.parametrize("path", ["$[0].email", "$..[1].email", "$[0]"])
def test_a_path_that_asks_which_row_it_is_leaves_no_trie_for_rows(path: str) -> None:
    """Which row is the first is not known of rows; so bodies of rows are refused, and documents are not."""
    plan = compiled(path)
    assert plan.row_nodes is None
    assert b"email" in rewritten(plan, json.dumps(ROW).encode(), Format.JSON)


def test_tags_that_contradict_each_other_only_in_rows_leave_none() -> None:
    """What can't be ordered in a row is no reason to refuse a policy for documents."""
    plan = compile_plan(
        parse_policy(
            """
policy: p
version: 1
tags: { one: { find: ['$.email'] }, two: { find: ['$[*].email'] } }
who: { anyone: {} }
grants: [ { grant: g, to: anyone, show: { one: mask(first=2), two: mask(last=1) } } ]
""",
            "p.yaml",
        ),
        "r",
        (),
        ["g"],
    )
    assert plan.row_nodes is None


def test_most_policies_need_no_trie_of_their_own() -> None:
    """Where no path begins with a list, rows are read by the trie of documents."""
    assert compiled("$.email", "$..phone", "$.a.b").row_nodes == ()
    assert compiled("$[*].email").row_nodes not in ((), None)


_SEGMENTS = st.sampled_from([".email", "[*]", ".*", "..email", ".customer", "..*", "..customer"])


@given(
    st.lists(
        st.lists(_SEGMENTS, min_size=1, max_size=3).map(lambda s: "$" + "".join(s)),
        min_size=1,
        max_size=3,
        # Two spellings of one place are a mistake of their author.
        unique_by=lambda path: path.replace("[*]", ".*"),
    ),
    st.sampled_from(["drop", "redact", "pass"]),
)
def test_rows_are_never_more_open_than_documents_and_lists(paths: list[str], unlisted: str) -> None:
    """Whatever the paths: what is protected as a document or in a list is protected in a row."""
    plan = compiled(*paths, show="redact", unlisted=unlisted)
    row = json.dumps(ROW)
    found = rewritten(plan, f"{row}\n".encode())
    for form in (row, f"[{row}]"):
        protected = rewritten(plan, form.encode(), Format.JSON)
        for clear in (b"ann@", b"bob@"):
            assert clear in protected or clear not in found


def of_text(unlisted: str, tags: str, show: str, more: str = "") -> Plan:
    text = f"""
policy: p
version: 1
unlisted_fields: {unlisted}
{more}
tags: {{ id: {{ find: '$..id' }}, {tags} }}
who: {{ anyone: {{}} }}
grants: [ {{ grant: g, to: anyone, show: {{ id: clear, {show} }} }} ]
"""
    return compile_plan(parse_policy(text, "p.yaml"), "r", (), ["g"])


def test_what_needs_the_reference_executor_holds_in_tables_too() -> None:
    """A filter, JSON in a cell: as in a list, if a header is declared; detectors and names that are values refuse."""
    detect = of_text("detect", "email: { find: '$..email', detect: email }", "email: mask")
    assert rewritten(detect, b'{"id":1,"note":"ann@ex.org"}\n') == b'{"id":1,"note":"***"}\n'
    with pytest.raises(MediaUnreadable):
        rewritten(detect, b"id,note,x\n1,ann@ex.org,hello\n", Format.CSV)
    where = of_text("drop", "v: { find: '$..value', where: { kind: [mail] } }", "v: mask")
    assert rewritten(where, b"id,kind,value\n1,mail,ann\n2,x,y\n", Format.CSV, header=True) == b"id,value\n1,***\n2,\n"
    inside = of_text("drop", "email: { find: '$..email' }", "email: mask", "json_in_strings: 1")
    cell = b'"{""email"":""ann"",""z"":1}"'
    told = rewritten(inside, b"id,data\n1," + cell + b"\n", Format.CSV, header=True)
    assert told == b'id,data\n1,"{""email"":""***""}"\n'
    names = of_text("redact", "k: { find: '$', keys: true }", "k: mask")
    assert b"ann" not in rewritten(names, b'{"id":1,"ann":2}\n')
    with pytest.raises(MediaUnreadable):
        rewritten(names, b"id,ann\n1,2\n", Format.CSV)
