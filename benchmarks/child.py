"""One work, measured in a process of its own; prints its figure as JSON.

Usage: `python -m benchmarks.child MODULE WORK --runs N`.
`MODULE` is `benchmarks.ours` or one of `benchmarks.peers`; its `WORKS` maps the name of a work to what measures it.
"""

from __future__ import annotations

import argparse
import importlib
import json
from dataclasses import asdict

__all__ = ["MARK", "Skipped", "main"]

MARK = "FIGURE "
"""Begins the line with the figure: libraries print as well."""


class Skipped(Exception):
    """There is no figure; the text says why."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.child", description=__doc__)
    parser.add_argument("module")
    parser.add_argument("work")
    parser.add_argument("--runs", type=int, default=7)
    given = parser.parse_args()
    works = importlib.import_module(given.module).WORKS
    print(MARK + json.dumps(asdict(works[given.work](given.runs))), flush=True)


if __name__ == "__main__":
    main()
