"""Snapshots of jobs in every state that the views have to draw, by name."""

from __future__ import annotations

import base64
import zlib

import msgspec

from sage_nb.jobs.explain import Explanation, StageLine
from sage_nb.jobs.layout import places
from sage_nb.jobs.snapshot import (
    CodeLine,
    DeadLetterView,
    ErrorView,
    JobSnapshot,
    LogView,
    OperatorView,
    OutputView,
    ResultView,
    ServiceView,
)

__all__ = ["FLIGHTS_PLAN", "INJECTION", "SAMPLES"]

INJECTION = '<img src=x onerror="window.harmed=true"><script>window.harmed=true</script>&amp;"\'`</pre></table>'
"""Text that does harm where it is taken for markup."""

_NOON = 1_763_200_800.0
_SERVER = "flights.example.org:19001"


def _operator(id: int, name: str, kind: str, col: int, row: int = 0, **more: object) -> OperatorView:
    return OperatorView(id=id, name=name, kind=kind, col=col, row=row, **more)  # type: ignore[arg-type]


def _placed(*operators: OperatorView) -> tuple[OperatorView, ...]:
    """The operators where a job would show them."""
    at = places([(op.id, op.upstream, op.kind) for op in operators])
    return tuple(msgspec.structs.replace(op, col=at[op.id][0], row=at[op.id][1]) for op in operators)


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
            queued=96 if busy else 0,
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
        kept=rows + 7,
        columns=columns,
        types=("text", "number", "number", "text"),
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
            types=("number",),
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
            types=("text", "text", "number", "text"),
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
            types=("number",) * 30,
            rows=tuple(tuple(f"{(i * 37 + j) % 100 / 7:.4f}" for i in range(30)) for j in range(2)),
        ),
        ResultView(
            name="long text",
            kind="show",
            total=1,
            columns=("document",),
            types=("text",),
            rows=(
                ("Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor\nut labore. " * 3,),
            ),
        ),
        ResultView(name="empty", kind="collect", total=0, columns=(), types=(), rows=()),
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
        ResultView(name=INJECTION, kind="show", total=1, columns=(INJECTION,), types=("text",), rows=((INJECTION,),)),
    ),
    logs=_logs((0.0, "ERROR", INJECTION, INJECTION + "\x1b[2J")),
    log_total=1,
    dead_letters=(DeadLetterView(operator=INJECTION, total=1, rows=((INJECTION, INJECTION),)),),
    error=ErrorView(
        type=INJECTION,
        message=INJECTION,
        operator=INJECTION,
        item=INJECTION,
        where=INJECTION,
        code=(CodeLine(number=1, text=INJECTION, marked=True),),
        traceback=INJECTION,
    ),
    output=OutputView(total=2_000, held=1_000, lines=(INJECTION, "\x1b[31m\u202e<b>")),
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
            queued=987_654,
            late=1_000_000,
            p50=0.5,
            p99=86_400.0,
            parallelism=1_024,
            executor="process",
            blocked=1.0,
        ),
        _operator(
            2, "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii", "take", 2, upstream=(1,), items_in=999_999, items_out=100_000
        ),
        _operator(3, "非常に長い名前を持つ演算子の例です", "sink", 3, upstream=(2,), items_in=100_000),
    ),
    services=(ServiceView(name=_LONG, type="Service", state="running", calls=5_000_000_000),),
    results=(
        ResultView(
            name=_LONG, kind="show", total=1, columns=(_LONG, "n"), types=("text", "number"), rows=((_LONG * 3, "1"),)
        ),
    ),
)

_MERGES = JobSnapshot(
    uuid="3e46e500-0000-4000-8000-000000000010",
    name="orders and payments",
    status="running",
    started=_NOON,
    elapsed=12.0,
    items=61_200,
    rate=5_100.0,
    operators=_placed(
        _operator(0, "orders", "source", 0, items_out=40_800, rate=3_400.0, busy=0.2, stage=1),
        _operator(1, "paid", "filter", 0, upstream=(0,), items_in=40_800, items_out=38_000, rate=3_400.0, busy=0.1),
        _operator(2, "price", "map", 0, upstream=(1,), items_in=38_000, items_out=38_000, rate=3_166.0, busy=0.3),
        _operator(3, "payments", "source", 0, items_out=20_400, rate=1_700.0, busy=0.1, stage=2),
        _operator(4, "by order", "keyby", 0, upstream=(3,), items_in=20_400, items_out=20_400, rate=1_700.0),
        _operator(5, "refunds", "source", 0, items_out=12, rate=0.9, stage=3),
        _operator(
            6,
            "within a day",
            "interval_join",
            0,
            upstream=(2, 4),
            items_in=58_400,
            items_out=19_880,
            rate=4_866.0,
            busy=0.55,
            parallelism=4,
            queued=64,
            p50=0.000_012,
            p99=0.000_31,
            stage=4,
        ),
        _operator(
            7, "settle", "comap", 0, upstream=(6, 5, 2), items_in=57_892, items_out=57_892, rate=1_656.0, stage=5
        ),
        _operator(8, "ledger.jsonl", "sink", 0, upstream=(7,), items_in=57_892, rate=1_656.0, stage=5),
        _operator(9, "per hour", "window", 0, upstream=(7,), items_in=57_892, items_out=312, late=41, stage=5),
        _operator(10, "hours", "show", 0, upstream=(9,), items_in=312, stage=5),
        _operator(11, "too late", "late", 0, upstream=(9,), items_in=7, items_out=7, stage=5),
        _operator(12, "late.jsonl", "sink", 0, upstream=(11,), items_in=7, stage=5),
    ),
)

_LOOP = JobSnapshot(
    uuid="100b0000-0000-4000-8000-000000000011",
    name="crawl",
    status="running",
    started=_NOON,
    elapsed=61.0,
    items=3,
    rate=0.05,
    operators=_placed(
        _operator(0, "start pages", "source", 0, items_out=3),
        _operator(1, "found links", "future", 0, upstream=(5,), items_in=18_020, items_out=18_020, rate=295.0),
        _operator(2, "not seen", "filter", 0, upstream=(0, 1), items_in=18_023, items_out=812, rate=295.0, queued=310),
        _operator(
            3,
            "fetch",
            "async",
            0,
            upstream=(2,),
            items_in=812,
            items_out=790,
            rate=13.3,
            busy=0.98,
            errors=22,
            p50=0.21,
            p99=1.9,
        ),
        _operator(4, "pages", "collect", 0, upstream=(3,), items_in=790, rate=13.3),
        _operator(5, "links", "flatmap", 0, upstream=(3,), items_in=790, items_out=18_020, rate=13.3, busy=0.02),
        _operator(6, "again", "future", 0, upstream=(7,), items_in=24, items_out=24, rate=0.4),
        _operator(7, "wait a little", "map", 0, upstream=(3, 6), items_in=24, items_out=24, rate=0.4),
    ),
    dead_letters=(
        DeadLetterView(
            operator="fetch",
            total=22,
            rows=(
                ("'https://example.org/a/very/long/way/down/to/a/page'", "TimeoutError: no answer within 5 s"),
                ("'https://example.org/gone'", "HTTPError: 410 Gone"),
                ("'https://example.org/größe?q=東京'", "UnicodeEncodeError: 'ascii' codec can't encode character"),
            ),
        ),
    ),
)

_BACK_PRESSURE = JobSnapshot(
    uuid="bac40000-0000-4000-8000-000000000012",
    name="thumbnails",
    status="running",
    started=_NOON,
    elapsed=18.4,
    items=9_216,
    rate=412.0,
    total=40_000,
    fraction=0.23,
    eta=75.0,
    operators=_placed(
        _operator(0, "photos", "source", 0, items_out=9_216, rate=412.0, busy=0.05, blocked=0.91, stage=1),
        _operator(
            1,
            "read",
            "map",
            0,
            upstream=(0,),
            items_in=9_216,
            items_out=9_216,
            rate=412.0,
            busy=0.04,
            blocked=0.91,
            p50=0.000_11,
            p99=0.000_94,
            stage=1,
        ),
        _operator(
            2,
            "shrink to 256 pixels",
            "map",
            0,
            upstream=(1,),
            items_in=8_192,
            items_out=8_188,
            rate=396.0,
            busy=0.99,
            queued=1_024,
            errors=4,
            parallelism=4,
            executor="process",
            blocked=0.0,
            p50=0.009_7,
            p99=0.031,
            stage=2,
        ),
        _operator(
            3,
            "model",
            "batches",
            0,
            upstream=(2,),
            items_in=8_100,
            items_out=8_100,
            rate=396.0,
            busy=0.31,
            queued=88,
            executor="process",
            p50=0.001_2,
            p99=0.004,
            stage=3,
        ),
        _operator(4, "thumbnails", "sink", 0, upstream=(3,), items_in=8_100, rate=396.0, busy=0.02, stage=4),
        _operator(5, "sizes", "show", 0, upstream=(1,), items_in=9_216, rate=412.0, queued=3, parallelism=2, stage=5),
    ),
    dead_letters=(
        DeadLetterView(
            operator="shrink to 256 pixels",
            total=4,
            rows=tuple(
                (f"Photo('IMG_{n}.jpg')", "UnidentifiedImageError: cannot identify image file") for n in range(4)
            ),
        ),
    ),
)

_RESTARTING = JobSnapshot(
    uuid="4e574a47-0000-4000-8000-000000000013",
    name="flight delays",
    status="restarting",
    attempt=2,
    started=_NOON,
    elapsed=31.0,
    waiting_for="the next attempt, in 4 s",
    operators=_chain(done=0, rate=0, busy=False),
    services=(ServiceView(name="model", type="DelayModel", state="running", calls=77),),
    logs=_logs((9.1, "ERROR", "parse", "attempt 1 failed: ConnectionResetError: [Errno 104] Connection reset by peer")),
    log_total=1,
)

_WIDE_MERGE = JobSnapshot(
    uuid="fa000000-0000-4000-8000-000000000014",
    name="twelve to one",
    status="running",
    elapsed=1.0,
    operators=_placed(
        _operator(0, "events", "source", 0, items_out=9_400),
        *(_operator(i, f"shard {i}", "map", 0, upstream=(0,), items_in=9_400, items_out=9_400) for i in range(1, 13)),
        _operator(13, "merge", "reduce", 0, upstream=(*range(1, 13), 0), items_in=112_800, items_out=112_800),
        _operator(14, "sum", "collect", 0, upstream=(13,), items_in=112_800),
        _operator(15, "everything", "sink", 0, upstream=(0, 1, 6, 13), items_in=112_800),
    ),
)


def _png(width: int, height: int) -> str:
    """A picture as the address that a result has: a field of colours."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    rows = ((bytes((x * 255 // width, y * 255 // height, 160)) for x in range(width)) for y in range(height))
    pixels = b"".join(b"\0" + b"".join(row) for row in rows)
    head = width.to_bytes(4) + height.to_bytes(4) + bytes((8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


_RICH = JobSnapshot(
    uuid="41c40000-0000-4000-8000-000000000015",
    name="fits",
    status="running",
    started=_NOON,
    elapsed=21.5,
    items=3_120,
    rate=150.0,
    rates=(20.0, 80.5, 140.0, 155.0, 158.25, 0.0, 0.0, 90.0, 149.0, 150.0, 171.0, 160.0, 150.0),
    operators=(
        _operator(0, "runs", "source", 0, items_out=3_120, rate=150.0),
        _operator(1, "fit", "map", 1, upstream=(0,), items_in=3_120, items_out=3_120, rate=150.0, p50=0.004, p99=0.021),
        _operator(2, "fits", "collect", 2, upstream=(1,), items_in=3_120, rate=150.0),
        _operator(3, "curve", "show", 2, 1, upstream=(1,), items_in=42, rate=2.0),
        _operator(4, "table", "collect", 2, 2, upstream=(1,), items_in=3, rate=0.1),
    ),
    results=(
        ResultView(
            name="fits",
            kind="collect",
            total=3_120,
            columns=("run", "loss", "at", "took", "ok", "note"),
            types=("text", "number", "time", "duration", "bool", "text"),
            rows=tuple(
                (
                    f"run {n}",
                    f"{(n * 7919) % 97 / 8:.6g}" if n != 5 else "nan",
                    f"2025-11-{15 - n:02} 0{n % 9}:00:00",
                    f"{n % 4} days, 0:0{n % 7}:30" if n % 4 else f"0:0{n % 7}:30",
                    str(n % 3 == 0),
                    "" if n % 5 else "restarted",
                )
                for n in range(12)
            ),
        ),
        ResultView(
            name="curve",
            kind="show",
            total=42,
            columns=("value",),
            types=("text",),
            rows=(("<Figure size 640x480 with 1 Axes>",),),
            picture=_png(320, 160),
        ),
        ResultView(
            name="table",
            kind="collect",
            total=3,
            columns=("x", "y"),
            types=("number", "number"),
            rows=(("1", "2"), ("3", "4")),
            shape=(1_000, 2),
        ),
    ),
)

_FLOODING = msgspec.structs.replace(
    _RUNNING,
    uuid="f100d000-0000-4000-8000-000000000015",
    output=OutputView(
        total=1_204_511,
        held=1_203_511,
        lines=tuple(f"step {n}: loss {1 / n:.6f}, and what else there is to say of it" for n in range(1, 21)),
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
    "flooding": _FLOODING,
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
    "merges": _MERGES,
    "loop": _LOOP,
    "back_pressure": _BACK_PRESSURE,
    "restarting": _RESTARTING,
    "rich": _RICH,
    "second_attempt": msgspec.structs.replace(_RUNNING, attempt=2),
    "wide_merge": _WIDE_MERGE,
    "queued_there": msgspec.structs.replace(
        _STARTING,
        status="queued",
        elapsed=0.0,
        server=_SERVER,
        waiting_for="a runner: 3 jobs are before it",
        services=(),
    ),
    "lost": msgspec.structs.replace(_RUNNING, server=_SERVER, waiting_for=f"the connection to {_SERVER}"),
    "completed_there": msgspec.structs.replace(_COMPLETED, server=_SERVER, backend="ray"),
}

_PLANNED: tuple[tuple[str, str, tuple[int, ...], int], ...] = (
    ("flights.csv", "source", (), 1),
    ("parse", "map", (0,), 1),
    ("carrier", "keyby", (1,), 1),
    ("cancelled", "filter", (1,), 1),
    ("cancelled.jsonl", "sink", (3,), 1),
    ("mean delay", "reduce", (2,), 2),
    ("predict", "map", (5,), 3),
    ("again", "future", (11,), 5),
    ("settle", "map", (6, 7), 4),
    ("delays", "show", (8,), 4),
    ("not sure", "filter", (8,), 4),
    ("look up", "async", (10,), 5),
)

FLIGHTS_PLAN = Explanation(
    "delays by carrier",
    (
        StageLine(
            1,
            ("flights.csv", "parse", "carrier", "cancelled", "cancelled.jsonl"),
            ("source", "map", "keyby", "filter", "sink"),
        ),
        StageLine(2, ("mean delay",), ("reduce",), 4, "thread", ((1, "hash"),), "4 instances by key 'carrier'"),
        StageLine(3, ("predict",), ("map",), 4, "process", ((2, "rebalance"),), "4 instances, processes"),
        StageLine(
            4,
            ("settle", "delays", "not sure"),
            ("map", "show", "filter"),
            inputs=((3, "gather"), (5, "feedback")),
            why="merges 2 streams",
        ),
        StageLine(
            5, ("look up", "again"), ("async", "future"), 4, "event loop", ((4, "forward"),), "event loop, 4 instances"
        ),
    ),
    JobSnapshot(
        uuid="",
        name="delays by carrier",
        status="created",
        operators=_placed(
            *(
                _operator(
                    id,
                    name,
                    kind,
                    0,
                    upstream=upstream,
                    stage=stage,
                    parallelism=4 if stage in (2, 3, 5) else 1,
                    executor="process" if stage == 3 else "thread",
                )
                for id, (name, kind, upstream, stage) in enumerate(_PLANNED)
            )
        ),
    ),
)
"""A plan with a shuffle by key, processes, a merge, a loop and event loops."""
