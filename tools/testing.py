"""Runs all tests: in two halves at the same time, as most of them wait for other processes most of the time.

`python -m tools.testing [ARGS]`. With arguments it is `pytest ARGS`, all in one. Without, what drives kernels, browsers
or Ray runs beside everything else; its output comes when both are done, and the last line counts both.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

__all__ = ["main"]

PARTS = ("inside", "outside")
"""What `--part` takes, see `tests/conftest.py`."""
_COUNTED = re.compile(r"(\d+) (passed|failed|errors?|skipped)")
_PYTEST = [sys.executable, "-m", "pytest"]


def main(args: list[str]) -> int:
    if args:
        return subprocess.call([*_PYTEST, *args])
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / part for part in PARTS]
        first, second = (_start(part, output) for part, output in zip(PARTS, outputs, strict=True))
        try:
            with open(outputs[0], "rb") as output:
                _show_until(first, output)
            second.wait()
        finally:
            for one in (first, second):
                if one.poll() is None:
                    one.terminate()
                    one.wait()
        said = [output.read_text(errors="replace") for output in outputs]
    print(said[1], flush=True)
    print(f"==> both, {time.monotonic() - began:.0f} s\n{_total(said)}", flush=True)
    return first.returncode or second.returncode


def _start(part: str, output: Path) -> subprocess.Popen[bytes]:
    with open(output, "wb") as file:
        return subprocess.Popen([*_PYTEST, "--part", part], stdout=file, stderr=subprocess.STDOUT)


def _show_until(process: subprocess.Popen[bytes], output: BinaryIO) -> None:
    """What the process writes, as it comes."""
    while True:
        ended = process.poll() is not None
        sys.stdout.buffer.write(output.read())
        sys.stdout.buffer.flush()
        if ended:
            return
        time.sleep(0.2)


def _total(outputs: list[str]) -> str:
    """`5123 passed, 0 failed`: of both."""
    counts = dict.fromkeys(("passed", "failed"), 0)
    for output in outputs:
        last = output.rstrip().rpartition("\n")[2]
        for count, what in _COUNTED.findall(last):
            name = "failed" if what.startswith("error") else what
            counts[name] = counts.get(name, 0) + int(count)
    return ", ".join(f"{count} {what}" for what, count in counts.items())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
