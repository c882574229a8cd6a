"""The quickstart as a Voilà dashboard, which shows its jobs live to people who have no notebook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.browser.conftest import SHOTS
from tests.browser.lab import LOCAL, free_port
from tests.support import until

QUICKSTART = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"


@pytest.fixture
def voila(tmp_path: Path) -> Iterator[str]:
    """A Voilà server with the quickstart; its address."""
    (tmp_path / "quickstart.ipynb").write_bytes(QUICKSTART.read_bytes())
    port = free_port()
    options = {
        "Voila.ip": "127.0.0.1",
        "port": str(port),
        "VoilaConfiguration.show_tracebacks": "True",
        "Voila.root_dir": str(tmp_path),
    }
    folders = {"HOME": tmp_path, "IPYTHONDIR": tmp_path / "ipython", "JUPYTER_RUNTIME_DIR": tmp_path / "runtime"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "voila", "quickstart.ipynb", "--no-browser"]
            + [f"--{name}={value}" for name, value in options.items()],
            cwd=tmp_path,
            env=os.environ | {name: str(folder) for name, folder in folders.items()},
            stdout=log,
            stderr=log,
        )
        try:
            until(lambda: f"127.0.0.1:{port}" in (tmp_path / "log").read_text() or process.poll() is not None, 60)
            assert process.poll() is None, (tmp_path / "log").read_text()
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait(20)


def test_the_quickstart_runs_live_and_completes(voila: str, browser: Browser) -> None:
    """Voilà asks elsewhere for fonts and MathJax; it gets nothing, and the view needs none of it."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    try:
        context.route(re.compile(".*"), only_here)
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(voila, timeout=120_000)
        views = page.locator(".sage-job")
        expect(views.first).to_be_visible(timeout=60_000)
        done = page.get_by_text("Completed").first
        expect(done).to_be_visible(timeout=90_000)
        expect(page.get_by_text(re.compile("336,776 items")).first).to_be_visible()
        page.screenshot(path=SHOTS / "voila.png", animations="disabled", full_page=True)
        assert not [url for url in asked if "sage" in url and urlsplit(url).hostname not in LOCAL]
    finally:
        context.close()


def only_here(route: Route) -> None:
    """Let through what stays on this machine."""
    if urlsplit(route.request.url).hostname in LOCAL:
        route.continue_()
    else:
        route.abort()
