"""A TCP proxy whose connections can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

__all__ = ["Proxy"]


class Proxy:
    """Listens on `port`, and connects to port `to` of this machine for everybody who comes."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._swallowed: bytes | None = None
        self.swallowed = 0
        self.held = threading.Event()
        """Set when something is held."""
        self.open = threading.Event()
        self.open.set()
        self._start(self._accept)

    def cut(self) -> int:
        """Cut all connections, wherever they are; how many there were."""
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        return len(ends) // 2

    def swallow(self, request: bytes) -> None:
        """Of the next request that begins like that, have the server's answer, keep it, and cut the connection."""
        self._swallowed = request

    def hold(self) -> None:
        """Keep what comes, until `release()`."""
        self.held.clear()
        self.open.clear()

    def release(self) -> None:
        """Let it go on."""
        self.open.set()

    def close(self) -> None:
        """End."""
        self.release()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, name="proxy", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
            except ConnectionRefusedError:  # the one behind is not there
                near.close()
                continue
            except OSError:
                return
            pair = _Pair(self, near, far)
            with self._lock:
                self._ends |= {near, far}
            self._start(pair.forward)
            self._start(pair.back)

    def ended(self, *ends: socket.socket) -> None:
        """Forget these."""
        with self._lock:
            self._ends -= {*ends}

    def wants(self, data: bytes) -> bool:
        """Whether the answer to this is to be swallowed."""
        if self._swallowed is None or not data.startswith(self._swallowed):
            return False
        self._swallowed = None
        return True


class _Pair:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, near: socket.socket, far: socket.socket) -> None:
        self._proxy = proxy
        self._near = near
        self._far = far
        self._swallows = False
        self._left = 2
        self._lock = threading.Lock()

    def forward(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._near.recv(1 << 16):
                if not self._proxy.open.is_set():
                    self._proxy.held.set()
                    self._proxy.open.wait()
                self._swallows = self._swallows or self._proxy.wants(data)
                self._far.sendall(data)
        self._end()

    def back(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._far.recv(1 << 16):
                if self._swallows:
                    self._proxy.swallowed += 1
                    break
                self._near.sendall(data)
        self._end()

    def _end(self) -> None:
        for end in (self._near, self._far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._proxy.ended(self._near, self._far)
            self._near.close()
            self._far.close()
