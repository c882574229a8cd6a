"""The magics in real kernels, watched as in JupyterLab and unwatched as by nbclient."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernels import Kernel, Reply

Start = Callable[..., Kernel]
WIDGET = "application/vnd.jupyter.widget-view+json"
PARTS = """
%load_ext sage_nb
import time, threading
from sage_nb import *

class Clock(BaseService):
    def cleanup(self):
        with open("cleaned", "a") as file:
            file.write("x")

def ticks():
    n = 0
    while True:
        yield n
        n += 1
        time.sleep(0.002)

def cleaned():
    try:
        return len(open("cleaned").read())
    except FileNotFoundError:
        return 0

def leftovers():
    deadline = time.monotonic() + 10
    while (names := [t.name for t in threading.enumerate() if t.name.startswith("sage_nb")]):
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return names
"""
ENDLESS = "%%sage_submit endless -o job\nenv.register_service('clock', Clock)\nenv.from_source(ticks).show('ticks')"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for the tests that leave it as it was."""
    kernel = Kernel(tmp_path_factory.mktemp("shared"))
    assert kernel.run(PARTS).status == "ok"
    yield kernel
    kernel.shutdown()


def usage_error(reply: Reply) -> str:
    assert reply.status == "error"
    (line,) = reply.stderr.splitlines()
    assert line.startswith("UsageError: ")
    return line.removeprefix("UsageError: ")


def test_a_watched_cell_returns_at_once_and_shows_a_widget_with_html_and_text(shared: Kernel) -> None:
    reply = shared.run(ENDLESS, cell_id="a")
    (bundle,) = reply.displays
    assert {WIDGET, "text/html", "text/plain"} <= bundle.keys()
    assert shared.run("job.status").result == "'running'"
    assert shared.run("job.stop().status").result == "'stopped'"


def test_the_output_ends_as_html_and_text(shared: Kernel) -> None:
    """The saved notebook must not need a kernel."""
    reply = shared.run(ENDLESS, cell_id="b")
    shared.run("job.stop();")
    (shown,) = [outputs for outputs in shared.displays.values() if outputs[0] == reply.displays[0]]
    shared.until(lambda: WIDGET not in shown[-1])
    assert "Stopped" in shown[-1]["text/html"]
    assert "Stopped" in shown[-1]["text/plain"]


def test_running_the_cell_again_stops_and_cleans_its_job_first(shared: Kernel) -> None:
    before = int(shared.run("cleaned()").result or 0)
    shared.run(ENDLESS, cell_id="again")
    shared.run("first = job")
    shared.run(ENDLESS, cell_id="again")
    assert shared.run("first.status, job.status, cleaned()").result == f"('stopped', 'running', {before + 1})"
    shared.run("job.stop();")


def test_another_cell_leaves_the_job_alone(shared: Kernel) -> None:
    shared.run(ENDLESS, cell_id="one")
    shared.run("first = job")
    shared.run(ENDLESS, cell_id="two")
    assert shared.run("first.status").result == "'running'"
    assert "2 jobs stopped" in shared.run("%sage_stop --all").stdout


def test_an_unwatched_cell_waits_and_shows_html_and_text_only(shared: Kernel) -> None:
    code = "%%sage_submit short -o job\nenv.from_batch(range(1000)).collect('all')"
    reply = shared.run(code, allow_stdin=False)
    assert shared.run("job.status, len(job.results['all'])").result == "('completed', 1000)"
    assert all(WIDGET not in bundle for bundle in reply.displays + reply.updates)
    assert any("Completed" in bundle["text/plain"] for bundle in reply.displays + reply.updates)


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "nobody"])
def test_a_job_that_is_the_value_of_the_cell_below_its_view_is_told_in_a_line(shared: Kernel, watched: bool) -> None:
    """`await job` gives the job; what it would show is right above."""
    code = "%%sage_submit short -o job\nenv.from_batch(range(1000)).collect('all')"
    shared.run(code, cell_id="shows", allow_stdin=watched)
    (shown,) = shared.run("await job", allow_stdin=watched).displays
    assert re.fullmatch(r"job 'short' completed in [\d.]+ m?s, 2 operators; its view is above", shown["text/plain"])
    assert list(shown) == ["text/plain"]
    (again,) = shared.run("job", allow_stdin=watched).displays  # nothing of it is in the cell before
    assert "✓ Completed" in again["text/plain"]
    (asked,) = shared.run("display(job)", allow_stdin=watched).displays
    assert "text/html" in asked
    shared.run("1 + 1")
    (value,) = shared.run("job", allow_stdin=watched).displays
    assert "text/html" in value
    (running,) = shared.run(
        "env = LocalEnvironment('x'); env.from_source(ticks).sink(id); j = env.submit(); j"
    ).displays
    assert WIDGET in running
    (line,) = shared.run("j").displays
    assert line["text/plain"].startswith("job 'x' is running: ")
    shared.run("j.stop()")


def test_the_end_of_a_long_job_that_nobody_watches_reaches_a_log_and_the_notebook_has_the_job_once(
    shared: Kernel,
) -> None:
    """A log has what is displayed, and no update of it."""
    shared.run("from sage_nb.notebook import headless; headless._FIRST_SIGN = headless._FIRST_UPDATE = 1.0")
    code = (
        "%%sage_submit slow -o job\ndef slow(n):\n    time.sleep(0.5)\n    return n\n"
        "env.from_batch(range(8)).map(slow).collect('all')"
    )
    reply = shared.run(code, allow_stdin=False)
    going, end = (one["text/plain"] for one in reply.displays)
    assert going.startswith("► Running  slow")
    assert "\n" not in going
    assert end.startswith("✓ Completed  slow")
    assert re.search(r"^sage_nb: ► Running +slow .*\d items", reply.stderr)
    notebook = [updates[-1]["text/plain"] for updates in shared.displays.values() if updates[0] in reply.displays]
    first, last = notebook
    assert re.fullmatch(r"slow: \d\d:\d\d:\d\d to \d\d:\d\d:\d\d", first)
    assert last == end


def test_a_failed_job_fails_an_unwatched_cell_at_the_users_own_line(shared: Kernel) -> None:
    """The exception keeps its type, and its notes name operator, item and line."""
    body = "\n\ndef invert(x):\n    return 1 / (x - 3)\n\nenv.from_batch(range(9)).map(invert).print()"
    code = "%%sage_submit bad -o job\n" + body
    reply = shared.run(code, allow_stdin=False)
    assert reply.error == ("ZeroDivisionError", "division by zero")
    number = reply.of("execute_input")[0]["execution_count"]
    assert f"operator 'invert' (map), Cell In[{number}], line 5: return 1 / (x - 3)" in reply.traceback
    assert set(re.findall(r"Cell In\[(\d+)\]", reply.traceback)) == {str(number)}
    assert "on the item 3" in reply.traceback
    assert shared.run("job.status").result == "'failed'"


def test_voila_counts_as_watched(kernel: Start) -> None:
    k = kernel(env={"SERVER_SOFTWARE": "voila/0.5"})
    k.run(PARTS)
    assert WIDGET in k.run(ENDLESS, allow_stdin=False).displays[0]
    k.run("job.stop();")


def test_wait_keeps_a_watched_cell_until_the_job_has_ended(shared: Kernel) -> None:
    reply = shared.run("%%sage_submit short --wait -o job\nenv.from_batch(range(9)).map(lambda x: 1 / x).print()")
    assert reply.error == ("ZeroDivisionError", "division by zero")


def plain(reply: Reply) -> str:
    """The traceback without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", reply.traceback)


def at_users_own_line(reply: Reply) -> None:
    """The traceback shows the cell, and no frame of ours or of IPython's."""
    assert reply.error is not None
    assert "---->" in plain(reply)
    assert re.findall(r"^File .*|.*hidden.*", plain(reply), re.MULTILINE) == []


def test_timeout_fails_the_job(shared: Kernel) -> None:
    reply = shared.run("%%sage_submit slow --wait --timeout 0.3\nenv.from_source(ticks).show('t')")
    assert reply.error is not None
    assert reply.error[0] == "JobTimeout"
    at_users_own_line(reply)
    shared.run("%%sage_submit slow -o job --timeout 0.3\nenv.from_source(ticks).show('t')")
    at_users_own_line(shared.run("1\nawait job"))
    at_users_own_line(shared.run("job.wait()", allow_stdin=False))
    at_users_own_line(shared.run("env.from_batch([1]).map(lambda: 1)"))


def test_cleanup_never_keeps_services_until_sage_stop(shared: Kernel) -> None:
    before = int(shared.run("cleaned()").result or 0)
    shared.run(
        "%%sage_submit kept --wait --cleanup never -o job\n"
        "env.register_service('clock', Clock)\nenv.from_batch([1]).print()"
    )
    assert shared.run("job.status, cleaned()").result == f"('completed', {before})"
    assert "completed" in shared.run("%sage_stop job").stdout
    assert shared.run("cleaned()").result == str(before + 1)


def test_line_magic_submits_an_environment(shared: Kernel) -> None:
    shared.run("mine = LocalEnvironment('mine'); mine.from_batch([1, 2]).collect('all')")
    shared.run("%sage_submit mine --wait -o job")
    assert shared.run("job.name, list(job.results['all'])").result == "('mine', [1, 2])"


def test_env_is_bound_and_python_variables_are_not_expanded(shared: Kernel) -> None:
    shared.run("%%sage_submit braces --wait -o job\nenv.from_batch([1]).map(lambda x: f'{x}!').collect('all')")
    assert shared.run("list(job.results['all']), env.name").result == "(['1!'], 'braces')"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("%%sage_submit x --wiat\nenv.from_batch([1]).print()", "no option --wiat; did you mean --wait?"),
        ("%%sage_submit x --cleanup sometimes\nenv.from_batch([1]).print()", "invalid choice: 'sometimes'"),
        (
            "%%sage_submit x --backend rya\nenv.from_batch([1]).print()",
            "there is no backend 'rya'; did you mean 'ray'?",
        ),
        ("%%sage_submit x --timeout -1\nenv.from_batch([1]).print()", "timeout is a number of seconds above 0"),
        ("%%sage_submit x -o 1x\nenv.from_batch([1]).print()", "-o takes the name of a variable"),
        ("%%sage_submit x\n\n", "the cell is empty; declare a pipeline on env"),
        ("%%sage_submit x\n# nothing yet\n", "the cell is empty; declare a pipeline on env"),
        ("%%sage_submit x\ny = 1", "'x' has no source: begin with env.from_batch"),
        ("%%sage_submit x\n\nenv.from_batch(5)", r"int is none \(Cell In\[\d+\], line 3\)"),
        ("%%sage_submit x\nenv.from_batch([1]).map(lambda: 1)", "called with one argument"),
        ("%%sage_submit x\nenv.from_batch([1], name='a').map(str, name='a')", "another operator is called 'a' already"),
        ("%%sage_submit x\nenv.from_batch([1]).collect('r').show('r')", "another result is called 'r' already"),
        (
            "%%sage_submit x\n\nenv.from_cvs('x')",
            r"no 'from_cvs'; did you mean 'from_csv'\? \(Cell In\[\d+\], line 3\)",
        ),
        (
            "%%sage_submit x\nenv.from_batch([1]).groupby(len)",
            r"DataStream has no 'groupby'; did you mean 'keyby'\? \(Cell",
        ),
        ("%sage_submit nothing_like_it", "nothing_like_it is not defined"),
        ("%sage_stop beef", "no job goes by 'beef'"),
        ("%sage_stop", "takes the id of a job, or --all"),
        ("%sage_job beef", "no job goes by 'beef'"),
        ("%sage_logs beef", "no job goes by 'beef'"),
    ],
)
def test_bad_input_gets_one_line_that_says_what_to_do(shared: Kernel, code: str, says: str) -> None:
    jobs = shared.run("len(default_manager().jobs) if 'default_manager' in globals() else 0").result
    assert re.search(says, usage_error(shared.run(code)))
    assert shared.run("leftovers()").result == "[]"
    assert jobs == shared.run("len(default_manager().jobs) if 'default_manager' in globals() else 0").result


def test_an_error_in_the_body_submits_nothing_and_names_the_line(shared: Kernel) -> None:
    reply = shared.run("%%sage_submit x\nenv.from_batch([1]).print()\nundefined_name")
    assert reply.error is not None
    assert reply.error[0] == "NameError"
    assert re.search(r"line 3", reply.traceback)
    assert shared.run("env.job is None").result == "True"


def test_a_misspelt_method_in_another_cell_is_shown_without_our_frames(shared: Kernel) -> None:
    for code in (
        "LocalEnvironment('x').from_cvs('x')",
        "LocalEnvironment('x').from_batch([1]).window(Tumbling(1)).cuont()",
    ):
        reply = shared.run(f"from sage_nb import *\n{code}")
        assert reply.error is not None
        assert reply.error[0] == "AttributeError"
        assert "did you mean" in reply.error[1]
        assert "line 2" in reply.traceback
        assert "sage_nb/" not in reply.traceback
        assert "Unexpected" not in reply.stdout


def test_what_a_cell_declares_has_the_number_of_its_prompt(shared: Kernel) -> None:
    reply = shared.run("%%sage_submit numbered -o job\n\nenv.from_batch([1]).sink(id)")
    assert reply.content is not None
    where = f"'Cell In[{reply.content['execution_count']}], line 3'"
    assert shared.run("job.snapshot().operators[0].where").result == where
    wrong = shared.run("%%sage_submit x\nenv.from_batch([1]).print(\n")
    assert wrong.content is not None
    assert f"Cell In[{wrong.content['execution_count']}], line 2" in plain(wrong)


def test_a_syntax_error_names_the_line_of_the_cell(shared: Kernel) -> None:
    reply = shared.run("%%sage_submit x\n\nenv.from_batch([1]).print(\n")
    assert reply.error is not None
    assert reply.error[0] == "SyntaxError"
    assert re.fullmatch(r"  Cell In\[\d+\], line 3\n.*\n *\^\nSyntaxError: '\(' was never closed\n", plain(reply))
    both = shared.run("def broken():\n    exec('(', {})\nbroken()")
    assert "in broken" in plain(both)  # what runs has its frames, as it has without us


def test_jobs_logs_and_views_of_jobs_that_have_ended(shared: Kernel) -> None:
    shared.run(
        "%%sage_submit talker --wait -o job\n"
        "class Talk(MapFunction):\n"
        "    def execute(self, x):\n"
        "        self.logger.info('saw %s', x)\n"
        "        return x\n"
        "env.from_batch([41]).map(Talk).print()"
    )
    (table,) = shared.run("%sage_jobs").displays
    assert "talker" in table["text/plain"]
    assert "saw 41" in shared.run("%sage_logs job").stdout
    short = (shared.run("job.uuid[:8]").result or "").strip("'")
    assert "saw 41" in shared.run(f"%sage_logs {short}").stdout
    (view,) = shared.run(f"%sage_job {short}").displays
    assert "Completed" in view["text/plain"]
    (again,) = shared.run("job").displays
    assert "Completed" in again["text/plain"]


def test_help_reads_as_text(shared: Kernel) -> None:
    for magic in ("sage_submit", "sage_jobs", "sage_job", "sage_stop", "sage_logs"):
        reply = shared.run(f"get_ipython().find_magic('{magic}').__doc__")
        assert f"%{magic}" in (reply.result or "")


def test_prints_of_a_job_belong_to_its_cell_while_others_run(shared: Kernel) -> None:
    """Complaint of ipykernel#1450: output of threads lands in whatever cell is newest."""
    first = shared.start("%%sage_submit said -o job\nenv.from_source(ticks).take(100).print('said')")
    shared.wait(first)
    second = shared.run("print('mine'); job.wait();")
    shared.until(lambda: "said 99" in first.stdout)
    assert second.stdout == "mine\n"


def test_stop_from_the_view_acts_while_a_cell_runs(shared: Kernel) -> None:
    """A click comes as a message; the kernel takes it when the cell awaits."""
    reply = shared.run(ENDLESS, cell_id="clicks")
    comm = reply.displays[0][WIDGET]["model_id"]
    waiting = shared.start("await job; job.status")
    shared.send_comm(comm, {"method": "custom", "content": {"command": "stop"}})
    assert shared.wait(waiting).result == "'stopped'"


def test_pause_and_resume_from_the_view(shared: Kernel) -> None:
    reply = shared.run(ENDLESS, cell_id="pauses")
    comm = reply.displays[0][WIDGET]["model_id"]
    for command, state in (("pause", "paused"), ("pause", "paused"), ("resume", "running"), ("resume", "running")):
        shared.wait(shared.send_comm(comm, {"method": "custom", "content": {"command": command}}))
        assert shared.run("job.status").result == repr(state)
    shared.run("job.stop();")


def test_few_messages_however_fast_items_flow(shared: Kernel) -> None:
    """At most 8 snapshots a second, and none lost: the last one is the final state."""
    reply = shared.run("%%sage_submit fast -o job\nenv.from_batch(range(3_000_000)).map(lambda x: x + 1).show('x')")
    shared.run("job.wait();")
    (shown,) = [outputs for outputs in shared.displays.values() if outputs[0] == reply.displays[0]]
    shared.until(lambda: "Completed" in shown[-1]["text/plain"])
    snapshots = sorted(snapshots_of(shared, "fast"), key=lambda snapshot: snapshot["elapsed"])
    assert snapshots[-1]["status"] == "completed"
    assert snapshots[-1]["items"] == 3_000_000
    assert len(snapshots) <= 8 * snapshots[-1]["elapsed"] + 3


def snapshots_of(kernel: Kernel, name: str) -> list[dict[str, Any]]:
    """All snapshots that were sent of the jobs of that name."""
    messages = [content for reply in kernel.replies.values() for content in reply.of("comm_msg")]
    states = [m["data"]["state"].get("snapshot", {}) for m in messages if m["data"]["method"] == "update"]
    return [snapshot for snapshot in states if snapshot.get("name") == name]


@pytest.mark.parametrize("count", [1, 10_001])
def test_the_last_item_before_a_long_wait_is_in_the_view_at_once(shared: Kernel, count: int) -> None:
    """Law 5: latency does not wait for throughput, nor for an item that never comes."""
    name = f"waits{count}"
    code = f"gate = threading.Event()\ndef some():\n    yield from range({count})\n    gate.wait(60)\n"
    shared.run(f"%%sage_submit {name} -o job\n{code}env.from_source(some).collect('all')")
    shared.until(
        lambda: any(
            s["items"] == count and s["results"][0]["rows"][-1:] == [[str(count - 1)]]
            for s in snapshots_of(shared, name)
        ),
        timeout=3,
    )
    shared.run("job.stop(); gate.set()")
    assert shared.run("len(job.results['all'])").result == str(count)


def test_what_cannot_be_sent_leaves_the_other_views_alone(shared: Kernel) -> None:
    for name, text in (("half", "\\ud800"), ("whole", "ok")):
        source = f"env.from_source(iter(['{text}'] * 20), delay=0.02)"
        reply = shared.run(f"%%sage_submit {name} --wait\n{source}.map(lambda x: {{x: x}}).show('rows')")
        assert reply.status == "ok"
    shared.until(lambda: any(s["status"] == "completed" for s in snapshots_of(shared, "half")))
    shared.until(lambda: any(s["status"] == "completed" for s in snapshots_of(shared, "whole")))


def test_fewer_messages_while_no_view_is_in_sight(shared: Kernel) -> None:
    reply = shared.run(ENDLESS.replace("endless", "unseen"), cell_id="unseen")
    comm = reply.displays[0][WIDGET]["model_id"]
    content = {"command": "view", "id": "v", "visible": False}
    shared.wait(shared.send_comm(comm, {"method": "custom", "content": content}))

    def elapsed() -> list[float]:
        return sorted(snapshot["elapsed"] for snapshot in snapshots_of(shared, "unseen"))

    before = len(elapsed())
    shared.until(lambda: len(elapsed()) >= before + 3)
    late = elapsed()[before + 1 :]
    assert all(later - earlier > 0.9 for earlier, later in itertools.pairwise(late))
    content = {"command": "view", "id": "v", "visible": True}
    shared.wait(shared.send_comm(comm, {"method": "custom", "content": content}))
    before = len(elapsed())
    shared.until(lambda: len(elapsed()) >= before + 8, timeout=7)
    shared.run("job.stop();")


def test_awaiting_cell_is_interrupted_and_the_job_cleaned(shared: Kernel) -> None:
    """Law 3: an interrupt of a cell that waits for the job stops the job."""
    before = int(shared.run("cleaned()").result or 0)
    for wait in ("await job", "job.wait()", "async for t in job.stream('all'): pass"):
        source = ENDLESS.replace(".show('ticks')", ".collect('all')")
        shared.run(source, cell_id="interrupted")
        waiting = shared.start(f"print('go', flush=True)\n{wait}")
        shared.until(lambda waiting=waiting: "go" in waiting.stdout)
        more = len(waiting.messages) + 4  # snapshots that come while the cell waits
        shared.until(lambda waiting=waiting, more=more: len(waiting.messages) >= more)
        shared.interrupt()
        reply = shared.wait(waiting, 10)
        assert reply.error is not None
        assert reply.error[0] in ("KeyboardInterrupt", "CancelledError")
        assert "was stopped, as what" in reply.error[1]
        at_users_own_line(reply)
        before += 1
        assert shared.run("job.status, cleaned()").result == f"('stopped', {before})"


def test_an_interrupted_waiting_cell_stops_its_job(shared: Kernel) -> None:
    waiting = shared.start(ENDLESS.replace("-o job", "-o job --wait"))
    shared.until(lambda: bool(waiting.displays))
    shared.interrupt()
    reply = shared.wait(waiting, 10)
    assert reply.error is not None
    assert reply.error[0] == "KeyboardInterrupt"
    assert shared.run("job.status").result == "'stopped'"
    headless = shared.start(ENDLESS, allow_stdin=False)
    shared.until(lambda: bool(headless.displays))
    shared.interrupt()
    at_users_own_line(shared.wait(headless, 10))
    assert shared.run("job.status").result == "'stopped'"


def test_a_mistake_in_a_headless_cell_is_an_error_that_a_log_has(shared: Kernel) -> None:
    reply = shared.run("%%sage_submit\nenv.from_batch([1]).mapp(print)", allow_stdin=False)
    assert reply.error is not None
    assert reply.error[0] == "AttributeError"
    assert "did you mean 'map'?" in reply.error[1]
    assert re.search(r"^-+> 2 env.from_batch", plain(reply), re.MULTILINE)
    assert not re.search(r"^File ", plain(reply), re.MULTILINE)
    reply = shared.run("%%sage_submit\nenv", allow_stdin=False)
    assert reply.error is not None
    assert reply.error[0] == "SubmitError"
    assert "source" in reply.error[1]


def test_an_interrupt_that_an_operator_raises_is_the_jobs_own_error(shared: Kernel) -> None:
    code = "def own(n):\n    raise KeyboardInterrupt('mine')\nenv.from_batch([1]).map(own).show('out')"
    reply = shared.run(f"%%sage_submit own -o job\n{code}", allow_stdin=False)
    assert reply.error == ("KeyboardInterrupt", "mine")
    assert shared.run("job.status").result == "'failed'"


SLOW_DISPLAYS = """
def slow(message):
    if message["header"]["msg_type"] == "display_data":
        print("a display is under way", flush=True)
        time.sleep(60)
    return message

get_ipython().display_pub.register_hook(slow)
"""


def test_a_headless_cell_that_is_interrupted_while_it_shows_its_job_says_so_at_its_own_line(kernel: Start) -> None:
    k = kernel()
    k.run(PARTS + SLOW_DISPLAYS)
    headless = k.start(ENDLESS, allow_stdin=False)
    k.until(lambda: "under way" in headless.stdout)
    k.interrupt()
    reply = k.wait(headless, 10)
    at_users_own_line(reply)
    assert reply.error is not None
    assert "was stopped, as what waited for it was interrupted" in reply.error[1]
    assert k.run("job.status").result == "'stopped'"


@pytest.mark.parametrize("blocked", [False, True])
def test_a_kernel_restart_runs_the_services_cleanup(kernel: Start, blocked: bool) -> None:
    """Law 3: also where a cell waits, and where the source does not answer."""
    k = kernel()
    k.run(PARTS)
    if blocked:
        source = "lambda: time.sleep(1000)"
        reply = k.start(ENDLESS.replace("ticks)", source + ")").replace("-o job", "--wait"))
        k.until(lambda: bool(reply.displays))
    else:
        k.run(ENDLESS)
    k.restart()
    assert (Path(k.folder) / "cleaned").read_text() == "x"


def test_two_kernels_at_once_do_not_meet(kernel: Start) -> None:
    one, two = kernel(), kernel()
    for k in (one, two):
        k.run(PARTS)
        k.run(ENDLESS)
    one.run("job.stop();")
    assert two.run("job.status").result == "'running'"
    assert two.run("len(job._info.dispatcher.tasks)").result == "1"
    two.run("job.stop();")


def test_nothing_runs_on_after_the_last_job(shared: Kernel) -> None:
    shared.run(ENDLESS, cell_id="last")
    shared.run("job.stop();")
    assert shared.run("leftovers()").result == "[]"


PLAN = """
from sage_nb.jobs.explain import Explanation, StageLine
from sage_nb.jobs.snapshot import JobSnapshot, OperatorView
Explanation("plan", (StageLine(1, ("a",), ("source",)),), JobSnapshot(
    uuid="", name="plan", status="created", operators=(OperatorView(id=0, name="a", kind="source", col=0, row=0),)))
"""


def test_a_result_is_shown_as_a_table(shared: Kernel) -> None:
    rows = "env.from_batch([{'n': n, 'text': 'x' * 90} for n in range(30)]).collect('rows')"
    shared.run(f"%%sage_submit rows --wait -o job\n{rows}")
    (shown,) = shared.run("job.results['rows']").of("execute_result")
    lines = shown["data"]["text/plain"].splitlines()
    assert lines[0] == "rows: 30 items, showing the last 10"
    assert lines[-1].split()[0] == "29"
    assert max(map(len, lines)) <= 80
    html = shown["data"]["text/html"]
    assert html.count("<tr") == 21
    assert "30 items, showing the last 20" in html
    assert shared.run("[job.results['rows']]").result == "[<Result 'rows': 30 items>]"
    assert shared.run("repr(job.results['rows'])").result == "\"<Result 'rows': 30 items>\""
    shared.run("%%sage_submit none --wait -o job\nenv.from_batch([]).collect('none')")
    assert shared.run("job.results['none']").result == "none: 0 items"


def test_a_plan_is_shown_with_its_picture(kernel: Start) -> None:
    """Where the extension is loaded; without it, the text is there."""
    k = kernel()
    (plain,) = k.run(PLAN).of("execute_result")
    assert "text/html" not in plain["data"]
    k.run("%load_ext sage_nb")
    (shown,) = k.run(PLAN).of("execute_result")
    assert shown["data"]["text/html"].count("<img") == 1
    assert shown["data"]["text/plain"] == plain["data"]["text/plain"]
    assert shown["data"]["text/plain"].startswith("plan: 1 operator in 1 stage, 1 task")
    k.run("%unload_ext sage_nb")
    assert "text/html" not in k.run(PLAN).of("execute_result")[0]["data"]


def test_unload_takes_the_magics_away(kernel: Start) -> None:
    k = kernel()
    k.run(PARTS)
    k.run("%unload_ext sage_nb")
    assert "not found" in k.run("%sage_jobs").stderr
    assert k.run("%load_ext sage_nb").status == "ok"
    assert k.run("%sage_jobs").status == "ok"


def test_a_name_or_an_environment_means_its_newest_job(shared: Kernel) -> None:
    for _ in range(2):
        shared.run("%%sage_submit same --wait -o job\nenv.from_batch([1]).print()")
    shared.run("%%sage_submit later -o other\nenv.from_source(ticks).show('t')")
    assert (shared.run("job.uuid[:8]").result or "").strip("'") in shared.run("%sage_stop same").stdout
    assert "did you mean 'later'?" in usage_error(shared.run("%sage_stop latr"))
    assert re.match(r"later \w{8} stopped", shared.run("%sage_stop env").stdout)
    assert shared.run("env.jobmanager.find('same').uuid == job.uuid").result == "True"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("%sage_jbos", "there is no %sage_jbos; did you mean %sage_jobs?"),
        ("%%sage_sumbit x\nenv.from_batch([1]).print()", "there is no %%sage_sumbit; did you mean %%sage_submit?"),
        ("%%sage_submit x --cleanup alwyas\nenv.from_batch([1]).print()", "did you mean always?"),
        ("%sage_jobs -n 0", "-n is a number of jobs, 1 or more, not 0"),
        ("%sage_server strat", "did you mean start?"),
        ("%sage_server start 21002 --port 21003", "give the port once"),
        ("%%sage_submit x -i coutns\nenv.from_batch([1]).print()", "coutns is not defined; did you mean counts?"),
        ("%%sage_submit x -i no_such\nenv.from_batch([1]).print()", "no_such is not defined; run the cell"),
        (
            "%%sage_submit x --backend processes -i counts,gate\nenv.from_batch([1]).print()",
            "what takes 'gate' cannot run in another process: it is an? .*lock",
        ),
    ],
)
def test_a_misspelt_word_gets_the_one_that_was_meant(shared: Kernel, code: str, says: str) -> None:
    shared.run("counts, gate = [1], threading.Lock()")
    reply = shared.run(code)
    assert reply.status == "error"
    assert re.search(says, reply.stderr)


def test_what_the_cell_takes_is_checked_before_anything_is_stopped(shared: Kernel) -> None:
    shared.run(ENDLESS, cell_id="inputs")
    shared.run(f"{ENDLESS.replace('-o job', '-i ticks,nothing')}", cell_id="inputs")
    assert shared.run("job.status").result == "'running'"
    assert shared.run(ENDLESS.replace("-o job", "-o next -i ticks -i time"), cell_id="inputs").status == "ok"
    assert shared.run("job.status, next.stop().status").result == "('stopped', 'stopped')"


def test_config_sets_what_holds_without_an_option(shared: Kernel) -> None:
    said = shared.run("%config SageMagics").stdout
    for trait in ("backend", "cleanup", "jobs_shown", "notify_after"):
        assert f"SageMagics.{trait}=" in said
    assert max(map(len, said.splitlines())) <= 80
    shared.run("%config SageMagics.backend = 'processes'\n%config SageMagics.notify_after = 5")
    shared.run("%%sage_submit there --wait\nenv.from_batch([1]).print()")
    code = "from sage_nb.notebook.settings import settings\nenv.backend, settings.notify_after"
    assert shared.run(code).result == "('processes', 5.0)"
    shared.run("%config SageMagics.backend = 'threads'\n%config SageMagics.notify_after = None")
    assert shared.run("print(settings.notify_after)").stdout == "None\n"


def test_help_fits_eighty_columns(shared: Kernel) -> None:
    names = [f"sage_{name}" for name in ("submit", "jobs", "job", "stop", "logs", "attach", "connect", "server")]
    code = f"for name in {names}:\n    print(get_ipython().find_magic(name).__doc__)"
    said = shared.run(code).stdout
    assert all(f"%{name}" in said for name in names)
    assert max(map(len, said.splitlines())) <= 80


def test_an_environment_shows_its_picture_before_it_runs(shared: Kernel) -> None:
    def shown(code: str) -> dict[str, str]:
        (result,) = shared.run(code).of("execute_result")
        data: dict[str, str] = result["data"]
        return data

    shared.run("mine = LocalEnvironment('mine')")
    assert "nothing is declared yet; begin with a source" in shown("mine")["text/plain"]
    shared.run("mine.register_service('clock', Clock); s = mine.from_batch([1]).map(str); s.print()")
    data = shown("mine")
    assert data["text/html"].count("<img") == 1
    assert data["text/plain"].startswith("mine: 3 operators in 1 stage, 1 task")
    assert data["text/plain"].endswith("Services: clock (Clock)")
    assert "Services: clock (Clock)" in data["text/html"]
    assert shown("s")["text/plain"] == "<DataStream behind 'str' of 'mine'>"
    shared.run("mine.submit(autostop=True);")
    assert re.search(r"Its latest job: mine \w{8}, completed$", shown("mine")["text/plain"])
    shared.run("open_end = LocalEnvironment('loop'); open_end.from_future('back').print()")
    assert "It cannot run yet: " in shown("open_end")["text/plain"]


def rows_of(kernel: Kernel, reply: Reply) -> list[list[dict[str, Any]]]:
    """All that the rows of a table have been."""
    comm = reply.displays[0][WIDGET]["model_id"]
    messages = [
        content
        for one in kernel.replies.values()
        for content in one.of("comm_msg")
        if content["comm_id"] == comm and "rows" in content["data"].get("state", {})
    ]
    return [content["data"]["state"]["rows"] for content in messages]


def test_the_table_of_jobs_is_live_while_one_runs_and_ends_as_html_and_text(shared: Kernel) -> None:
    for _ in range(3):
        shared.run("%%sage_submit earlier --wait\nenv.from_batch([1]).print()")
    shared.run(ENDLESS.replace("endless", "listed"), cell_id="listed")
    table = shared.run("%sage_jobs -n 3")
    assert {WIDGET, "text/html", "text/plain"} <= table.displays[0].keys()
    shared.until(lambda: any(rows[0]["items"] for rows in rows_of(shared, table)))
    (row, *others) = rows_of(shared, table)[-1]
    assert (row["name"], row["status"], row["where"], row["cell"]) == ("listed", "running", "kernel", "listed")
    assert len(others) == 2
    comm = table.displays[0][WIDGET]["model_id"]
    content = {"command": "stop", "job": row["uuid"]}
    shared.wait(shared.send_comm(comm, {"method": "custom", "content": content}))
    (shown,) = [outputs for outputs in shared.displays.values() if outputs[0] == table.displays[0]]
    shared.until(lambda: WIDGET not in shown[-1])
    assert rows_of(shared, table)[-1][0]["status"] == "stopped"
    assert re.search(r"listed +stopped", shown[-1]["text/plain"])
    assert "more before them: %sage_jobs -n" in shown[-1]["text/plain"]
    assert shared.run("leftovers()").result == "[]"
    assert WIDGET not in shared.run("%sage_jobs").displays[0]


def test_the_newest_table_is_the_live_one(shared: Kernel) -> None:
    shared.run(ENDLESS, cell_id="tables")
    first = shared.run("%sage_jobs")
    second = shared.run("%sage_jobs")
    (shown,) = [outputs for outputs in shared.displays.values() if outputs[0] == first.displays[0]]
    shared.until(lambda: WIDGET not in shown[-1])
    shared.until(lambda: bool(rows_of(shared, second)))
    shared.run("job.stop();")


def test_a_table_that_nobody_sees_gets_few_rows(shared: Kernel) -> None:
    shared.run(ENDLESS.replace("endless", "unseen_row"), cell_id="unseen table")
    table = shared.run("%sage_jobs -n 1")
    comm = table.displays[0][WIDGET]["model_id"]

    def tell(visible: bool) -> int:
        content = {"command": "view", "id": "v", "visible": visible}
        shared.wait(shared.send_comm(comm, {"method": "custom", "content": content}))
        return len(rows_of(shared, table))

    before = tell(False)
    begun = int(shared.run("job.snapshot().items").result or 0)
    shared.until(lambda: int(shared.run("job.snapshot().items").result or 0) > begun + 1000)  # which takes over 2 s
    assert len(rows_of(shared, table)) <= before + 1
    before = tell(True)
    shared.until(lambda: len(rows_of(shared, table)) >= before + 3, timeout=8)
    shared.run("job.stop();")
