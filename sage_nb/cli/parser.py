"""What can be said on the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sage_nb import __version__

__all__ = ["parse"]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and what may have been meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            from sage_nb.pipeline.spelling import did_you_mean

            what = "command" if isinstance(action, argparse._SubParsersAction) else action.metavar or action.dest
            hint = did_you_mean(str(value), map(str, action.choices)).rstrip("?")
            raise argparse.ArgumentError(None, f"there is no {what} {value!r}{hint}")

    def options(self) -> list[str]:
        """Its long options."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command and its options. Ends the program with 2 where they make no sense, and with 0 after `--help`."""
    top = _parser()
    args, unknown = top.parse_known_args(arguments)
    if not unknown and not hasattr(args, "call"):
        top.print_help()
        sys.exit(0)
    if unknown:
        from sage_nb.pipeline.spelling import nearest

        parser: Parser = getattr(args, "parser", top)
        near = nearest(unknown[0].partition("=")[0], parser.options())
        hint = f"; did you mean {near}" if near else ""
        kind = "option" if unknown[0].startswith("-") else "use for"
        parser.error(f"there is no {kind} {unknown[0]}{hint}")
    return _with_own(args) if args.call.startswith("scripts:") else args


def _parser() -> Parser:
    top = Parser(
        prog="sage-nb",
        description="Run data pipelines: JobManager servers, their jobs, and scripts.",
        epilog="Exit codes: 0; 1 if it could not be done; 2 if it makes no sense; 3 if status finds no server.",
    )
    top.add_argument("--version", action="version", version=f"sage-nb {__version__}")
    groups = top.add_subparsers(metavar="COMMAND")
    _servers(groups.add_parser("jobmanager", help="start, stop, restart a JobManager server; its status"))
    _jobs(groups.add_parser("job", help="list, show, watch, stop, ... the jobs of a server"))
    _run(groups.add_parser("run", help="run a script, and wait for the jobs that it submits"))
    return top


def _adder(parser: Parser) -> Callable[..., Parser]:
    """What adds commands to a group: name, what it calls, help, and parts that several have."""
    commands: argparse._SubParsersAction[Parser] = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, call: str, help: str, *parts: Callable[[Parser], None], **more: Any) -> Parser:
        one = commands.add_parser(name, help=help, description=help[:1].upper() + help[1:] + ".", **more)
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        for part in parts:
            part(one)
        one.set_defaults(call=call, parser=one)
        return one

    return add


# ------------------------------------------------------------------------------------------------------------ servers


def _port(parser: Parser) -> None:
    parser.add_argument("--port", type=int, metavar="P", help="the server's port, 19001 unless given")


def _json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="say it as JSON")


def _servers(parser: Parser) -> None:
    parser.description = "A JobManager server on this machine, one for each port."
    add = _adder(parser)
    _start(add("start", "servers:start", "start a server in the background, and say where it listens"))
    stop = add("stop", "servers:stop", "stop a server, and its jobs, with their cleanup", _port)
    stop.add_argument("--force", action="store_true", help="kill it; its runners stop their jobs by themselves")
    add("restart", "servers:restart", "stop a server, and start it with the settings it was started with", _port)
    add("status", "servers:status", "what a server does; exit code 3 where none runs", _where, _json)


def _start(one: Parser) -> None:
    add = one.add_argument
    add("--host", metavar="H", help="the address to listen on, 127.0.0.1 unless given")
    add("--port", type=int, metavar="P", help="the port, 19001 unless given; 0 for any that is free")
    add("--foreground", action="store_true", help="stay in this terminal; Ctrl-C stops it")
    add("--max-running", type=int, metavar="N", help="jobs that run at a time, twice the cores unless given")
    add("--warm", type=int, metavar="N", help="runners that are kept ready, 1 unless given")
    add("--backend", metavar="B", help="for jobs that name none: threads (usual), processes or ray")
    add("--ray-address", metavar="A", help="of the Ray cluster, such as head:6379 or auto")
    add("--state", metavar="DIR", help="folder for history, jobs and log, one by the port unless given")
    add("--token-file", metavar="F", help="take the token from a file; else from SAGE_NB_TOKEN, else a new one")
    add("--no-token", action="store_true", help="let everybody on this machine in")
    add("--certfile", metavar="F", help="speak TLS with this certificate")
    add("--keyfile", metavar="F", help="its key, where that is in a file of its own")
    add("--payload-limit", type=float, metavar="MB", help="size of one pipeline, 1024 unless given")
    add("--spool-limit", type=float, metavar="MB", help="results of one job that are kept, 1024 unless given")
    add("--memory-limit", type=float, metavar="MB", help="address space of one runner, unlimited unless given")
    add("--keep-jobs", type=int, metavar="N", help="ended jobs that stay in the history, 1000 unless given")
    add("--keep-size", type=float, metavar="MB", help="of their results, logs and pipelines, 10240 unless given")
    add("--keep-days", type=float, metavar="D", help="days for which they stay, 7 unless given")
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    add("--log-level", type=str.upper, choices=levels, default="INFO", metavar="LEVEL", help="INFO unless given")


# --------------------------------------------------------------------------------------------------------------- jobs


def _where(parser: Parser) -> None:
    parser.add_argument("--host", metavar="H", help="the server: HOST, HOST:PORT or https://HOST:PORT")
    _port(parser)
    parser.add_argument("--token-file", metavar="F", help="the server's token; else SAGE_NB_TOKEN, or found by itself")
    parser.add_argument("--ca", metavar="F", help="certificates of authorities to trust, for TLS")


def _one_job(parser: Parser) -> None:
    parser.add_argument("job", metavar="JOB", help="its number, its name, its id, or the beginning of its id")


def _lines(parser: Parser) -> None:
    parser.add_argument("-n", type=int, default=100, metavar="N", help="the last N lines, 100 unless given")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines, to the end of the job")


def _jobs(parser: Parser) -> None:
    parser.description = (
        "The jobs of a JobManager server. JOB is a job's number, its name (the newest of that name), its id, or the "
        "beginning of its id."
    )
    add = _adder(parser)
    listing = add("list", "jobs:list_jobs", "list the jobs, the newest last", _where, _json)
    listing.add_argument("-n", type=int, metavar="N", help="the last N only")
    add("show", "jobs:show", "show a job: operators, services, results, log", _one_job, _where, _json)
    add("status", "jobs:status", "a job's state, and when it came to be so", _one_job, _where, _json)
    stop = add("stop", "jobs:stop", "stop a job, and wait for its cleanup", _one_job, _where, _json)
    stop.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="force it after S seconds, 10 if not given"
    )
    add("pause", "jobs:pause", "hold a job before its next item", _one_job, _where, _json)
    add("continue", "jobs:go_on", "let a job that was paused go on", _one_job, _where, _json)
    delete = add("delete", "jobs:delete", "forget a job that has ended", _one_job, _where, _json)
    delete.add_argument("--force", action="store_true", help="stop it first, where it runs")
    add("logs", "jobs:logs", "the last lines of a job's log", _one_job, _lines, _where, _json)
    add("watch", "jobs:watch", "show a job live, to its end; Ctrl-C leaves it alone", _one_job, _where, _json)


# ------------------------------------------------------------------------------------------------------------ scripts


def _run(one: Parser) -> None:
    one.usage = "sage-nb run [--remote HOST:PORT] [--timeout S] SCRIPT [ARG ...]"
    one.formatter_class = argparse.RawDescriptionHelpFormatter
    one.description = """\
Run a Python script as `python SCRIPT` would, and wait, with progress, for the
jobs that it has submitted and not waited for. Ctrl-C stops them. The exit code
is 1 where the script, or a job that nobody waited for, failed.

Options may also stand right after the script. What follows, or follows `--`,
is the script's own."""
    _own_options(one)
    one.add_argument("script", metavar="SCRIPT", help="the file")
    rest = one.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARG", help="the script's own arguments")
    rest.required = False  # argparse would name it where the script is missing
    one.set_defaults(call="scripts:run", parser=one)


def _own_options(one: Parser, **unless_given: Any) -> None:
    add = one.add_argument
    where = "run the jobs of its LocalEnvironments on that JobManager server"
    add("--remote", metavar="HOST:PORT", help=where, **unless_given)
    add("--token-file", metavar="F", help="that server's token; else SAGE_NB_TOKEN, or found by itself", **unless_given)
    limit = "stop each job after S seconds, where it names no timeout itself"
    add("--timeout", type=float, metavar="S", help=limit, **unless_given)
    add("--debug", action="store_true", help="show the traceback of an error", **unless_given)


def _with_own(args: argparse.Namespace) -> argparse.Namespace:
    """With the options of ours that stand right after the script."""
    after = Parser(prog="sage-nb run", add_help=False)
    _own_options(after, default=argparse.SUPPRESS)
    rest, at = args.arguments, 0
    while at < len(rest) and rest[at].partition("=")[0] in after.options():
        at += 1 if "=" in rest[at] or rest[at] == "--debug" else 2
    after.parse_args(rest[:at], namespace=args)
    args.arguments = rest[at + 1 :] if rest[at : at + 1] == ["--"] else rest[at:]
    return args
