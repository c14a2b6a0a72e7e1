"""What is changed: every small fault a person might have written into a module, one at a time.

In: the source of a module. Out: its `Mutant`s in the order of the text, each of which can be compiled. A fault changes
a comparison, a sum, a condition, a constant, the order of two arguments or a returned value, or leaves a statement out.
Not touched: what has no meaning (docstrings, annotations, type aliases, log lines, asserts, messages of programming
errors), prose and SQL (a string is changed only if it is one word), and decorators.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
NEGATES: Final = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
}  # fmt: skip
_PAIRS: Final = (("min", "max"), ("any", "all"), ("startswith", "endswith"), ("lstrip", "rstrip"), ("upper", "lower"))
NAMES: Final = {**dict(_PAIRS), **{second: first for first, second in _PAIRS}}
WORD: Final = re.compile(r"[\w.:/@-]*", re.ASCII)
UNWATCHED: Final = ("log", "crash_point")
"""A log line, and the places where a drill kills a process, are not behaviour."""
MEASURES: Final = ("metrics", "self._stage")
"""A figure may be left out as a whole, but is not changed in itself."""
ERRORS: Final = ("ValueError", "TypeError", "KeyError", "RuntimeError", "AssertionError", "NotImplementedError")
TYPES: Final = ("Literal", "Callable", "Union", "Optional", "TypeVar", "tuple", "dict", "list", "cast")
SHOWN: Final = 70


@dataclass
class Mutant:
    """One fault: `replacement` in the place of `place` (node, field, position in a list)."""

    line: int
    scope: str
    operator: str
    before: str
    after: str
    lines: range
    """Of its statement: a test that runs one of them may notice. Empty where the module itself runs them."""
    place: tuple[ast.AST, str, int | None] = field(repr=False)
    replacement: ast.AST = field(repr=False)


def mutants(source: str) -> tuple[ast.Module, list[Mutant]]:
    """The tree of a module and all its mutants, which share it: a process can compile one of them."""
    tree = ast.parse(source)
    finder = _Finder()
    finder.visit_all(tree.body, tree, "body")
    return tree, finder.found


def compile_mutant(tree: ast.Module, mutant: Mutant | None, path: Path) -> Any:
    """The code of the module with that one fault, or as it is."""
    if mutant is not None:
        node, name, position = mutant.place
        new = ast.copy_location(mutant.replacement, _at(mutant.place))
        if position is None:
            setattr(node, name, new)
        else:
            getattr(node, name)[position] = new
    return compile(ast.fix_missing_locations(tree), str(path), "exec")


def _at(place: tuple[ast.AST, str, int | None]) -> Any:
    node, name, position = place
    value = getattr(node, name)
    return value if position is None else value[position]


def _text(node: ast.AST) -> str:
    words = " ".join(ast.unparse(node).split())
    return words if len(words) <= SHOWN else words[: SHOWN - 1] + "…"


def _root(node: ast.AST) -> str:
    """What a call is made on, as far as it is names: `metrics.PARKED.labels(x).inc` is metrics.PARKED.labels."""
    while isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        inner = _root(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def _is_on(node: ast.AST, names: tuple[str, ...]) -> bool:
    root = _root(node) if isinstance(node, ast.Call) else ""
    return any(root == name or root.startswith(f"{name}.") for name in names)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


class _Finder:
    def __init__(self) -> None:
        self.found: list[Mutant] = []
        self.scopes: list[str] = []
        self.in_function = False
        self.lines = range(0)

    def add(self, place: tuple[ast.AST, str, int | None], operator: str, replacement: ast.AST) -> None:
        node = _at(place)
        lines = self.lines if self.in_function else range(0)
        scope = ".".join(self.scopes)
        self.found.append(
            Mutant(node.lineno, scope, operator, _text(node), _text(replacement), lines, place, replacement)
        )

    def visit_all(self, nodes: list[Any], parent: ast.AST, name: str) -> None:
        for position, node in enumerate(nodes):
            self.visit((parent, name, position), node)

    def visit_fields(self, node: ast.AST, *without: str) -> None:
        for name, value in ast.iter_fields(node):
            if name in without:
                continue
            if isinstance(value, list):
                self.visit_all(value, node, name)
            elif isinstance(value, ast.AST):
                self.visit((node, name, None), value)

    def visit(self, place: tuple[ast.AST, str, int | None], node: Any) -> None:
        if isinstance(node, ast.stmt):
            self.statement(place, node)
        elif isinstance(node, ast.expr):
            for operator, replacement in _faults(node):
                self.add(place, operator, replacement)
            self.visit_fields(node, *_ARGUMENTS_KEPT if isinstance(node, ast.Call) and _keeps_arguments(node) else ())
        elif isinstance(node, ast.AST):
            if isinstance(node, ast.comprehension):
                for position, test in enumerate(node.ifs):
                    self.negate((node, "ifs", position), test)
            self.visit_fields(node, "annotation")

    def negate(self, place: tuple[ast.AST, str, int | None], test: ast.expr) -> None:
        # Where a comparison or a `not` is the whole condition, its own mutant says the same.
        turned = isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], NEGATES)
        if not turned and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            self.add(place, "condition negated", ast.UnaryOp(ast.Not(), test))

    def statement(self, place: tuple[ast.AST, str, int | None], node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            before = self.scopes, self.in_function, self.lines
            if not isinstance(node, ast.ClassDef):
                self.visit((node, "args", None), node.args)  # defaults: made where the function stands
            self.scopes = [*self.scopes, node.name]
            self.in_function = self.in_function or not isinstance(node, ast.ClassDef)
            self.visit_all(node.body, node, "body")
            self.scopes, self.in_function, self.lines = before
            return
        if _is_silent(node, top=not self.in_function):
            return
        body = getattr(node, "body", None)
        first = body[0].lineno - 1 if isinstance(body, list) else node.end_lineno or node.lineno
        self.lines = range(node.lineno, max(first, node.lineno) + 1)
        if isinstance(node, ast.Expr) and _is_on(node.value, MEASURES):
            self.add(place, "left out", ast.Pass())
            return
        if _can_be_left_out(node):
            self.add(place, "left out", ast.Pass())
        if isinstance(node, ast.If | ast.While):
            self.negate((node, "test", None), node.test)
        if isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
            self.add(place, "returns None", ast.Return(ast.Constant(None)))
        if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
            self.add(place, "operator", ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value))
        self.visit_fields(node, "annotation", "targets", "target")


_ARGUMENTS_KEPT: Final = ("args", "keywords")


def _keeps_arguments(node: ast.Call) -> bool:
    return _is_on(node, MEASURES) or _root(node) in (*ERRORS, *TYPES)


def _is_silent(node: ast.stmt, *, top: bool) -> bool:
    """True for a statement that says nothing of behaviour."""
    if isinstance(node, ast.Assert | ast.Import | ast.ImportFrom | ast.Pass | ast.Global | ast.Nonlocal):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or _is_on(node.value, UNWATCHED)
    if isinstance(node, ast.If) and top:
        return ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if top and isinstance(value, ast.Subscript | ast.BinOp | ast.Call):
        head = value.value if isinstance(value, ast.Subscript) else value
        return _root(head) in TYPES or (isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr))
    return False


def _can_be_left_out(node: ast.stmt) -> bool:
    """An assignment to a plain name is not: all that reads the name would fail at once."""
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Attribute | ast.Subscript)
    if isinstance(node, ast.Return):
        return node.value is None
    return isinstance(node, ast.Expr | ast.AugAssign | ast.Raise | ast.Delete | ast.Continue | ast.Break)


def _faults(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """What an expression is turned into."""
    if isinstance(node, ast.Compare):
        for position, one in enumerate(node.ops):
            ops = [*node.ops[:position], COMPARISONS[type(one)](), *node.ops[position + 1 :]]
            yield "comparison", ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BinOp):
        if type(node.op) in ARITHMETIC and not _is_text(node.left) and not _is_text(node.right):
            yield "operator", ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield "and or", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "sign", node.operand
    elif isinstance(node, ast.IfExp):
        yield "branches swapped", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Call):
        yield from _call_faults(node)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "constant", ast.Constant(not node.value)
        elif isinstance(node.value, int | float):
            yield "constant", ast.Constant(node.value + 1)
        elif isinstance(node.value, str) and WORD.fullmatch(node.value):
            yield "word", ast.Constant(node.value + "XX")


def _call_faults(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    if _keeps_arguments(node) or _is_on(node, UNWATCHED):
        return
    func = node.func
    if isinstance(func, ast.Name) and func.id in NAMES:
        yield "name", ast.Call(ast.Name(NAMES[func.id], ast.Load()), node.args, node.keywords)
    elif isinstance(func, ast.Attribute) and func.attr in NAMES:
        yield "name", ast.Call(ast.Attribute(func.value, NAMES[func.attr], ast.Load()), node.args, node.keywords)
    for position in range(len(node.args) - 1 if _root(func) not in ("min", "max") else 0):
        one, two = node.args[position : position + 2]
        if isinstance(one, ast.Starred) or isinstance(two, ast.Starred) or ast.dump(one) == ast.dump(two):
            continue
        swapped = [*node.args[:position], two, one, *node.args[position + 2 :]]
        yield "arguments swapped", ast.Call(func, swapped, node.keywords)
