"""The YAML reader: strict, bounded, and every node knows its place."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples, thorough_only

from gharial.model import yaml_text
from gharial.model.yaml_text import Entries, Items, Node, Scalar, find_place, parse_yaml, to_plain

SAMPLE = """\
listen: { port: 8080, address: "127.0.0.1" }
routes:
  - route: customer
    on: yes
  - { route: 'health', pass: true }
note:
"""


def tree(text: str) -> Node:
    root, problems = parse_yaml(text, "f.yaml")
    assert problems == []
    assert root is not None
    return root


def problems_of(text: str) -> list[str]:
    return [str(problem) for problem in parse_yaml(text, "f.yaml")[1]]


def test_plain_values_are_those_of_the_core_schema():
    """A validator gets the same dict that YAML 1.2 says, `on` and `yes` being texts."""
    assert to_plain(tree(SAMPLE)) == {
        "listen": {"port": 8080, "address": "127.0.0.1"},
        "routes": [{"route": "customer", "on": "yes"}, {"route": "health", "pass": True}],
        "note": None,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None), ("Null", None), ("TRUE", True), ("False", False), ("yes", "yes"), ("010", 10), ("0x1F", 31),
        ("0o17", 15), ("-3", -3), (".5", 0.5), ("1e3", 1000.0), ("-.inf", -math.inf), ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"), ("60/h", "60/h"), ("12:30", "12:30"), ("'1'", "1"), ('"~"', "~"),
    ],
)  # fmt: skip
def test_scalars(text: str, value: object):
    """A plain scalar is typed by the core schema and nothing else; a quoted one is a text."""
    found = to_plain(tree(f"k: {text}"))
    assert found == {"k": value}
    assert type(found["k"]) is type(value)


def test_a_scalar_keeps_its_text():
    """`010` is the number 10, and its text is still there for whoever wants to quote it."""
    root = tree("k: 010")
    assert isinstance(root, Entries)
    assert root.find("k").value == Scalar(10, "010", 1, 4)


def test_numeric_keys_are_texts():
    """A key is always a text, so that `1:` and `'1':` can't both be there."""
    assert to_plain(tree("1: a")) == {"1": "a"}
    assert problems_of("1: a\n'1': b") == ["f.yaml:2:1: '1' stands here a second time; the first is in line 1"]


@pytest.mark.parametrize(
    ("path", "key", "place"),
    [
        ((), False, (1, 1)),
        (("listen", "port"), False, (1, 17)),
        (("listen", "port"), True, (1, 11)),
        (("routes", 1, "pass"), True, (5, 24)),
        (("routes", 1), False, (5, 5)),
        (("listen", "tls"), False, (1, 9)),
        (("listen", "Listen", "port"), False, (1, 9)),
        (("routes", 0, "on", "str"), False, (4, 9)),
    ],
)
def test_places(path: tuple[str | int, ...], key: bool, place: tuple[int, int]):
    """A validator's path leads to line and column; where it leaves the tree, to the last node on the way."""
    assert find_place(tree(SAMPLE), path, key=key) == place


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", ["f.yaml:1:1: the file is empty"]),
        ("# only a comment\n", ["f.yaml:1:1: the file is empty"]),
        ("a: 1\nb: 2\na: 3", ["f.yaml:3:1: 'a' stands here a second time; the first is in line 1"]),
        ("a: &x 1", ["f.yaml:1:4: anchors (&name) are not supported; write the value out where it is needed"]),
        ("a: *x", ["f.yaml:1:4: aliases (*name) are not supported; write the value out"]),
        ("b: { <<: {} }", ["f.yaml:1:6: merge keys (<<) are not supported"]),
        ("a: !!python/name:x 1",
         ["f.yaml:1:4: tags (!name) are not supported; put quotes around a text that begins with '!'"]),
        ("%YAML 1.1\n---\na: 1", ["f.yaml:2:1: directives (%YAML, %TAG) are not supported"]),
        ("a: 1\n---\nb: 1", ["f.yaml:2:1: a second document begins here; one file holds one"]),
        ("[a]: 1", ["f.yaml:1:1: a key must be a text"]),
        ("a: 'x", ["f.yaml:1:6: found unexpected end of stream (while scanning a quoted scalar)"]),
        ("a: b: c", ["f.yaml:1:5: mapping values are not allowed here"]),
        ("x: 1\na: \x00", ["f.yaml:2:4: a character that YAML does not allow"]),
        ('a: "\\UFFFFFFFF"', ["f.yaml:1:1: not readable as YAML after this place"]),
        ("a: " + "9" * 41, ["f.yaml:1:4: this number is too long; put quotes around it if it is a text"]),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, want: list[str]):
    """Whatever a reader of the file might overlook is a mistake with its place."""
    assert problems_of(text) == want


def test_all_mistakes_at_once():
    """One run shows every duplicate, anchor and alias, and the tree goes on without them."""
    text = "a: &x 1\nb: *x\na: [1, 2]\nc: { d: 1, d: { e: 1 }, f: 2 }\n"
    root, problems = parse_yaml(text, "f.yaml")
    assert [(problem.line, problem.column) for problem in problems] == [(1, 4), (2, 4), (3, 1), (4, 12)]
    assert to_plain(root) == {"a": 1, "b": None, "c": {"d": 1, "f": 2}}


def test_a_long_secret_is_not_quoted_in_full():
    """A message shows a key shortened and on one line."""
    (message,) = problems_of(f'"{"k" * 500}\\n": 1\n"{"k" * 500}\\n": 2')
    assert len(message) < 160
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("x" * (yaml_text.MAX_TEXT_CHARS + 1), "longer than"),
        ("[" * 10_000, "nested deeper than 64 levels"),
        ("- " * 10_000, "nested deeper than 64 levels"),
        ("{a: " * 10_000, "nested deeper than 64 levels"),
        pytest.param("[" + "a," * 400_000 + "]", "more than 100,000 keys and values", marks=thorough_only),
        ("a: &a [x]\n" + "".join(f"k{n}: [*a, *a]\n" for n in range(20)), "anchors"),
    ],
    ids=["long", "brackets", "dashes", "braces", "many", "aliases"],
)
def test_hostile_text_is_bounded(text: str, what: str):
    """Text, depth and number of values have bounds, and a bound that is reached is a mistake like others."""
    problems = parse_yaml(text, "f.yaml")[1]
    assert what in problems[0].what


PIECES = ["a", "b: ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "? ", ": ", "&x ", "*x", "!t ", '"', "'", "\\U", "x0",
          "F", "|", ">", "%YAML 1.2\n", "---\n", "...\n", "#", "\t", "\x85", "\ufeff", "\x00", "é", "<<: ", ".inf",
          "\r", "\ud800", "0x", "-", "+1", "%TAG ! a\n"]  # fmt: skip


@settings(max_examples=examples(400))
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_any_text_gives_a_tree_or_problems(text: str):
    """No text whatever raises, and a text without a tree always has a problem that says why."""
    root, problems = parse_yaml(text, "f.yaml")
    assert root is not None or problems
    assert all(problem.line >= 1 and problem.column >= 1 for problem in problems)


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-(10**15), 10**15), st.text("ab :-#{}'\"\\é\n", max_size=8))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc1 ", max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=examples(200))
@given(TREES)
def test_json_is_yaml(value: object):
    """A JSON text, which is YAML 1.2 too, comes back as the same value."""
    import json

    assert to_plain(tree(json.dumps(value))) == value


def test_nodes_know_their_kind():
    """Sequences and mappings carry the place of their first character."""
    root = tree("a:\n  - [1]\n")
    assert isinstance(root, Entries)
    outer = root.find("a").value
    assert isinstance(outer, Items)
    assert (outer.line, outer.column) == (2, 3)
    assert (outer.items[0].line, outer.items[0].column) == (2, 5)
    assert root.find("b") is None
