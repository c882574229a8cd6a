"""What an annotation can say to `launcher` beside the type: `Annotated[int, Range(1, 10)]`."""

from __future__ import annotations

from dataclasses import dataclass

from sage_nb.errors import PipelineError

__all__ = ["Range"]


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from `low` to `high`, both among them, in steps of `step` (1 for an int, a hundredth of the way for a
    float, unless given). Raises `PipelineError` where there are none."""

    low: float
    high: float
    step: float | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise PipelineError(f"Range({self.low!r}, {self.high!r}): the first number is below the second")
        if self.step is not None and not self.step > 0:
            raise PipelineError(f"Range: a step is a number above 0, not {self.step!r}")
