"""Simple lambdas woven into a generated text, so that running it calls nothing.

`x2 = f2(x1)`, where `f2` is `lambda row: row.price * rate`, becomes `x2 = x1.price * rate`. It is to be noticed by
its speed only:

*   A lambda is found by compiling the ones that begin at its line again: the one that gives the same code, the
    same positions included, is it. If none does (no source, changed since), it is called as before.
*   Globals stay the user's, and late: the text's function gets the `__globals__` of the lambdas in it. Closures too:
    it gets their very cells. What the text itself takes from around it comes in cells of its own, so that
    a user's `len = 3` does not reach it.
*   A woven expression keeps the user's columns, and its lines are the user's plus `(index + 1) * LINES`. So a line says
    which operator it is of, and `as_called` can put the lambda's own frame back into a traceback.

What cannot be kept: a profiler or debugger sees no call, and what C code warns of (numpy's division by zero) is told
with the loop's name for a file.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import inspect
import linecache
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from types import CellType, CodeType, FunctionType, TracebackType
from typing import Any

__all__ = ["LINES", "Inlined", "Woven", "as_called", "inlined", "sharing_globals", "weave", "with_user_frames"]

LINES = 1_000_000
_MAX_SOURCE_LINES = 10_000  # parsing takes about 0.01 ms a line
_MAX_INDEX = 2**31 // LINES - 2
_FOUND, _SOURCES = 2048, 32  # how many lambdas and files are kept

_UNUSUAL = (
    *(ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    *(ast.Yield, ast.YieldFrom, ast.Await, ast.NamedExpr),
)
_LITERALS = (ast.Constant, ast.JoinedStr, ast.Tuple, ast.List, ast.Set, ast.Dict)
_FRAME_NAMES = {"locals", "globals", "vars", "eval", "exec", "compile", "dir", "super", "__class__", "breakpoint"}
_CALLER_NAMES = {"_getframe", "currentframe", "stack", "warn", "warn_explicit"}
_LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
"""What reads the frame of its caller: a log record says which function and line it came from."""


@dataclass(frozen=True, slots=True, eq=False)
class Inlined:
    """A lambda that can stand in line: the expression, with the user's own positions, and what it refers to."""

    parameters: tuple[str, ...]
    body: ast.expr
    free: tuple[str, ...]
    """Free variables, in the order of the function's cells."""
    names: frozenset[str]
    """Globals and builtins."""
    code: CodeType


# Finding a lambda's source


@dataclass(frozen=True, slots=True)
class _Source:
    lines: list[str]
    lambdas: dict[int, list[ast.Lambda]]
    """By the line they begin at."""


_lock = threading.Lock()
_found: dict[int, tuple[CodeType, Inlined | None]] = {}  # by id: codes of two cells can be equal, and are not the same
_sources: dict[str, _Source] = {}


def inlined(fn: object, count: int) -> Inlined | None:
    """What to put in the place of calls `fn(a, ...)` with `count` arguments; None where they must stay calls."""
    if type(fn) is not FunctionType or fn.__defaults__ or fn.__kwdefaults__:
        return None
    code = fn.__code__
    known = _found.get(id(code))
    if known is None:
        with _lock:
            known = _found[id(code)] = (code, _examined(code, fn.__globals__))
            _forget_oldest(_found, _FOUND)
    found = known[1]
    return found if found is not None and len(found.parameters) == count else None


def _forget_oldest(cache: dict[Any, Any], size: int) -> None:
    for key in list(islice(cache, max(0, len(cache) - size))):
        del cache[key]


def _examined(code: CodeType, module: dict[str, Any]) -> Inlined | None:
    unusual = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE
    if code.co_name != "<lambda>" or code.co_flags & unusual or code.co_kwonlyargcount or code.co_cellvars:
        return None
    try:
        same = (node for node in _lambdas_at(code, module) if _is_simple(node.body) and _compiles_to(node, code))
        node = next(same, None)
    except Exception:  # noqa: BLE001 - a loader's get_source() may raise anything; the lambda is called then
        return None
    if node is None:
        return None
    parameters = code.co_varnames[: code.co_argcount]
    names = {part.id for part in ast.walk(node.body) if isinstance(part, ast.Name)}
    return Inlined(
        parameters, node.body, code.co_freevars, frozenset(names.difference(parameters, code.co_freevars)), code
    )


def _lambdas_at(code: CodeType, module: dict[str, Any]) -> list[ast.Lambda]:
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, module)
    source = _sources.get(code.co_filename)
    if source is None or source.lines is not lines:
        source = _Source(lines, _lambdas_in(lines) if len(lines) <= _MAX_SOURCE_LINES else {})
        _sources.pop(code.co_filename, None)
        _sources[code.co_filename] = source
        _forget_oldest(_sources, _SOURCES)
    return source.lambdas.get(code.co_firstlineno, [])


def _lambdas_in(lines: list[str]) -> dict[int, list[ast.Lambda]]:
    tree = _parsed("".join(lines)) or _parsed("".join(map(_without_magic, lines)))
    found: dict[int, list[ast.Lambda]] = {}
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Lambda):
            found.setdefault(node.lineno, []).append(node)
    return found


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(_ESCAPE.sub(_plain_escape, text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


# A wrong escape would be warned of again. Without its backslash the text is another one, so a lambda that has such
# an escape in it is not found, whether it was wrong there or is one of a raw string.
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def _plain_escape(match: re.Match[str]) -> str:
    return match[0] if match[1] in "\n\r\\'\"abfnrtvxuUN01234567" else f"?{match[1]}"


def _without_magic(line: str) -> str:
    """`pass` for a magic: the lines of a `%%sage_submit` cell are kept as they are on the page."""
    code = line.lstrip()
    if code.startswith("%%"):
        return "\n"
    return line[: len(line) - len(code)] + "pass\n" if code.startswith(("%", "!")) else line


def _is_simple(body: ast.expr) -> bool:
    return not any(map(_is_unusual, ast.walk(body)))


def _is_unusual(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _FRAME_NAMES or node.id in _CALLER_NAMES
    if isinstance(node, ast.Attribute):
        return node.attr in _CALLER_NAMES
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in _LOG_METHODS
    return isinstance(node, _UNUSUAL) or _is_warned_of(node)


def _is_warned_of(node: ast.AST) -> bool:
    """Whether the compiler may warn of `node`: it did so already, and is not to do so again."""
    if isinstance(node, ast.Compare) and any(isinstance(op, (ast.Is, ast.IsNot)) for op in node.ops):
        return any(isinstance(side, _LITERALS) and not _is_singleton(side) for side in (node.left, *node.comparators))
    if isinstance(node, ast.Subscript):
        constant = node.value.value if isinstance(node.value, ast.Constant) else ""
        numbered = isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int)
        wrong = isinstance(node.value, ast.Set) or not isinstance(constant, (str, bytes))
        return isinstance(node.value, _LITERALS) and (wrong or (isinstance(node.slice, _LITERALS) and not numbered))
    return isinstance(node, ast.Call) and isinstance(node.func, _LITERALS)


def _is_singleton(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and (node.value is None or node.value is ... or isinstance(node.value, bool))


def _compiles_to(node: ast.Lambda, code: CodeType) -> bool:
    outer = node if not code.co_flags & inspect.CO_NESTED else _lambda(code.co_freevars, node, node)
    flags = code.co_flags & __future__.annotations.compiler_flag
    module = compile(ast.Expression(outer), code.co_filename, "eval", flags=flags, dont_inherit=True)
    made = _inner(module) if outer is node else _inner(_inner(module))
    # Two codes are equal where their instructions, constants, names and positions are.
    return made == code and made.co_linetable == code.co_linetable and made.co_exceptiontable == code.co_exceptiontable


def _lambda(parameters: Iterable[str], body: ast.expr, at: ast.AST) -> ast.Lambda:
    args = [ast.copy_location(ast.arg(name), at) for name in parameters]
    arguments = ast.arguments(posonlyargs=[], args=args, kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.copy_location(ast.Lambda(arguments, body), at)


def _inner(code: CodeType) -> CodeType:
    return next(const for const in code.co_consts if isinstance(const, CodeType))


# Weaving


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """What is woven in under one index: the lambda, and the names in the text of its arguments and its cells."""

    lambda_: Inlined
    arguments: frozenset[tuple[str, ...]]
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Woven:
    """The function `make` of a text, with lambdas in the place of calls. `refused` are the ones that are still called.

    A lambda is refused where it reads a global of a name that the text uses itself.
    """

    code: CodeType
    calls: dict[str, Inlined]
    refused: tuple[str, ...]
    cells: dict[str, tuple[str, int, str]]
    """What the lambdas close over, by its name in the text: which call's, which of its cells, its name there."""
    outer: dict[str, str]
    """What the text itself takes from around it, by its name in the text."""
    places: dict[int, _Place]
    codes: tuple[CodeType, ...]
    """The code of `make` and of every function in it."""

    def bind(self, functions: Mapping[str, FunctionType], names: Mapping[str, Any]) -> FunctionType:
        """`make`, with the globals and the cells of the `functions` that the calls stood for.

        `names` is what the text takes from around it; what is not there is a builtin. Raises `LookupError` where it is
        none, and `ValueError` for functions of two modules or not those that were woven.
        """
        space: dict[str, Any] | None = None
        for name, lambda_ in self.calls.items():
            fn = functions[name]
            if fn.__code__ is not lambda_.code or (space is not None and fn.__globals__ is not space):
                raise ValueError(f"{name} is not the function that was woven in, or not of the others' module")
            space = fn.__globals__
        cells = tuple(self._cell(name, functions, names) for name in self.code.co_freevars)
        return FunctionType(self.code, {} if space is None else space, self.code.co_name, None, cells)

    def _cell(self, name: str, functions: Mapping[str, FunctionType], names: Mapping[str, Any]) -> CellType:
        if name in self.cells:
            call, position, _ = self.cells[name]
            return (functions[call].__closure__ or ())[position]
        original = self.outer[name]
        if original in names:
            return CellType(names[original])
        if not hasattr(builtins, original):
            raise LookupError(f"the generated text takes {original!r} from around it: give it in `names`")
        return CellType(getattr(builtins, original))

    def user_line(self, line: int) -> tuple[int, str, int] | None:
        """Operator, file and line of the user's for a line of the woven code; None for one of the text's own."""
        index = line // LINES - 1
        return (index, self.places[index].lambda_.code.co_filename, line % LINES) if index in self.places else None


def sharing_globals(functions: Mapping[str, FunctionType]) -> dict[str, FunctionType]:
    """Of `functions`, those of the module that most are of: one loop can have the globals of one module."""
    counted = Counter(id(fn.__globals__) for fn in functions.values())
    most = counted.most_common(1)[0][0] if counted else None
    return {name: fn for name, fn in functions.items() if id(fn.__globals__) == most}


def weave(text: str, filename: str, calls: Mapping[str, Inlined]) -> Woven:
    """Compile `text`, one function `make`, with the bodies of `calls` in the place of calls by these names.

    A name ends in the operator's index: `f3`. Only calls whose arguments are plain names are replaced, and of two names
    with one index only the first. Cached, so that the same lambdas and text give the same `Woven`.
    """
    return _weave(text, filename, tuple(calls.items()))


@lru_cache(maxsize=256)
def _weave(text: str, filename: str, calls: tuple[tuple[str, Inlined], ...]) -> Woven:
    tree = ast.parse(text)
    bound, loaded = _names_of(tree)
    kept: dict[int, tuple[str, Inlined]] = {}
    for name, lambda_ in calls:
        index = _index(name)
        if not lambda_.names & bound and index <= _MAX_INDEX and index not in kept:
            kept[index] = (name, lambda_)
    woven = dict(kept.values())
    taken = bound | loaded | {name for lambda_ in woven.values() for name in lambda_.names}
    outer = {name: _fresh(f"g_{name}", taken) for name in sorted(loaded - bound)}
    cells: dict[str, tuple[str, int, str]] = {}
    renamed: dict[str, dict[str, str]] = {}
    for index, (name, lambda_) in kept.items():
        renamed[name] = {free: _fresh(f"c{index}_{free}", taken) for free in lambda_.free}
        cells |= {renamed[name][free]: (name, n, free) for n, free in enumerate(lambda_.free)}
    weaver = _Weaver(woven, renamed, outer, taken)
    weaver.visit(tree)
    wrapper = ast.parse(f"def around({', '.join([*outer.values(), *cells])}): pass")
    assert isinstance(wrapper.body[0], ast.FunctionDef)
    wrapper.body[0].body = tree.body
    code = _inner(_inner(compile(wrapper, filename, "exec", dont_inherit=True)))
    places = {
        index: _Place(lambda_, frozenset(weaver.arguments.get(name, ())), tuple(renamed[name].values()))
        for index, (name, lambda_) in kept.items()
    }
    refused = tuple(name for name, _ in calls if name not in woven)
    return Woven(code, woven, refused, cells, {new: old for old, new in outer.items()}, places, tuple(_all_codes(code)))


def _names_of(tree: ast.AST) -> tuple[set[str], set[str]]:
    """The names that a text binds anywhere, and those it loads."""
    bound: set[str] = set()
    loaded: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.ExceptHandler)) and node.name:
            bound.add(node.name)
    return bound, loaded


def _index(name: str) -> int:
    return int(name[len(name.rstrip("0123456789")) :])


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _all_codes(code: CodeType) -> Iterable[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _all_codes(const)


class _Weaver(ast.NodeTransformer):
    def __init__(
        self, calls: dict[str, Inlined], renamed: dict[str, dict[str, str]], outer: dict[str, str], taken: set[str]
    ) -> None:
        self.calls = calls
        self.renamed = renamed
        self.outer = outer
        self.taken = taken
        self.arguments: dict[str, set[tuple[str, ...]]] = {}
        self.done: set[ast.AST] = set()

    def visit(self, node: ast.AST) -> Any:
        return node if node in self.done else super().visit(node)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.outer.get(node.id, node.id)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        lambda_ = self.calls.get(called)
        arguments = tuple(self.outer.get(arg.id, arg.id) for arg in node.args if isinstance(arg, ast.Name))
        fits = lambda_ is not None and len(arguments) == len(node.args) == len(lambda_.parameters) and not node.keywords
        if lambda_ is None or not fits:
            self.generic_visit(node)
            return node
        self.arguments.setdefault(called, set()).add(arguments)
        names = self.renamed[called] | dict(zip(lambda_.parameters, arguments, strict=True))
        body: ast.expr = _moved(lambda_.body, names, (_index(called) + 1) * LINES)
        self.done.add(body)
        return body

    def visit_If(self, node: ast.If) -> ast.If:
        node.test = self.tested(node.test)
        self.generic_visit(node)
        return node

    def visit_While(self, node: ast.While) -> ast.While:
        node.test = self.tested(node.test)
        self.generic_visit(node)
        return node

    def tested(self, node: ast.expr) -> ast.expr:
        """A condition. What makes tests of its own is evaluated first and then tested: of both the compiler would
        make one jump, which asks a value for its truth once instead of twice, at a line that is not the lambda's."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            node.operand = self.tested(node.operand)
        elif isinstance(node, ast.BoolOp):
            node.values = [self.tested(value) for value in node.values]
        elif isinstance(node, ast.Call) and (body := self.visit_Call(node)) is not node:
            if not _makes_tests(body):
                return body
            target = ast.copy_location(ast.Name(_fresh("t", self.taken), ast.Store()), node)
            return ast.copy_location(ast.NamedExpr(target, body), node)
        return node


def _makes_tests(body: ast.expr) -> bool:
    if isinstance(body, ast.Compare):
        return len(body.ops) > 1 or sys.version_info >= (3, 13)  # where comparing and testing is one instruction
    return isinstance(body, (ast.BoolOp, ast.IfExp)) or (isinstance(body, ast.UnaryOp) and isinstance(body.op, ast.Not))


def _moved(node: Any, names: dict[str, str], lines: int) -> Any:
    """A copy of `node` with names replaced, `lines` further down."""
    if isinstance(node, list):
        return [_moved(part, names, lines) for part in node]
    if not isinstance(node, ast.AST):
        return node
    copy = type(node)(**{name: _moved(value, names, lines) for name, value in ast.iter_fields(node)})
    if isinstance(copy, ast.Name):
        copy.id = names.get(copy.id, copy.id)
    if isinstance(node, (ast.expr, ast.keyword)):
        ast.copy_location(copy, node)
        copy.lineno += lines  # type: ignore[attr-defined]
        copy.end_lineno += lines  # type: ignore[attr-defined]
    return copy


# Tracebacks

_STAND_IN = "sage_nb: stands for a lambda that was woven in"


def as_called(exc: BaseException, woven: Woven) -> None:
    """Make `exc`, as it came out of the woven code, what it would be had the lambdas been called."""
    try:
        exc.__traceback__ = with_user_frames(exc.__traceback__, woven)
        if isinstance(exc, NameError) and exc.name in woven.cells and len(exc.args) == 1:
            renamed, exc.name = exc.name, woven.cells[exc.name][2]
            exc.args = (str(exc.args[0]).replace(repr(renamed), repr(exc.name)),)
    finally:
        del exc  # or it and this frame would hold each other


def with_user_frames(tb: TracebackType | None, woven: Woven) -> TracebackType | None:
    """`tb` with the lambda's own frame behind every one that was in its expression. A second time changes nothing."""
    entries: list[TracebackType] = []
    here = own = found = tb
    try:
        found = None
        while tb is not None:
            entries.append(tb)
            tb = tb.tb_next
        while entries:
            here = entries.pop()
            done = found is not None and _STAND_IN in found.tb_frame.f_code.co_consts
            own = None if done else _lambdas_entry(here, woven)
            if own is not None:
                found = TracebackType(found, own.tb_frame, own.tb_lasti, own.tb_lineno)
            found = TracebackType(found, here.tb_frame, here.tb_lasti, here.tb_lineno)
        return found
    finally:
        del tb, entries, here, own, found  # or they and this frame would hold each other


def _lambdas_entry(entry: TracebackType, woven: Woven) -> TracebackType | None:
    """The traceback of the lambda alone, if `entry` is of woven code and was in a lambda's expression."""
    code, local = entry.tb_frame.f_code, entry.tb_frame.f_locals
    place = woven.places.get(entry.tb_lineno // LINES - 1)
    if place is None or not any(code is one for one in woven.codes):
        return None
    at = next(islice(code.co_positions(), entry.tb_lasti // 2, None))
    line, end_line, column, end_column = (number or 0 for number in at)
    span = (line % LINES, end_line % LINES, column, end_column)
    if _is_loops_own_test(code, entry.tb_lasti, place.lambda_.body, span):
        return None
    named = next((names for names in place.arguments if all(name in local for name in names)), None)
    values = [local[name] for name in named] if named is not None else [None] * len(place.lambda_.parameters)
    cells = tuple(CellType(local[name]) if name in local else CellType() for name in place.cells)
    return _failed(_failing(place.lambda_, *span), entry.tb_frame.f_globals, cells, values)


def _is_loops_own_test(code: CodeType, offset: int, body: ast.expr, span: tuple[int, int, int, int]) -> bool:
    """Whether what failed is the loop's asking for the truth of the result, which has the expression's position."""
    instruction = dis.opname[code.co_code[offset]]
    whole = (body.lineno, body.end_lineno, body.col_offset, body.end_col_offset)
    return span == whole and instruction.startswith(("POP_JUMP", "TO_BOOL")) and not _makes_tests(body)


@lru_cache(maxsize=256)
def _failing(lambda_: Inlined, line: int, end_line: int, column: int, end_column: int) -> CodeType:
    """A lambda like `lambda_` that fails at this position."""
    at = ast.Pass(lineno=line, end_lineno=end_line, col_offset=column, end_col_offset=end_column)
    fails = ast.UnaryOp(ast.USub(), ast.copy_location(ast.Constant(None), at))
    free = [ast.copy_location(ast.Name(name, ast.Load()), at) for name in lambda_.free]
    body = ast.Tuple([ast.copy_location(fails, at), *free], ast.Load())
    start = ast.copy_location(ast.Pass(), at)
    start.lineno = lambda_.code.co_firstlineno
    own = _lambda(lambda_.parameters, ast.copy_location(body, at), start)
    around = ast.Expression(_lambda(lambda_.free, own, start))
    code = _inner(_inner(compile(around, lambda_.code.co_filename, "eval", dont_inherit=True)))
    return code.replace(co_qualname=lambda_.code.co_qualname, co_consts=(*code.co_consts, _STAND_IN))


def _failed(
    code: CodeType, space: dict[str, Any], cells: tuple[CellType, ...], values: list[Any]
) -> TracebackType | None:
    try:
        FunctionType(code, space, code.co_name, None, cells)(*values)
    except TypeError as exc:
        return exc.__traceback__.tb_next if exc.__traceback__ is not None else None
    return None
