"""Templates of routes: what they match, what they refuse, and how values are written back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.gate.routes import (
    RouteKind,
    RouteRule,
    RouteTable,
    TemplateError,
    check_request_line,
    parse_template,
    path_params,
    replace_params,
)
from gharial.model.errors import NoRoute, RequestMalformed, TokenRefused


def table(*matches: str) -> RouteTable:
    return RouteTable(
        RouteRule(f"r{index}", parse_template(match), RouteKind.PROTECT) for index, match in enumerate(matches)
    )


@pytest.mark.parametrize(
    ("match", "method", "path", "hit"),
    [
        ("GET /a/{id}", "GET", "/a/1", True),
        ("GET /a/{id}", "HEAD", "/a/1", True),
        ("GET /a/{id}", "POST", "/a/1", False),
        ("GET,POST /a", "POST", "/a", True),
        ("/a", "DELETE", "/a", True),
        ("ANY /a/**", "GET", "/a", True),
        ("ANY /a/**", "GET", "/a/b/c", True),
        ("ANY /a/**", "GET", "/ab", False),
        ("ANY /**", "GET", "/", True),
        ("ANY /**", "GET", "/x/", True),
        ("GET /", "GET", "/", True),
        ("GET /", "GET", "/x", False),
        ("GET /a/{id}", "GET", "/a/", False),
        ("GET /a/{id}", "GET", "/a/1/2", False),
        ("GET /a.b", "GET", "/axb", False),
        ("GET /a/{id}/b", "GET", "/a/x%2Fy/b", True),
        ("GET /a", "GET", "/A", False),
        ("GET /a", "GET", "/a\n", False),
    ],
)
def test_a_template_matches_whole_normalised_paths(match, method, path, hit):
    """A path matches in full or not at all; GET brings HEAD along."""
    routes = table(match)
    if hit:
        routes.match(method, path)
    else:
        with pytest.raises(NoRoute):
            routes.match(method, path)


def test_the_first_route_that_matches_wins():
    """Order decides, so a narrow route stands before a wide one."""
    routes = table("GET /a/special", "GET /a/{id}")
    assert routes.match("GET", "/a/special")[0].name == "r0"
    assert routes.match("GET", "/a/other")[0].name == "r1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GET",
        "get /a",
        "GET a",
        "GET /a/{id}/{id}",
        "GET /a/{1}",
        "GET /a/x{id}",
        "GET /a//b",
        "GET /**/a",
        "GET /a/../b",
        "GET /a b c",
        "GET /ä",
        "GET /a?b",
        "GET /./a",
    ],
)
def test_a_mistaken_template_is_refused(text):
    """What can't be a normalised path, or is not a template, is an error when the configuration is read."""
    with pytest.raises(TemplateError):
        parse_template(text)


def test_parameters_are_percent_decoded_as_utf_8():
    """A parameter is the decoded segment; one that is not UTF-8 makes the request malformed."""
    template = parse_template("GET /a/{id}/{what}")
    assert path_params(template, "/a/J%C3%B6/x%2Fy") == {"id": "Jö", "what": "x/y"}
    with pytest.raises(RequestMalformed):
        path_params(template, "/a/%ff/x")


@given(st.text(min_size=1).filter(lambda s: s not in (".", "..")))
def test_a_value_written_into_a_path_is_one_segment_and_reads_back(value):
    """Whatever the value, the path keeps its number of segments, holds no query, and gives the value back."""
    if any(0xD800 <= ord(char) <= 0xDFFF for char in value):
        return
    template = parse_template("GET /a/{id}/end")
    path = replace_params(template, "/a/tok_x/end", {"id": value})
    assert path.count("/") == 3
    assert re.fullmatch(r"[A-Za-z0-9._~%/-]+", path)
    assert path_params(template, path) == {"id": value}


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_a_value_that_is_no_segment_is_refused(value):
    """Dots and nothing would choose another path when the upstream normalises."""
    with pytest.raises(TokenRefused):
        replace_params(parse_template("GET /a/{id}"), "/a/tok_x", {"id": value})


@pytest.mark.parametrize(
    "path",
    [
        "/open/..;/customers/1",
        "/open/%2e%2e;/customers/1",
        "/open/..%3b/customers/1",
        "/open/%2E%2E%3bx/customers/1",
        "/open/%252e%252e%252fcustomers/1",
        "/open/..%c0%afcustomers/1",
        "/open/%c0%ae%c0%ae/customers/1",
        "/open/%u002e%u002e/customers/1",
        "/open/..%09/customers/1",
        "/open/..%20/customers/1",
        "/open/.;x/customers/1",
        "/open/x%00",
    ],
)
def test_a_path_that_servers_read_in_two_ways_is_refused(path):
    """What Tomcat, IIS or a server that decodes twice takes for the folder above never passes, on any kind of route."""
    with pytest.raises(RequestMalformed):
        check_request_line("GET", path)


@pytest.mark.parametrize(
    "path", ["/a/b.json", "/a/..b", "/a/v1.2;x=1", "/a/%20x", "/a/J%C3%B6", "/a/.well-known/x", "/"]
)
def test_ordinary_paths_are_not(path):
    """Dots, parameters and escapes that every server reads alike pass."""
    check_request_line("GET", path)


@pytest.mark.parametrize("method", ["TRACE", "get", "G" * 21, "A B", "", "M-SEARCH"])
def test_odd_methods_are_refused(method):
    """A method is a short word in capitals; TRACE would repeat what the gateway added to the request."""
    with pytest.raises(RequestMalformed):
        check_request_line(method, "/a")
