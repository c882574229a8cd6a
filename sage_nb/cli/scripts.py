"""`sage-nb run`: a script whose jobs are waited for, here or on a server."""

from __future__ import annotations

import argparse
import io
import sys
import threading
import traceback
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from sage_nb.cli.screen import Screen, width
from sage_nb.engine.stages import Plan
from sage_nb.errors import SageError
from sage_nb.jobs.environment import LocalEnvironment
from sage_nb.jobs.job import INTERRUPT_GRACE, Job
from sage_nb.jobs.manager import default_manager
from sage_nb.jobs.places import Place, use_place
from sage_nb.notebook.text import render_error, render_line, render_text
from sage_nb.notebook.words import named_count, plain

__all__ = ["run"]

_TURN = 0.2
INTERRUPTED = 130


def run(args: argparse.Namespace) -> int:
    """Run a script; 1 where it, or a job of it that nobody waited for, failed; else what the script ends with."""
    if args.timeout is not None and not args.timeout > 0:
        raise SageError(f"run: --timeout is a number of seconds above 0, not {args.timeout:g}")
    script = Path(args.script)
    code = _compiled(script)
    jobs = _Jobs(_server(args), args.timeout)
    try:
        with use_place(jobs):
            ended = _run_as_main(code, script, args.arguments)
            if not ended:
                _wait_for(jobs)
            return ended or _say_failures(jobs)
    except KeyboardInterrupt:
        return _interrupted(jobs)
    except BaseException as exc:  # noqa: BLE001 - the script's own
        _explain(exc, jobs, script, debug=args.debug)
        return 1
    finally:
        jobs.stop()


class _Jobs:
    """The place that starts the script's jobs: a server's, or this process's. It remembers those that run, and those
    that have failed."""

    def __init__(self, server: Place | None, timeout: float | None) -> None:
        self._server = server
        self._timeout = timeout
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self.changed = threading.Event()

    @property
    def jobmanager(self) -> Any:
        return default_manager() if self._server is None else self._server.jobmanager

    def start(self, env: LocalEnvironment, plan: Plan, **options: Any) -> Job:
        options["timeout"] = options["timeout"] or self._timeout
        if self._server is None:
            job = env._start(plan, manager=default_manager(), **options)
        else:
            job = self._server.start(env, plan, **options)
        with self._lock:
            self._jobs.append(job)
        job._listen(self._heard)
        self._heard(job)
        return job

    def _heard(self, job: Job) -> None:
        self.changed.set()
        with self._lock:
            if job._dispatcher.clean.is_set() and job._dispatcher.error is None and job in self._jobs:
                self._jobs.remove(job)

    def all(self) -> list[Job]:
        """Those that run or have failed, the oldest first."""
        with self._lock:
            return list(self._jobs)

    def running(self) -> list[Job]:
        return [job for job in self.all() if not job._dispatcher.done.is_set()]

    def stop(self) -> list[Job]:
        """Stop all, the services that jobs have kept too; those that ran."""
        ran = self.running()
        left = [job for job in self.all() if not job._dispatcher.clean.is_set()]
        for job in left:
            job.request_stop(INTERRUPT_GRACE)
        for job in left:
            job.stop(INTERRUPT_GRACE)
        return ran


def _server(args: argparse.Namespace) -> Place | None:
    """The server that the jobs are to run on. Raises where it does not answer: the script is not even begun."""
    if args.remote is None:
        return None
    from sage_nb.remote.daemonmain import read_token
    from sage_nb.remote.redirect import Redirect

    found = Redirect(args.remote, token=read_token(args.token_file) if args.token_file else None)
    found.jobmanager.get_server_info()
    return found


def _compiled(script: Path) -> CodeType:
    try:
        with io.open_code(str(script.absolute())) as file:
            return compile(file.read(), str(script), "exec", dont_inherit=True)
    except OSError as exc:
        raise SageError(f"the script {script} cannot be read: {exc.strerror or exc}") from exc
    except SyntaxError as exc:
        said = "".join(traceback.format_exception_only(exc)).rstrip()
        raise SageError(f"the script {script} is not Python:\n{said}") from exc


def _run_as_main(code: CodeType, script: Path, arguments: list[str]) -> int:
    """Run the script as Python would, and return the exit code that it asks for.

    `runpy` would take `__main__` away again at the script's end, while its jobs still need it.
    """
    module = ModuleType("__main__")
    module.__dict__.update(__file__=str(script), __builtins__=__builtins__)
    sys.modules["__main__"] = module
    sys.argv[:] = [str(script), *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = str(script.resolve().parent)
    try:
        exec(code, module.__dict__)
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return exc.code or 0
        print(exc.code, file=sys.stderr)
        return 1
    return 0


def _wait_for(jobs: _Jobs) -> None:
    """Wait for what still runs, and show it."""
    waited = jobs.running()
    if not waited:
        return
    sys.stdout.flush()
    screen = Screen(sys.stderr)
    with screen.drawing():
        while jobs.running():
            jobs.changed.clear()
            waited += [job for job in jobs.running() if job not in waited]
            _draw(screen, waited)
            jobs.changed.wait(_TURN)
    _draw(screen, waited, last=True)


def _draw(screen: Screen, waited: list[Job], *, last: bool = False) -> None:
    seen = [job.snapshot() for job in waited]
    single = len(seen) == 1 and not last
    block = render_text(seen[0], width(sys.stderr) - 1) if single else "\n".join(map(render_line, seen))
    screen.live(block, seen, last=last)


def _say_failures(jobs: _Jobs) -> int:
    """Say which jobs have failed that nobody was told of."""
    failed = [job for job in jobs.all() if job._dispatcher.error is not None and not job._info.told]
    for job in failed:
        _say_failure(job)
    return 1 if failed else 0


def _say_failure(job: Job) -> None:
    job._info.told = True
    print(f"sage-nb: job {plain(job.name)} {job.uuid[:8]} {job.status}", file=sys.stderr)
    if (error := job.snapshot().error) is not None:
        print(render_error(error, width(sys.stderr)), file=sys.stderr)


def _explain(exc: BaseException, jobs: _Jobs, script: Path, *, debug: bool) -> None:
    """Say why the script ended: a job's failure as its view says it, an error of ours in one line, others as Python
    does."""
    job = next((job for job in jobs.all() if job._dispatcher.error is exc), None)
    frames = exc.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != str(script):
        frames = frames.tb_next
    if debug or (job is None and not isinstance(exc, SageError)):
        traceback.print_exception(exc.with_traceback(frames))
    elif job is not None:
        _say_failure(job)
    else:
        line = _line_in(exc, script)
        print(f"sage-nb: {script}{f', line {line}' if line else ''}: {exc}", file=sys.stderr)


def _line_in(exc: BaseException, script: Path) -> int | None:
    """The last line of the script on the way to where the exception was raised."""
    found = [tb.tb_lineno for tb in _frames(exc) if tb.tb_frame.f_code.co_filename == str(script)]
    return found[-1] if found else None


def _frames(exc: BaseException) -> list[Any]:
    found, tb = [], exc.__traceback__
    while tb is not None:
        found.append(tb)
        tb = tb.tb_next
    return found


def _interrupted(jobs: _Jobs) -> int:
    stopped = jobs.stop()
    said = f"; {named_count(len(stopped), 'job')} stopped" if stopped else ""
    print(f"sage-nb: interrupted{said}", file=sys.stderr)
    return INTERRUPTED
