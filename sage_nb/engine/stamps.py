"""Event times and watermarks that a task works out for the windows of another stage.

Where a window has several instances, each sees some of the items only. So the sender, who sees them all, says how far
the stream has come; all instances then judge by the same watermark, as one instance would.
"""

from __future__ import annotations

from sage_nb.engine.channels import Lane
from sage_nb.engine.times import Watermarks
from sage_nb.pipeline.windows import WindowSpec

__all__ = ["Stamp"]


class Stamp:
    """For one edge: `origins` is the number of the sender's own inputs."""

    def __init__(self, spec: WindowSpec, origins: int, lanes: list[Lane]) -> None:
        assert spec.event_time is not None
        self.time_of = spec.event_time
        self.marks = Watermarks(spec.out_of_orderness, origins)
        self._lanes = lanes

    def close(self, origin: int) -> None:
        """One of the sender's inputs has ended."""
        self._advance(self.marks.close(origin))

    def idle(self, origin: int) -> None:
        """One of the sender's inputs has nothing now."""
        self._advance(self.marks.idle(origin))

    def _advance(self, mark: float) -> None:
        if mark < float("inf"):
            for lane in self._lanes:
                lane.advance(mark)
