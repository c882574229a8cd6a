"""What jobs print, log and display, in real kernels: in which cell it is, in which order, and how much of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from sage_nb.remote.daemon import start_background
from sage_nb.remote.settings import Settings
from tests.kernels import Kernel, Reply
from tests.servers import own_folders

Start = Callable[..., Kernel]
PARTS = """
%load_ext sage_nb
import logging, sys, threading, time, warnings
from IPython.display import HTML
from sage_nb import *

def speak(n):
    print("out", n)
    print("err", n, file=sys.stderr)
    warnings.warn(f"warned {n}")
    logging.getLogger("mine").warning(f"logged {n}")
    display(HTML(f"<b>shown {n}</b>"))
    time.sleep(0.02)
    return n

def chatter(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        print("mine")
        print("mine too", file=sys.stderr)
        display(HTML("mine as well"))
        time.sleep(0.005)
"""
SPEAKS = "%%sage_submit speaks -o job {options}\nenv.from_batch(range(20)).map(speak).sink(lambda n: None)"
PLACES = ["", "--backend processes", "--remote server"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel, and a server."""
    with own_folders(tmp_path_factory.mktemp("home")) as environment:
        server = start_background(Settings(port=0, max_running=2))
        kernel = Kernel(tmp_path_factory.mktemp("shared"), env=environment)
        assert kernel.run(f"{PARTS}\nserver = '{server.host}:{server.port}'").status == "ok"
        yield kernel
        kernel.shutdown()


def numbers(word: str, text: str) -> list[int]:
    return [int(n) for n in re.findall(rf"{word} (\d+)", text)]


def seen(reply: Reply) -> str:
    """What a person reads below a cell, in order."""
    return "".join(c["text"] for c in reply.of("stream"))


@pytest.mark.parametrize("place", PLACES, ids=["thread", "process", "remote"])
def test_output_is_in_the_cell_that_submitted_and_no_other(shared: Kernel, place: str) -> None:
    job = shared.run(SPEAKS.format(options=place), cell_id="speaks")
    other = shared.run("chatter(1.0)\n_ = await job", cell_id="other")
    assert other.status == "ok", other.error
    shared.run("chatter(0.3)", cell_id="third")
    every = list(range(20))
    shared.until(lambda: numbers("logged", job.stderr) == every)
    assert numbers("out", job.stdout) == every
    assert numbers("err", job.stderr) == every
    assert numbers("UserWarning: warned", job.stderr) in (every, [0])  # Python says it once for each text
    shown = "".join(display.get("text/html", "") for display in job.displays)
    assert numbers("shown", shown) == every
    assert "mine" not in seen(job) + shown
    assert not re.search("out|err|warned|logged|shown", seen(other) + str(other.displays))
    assert not [one for one in shared.strays if one[0] in ("stream", "display_data")]


@pytest.mark.parametrize("place", PLACES, ids=["thread", "process", "remote"])
def test_the_two_streams_keep_their_order(shared: Kernel, place: str) -> None:
    job = shared.run(SPEAKS.format(options=place).replace("range(20)", "range(5)"), cell_id="order")
    shared.run("_ = await job", cell_id="other")
    shared.until(lambda: numbers("logged", job.stderr) == list(range(5)))
    said = re.findall(r"(out|err|logged) (\d)", seen(job))
    assert said == [(word, str(n)) for n in range(5) for word in ("out", "err", "logged")]


AT_ONCE = """%%sage_submit at_once -o job {options}
def three(n):
    print("a", n)
    print("b", n, file=sys.stderr)
    display(HTML(f"c {{n}}"))
env.from_batch(range(10)).sink(three)
"""
THREE = [(word, str(n)) for n in range(10) for word in "abc"]


def below(reply: Reply) -> list[str]:
    """What stands below a cell, from above: `view`, and what is written and displayed."""
    outputs = [content for type_, content in reply.messages if type_ in ("stream", "display_data")]
    ours = [c.get("metadata", {}).get("sage_nb") for c in outputs]
    return ["view" if one else c.get("text") or c["data"]["text/html"] for one, c in zip(ours, outputs, strict=True)]


def three(reply: Reply) -> list[tuple[str, str]]:
    return re.findall(r"([abc]) (\d+)", "".join(below(reply)))


@pytest.mark.parametrize("place", PLACES, ids=["thread", "process", "remote"])
def test_the_view_stands_above_all_that_its_job_prints(shared: Kernel, place: str) -> None:
    for n in range(5):
        job = shared.run(AT_ONCE.format(options=place), cell_id=f"at once {n}")
        shared.run("_ = await job", cell_id="other")
        shared.until(lambda: "b 9" in job.stderr and "c 9" in below(job))  # noqa: B023  # asked before the next round
        assert below(job)[0] == "view"
        assert numbers("a", job.stdout) == numbers("b", job.stderr) == list(range(10))
        if place != "--backend processes":  # what is displayed there has a way of its own
            assert three(job) == THREE


def test_what_a_job_has_printed_stands_below_its_view_when_it_is_attached_to(shared: Kernel) -> None:
    shared.run(AT_ONCE.format(options="--remote server"), cell_id="at once")
    shared.run("_ = await job", cell_id="other")
    reply = shared.run("%sage_attach job server", cell_id="attaches")
    shared.until(lambda: len(three(reply)) == 30)
    assert below(reply)[0] == "view"
    assert three(reply) == THREE


def test_prints_of_jobs_that_have_no_view_yet_wait_for_nothing(shared: Kernel) -> None:
    job = shared.run(AT_ONCE.format(options=""), cell_id="nobody", allow_stdin=False)
    assert three(job) == THREE
    again = shared.run("env.submit(autostop=True); print('done')", cell_id="by hand")
    assert three(again) == THREE
    assert below(again)[-1].endswith("done\n")


def test_threads_of_the_users_that_a_context_is_copied_to_print_there_as_well(shared: Kernel) -> None:
    code = (
        "%%sage_submit threads -o job\nimport asyncio\n"
        "async def there(n):\n    await asyncio.to_thread(print, f'there {n}')\n    return n\n"
        "env.from_batch(range(5)).map_async(there).sink(lambda n: None)"
    )
    job = shared.run(code, cell_id="threads")
    other = shared.run("_ = await job", cell_id="other")
    shared.until(lambda: sorted(numbers("there", job.stdout)) == list(range(5)))
    assert seen(other) == ""


def test_a_print_without_a_line_end_appears_at_once(shared: Kernel) -> None:
    """Law 5."""
    code = "%%sage_submit half -o job\ndef half():\n    print('half of', end='')\n    time.sleep(60)\n"
    job = shared.run(code + "env.from_source(half).sink(lambda n: None)", cell_id="half")
    shared.until(lambda: seen(job) == "half of", timeout=5)
    shared.run("job.stop();")


FLOOD = "%%sage_submit flood -o job {options}\nenv.from_batch(range(100_000)).map(lambda n: print('line', n)).sink(id)"


@pytest.mark.parametrize("place", PLACES, ids=["thread", "process", "remote"])
def test_a_flood_is_counted_and_its_end_is_shown(shared: Kernel, place: str) -> None:
    job = shared.run(FLOOD.format(options=place), cell_id="flood")
    shared.run("_ = await job", cell_id="other")
    shared.until(lambda: "line 99999\n" in job.stdout)
    lines = job.stdout.splitlines()
    assert lines[:200] == [f"line {n}" for n in range(200)]
    assert "… more than a cell should show: from here on lines are counted" in "".join(lines[200:210])
    assert len(lines) < 400  # the view and its Stop stay near
    told = sum(int(n.replace(",", "")) for n in re.findall(r"^… ([\d,]+) lines", job.stdout, re.MULTILINE))
    cut = job.stdout.count("line ")
    assert told >= 100_000 - cut > 95_000
    assert len(job.of("stream")) < 200
    (views,) = [one for one in shared.displays.values() if one[0] == job.displays[0]]
    shared.until(lambda: "Completed" in views[-1]["text/plain"])
    last = views[-1]
    assert "100,000 lines, showing the last 500" in last["text/html"]
    assert "output: 100,000 lines, showing the last 10" in last["text/plain"]


def test_one_long_line_a_bar_and_colours(shared: Kernel) -> None:
    code = (
        "%%sage_submit long -o job\n"
        "def long(n):\n"
        "    print('x' * 50_000_000)\n"
        "    for k in range(3000): print(f'\\rbar {k:5} ' + '#' * 100, end='')\n"
        "    print('\\n\\x1b[31mred\\x1b[0m')\n"
        "env.from_batch([1]).sink(long)"
    )
    job = shared.run(code, cell_id="long")
    shared.run("_ = await job", cell_id="other")
    shared.until(lambda: "\nred\n" in job.stdout)
    assert len(seen(job)) < 100_000
    assert "3 lines (50.3 MB) are not shown here" in job.stdout
    assert f"bar  2999 {'#' * 100}\nred\n" in job.stdout


def test_displays_are_bounded_and_the_last_change_of_one_is_kept(shared: Kernel) -> None:
    code = (
        "%%sage_submit shows -o job\n"
        "handle = display('first', display_id=True)\n"
        "def show(n):\n    handle.update(n)\n    display(HTML(f'shown {n}'))\n"
        "env.from_batch(range(5000)).sink(show)"
    )
    job = shared.run(code, cell_id="shows")
    shared.run("_ = await job", cell_id="other")
    shared.until(lambda: "displays are not shown" in job.stdout)
    shown = [one for one in job.displays if "shown" in one.get("text/html", "")]
    assert 100 <= len(shown) < 200
    assert f"{5000 - len(shown):,} displays are not shown" in job.stdout
    assert job.updates[-1]["text/plain"] == "4999"


def test_the_users_own_output_is_left_alone(shared: Kernel) -> None:
    """Law 4: also where a job that floods runs beside it."""
    shared.run(FLOOD.format(options=""), cell_id="beside")
    own = shared.run("for n in range(20_000): print('own', n)", cell_id="own")
    assert numbers("own", own.stdout) == list(range(20_000))
    shared.run("job.stop();")
    code = (
        "import io, contextlib\nbefore = sys.stdout\n"
        "with contextlib.redirect_stdout(io.StringIO()) as kept: print('kept')\n"
        "sys.stdout is before, kept.getvalue(), type(sys.stdout).__name__, sys.stdout.write('') is not None"
    )
    assert shared.run(code).result == "(True, 'kept\\n', 'OutStream', True)"


def test_unload_leaves_the_kernels_own_streams(kernel: Start) -> None:
    k = kernel()
    k.run("import sys; before = type(sys.stdout), type(get_ipython().display_pub)")
    k.run("%load_ext sage_nb")
    assert k.run("(type(sys.stdout), type(get_ipython().display_pub)) == before").result == "False"
    k.run("%unload_ext sage_nb")
    assert k.run("(type(sys.stdout), type(get_ipython().display_pub)) == before").result == "True"
    assert k.run("print('as before')").stdout == "as before\n"


@pytest.mark.parametrize("place", ["", "--remote server"], ids=["thread", "remote"])
def test_nobody_watches_more_is_shown_and_the_count_told(shared: Kernel, place: str) -> None:
    reply = shared.run(FLOOD.format(options=place).replace("100_000", "50_000"), allow_stdin=False, timeout=60)
    shown = set(numbers("line", reply.stdout))
    assert len(shown) >= 10_000
    told = re.findall(r"… ([\d,]+) lines \(\d\.\d MB\) are not shown here", reply.stdout)
    hidden = sum(int(count.replace(",", "")) for count in told)
    again = hidden + len(shown) - 50_000  # each time the last 20, and where a line was cut, its end
    assert 0 < again <= 21 * len(told)
    assert reply.stdout.rstrip().endswith("line 49999")
    assert "output: 50,000 lines, showing the last 10" in reply.displays[-1]["text/plain"]


def test_a_log_is_kept_whole_in_its_count(shared: Kernel) -> None:
    code = (
        "class Logs(MapFunction):\n    def execute(self, n):\n        self.logger.info(n)\n        return n\n"
        "env = LocalEnvironment('logs')\n"
        "env.from_batch(range(12_000)).map(Logs, parallelism=3).sink(lambda n: None)\njob = env.submit(autostop=True)\n"
        "len(job.logs()), job.snapshot().log_total"
    )
    assert shared.run(code).result == "(10000, 12000)"
