"""Services as actors: where their hooks and calls run, what callers are told, and what is left of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sage_nb import BaseService, LocalEnvironment, call_service, call_service_async
from sage_nb.errors import PipelineError, ServiceDiedError, ServiceMethodError, ServiceTimeout
from tests.onray.support import living_actors, on_ray
from tests.support import LIMIT, until

BACKENDS = ("threads", "ray")


class Counter(BaseService):
    """Counts its calls, and writes down its hooks, each with the process that it runs in."""

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path, self.count = path, start

    def note(self, what: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{what} {os.getpid()}\n")

    def setup(self) -> None:
        self.note("setup")

    def start(self) -> None:
        self.note("start")

    def stop(self) -> None:
        self.note("stop")

    def cleanup(self) -> None:
        self.note("cleanup")

    def process(self, item: int) -> tuple[int, int]:
        self.count += item
        return self.count, os.getpid()

    def refuse(self, item: int) -> int:
        raise LookupError(f"no {item} here")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


def env_of(backend: str, **options: Any) -> LocalEnvironment:
    return LocalEnvironment("services", backend=backend, **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_and_hooks_run_in_one_actor_and_nothing_is_left(backend: str, tmp_path: Path) -> None:
    env = env_of(backend)
    env.register_service("counter", Counter, tmp_path / "hooks", start=100, remote=True)
    env.from_batch([1, 2, 3]).map(lambda n: call_service("counter", n)).collect("out")
    job = env.submit(autostop=True)
    out = list(job.results["out"])
    assert [count for count, _ in out] == [101, 103, 106]
    (pid,) = {pid for _, pid in out}
    assert pid != os.getpid()
    hooks = (tmp_path / "hooks").read_text().splitlines()
    assert hooks == [f"{what} {pid}" for what in ("setup", "start", "stop", "cleanup")]
    assert living_actors() == []
    (view,) = job.progress.services
    assert (view.name, view.state, view.calls) == ("counter", "stopped", 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_keep_their_type(backend: str, tmp_path: Path) -> None:
    env = env_of(backend)
    env.register_service("counter", Counter, tmp_path / "hooks", remote=True)
    env.from_batch([7]).map(lambda n: call_service("counter", n, method="refuse")).collect("out")
    with pytest.raises(LookupError, match="no 7 here") as caught:
        env.submit(autostop=True)
    assert "refuse" in "".join(map(str, caught.value.__notes__)) or caught.value.__notes__
    env = env_of(backend)
    env.register_service("counter", Counter, tmp_path / "hooks", remote=True)
    env.from_batch([7]).map(lambda n: call_service("counter", n, method="reset")).collect("out")
    with pytest.raises(ServiceMethodError, match=r"service 'counter' \(Counter\) has no method 'reset'"):
        env.submit(autostop=True)


def test_a_call_that_takes_too_long_is_a_timeout(tmp_path: Path) -> None:
    env = env_of("threads")
    env.register_service("counter", Counter, tmp_path / "hooks", remote=True)
    env.from_batch([0.5]).map(lambda s: call_service("counter", s, method="wait", timeout=0.05)).collect("out")
    with pytest.raises(ServiceTimeout, match=r"wait\(\) took longer than 0.05 s"):
        env.submit(autostop=True)


def test_a_start_that_fails_fails_the_job() -> None:
    class Broken(BaseService):
        def setup(self) -> None:
            raise OSError("no such model")

    env = env_of("threads")
    env.register_service("broken", Broken, remote=True)
    env.from_batch([1]).sink(print)
    with pytest.raises(OSError, match="no such model") as caught:
        env.submit(autostop=True)
    assert "the start of service 'broken'" in "\n".join(caught.value.__notes__)
    assert living_actors() == []


def test_what_a_service_prints_and_logs_reaches_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    class Talks(BaseService):
        def process(self, n: int) -> int:
            print(f"printed {n}", flush=True)
            self.logger.warning("logged %d", n)
            return n

    env = env_of("threads")
    env.register_service("talks", Talks, remote=True)
    env.from_batch(range(2)).map(lambda n: call_service("talks", n)).collect("out")
    job = env.submit(autostop=True)
    assert [line.text for line in job.logs() if line.level == "WARNING"] == ["logged 0", "logged 1"]
    assert capsys.readouterr().out.count("printed") == 2


def test_a_service_in_an_actor_calls_one_in_the_kernel_and_the_other_way() -> None:
    class Here(BaseService):
        def process(self, n: int) -> tuple[int, int]:
            return n + 1, os.getpid()

    class There(BaseService):
        def process(self, n: int) -> tuple[int, int, int]:
            return (*self.call_service("here", n), os.getpid())

    class Back(BaseService):
        def process(self, n: int) -> Any:
            return self.call_service("there", n)

    env = env_of("threads")
    env.register_service("here", Here)
    env.register_service("there", There, remote=True)
    env.register_service("back", Back)
    env.from_batch([1]).map(lambda n: call_service("back", n)).collect("out")
    ((n, here, there),) = env.submit(autostop=True).results["out"]
    assert (n, here) == (2, os.getpid())
    assert there != os.getpid()


def test_a_thread_safe_service_takes_several_calls_at_a_time(tmp_path: Path) -> None:
    class Meets(BaseService):
        thread_safe = True

        def __init__(self) -> None:
            self.barrier = threading.Barrier(3)

        def process(self, n: int) -> int:
            self.barrier.wait(20)
            return n

    env = env_of("threads")
    env.register_service("meets", Meets, remote=True)

    def three(_: int) -> list[int]:
        return sorted(future.result(20) for future in [call_service_async("meets", n) for n in range(3)])

    env.from_batch([0]).map(three).collect("out")
    assert list(env.submit(autostop=True).results["out"]) == [[0, 1, 2]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_service_that_dies_is_a_typed_error_for_who_called(backend: str, tmp_path: Path) -> None:
    env = env_of(backend)
    env.register_service("counter", Counter, tmp_path / "hooks", remote=True)
    env.from_batch([1]).map(lambda _: call_service("counter", method="die", timeout=None)).collect("out")
    began = time.monotonic()
    with pytest.raises(ServiceDiedError, match=r"service 'counter': its actor .*has died"):
        env.submit(autostop=True)
    assert time.monotonic() - began < 20
    assert living_actors() == []


def test_a_service_that_may_is_made_anew(tmp_path: Path) -> None:
    """The call during which it died fails; later ones find a new one, which was set up as the first was."""
    path = tmp_path / "hooks"

    def use(n: int) -> Any:
        if n == 2:
            with pytest.raises(ServiceDiedError, match="it is being made anew"):
                call_service("counter", method="die")
            until(lambda: path.read_text().count("start") == 2)
            return "died"
        for _ in range(100):
            try:
                return call_service("counter", n)[0]
            except ServiceDiedError:
                time.sleep(0.1)
        raise AssertionError("it did not come again")

    env = env_of("threads")
    env.register_service("counter", Counter, path, remote=True, ray={"max_restarts": 1})
    env.from_batch([1, 2, 3]).map(use).collect("out")
    assert list(env.submit(autostop=True).results["out"]) == [1, "died", 3]
    hooks = [line.split() for line in path.read_text().splitlines()]
    assert [what for what, _ in hooks] == ["setup", "start", "setup", "start", "stop", "cleanup"]
    assert len({pid for _, pid in hooks}) == 2


def test_a_service_that_may_not_come_again_says_so(tmp_path: Path) -> None:
    def use(n: int) -> str:
        for _ in range(200):
            try:
                call_service("counter", method="die")
            except ServiceDiedError as exc:
                if "its other calls fail as well" in str(exc):
                    return "for good"
                time.sleep(0.1)
        raise AssertionError("it came again and again")

    env = env_of("threads")
    env.register_service("counter", Counter, tmp_path / "hooks", remote=True, ray={"max_restarts": 1})
    env.from_batch([1]).map(use).collect("out")
    assert list(env.submit(autostop=True).results["out"]) == ["for good"]


def test_a_service_hears_of_a_stop(tmp_path: Path) -> None:
    class Waits(BaseService):
        def process(self, path: Path) -> None:
            path.touch()
            while not self.ctx.is_stop_requested():
                time.sleep(0.01)

    env = env_of("threads")
    env.register_service("waits", Waits, remote=True)
    env.from_batch([tmp_path / "called"]).map(lambda path: call_service("waits", path)).collect("out")
    job = env.submit()
    until((tmp_path / "called").exists, 4 * LIMIT)
    began = time.monotonic()
    job.stop()
    assert time.monotonic() - began < LIMIT / 3


def test_a_service_that_is_kept_is_there_until_the_job_is_stopped(tmp_path: Path) -> None:
    env = env_of("threads")
    env.register_service("counter", Counter, tmp_path / "hooks", remote=True)
    env.from_batch([1]).map(lambda n: call_service("counter", n)).collect("out")
    job = env.submit(cleanup="never")
    job.wait()
    assert len(living_actors()) == 1
    job.stop()
    assert living_actors() == []
    assert (tmp_path / "hooks").read_text().split()[::2] == ["setup", "start", "stop", "cleanup"]


def test_a_hook_that_hangs_is_given_up_and_its_process_ended(tmp_path: Path) -> None:
    class Hangs(BaseService):
        def cleanup(self) -> None:
            time.sleep(600)

    env = env_of("threads", config={"service_stop_timeout": 0.3})
    env.register_service("hangs", Hangs, remote=True)
    env.from_batch([1]).sink(lambda n: None)
    job = env.submit()
    job.wait()
    assert job.progress.services[0].state == "hung"
    until(lambda: not living_actors())


def test_what_cannot_travel_is_named_before() -> None:
    class Holds(BaseService):
        def __init__(self, lock: Any) -> None:
            self.lock = lock

    env = env_of("threads")
    env.register_service("holds", Holds, threading.Lock(), remote=True)
    env.from_batch([1]).sink(print)
    with pytest.raises(PipelineError, match=r"service 'holds'.*lock"):
        env.submit(autostop=True)


def test_options_of_a_service_are_checked() -> None:
    with pytest.raises(PipelineError, match="ray has no option 'restarts'"):
        on_ray().register_service("counter", dict, remote=True, ray={"restarts": 1})
