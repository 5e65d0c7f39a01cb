"""The XML reader against an oracle that knows no trie: paths are matched one by one, for each value anew."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.plans import transforms_of
from support.xml_plans import xml_plan

from gharial.model.finding import Limits
from gharial.model.place import Segment, Select, XmlPath, parse_place
from gharial.payload.xml_reader import XmlReader

ORDER = ("clear", "mask", "redact", "null", "drop")
NEW = {"mask": "***", "redact": "[redacted]", "null": ""}
SCHEMA = ("{http://www.w3.org/XML/1998/namespace}", "{http://www.w3.org/2001/XMLSchema-instance}")
Chain = tuple[str, ...]
"""Names from the root on, as ElementTree writes them; the last one with `@` in front if it is an attribute's."""


def selects(segment: Segment, name: str) -> bool:
    if segment.select is Select.ANY:
        return (segment.name == "@") == name.startswith("@")
    wanted, given_ = segment.name.lower(), name.lower()
    sign = "@" if given_.startswith("@") else ""
    return wanted in (given_, sign + given_.removeprefix("@").rpartition("}")[2])


def finds(segments: tuple[Segment, ...], chain: Chain) -> bool:
    if not segments or not chain:
        return not segments and not chain
    if segments[0].deep and finds(segments, chain[1:]):
        return True
    return selects(segments[0], chain[0]) and finds(segments[1:], chain[1:])


class Oracle:
    """What should leave, as (name, attributes, values and elements); texts that are only white space are left out."""

    def __init__(self, show: dict[str, str], unlisted: str) -> None:
        places = {text: parse_place(text) for text in show}
        self._shown = [(p.segments, show[text]) for text, p in places.items() if isinstance(p, XmlPath)]
        self._unlisted = {"pass": "clear", "redact": "redact", "drop": "drop"}[unlisted]

    def document(self, root: ET.Element) -> Any:
        return self._element(root, (), None) or (root.tag, {}, [])

    def _technique(self, chain: Chain, around: str | None) -> str | None:
        found = [how for segments, how in self._shown if finds(segments, chain)] + ([around] if around else [])
        return max(found, key=ORDER.index, default=None)

    def _is_named(self, chain: Chain) -> bool:
        return any(
            segment.select is Select.NAME and finds(segments[: at + 1], chain)
            for segments, _ in self._shown
            for at, segment in enumerate(segments)
        )

    def _element(self, element: ET.Element, above: Chain, around: str | None) -> Any:
        chain = (*above, element.tag)
        how = self._technique(chain, around)
        if how == "drop":
            return None
        attributes: dict[str, str] = {}
        for name, value in element.attrib.items():
            own = self._technique((*chain, f"@{name}"), how) or self._unlisted
            if own == "drop" or (own != "clear" and name.startswith(SCHEMA)):
                continue
            attributes[name] = self._value(value, own)
        content: list[Any] = []
        texts = [element.text or "", *(child.tail or "" for child in element)]
        own = how or self._unlisted
        for at, text in enumerate(texts):
            is_empty = len(element) == 0 and not element.attrib and not text.strip(" \t\r\n")
            if (text.strip(" \t\r\n") or is_empty) and own != "drop":
                content.append(self._value(text, own))
            if at < len(element):
                below = self._element(element[at], chain, how)
                content += [] if below is None else [below]
        stays = attributes or content or how or not above or (self._is_named(chain) and len(element))
        return (
            (element.tag, attributes, [item for item in content if item]) if stays or self._unlisted != "drop" else None
        )

    def _value(self, text: str, how: str) -> str:
        bare = text.strip(" \t\r\n")
        if how == "clear":
            return text
        if how == "null":
            return ""
        at = len(text) - len(text.lstrip(" \t\r\n"))
        return text[:at] + NEW[how] + text[at + len(bare) :]


def read(element: ET.Element) -> Any:
    texts = [element.text or "", *(child.tail or "" for child in element)]
    content: list[Any] = []
    for at, text in enumerate(texts):
        content += [text] if text.strip(" \t\r\n") else []
        content += [read(element[at])] if at < len(element) else []
    return element.tag, dict(element.attrib), content


def joined(tree: Any) -> Any:
    """Texts beside each other, where an element went, are one; white space in and around them does not count."""
    name, attributes, content = tree
    out: list[Any] = []
    for item in content:
        if isinstance(item, str) and out and isinstance(out[-1], str):
            out[-1] += item
        else:
            out.append(item if isinstance(item, str) else joined(item))
    texts = ["".join(item.split()) if isinstance(item, str) else item for item in out]
    return name, attributes, [item for item in texts if item]


NAMES = ("a", "B", "{urn:p}a", "{urn:q}b", "c")
ATTRIBUTES = ("k", "{urn:p}k", "b", SCHEMA[0] + "lang", SCHEMA[1] + "nil")
PLACES = (
    "//a", "/a/b", "//{urn:p}a", "//b/*", "/*/*", "//@k", "//a/@*", "/*/@{urn:p}k", "//a//b", "//C", "/a/*/c", "//b/@b",
    "//{URN:Q}b//a", "//*/@b", "/c",
)  # fmt: skip


@st.composite
def elements(draw: st.DrawFn, depth: int = 0) -> ET.Element:
    element = ET.Element(draw(st.sampled_from(NAMES)))
    texts = st.sampled_from(("", "", " ", "v", " v w\n", "<&>"))
    for name in draw(st.lists(st.sampled_from(ATTRIBUTES), max_size=2, unique=True)):
        element.set(name, draw(texts))
    element.text = draw(texts)
    if depth < 4:
        for child in draw(st.lists(elements(depth + 1), max_size=3)):  # type: ignore[no-untyped-call]
            child.tail = draw(texts)
            element.append(child)
    return element


@settings(max_examples=examples(4000), deadline=None)
@given(
    elements(),
    st.dictionaries(st.sampled_from(PLACES), st.sampled_from(ORDER), min_size=1, max_size=5),
    st.sampled_from(("drop", "redact", "pass")),
)
def test_what_leaves_is_what_paths_matched_one_by_one_say(
    root: ET.Element, show: dict[str, str], unlisted: str
) -> None:
    """Every value gets the strictest of all paths that find it or what it is in; nothing else changes."""
    body = ET.tostring(root)
    plan = xml_plan(show, unlisted=unlisted)
    reader = XmlReader(plan, Limits())
    reader.feed(body)
    scopes = reader.survey()
    left = reader.finish([0] * len(scopes), transforms_of(plan)).body
    assert joined(read(ET.fromstring(left))) == joined(Oracle(show, unlisted).document(ET.fromstring(body)))
