"""What travels to another process, how it comes back, and what is told of what cannot."""

from __future__ import annotations

import dataclasses
import importlib
import io
import pickle
import py_compile
import socket
import sys
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sage_nb import RemoteError, ShippingError
from sage_nb.engine.shipping import dumps, dumps_items, loads, loads_items
from sage_nb.engine.travelled import dumps_exception, loads_exception, remote_traceback
from sage_nb.engine.unshippable import captured_containers
from sage_nb.engine.usermodules import sources
from tests.engine.workers import Worker, run_main


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as started:
        yield started


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    """Writes modules, `{"folder/name.py": text}`, to a folder on `sys.path`; all is forgotten at the end."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__spec__", "")):
            del sys.modules[name]


# -------------------------------------------------------------------------------------------- the notebook's own things

CLASSES = """
import abc, collections, dataclasses, enum, functools, typing
import msgspec

@dataclasses.dataclass
class Plain:
    x: int
    tags: list = dataclasses.field(default_factory=list)

@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Slotted:
    x: int
    y: str = "y"

class Named(typing.NamedTuple):
    x: int
    y: str = "y"
    def up(self): return self._replace(x=self.x + 1)

Pair = collections.namedtuple("Pair", "left right")

class Level(enum.Enum):
    LOW = (1, 2)
    HIGH = (3, 4)
    def __init__(self, x, y): self.total = x + y

class Flags(enum.Flag):
    READ = 1
    WRITE = 2

class Word(str, enum.Enum):
    A = "a"

class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

class Square(Shape):
    def __init__(self, side):
        super().__init__()
        self.side = side
    def area(self): return self.side ** 2

T = typing.TypeVar("T")

class Box(typing.Generic[T]):
    def __init__(self, value: T): self.value = value

class Registered:
    found = {}
    def __init_subclass__(cls, *, kind, **kw):
        super().__init_subclass__(**kw)
        Registered.found[kind] = cls

class First(Registered, kind="first"): pass

class Struct(msgspec.Struct, frozen=True, kw_only=True):
    x: int
    tags: list[int] = []
    y: str = msgspec.field(default="y", name="why")

class Meta(type):
    def __new__(meta, name, bases, names, made=None):
        return super().__new__(meta, name, bases, {**names, "made": made})

class Made(metaclass=Meta, made=1):
    @functools.cached_property
    def cached(self): return 5
    @property
    def prop(self): return 6
    @classmethod
    def own(cls): return cls
    @staticmethod
    def static(): return 7

class Slots:
    __slots__ = ("a", "__b")
    def __init__(self): self.a, self.__b = 1, 2
    def both(self): return self.a, self.__b

@functools.lru_cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)

class Outer:
    class Inner:
        def outer(self): return Outer()

def made():
    return [
        Plain(1, [2]), Slotted(1), Named(1).up(), Pair(1, 2), Level.LOW, Flags.READ | Flags.WRITE, Word.A, Square(2),
        Box(1), First(), Struct(x=1), Made(), Slots(), Outer.Inner(), Outer.Inner().outer(),
    ]

def used():
    return [
        dataclasses.asdict(Plain(1)), Slotted(1) < Slotted(2), Named(1).up().x, Level((1, 2)) is Level.LOW,
        Level.HIGH.total, Word.A == "a", Square(3).area(), isinstance(Square(1), Shape), sorted(Registered.found),
        Struct(x=1, y="z").y, msgspec.json.encode(Struct(x=1)), Made.made, Made().cached, Made().prop,
        Made.own() is Made, Made.static(), Slots().both(), fib(10), type(Outer.Inner().outer()) is Outer,
        Box[int](3).value, Made.__qualname__, Outer.Inner.__qualname__,
    ]
"""


def test_instances_of_a_notebooks_classes_come_back_as_just_that(tmp_path: Path) -> None:
    """Of every kind of class; and all work in the worker as they do here."""
    check = """
with Worker() as worker:
    for back in (worker(made), worker(made)):
        for there, here in zip(back, made(), strict=True):
            assert type(there) is type(here), (there, here)
    assert back[:7] == made()[:7]
    assert worker(used) == used(), (worker(used), used())
    assert worker(lambda items: [type(one).__name__ for one in items], made())[:2] == ["Plain", "Slotted"]
    assert worker(lambda items: [isinstance(items[0], Plain), items[4] is Level.LOW], made()) == [True, True]
"""
    run_main(tmp_path, CLASSES + check)


def test_a_class_that_only_data_brings_is_the_same_in_every_batch(tmp_path: Path) -> None:
    code = """
from sage_nb.engine.shipping import dumps_items, loads_items
class Point:
    def __init__(self, x): self.x = x
seen = []
def remember(stream):
    from sage_nb.engine.shipping import loads_items
    items = loads_items(stream)
    seen.append(type(items[0]))
    return items, len(set(seen)), items[0].x
with Worker() as worker:
    for n in range(3):
        items, kinds, x = worker(remember, [bytes(one) for one in dumps_items([Point(n)])])
        assert (type(items[0]) is Point, kinds, x) == (True, 1, n)
    worker(lambda: Point)
    first, second = dumps_items([Point(1)]), dumps_items([Point(1)], worker.known)
    assert len(second[0]) < len(first[0]) / 2
    old = Point
    class Point:
        pass
    assert type(loads_items(dumps_items([old(1)]))[0]) is old
"""
    run_main(tmp_path, code)


def test_functions_of_a_notebook_share_their_globals_in_the_worker(tmp_path: Path) -> None:
    code = """
import threading
lock = threading.Lock()
unused = lock
def fill():
    import gc, collections
    pairs = [collections.namedtuple("Pair", "a b")(n, 2) for n in range(3)]
    return pairs
count = 0
table = {"a": 1}
def bump():
    global count
    count += 1
    return count
def read(): return count, table
def both(): return bump(), bump(), read()
def pair():
    kept = [0]
    total = 0
    def add(n):
        nonlocal total
        total += n
        kept.append(n)
        return total
    def get(): return total, kept
    return add, get
with Worker() as worker:
    assert worker(both) == (1, 2, (2, {"a": 1}))
    assert worker(read) == (2, {"a": 1})
    assert (count, read()) == (0, (0, {"a": 1}))
    add, get = pair()
    assert worker(lambda: (add(2), add(3), get())) == (2, 5, (5, [0, 2, 3]))
    recursive = lambda n: 1 if n == 0 else n * recursive(n - 1)
    assert worker(recursive, 5) == 120
    made = worker(lambda: (lambda x, y=2, *, z=3: x + y + z))
    assert made(1) == 6
    assert worker(lambda: __name__) == "__main__"
    assert worker(fill) == fill()
"""
    run_main(tmp_path, code)


def test_the_same_code_object_with_other_names_is_no_mix_up(tmp_path: Path) -> None:
    code = """
names = {"x": 1}
exec("def f(): return x", names)
others = {"x": 2}
exec("def f(): return x", others)
import xml.etree.ElementTree
import xml
def parse(text): return xml.etree.ElementTree.fromstring(text).tag
with Worker() as worker:
    assert worker(lambda f, g: (f(), g()), names["f"], others["f"]) == (1, 2)
    assert worker(parse, "<a/>") == "a"
"""
    run_main(tmp_path, code)


def test_a_traceback_shows_the_lines_of_a_cell(tmp_path: Path) -> None:
    code = """
import linecache
from sage_nb.engine.travelled import remote_traceback
source = "def wrong(x):\\n    return x / 0  # here\\n"
linecache.cache["<cell 1>"] = (len(source), None, source.splitlines(True), "<cell 1>")
exec(compile(source, "<cell 1>", "exec"))
with Worker() as worker:
    try:
        worker(wrong, 1)
    except ZeroDivisionError as exc:
        assert "return x / 0  # here" in remote_traceback(exc), remote_traceback(exc)
"""
    run_main(tmp_path, code)


def test_classes_made_in_a_function_keep_their_identity(worker: Worker) -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    assert worker(lambda: Local(1)) == Local(1)
    assert worker(lambda one: (type(one) is Local, one.x), Local(2)) == (True, 2)


def test_rare_types_travel_too(worker: Worker) -> None:
    import types
    import weakref

    class Thing:
        pass

    thing = Thing()
    found = worker(lambda one, ref: (isinstance(one, types.FunctionType), ref() is not None), len, weakref.ref(thing))
    assert found == (False, False)
    assert worker(lambda ref, text: text.getvalue(), weakref.ref(thing), io.StringIO("kept")) == "kept"
    view = types.MappingProxyType({"a": 1})
    assert worker(lambda: (view["a"], {"b": 2}.keys() | view.keys())) == (1, {"a", "b"})


# ------------------------------------------------------------------------------------------------- the user's modules


def test_modules_travel_as_source_wherever_their_files_are(
    package: Callable[[dict[str, str]], None], tmp_path: Path
) -> None:
    """Packages whole, with relative imports; namespace packages; and modules that are imported late."""
    package(
        {
            "shop/__init__.py": "from .goods import Item\nfrom . import tools\n",
            "shop/goods.py": "class Item:\n    def __init__(self, n): self.n = n\n",
            "shop/tools.py": "from .deep.down import double\nSEEN = []\n",
            "shop/deep/__init__.py": "",
            "shop/deep/down.py": "def double(x):\n    SEEN = 1\n    return 2 * x\n",
            "shop/late.py": "def late(): return 'late'\n",
            "spaced/one.py": "import shop\nimport alone\ndef get(): return shop.Item(alone.N)\n",
            "alone.py": "import numpy\nN = 3\ndef fail():\n    raise KeyError('alone')  # here\n",
            "lazy.py": "N = 4\n",
        }
    )
    import spaced.one  # type: ignore[import-not-found]

    shop, alone = sys.modules["shop"], sys.modules["alone"]

    def use() -> Any:
        import lazy  # type: ignore[import-not-found]
        from shop.late import late  # type: ignore[import-not-found]

        return shop.Item(2), shop.tools.double(4), late(), lazy.N, spaced.one.get()

    buffers = dumps((use, alone.fail))
    tmp_path.rename(tmp_path.parent / "gone")
    try:
        with Worker() as worker:
            found = worker(call_shipped, [bytes(one) for one in buffers])
            assert (type(found[0]), found[0].n, *found[1:4]) == (shop.Item, 2, 8, "late", 4)
            assert (type(found[4]), found[4].n) == (shop.Item, 3)
            with pytest.raises(KeyError) as caught:
                worker(fail_shipped, [bytes(one) for one in buffers])
            assert "raise KeyError('alone')  # here" in remote_traceback(caught.value)
    finally:
        (tmp_path.parent / "gone").rename(tmp_path)


def test_all_imported_modules_of_the_users_travel_and_what_these_import(
    package: Callable[[dict[str, str]], None],
) -> None:
    """But nothing of the installed packages, nor of sage_nb."""
    package(
        {
            "plugin.py": "def f():\n    import numpy, later as other\n    from afterwards.deep import x\n",
            "later.py": "import nowhere_at_all\n",
            "afterwards/deep.py": "x = 1\n",
            "afterwards/.venv/bad.py": "x = 1\n",
            "reached_only.py": "x = 1\n",
            "unrelated.py": "x = 1\n",
        }
    )
    importlib.import_module("plugin")
    found = sources({"reached_only", "numpy.linalg", "os"})
    assert {"plugin", "later", "afterwards", "afterwards.deep", "reached_only", __name__} <= set(found)
    assert not {"unrelated", "numpy", "os", "sage_nb", "nowhere_at_all", "__main__", "pytest"} & set(found)
    assert not [name for name in found if "venv" in name or "numpy" in name]


def call_shipped(buffers: list[bytes]) -> Any:
    """In the worker: call the first of two functions."""
    return loads(buffers)[0]()


def fail_shipped(buffers: list[bytes]) -> Any:
    """In the worker: call the second."""
    return loads(buffers)[1]()


def test_a_module_without_source_is_refused_by_name(package: Callable[[dict[str, str]], None], tmp_path: Path) -> None:
    package({"sealed.py": "def f(): return 1\n"})
    py_compile.compile(str(tmp_path / "sealed.py"), cfile=str(tmp_path / "sealed.pyc"))
    (tmp_path / "sealed.py").unlink()
    sealed = importlib.import_module("sealed")
    with pytest.raises(ShippingError, match=r"the module sealed \(.*sealed.pyc\) is a module without source"):
        dumps(lambda: sealed.f())


def test_this_process_is_not_changed_by_what_it_sends(package: Callable[[dict[str, str]], None]) -> None:
    package({"mine.py": "def f(): return 1\n"})
    mine = importlib.import_module("mine")
    finders = list(sys.meta_path)
    assert loads(dumps(mine.f)) is mine.f
    assert sys.meta_path == finders


# --------------------------------------------------------------------------------------------------- what cannot travel


class Holder:
    """Holds something."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing


def uses(thing: Any) -> Callable[[Any], Any]:
    return lambda x: (thing, x)


@pytest.mark.parametrize(
    ("make", "kind", "advice"),
    [
        (threading.Lock, "a _thread.lock", "open()"),
        (threading.RLock, "a _thread.RLock", "register a service"),
        (lambda: (n for n in range(3)), "a generator", "the function that makes it"),
        (Path(__file__).open, "an _io.TextIOWrapper", "open it in"),
        (socket.socket, "a socket.socket", "register a service"),
        (threading.local, "a _thread._local", "open()"),
        (lambda: sys._getframe(), "a frame", "open()"),
        (threading.Event, "a threading.Event", "open()"),
    ],
    ids=["lock", "rlock", "generator", "file", "socket", "thread-local", "frame", "event"],
)
def test_what_cannot_travel_is_named(
    request: pytest.FixtureRequest, make: Callable[[], Any], kind: str, advice: str
) -> None:
    """Which operator, which variable, of which type, and what to do."""
    thing = make()
    if hasattr(thing, "close"):
        request.addfinalizer(thing.close)
    function = uses([1, {"deep": Holder(thing)}])
    with pytest.raises(ShippingError) as caught:
        dumps([len, function], parts={"operator 'a' (map)": len, "operator 'b' (map)": function})
    text = str(caught.value)
    assert text.startswith(
        "operator 'b' (map) cannot run in another process: attribute 'thing' of ['deep'] of item 1 of "
    )
    assert f"the variable 'thing' that <lambda> uses is {kind}" in text
    assert advice in text


def test_a_global_that_cannot_travel_is_named(tmp_path: Path) -> None:
    code = """
import threading
from sage_nb import ShippingError
from sage_nb.engine.shipping import dumps
lock = threading.Lock()
def inner(x):
    with lock: return x
def outer(x): return inner(x)
class Op:
    def execute(self, x): return inner(x)
for one in (outer, Op):
    try:
        dumps(one, parts={"operator 'o' (map)": one})
    except ShippingError as exc:
        assert "the global variable 'lock' that inner uses" in str(exc), exc
        assert "a _thread.lock" in str(exc), exc
    else:
        raise AssertionError("sent")
"""
    run_main(tmp_path, code)


def test_an_item_that_cannot_travel_is_named() -> None:
    with pytest.raises(ShippingError, match=r"attribute 'thing' of item 1 is a _thread.lock"):
        dumps_items([1, Holder(threading.Lock())])


taken: list[int] = []


def fills(container: Any) -> dict[str, Any]:
    """Sinks that fill `container`, by name."""

    class Sink:
        def execute(self, item: Any) -> None:
            container.append(item)

    def item_set(item: Any) -> None:
        container[item] = 1

    def through(item: Any) -> None:
        item_set(item)

    return {
        "lambda": lambda item: container.append(item),
        "item": item_set,
        "through": through,
        "partial": partial(lambda into, item: into.append(item), container),
        "bound": container.append,
        "class": Sink,
        "reads": lambda item: print(container[0], item),
    }


def test_containers_that_a_function_fills_are_told() -> None:
    found = {name: captured_containers(sink) for name, sink in fills([]).items()}
    assert found == {
        "lambda": ["container"], "item": ["container"], "through": ["container"], "partial": ["a list"],
        "bound": ["a list"], "class": [], "reads": [],
    }  # fmt: skip
    assert captured_containers(deque().append) == ["a deque"]
    assert captured_containers(print) == []


def test_the_notebooks_name_of_a_container_is_told(tmp_path: Path) -> None:
    code = """
from sage_nb.engine.unshippable import captured_containers
taken, seen = [], set()
assert captured_containers(taken.append) == ["taken"]
def sink(item): seen.add(item)
assert captured_containers(sink) == ["seen"]
assert captured_containers(lambda item: sink(item)) == ["seen"]
"""
    run_main(tmp_path, code)


# ----------------------------------------------------------------------------------------------------------------- data


def test_the_memory_of_an_array_is_not_copied() -> None:
    array = np.arange(1_000_000.0)
    stream, memory = dumps_items([array, "x"])
    assert len(stream) < 1000
    assert np.shares_memory(np.frombuffer(memory), array)
    back = loads_items([stream, bytearray(memory)])
    assert back[1] == "x"
    assert np.array_equal(back[0], array)
    back[0][0] = 5


def test_many_small_arrays_are_one_buffer() -> None:
    arrays = [np.arange(n) for n in range(500)]
    buffers = dumps_items(arrays)
    assert len(buffers) == 1
    assert all(np.array_equal(a, b) for a, b in zip(loads_items(buffers), arrays, strict=True))


def test_arrays_in_code_are_not_copied_either(worker: Worker) -> None:
    array = np.arange(100_000.0)

    class Rare:
        view = {"a": 1}.keys()  # dill's way, so that the array is met twice

    buffers = dumps((lambda: array.sum(), Rare))
    assert len(buffers) == 3
    assert np.shares_memory(np.frombuffer(buffers[2]), array)
    assert worker(lambda: (array * 2, Rare.view | {"b"}))[0][3] == 6.0


def test_ordinary_data_goes_through_pickle_as_it_is() -> None:
    items = [(1, "a", 2.5, None, {"k": [1]})] * 10
    assert dumps_items(items) == [pickle.dumps(items, 5)]
    assert loads_items(dumps_items(["__main__", 1])) == ["__main__", 1]


def test_functions_travel_as_data(worker: Worker) -> None:
    assert loads_items(dumps_items([lambda x: x + 1]))[0](1) == 2
    assert worker(lambda: [lambda x: x + 2])[0](1) == 3


# ----------------------------------------------------------------------------------------------------------- exceptions


class Coded(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{why} ({code})")
        self.code = code


class Unreadable(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


def there_and_back(exc: BaseException) -> BaseException:
    return loads_exception([bytes(one) for one in dumps_exception(exc)])


def test_an_exception_comes_back_as_its_own_type() -> None:
    """With arguments, attributes, notes and cause, and without its __init__ being run again."""
    try:
        try:
            raise KeyError("missing")
        except KeyError as cause:
            exc = Coded(7, "why")
            exc.add_note("a note")
            raise exc from cause
    except Coded as caught:
        back = there_and_back(caught)
    assert type(back) is Coded
    assert (str(back), back.args, back.code, back.__notes__) == ("why (7)", ("why (7)",), 7, ["a note"])
    assert (type(back.__cause__), back.__cause__.args if back.__cause__ else ()) == (KeyError, ("missing",))
    assert back.__suppress_context__
    assert "raise exc from cause" in remote_traceback(back)
    assert remote_traceback(there_and_back(back)) == remote_traceback(back)
    assert remote_traceback(ValueError()) == ""


@pytest.mark.parametrize(
    "exc",
    [
        FileNotFoundError(2, "No such file", "name.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        StopIteration(3),
        SystemExit(2),
        KeyboardInterrupt(),
        ImportError("no", name="mod", path="p"),
        Coded(1, "x"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_exceptions_keep_what_they_know(exc: BaseException) -> None:
    back = there_and_back(exc)
    assert type(back) is type(exc)
    assert (str(back), back.args) == (str(exc), exc.args)
    for name in ("errno", "filename", "object", "value", "code", "name", "path"):
        assert getattr(back, name, None) == getattr(exc, name, None)


def test_a_group_of_exceptions_keeps_its_parts() -> None:
    group = ExceptionGroup("two", [Coded(1, "x"), ExceptionGroup("inner", [ValueError("v")])])
    group.exceptions[0].add_note("noted")
    back = there_and_back(group)
    assert isinstance(back, ExceptionGroup)
    assert (back.message, type(back.exceptions[0])) == ("two", Coded)
    assert back.exceptions[0].__notes__ == ["noted"]
    assert isinstance(back.exceptions[1], ExceptionGroup)
    assert back.exceptions[1].exceptions[0].args == ("v",)


def test_what_of_an_exception_cannot_travel_is_left_out_or_told_as_text() -> None:
    exc = ValueError("text")
    exc.kept, exc.lock = 1, threading.Lock()  # type: ignore[attr-defined]
    back = there_and_back(exc)
    assert (type(back), vars(back)["kept"], hasattr(back, "lock")) == (ValueError, 1, False)
    back = there_and_back(ValueError("text", threading.Lock()))
    assert isinstance(back, RemoteError)
    assert back.type_name == "ValueError"
    assert "text" in back.text
    assert str(back).startswith("ValueError: ('text', <unlocked")
    assert isinstance(there_and_back(back), RemoteError)
    assert isinstance(there_and_back(Unreadable("x")), Unreadable)


def test_a_circle_of_causes_ends() -> None:
    exc = ValueError("a")
    cause = KeyError("b")
    exc.__cause__, cause.__cause__ = cause, exc
    assert isinstance(there_and_back(exc).__cause__, KeyError)


def test_a_notebooks_exception_is_caught_by_its_own_type(tmp_path: Path) -> None:
    code = """
class Mine(Exception):
    def __init__(self, code, why): super().__init__(why); self.code = code
def fail(): raise Mine(3, "why")
with Worker() as worker:
    try: worker(fail)
    except Mine as exc: assert (exc.code, str(exc)) == (3, "why")
    else: raise AssertionError
"""
    run_main(tmp_path, code)
