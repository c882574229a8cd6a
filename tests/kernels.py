"""Real Jupyter kernels for tests, driven the way a front end drives them.

A `Kernel` sends requests and sorts every message that comes back by the request it belongs to. Nothing here sleeps:
every wait reads the kernel's channels until what it waits for is there, or raises `TimeoutError` with what was seen.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.manager import KernelManager

__all__ = ["Kernel", "Reply"]

Bundle = dict[str, Any]


@dataclass
class Reply:
    """Everything that came back for one request, in order."""

    msg_id: str
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """(type, content) of each message on the output channel."""
    content: dict[str, Any] | None = None
    """The reply itself, once it is there."""
    idle: bool = False
    seconds: float | None = None
    """From sending to having both the reply and the idle status."""

    @property
    def done(self) -> bool:
        return self.content is not None and self.idle

    @property
    def status(self) -> str | None:
        """`ok`, `error`, `aborted`, or None while it runs."""
        return self.content["status"] if self.content else None

    def of(self, *types: str) -> list[dict[str, Any]]:
        """The contents of all messages of these types."""
        return [content for type_, content in self.messages if type_ in types]

    @property
    def stdout(self) -> str:
        return "".join(c["text"] for c in self.of("stream") if c["name"] == "stdout")

    @property
    def stderr(self) -> str:
        return "".join(c["text"] for c in self.of("stream") if c["name"] == "stderr")

    @property
    def displays(self) -> list[Bundle]:
        """The data of each `display`; updates are in `updates`."""
        return [c["data"] for c in self.of("display_data")]

    @property
    def updates(self) -> list[Bundle]:
        """The data of each `update_display` that was sent with this request as its parent."""
        return [c["data"] for c in self.of("update_display_data")]

    @property
    def result(self) -> str | None:
        """The text of the cell's value."""
        results = self.of("execute_result")
        return results[-1]["data"]["text/plain"] if results else None

    @property
    def error(self) -> tuple[str, str] | None:
        """The name and the message of the exception that ended the cell."""
        errors = self.of("error")
        return (errors[-1]["ename"], errors[-1]["evalue"]) if errors else None

    @property
    def traceback(self) -> str:
        return "\n".join(line for c in self.of("error") for line in c["traceback"])


class Kernel:
    """One ipykernel process in `folder`, with the clients' side of its channels.

    `allow_stdin` is what a front end says about the person before it: True is JupyterLab, False is nbclient.
    """

    def __init__(self, folder: Path, *, env: dict[str, str] | None = None, allow_stdin: bool = True) -> None:
        self.folder = folder
        self.allow_stdin = allow_stdin
        self.replies: dict[str, Reply] = {}
        self.displays: dict[str, list[Bundle]] = defaultdict(list)
        """By display id: the data of its display and of every update since, whichever request was their parent."""
        self.strays: list[tuple[str, dict[str, Any]]] = []
        """Output messages whose parent is no request of ours."""
        self._sent: dict[str, float] = {}
        self._log = (folder / "kernel.log").open("wb")  # a restart hands it to the next process
        self._manager = KernelManager(kernel_name="python3", connection_file=str(folder / "connection.json"))
        self._manager.start_kernel(
            cwd=str(folder), env=self._environment(env or {}), stdout=self._log, stderr=self._log
        )
        self._client = self._manager.blocking_client()
        self._client.start_channels(hb=False)
        self._poller = zmq.Poller()
        for channel in (self._client.shell_channel, self._client.iopub_channel, self._client.control_channel):
            self._poller.register(channel.socket, zmq.POLLIN)
        try:
            self._wait_ready()
        except BaseException:
            self.shutdown()
            raise

    def run(
        self,
        code: str,
        timeout: float = 60,
        *,
        cell_id: str | None = None,
        allow_stdin: bool | None = None,
    ) -> Reply:
        """Run a cell to its end."""
        return self.wait(self.start(code, cell_id=cell_id, allow_stdin=allow_stdin), timeout)

    def start(self, code: str, *, cell_id: str | None = None, allow_stdin: bool | None = None) -> Reply:
        """Send a cell and return at once; the reply fills while `wait` or `until` read."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": self.allow_stdin if allow_stdin is None else allow_stdin,
            "stop_on_error": True,
        }
        # What JupyterLab sends beside the code.
        metadata = {"cellId": cell_id, "deletedCells": [], "recordTiming": False} if cell_id else {}
        return self._send("execute_request", content, metadata)

    def send_comm(self, comm_id: str, data: dict[str, Any]) -> Reply:
        """Send what a widget in the page would, over the main shell; done when its callbacks have run."""
        reply = self._send("comm_msg", {"comm_id": comm_id, "data": data})
        reply.content = {"status": "ok"}  # comm messages are not answered
        return reply

    def wait(self, reply: Reply, timeout: float = 60) -> Reply:
        """Read until the request has its reply and the kernel has said idle for it."""
        self.until(lambda: reply.done, timeout)
        return reply

    def until(self, condition: Callable[[], Any], timeout: float = 30) -> None:
        """Read messages until `condition()` is true; it is asked again after each message and ten times a second."""
        deadline = time.monotonic() + timeout
        while not condition():
            self._read(min(0.1, deadline - time.monotonic()))
            if time.monotonic() > deadline and not condition():
                raise TimeoutError(f"not so within {timeout} s\n{self._situation()}")

    def interrupt(self) -> None:
        """What the Interrupt button does."""
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """What the Restart button does: the kernel is asked to end, killed after 5 s, and a new one is started."""
        self._manager.restart_kernel(now=False)
        self._wait_ready()

    def quit(self) -> None:
        """What shutting the kernel down in JupyterLab does: it is asked to end, and killed after 5 s."""
        self._manager.shutdown_kernel(now=False)

    def kill(self) -> None:
        """SIGKILL, as the kernel that takes too much memory gets it."""
        os.kill(self.pid, signal.SIGKILL)

    def shutdown(self) -> None:
        """End the kernel and whatever else is in its process group, at once and for certain."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, signal.SIGKILL)
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()
        self._log.close()

    @property
    def pid(self) -> int:
        pid = getattr(self._manager.provisioner, "pid", None)
        assert isinstance(pid, int), "the kernel does not run"
        return pid

    @property
    def alive(self) -> bool:
        return self._manager.is_alive()

    @property
    def log(self) -> str:
        """What the kernel's process itself has written, outside of all cells."""
        return Path(self._log.name).read_text(errors="replace")

    def _environment(self, extra: dict[str, str]) -> dict[str, str]:
        own = {
            "IPYTHONDIR": str(self.folder / ".ipython"),
            "JUPYTER_CONFIG_DIR": str(self.folder / ".jupyter"),
            "JUPYTER_RUNTIME_DIR": str(self.folder / ".runtime"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        return os.environ | own | extra

    def _wait_ready(self, timeout: float = 60) -> None:
        # A subscription that is not there yet loses messages without a sign: ask until both channels answer.
        self._group = os.getpgid(self.pid)
        deadline = time.monotonic() + timeout
        while True:
            reply = self._send("kernel_info_request", {})
            with contextlib.suppress(TimeoutError):
                self.until(lambda: reply.done, timeout=1)  # noqa: B023  # asked before the next round
                return
            if not self.alive or time.monotonic() > deadline:
                raise RuntimeError(f"the kernel did not come up\n{self._situation()}")

    def _send(self, msg_type: str, content: dict[str, Any], metadata: dict[str, Any] | None = None) -> Reply:
        message = self._client.session.msg(msg_type, content, metadata=metadata)
        reply = self.replies[message["header"]["msg_id"]] = Reply(message["header"]["msg_id"])
        self._sent[reply.msg_id] = time.monotonic()
        self._client.shell_channel.send(message)
        return reply

    def _read(self, timeout: float) -> None:
        for socket, _ in self._poller.poll(int(max(0.0, timeout) * 1000)):
            _, message = self._client.session.recv(socket, mode=zmq.NOBLOCK)
            if message is not None:
                self._take(message, is_output=socket is self._client.iopub_channel.socket)

    def _take(self, message: dict[str, Any], *, is_output: bool) -> None:
        type_, content = message["msg_type"], message["content"]
        reply = self.replies.get(message["parent_header"].get("msg_id", ""))
        if not is_output:
            if reply and type_.endswith("_reply"):
                reply.content = content
        elif reply is None:
            self.strays.append((type_, content))
        else:
            reply.messages.append((type_, content))
            if type_ == "status" and content["execution_state"] == "idle":
                reply.idle = True
        if type_ in ("display_data", "update_display_data", "execute_result"):
            display_id = (content.get("transient") or {}).get("display_id")
            if display_id:
                self.displays[display_id].append(content["data"])
        if reply and reply.done and reply.seconds is None:
            reply.seconds = time.monotonic() - self._sent[reply.msg_id]

    def _situation(self) -> str:
        open_requests = [reply for reply in self.replies.values() if not reply.done]
        seen = "\n".join(f"  {r.msg_id}: {r.status=} {r.idle=} {r.messages[-5:]}" for r in open_requests[-3:])
        return f"kernel alive: {self.alive}\nopen requests:\n{seen}\nkernel.log:\n{self.log[-2000:]}"
