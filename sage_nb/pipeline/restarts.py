"""Restart strategies: whether a job that failed is run anew, and when. The names are Flink's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sage_nb.errors import PipelineError
from sage_nb.pipeline.graph import Graph
from sage_nb.pipeline.sources import IterableSource, MadeSource, is_replayable

__all__ = ["Restarts", "refuse_unreplayable", "restarts"]

_FIELDS = {
    "fixed": {"attempts": 3, "delay": 1.0},
    "exponential": {"attempts": 10, "delay": 1.0, "factor": 2.0, "max_delay": 60.0},
    "failure_rate": {"failures": 3, "within": 300.0, "delay": 1.0},
}


@dataclass(frozen=True, slots=True)
class Restarts:
    """`fixed`: up to `attempts` restarts, each after `delay` seconds. `exponential`: the same, with a delay that grows
    by `factor` up to `max_delay`. `failure_rate`: unless there were more than `failures` failures `within` seconds."""

    strategy: str
    delay: float
    attempts: int | None = None
    factor: float = 1.0
    max_delay: float = float("inf")
    failures: int = 0
    within: float = 0.0

    def delay_after(self, failures: list[float]) -> float | None:
        """Seconds until the restart; None where there is none. `failures`: when each came, the last one last."""
        if self.strategy == "failure_rate":
            recent = [at for at in failures if failures[-1] - at <= self.within]
            return self.delay if len(recent) <= self.failures else None
        if self.attempts is not None and len(failures) > self.attempts:
            return None
        return min(self.max_delay, self.delay * self.factor ** (len(failures) - 1))


def restarts(setting: Any) -> Restarts | None:
    """The checked `config["fault_tolerance"]`; None where it is not set."""
    if setting is None:
        return None
    if not isinstance(setting, dict) or setting.get("strategy") not in _FIELDS:
        raise PipelineError(
            f"config: fault_tolerance is a dict with a strategy, {', '.join(map(repr, _FIELDS))}; not {setting!r}"
        )
    strategy = setting["strategy"]
    given = {**_FIELDS[strategy], **{key: value for key, value in setting.items() if key != "strategy"}}
    for key, value in given.items():
        if key not in _FIELDS[strategy]:
            raise PipelineError(
                f"config: fault_tolerance {strategy!r} has no {key!r}; there are: {', '.join(_FIELDS[strategy])}"
            )
        whole = key in ("attempts", "failures")
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not value >= 0:
            what = "a whole number" if whole else "a number"
            raise PipelineError(f"config: fault_tolerance {key} is {what}, 0 or more, not {value!r}")
    return Restarts(strategy, **given)


def refuse_unreplayable(graph: Graph) -> None:
    """Raise `PipelineError` where a source cannot be read once more from its beginning."""
    for source in graph.sources():
        spec = source.spec[0]
        if (isinstance(spec, IterableSource) and spec.once) or (
            isinstance(spec, MadeSource) and not is_replayable(spec)
        ):
            what = "an iterator" if isinstance(spec, IterableSource) else "a function asked for one item at a time"
            raise PipelineError(
                f"source {source.name!r} is {what}, which cannot begin anew after a failure: fault_tolerance needs a "
                "list, a file, a generator function or a class"
            )
