"""Runs all tests: in two halves at the same time, as most of them wait for other processes most of the time.

`python -m tools.testing [ARGS]`. With arguments it is `pytest ARGS`, all in one. Without, what drives kernels or
browsers runs beside everything else, and its output comes when both are done. What runs on Ray comes after that: a
cluster does not start where others take the processor. The last line counts all.
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

TOGETHER = (("inside", "outside"), ("ray",))
"""What `--part` takes, see `tests/conftest.py`; those of a group run at the same time."""
_COUNTED = re.compile(r"(\d+) (passed|failed|errors?|skipped)")
_PYTEST = [sys.executable, "-m", "pytest"]


def main(args: list[str]) -> int:
    if args:
        return subprocess.call([*_PYTEST, *args])
    began = time.monotonic()
    codes: list[int] = []
    said: list[str] = []
    for parts in TOGETHER:
        _run(parts, codes, said)
    print(f"==> all, {time.monotonic() - began:.0f} s\n{_total(said)}", flush=True)
    return next((code for code in codes if code), 0)


def _run(parts: tuple[str, ...], codes: list[int], said: list[str]) -> None:
    """Run parts at the same time: the first one's output is shown as it comes, that of the others then."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / part for part in parts]
        running = [_start(part, output) for part, output in zip(parts, outputs, strict=True)]
        try:
            with open(outputs[0], "rb") as output:
                _show_until(running[0], output)
            codes += [one.wait() for one in running]
        finally:
            for one in running:
                if one.poll() is None:
                    one.terminate()
                    one.wait()
        texts = [output.read_text(errors="replace") for output in outputs]
    print("\n".join(texts[1:]), flush=True)
    said += texts


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
    """`5123 passed, 0 failed`: of all."""
    counts = dict.fromkeys(("passed", "failed"), 0)
    for output in outputs:
        last = output.rstrip().rpartition("\n")[2]
        for count, what in _COUNTED.findall(last):
            name = "failed" if what.startswith("error") else what
            counts[name] = counts.get(name, 0) + int(count)
    return ", ".join(f"{count} {what}" for what, count in counts.items())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
