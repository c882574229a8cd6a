"""Snapshots of jobs in every state that the views have to draw, by name."""

from __future__ import annotations

from sage_nb.jobs.snapshot import (
    CodeLine,
    ErrorView,
    JobSnapshot,
    LogView,
    OperatorView,
    ResultView,
    ServiceView,
)

__all__ = ["INJECTION", "SAMPLES"]

INJECTION = '<img src=x onerror="window.harmed=true"><script>window.harmed=true</script>&amp;"\'`</pre></table>'
"""Text that does harm where it is taken for markup."""

_NOON = 1_763_200_800.0


def _operator(id: int, name: str, kind: str, col: int, row: int = 0, **more: object) -> OperatorView:
    return OperatorView(id=id, name=name, kind=kind, col=col, row=row, **more)  # type: ignore[arg-type]


def _chain(
    *, done: float = 1.0, rate: float = 31_250.0, busy: bool = True, errors: int = 0
) -> tuple[OperatorView, ...]:
    """Five operators in a row and a tap: flights read, parsed, filtered, counted, shown."""
    read = int(1_250_000 * done)
    kept = int(read * 0.8)
    share = (0.12, 0.93, 0.41, 0.22, 0.03) if busy else (None,) * 5
    return (
        _operator(0, "flights.csv", "source", 0, items_out=read, rate=rate, busy=share[0], where="Cell In[3], line 2"),
        _operator(
            1,
            "parse",
            "map",
            1,
            upstream=(0,),
            items_in=read,
            items_out=read - errors,
            rate=rate,
            busy=share[1],
            errors=errors,
            queued=96,
            where="Cell In[3], line 3",
        ),
        _operator(
            2,
            "not cancelled",
            "filter",
            2,
            upstream=(1,),
            items_in=read - errors,
            items_out=kept,
            rate=rate * 0.8,
            busy=share[2],
            where="Cell In[3], line 4",
        ),
        _operator(
            3,
            "delay by carrier",
            "map",
            3,
            upstream=(2,),
            items_in=kept,
            items_out=kept,
            rate=rate * 0.8,
            busy=share[3],
            where="Cell In[3], line 5",
        ),
        _operator(4, "delays", "show", 4, upstream=(3,), items_in=kept, rate=rate * 0.8, busy=share[4]),
        _operator(5, "cancelled.jsonl", "sink", 2, 1, upstream=(1,), items_in=read // 5, rate=rate * 0.2),
    )


def _delays(rows: int) -> ResultView:
    carriers = ("AA", "B6", "DL", "EV", "HA", "MQ", "UA", "US", "WN", "YV")
    table = tuple(
        (carriers[i % 10], f"{10_012 + 317 * i:,}", f"{(i * 7919) % 400 / 10 - 6:.1f}", "JFK → LAX" if i % 3 else "EWR")
        for i in range(rows)
    )
    columns = ("carrier", "flights", "delay", "route")
    return ResultView(
        name="delays",
        kind="show",
        total=max(rows, 1_000_000),
        columns=columns,
        numeric=(False, True, True, False),
        rows=table,
    )


def _logs(*entries: tuple[float, str, str, str]) -> tuple[LogView, ...]:
    return tuple(LogView(time=_NOON + at, level=level, source=source, text=text) for at, level, source, text in entries)


_STARTING = JobSnapshot(
    uuid="5f0c9a3e-58a4-4c1e-9e0f-2d7f52c4a001",
    name="flight delays",
    status="starting",
    elapsed=0.42,
    waiting_for="the service model to start",
    operators=_chain(done=0, rate=0, busy=False),
    services=(
        ServiceView(name="cache", type="Cache", state="running"),
        ServiceView(name="model", type="DelayModel", state="starting"),
        ServiceView(name="geo", type="GeoIndex", state="waiting"),
    ),
)

_RUNNING = JobSnapshot(
    uuid="8b1d0a77-0c7e-45d1-8e63-7a5e9c1f0002",
    name="flight delays",
    status="running",
    started=_NOON,
    elapsed=24.7,
    items=775_000,
    rate=31_250.0,
    total=1_250_000,
    fraction=0.62,
    eta=15.2,
    operators=_chain(done=0.62),
    services=(
        ServiceView(name="cache", type="Cache", state="running", calls=1_204_551),
        ServiceView(name="model", type="DelayModel", state="running", calls=620_000),
    ),
    results=(_delays(40),),
    logs=_logs(
        (0.0, "INFO", "job", "started on 8 threads"),
        (0.4, "INFO", "model", "loaded 12 trees in 0.38 s"),
        (9.1, "WARNING", "parse", "arr_time is empty in 1 of 1,000 rows; read as 0"),
        (20.0, "INFO", "cache", "hit rate 93 %"),
    ),
    log_total=4,
)

_ENDLESS = JobSnapshot(
    uuid="c0a8f1de-9a43-4f7c-b1be-37e3f55e0003",
    name="sensor watch",
    status="running",
    started=_NOON,
    elapsed=8_105.0,
    items=81_050,
    rate=10.0,
    backend="processes",
    operators=(
        _operator(0, "sensors", "source", 0, items_out=81_050, rate=10.0, busy=0.01),
        _operator(1, "smooth", "map", 1, upstream=(0, 4), items_in=81_050, items_out=81_050, rate=10.0, busy=0.04),
        _operator(2, "is alarm", "filter", 2, upstream=(1,), items_in=81_050, items_out=12, rate=0.001, busy=0.02),
        _operator(3, "alarms", "collect", 3, upstream=(2,), items_in=12, rate=0.001),
        _operator(4, "recalibrate", "map", 2, 1, upstream=(1,), items_in=81_050, items_out=40, rate=0.01),
    ),
    results=(
        ResultView(
            name="alarms",
            kind="collect",
            total=12,
            columns=("value",),
            numeric=(True,),
            rows=tuple((f"{90 + i * 0.75:.2f}",) for i in range(12)),
        ),
    ),
)

_PAUSED = JobSnapshot(
    uuid="11b2c3d4-0000-4000-8000-000000000004",
    name="flight delays",
    status="paused",
    started=_NOON,
    elapsed=64.0,
    items=500_000,
    total=1_250_000,
    fraction=0.4,
    operators=_chain(done=0.4, rate=0),
)

_STOPPING = JobSnapshot(
    uuid="11b2c3d4-0000-4000-8000-000000000005",
    name="flight delays",
    status="stopping",
    started=_NOON,
    elapsed=71.3,
    items=512_000,
    rate=0.0,
    total=1_250_000,
    fraction=0.41,
    waiting_for="parse to return (2 s)",
    operators=_chain(done=0.41, rate=0),
    services=(
        ServiceView(name="cache", type="Cache", state="running", calls=812),
        ServiceView(name="model", type="DelayModel", state="stopping", calls=77),
    ),
)

_COMPLETED = JobSnapshot(
    uuid="2d0a5c66-93b7-4b3c-8a55-0f0c6e1b0006",
    name="flight delays",
    status="completed",
    started=_NOON,
    elapsed=40.2,
    items=1_250_000,
    rate=31_094.0,
    total=1_250_000,
    fraction=1.0,
    operators=_chain(rate=31_094.0, busy=False),
    services=(
        ServiceView(name="cache", type="Cache", state="stopped", calls=1_942_110),
        ServiceView(name="model", type="DelayModel", state="stopped", calls=1_000_000),
    ),
    results=(_delays(12),),
    logs=_logs((0.0, "INFO", "job", "started on 8 threads"), (40.2, "INFO", "job", "all services stopped")),
    log_total=2,
)

_TRACEBACK = """Traceback (most recent call last):
  File "Cell In[3]", line 4, in parse
    hour = int(row["arr_time"]) // 100
           ~~~^^^^^^^^^^^^^^^^^
ValueError: invalid literal for int() with base 10: ''
"""

_FAILED = JobSnapshot(
    uuid="77e0a9b2-31c5-4d52-9f43-5d3c0b2e0007",
    name="flight delays",
    status="failed",
    started=_NOON,
    elapsed=3.1,
    items=84_211,
    rate=27_164.0,
    total=1_250_000,
    fraction=0.067,
    operators=_chain(done=0.0673688, rate=27_164.0, busy=False, errors=1),
    services=(
        ServiceView(name="cache", type="Cache", state="stopped", calls=84_210),
        ServiceView(name="model", type="DelayModel", state="hung", calls=40, note="did not stop in 2 s, killed"),
    ),
    logs=_logs(
        *((i * 0.1, "INFO", "parse", f"row {i * 3_000:,} read") for i in range(20)),
        (2.9, "WARNING", "parse", "arr_time is empty in 1 of 1,000 rows"),
        (3.0, "ERROR", "job", "parse failed on item 84,211: ValueError: invalid literal for int() with base 10: ''"),
    ),
    log_total=1_204,
    error=ErrorView(
        type="ValueError",
        message="invalid literal for int() with base 10: ''",
        operator="parse",
        item="{'carrier': 'AA', 'flight': '1141', 'arr_time': '', 'dest': 'MIA'}",
        where="Cell In[3], line 4",
        code=(
            CodeLine(number=2, text="def parse(row):"),
            CodeLine(number=3, text="    # arr_time is hhmm, as text"),
            CodeLine(number=4, text='    hour = int(row["arr_time"]) // 100', marked=True),
            CodeLine(number=5, text="    return {**row, 'hour': hour}"),
            CodeLine(number=6, text=""),
        ),
        traceback=_TRACEBACK,
    ),
    notes=("time.sleep in model.stop() could not be interrupted; its thread ends when it returns.",),
)

_STOPPED = JobSnapshot(
    uuid="3e3e3e3e-0000-4000-8000-000000000008",
    name="sensor watch",
    status="stopped",
    started=_NOON,
    elapsed=266_400.0,
    items=2_664_000,
    rate=10.0,
    operators=(
        _operator(0, "sensors", "source", 0, items_out=2_664_000),
        _operator(1, "is alarm", "filter", 1, upstream=(0,), items_in=2_664_000, items_out=311),
        _operator(2, "print", "print", 2, upstream=(1,), items_in=311),
    ),
    services=(ServiceView(name="db", type="Database", state="kept", calls=311, note="until job.stop()"),),
    notes=("The service db still runs: cleanup='never'.",),
)

_FAN_OUT = JobSnapshot(
    uuid="fa000000-0000-4000-8000-000000000009",
    name="fan-out",
    status="running",
    started=_NOON,
    elapsed=3.4,
    items=9_400,
    rate=2_764.7,
    operators=(
        _operator(0, "events", "source", 0, items_out=9_400, rate=2_764.7, busy=0.6),
        *(
            _operator(
                i,
                f"shard {i}",
                "map",
                1,
                i - 1,
                upstream=(0,),
                items_in=9_400,
                items_out=9_400 - i * 31,
                rate=2_700.0,
                busy=i / 14,
                errors=31 * i if i % 5 == 0 else 0,
            )
            for i in range(1, 13)
        ),
        _operator(13, "merge", "sink", 2, 5, upstream=(*range(1, 13), 0), items_in=112_800, rate=32_000.0),
    ),
)

_RESULTS = JobSnapshot(
    uuid="7e501700-0000-4000-8000-00000000000a",
    name="results of every kind",
    status="completed",
    started=_NOON,
    elapsed=0.021,
    items=3,
    rate=142.0,
    operators=(
        _operator(0, "東京の気象データ", "source", 0, items_out=3),
        _operator(1, "größe → m²", "map", 1, upstream=(0,), items_in=3, items_out=3),
        _operator(2, "結果", "collect", 2, upstream=(1,), items_in=3),
    ),
    results=(
        ResultView(
            name="unicode",
            kind="collect",
            total=3,
            columns=("city", "都市", "temp", "mood"),
            numeric=(False, False, True, False),
            rows=(
                ("Tokyo", "東京", "21.5", "🙂"),
                ("Zürich", "チューリッヒ", "9.0", "☔ nass"),
                ("São Paulo", "サンパウロ", "27.25", ""),
            ),
        ),
        ResultView(
            name="wide",
            kind="show",
            total=2,
            columns=tuple(f"feature_{i:02}" for i in range(30)),
            numeric=(True,) * 30,
            rows=tuple(tuple(f"{(i * 37 + j) % 100 / 7:.4f}" for i in range(30)) for j in range(2)),
        ),
        ResultView(
            name="long text",
            kind="show",
            total=1,
            columns=("document",),
            numeric=(False,),
            rows=(
                ("Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor\nut labore. " * 3,),
            ),
        ),
        ResultView(name="empty", kind="collect", total=0, columns=(), numeric=(), rows=()),
    ),
)

_HOSTILE = JobSnapshot(
    uuid="<b>uuid</b>",
    name=INJECTION,
    status="failed",
    elapsed=1.0,
    items=1,
    backend=INJECTION,
    operators=(
        _operator(0, INJECTION, "source", 0, items_out=1, where=INJECTION),
        _operator(1, "\x1b[31mred\x1b[0m \u202eesrever \x00", "sink", 1, upstream=(0,), items_in=1),
    ),
    services=(ServiceView(name=INJECTION, type=INJECTION, state="failed", note=INJECTION),),
    results=(
        ResultView(name=INJECTION, kind="show", total=1, columns=(INJECTION,), numeric=(False,), rows=((INJECTION,),)),
    ),
    logs=_logs((0.0, "ERROR", INJECTION, INJECTION + "\x1b[2J")),
    log_total=1,
    error=ErrorView(
        type=INJECTION,
        message=INJECTION,
        operator=INJECTION,
        item=INJECTION,
        where=INJECTION,
        code=(CodeLine(number=1, text=INJECTION, marked=True),),
        traceback=INJECTION,
    ),
    notes=(INJECTION,),
)

_LONG = "customer_lifetime_value_estimation_with_seasonal_correction_and_outlier_removal"

_LONG_NAMES = JobSnapshot(
    uuid="10000000-0000-4000-8000-00000000000c",
    name=_LONG,
    status="running",
    elapsed=95_000.0,
    items=12_345_678_901,
    rate=1_234_567.0,
    backend="ray",
    operators=(
        _operator(0, _LONG, "source", 0, items_out=12_345_678_901, rate=1_234_567.0, busy=1.0),
        _operator(
            1,
            "WWWWWWWWWWWWWWWWWWWWWWWWWWWW",
            "flatmap",
            1,
            upstream=(0,),
            items_in=12_345_678_901,
            items_out=98_765_432_109,
            rate=9_876_543.0,
            errors=123_456,
            busy=0.5,
        ),
        _operator(
            2, "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii", "take", 2, upstream=(1,), items_in=999_999, items_out=100_000
        ),
        _operator(3, "非常に長い名前を持つ演算子の例です", "sink", 3, upstream=(2,), items_in=100_000),
    ),
    services=(ServiceView(name=_LONG, type="Service", state="running", calls=5_000_000_000),),
    results=(
        ResultView(
            name=_LONG, kind="show", total=1, columns=(_LONG, "n"), numeric=(False, True), rows=((_LONG * 3, "1"),)
        ),
    ),
)

SAMPLES: dict[str, JobSnapshot] = {
    "created": JobSnapshot(uuid="00000000-0000-4000-8000-00000000000d", name="not yet", status="created"),
    "queued": JobSnapshot(
        uuid="00000000-0000-4000-8000-00000000000e", name="next", status="queued", waiting_for="2 jobs before it"
    ),
    "starting": _STARTING,
    "running": _RUNNING,
    "endless": _ENDLESS,
    "paused": _PAUSED,
    "stopping": _STOPPING,
    "completed": _COMPLETED,
    "failed": _FAILED,
    "stopped": _STOPPED,
    "fan_out": _FAN_OUT,
    "results": _RESULTS,
    "hostile": _HOSTILE,
    "no_operators": JobSnapshot(
        uuid="00000000-0000-4000-8000-00000000000f",
        name="empty",
        status="completed",
        elapsed=0.0004,
        notes=("There was nothing to run: the environment has no source.",),
    ),
    "long_names": _LONG_NAMES,
}
