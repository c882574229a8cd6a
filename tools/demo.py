"""Runs a notebook from the terminal and shows what its cells show, while they show it.

`python -m tools.demo [NOTEBOOK]` (the quickstart, where none is named) prints each cell's title, its output as it comes
and the live view of its job: in place on a terminal, as one line at most every two seconds elsewhere. At the end it
prints once more what the cells tagged `demo-summary` show, or else the last job's view and the last result. The
executed notebook goes to .build/. A cell tagged `raises-exception` has to raise; any other that does ends the run with
exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "notebooks" / "01_quickstart.ipynb"
STREAMS = ROOT / "notebooks" / "02_streams.ipynb"
BUILD = ROOT / ".build"
CELL_TIMEOUT = 600
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """Lines that stay, and below them one block of text that is drawn over again."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._redraws = out.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self._redraws and "NO_COLOR" not in os.environ
        self._drawn = 0
        self._next_line = 0.0

    def say(self, text: str = "", style: str = "") -> None:
        """Print lines that stay; `style` is an ANSI attribute ("1" is bold), for terminals only."""
        self.clear()
        if not self._colours:
            text = ANSI.sub("", text)
        print(f"\x1b[{style}m{text}\x1b[0m" if style and self._colours else text, file=self._out, flush=True)

    def live(self, text: str) -> None:
        """Show the newest state of something that runs."""
        text = ANSI.sub("", text)
        if self._redraws:
            columns, rows = shutil.get_terminal_size()
            # A line that wraps, or a block that scrolls, could not be drawn over again.
            lines = [line[: columns - 1] for line in text.splitlines()][: max(1, rows - 2)]
            self.clear()
            self._out.write("".join(f"{line}\n" for line in lines))
            self._out.flush()
            self._drawn = len(lines)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + 2
            self.say(f"    {headline(text)}")

    def clear(self) -> None:
        """Take the live block away."""
        if self._drawn:
            self._out.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0


class Demo(NotebookClient):
    """Executes a notebook and hands everything that arrives to a screen."""

    def __init__(self, notebook: NotebookNode, screen: Screen, folder: Path, sockets: Path) -> None:
        super().__init__(
            notebook,
            kernel_name="python3",
            timeout=CELL_TIMEOUT,
            store_widget_state=False,
            on_notebook_start=self._end_on_signals,
            resources={"metadata": {"path": str(folder)}},
        )
        self._screen = screen
        self._sockets = sockets
        self._code_cells = [i for i, cell in enumerate(notebook.cells) if is_code(cell)]
        self.stopped = False
        self.last_live: str | None = None
        self.last_result: str | None = None

    def create_kernel_manager(self) -> KernelManager:
        """A kernel with its sockets in a private folder; TCP ports would be open to everybody on this machine."""
        manager = super().create_kernel_manager()
        manager.transport = "ipc"
        manager.connection_file = str(self._sockets / "kernel.json")
        return manager

    async def async_execute_cell(self, cell: NotebookNode, cell_index: int, *args: Any, **options: Any) -> NotebookNode:
        if cell_index not in self._code_cells:
            executed: NotebookNode = await super().async_execute_cell(cell, cell_index, *args, **options)
            return executed
        number = self._code_cells.index(cell_index) + 1
        self._screen.say()
        self._screen.say(f"[{number}/{len(self._code_cells)}] {title(self.nb.cells, cell_index)}", "1")
        self._live: dict[str, str] = {}
        started = time.monotonic()
        try:
            executed = await super().async_execute_cell(cell, cell_index, *args, **options)
        finally:
            # The last state of each view, in a line; the whole of it is in the summary and in the notebook.
            for text in self._live.values():
                self._screen.say(f"    {headline(text)}")
        self._screen.say(f"    done in {time.monotonic() - started:.1f} s", "2")
        if expected_to_raise(cell) and not any(output.output_type == "error" for output in executed.outputs):
            raise MissingError(title(self.nb.cells, cell_index))
        return executed

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        self._show(msg["msg_type"], msg["content"], expected_to_raise(cell))
        output: NotebookNode | None = super().process_message(msg, cell, cell_index)
        return output

    def _end_on_signals(self, notebook: NotebookNode) -> None:
        # nbclient's own handlers end the kernel twice, and the second time fails; a cancelled run ends it once.
        task = asyncio.current_task()
        assert task is not None

        def end() -> None:
            self.stopped = True  # nbclient reports a cancelled run as a dead kernel
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end)

    def _show(self, msg_type: str, content: dict[str, Any], expected: bool) -> None:
        if msg_type == "stream":
            self._screen.say(indent(content["text"]))
        elif msg_type == "error" and expected:
            error = f"{content['ename']}: {content['evalue']}"
            self._screen.say(indent(f"{error}\n(this error is part of the demonstration)"), "33")
        elif text := content.get("data", {}).get("text/plain"):
            display_id = (content.get("transient") or {}).get("display_id")
            if display_id:
                self._live[display_id] = self.last_live = text
                self._screen.live(text)
            else:
                self.last_result = text
                self._screen.say(indent(text))

    def summary(self) -> Iterator[str]:
        """What the reader came for: the outputs of the tagged cells, or else the last view and the last result."""
        tagged = [cell for cell in self.nb.cells if "demo-summary" in cell.metadata.get("tags", ())]
        if tagged:
            for output in (output for cell in tagged for output in cell.outputs):
                text = output.get("text") or output.get("data", {}).get("text/plain")
                if text:
                    yield text.rstrip()
        else:
            yield from (text.rstrip() for text in (self.last_live, self.last_result) if text)


class MissingError(Exception):
    """A cell that is there to show an error did not raise one."""

    def __init__(self, cell: str) -> None:
        super().__init__(f"the cell “{cell}” is tagged raises-exception, and nothing was raised")


def title(cells: list[NotebookNode], index: int) -> str:
    """A name for a code cell: the heading right above it, or else its first line."""
    above = cells[index - 1] if index else None
    if above is not None and above.cell_type == "markdown":
        lines = [line for line in above.source.splitlines() if line.startswith("#")][-1:]
    else:
        lines = []
    name: str = (lines or cells[index].source.strip().splitlines())[0]
    return name.strip().lstrip("# ")


def is_code(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def expected_to_raise(cell: NotebookNode) -> bool:
    return "raises-exception" in cell.metadata.get("tags", ())


def headline(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip("\n").split("\n"))


def run(source: Path, target: Path, screen: Screen, scratch: Path) -> int:
    demo = Demo(nbformat.read(source, as_version=4), screen, source.parent.resolve(), scratch)
    screen.say(f"Running {shown(source)} in a kernel of its own", "1")
    started = time.monotonic()
    failure = ""
    # What the kernel's process itself says is of interest only if it dies.
    log = scratch / "kernel.log"
    try:
        with log.open("wb") as file:
            asyncio.run(demo.async_execute(stderr=file))
    except CellExecutionError as error:
        failure = f"{error.traceback}\n\nerror: a cell raised {error.ename}: {error.evalue}"
    except (MissingError, TimeoutError) as error:
        failure = f"error: {error}"
    except (DeadKernelError, asyncio.CancelledError):
        failure = "stopped" if demo.stopped else f"{log.read_text(errors='replace')}\nerror: the kernel died"
    finally:
        screen.clear()
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(demo.nb, target)
    if failure:
        screen.say(f"\n{failure}", "31")
        screen.say(f"What ran so far is in {shown(target)}")
        return 130 if demo.stopped else 1
    for text in demo.summary():
        screen.say(f"\n{text}")
    screen.say(f"\nDone in {time.monotonic() - started:.1f} s. The executed notebook is {shown(target)}.")
    screen.say("Open it live in JupyterLab: make lab", "1")
    if source.resolve() == QUICKSTART:
        screen.say(f"Then run the second one: make demo ARGS={shown(STREAMS)}")
    return 0


def shown(path: Path) -> str:
    """The path as a reader of the terminal would type it."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make demo", description="Run a notebook and show its progress.")
    parser.add_argument("notebook", nargs="?", type=Path, default=QUICKSTART)
    source: Path = parser.parse_args(arguments).notebook
    target = BUILD / source.name
    if source.resolve() == target.resolve():
        parser.error(f"{shown(target)} is where the result goes; name the notebook it was made from")
    if not source.is_file():
        parser.error(f"there is no notebook {shown(source)}")
    with tempfile.TemporaryDirectory(prefix="demo-") as scratch:
        return run(source, target, Screen(), Path(scratch))


if __name__ == "__main__":
    sys.exit(main())
