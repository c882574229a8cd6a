"""Fixtures for all tests."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernels import Kernel
from tests.leaks import Leaks
from tests.support import until

HERE = Path(__file__).parent
PARTS = ("inside", "outside", "ray")
ALL = os.environ.get("SAGE_NB_TESTS") == "all"
STARTS_RAY = {"test_docs", "test_on_ray", "test_ray_notebook"}
# Tests of these run pipelines in this process, and each must leave it as it was.
CHECKED_FOR_LEAKS = {"engine", "faults", "jobs", "parity", "pipeline"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", choices=PARTS, help="what drives kernels or browsers, what runs on Ray, or the rest")


def pytest_configure() -> None:
    """What a shell starts in the background is given no interrupts, and gives none to what it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Browser tests come last: Playwright keeps an event loop in this thread, and asyncio.run() wants none. Those on
    Ray come before: while it is up, its threads and files come and go, and nobody else may look for leaks."""
    part = config.getoption("--part")
    left = [item for item in items if part_of(item) != part] if part is not None else []
    if part is not None and not ALL:  # a test that is asked for by name runs whatever it takes
        left += [item for item in items if item.get_closest_marker("long")] + extras(items)
    if left:
        config.hook.pytest_deselected(items=left)
        gone = set(left)
        items[:] = [item for item in items if item not in gone]
    items.sort(key=lambda item: (is_in(item, "browser"), is_on_ray(item), is_on_server(item)))


def extras(items: list[pytest.Item]) -> list[pytest.Item]:
    """Four in five of what is the same on every backend, and takes seconds on Ray."""
    same = [item for item in items if item.path.stem == "test_contract" and is_on_ray(item)]
    return [item for n, item in enumerate(same) if n % 5]


def part_of(item: pytest.Item) -> str:
    """What it is a part of. Ray does not start where others take the processor."""
    if is_on_ray(item) or item.path.stem in STARTS_RAY:
        return "ray"
    outside = any(is_in(item, folder) for folder in ("browser", "jupyter", "notebook")) or item.path.parent == HERE
    return "outside" if outside else "inside"


def is_in(item: pytest.Item, folder: str) -> bool:
    return folder in item.path.relative_to(HERE).parts


def is_on_ray(item: pytest.Item) -> bool:
    return is_in(item, "onray") or "ray" in words_of(item)


def is_on_server(item: pytest.Item) -> bool:
    return is_in(item, "remote") or "server" in words_of(item)


def words_of(item: pytest.Item) -> list[str]:
    """What its parameters are called."""
    call = getattr(item, "callspec", None)
    return [] if call is None else re.split("[- ]", call.id)


@pytest.fixture
def leaks() -> Iterator[Leaks]:
    """Fails the test when threads or open files that it made outlive it by 2 s; `leaks.check()` looks in between."""
    before = Leaks()
    yield before
    before.check()


@pytest.fixture(autouse=True)
def _leaves_nothing_running(request: pytest.FixtureRequest) -> None:
    if request.path.relative_to(HERE).parts[0] in CHECKED_FOR_LEAKS:
        on_ray, on_server = is_on_ray(request.node), is_on_server(request.node)
        request.getfixturevalue("no_actors" if on_ray else "nothing_on_the_server" if on_server else "leaks")


@pytest.fixture
def no_actors(private_ray: None) -> Iterator[None]:
    """Fails the test when actors, or threads of jobs, outlive it. Ray's own threads and files stay while it is up."""
    from tests.onray.support import living_actors, our_threads

    yield
    until(lambda: not living_actors())
    until(lambda: not our_threads())


@pytest.fixture
def nothing_on_the_server(one_server: None) -> Iterator[None]:
    """Fails the test when jobs of the tests' own server outlive it. Its threads and files stay while it is up."""
    yield
    from tests.remote.support import running_jobs

    until(lambda: not running_jobs())


@pytest.fixture(scope="module")
def one_server() -> Iterator[None]:
    """Ends the tests' own server with the module's last test."""
    yield
    from tests.remote.support import end_shared_server

    end_shared_server()


@pytest.fixture(scope="module")
def private_ray() -> Iterator[None]:
    """Ends the private Ray with the module's last test, so that it opens nothing while other tests look."""
    yield
    from tests.onray.support import end_private_ray

    end_private_ray()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Callable[..., Kernel]]:
    """Starts a kernel at each call, with `Kernel`'s keywords; all are ended after the test."""
    started: list[Kernel] = []

    def start(**options: Any) -> Kernel:
        folder = tmp_path / f"kernel{len(started)}"
        folder.mkdir()
        started.append(Kernel(folder, **options))
        return started[-1]

    yield start
    for one in started:
        one.shutdown()
