"""All pipelines of the parity suite, by family."""

from __future__ import annotations

from tests.parity import batches, calls, errors, items, keyed, loops, merged, sources, windows
from tests.parity.case import Case

__all__ = ["PIPELINES"]

_FAMILIES = (sources, items, keyed, windows, merged, loops, batches, calls, errors)

PIPELINES: list[Case] = [case for family in _FAMILIES for case in family.cases.all]
