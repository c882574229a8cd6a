"""What a Prometheus server can be told, in its text format."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_nb.remote.core import Core

__all__ = ["exposition"]


def exposition(core: Core) -> str:
    """The server's numbers as Prometheus reads them."""
    logs = sum(job._spool.size for job in list(core.jobs.values()) if job._spool is not None)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    lines: list[str] = []
    for name, kind, help, values in (
        ("jobs_running", "gauge", "Jobs that run.", {"": len(core.running)}),
        ("jobs_queued", "gauge", "Jobs that wait for a runner.", {"": len(core.queue)}),
        ("jobs_known", "gauge", "Jobs in the history.", {"": len(core.jobs)}),
        (
            "jobs_ended_total",
            "counter",
            "Jobs that have ended since the server began.",
            {f'{{status="{status}"}}': count for status, count in core.finished.items()},
        ),
        ("runners_warm", "gauge", "Runner processes that wait for a job.", {"": core.pool.warm}),
        ("watchers", "gauge", "Connections that watch a job, for each job.", {"": _watchers(core)}),
        ("log_bytes", "gauge", "Bytes in the open logs of jobs.", {"": logs}),
        (
            "history_ok",
            "gauge",
            "Whether the history could be written, the last time.",
            {"": core.history_error is None},
        ),
        ("cpu_seconds_total", "counter", "CPU time of the server itself.", {"": usage.ru_utime + usage.ru_stime}),
        ("uptime_seconds", "gauge", "Seconds since the server began.", {"": time.time() - core.began}),
    ):
        full = f"sage_nb_{name}"
        lines += [f"# HELP {full} {help}", f"# TYPE {full} {kind}"]
        lines += [f"{full}{labels} {float(value):g}" for labels, value in values.items()]
    return "\n".join(lines) + "\n"


def _watchers(core: Core) -> int:
    return sum(len(job.watchers) for job in list(core.jobs.values()))
