"""Routes: which path belongs to which policy. One template serves the gate and the proxy alike.

A template is `[METHODS] /literal/{parameter}/…`, optionally ending in `/**` (everything below, and the folder itself).
Methods are separated by commas; `ANY` or none at all means every method; GET brings HEAD along. Literals are compared
verbatim with the path as the proxy normalised it: another spelling of a path is another path, and has no route.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from gharial.model.caller import RouteMatch
from gharial.model.errors import NoRoute, RequestMalformed, TokenRefused

_METHOD = re.compile(r"[A-Z]{1,20}\Z")
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-]*\Z")
_PARAM = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,63})\}\Z")


class RouteKind(enum.StrEnum):
    """What the gate does on a route."""

    PROTECT = "protect"
    SHADOW = "shadow"
    PASS = "pass"  # noqa: S105 - a kind of route, not a secret


class TemplateError(ValueError):
    """A template can't be read; the text says what and what to do."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. `segments` holds literals as text and parameters as `{name}`; `open_end` is a final `/**`."""

    text: str
    methods: tuple[str, ...]
    segments: tuple[str, ...]
    open_end: bool
    params: tuple[str, ...]
    regex: str
    """The path (without query) as a regular expression that RE2 and Python read alike, to be matched in full."""

    def accepts_method(self, method: str) -> bool:
        """True if the template is for this method."""
        return not self.methods or method in self.methods


def parse_template(text: str) -> Template:
    """Read `METHODS /path/{param}/**`. Raises TemplateError."""
    words = text.split()
    if len(words) not in (1, 2):
        raise TemplateError("a route is matched by 'METHOD /path', e.g. 'GET /customers/{id}'")
    methods = _parse_methods(words[0]) if len(words) == 2 else ()
    path = words[-1]
    if not path.startswith("/"):
        raise TemplateError("the path of a route begins with '/'")
    open_end = path.endswith("/**")
    segments = tuple((path[:-3] if open_end else path).split("/")[1:])
    params = tuple(match[1] for segment in segments if (match := _PARAM.match(segment)))
    for index, segment in enumerate(segments):
        _check_segment(segment, last=index == len(segments) - 1)
    if len(set(params)) != len(params):
        raise TemplateError("a parameter name occurs twice in the path")
    return Template(text, methods, segments, open_end, params, _regex(segments, open_end=open_end))


def _parse_methods(word: str) -> tuple[str, ...]:
    if word == "ANY":
        return ()
    methods = word.split(",")
    if not all(_METHOD.match(method) for method in methods):
        raise TemplateError("methods are written in capitals, separated by commas: 'GET,POST /path'; or ANY")
    if "GET" in methods and "HEAD" not in methods:
        methods.append("HEAD")
    return tuple(methods)


def _check_segment(segment: str, *, last: bool) -> None:
    if _PARAM.match(segment):
        return
    if "{" in segment or "}" in segment:
        raise TemplateError("a parameter fills a whole segment: /{name}/")
    if "**" in segment:
        raise TemplateError("'**' stands only at the end, as '/**'")
    if not _LITERAL.match(segment) or segment in (".", ".."):
        raise TemplateError("a segment holds a character that a normalised path can't; write it percent-encoded")
    if not segment and not last:
        raise TemplateError("a path has no empty segments in the middle")


def _regex(segments: tuple[str, ...], *, open_end: bool) -> str:
    parts = "".join("/" + ("[^/]+" if _PARAM.match(segment) else re.escape(segment)) for segment in segments)
    return f"{parts}(?:/.*)?" if open_end else parts


@dataclass(frozen=True, slots=True)
class RouteRule:
    """One route as the gate uses it.

    `upstream_authorities` are the names by which redirects may call the upstream; `strip_headers` the credentials that
    it must not see; `inject_authorization` what it gets in their place. `reads_requests`: the proxy hands over the
    bodies of requests, because the route's policy may look for tokens in them, or protect values. `stream`: where a
    policy is enforced, the proxy hands over answers in pieces, and rows leave as they come.
    """

    name: str
    template: Template
    kind: RouteKind
    policy: str = ""
    keep_headers: frozenset[str] = frozenset()
    upstream_authorities: frozenset[str] = frozenset()
    strip_headers: frozenset[str] = frozenset()
    inject_authorization: str = field(default="", repr=False)
    reads_requests: bool = False
    stream: bool = False


_ODD_ESCAPES = re.compile(r"%(?:25|c0|c1|u|0[0-9a-f]|1[0-9a-f]|7f)", re.IGNORECASE)
_REQUEST_METHOD = re.compile(r"[A-Z]{1,20}")


def check_request_line(method: str, path: str) -> None:
    """Raise RequestMalformed for a method or path that another server could read in another way than this one.

    Servers differ in whether `..;x`, `%252e%252e`, `%c0%ae` or `.. ` is the folder above: what one of them takes for
    that would reach a path that nobody has judged. TRACE is refused because its answer repeats the request, with what
    the gateway has added to it.
    """
    if not _REQUEST_METHOD.fullmatch(method) or method == "TRACE":
        raise RequestMalformed("the method is not one that is passed on")
    if "%" in path and _ODD_ESCAPES.search(path):
        raise RequestMalformed("the path holds an escape that servers read in different ways")
    if "." not in path and "%2e" not in path.lower():
        return
    for segment in path.split("/"):
        name = unquote_to_bytes(segment.partition(";")[0]).partition(b";")[0].strip()
        if name in (b".", b".."):
            raise RequestMalformed("the path holds a segment that servers read in different ways")


class RouteTable:
    """The routes of a gateway, in order; the first that matches wins."""

    def __init__(self, rules: Iterable[RouteRule]) -> None:
        self.rules = tuple(rules)
        self._compiled = tuple((re.compile(rule.template.regex, re.DOTALL), rule) for rule in self.rules)

    def match(self, method: str, path: str) -> tuple[RouteRule, RouteMatch]:
        """Return the rule for a normalised path (without query) and its decoded parameters. Raises NoRoute."""
        for regex, rule in self._compiled:
            if rule.template.accepts_method(method) and regex.fullmatch(path):
                return rule, RouteMatch(rule.name, path_params(rule.template, path))
        raise NoRoute


def path_params(template: Template, path: str) -> Mapping[str, str]:
    """Return the percent-decoded parameters of a matching path. Raises RequestMalformed if one is not UTF-8."""
    if not template.params:
        return {}
    raw = path.split("/")[1:]
    found: dict[str, str] = {}
    for segment, value in zip(template.segments, raw, strict=False):
        if segment.startswith("{"):  # of literals none holds a brace (_check_segment)
            found[segment[1:-1]] = _decode(value) if "%" in value else value
    return found


def _decode(segment: str) -> str:
    try:
        return unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        raise RequestMalformed("a path parameter is not UTF-8") from None


def has_open_part(template: Template, path: str) -> bool:
    """True if a matching path has anything below the template's `/**`, which no parameter names."""
    return any(path.split("/")[1 + len(template.segments) :])


def replace_params(template: Template, path: str, values: Mapping[str, str]) -> str:
    """Return `path` with these parameters replaced, each written as exactly one percent-encoded segment.

    Raises TokenRefused for a value that can't be one segment (empty, `.`, `..`): the proxy forwards what is set here
    as it is, so a value must not be able to choose another path.
    """
    segments = path.split("/")
    for index, segment in enumerate(template.segments, start=1):
        match = _PARAM.match(segment)
        if match and match[1] in values:
            segments[index] = _encode(values[match[1]])
    return "/".join(segments)


def _encode(value: str) -> str:
    if value in ("", ".", ".."):
        raise TokenRefused("a resolved token can't be written as one path segment")
    return quote(value, safe="")
