"""General JSONPath (RFC 9535) over located values, with a bound on the work.

python-jsonpath reads the text and checks its types; the walk is here, because it must be bounded by what a body may
cost, must not build a path text for each value, and must tell a value that is `false` from one that is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from jsonpath import JSONPathEnvironment
from jsonpath.exceptions import JSONPathError
from jsonpath.filter import (
    BaseExpression,
    BooleanLiteral,
    FilterExpression,
    FilterExpressionLiteral,
    FilterQuery,
    FunctionExtension,
    InfixExpression,
    Nil,
    PrefixExpression,
    RootFilterQuery,
    StringLiteral,
)
from jsonpath.path import JSONPath
from jsonpath.segments import JSONPathRecursiveDescentSegment, JSONPathSegment
from jsonpath.selectors import (
    Filter,
    IndexSelector,
    JSONPathSelector,
    NameSelector,
    SliceSelector,
    WildcardSelector,
)

from gharial.model.errors import TooManyValues
from gharial.model.finding import Kind
from gharial.payload.iregexp import Pattern
from gharial.payload.json_tree import ARRAY, OBJECT, Value

MAX_PATH_CHARS = 4_000
MAX_NUMBER = 2**53 - 1
STEPS_PER_VALUE = 16
"""How many steps one path may take for each value that a body may hold."""

_ENVIRONMENT = JSONPathEnvironment(strict=True)
_FUNCTIONS = {"length": 1, "count": 1, "value": 1, "match": 2, "search": 2}
_LONGEST_INTEGER = 4_000


class Nothing:
    """What an expression gives that finds no value."""


_NOTHING = Nothing()
_Operand = tuple[Kind, str | int | float | bool] | Value | Nothing
"""A scalar by type and content, a container, or nothing."""


class Query:
    """One path, read and checked. Raises ValueError for what is not a query of RFC 9535."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_PATH_CHARS:
            raise ValueError(f"a path is longer than {MAX_PATH_CHARS} characters")
        try:
            path = _ENVIRONMENT.compile(text)
        except (JSONPathError, ValueError, OverflowError, RecursionError):
            raise ValueError("a path is not a JSONPath of RFC 9535") from None
        if not isinstance(path, JSONPath):
            raise ValueError("a path is not one JSONPath")
        self._segments = path.segments
        self._patterns: dict[str, Pattern] = {}
        self._check_segments(path.segments)

    def find(self, root: Value, most_steps: int) -> list[Value]:
        """Return the values that the path finds, each once. Raises TooManyValues beyond `most_steps`."""
        return self.find_each([root], most_steps)

    def find_each(self, roots: Iterable[Value], most_steps: int) -> list[Value]:
        """Return what the path finds from each of these roots. Raises TooManyValues beyond `most_steps` in all."""
        found: list[Value] = []
        for root in roots:
            run = _Run(root, most_steps, self._patterns)
            found += run.nodes(self._segments, root, distinct=True)
            most_steps = run.left
        return found

    def _check_segments(self, segments: Iterable[JSONPathSegment]) -> None:
        known = (NameSelector, IndexSelector, SliceSelector, WildcardSelector, Filter)
        for segment in segments:
            for selector in segment.selectors:
                if not isinstance(selector, known):
                    raise ValueError("a selector is not of RFC 9535")
                if isinstance(selector, Filter):
                    self._check_expression(selector.expression)

    def _check_expression(self, expression: BaseExpression) -> None:
        if isinstance(expression, FilterQuery):
            self._check_segments(expression.path.segments)
            return
        if isinstance(expression, FunctionExtension):
            if _FUNCTIONS.get(expression.name) != len(expression.args):
                raise ValueError("a function is not of RFC 9535")
            if len(expression.args) > 1:
                pattern = expression.args[1]
                if not isinstance(pattern, StringLiteral):
                    raise ValueError("a pattern must be written out")
                self._patterns[pattern.value] = Pattern(pattern.value)
        # The library reads numbers as doubles: a longer one would silently be another.
        literal = expression.value if isinstance(expression, FilterExpressionLiteral) else 0
        if isinstance(literal, (int, float)) and not abs(literal) <= MAX_NUMBER:
            raise ValueError(f"a number in a path is beyond {MAX_NUMBER}, up to which a double is exact")
        for child in expression.children():
            self._check_expression(child)


class _Found(NamedTuple):
    """The nodes of a query that starts at the root: the same for every value that is filtered."""

    query: FilterQuery
    nodes: list[Value]


class _Run:
    """One query over one document."""

    def __init__(self, root: Value, steps: int, patterns: dict[str, Pattern]) -> None:
        self._root = root
        self.left = steps
        self._patterns = patterns
        self._rooted: dict[int, _Found] = {}

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise TooManyValues("a path of the policy takes too many steps")

    def nodes(self, segments: Iterable[JSONPathSegment], start: Value, *, distinct: bool = False) -> list[Value]:
        found = [start]
        for segment in segments:
            below = list(self._segment(segment, found, distinct=distinct))
            found = list(dict.fromkeys(below)) if distinct else below
        return found

    def _segment(self, segment: JSONPathSegment, nodes: list[Value], *, distinct: bool) -> Iterator[Value]:
        deep = isinstance(segment, JSONPathRecursiveDescentSegment)
        seen: set[Value] = set()
        for node in nodes:
            for here in self._descend(node, seen if distinct else set()) if deep else (node,):
                for selector in segment.selectors:
                    for found in self._select(selector, here):
                        self.spend(1)
                        yield found

    def _descend(self, node: Value, seen: set[Value]) -> Iterator[Value]:
        """Yield the containers from here on down that were not seen yet."""
        waiting = [node]
        while waiting:
            here = waiting.pop()
            if here in seen or not here.form:
                continue
            seen.add(here)
            self.spend(1 + len(here.children))
            yield here
            waiting.extend(reversed(here.children))

    def _select(self, selector: JSONPathSelector, node: Value) -> Iterable[Value]:
        self.spend(1)
        children = node.children
        if isinstance(selector, NameSelector):
            member = node.find_member(selector.name) if node.form == OBJECT else None
            return () if member is None else (member,)
        if isinstance(selector, WildcardSelector):
            return children
        if isinstance(selector, Filter):
            return [child for child in children if self._holds(selector.expression, child)]
        if node.form != ARRAY:
            return ()
        if isinstance(selector, IndexSelector):
            at = selector.index + (len(children) if selector.index < 0 else 0)
            return (children[at],) if 0 <= at < len(children) else ()
        if isinstance(selector, SliceSelector):
            return children[selector.slice] if selector.slice.step != 0 else ()
        raise TypeError("a selector that was not checked")

    def _holds(self, expression: BaseExpression, current: Value) -> bool:
        self.spend(1)
        if isinstance(expression, FilterExpression):
            return self._holds(expression.expression, current)
        if isinstance(expression, PrefixExpression):
            return not self._holds(expression.right, current)
        if isinstance(expression, InfixExpression):
            if expression.operator == "&&":
                return self._holds(expression.left, current) and self._holds(expression.right, current)
            if expression.operator == "||":
                return self._holds(expression.left, current) or self._holds(expression.right, current)
            left, right = self._operand(expression.left, current), self._operand(expression.right, current)
            return self._compare(left, expression.operator, right)
        if isinstance(expression, FilterQuery):
            return bool(self._query(expression, current))
        if isinstance(expression, FunctionExtension) and expression.name in ("match", "search"):
            return self._matches(expression, current)
        if isinstance(expression, BooleanLiteral):
            return expression.value
        raise TypeError("an expression that was not checked")

    def _query(self, expression: FilterQuery, current: Value) -> list[Value]:
        if not isinstance(expression, RootFilterQuery):
            return self.nodes(expression.path.segments, current)
        known = self._rooted.get(id(expression))
        if known is None:
            nodes = self.nodes(expression.path.segments, self._root)
            known = self._rooted[id(expression)] = _Found(expression, nodes)
        return known.nodes

    def _matches(self, expression: FunctionExtension, current: Value) -> bool:
        pattern = expression.args[1]
        value = self._operand(expression.args[0], current)
        if not isinstance(pattern, StringLiteral) or not isinstance(value, tuple) or value[0] is not Kind.STRING:
            return False
        found = self._patterns[pattern.value]
        return found.matches(str(value[1]), whole=expression.name == "match", spend=self.spend)

    def _operand(self, expression: BaseExpression, current: Value) -> _Operand:
        self.spend(1)
        if isinstance(expression, Nil):
            return Kind.NULL, ""
        if isinstance(expression, FilterExpressionLiteral):
            return _of_literal(expression.value)
        if isinstance(expression, FilterQuery):
            nodes = self._query(expression, current)
            return self._of_value(nodes[0]) if len(nodes) == 1 else _NOTHING
        if isinstance(expression, FunctionExtension):
            return self._call(expression, current)
        raise TypeError("an expression that was not checked")

    def _of_value(self, value: Value) -> _Operand:
        if value.form:
            return value
        kind, text = value.leaf()
        self.spend(1 + len(text) // 64)
        return kind, _number(text) if kind is Kind.NUMBER else text

    def _call(self, expression: FunctionExtension, current: Value) -> _Operand:
        argument = expression.args[0]
        if expression.name == "length":
            value = self._operand(argument, current)
            if isinstance(value, Value):
                return Kind.NUMBER, len(value.children)
            if isinstance(value, tuple) and value[0] is Kind.STRING and isinstance(value[1], str):
                return Kind.NUMBER, len(value[1])
            return _NOTHING
        if not isinstance(argument, FilterQuery):
            raise TypeError("an expression that was not checked")
        nodes = self._query(argument, current)
        if expression.name == "count":
            return Kind.NUMBER, len(nodes)
        return self._of_value(nodes[0]) if len(nodes) == 1 else _NOTHING

    def _compare(self, left: _Operand, operator: str, right: _Operand) -> bool:
        match operator:
            case "==":
                return self._equal(left, right)
            case "!=":
                return not self._equal(left, right)
            case "<":
                return _is_less(left, right)
            case ">":
                return _is_less(right, left)
            case "<=":
                return _is_less(left, right) or self._equal(left, right)
            case ">=":
                return _is_less(right, left) or self._equal(left, right)
            case _:
                raise TypeError("an operator that was not checked")

    def _equal(self, left: _Operand, right: _Operand) -> bool:
        if isinstance(left, Value) and isinstance(right, Value):
            return self._equal_containers(left, right)
        if isinstance(left, tuple) and isinstance(right, tuple):
            return left == right
        return isinstance(left, Nothing) and isinstance(right, Nothing)

    def _equal_containers(self, left: Value, right: Value) -> bool:
        waiting = [(left, right)]
        while waiting:
            one, other = waiting.pop()
            self.spend(1 + len(one.children))
            if one.form != other.form or len(one.children) != len(other.children):
                return False
            for at, child in enumerate(one.children):
                same = other.find_member(one.names[at]) if one.form == OBJECT else other.children[at]
                if same is None or bool(child.form) != bool(same.form):
                    return False
                if child.form:
                    waiting.append((child, same))
                elif self._of_value(child) != self._of_value(same):
                    return False
        return True


def _is_less(left: _Operand, right: _Operand) -> bool:
    if not isinstance(left, tuple) or not isinstance(right, tuple):
        return False
    one, other = left[1], right[1]
    if left[0] is Kind.STRING and right[0] is Kind.STRING and isinstance(one, str) and isinstance(other, str):
        return one < other
    if left[0] is Kind.NUMBER and right[0] is Kind.NUMBER and not isinstance(one, str) and not isinstance(other, str):
        return one < other
    return False


def _of_literal(value: object) -> _Operand:
    if isinstance(value, bool):
        return Kind.BOOLEAN, "true" if value else "false"
    if isinstance(value, (int, float)):
        return Kind.NUMBER, value
    return Kind.STRING, str(value)


def _number(text: str) -> int | float:
    """Return a JSON number for comparing: whole ones exactly, others as a double (RFC 9535, 2.3.5.2.2; RFC 8259, 6)."""
    if len(text) <= _LONGEST_INTEGER and text.lstrip("-").isdigit():
        return int(text)
    return float(text)
