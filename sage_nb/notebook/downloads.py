"""Results as files that a page saves."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from sage_nb.engine.results import Result, write_items
from sage_nb.errors import PipelineError

__all__ = ["FORMATS", "LIMIT", "as_file"]

FORMATS = {"csv": "", "parquet": "pyarrow"}
"""By the ending of the file: the package that it needs."""
LIMIT = 64 << 20


class _TooLarge(Exception):
    pass


class _Limited(io.FileIO):
    """A file that refuses what would be more than `LIMIT`."""

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > LIMIT:
            raise _TooLarge
        return super().write(data)


def as_file(result: Result, format: str) -> bytes:
    """A result as a file of one of `FORMATS`.

    Raises `PipelineError` where its items do not fit in columns, or where there are more than 64 MB.
    """
    if format not in FORMATS:
        raise PipelineError(f"a result can be had as {' or '.join(FORMATS)}, not as {format!r}")
    with tempfile.TemporaryDirectory(prefix="sage_nb-") as folder:
        file = Path(folder) / f"result.{format}"
        try:
            write_items(f"to_{format}", result.name, result.to_list(), file, {}, _Limited)
        except _TooLarge:
            here = f'job.results["{result.name}"].to_{format}("{result.name}.{format}")'
            raise PipelineError(
                f"more than {LIMIT >> 20} MB are too many for the page: {here} writes the file"
            ) from None
        return file.read_bytes()
