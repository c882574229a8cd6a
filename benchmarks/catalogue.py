"""What is measured: each row of the table, its bound, and the peers that stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.measure import Figure

__all__ = ["PEERS", "WORKS", "Bound", "Row", "Work", "chosen"]

PEERS = {
    "bytewax": "Bytewax",
    "streamz": "streamz",
    "beam": "Beam",
    "ray": "Ray",
    "pathway": "Pathway",
    "joblib": "joblib",
    "aiostream": "aiostream",
    "dask": "Dask",
}


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a figure may be, or the least."""

    limit: float
    of: str = "ratio"
    """`ratio` or `value`."""
    least: bool = False

    def holds(self, figure: Figure) -> bool:
        found = figure.ratio if self.of == "ratio" else figure.value
        assert found is not None
        return found >= self.limit if self.least else found <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of sage_nb, or, without a bound, of what this machine can do."""

    id: str
    label: str
    bound: Bound | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """One headline of the table. The peers do what its first row does.

    `unit` says how its figures are written: `s`, `ms` or `MB`.
    """

    title: str
    rows: tuple[Row, ...]
    peers: tuple[str, ...] = ()
    unit: str = "s"


WORKS: Sequence[Work] = (
    Work(
        "W1  1 M ints: map, filter, map, sum",
        (Row("W1", "sage_nb, every lambda called", Bound(1.15)), Row("W1i", "sage_nb, lambdas inlined", Bound(0.75))),
        ("bytewax", "beam", "pathway", "streamz", "ray"),
    ),
    Work(
        "W2  running sum of 1 M pairs, 1,000 keys",
        (Row("W2", "sage_nb", Bound(1.3)),),
        ("bytewax", "streamz", "beam", "pathway"),
    ),
    Work(
        "W3  count per second of event time, 1 M events, 100 keys",
        (Row("W3", "sage_nb", Bound(1.5)),),
        ("bytewax", "pathway", "beam"),
    ),
    Work(
        "W4  words of 50 MB, counted by key",
        (Row("W4k", "sage_nb", Bound(1.15)),),
        ("bytewax", "beam", "pathway", "streamz"),
    ),
    Work("W4  words of 50 MB, counted by the sink", (Row("W4", "sage_nb", Bound(1.15)),), ("bytewax", "streamz")),
    Work(
        "W5  2,000 awaits of 10 ms, 100 at once, beside asyncio",
        (Row("W5", "sage_nb", Bound(1.05)),),
        ("streamz", "aiostream"),
    ),
    Work(
        "W6  200 × 20 ms of pure Python on 2 processes; ratio: times faster than one after the other",
        (Row("W6", "sage_nb", Bound(1.9, least=True)), Row("W6m", "two bare processes, half each")),
        ("joblib", "ray"),
    ),
    Work(
        "W7  1-item job, submit to return: median (95th percentile)",
        (
            Row("W7", "sage_nb without a service", Bound(0.2e-3, "value")),
            Row("W7s", "sage_nb with a service", Bound(0.4e-3, "value")),
            Row("W7m", "a thread that sets an event"),
        ),
        ("streamz", "bytewax", "dask"),
        "ms",
    ),
    Work("W8  W1's arithmetic on a numpy array, 65,536 at a time, beside numpy", (Row("W8", "sage_nb", Bound(1.3)),)),
    Work("Live view on, beside off, 30 M ints", (Row("view", "sage_nb", Bound(1.05)),)),
    Work(
        "Resident memory while 20 M items pass: largest change",
        (
            Row("memory", "sage_nb, one loop", Bound(20, "value")),
            Row("memory2", "sage_nb, two boundaries", Bound(50, "value")),
        ),
        unit="MB",
    ),
)

RAY_WORKS: Sequence[Work] = (
    Work(
        "R1  1 M ints through two chained actors; ratio: times as fast as written by hand, 1,000 at a time",
        (Row("R1", "sage_nb", Bound(0.9, least=True)),),
    ),
    Work(
        "R2  200 × 20 ms of pure Python in two actors; ratio: times faster than one after the other",
        (Row("R2", "sage_nb", Bound(1.7, least=True)), Row("R2m", "two bare processes, half each")),
    ),
    Work(
        "R3  a call of a service in an actor, beside one of a bare actor",
        (Row("R3", "sage_nb", Bound(1.15)),),
        (),
        "ms",
    ),
    Work(
        "R4  W1 on Ray; ratio: times faster than Ray Data with Python rows",
        (Row("R4", "sage_nb", Bound(5, least=True)),),
    ),
)
"""Those on Ray."""

SERVER_WORKS: Sequence[Work] = (
    Work(
        "S1  1-item job on a server, submit to return: median (95th percentile)",
        (Row("S1", "sage_nb", Bound(40e-3, "value")),),
        unit="ms",
    ),
    Work(
        "S2  last item processed to return, with a service",
        (Row("S2", "sage_nb", Bound(20e-3, "value")),),
        unit="ms",
    ),
    Work(
        "S3  item emitted on the server to item in the results",
        (Row("S3", "sage_nb", Bound(5e-3, "value")),),
        unit="ms",
    ),
    Work("S4  1 M ints collected from a server, submit to return", (Row("S4", "sage_nb", Bound(2.0, "value")),)),
    Work(
        "S5  resident memory of the server while 20 M items pass: largest change",
        (Row("S5", "sage_nb", Bound(50, "value")),),
        unit="MB",
    ),
)
"""Those on a JobManager server."""


VIEW_WORKS: Sequence[Work] = (
    Work(
        "V1  30 jobs flat out, each with a live view: time of 1 M items; ratio: items a second ÷ those without views",
        (Row("V1", "sage_nb", Bound(0.95, least=True)),),
    ),
    Work("V2  messages to the page, a second", (Row("V2", "sage_nb", Bound(60, "value")),), unit="/s"),
    Work("V3  a click in the page, to the next frame", (Row("V3", "sage_nb", Bound(200e-3, "value")),), unit="ms"),
    Work("V4  Stop, to `Stopped` in the view", (Row("V4", "sage_nb", Bound(3.0, "value")),)),
    Work(
        "V5  one job: from the run of the cell to its view", (Row("V5", "sage_nb", Bound(300e-3, "value")),), unit="ms"
    ),
)
"""Those of live views in a page."""


def chosen(only: str | None, works: Sequence[Work] = WORKS) -> list[Work]:
    """The works whose rows' names begin with one of those in `only`, a list with commas. None stands for all.

    The peers come along where the row that they stand beside does.
    """
    if only is None:
        return list(works)
    wanted = tuple(part.strip().lower() for part in only.split(",") if part.strip())
    picked = []
    for work in works:
        rows = tuple(row for row in work.rows if row.id.lower().startswith(wanted))
        if rows:
            picked.append(replace(work, rows=rows, peers=work.peers if work.rows[0] in rows else ()))
    return picked
