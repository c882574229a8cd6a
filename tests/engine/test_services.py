"""Services: up in order, called, down in reverse order; on every ending, and whatever they do."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

import sage_nb
from sage_nb import (
    BaseService,
    LocalEnvironment,
    MapFunction,
    ServiceError,
    ServiceMethodError,
    ServiceNotFoundError,
    ServiceStoppedError,
    ServiceTimeout,
)
from tests.support import LIMIT, Gate, until


class Recorded(BaseService):
    """Notes its life; `trouble` names the hook that raises."""

    def __init__(self, life: list[str], trouble: str = "") -> None:
        self.life, self.trouble = life, trouble
        self.note("made")

    def note(self, event: str) -> None:
        self.life.append(f"{self.ctx.name} {event}")
        if event == self.trouble:
            raise LookupError(event)

    def setup(self) -> None:
        self.note("setup")

    def start(self) -> None:
        self.note("start")

    def stop(self) -> None:
        self.note("stop")

    def cleanup(self) -> None:
        self.note("cleanup")

    def process(self, item: Any = None) -> Any:
        return item


UP = ["made", "setup", "start"]
DOWN = ["stop", "cleanup"]


def of(name: str, events: list[str]) -> list[str]:
    return [f"{name} {event}" for event in events]


def environment(*services: type, **options: Any) -> LocalEnvironment:
    env = LocalEnvironment("services", **options)
    for cls in services:
        env.register_service(cls.__name__.lower(), cls)
    return env


def served(cls: type, call: Any, *args: Any, items: Any = (1,), **kw: Any) -> list[Any]:
    """What `call` makes of the items of a pipeline with the service `s`."""
    env = LocalEnvironment("served")
    env.register_service("s", cls, *args, **kw)
    env.from_batch(items).map(call).collect("out")
    return list(env.submit(autostop=True).results["out"])


# Life


def test_services_come_up_in_order_and_go_down_in_reverse() -> None:
    life: list[str] = []
    env = LocalEnvironment("order")
    for name in ("a", "b", "c"):
        env.register_service(name, Recorded, life)
    env.from_batch([1]).sink(lambda _: life.append("item"))
    env.submit(autostop=True)
    up = [event for name in "abc" for event in of(name, UP)]
    down = [event for name in "cba" for event in of(name, DOWN)]
    assert life == [*up, "item", *down]


@pytest.mark.parametrize("index", range(100))
def test_cleanup_has_run_when_submit_returns(index: int) -> None:
    """Even for a job of one item, 100 times of 100."""
    life: list[str] = []
    env = LocalEnvironment("one")
    env.register_service("s", Recorded, life)
    env.from_batch([1]).sink(lambda _: None)
    job = env.submit(autostop=True)
    assert life == of("s", UP + DOWN)
    assert job.progress.services[0].state == "stopped"


@pytest.mark.parametrize("trouble", ["made", "setup", "start"])
def test_a_service_that_fails_to_start_takes_down_those_before_it(trouble: str) -> None:
    life: list[str] = []
    seen: list[int] = []
    env = LocalEnvironment("broken")
    env.register_service("first", Recorded, life)
    env.register_service("broken", Recorded, life, trouble)
    env.register_service("never", Recorded, life)
    env.from_batch([1]).sink(seen.append)
    with pytest.raises(LookupError, match=trouble) as caught:
        env.submit(autostop=True)
    assert "the start of service 'broken'" in caught.value.__notes__[0]
    begun = of("broken", UP[: UP.index(trouble) + 1])
    ended = of("broken", DOWN) if trouble != "made" else []
    assert life == [*of("first", UP), *begun, *ended, *of("first", DOWN)]
    assert seen == []
    assert env.job is not None
    assert [s.state for s in env.job.progress.services] == ["stopped", "failed", "waiting"]


@pytest.mark.parametrize("trouble", DOWN)
def test_a_service_that_fails_to_stop_fails_the_job_and_stops_no_other(trouble: str) -> None:
    life: list[str] = []
    env = LocalEnvironment("broken")
    env.register_service("first", Recorded, life)
    env.register_service("broken", Recorded, life, trouble)
    env.from_batch([1]).collect("out")
    with pytest.raises(LookupError, match=trouble) as caught:
        env.submit(autostop=True)
    assert f"{trouble}() of service 'broken'" in caught.value.__notes__[0]
    assert life[6:] == [*of("broken", DOWN), *of("first", DOWN)]
    assert env.job is not None
    assert list(env.job.results["out"]) == [1]


def test_the_pipelines_own_failure_comes_before_that_of_a_service() -> None:
    life: list[str] = []
    env = LocalEnvironment("both")
    env.register_service("s", Recorded, life, "stop")
    env.from_batch([1]).map(lambda x: x // 0).collect("out")
    with pytest.raises(ZeroDivisionError):
        env.submit(autostop=True)
    assert life == of("s", UP + DOWN)


def test_services_are_down_after_a_stop() -> None:
    life: list[str] = []
    env = LocalEnvironment("stopped")
    env.register_service("s", Recorded, life)
    env.from_source(lambda: 1).sink(lambda _: None)
    assert env.submit().stop().status == "stopped"
    assert life == of("s", UP + DOWN)


class OtherNames:
    def __init__(self, life: list[str]) -> None:
        self.life = life

    def start_running(self) -> None:
        self.life.append("start_running")

    def terminate(self) -> None:
        self.life.append("terminate")

    def close(self) -> None:
        self.life.append("close")


class NoHooksBase:
    def start(self) -> None: ...

    def stop(self) -> None: ...

    def cleanup(self) -> None: ...


class UnderOtherNames(OtherNames, NoHooksBase):
    pass


class OwnUnderOtherNames(NoHooksBase):
    __init__ = OtherNames.__init__
    start_running = OtherNames.start_running
    terminate = OtherNames.terminate
    close = OtherNames.close


@pytest.mark.parametrize("cls", [OtherNames, UnderOtherNames, OwnUnderOtherNames])
def test_hooks_go_by_either_name_and_the_users_one_wins_over_a_bases(cls: type) -> None:
    life: list[str] = []
    served(cls, lambda x: x, life)
    assert life == ["start_running", "terminate", "close"]


def test_of_two_names_in_one_class_the_first_runs() -> None:
    life: list[str] = []

    class Both(OtherNames):
        def stop(self) -> None:
            self.life.append("stop")

        def terminate(self) -> None:
            self.life.append("terminate")

    served(Both, lambda x: x, life)
    assert life == ["start_running", "stop", "close"]


class Plain:
    def process(self, item: int) -> int:
        return item + 1


def test_any_class_is_a_service() -> None:
    assert served(Plain, lambda x: sage_nb.call_service("s", x)) == [2]


def test_the_same_name_again_replaces() -> None:
    env = LocalEnvironment("replaced")
    env.register_service("s", Recorded, [])
    env.register_service("s", Plain)
    env.from_batch([1]).map(lambda x: sage_nb.call_service("s", x)).collect("out")
    job = env.submit(autostop=True)
    assert list(job.results["out"]) == [2]
    assert [(s.name, s.type) for s in job.progress.services] == [("s", "Plain")]


def test_the_context_is_there_before_the_constructor() -> None:
    class Looks(BaseService):
        def __init__(self, extra: str) -> None:
            self.seen = (self.ctx.name, self.name, extra)
            self.logger.info("made")

        def process(self, _: Any) -> Any:
            return self.seen

    assert served(Looks, lambda x: sage_nb.call_service("s", x), "argument") == [("s", "s", "argument")]


class Sealed:
    def __setattr__(self, name: str, value: Any) -> None:
        raise ValueError("sealed")

    def process(self, item: int) -> int:
        return item


def test_a_class_that_takes_no_attributes_is_a_service() -> None:
    assert served(Sealed, lambda x: sage_nb.call_service("s", x)) == [1]


def test_a_factory_makes_the_service_when_the_job_starts() -> None:
    made: list[int] = []

    def make(first: int, *, second: int) -> Plain:
        made.append(first + second)
        return Plain()

    env = LocalEnvironment("factory")
    env.register_service_factory("s", make, 1, second=2)
    assert made == []
    env.from_batch([1]).map(lambda x: sage_nb.call_service("s", x)).collect("out")
    for _ in range(2):
        assert list(env.submit(autostop=True).results["out"]) == [2]
    assert made == [3, 3]


# Calls


class Calculator(BaseService):
    def process(self, *args: Any, **kw: Any) -> Any:
        return ("processed", args, kw)

    def add(self, a: int, b: int = 0) -> int:
        return a + b

    def fail(self) -> None:
        raise LookupError("mine")

    value = 5


class Calls(MapFunction):
    def __init__(self, how: str) -> None:
        self.how = how

    def execute(self, data: int) -> Any:
        if self.how == "self":
            return self.call_service("s", data, method="add", b=10)
        if self.how == "self proxy":
            return self.call_service("s").add(data, b=10)
        if self.how == "self timeout":
            return self.call_service("s", data, method="add", timeout=LIMIT, b=10)
        if self.how == "self async":
            return self.call_service_async("s", data, method="add", b=10).result(LIMIT)
        if self.how == "function":
            return sage_nb.call_service("s", data, method="add", b=10)
        if self.how == "function proxy":
            return sage_nb.call_service("s").add(data, timeout=LIMIT, b=10)
        return sage_nb.call_service_async("s", data, method="add", b=10).result(LIMIT)


@pytest.mark.parametrize(
    "how", ["self", "self proxy", "self timeout", "self async", "function", "function proxy", "function async"]
)
def test_every_form_of_a_call_gives_the_same(how: str) -> None:
    env = LocalEnvironment("calls")
    env.register_service("s", Calculator)
    env.from_batch([1, 2]).map(Calls, how).collect("out")
    job = env.submit(autostop=True)
    assert list(job.results["out"]) == [11, 12]
    assert job.progress.services[0].calls == 2


def test_a_call_without_a_method_is_process() -> None:
    call = sage_nb.call_service
    assert served(Calculator, lambda x: call("s", x, key="k")) == [("processed", (1,), {"key": "k"})]
    assert served(Calculator, lambda x: call("s", method="process")) == [("processed", (), {})]
    assert served(Calculator, lambda x: call("s", timeout=LIMIT)) == [("processed", (), {})]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda _: sage_nb.call_service("t", 1), ServiceNotFoundError, "no service 't' is registered; there are: s"),
        (lambda _: sage_nb.call_service("t"), ServiceNotFoundError, "'t'"),
        (lambda _: sage_nb.call_service_async("t"), ServiceNotFoundError, "'t'"),
        (lambda _: sage_nb.call_service("s", method="multiply"), ServiceMethodError, "no method 'multiply'"),
        (lambda _: sage_nb.call_service("s").multiply(1), ServiceMethodError, r"'s' \(Calculator\) has no method"),
        (lambda _: sage_nb.call_service("s", method="value"), ServiceMethodError, "no method 'value'"),
        (lambda _: sage_nb.call_service("s").add("x", 1), TypeError, "concatenate"),
        (lambda _: sage_nb.call_service("s").fail(), LookupError, "mine"),
        (lambda _: sage_nb.call_service("s", method="fail", timeout=LIMIT), LookupError, "mine"),
        (lambda _: sage_nb.call_service_async("s", method="fail").result(LIMIT), LookupError, "mine"),
    ],
)
def test_errors_of_a_call_keep_their_type(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        served(Calculator, call)
    assert type(caught.value) is error


def test_an_error_inside_a_service_keeps_its_traceback() -> None:
    with pytest.raises(LookupError) as caught:
        served(Calculator, lambda _: sage_nb.call_service("s", method="fail", timeout=LIMIT))
    assert caught.traceback[-1].name == "fail"
    assert "raise LookupError" in caught.value.__notes__[0]


def test_a_call_outside_a_pipeline_says_so() -> None:
    with pytest.raises(ServiceError, match="inside a running pipeline"):
        sage_nb.call_service("s", 1)


class Slow(BaseService):
    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def process(self, item: int) -> int:
        return int(self.gate(item))

    def times_out(self) -> None:
        raise TimeoutError("its own")


def test_a_call_that_takes_too_long_is_given_up() -> None:
    with Gate() as gate:
        caught: list[str] = []

        def call(item: int) -> int:
            try:
                sage_nb.call_service("s", item, timeout=0.05)
            except ServiceTimeout as exc:
                caught.append(str(exc))
                gate.open()
            return int(sage_nb.call_service("s", item, timeout=LIMIT))

        assert served(Slow, call, gate) == [1]
    assert caught == ["service 's': process() took longer than 0.05 s"]


def test_a_services_own_timeout_error_is_its_own() -> None:
    with pytest.raises(TimeoutError, match="its own") as caught:
        served(Slow, lambda _: sage_nb.call_service("s", method="times_out", timeout=LIMIT), Gate())
    assert type(caught.value) is TimeoutError


class Overlap(BaseService):
    """Knows how many calls were inside at once; two that wait for each other can only meet if they overlap."""

    def __init__(self, meeting: threading.Barrier | None = None, peaks: list[int] | None = None) -> None:
        self.inside = 0
        self.most = 0
        self.meeting = meeting
        self.peaks = [] if peaks is None else peaks

    def process(self, item: Any) -> Any:
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.meeting is not None:
            self.meeting.wait(LIMIT)
        else:
            time.sleep(0)
        self.inside -= 1
        return item

    def stop(self) -> None:
        self.peaks.append(self.most)


class ThreadSafe(Overlap):
    thread_safe = True


def test_calls_of_one_service_come_one_at_a_time() -> None:
    peaks: list[int] = []
    env = LocalEnvironment("serial")
    env.register_service("s", Overlap, peaks=peaks)
    for _ in range(3):
        env.from_batch(range(200)).map(lambda x: sage_nb.call_service("s", x)).sink(lambda _: None)
        env.from_batch(range(50)).sink(lambda x: sage_nb.call_service_async("s", x).result(LIMIT))
    job = env.submit(autostop=True)
    assert peaks == [1]
    assert job.progress.services[0].calls == 3 * 250


@pytest.mark.parametrize("asynchronous", [False, True])
def test_calls_of_a_thread_safe_service_overlap(asynchronous: bool) -> None:
    meeting = threading.Barrier(3)

    def call(item: int) -> Any:
        if asynchronous:
            futures = [sage_nb.call_service_async("s", item) for _ in range(3)]
            return [future.result(LIMIT) for future in futures]
        return sage_nb.call_service("s", item)

    env = LocalEnvironment("parallel")
    env.register_service("s", ThreadSafe, meeting)
    for n in range(1 if asynchronous else 3):
        env.from_batch([n]).map(call).collect(f"r{n}")
    env.submit(autostop=True)


def test_services_call_services_and_themselves() -> None:
    class Doubles(BaseService):
        def process(self, item: int) -> int:
            return int(self.call_service("s", item, method="add", b=item))

    class Twice(BaseService):
        def process(self, item: int) -> Any:
            return self.call_service("doubles", self.call_service("twice", item, method="same"))

        def same(self, item: int) -> int:
            return item

    env = environment(Doubles, Twice)
    env.register_service("s", Calculator)
    env.from_batch([3]).map(lambda x: sage_nb.call_service("twice", x)).collect("out")
    assert list(env.submit(autostop=True).results["out"]) == [6]


def test_a_service_can_call_those_before_it_while_it_starts_and_stops() -> None:
    got: list[int] = []

    class Late(BaseService):
        def setup(self) -> None:
            got.append(self.call_service("calculator", 1, method="add"))

        def cleanup(self) -> None:
            got.append(self.call_service("calculator", 2, method="add"))

    env = environment(Calculator, Late)
    env.from_batch([1]).sink(lambda _: None)
    env.submit(autostop=True)
    assert got == [1, 2]


def test_a_service_that_is_not_up_refuses_calls() -> None:
    class Early(BaseService):
        def setup(self) -> None:
            self.call_service("calculator", 1)

    env = environment(Early, Calculator)
    env.from_batch([1]).sink(lambda _: None)
    with pytest.raises(ServiceStoppedError, match="'calculator' is waiting"):
        env.submit(autostop=True)


def test_a_call_after_the_job_is_refused() -> None:
    kept: list[Any] = []
    served(Calculator, lambda x: kept.extend([sage_nb.call_service("s")]))
    with pytest.raises(ServiceStoppedError, match="is stopped"):
        kept[0].add(1)


def test_asynchronous_calls_end_before_their_service_stops() -> None:
    """Nothing is lost: what was asked for before the end is done, and only then the service goes down."""
    order: list[str] = []

    class Writes(BaseService):
        def process(self, item: int) -> None:
            order.append(f"wrote {item}")

        def stop(self) -> None:
            order.append("stop")

    env = environment(Writes)
    env.from_batch(range(50)).sink(lambda x: sage_nb.call_service_async("writes", x))
    env.submit(autostop=True)
    assert order == [*(f"wrote {n}" for n in range(50)), "stop"]


def test_asynchronous_calls_of_many_services_end_while_all_of_them_are_up() -> None:
    """What a queued call needs of other services is there, whatever the order in which they stop."""
    with Gate() as gate:
        env = environment(Calculator)
        env.register_service("s", Asks, gate)
        env.register_service("late", Calculator)
        futures: list[Future[Any]] = []
        env.from_batch([1, 2]).sink(lambda x: futures.append(sage_nb.call_service_async("s", x)))
        job = env.submit()
        gate.wait()
        until(lambda: job.status == "stopping")
    job.wait()
    assert [future.result(LIMIT) for future in futures] == [1 + 10 + 100, 2 + 10 + 100]


class Asks(BaseService):
    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def process(self, item: int) -> Any:
        self.gate(item)
        first = self.call_service("late").add(item, 10)
        return self.call_service("calculator", first, method="add", b=100)


@pytest.mark.parametrize("index", range(20))
def test_a_call_that_was_accepted_is_never_lost(index: int) -> None:
    """Not even where it is asked for in the very last moment."""
    done: list[int] = []

    class Writes(BaseService):
        def process(self, item: int) -> None:
            done.append(item)

    env = environment(Writes)
    env.from_batch([1, 2]).sink(lambda x: sage_nb.call_service_async("writes", x))
    env.submit(autostop=True)
    assert done == [1, 2]


def test_asking_asynchronously_does_not_wait_for_the_call_that_runs() -> None:
    with Gate() as gate:
        env = LocalEnvironment("busy")
        env.register_service("s", Slow, gate)
        asked: list[Future[Any]] = []

        def ask(item: int) -> None:
            asked.append(sage_nb.call_service_async("s", item))
            gate.wait()  # from now on a call runs

        env.from_batch(range(3)).sink(ask)
        job = env.submit()
        until(lambda: len(asked) == 3)
        assert not any(future.done() for future in asked)
    job.wait()
    assert [future.result() for future in asked] == [0, 1, 2]


def test_a_time_limit_holds_while_another_call_hangs() -> None:
    with Gate() as gate:
        caught: list[str] = []

        def call(item: int) -> None:
            try:
                sage_nb.call_service("s", item, timeout=0.05)
            except ServiceTimeout as exc:
                caught.append(str(exc))
            gate.open() if len(caught) == 3 else None

        assert served(Slow, call, gate, items=range(3)) == []
    assert len(caught) == 3


def test_a_stop_cancels_the_asynchronous_calls_that_have_not_begun() -> None:
    futures: list[Future[Any]] = []
    with Gate() as gate:
        env = LocalEnvironment("cancelled")
        env.register_service("s", Slow, gate)
        queued = Gate(at=3)
        queued.open()

        def call(item: int) -> None:
            futures.append(sage_nb.call_service_async("s", item))
            queued(item)

        env.from_source(lambda: 1 if len(futures) < 3 else None).sink(call)
        job = env.submit()
        gate.wait()
        queued.wait()
        job.request_stop()
        until(lambda: futures[1].cancelled() and futures[2].cancelled())
    job.stop()
    assert futures[0].result(LIMIT) == 1
    with pytest.raises(CancelledError):
        futures[2].result(LIMIT)


# Services that do not come back


class Hangs(Recorded):
    def __init__(self, life: list[str], gate: Gate, where: str) -> None:
        super().__init__(life)
        self.gate, self.where = gate, where

    def setup(self) -> None:
        super().setup()
        self.gate(0) if self.where == "setup" else None

    def stop(self) -> None:
        super().stop()
        self.gate(0) if self.where == "stop" else None


def test_a_stop_hook_that_hangs_is_reported_and_the_others_run() -> None:
    life: list[str] = []
    with Gate() as gate:
        env = LocalEnvironment("hangs", config={"service_stop_timeout": 0.1})
        env.register_service("first", Recorded, life)
        env.register_service("stuck", Hangs, life, gate, "stop")
        env.register_service("last", Recorded, life)
        env.from_batch([1]).collect("out")
        job = env.submit(autostop=True)
        assert life[-4:] == [*of("stuck", DOWN), *of("first", DOWN)]
        assert [(s.name, s.state) for s in job.progress.services] == [
            *(("first", "stopped"), ("stuck", "hung"), ("last", "stopped")),
        ]
        assert any("'stuck': stop() did not return" in note for note in job.notes)
        assert job.status == "completed"
    assert not any(service.instance for service in job._dispatcher.services_host)


def test_a_start_that_hangs_does_not_hold_up_a_stop() -> None:
    life: list[str] = []
    with Gate() as gate:
        env = LocalEnvironment("hangs")
        env.register_service("first", Recorded, life)
        env.register_service("stuck", Hangs, life, gate, "setup")
        env.from_batch([1]).collect("out")
        job = env.submit()
        gate.wait()
        assert job.snapshot().waiting_for == "service 'stuck' to start"
        began = time.monotonic()
        job.stop(timeout=0.1)
        assert time.monotonic() - began < 5
        assert job.status == "stopped"
        assert life[-2:] == of("first", DOWN)
        assert any("the start of service 'stuck' did not return" in note for note in job.notes)


def test_a_call_that_hangs_does_not_hold_up_a_stop() -> None:
    with Gate() as gate:
        env = LocalEnvironment("hangs", config={"service_stop_timeout": 0.1})
        env.register_service("s", Slow, gate)
        env.from_batch([1]).map(lambda x: sage_nb.call_service_async("s", x).result()).collect("out")
        job = env.submit()
        gate.wait()
        began = time.monotonic()
        job.stop(timeout=0.1)
        assert time.monotonic() - began < 5
        assert job.status == "stopped"
        assert job.progress.services[0].state == "hung"


# Cleanup policies


@pytest.mark.parametrize(
    ("cleanup", "fails", "kept"),
    [
        ("always", False, False),
        ("always", True, False),
        ("on_success", False, False),
        ("on_success", True, True),
        ("never", False, True),
        ("never", True, True),
    ],
)
def test_cleanup_says_when_services_are_kept(cleanup: Any, fails: bool, kept: bool) -> None:
    life: list[str] = []
    env = LocalEnvironment("kept")
    env.register_service("s", Recorded, life)
    env.from_batch([1]).map(lambda x: x // 0 if fails else x).collect("out")
    if fails:
        with pytest.raises(ZeroDivisionError):
            env.submit(autostop=True, cleanup=cleanup)
    else:
        env.submit(autostop=True, cleanup=cleanup)
    job = env.job
    assert job is not None
    status = "failed" if fails else "completed"
    assert job.status == status
    if kept:
        assert life == of("s", UP)
        assert job.progress.services[0].state == "kept"
        instance = job.info.dispatcher.services["s"]
        assert instance.process("still there") == "still there"
        job.stop()
    assert life == of("s", UP + DOWN)
    assert job.status == status
    assert job.progress.services[0].state == "stopped"
    assert dict(job.info.dispatcher.services) == {}
    job.stop()
    assert life == of("s", UP + DOWN)


def test_a_kept_service_whose_stop_raises_is_logged() -> None:
    env = LocalEnvironment("kept")
    env.register_service("s", Recorded, [], "stop")
    env.from_batch([1]).collect("out")
    job = env.submit(autostop=True, cleanup="never")
    job.stop()
    assert any("stop() raised LookupError" in note for note in job.notes)
    assert job.progress.services[0].state == "failed"


def test_nothing_is_kept_of_a_job_without_services() -> None:
    env = LocalEnvironment("none")
    env.from_batch([1]).collect("out")
    job = env.submit(autostop=True, cleanup="never")
    assert job.notes == ()
    env.submit(autostop=True)
