"""The magics: `%%sage_submit`, `%sage_jobs`, `%sage_job`, `%sage_stop`, `%sage_logs`."""

from __future__ import annotations

import argparse
import keyword
import weakref
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import MagicArgumentParser, argument, magic_arguments

from sage_nb.engine.dispatcher import ENDED
from sage_nb.engine.log import LogLine
from sage_nb.errors import SageError
from sage_nb.jobs.environment import LocalEnvironment
from sage_nb.jobs.info import JobInfo
from sage_nb.jobs.job import INTERRUPT_GRACE, Job
from sage_nb.jobs.manager import JobManager, default_manager
from sage_nb.notebook.cells import run_body
from sage_nb.notebook.headless import wait_at_cell_end
from sage_nb.notebook.kernel import Cell, current_cell
from sage_nb.notebook.listing import jobs_bundle
from sage_nb.notebook.view import JobView, show_job, static_bundle
from sage_nb.pipeline.spelling import nearest

__all__ = ["SageMagics"]


def _arguments(magic: Any, line: str) -> argparse.Namespace:
    """Parse a magic's line. Raises `UsageError`, in one line, with the nearest option where one is misspelt."""
    parser: MagicArgumentParser = magic.parser
    options = [opt for action in parser._actions for opt in action.option_strings]
    for word in line.split():
        option = word.split("=")[0]
        if option.startswith("--") and option not in options:
            near = nearest(option, options)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(o for o in options if o[1] == '-')}"
            raise UsageError(f"%{magic.__name__}: there is no option {option}; {hint}")
    try:
        args: argparse.Namespace = parser.parse_argstring(line)
    except UsageError as exc:
        raise UsageError(f"%{magic.__name__}: {exc}; %{magic.__name__}? shows the options") from None
    return args


def _submit_options(fn: Any) -> Any:
    for decorate in (
        argument("--wait", action="store_true", help="return when the job and its cleanup are done"),
        argument("--timeout", type=float, metavar="S", help="stop the job after S seconds; it fails with JobTimeout"),
        argument(
            "--cleanup",
            choices=("always", "on_success", "never"),
            default="always",
            help="when to stop services; those that are kept run until %%sage_stop",
        ),
        argument("--backend", metavar="B", default="threads", help="how to run it: threads, processes or ray"),
        argument("-o", "--output", metavar="VAR", help="keep the Job in this variable, also where it fails"),
    ):
        fn = decorate(fn)
    return fn


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A job that a cell has submitted. While it runs, the JobManager holds it; then whoever wants its results."""

    run: str | None
    job: weakref.ref[Job]
    view: JobView | None


@magics_class
class SageMagics(Magics):
    """The magics of sage_nb."""

    shell: Any

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.raw_cell = ""
        self._by_cell: dict[str, list[_Submitted]] = {}

    @property
    def manager(self) -> JobManager:
        return default_manager()

    @magic_arguments()
    @_submit_options
    @argument("name", nargs="?", metavar="NAME", help="name of the job; of a line magic, the environment to submit")
    @no_var_expand
    @line_cell_magic
    def sage_submit(self, line: str, cell: str | None = None) -> None:
        """Submit a pipeline and show it live.

        As a cell magic, the cell declares the pipeline on `env`, a fresh environment:

            %%sage_submit squares
            env.from_batch(range(10)).map(lambda x: x * x).show("squares")

        The cell returns at once and the view below it goes on. Running the cell again first stops and cleans its
        job. Where nobody watches (nbclient, papermill, a terminal) the cell waits, and fails where the job fails.

        As a line magic, `%sage_submit ENV` submits the environment in the variable ENV.
        """
        __tracebackhide__ = True
        args = _arguments(self.sage_submit, line)
        if args.output is not None and (not args.output.isidentifier() or keyword.iskeyword(args.output)):
            raise UsageError(f"%sage_submit: -o takes the name of a variable, not {args.output!r}")
        here = current_cell(self.shell)
        self._replace(here)
        try:
            env = self._named_environment(args.name) if cell is None else self._declare(args, cell)
            job = env._submit(args.wait, args.timeout, args.cleanup)
        except SageError as exc:
            raise UsageError(self._one_line(exc)) from None
        try:
            self._follow(job, args, here)
        except KeyboardInterrupt:
            job.stop(INTERRUPT_GRACE)
            raise

    def _follow(self, job: Job, args: argparse.Namespace, here: Cell) -> None:
        """Show the job, and wait for it where the cell has to."""
        __tracebackhide__ = True
        if args.output:
            self.shell.user_ns[args.output] = job
        view = show_job(job, self.shell, live=True) if here.watched else None
        if here.id is not None:
            self._by_cell.setdefault(here.id, []).append(_Submitted(here.run, weakref.ref(job), view))
        if not here.watched:
            wait_at_cell_end(job, self.shell, here)
        elif args.wait:
            job.wait()

    def _declare(self, args: argparse.Namespace, body: str) -> LocalEnvironment:
        __tracebackhide__ = True
        env = LocalEnvironment(args.name or "pipeline", backend=args.backend)
        self.shell.user_ns["env"] = env
        run_body(self.shell, self.raw_cell, body, "%%sage_submit")
        bound = self.shell.user_ns.get("env")
        if bound is not env and isinstance(bound, LocalEnvironment) and not env._graph.operators:
            raise UsageError(
                "%%sage_submit: the cell binds env to another environment; declare on the env it is given, "
                "or submit yours with %sage_submit NAME"
            )
        return env

    def _named_environment(self, name: str | None) -> LocalEnvironment:
        if name is None:
            raise UsageError("%sage_submit: name the environment to submit, or use %%sage_submit with a cell below it")
        env = self.shell.user_ns.get(name)
        if not isinstance(env, LocalEnvironment):
            known = [key for key, value in self.shell.user_ns.items() if isinstance(value, LocalEnvironment)]
            what = "is not an environment" if name in self.shell.user_ns else "is not defined"
            near = nearest(name, known)
            hint = f"; did you mean {near}?" if near else ""
            raise UsageError(f"%sage_submit: {name} {what}{hint}")
        return env

    def _replace(self, here: Cell) -> None:
        """Stop and clean what earlier runs of this cell started."""
        if here.id is None:
            return
        submitted = self._by_cell.pop(here.id, [])
        earlier = [one for one in submitted if one.run != here.run]
        self._by_cell[here.id] = [one for one in submitted if one.run == here.run]
        jobs = [job for one in earlier if (job := one.job()) is not None]
        for one in earlier:
            if one.view is not None:
                one.view.close()
        for job in jobs:
            job.request_stop()
        for job in jobs:
            job.stop()

    def _one_line(self, exc: SageError) -> str:
        from sage_nb.engine.failure import describe_site
        from sage_nb.pipeline.graph import Site

        tb, at = exc.__traceback__, None
        cells = getattr(self.shell.compile, "_filename_map", {})
        while tb is not None:
            if tb.tb_frame.f_code.co_filename in cells and tb.tb_frame.f_code.co_name == "<module>":
                at = Site(tb.tb_frame.f_code.co_filename, tb.tb_lineno)
            tb = tb.tb_next
        message = str(exc)
        return f"{message} ({describe_site(at)})" if at is not None and at.lineno > 1 else message

    @magic_arguments()
    @line_magic
    def sage_jobs(self, line: str) -> None:
        """List the jobs of this kernel: those that run, and those that have ended."""
        _arguments(self.sage_jobs, line)
        self.shell.display_pub.publish(data=jobs_bundle(list(self.manager.jobs.values())))

    @magic_arguments()
    @argument("job", metavar="ID", help="a variable, an id, or the beginning of one")
    @line_magic
    def sage_job(self, line: str) -> None:
        """Show a job: live where it runs, as it ended otherwise."""
        info = self._find(_arguments(self.sage_job, line).job)
        job = self.manager.get_job(info.uuid)
        if job is not None:
            show_job(job, self.shell, live=current_cell(self.shell).watched)
        elif info.snapshot is not None:
            self.shell.display_pub.publish(data=static_bundle(info.snapshot), metadata={"sage_nb": {"job": info.uuid}})

    @magic_arguments()
    @argument("--all", action="store_true", help="stop every job of this kernel")
    @argument("job", nargs="?", metavar="ID", help="a variable, an id, or the beginning of one")
    @line_magic
    def sage_stop(self, line: str) -> None:
        """Stop a job, and wait until it is cleaned up."""
        args = _arguments(self.sage_stop, line)
        if args.all == (args.job is not None):
            raise UsageError("%sage_stop: takes the id of a job, or --all")
        if args.all:
            stopped = self.manager.stop_all()
            print(f"{len(stopped)} jobs stopped" if len(stopped) != 1 else "1 job stopped")
            return
        info = self._find(args.job)
        already = "had already " if info.status in ENDED else ""
        status = self.manager.stop_job(info.uuid)
        said = {"completed": "completed", "failed": "failed"}.get(status["status"], "stopped")
        print(f"{status['name']} {status['uuid'][:8]} {already}{said}")

    @magic_arguments()
    @argument("-n", type=int, default=100, metavar="N", help="show the last N lines, 100 unless given")
    @argument("job", metavar="ID", help="a variable, an id, or the beginning of one")
    @line_magic
    def sage_logs(self, line: str) -> None:
        """Show the last lines of a job's log."""
        args = _arguments(self.sage_logs, line)
        if args.n < 1:
            raise UsageError(f"%sage_logs: -n is a number of lines, 1 or more, not {args.n}")
        info = self._find(args.job)
        job = self.manager.get_job(info.uuid)
        if job is not None:
            lines = [str(entry) for entry in job.logs()]
        else:
            kept = info.snapshot.logs if info.snapshot is not None else ()
            lines = [str(LogLine(e.time, e.level, e.source, e.text)) for e in kept]
        print("\n".join(lines[-args.n :]) if lines else f"{info.name} {info.uuid[:8]} has logged nothing")

    def _find(self, word: str) -> JobInfo:
        """The record of the job in the variable `word`, or with that id or beginning of one. Raises `UsageError`."""
        value = self.shell.user_ns.get(word)
        try:
            return self.manager.find(value if isinstance(value, Job) else word)
        except SageError as exc:
            raise UsageError(str(exc)) from None
