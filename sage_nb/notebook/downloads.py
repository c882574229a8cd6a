"""Results as files that a page saves."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sage_nb.engine.results import Result
from sage_nb.errors import PipelineError

__all__ = ["FORMATS", "LIMIT", "as_file"]

FORMATS = {"csv": "", "parquet": "pyarrow"}
"""By the ending of the file: the package that it needs."""
LIMIT = 64 << 20


def as_file(result: Result, format: str) -> bytes:
    """A result as a file of one of `FORMATS`.

    Raises `PipelineError` where its items do not fit in columns, or where there are more than 64 MB.
    """
    if format not in FORMATS:
        raise PipelineError(f"a result can be had as {' or '.join(FORMATS)}, not as {format!r}")
    with tempfile.TemporaryDirectory(prefix="sage_nb-") as folder:
        file = Path(folder) / f"result.{format}"
        (result.to_csv if format == "csv" else result.to_parquet)(file)
        size = file.stat().st_size
        if size > LIMIT:
            here = f'job.results["{result.name}"].to_{format}("{result.name}.{format}")'
            raise PipelineError(f"{size >> 20} MB are too many for the page: {here} writes the file")
        return file.read_bytes()
