"""The magics for servers: `%sage_connect` and `%sage_server`."""

from __future__ import annotations

import sys
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments

from sage_nb.errors import SageError, ServerBusyError, ServerUnreachableError
from sage_nb.notebook.known import Known, address_in
from sage_nb.notebook.magics import arguments, check_output, output_argument
from sage_nb.notebook.words import duration, named_count

__all__ = ["ServerMagics"]


@magics_class
class ServerMagics(Magics):
    """The magics for JobManager servers."""

    shell: Any

    def __init__(self, shell: Any, known: Known) -> None:
        super().__init__(shell)
        self._known = known
        self._ports: list[int] = []
        """Those of the servers that this notebook has started."""

    @magic_arguments()
    @argument("server", nargs="?", metavar="HOST:PORT", help="the server, or a variable with its address")
    @argument("--token-file", metavar="F", help="a file that holds the server's token, and nothing else")
    @argument("--off", action="store_true", help="run in the kernel again what the cells submit")
    @line_magic
    def sage_connect(self, line: str) -> None:
        """Connect this notebook to a JobManager server: `%%sage_submit` runs there.

            %sage_connect HOST:PORT

        `%%sage_submit --local` runs one cell in the kernel all the same,
        `%sage_connect --off` all that follow. Alone, `%sage_connect` says where the
        notebook is connected to.
        """
        args = arguments(self.sage_connect, line)
        if args.off and (args.server or args.token_file):
            raise UsageError("%sage_connect: --off takes nothing else")
        if args.token_file and not args.server:
            raise UsageError("%sage_connect: --token-file is for a server; give HOST:PORT as well")
        try:
            self._connect(args.server, args.token_file, off=args.off)
        except SageError as exc:
            raise UsageError(f"%sage_connect: {exc}") from None

    def _connect(self, word: str | None, token_file: str | None, *, off: bool) -> None:
        known = self._known
        if off:
            was, known.client = known.where, None
            print(f"not connected to {was} any more: %%sage_submit runs in the kernel" if was else _NOWHERE)
        elif word is None and known.client is None:
            print(_NOWHERE)
        else:
            client = known.client if word is None else self._client(word, token_file)
            assert client is not None
            info = client.get_server_info()
            known.client = client
            print(f"connected to {known.where}: {_jobs(info)}")

    def _client(self, word: str, token_file: str | None) -> Any:
        token = None
        if token_file is not None:
            from sage_nb.remote.daemonmain import read_token

            token = read_token(token_file)
        return self._known.client_at(address_in(self.shell.user_ns, word), token)

    @magic_arguments()
    @output_argument("with start, keep the server's address in this variable")
    @argument("--port", type=int, metavar="P", help="19001 unless given; with start, 0 is any that is free")
    @argument(
        "what", nargs="?", default="status", choices=("start", "stop", "status"), help="what to do; say how it is"
    )
    @argument("at", nargs="?", type=int, metavar="PORT", help="the same as --port")
    @line_magic
    def sage_server(self, line: str) -> None:
        """Start a JobManager server on this machine, stop it, or say how it is.

            %sage_server start

        It runs in the background and outlives the kernel. `stop` stops its jobs as
        well, with their cleanup.
        Without a port, `stop` and `status` mean the server that this notebook has
        started last, or else the one on port 19001. Alone, `%sage_server` is
        `%sage_server status`.
        """
        args = arguments(self.sage_server, line)
        check_output("sage_server", args.output)
        if args.at is not None and args.port is not None:
            raise UsageError("%sage_server: give the port once")
        port = args.at if args.port is None else args.port
        try:
            if args.what == "start":
                self._start(port, args.output)
            elif args.output:
                raise UsageError("%sage_server: -o is for start")
            elif args.what == "stop":
                self._stop(self._port_or(port))
            else:
                self._status(self._port_or(port))
        except SageError as exc:
            raise UsageError(f"%sage_server: {exc}") from None

    def _port_or(self, port: int | None) -> int:
        from sage_nb.remote.settings import DEFAULT_PORT

        return port if port is not None else [DEFAULT_PORT, *self._ports][-1]

    def _start(self, port: int | None, output: str | None) -> None:
        from sage_nb.remote.daemon import running, start_background
        from sage_nb.remote.settings import DEFAULT_PORT, Settings

        port = DEFAULT_PORT if port is None else port
        try:
            notice, already = start_background(Settings(port=port)), ""
        except ServerBusyError:
            found = running(port)
            if found is None:
                raise
            notice, already = found, " already"
        self._ports.append(notice.port)
        address = f"{notice.host}:{notice.port}"
        if output:
            self.shell.user_ns[output] = address
        print(f"a JobManager server runs{already} at {address} (process {notice.pid})")

    def _stop(self, port: int) -> None:
        from sage_nb.remote.daemon import stop_background

        notice = stop_background(port, on_wait=_say_waiting)
        self._ports = [one for one in self._ports if one != port]
        print(f"the JobManager server at {notice.host}:{port} has stopped (process {notice.pid})")

    def _status(self, port: int) -> None:
        from sage_nb.remote.daemon import status

        found = status(port)
        if found is None:
            raise ServerUnreachableError(
                f"no JobManager server of yours runs on port {port}; %sage_server start --port {port} starts one"
            )
        print(f"{found['host']}:{port} (process {found['pid']}), up {duration(found['uptime'])}: {_jobs(found)}")


_NOWHERE = "not connected; %sage_connect HOST:PORT has %%sage_submit run on a server"


def _jobs(info: dict[str, Any]) -> str:
    queued = f"{info['queued']:,} queued, " if info["queued"] else ""
    running = f"{named_count(info['running'], 'job')} running"
    return f"sage_nb {info['version']}, {running}, {queued}{info['known']:,} known"


def _say_waiting(seconds: float) -> None:
    if seconds == 2.0:
        print("waiting for its jobs to be cleaned up", file=sys.stderr)
