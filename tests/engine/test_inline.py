"""Woven lambdas: the same values, errors and tracebacks as calls of them, and refused where that could not be held."""

from __future__ import annotations

import gc
import itertools
import linecache
import threading
import traceback
import weakref
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from sage_nb.engine.inline import LINES, Woven, as_called, inlined, sharing_globals, weave, with_user_frames

LOOP = "<test loop>"
VALUE = """\
def make(functions):
    f4 = functions[4]
    def run({args}):
        x4 = f4({args})
        return x4
    return run
"""
TEST = """\
def make(functions):
    f4 = functions[4]
    def run({args}):
        if not f4({args}):
            return "dropped"
        return "kept"
    return run
"""
_cells = itertools.count()


def cell(source: str, space: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run `source` as a notebook runs a cell: under a name of its own, with its lines to be found."""
    filename = f"<cell {next(_cells)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    space = {} if space is None else space
    exec(compile(source, filename, "exec", dont_inherit=True), space)
    return space


class Pair(NamedTuple):
    """The same loop, calling its lambda and with it woven in."""

    calls: Callable[..., Any]
    woven: Callable[..., Any]
    how: Woven


def pair(fn: Any, count: int = 1, text: str = VALUE) -> Pair:
    text = text.format(args=", ".join(["x0", "x1"][:count]))
    found = inlined(fn, count)
    assert found is not None
    how = weave(text, LOOP, {"f4": found})
    assert not how.refused
    calls = weave(text, LOOP, {}).bind({}, {})
    return Pair(calls([None] * 4 + [fn]), how.bind({"f4": fn}, {})([None] * 5), how)


def outcome(run: Callable[..., Any], args: tuple[Any, ...], how: Woven | None = None) -> Any:
    """What `run` returns, or what the user is shown of what it raises."""
    try:
        return run(*args)
    except Exception as exc:  # noqa: BLE001 - what a lambda raises is what is compared
        if how is not None:
            as_called(exc, how)
        tb = exc.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename in (__file__, LOOP):
            tb = tb.tb_next
        return "".join(traceback.format_exception(type(exc), exc, tb)), getattr(exc, "name", None)


def assert_same(made: Pair, *args: Any) -> Any:
    expected = outcome(made.calls, args)
    got = outcome(made.woven, args, made.how)
    assert got == expected
    assert type(got) is type(expected)
    return got


# The same as a call

SPACE = {"g": 3, "s": "text", "d": {1: "one", "a": 2}, "n": None, "many": [3, 1, 2], "identity": lambda *a, **k: (a, k)}
ITEMS = [0, 1, -3, 2.5, "a", "", None, [1, 2], {"a": 1}, (1, 2, 3), {"v": 0}, True, 10**30]
BODIES = [
    "x",
    "3",
    "g",
    "missing",
    "k",
    "x + 1",
    "1 / x",
    "d[x]",
    "x['a']",
    "x.a",
    "x.upper()",
    "x is None",
    "x is not None and x > g",
    "x or n or k",
    "x and x[0] and x[0].wrong",
    "not x",
    "not x > 2",
    "0 < x < g",
    "x if x else k",
    "(1 / x) if g else x",
    "-x",
    "len(x) * k",
    "identity(*x)",
    "identity(x, *many, x=x, k=k)",
    "identity(**x)",
    "{**x, 'k': k}",
    "[x, *many, g]",
    "(x, k)",
    "{x, g}",
    "x[1:]",
    "x[:g:1]",
    "(x[0], x[-1])",
    "f'{x} of {g!r:>4} {k}'",
    "f'{x:{g}} {1 / x}'",
    "'%s' % x",
    "s.x",
    "isinstance(x, int) and x % 2 == 0",
    "sorted(x)[0]",
    "x.x",
    "x @ x",
    "x == x == 1 or 1 / 0",
    "getattr(x, 'x', 0)",
    "x in many",
    "(\n    x\n    + g\n    + 1 /\n      x\n)",
    "identity(\n    x,\n    x.wrong,\n)",
    "x \\\n    .y \\\n    .z",
    "'é' + x",
]


@pytest.mark.parametrize("text", [VALUE, TEST], ids=["value", "test"])
@pytest.mark.parametrize("body", BODIES)
def test_a_woven_lambda_does_what_a_call_does(body: str, text: str) -> None:
    """Results and exceptions, and what the user sees of a traceback, to the last caret."""
    source = f"def around(k):\n    return [0, lambda x: {body}, lambda x: (x, {body})]\nfns = around(2)\n"
    for fn in cell(source, dict(SPACE))["fns"][1:]:
        made = pair(fn, text=text)
        for item in ITEMS:
            assert_same(made, item)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    one = [
        "not {0}",
        "-{0}",
        "({0}).real",
        "({0})[0]",
        "[*{0}]",
        "abs({0})",
        "({0}).x",
        "identity(x={0})",
    ]
    two = ["({0} + {1})", "({0} and {1})", "({0}\n or {1})", "({0} < {1})", "({0})[{1}]", "identity({0},\n   *{1})"]
    three = [
        "({0} if {1} else {2})",
        "({0} < {1} <= {2})",
        "({0} and\n {1} and {2})",
        "({0})[{1}:{2}]",
        "({0}, {1}, {2})",
    ]
    return st.builds(str.format, st.sampled_from(one + two + three), inner, inner, inner)


leaves = st.sampled_from(["x", "x", "k", "g", "0", "n", "s", "many", "missing", "unset", "f'{x!r} {k + x}'"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=st.recursive(leaves, grown, max_leaves=8), item=st.sampled_from(ITEMS), text=st.sampled_from([VALUE, TEST]))
def test_any_expression_does_what_a_call_does(body: str, item: Any, text: str) -> None:
    source = f"def around(k):\n    if not k: unset = 1\n    return lambda x: ({body})\nfn = around(2)\n"
    try:
        fn = cell(source, dict(SPACE))["fn"]
    except SyntaxError:  # what the compiler warns of
        reject()
    assert_same(pair(fn, text=text), item)


def test_two_arguments_go_where_they_belong() -> None:
    made = pair(cell("f = lambda total, row: total - row")["f"], 2)
    assert assert_same(made, 10, 3) == 7


def test_names_that_only_look_like_the_parameter_are_left_alone() -> None:
    space = cell("f = lambda x: identity(x=x.x, y='x', **{'x2': x})", dict(SPACE))
    item = type("Item", (), {"x": 1})()
    assert assert_same(pair(space["f"]), item) == ((), {"x": 1, "y": "x", "x2": item})


def test_globals_stay_late_bound() -> None:
    space = cell("rate = 2\nf = lambda x: x * rate")
    made = pair(space["f"])
    assert made.woven(3) == 6
    space["rate"] = 5
    assert assert_same(made, 3) == 15
    del space["rate"]
    assert "name 'rate' is not defined" in assert_same(made, 3)[0]


def test_a_builtin_can_be_shadowed_later() -> None:
    space = cell("f = lambda x: len(x)")
    made = pair(space["f"])
    assert made.woven("abc") == 3
    space["len"] = lambda x: -1
    assert assert_same(made, "abc") == -1


def test_nothing_is_added_to_the_users_globals() -> None:
    space = cell("f = lambda x: x + g", {"g": 1})
    before = set(space)
    assert_same(pair(space["f"]), 1)
    assert set(space) == before


def test_the_text_is_not_touched_by_what_the_user_calls_things() -> None:
    """The generated text's own `len` and `tool` are not the user's."""
    text = """\
def make():
    def run(x0):
        return len(tool(f4(x0)))
    return run
"""
    space = cell("len = tool = None\nf = lambda x: (x, len, tool)")
    found = inlined(space["f"], 1)
    assert found is not None
    woven = weave(text, LOOP, {"f4": found})
    assert woven.bind({"f4": space["f"]}, {"tool": lambda x: [x, x]})()(1) == 2
    with pytest.raises(LookupError, match="'tool'"):
        woven.bind({"f4": space["f"]}, {})


def test_a_condition_is_not_touched_by_what_the_user_calls_things() -> None:
    text = """\
def make():
    def run(x0):
        if not f4(x0):
            return "dropped"
        return len(x0)
    return run
"""
    fn = cell("len = lambda x: False\nf = lambda x: len(x) or g(x)\ng = lambda x: x == 'keep'")["f"]
    found = inlined(fn, 1)
    assert found is not None
    run = weave(text, LOOP, {"f4": found}).bind({"f4": fn}, {})()
    assert [run("keep"), run("drop")] == [4, "dropped"]


def test_closures_stay_late_bound() -> None:
    source = """
def around():
    k = 1
    def rebind(value):
        nonlocal k
        k = value
    def unbind():
        nonlocal k
        del k
    return lambda x: x + k, rebind, unbind
f, rebind, unbind = around()
"""
    space = cell(source)
    made = pair(space["f"])
    assert made.woven(1) == 2
    space["rebind"](10)
    assert assert_same(made, 1) == 11
    space["unbind"]()
    shown, name = assert_same(made, 1)
    assert "free variable 'k'" in shown
    assert name == "k"


def test_closures_of_one_name_are_kept_apart() -> None:
    text = """\
def make():
    def emit(x1):
        return f2(x1)
    def run(x0):
        return emit(f1(x0))
    return run
"""
    space = cell("def times(k): return lambda x: x * k\ndouble, triple = times(2), times(3)")
    calls = {name: inlined(space[fn], 1) for name, fn in (("f1", "double"), ("f2", "triple"))}
    woven = weave(text, LOOP, {name: found for name, found in calls.items() if found is not None})
    assert woven.bind({"f1": space["double"], "f2": space["triple"]}, {})()(5) == 30
    assert woven.bind({"f1": space["double"], "f2": space["double"]}, {})()(5) == 20


def test_a_lambda_that_calls_itself_by_a_global_name() -> None:
    space = cell("f = lambda n: 1 if n < 2 else n * f(n - 1)")
    assert assert_same(pair(space["f"]), 20) == 2432902008176640000
    space = cell("f = lambda n: 1 / n if n < 2 else n * f(n - 1)")
    assert assert_same(pair(space["f"]), 0)[0].count("in <lambda>") == 1
    space = cell("f = lambda n: 1 / 0 if n < 2 else n * f(n - 1)")
    assert assert_same(pair(space["f"]), 3)[0].count("in <lambda>") == 3


def test_truth_is_asked_for_as_often_as_by_a_call() -> None:
    class Asked:
        times = 0

        def __bool__(self) -> bool:
            self.times += 1
            return False

    for body in ("x", "x and 1", "not x", "x if x else x", "x or x"):
        made = pair(cell(f"f = lambda x: {body}")["f"], text=TEST)
        called, woven = Asked(), Asked()
        made.calls(called)
        made.woven(woven)
        assert woven.times == called.times, body


def test_an_error_of_the_loops_own_test_is_not_put_on_the_lambda() -> None:
    """The truth of what a lambda returned is asked for outside of it."""
    space = cell(
        """
class Odd:
    def __bool__(self): raise ValueError("ambiguous")
    def __gt__(self, other): return self
    @property
    def odd(self): return self
fs = [lambda x: x, lambda x: x > 1, lambda x: x.odd, lambda x: x > 1 and x, lambda x: 0 < 1 < x, lambda x: not x]
"""
    )
    for fn in space["fs"]:
        assert "ambiguous" in assert_same(pair(fn, text=TEST), space["Odd"]())[0]


# What is refused

REFUSED = {
    "a default": "lambda x, y=1: x",
    "a keyword-only parameter": "lambda x, *, y=1: x",
    "arguments in a tuple": "lambda *x: x",
    "arguments in a dict": "lambda x, **k: x",
    "a lambda": "lambda x: (lambda: x)",
    "a comprehension": "lambda x: [y for y in x]",
    "a generator": "lambda x: sum(y for y in x)",
    "a yield": "lambda x: (yield x)",
    "an assignment": "lambda x: (y := x)",
    "locals": "lambda x: locals()",
    "eval": "lambda x: eval('x')",
    "the caller's frame": "lambda x: sys._getframe().f_lineno",
    "a log record": "lambda x: logger.info(x)",
    "a warning": "lambda x: warnings.warn(x)",
    "a def": "def_",
    "a builtin": "len",
    "a class": "int",
    "a method": "'x'.join",
}


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_what_is_not_simple_is_refused(source: str) -> None:
    space = cell(f"def def_(x): return x\nf = {source}\n")
    assert inlined(space["f"], 1) is None


def test_another_number_of_arguments_is_refused() -> None:
    space = cell("f = lambda x: x")
    assert inlined(space["f"], 2) is None
    assert inlined(space["f"], 0) is None
    assert inlined(space["f"], 1) is not None


def test_a_default_given_later_is_refused() -> None:
    fn = cell("f = lambda x: x")["f"]
    assert inlined(fn, 1) is not None
    fn.__defaults__ = (1,)
    assert inlined(fn, 1) is None


def test_a_private_name_and_super_of_a_class_are_refused() -> None:
    space = cell("class A:\n    f = lambda self: self.__x\n    g = lambda self: super().f\n    h = lambda self: self.x")
    assert inlined(space["A"].f, 1) is None
    assert inlined(space["A"].g, 1) is None
    assert inlined(space["A"].h, 1) is not None


def test_without_source_it_is_refused() -> None:
    assert inlined(eval("lambda x: x"), 1) is None


def test_a_source_that_changed_is_refused() -> None:
    for then, now in [
        ("x + 1", "x + 2"),
        ("x + 1", "x +  1"),
        ("x.aa", "x.ab"),
        ("x + a", "x + b"),
        ("'a'", "'b'"),
        ("1", "1.0"),
    ]:
        space = cell(f"f = lambda x: {then}")
        filename = space["f"].__code__.co_filename
        linecache.cache[filename] = (0, None, [f"f = lambda x: {now}\n"], filename)
        assert inlined(space["f"], 1) is None, now


def test_lambdas_of_a_file_on_disk_and_of_a_file_that_changed(tmp_path: Any) -> None:
    path = tmp_path / "mine.py"
    path.write_text("f = lambda x: x + 1\ng = lambda x: x + 2\n")
    space: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), space)
    assert inlined(space["f"], 1) is not None
    path.write_text("# moved\nf = lambda x: x + 1\ng = lambda x: x + 2\n")
    assert inlined(space["g"], 1) is None


def test_lambdas_of_one_line_are_told_apart() -> None:
    space = cell("a, b, c, d = lambda x: x + 1, lambda x: x + 2, lambda x: x + 1, (lambda y: y + 1)")
    columns = [found.body.col_offset for name in "abcd" if (found := inlined(space[name], 1))]
    assert columns == sorted(set(columns))
    assert len(columns) == 4
    assert [pair(space[name]).woven(1) for name in "abcd"] == [2, 3, 2, 2]


def test_equal_lambdas_of_two_cells_keep_their_cells() -> None:
    one, other = cell("f = lambda x: 1 / x")["f"], cell("f = lambda x: 1 / x")["f"]
    assert one.__code__ == other.__code__
    assert_same(pair(one), 0)
    assert_same(pair(other), 0)


def test_the_lines_of_a_magic_do_not_hide_the_lambdas() -> None:
    """`%%sage_submit` cells are kept as they are on the page, and compiled without the magic."""
    page = "%%sage_submit\n%time 1\nif 1:\n    !ls\nf = lambda x: 1 / x\n"
    filename = f"<cell {next(_cells)}>"
    linecache.cache[filename] = (len(page), None, page.splitlines(keepends=True), filename)
    space: dict[str, Any] = {}
    exec(compile("\n\n\n\nf = lambda x: 1 / x\n", filename, "exec", dont_inherit=True), space)
    assert "f = lambda x: 1 / x" in assert_same(pair(space["f"]), 0)[0]


def test_a_wrong_escape_elsewhere_is_not_warned_of_again(recwarn: pytest.WarningsRecorder) -> None:
    space: dict[str, Any] = {}
    source = "f = lambda x: x + '\\n'\nwrong = '\\d'\n"
    with pytest.warns((DeprecationWarning, SyntaxWarning)):
        cell(source, space)
    recwarn.clear()
    assert inlined(space["f"], 1) is not None
    assert not recwarn.list


def test_what_the_compiler_warns_of_is_not_warned_of_again(recwarn: pytest.WarningsRecorder) -> None:
    for body in ("x is 5", "'a'(x)", "(1, 2)(x)", "[1]['a']"):
        with pytest.warns(SyntaxWarning):
            space = cell(f"f = lambda x: {body}")
        recwarn.clear()
        assert inlined(space["f"], 1) is None
        assert not recwarn.list


def test_a_global_that_the_text_uses_itself_is_refused() -> None:
    space = cell("x4 = 1\nf = lambda x: x + x4")
    found = inlined(space["f"], 1)
    assert found is not None
    woven = weave(VALUE.format(args="x0"), LOOP, {"f4": found})
    assert woven.refused == ("f4",)
    assert woven.bind({}, {})([None] * 4 + [space["f"]])(2) == 3


def test_calls_that_cannot_be_replaced_stay_calls() -> None:
    text = """\
def make(f4):
    def run(x0):
        return [f4(x0), f4(x0 + 1), f4(x=x0), *map(f4, [x0])]
    return run
"""
    fn = cell("f = lambda x: x * 2")["f"]
    found = inlined(fn, 1)
    assert found is not None
    assert weave(text, LOOP, {"f4": found}).bind({"f4": fn}, {})(fn)(1) == [2, 4, 2, 2]


def test_functions_of_two_modules_are_not_bound_together() -> None:
    one, other, third = cell("f = lambda x: x")["f"], cell("f = lambda x: x")["f"], cell("f = lambda x: x")["f"]
    also = FunctionType(cell("g = lambda x: x")["g"].__code__, one.__globals__)
    fns = {"f1": other, "f2": one, "f3": third, "f4": also}
    kept = sharing_globals(fns)
    assert list(kept) == ["f2", "f4"]
    assert sharing_globals({}) == {}
    calls = {name: found for name, fn in fns.items() if (found := inlined(fn, 1))}
    with pytest.raises(ValueError, match="f2 is not the function"):
        weave("def make(): pass", LOOP, calls).bind(fns, {})


# Lines and tracebacks


def frames(exc: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(exc.__traceback__))


def failed(made: Pair, *args: Any) -> BaseException:
    try:
        made.woven(*args)
    except Exception as exc:  # noqa: BLE001 - what a lambda raises is what is looked at
        return exc
    raise AssertionError("did not fail")


def test_a_line_says_which_operator_and_where_in_the_cell() -> None:
    made = pair(cell("\n\nf = lambda x: (1 +\n  1 / x)")["f"])
    exc = failed(made, 0)
    assert exc.__traceback__ is not None
    line = frames(exc)[-1].lineno
    assert line == 5 * LINES + 4
    assert made.how.user_line(line) == (4, made.how.calls["f4"].code.co_filename, 4)
    assert made.how.user_line(4) is None


def test_a_lambdas_frame_is_put_back_once() -> None:
    made = pair(cell("def around(k):\n  return lambda x: k / x\nf = around(7)")["f"])
    exc = failed(made, 0)
    assert [frame.name for frame in frames(exc)] == ["failed", "run"]
    as_called(exc, made.how)
    as_called(exc, made.how)
    assert [frame.name for frame in frames(exc)] == ["failed", "run", "<lambda>"]
    assert exc.__traceback__ is not None
    frame = exc.__traceback__.tb_next.tb_next.tb_frame  # type: ignore[union-attr]
    assert frame.f_code.co_qualname == "around.<locals>.<lambda>"
    assert frame.f_code.co_firstlineno == 2
    assert frame.f_locals == {"x": 0, "k": 7}
    assert frame.f_globals is made.woven.__globals__
    assert frame.f_code.co_varnames[: frame.f_code.co_argcount] == ("x",)


def test_a_traceback_of_other_code_is_left_alone() -> None:
    made = pair(cell("f = lambda x: 1 / x")["f"])
    other = pair(cell("f = lambda x: 2 / x")["f"])
    exc = failed(made, 0)
    before = [(frame.name, frame.lineno) for frame in frames(exc)]
    assert with_user_frames(None, other.how) is None
    as_called(exc, other.how)
    assert [(frame.name, frame.lineno) for frame in frames(exc)] == before


def test_frames_of_the_users_functions_stay_behind_the_lambdas() -> None:
    space = cell("def inner(x):\n    return 1 / x\nf = lambda x: [inner(x),\n   inner(x - 1)]")
    made = pair(space["f"])
    assert "line 4, in <lambda>\n    inner(x - 1)]" in assert_same(made, 1)[0]
    assert assert_same(made, 0)[0].count("in inner") == 1


def test_an_exceptions_objects_are_let_go_without_the_collector() -> None:
    class Item:
        pass

    made = pair(cell("f = lambda x: x.wrong")["f"])
    item = Item()
    gone = weakref.ref(item)
    exc = failed(made, item)
    as_called(exc, made.how)
    gc.collect()
    gc.disable()
    try:
        exc.name, exc.obj = None, None  # type: ignore[attr-defined]
        del item, exc
        assert gone() is None
    finally:
        gc.enable()


# Caches


def test_the_same_lambda_and_text_are_compiled_once() -> None:
    fn = cell("f = lambda x: x")["f"]
    assert inlined(fn, 1) is inlined(fn, 1)
    assert pair(fn).how is pair(fn).how


def test_caches_are_bounded_and_lambdas_are_found_from_many_threads() -> None:
    from sage_nb.engine import inline

    fns = [cell(f"f = lambda x: x + {i}")["f"] for i in range(inline._FOUND + 100)]
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.extend(inlined(fn, 1) for fn in fns[::4])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in found
    assert all(inlined(fn, 1) for fn in fns)
    assert len(inline._found) <= inline._FOUND
    assert len(inline._sources) <= inline._SOURCES
