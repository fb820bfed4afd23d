"""Every small change that could be made to a module: an operator, a condition, a number, a statement left out.

A change replaces a piece of the source text, so that its diff is what a person could have typed. Left alone is what no
test could or should notice: annotations (but for the calls in them, as `Meta(ge=1)`, which msgspec reads), decorators,
strings, log lines, and `strict` of `zip`.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: (r"is\s+not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: (r"not\s+in", ("in",)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
}
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
COUNTS_MAX = 256
LOGS = {"logger", "log", "print"}


@dataclass(frozen=True, slots=True)
class Change:
    """Bytes `start` to `end` of the module's source become `new`; `line` is where that begins.

    `of_constant`: it is the number that a constant of the module stands for.
    """

    start: int
    end: int
    new: str
    line: int
    of_constant: bool = False

    def apply(self, source: str) -> str:
        """The whole module, changed."""
        data = source.encode()
        return (data[: self.start] + self.new.encode() + data[self.end :]).decode()

    def lines(self, source: str) -> tuple[str, str]:
        """The lines that differ, before and after, without comments and with white space folded: how a change is told
        from others when the code around it has moved.
        """
        was, now = source.splitlines(), self.apply(source).splitlines()
        head = next((at for at, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), 0)
        tail = next((at for at, (a, b) in enumerate(zip(was[::-1], now[::-1], strict=False)) if a != b), 0)
        return _folded(was[head : len(was) - tail]), _folded(now[head : len(now) - tail])

    def diff(self, source: str, path: str) -> str:
        """As `diff -u` shows it, with a line around it."""
        was, now = source.splitlines(), self.apply(source).splitlines()
        return "\n".join(difflib.unified_diff(was, now, path, path, n=1, lineterm=""))


def _folded(lines: list[str]) -> str:
    return " ".join(" ".join(line.partition("  # ")[0] for line in lines).split())


def changes(source: str) -> list[Change]:
    """All of them, in the order of the source. Raises SyntaxError for what is not Python."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(dict.fromkeys(finder.found), key=lambda change: (change.start, change.end, change.new))


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self.found: list[Change] = []
        self._constants: set[ast.expr] = set()
        self._data = source.encode()
        self._starts = [0]
        for line in self._data.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    # -- where things are -------------------------------------------------------------------------------------------

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def _add(self, start: int, end: int, new: str, *, of_constant: bool = False) -> None:
        self.found.append(Change(start, end, new, self._data[:start].count(b"\n") + 1, of_constant))

    def _replace(self, node: ast.expr | ast.stmt, new: str) -> None:
        self._add(self._start(node), self._end(node), new, of_constant=node in self._constants)

    def _operator(self, left: ast.expr, right: ast.expr, old: str, *news: str) -> None:
        """Another operator between two operands; `old` is a pattern. Parentheses and comments may stand there too."""
        start, end = self._end(left), self._start(right)
        gap = re.sub(rb"#[^\n]*", lambda match: b" " * len(match[0]), self._data[start:end])
        found = re.search(old.encode(), gap)
        assert found, (left.lineno, gap, old)
        for new in news:
            self._add(start + found.start(), start + found.end(), new)

    # -- operators --------------------------------------------------------------------------------------------------

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for at, operator in enumerate(node.ops):
            old, news = COMPARISONS[type(operator)]
            self._operator(operands[at], operands[at + 1], old, *news)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._operator(left, right, rf"\b{old}\b", new)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        old, new = ARITHMETIC[type(node.op)]
        self._operator(node.left, node.right, re.escape(old), new)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        old, new = ARITHMETIC[type(node.op)]
        self._operator(node.target, node.value, re.escape(f"{old}="), f"{new}=")
        self._leave_out(node)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub):
            word = "not" if isinstance(node.op, ast.Not) else "-"
            self._add(self._start(node), self._start(node) + len(word), "")  # the operand may stand in parentheses
        self.generic_visit(node)

    # -- conditions -------------------------------------------------------------------------------------------------

    def _negate(self, test: ast.expr) -> None:
        """`if x` becomes `if not x`; a lone comparison or `not` has its own opposite already."""
        if not isinstance(test, ast.Compare) and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            text = self._data[self._start(test) : self._end(test)].decode()
            self._replace(test, f"not ({text})")

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        if not isinstance(node.test, ast.Constant):
            self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    # -- values -----------------------------------------------------------------------------------------------------

    def visit_Module(self, node: ast.Module) -> None:
        self._constants = {statement.value for statement in node.body if isinstance(statement, ast.Assign)}
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._replace(node, str(not value))
        elif isinstance(value, int | float):
            for other in _other_numbers(value):
                self._replace(node, repr(other))

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if _is_log(node.func):
            return
        if name in OPPOSITES:
            self._replace(node.func, OPPOSITES[name])
        self.visit(node.func)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            if (name, keyword.arg) != ("zip", "strict"):
                self.visit(keyword.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Before Python 3.12 ast tells no true places within an f-string; and what is said there is for people."""

    # -- statements -------------------------------------------------------------------------------------------------

    def _leave_out(self, node: ast.stmt) -> None:
        self._replace(node, "pass")

    def visit_Expr(self, node: ast.Expr) -> None:
        call = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(call, ast.Call):
            if _is_log(call.func):
                return
            self._leave_out(node)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._leave_out(node)
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._leave_out(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace(node, "break")

    def visit_Break(self, node: ast.Break) -> None:
        self._replace(node, "pass")

    # -- what is left alone -----------------------------------------------------------------------------------------

    def _annotation(self, node: ast.expr | None) -> None:
        for call in _calls(node):
            self.visit(call)

    def visit_arg(self, node: ast.arg) -> None:
        self._annotation(node.annotation)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        if node.value:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.visit(node.args)
        for statement in node.body:
            self.visit(statement)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)


def _other_numbers(value: float) -> tuple[float, ...]:
    """Small whole numbers count things: one more, one less. Times, rates and sizes are about so much: twice, half."""
    if value == 0:
        return (1,)
    if isinstance(value, int):
        return (value + 1, value - 1) if value <= COUNTS_MAX else (value * 2, value // 2)
    return value * 2, value / 2


def _is_log(node: ast.expr) -> bool:
    """Whether `logger.opt(lazy=True).info`, `self.log.info` or `print` is what is called."""
    while isinstance(node, ast.Attribute | ast.Call):
        if isinstance(node, ast.Attribute) and node.attr in LOGS:
            return True
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return isinstance(node, ast.Name) and node.id in LOGS


def _calls(node: ast.AST | None) -> Iterator[ast.Call]:
    if isinstance(node, ast.Call):
        yield node
    elif node is not None:
        for child in ast.iter_child_nodes(node):
            yield from _calls(child)
