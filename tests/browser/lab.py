"""A real JupyterLab or Notebook 7, and a page that works in it the way a person does.

`LabServer` is one `jupyter lab` or `jupyter notebook` process with folders of its own. `LabPage` opens a notebook in
it, clicks, waits and reads; what it waits for is something that a person could see, or a file that changed. Jupyter's
own application object (`window.jupyterapp`) is asked only where the page shows nothing reliable: whether a kernel is
connected.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import nbformat
from nbformat import NotebookNode
from playwright.sync_api import ConsoleMessage, Dialog, Locator, Page, Request, expect

__all__ = ["BROWSER_ARGS", "LabPage", "LabServer"]

BROWSER_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    # No question about news, no look for updates, and a file changes on disk only when the test saves it.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "docmanager-extension/plugin": {"autosave": False},
}
LOCAL = {"127.0.0.1", "localhost", ""}


class LabServer:
    """One JupyterLab, or Notebook 7, on a loopback port. Its notebooks are in `root`; its settings are its own."""

    def __init__(self, folder: Path, *, app: Literal["lab", "notebook"] = "lab") -> None:
        self.app = app
        self.root = folder / "root"
        self.root.mkdir()
        self.token = secrets.token_hex(16)
        self._config = folder / "config"
        self.runtime = folder / "runtime"
        self._log = folder / "server.log"
        for name, settings in SETTINGS.items():
            file = self._config / f"lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(settings))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.root,
                env=self._environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.url = self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the server's REST interface; `path` comes after `/api/`."""
        request = urllib.request.Request(
            f"{self.url}api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            text = response.read()
        return json.loads(text) if text else None

    def kernel_of(self, notebook: str) -> str | None:
        """The id of the kernel behind a notebook, or None."""
        sessions = [s for s in self.api("GET", "sessions") if s["path"] == notebook]
        return sessions[0]["kernel"]["id"] if sessions else None

    def end_kernels(self) -> None:
        """Shut down every kernel, as the panel of running kernels does."""
        for session in self.api("GET", "sessions"):
            self.api("DELETE", f"sessions/{session['id']}")

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """Ask the server to end with its kernels; whatever is left of its process group after 10 s is killed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _command(self) -> list[str]:
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": str(free_port()),
            "ServerApp.port_retries": "50",
            "ServerApp.allow_root": "True",
            "ServerApp.open_browser": "False",
            "ServerApp.root_dir": str(self.root),
            "IdentityProvider.token": self.token,
            "LabApp.extension_manager": "readonly",
            "LabApp.news_url": "None",
            "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
            "LabApp.expose_app_in_browser": "True",
            "JupyterNotebookApp.expose_app_in_browser": "True",
        }
        module = {"lab": "jupyterlab", "notebook": "notebook"}[self.app]
        return [sys.executable, "-m", module, *(f"--{name}={value}" for name, value in options.items())]

    def _environment(self, folder: Path) -> dict[str, str]:
        foreign = ("JUPYTER", "PYTHONPATH")
        return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
            "HOME": str(folder),
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_CONFIG_DIR": str(self._config),
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.runtime),
            "JUPYTER_PLATFORM_DIRS": "1",
        }

    def _wait_ready(self, timeout: float = 90) -> str:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"jupyter {self.app} ended with {self._process.returncode}\n{self.log[-4000:]}")
            # The server writes down which port it got in the end, and only then is it asked.
            for file in self.runtime.glob("jpserver-*.json"):
                with contextlib.suppress(OSError, ValueError):
                    self.url = json.loads(file.read_text())["url"]
                    self.api("GET", "status")
                    return self.url
            time.sleep(0.05)
        raise RuntimeError(f"jupyter {self.app} was not ready within {timeout} s\n{self.log[-4000:]}")


class LabPage:
    """One browser page with one notebook in it, in a `workspace` of its own, which notebooks' names begin with. Cells
    are counted from 0, markdown ones too."""

    def __init__(self, lab: LabServer, page: Page, shots: Path, workspace: str | None = None) -> None:
        self.lab = lab
        self.page = page
        self.name = ""
        self.console_errors: list[str] = []
        self.outside: list[str] = []
        """Every address that was asked for beyond this machine; a page that works offline has none."""
        self.others: list[LabPage] = []
        """Pages in browsers of their own, which are closed with this one."""
        self._shots = shots
        self._workspace = workspace or secrets.token_hex(4)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.console_errors.append(str(error)))
        page.on("request", self._on_request)
        page.on("websocket", lambda ws: self._on_address(ws.url))
        page.on("dialog", self._on_dialog)

    @property
    def file(self) -> Path:
        return self.lab.root / self.name

    def open(self, cells: Sequence[str | NotebookNode], name: str = "notebook.ipynb") -> LabPage:
        """Write a notebook of these cells (a str is code) and open it; returns when its kernel answers."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        # One name per page: the server keeps kernels by the notebook's path.
        self.name = f"{self._workspace}-{name}"
        nbformat.write(notebook, self.file)
        return self._go()

    def open_file(self, source: Path) -> LabPage:
        """Open a copy of an existing notebook; returns when its kernel answers."""
        self.name = f"{self._workspace}-{source.name}"
        self.file.write_bytes(source.read_bytes())
        return self._go()

    def second(self) -> LabPage:
        """The same notebook in another browser; returns when the kernel is connected there too."""
        browser = self.page.context.browser
        assert browser is not None
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        context.set_default_timeout(20_000)
        other = LabPage(self.lab, context.new_page(), self._shots)
        other.name = self.name
        self.others.append(other)
        return other._go()

    def open_without_kernel(self, *, as_stranger: bool = False) -> LabPage:
        """Open the saved file again with all kernels ended and none started, as somebody does who only reads.

        The file on disk stays as it is, except for a stranger: then a changed line makes its signature void, and
        JupyterLab shows it as it shows files from elsewhere, untrusted.
        """
        self.page.goto("about:blank")
        self.lab.end_kernels()
        if as_stranger:
            notebook = self.saved()
            notebook.metadata["from"] = secrets.token_hex(4)
            nbformat.write(notebook, self.file)
        # With no kernel to be had, JupyterLab asks which one to take, and "No Kernel" is an answer.
        no_specs = json.dumps({"default": "", "kernelspecs": {}})
        self.page.route(
            "**/api/kernelspecs*", lambda route: route.fulfill(body=no_specs, content_type="application/json")
        )
        self._goto()
        self.page.locator(".jp-Dialog-footer button", has_text="No Kernel").click()
        expect(self.page.locator(".jp-Dialog")).to_have_count(0)
        self.page.unroute("**/api/kernelspecs*")
        return self

    def reload(self) -> LabPage:
        """Reload the page, leaving unsaved changes behind; returns when the kernel is connected again."""
        self.page.reload()
        self._wait_notebook()
        self._wait_kernel()
        return self

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook > .jp-WindowedPanel-outer .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        """The output area of a cell."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def prompts(self) -> list[str]:
        """The code cells' numbers as shown: `[1]:`, `[*]:` while running or waiting, `[ ]:` before."""
        return self.page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()

    def run_all(self, *, wait: bool = True, timeout: float = 60) -> None:
        """Run > Run All Cells; waits for their end unless told otherwise."""
        before = self._executions()
        self.menu("Run", "Run All Cells")
        self._wait_started(before)
        if wait:
            self.wait_done(timeout)

    def run_cell(self, index: int, *, wait: bool = True, timeout: float = 60) -> None:
        """Select a cell and press Ctrl+Enter; waits for its end unless told otherwise."""
        before = self._executions()
        self.cell(index).locator(".jp-InputPrompt").first.click()
        self.page.keyboard.press("Control+Enter")
        self._wait_started(before)
        if wait:
            self.wait_done(timeout)

    def wait_done(self, timeout: float = 60) -> None:
        """Wait until no cell is marked as running or waiting and the kernel is idle."""
        starred = self.page.locator(".jp-InputPrompt", has_text=re.compile(r"\[\*\]"))
        expect(starred).to_have_count(0, timeout=timeout * 1000)
        self._wait_kernel(timeout)

    def interrupt(self) -> None:
        self.menu("Kernel", "Interrupt Kernel")

    def restart_kernel(self) -> None:
        """Kernel > Restart Kernel…, confirmed; returns when the new one answers."""
        self.menu("Kernel", "Restart Kernel…")
        self.page.locator(".jp-Dialog button", has_text="Restart").click()
        expect(self.page.locator(".jp-Dialog")).to_have_count(0)
        self._wait_kernel()

    def menu(self, title: str, item: str) -> None:
        """Choose from the menu bar by the exact words."""
        self.page.locator(f'.lm-MenuBar-itemLabel:text-is("{title}")').click()
        self.page.locator(f'.lm-Menu-itemLabel:text-is("{item}")').click()

    def save(self, timeout: float = 20) -> NotebookNode:
        """Ctrl+S; returns what is on disk once the file has been written."""
        before = self._written()
        self.page.keyboard.press("Control+s")
        deadline = time.monotonic() + timeout
        while self._written() == before or not self.file.stat().st_size:  # Notebook 7 writes in place
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} was not saved within {timeout} s")
            self.page.wait_for_timeout(50)  # lets Playwright's own events through, which time.sleep would hold
        expect(self.page.locator(".jp-mod-dirty")).to_have_count(0)
        return self.saved()

    def saved(self) -> NotebookNode:
        """The notebook on disk."""
        notebook: NotebookNode = nbformat.read(self.file, as_version=4)
        return notebook

    def dark(self, on: bool = True) -> None:
        """Take JupyterLab's dark theme, or the light one."""
        theme = "JupyterLab Dark" if on else "JupyterLab Light"
        self.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        expect(self.page.locator(f"body[data-jp-theme-light={'false' if on else 'true'}]")).to_have_count(1)

    def screenshot(self, name: str, of: Locator | None = None) -> Path:
        """Take a picture of the page or of one element; returns its path."""
        self._shots.mkdir(parents=True, exist_ok=True)
        path = self._shots / f"{name}.png"
        (of or self.page).screenshot(path=path, animations="disabled")
        return path

    def _go(self) -> LabPage:
        self._goto()
        self._wait_kernel()
        return self

    def _goto(self) -> None:
        # A workspace of its own: the default one would open what the last test left.
        where = {"lab": f"lab/workspaces/{self._workspace}/tree", "notebook": "notebooks"}[self.lab.app]
        self.page.goto(f"{self.lab.url}{where}/{self.name}?token={self.lab.token}")
        self._wait_notebook()

    def _wait_notebook(self) -> None:
        self.page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=60_000)
        self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell").first.wait_for(timeout=60_000)

    def _wait_kernel(self, timeout: float = 60) -> None:
        # The page's indicator shows idle before there is a session, and what is run in between gets lost. (No async
        # function here: `wait_for_function` takes its promise for a true value and returns at once.)
        self.page.wait_for_function(
            """() => {
                const context = jupyterapp.shell.currentWidget?.sessionContext;
                const kernel = context?.isReady && context.session?.kernel;
                return kernel && kernel.connectionStatus === "connected" && kernel.status === "idle";
            }""",
            timeout=timeout * 1000,
        )

    def _executions(self) -> str:
        """Something that changes whenever a cell is started."""
        state: str = self.page.evaluate(
            """() => JSON.stringify(jupyterapp.shell.currentWidget.content.widgets.map(
                cell => [cell.model.executionCount ?? null, cell.model.executionState ?? null]))"""
        )
        return state

    def _wait_started(self, before: str) -> None:
        self.page.wait_for_function(
            """before => before !== JSON.stringify(jupyterapp.shell.currentWidget.content.widgets.map(
                cell => [cell.model.executionCount ?? null, cell.model.executionState ?? null]))""",
            arg=before,
            timeout=10_000,
        )

    def _written(self) -> tuple[int, int]:
        status = self.file.stat()
        return status.st_mtime_ns, status.st_ino

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.console_errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _on_request(self, request: Request) -> None:
        self._on_address(request.url)

    def _on_address(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in LOCAL:
            self.outside.append(address)

    def _on_dialog(self, dialog: Dialog) -> None:
        dialog.accept()  # "Leave" where the browser asks about unsaved changes; Playwright would stay


def free_port() -> int:
    """A port that is free now; the server takes the next one should somebody else be faster."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
