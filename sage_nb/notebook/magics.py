"""The magics for jobs: `%%sage_submit`, `%sage_attach`, `%sage_jobs`, `%sage_job`, `%sage_stop`, `%sage_logs`."""

from __future__ import annotations

import argparse
import keyword
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import traitlets
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magic_arguments import MagicArgumentParser, argument, magic_arguments

from sage_nb.engine.dispatcher import ENDED, Cleanup
from sage_nb.errors import SageError
from sage_nb.jobs.environment import LocalEnvironment
from sage_nb.jobs.job import INTERRUPT_GRACE, Job
from sage_nb.jobs.submitting import BACKENDS, SubmittingEnvironment
from sage_nb.notebook import words
from sage_nb.notebook.cells import run_body
from sage_nb.notebook.headless import wait_at_cell_end
from sage_nb.notebook.holding import holding
from sage_nb.notebook.kernel import Cell, current_cell
from sage_nb.notebook.known import Found, Known, address_in
from sage_nb.notebook.replacing import Shown
from sage_nb.notebook.settings import settings
from sage_nb.notebook.table import show_jobs
from sage_nb.notebook.view import show_job, static_bundle
from sage_nb.pipeline.missing import Missing
from sage_nb.pipeline.spelling import nearest

if TYPE_CHECKING:
    from sage_nb.remote.client import JobManagerClient

__all__ = ["SageMagics", "arguments", "check_output", "output_argument"]

_T = TypeVar("_T")
CLEANUPS = get_args(Cleanup)


def arguments(magic: Any, line: str) -> argparse.Namespace:
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
        near = _near_choice(parser, str(exc))
        hint = f"did you mean {near}?" if near else f"%{magic.__name__}? shows the options"
        raise UsageError(f"%{magic.__name__}: {exc}; {hint}") from None
    return argparse.Namespace(**{name: _unquoted(value) for name, value in vars(args).items()})


def _unquoted(value: Any) -> Any:
    """A word without the quotes around it, which IPython leaves there."""
    quoted = isinstance(value, str) and len(value) > 2 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _near_choice(parser: MagicArgumentParser, message: str) -> str | None:
    """Where the parser says that a word is none of the choices, the one that is most like it."""
    found = re.search(r"invalid choice: '(.*?)'", message)
    choices = [str(choice) for action in parser._actions for choice in action.choices or ()]
    return nearest(found[1], choices) if found else None


def _submit_options(fn: Any) -> Any:
    options = (
        argument("--wait", action="store_true", help="return when the job and its cleanup are done"),
        argument("--timeout", type=float, metavar="S", help="stop the job after S seconds; it fails with JobTimeout"),
        argument(
            "--cleanup",
            choices=CLEANUPS,
            metavar="P",
            help="when to stop services: always (usual), on_success, or never; those that are kept run until "
            "%%sage_stop",
        ),
        argument("--backend", metavar="B", help="how to run it: threads (usual), processes or ray"),
        argument("--remote", metavar="HOST:PORT", help="run it on the JobManager server there, or in that variable"),
        argument("--local", action="store_true", help="run it in the kernel, also while connected to a server"),
        argument(
            "--attached",
            action="store_true",
            help="have the server stop it when this kernel has been gone for a minute; else it outlives the kernel",
        ),
        argument(
            "-i",
            "--input",
            dest="inputs",
            action="append",
            metavar="VAR",
            help="variables that the cell takes, as in -i x,y: nothing starts, and nothing is stopped, where one of "
            "them is not there, or cannot travel to where the job runs",
        ),
        output_argument("keep the Job in this variable, also where it fails"),
    )
    for option in reversed(options):  # as decorators that stand below each other
        fn = option(fn)
    return fn


def output_argument(what: str) -> Any:
    """The option `-o VAR`."""
    return argument("-o", "--output", metavar="VAR", help=what)


def check_output(magic: str, name: str | None) -> None:
    """Raise `UsageError` where `name` cannot be a variable's."""
    if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
        raise UsageError(f"%{magic}: -o takes the name of a variable, not {name!r}")


_ID = "a variable, a name, an id, the beginning of one, or the job's number on the server"


@magics_class
class SageMagics(Magics):
    """The magics for jobs, and what a person can set for all of them."""

    shell: Any
    backend = traitlets.Enum(
        BACKENDS, "threads", help="How %%sage_submit runs a job in the kernel where the cell gives no --backend."
    ).tag(config=True)
    cleanup = traitlets.Enum(
        CLEANUPS, "always", help="When services are stopped where the cell gives no --cleanup."
    ).tag(config=True)
    jobs_shown = traitlets.Int(50, min=1, help="How many jobs %sage_jobs lists, the newest first.").tag(config=True)
    notify_after = traitlets.Float(
        settings.notify_after,
        min=0,
        allow_none=True,
        help="Seconds that a job has to run for its end to be told by a notification of the browser; None for never.",
    ).tag(config=True)

    def __init__(self, shell: Any, known: Known) -> None:
        super().__init__(shell)
        self.raw_cell = ""
        self._known = known
        self._shown = Shown()

    @traitlets.observe("notify_after")
    def _set_notify_after(self, change: Any) -> None:
        settings.notify_after = change.new

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

        The cell returns at once and the view below it goes on. Running the cell
        again first stops and cleans its job. Where nobody watches (nbclient,
        papermill, a terminal) the cell waits, and fails where the job fails.

        With `--remote HOST:PORT`, or once `%sage_connect` has connected the
        notebook, it runs on a JobManager server, and outlives the kernel:
        `%sage_attach` shows it again.

        As a line magic, `%sage_submit ENV` submits the environment in the variable
        ENV. `%config SageMagics` shows what holds where no option is given.
        """
        __tracebackhide__ = True
        args = arguments(self.sage_submit, line)
        check_output("sage_submit", args.output)
        here = current_cell(self.shell)
        env: SubmittingEnvironment | None = None
        job: Job | None = None
        try:
            self._check_place(args, cell)
            env = self._named_environment(args.name) if cell is None else None
            self._check_inputs(args, env)
            self._shown.replace(here)
            if env is None:
                env = self._declare(args, cell or "")
            with holding(here.watched):
                job = env._submit(args.wait, args.timeout, args.cleanup or self.cleanup)
                self._show(job, here, args.output)
        except (SageError, Missing) as exc:
            if here.kernel and not here.watched:  # the log of a run has errors, and not what IPython says of its usage
                raise
            raise UsageError(self._one_line(exc)) from None
        except KeyboardInterrupt as exc:
            if job is not None:
                raise job._waiter_interrupted(exc) from None
            if env is not None:
                env.stop(INTERRUPT_GRACE)
            raise
        try:
            if not here.watched:
                wait_at_cell_end(job, self.shell, here)
            elif args.wait:
                job.wait()
        except KeyboardInterrupt as exc:
            raise job._waiter_interrupted(exc) from None

    @magic_arguments()
    @argument("job", metavar="ID", help=_ID)
    @argument("server", nargs="?", metavar="HOST:PORT", help="the server, or a variable with its address")
    @output_argument("keep the Job in this variable")
    @line_magic
    def sage_attach(self, line: str) -> None:
        """Show a job of a JobManager server, from its start on, live where it runs.

            %sage_attach ID [HOST:PORT]

        The server is the one that `%sage_connect` has connected the notebook to,
        or else the one on this machine. The job is left alone, whatever becomes of
        this cell. Where nobody watches, the cell waits for the job's end, and fails
        where the job fails.
        """
        __tracebackhide__ = True
        args = arguments(self.sage_attach, line)
        check_output("sage_attach", args.output)
        here = current_cell(self.shell)
        held = self._held(args.job)
        with holding(here.watched):
            try:
                job = self._server(args.server).attach(held)
            except SageError as exc:
                raise UsageError(f"%sage_attach: {exc}") from None
            self._shown.replace(here, spare=job.uuid)
            self._show(job, here, args.output, submitted=False)
        if not here.watched:
            wait_at_cell_end(job, self.shell, here)

    def show_value(self, job: Job) -> None:
        """Show a job that is displayed. As the value of a cell right below its view, which `await job` gives, in a
        line."""
        count, is_value = self.shell.execution_count, getattr(self.shell.displayhook, "msg", None) is not None
        if is_value and self._shown.is_just_above(job, count):
            text = {"text/plain": words.plain(words.told(job.snapshot()))}
            self.shell.display_pub.publish(data=text, metadata={})
            return
        show_job(job, self.shell, live=current_cell(self.shell).watched)
        self._shown.note(job, count)

    def _server(self, word: str | None) -> JobManagerClient:
        """The server at an address, or else the one that the notebook is connected to, or the one on this machine."""
        if word is None and self._known.client is not None:
            return self._known.client
        from sage_nb.remote.settings import DEFAULT_PORT

        return self._known.client_at(address_in(self.shell.user_ns, word or str(DEFAULT_PORT)))

    def _show(self, job: Job, here: Cell, output: str | None, *, submitted: bool = True) -> None:
        """Keep the job, and show it where somebody looks."""
        if output:
            self.shell.user_ns[output] = job
        view = show_job(job, self.shell, live=True) if here.watched else None
        self._shown.add(here, job, view, submitted=submitted)
        self._shown.note(job, self.shell.execution_count)

    def _check_place(self, args: argparse.Namespace, cell: str | None) -> None:
        given = [option for option in ("remote", "local", "attached", "backend") if getattr(args, option)]
        if cell is None and given:
            raise UsageError(f"%sage_submit: the environment says where it runs; leave out --{given[0]}")
        if args.local and args.remote:
            raise UsageError("%sage_submit: --local and --remote exclude each other")
        if args.attached and (args.local or not (args.remote or self._known.client)):
            raise UsageError("%sage_submit: --attached is for a job of a server: give --remote HOST:PORT as well")

    def _runs_here(self, args: argparse.Namespace) -> bool:
        return bool(args.local or not (args.remote or self._known.client))

    def _check_inputs(self, args: argparse.Namespace, env: SubmittingEnvironment | None) -> None:
        """Raise where a variable of `-i` is not there, or cannot travel to where the job runs."""
        names = [name for given in args.inputs or () for name in given.split(",") if name]
        there = self.shell.user_ns
        for name in names:
            if name not in there:
                near = nearest(name, [key for key in there if key[:1] != "_"])
                hint = f"did you mean {near}?" if near else "run the cell that defines it first"
                raise UsageError(f"%sage_submit: -i: {name} is not defined; {hint}")
        if env is None:
            stays = self._runs_here(args) and (args.backend or self.backend) == "threads"
        else:
            stays = isinstance(env, LocalEnvironment) and env.backend == "threads"
        if names and not stays:
            from sage_nb.engine.shipping import dumps

            values = {name: there[name] for name in names}
            dumps(values, parts={f"what takes {name!r}": value for name, value in values.items()})

    def _environment(self, args: argparse.Namespace) -> SubmittingEnvironment:
        """A fresh one, where the job is to run."""
        name = args.name or "pipeline"
        if self._runs_here(args):
            return LocalEnvironment(name, backend=args.backend or self.backend)
        from sage_nb.remote.environment import RemoteEnvironment

        address = self._server(args.remote)._address
        owner = "attached" if args.attached else "detached"
        config = {"server": {"tls": True}} if address.tls else None
        return RemoteEnvironment(
            name, config, address.host, address.port, address.token, owner=owner, backend=args.backend
        )

    def _declare(self, args: argparse.Namespace, body: str) -> SubmittingEnvironment:
        __tracebackhide__ = True
        env = self._environment(args)
        self.shell.user_ns["env"] = env
        run_body(self.shell, self.raw_cell, body, "%%sage_submit")
        bound = self.shell.user_ns.get("env")
        if bound is not env and isinstance(bound, SubmittingEnvironment) and not env._graph.operators:
            raise UsageError(
                "%%sage_submit: the cell binds env to another environment; declare on the env it is given, "
                "or submit yours with %sage_submit NAME"
            )
        return env

    def _named_environment(self, name: str | None) -> SubmittingEnvironment:
        if name is None:
            raise UsageError("%sage_submit: name the environment to submit, or use %%sage_submit with a cell below it")
        env = self.shell.user_ns.get(name)
        if not isinstance(env, SubmittingEnvironment):
            known = [key for key, value in self.shell.user_ns.items() if isinstance(value, SubmittingEnvironment)]
            what = "is not an environment" if name in self.shell.user_ns else "is not defined"
            near = nearest(name, known)
            hint = f"; did you mean {near}?" if near else ""
            raise UsageError(f"%sage_submit: {name} {what}{hint}")
        return env

    def _one_line(self, exc: Exception) -> str:
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
    @argument("-n", type=int, metavar="N", help="list the newest N, else %%config SageMagics.jobs_shown of them")
    @line_magic
    def sage_jobs(self, line: str) -> None:
        """List the jobs of this kernel and, once `%sage_connect` has connected the
        notebook, of the server, the newest first. The table is live while jobs run.
        """
        args = arguments(self.sage_jobs, line)
        if args.n is not None and args.n < 1:
            raise UsageError(f"%sage_jobs: -n is a number of jobs, 1 or more, not {args.n}")
        live, limit = current_cell(self.shell).watched, args.n or self.jobs_shown
        show_jobs(self._known, limit, self.shell, live=live, cells=self._shown.cells)

    @magic_arguments()
    @argument("job", metavar="ID", help=_ID)
    @line_magic
    def sage_job(self, line: str) -> None:
        """Show a job: live where it runs, as it ended otherwise."""
        found = self._find("sage_job", arguments(self.sage_job, line).job)
        job = self._asked("sage_job", found.job)
        if job is not None:
            show_job(job, self.shell, live=current_cell(self.shell).watched)
        elif found.info.snapshot is not None:
            bundle = static_bundle(found.info.snapshot)
            self.shell.display_pub.publish(data=bundle, metadata={"sage_nb": {"job": found.uuid}})

    @magic_arguments()
    @argument("--all", action="store_true", help="stop every job that runs in this kernel")
    @argument("job", nargs="?", metavar="ID", help=_ID)
    @line_magic
    def sage_stop(self, line: str) -> None:
        """Stop a job, and wait until it is cleaned up."""
        args = arguments(self.sage_stop, line)
        if args.all == (args.job is not None):
            raise UsageError("%sage_stop: takes the id of a job, or --all")
        if args.all:
            stopped = self._known.manager.stop_all()
            where = self._known.where
            others = f"; those of {where} go on: %sage_stop ID stops one" if where else ""
            print(f"{len(stopped)} jobs stopped{others}" if len(stopped) != 1 else f"1 job stopped{others}")
            return
        found = self._find("sage_stop", args.job)
        already = "had already " if found.info.status in ENDED else ""
        status = self._asked("sage_stop", found.stop)
        said = status if status in ("completed", "failed") else "stopped"
        print(f"{found.info.name} {found.uuid[:8]} {already}{said}")

    @magic_arguments()
    @argument("-n", type=int, default=100, metavar="N", help="show the last N lines, 100 unless given")
    @argument("job", metavar="ID", help=_ID)
    @line_magic
    def sage_logs(self, line: str) -> None:
        """Show the last lines of a job's log."""
        args = arguments(self.sage_logs, line)
        if args.n < 1:
            raise UsageError(f"%sage_logs: -n is a number of lines, 1 or more, not {args.n}")
        found = self._find("sage_logs", args.job)
        lines = self._asked("sage_logs", lambda: found.log(args.n))
        print("\n".join(map(str, lines)) if lines else f"{found.info.name} {found.uuid[:8]} has logged nothing")

    def _find(self, magic: str, word: str) -> Found:
        """The job in the variable `word`, or with that name, id, beginning of one, or number. Raises `UsageError`."""
        return self._asked(magic, lambda: self._known.find(self._held(word)))

    def _held(self, word: str) -> Job | str:
        """What the variable `word` says of a job: itself, its uuid, its environment; else the word, without quotes."""
        value = self.shell.user_ns.get(word)
        if isinstance(value, SubmittingEnvironment) and value.job is not None:
            return value.job
        return value if isinstance(value, (Job, str)) else word

    @staticmethod
    def _asked(magic: str, question: Callable[[], _T]) -> _T:
        """The answer. Raises `UsageError` where there is none, for a reason of ours."""
        try:
            return question()
        except SageError as exc:
            raise UsageError(f"%{magic}: {exc}") from None
