"""The tree of a checked CEL expression: what it reads, and what in it could cost without bound. Pure.

The library hands out a compiled expression only as the bytes of `cel.expr.CheckedExpr` (cel-spec, checked.proto and
syntax.proto). What is needed of those messages is declared here, with their field numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

MAX_PATTERN_CHARS = 200
"""Length of a regular expression in `matches`."""

_F = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "gharial.cel"

# message -> (field, number, type or name of a message, repeated)
_MESSAGES: dict[str, tuple[tuple[str, int, int | str, bool], ...]] = {
    "Constant": (("string_value", 6, _F.TYPE_STRING, False),),
    "Ident": (("name", 1, _F.TYPE_STRING, False),),
    "Select": (("operand", 1, "Expr", False), ("field", 2, _F.TYPE_STRING, False)),
    "Call": (("target", 1, "Expr", False), ("function", 2, _F.TYPE_STRING, False), ("args", 3, "Expr", True)),
    "List": (("elements", 1, "Expr", True),),
    "Entry": (("map_key", 3, "Expr", False), ("value", 4, "Expr", False)),
    "Struct": (("message_name", 1, _F.TYPE_STRING, False), ("entries", 2, "Entry", True)),
    "Loop": (
        ("iter_range", 2, "Expr", False),
        ("accu_init", 4, "Expr", False),
        ("loop_condition", 5, "Expr", False),
        ("loop_step", 6, "Expr", False),
        ("result", 7, "Expr", False),
    ),
    "Expr": (
        ("const_expr", 3, "Constant", False),
        ("ident_expr", 4, "Ident", False),
        ("select_expr", 5, "Select", False),
        ("call_expr", 6, "Call", False),
        ("list_expr", 7, "List", False),
        ("struct_expr", 8, "Struct", False),
        ("comprehension_expr", 9, "Loop", False),
    ),
    "CheckedExpr": (("expr", 4, "Expr", False),),
}


def _checked_expr() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="gharial/cel.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, repeated in fields:
            declared = message.field.add(name=field_name, number=number)
            declared.label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
            if isinstance(kind, str):
                declared.type, declared.type_name = _F.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                declared.type = _F.Type.ValueType(kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.CheckedExpr"))


_CheckedExpr = _checked_expr()


@dataclass(slots=True)
class Tree:
    """What was found: the variables read (`claims.NAME` for one claim, `claims` where it can't be told which), the
    regular expressions, and what can't be allowed."""

    reads: set[str] = field(default_factory=set)
    patterns: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)


def examine(serialized: bytes, variables: frozenset[str]) -> Tree:
    """Return what a checked expression reads of `variables`, and the complaints about what it may cost.

    Raises ValueError if the bytes are not an expression; then nothing is known about it, and it must not be used.
    """
    wrapped = any_pb2.Any.FromString(serialized)
    if not wrapped.type_url.endswith("/cel.expr.CheckedExpr"):
        raise ValueError("this is not a checked expression")
    checked = _CheckedExpr.FromString(wrapped.value)
    if not checked.HasField("expr"):
        raise ValueError("this is not a checked expression")
    tree = Tree()
    _walk(checked.expr, tree, variables, in_loop=False)
    return tree


def _walk(expr: Any, tree: Tree, variables: frozenset[str], *, in_loop: bool) -> None:
    # Recursion is safe: the parser refuses expressions that nest deeper than 32 levels.
    kind = next((name.name for name, _ in expr.ListFields()), "")
    claim = _claim(expr, kind)
    if claim is not None:
        tree.reads.add(claim)
        return
    if kind == "ident_expr":
        if expr.ident_expr.name in variables:
            tree.reads.add(expr.ident_expr.name)
    elif kind == "struct_expr" and expr.struct_expr.message_name:
        tree.complaints.append(f"messages ({expr.struct_expr.message_name}) are not available")
    elif kind == "comprehension_expr":
        if in_loop:
            # What an inner loop costs is multiplied by the outer one, and the library counts steps, not their price.
            tree.complaints.append("all, exists and exists_one can't stand within one another")
        in_loop = True
    elif kind == "call_expr" and expr.call_expr.function == "matches":
        pattern = expr.call_expr.args[-1] if expr.call_expr.args else None
        if pattern is None or not pattern.HasField("const_expr"):
            tree.complaints.append("the pattern of matches must be written out")
        elif len(pattern.const_expr.string_value) > MAX_PATTERN_CHARS:
            tree.complaints.append(f"a pattern is at most {MAX_PATTERN_CHARS} characters long")
        else:
            tree.patterns.add(pattern.const_expr.string_value)
    for part in _parts(expr, kind):
        _walk(part, tree, variables, in_loop=in_loop)


def _claim(expr: Any, kind: str) -> str | None:
    """Return `claims.NAME` for `claims.NAME` and `claims['NAME']`, else None."""
    if kind == "select_expr" and expr.select_expr.operand.ident_expr.name == "claims":
        return f"claims.{expr.select_expr.field}"
    if kind == "call_expr" and expr.call_expr.function == "_[_]" and len(expr.call_expr.args) == 2:
        base, index = expr.call_expr.args
        if base.ident_expr.name == "claims" and index.const_expr.string_value:
            return f"claims.{index.const_expr.string_value}"
    return None


def _parts(expr: Any, kind: str) -> Iterator[Any]:
    if kind == "select_expr":
        yield expr.select_expr.operand
    elif kind == "call_expr":
        if expr.call_expr.HasField("target"):
            yield expr.call_expr.target
        yield from expr.call_expr.args
    elif kind == "list_expr":
        yield from expr.list_expr.elements
    elif kind == "struct_expr":
        for entry in expr.struct_expr.entries:
            yield entry.map_key
            yield entry.value
    elif kind == "comprehension_expr":
        loop = expr.comprehension_expr
        yield from (loop.iter_range, loop.accu_init, loop.loop_condition, loop.loop_step, loop.result)
