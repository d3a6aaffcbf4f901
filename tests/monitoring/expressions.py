"""PromQL as the suite looks at it: parsed, never searched as text."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import promql_parser as promql

COMPARISONS = {"==", "!=", ">", "<", ">=", "<="}
SETS = {"and", "or", "unless"}
# Looking back a day finds nothing in a server that has run for half a minute.
OFFSET = timedelta(days=1)
OFFSET_HERE = timedelta(seconds=5)


def operands(expr: str) -> list[str]:
    """What a condition looks at: the vectors that it compares, joins, or misses. Each must be there for it to mean something."""
    found = list(conditions(promql.parse(expr)))
    assert found, f"expected vectors in {expr}"
    for node in found:
        assert not any(is_condition(inner) for inner in nodes(node)), f"a condition within {node}"
    return [str(node) for node in found]


def conditions(node: Any) -> Iterator[Any]:
    match node:
        case promql.ParenExpr():
            yield from conditions(node.expr)
        case promql.BinaryExpr() if str(node.op) in COMPARISONS | SETS:
            yield from conditions(node.lhs)
            yield from conditions(node.rhs)
        case promql.Call() if node.func.name == "absent":
            yield from node.args
        case _ if selectors(node):
            yield node


def is_condition(node: Any) -> bool:
    return isinstance(node, promql.BinaryExpr) and str(node.op) in COMPARISONS | SETS


def nodes(node: Any) -> Iterator[Any]:
    """A node and all below it."""
    yield node
    match node:
        case promql.BinaryExpr():
            below = [node.lhs, node.rhs]
        case promql.Call():
            below = node.args
        case promql.AggregateExpr():
            below = [node.expr, *([node.param] if node.param else [])]
        case promql.MatrixSelector():
            below = [node.vector_selector]
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            below = [node.expr]
        case promql.VectorSelector() | promql.NumberLiteral() | promql.StringLiteral():
            below = []
        case _:
            raise TypeError(f"no node of PromQL that is known here: {type(node)}")
    for child in below:
        yield from nodes(child)


def selectors(node: Any) -> list[Any]:
    return [inner for inner in nodes(node) if isinstance(inner, promql.VectorSelector)]


def metrics(expr: str) -> set[str]:
    return {selector.name for selector in selectors(promql.parse(expr))}


def with_short_offset(expr: str) -> str:
    """The same with every look back of a day as one of seconds."""
    short = expr.replace("offset 1d", f"offset {int(OFFSET_HERE.total_seconds())}s")
    before, after = (
        [selector.offset for selector in selectors(promql.parse(text)) if selector.offset] for text in (expr, short)
    )
    assert set(before) <= {OFFSET} and after == [OFFSET_HERE] * len(before), f"other offsets than a day: {expr}"
    return short


def substituted(expr: str, chosen: dict[str, str | list[str]]) -> str:
    """An expression of a panel as Grafana sends it. What is chosen is one value, several, or a regular expression for all."""
    values = {"__rate_interval": "10s", "__range": "30s"}
    for name, value in chosen.items():
        match value:
            case list():
                values[name] = "(" + "|".join(escaped(one) for one in value) + ")"
            case _:
                values[name] = value if value == ".*" else escaped(value)
    # Longer names first: one may begin with another.
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(f"${name}", values[name])
    assert "$" not in expr, f"a variable that nobody chose: {expr}"
    return expr


def escaped(value: str) -> str:
    """For a regular expression within a quoted string."""
    return re.escape(value).replace("\\", "\\\\")
