"""The gate without HTTP: one document through one exchange, as if a route had answered with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never
from urllib.parse import quote

from gharial.gate.outcome import (
    BodyMode,
    Exchange,
    ForwardBody,
    Headers,
    Refuse,
    RequestHead,
    ResponseHead,
)
from gharial.gate.routes import RouteKind, RouteRule, RouteTable
from gharial.model.errors import NoRoute, ProtocolViolation, RouteUnfit

JSON = "application/json"
XML = "application/xml"
LINES = "application/x-ndjson"


def find_request(table: RouteTable, route: str, params: Mapping[str, object]) -> RequestHead:
    """Return the request that data of a route stands for.

    `route` is a route's name, with a value for each parameter of its path in `params`; or a request line (`GET
    /customers/42?team=7`); or empty where only one route that has a policy has these parameters. Raises RouteUnfit,
    which names no value, and NoRoute for a request line that no route matches.
    """
    if "/" in route:
        method, _, target = route.rpartition(" ") if " " in route else ("GET", "", route)
        if params:
            raise RouteUnfit("a request line holds its parameters itself")
        rule, _ = table.match(method, target.partition("?")[0])
        return _head(rule, method, target)
    rule = _rule_named(table, route, frozenset(params))
    methods = rule.template.methods
    method = "GET" if not methods or "GET" in methods else methods[0]
    return _head(rule, method, _path_of(table, rule, method, params))


def _head(rule: RouteRule, method: str, target: str) -> RequestHead:
    if rule.kind is RouteKind.PASS:
        raise RouteUnfit(f"on the route {rule.name} everything passes; nothing is protected there")
    return RequestHead(
        method, target, authority="", scheme="", headers=(), proxy_route=rule.name, response_body=BodyMode.BUFFERED
    )


def _rule_named(table: RouteTable, name: str, params: frozenset[str]) -> RouteRule:
    if not name:
        covered = [rule for rule in table.rules if rule.kind is not RouteKind.PASS]
        if len(covered) > 1:
            covered = [rule for rule in covered if set(rule.template.params) == params]
        if len(covered) != 1:
            names = ", ".join(rule.name for rule in table.rules if rule.kind is not RouteKind.PASS)
            raise RouteUnfit(f"say which route: {names or 'none has a policy'}")
        return covered[0]
    found = next((rule for rule in table.rules if rule.name == name), None)
    if found is None:
        raise RouteUnfit(f"there is no route of that name; there are {', '.join(rule.name for rule in table.rules)}")
    return found


def _path_of(table: RouteTable, rule: RouteRule, method: str, params: Mapping[str, object]) -> str:
    wanted = rule.template.params
    if set(params) != set(wanted):
        raise RouteUnfit(f"the route {rule.name} has the parameters {', '.join(wanted) or '(none)'}; give these")
    path = ""
    for segment in rule.template.segments:
        path += f"/{_encode(segment[1:-1], params[segment[1:-1]])}" if segment.startswith("{") else f"/{segment}"
    path = path or "/"
    try:
        matched = table.match(method, path)[0]
    except NoRoute:
        matched = None
    if matched is not rule:
        raise RouteUnfit(f"with these parameters another route comes before {rule.name}")
    return path


def _encode(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RouteUnfit(f"the parameter {name} is a text or a whole number")
    text = str(value)
    if text in ("", ".", ".."):
        raise RouteUnfit(f"the parameter {name} can't stand in a path")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise RouteUnfit(f"the parameter {name} can't stand in a path") from None


async def protect_document(exchange: Exchange, head: RequestHead, body: bytes, media_type: str = JSON) -> bytes:
    """Return what may be shown of a JSON text, or of XML or lines of JSON where `media_type` says so.

    Raises the GharialError of the refusal; nothing of the text leaves then.

    Charges, incidents and the audit record are durable when it returns, as they are for an answer over HTTP.
    """
    headers: Headers = (("content-type", media_type),)
    completed = False
    try:
        request = await exchange.on_request(head)
        if isinstance(request, Refuse):
            completed = True
            raise request.error
        response = await exchange.on_response(ResponseHead(200, headers, has_body=True, from_upstream=True))
        if isinstance(response, Refuse):
            completed = True
            raise response.error
        outcome = await exchange.on_body(body)
        completed = True
        match outcome:
            case Refuse():
                raise outcome.error
            case ForwardBody():
                if outcome.body is None:
                    raise ProtocolViolation("the data would pass as it is")
                return outcome.body
            case _:
                assert_never(outcome)
    finally:
        exchange.on_end(completed=completed)
