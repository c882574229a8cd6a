"""Fixtures that drive a real JupyterLab and a real Notebook 7 in a real browser."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.lab import BROWSER_ARGS, LabPage, LabServer
from tools.browser import find

SHOTS = Path(__file__).parents[2] / ".build" / "screenshots"
REPORTS = pytest.StashKey[dict[str, pytest.TestReport]]()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find()
    if path is None:
        message = "no Chromium or Chrome starts here; `make test` tries to install one"
        (pytest.fail if os.environ.get("CI", "").lower() in ("1", "true") else pytest.skip)(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """One JupyterLab for all browser tests."""
    server = LabServer(tmp_path_factory.mktemp("lab"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def notebook7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """One Notebook 7 for all browser tests."""
    server = LabServer(tmp_path_factory.mktemp("notebook7"), app="notebook")
    yield server
    server.stop()


@pytest.fixture
def page(lab: LabServer, browser: Browser, request: pytest.FixtureRequest) -> Iterator[LabPage]:
    """A fresh page of JupyterLab, with nothing remembered; a failed test leaves its picture in .build/screenshots."""
    yield from fresh_page(lab, browser, request)


@pytest.fixture
def page7(notebook7: LabServer, browser: Browser, request: pytest.FixtureRequest) -> Iterator[LabPage]:
    """The same of Notebook 7."""
    yield from fresh_page(notebook7, browser, request)


def fresh_page(server: LabServer, browser: Browser, request: pytest.FixtureRequest) -> Iterator[LabPage]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, device_scale_factor=2)
    context.set_default_timeout(20_000)
    one = LabPage(server, context.new_page(), SHOTS)
    yield one
    report = request.node.stash.get(REPORTS, {}).get("call")
    if report is not None and report.failed:
        one.screenshot(f"failed-{request.node.name}")
    for every in (one, *one.others):
        every.page.context.close()
    server.end_kernels()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash.setdefault(REPORTS, {})[report.when] = report
    return report
