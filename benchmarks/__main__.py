"""Runs every benchmark and prints the table. `--runs N` sets how often each is run; 7 unless given."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Pair
from benchmarks.viewing import view_on_and_off
from benchmarks.works import latency, make_text, map_filter_sum, word_count

_COLUMNS = (44, 10, 11, 19, 8, 6)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _row(what: str, ours: str, theirs: str, ratio: str, bound: str, reached: bool) -> str:
    cells = (what, ours, theirs, ratio, bound, "yes" if reached else "NO")
    first, *rest = (
        cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(cells, _COLUMNS, strict=True))
    )
    return "".join([first, *rest])


def _pair(what: str, pair: Pair, bound: float) -> tuple[str, bool]:
    ratio = f"{pair.ratio:.2f} ({pair.low:.2f}-{pair.high:.2f})"
    reached = pair.ratio <= bound
    return _row(what, f"{pair.ours:.3f} s", f"{pair.theirs:.3f} s", ratio, f"{bound:.2f}", reached), reached


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="runs of each, 5 or more")
    runs = max(5, parser.parse_args().runs)
    rows: list[tuple[str, bool]] = []

    _say("W1  1 M integers, map-filter-map-sum ...")
    rows.append(_pair("W1  1 M ints, map-filter-map-sum, lambdas", map_filter_sum(runs), 1.15))
    _say("W4  word count of 50 MB ...")
    with tempfile.TemporaryDirectory(prefix="sage_nb-bench-") as folder:
        text = Path(folder) / "words.txt"
        make_text(text, 50)
        rows.append(_pair("W4  word count over 50 MB of text", word_count(runs, text), 1.15))
    _say("W7  one-item job ...")
    for what, service, bound in (("without a service", False, 1e-3), ("with a service", True, 1e-3)):
        p50, p95 = latency(300, service=service)
        row = _row(
            f"W7  1-item job {what}, p50 (p95)",
            f"{p50 * 1e3:.2f} ms",
            "",
            f"({p95 * 1e3:.2f} ms)",
            f"{bound * 1e3:.0f} ms",
            p50 <= bound,
        )
        rows.append((row, p50 <= bound))
    _say("live view on and off, 12 M integers in a kernel ...")
    rows.append(_pair("live view on / off, 12 M ints", view_on_and_off(runs), 1.05))
    _say("memory over 20 M items ...")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "20000000"], capture_output=True, text=True, check=True
    )
    spread = float(done.stdout)
    row = _row("resident memory over 20 M items", f"±{spread:.1f} MB", "", "", "20 MB", spread <= 20)
    rows.append((row, spread <= 20))

    print(
        f"\n{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, "
        f"{platform.machine()};"
        f" medians of {runs}\n"
    )
    head = ("", "sage_nb", "by hand", "ratio (min-max)", "bound", "held")
    print("".join(c.ljust(w) if n == 0 else c.rjust(w) for n, (c, w) in enumerate(zip(head, _COLUMNS, strict=True))))
    for text_row, _ in rows:
        print(text_row)
    return 0 if all(reached for _, reached in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
