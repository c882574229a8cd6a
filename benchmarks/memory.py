"""Resident memory while 20 M items pass: run as a process of its own, prints one number, in MB.

The number is the spread of the process's memory from the first second of the job to its end.
"""

from __future__ import annotations

import sys

import psutil

from sage_nb import LocalEnvironment


def main(items: int) -> None:
    process = psutil.Process()
    env = LocalEnvironment("memory")
    stream = env.from_batch(iter(range(items))).map(lambda x: (x, str(x))).filter(lambda pair: pair[0] % 3)
    stream.flatmap(lambda pair: [pair, pair]).show("last", rows=5)
    job = env.submit()
    seen: list[int] = []
    while job.status == "running" or job.status == "starting":
        try:
            job.wait(0.25)
        except TimeoutError:
            seen.append(process.memory_info().rss)
    job.wait()
    seen.append(process.memory_info().rss)
    first = seen[min(3, len(seen) - 1)]
    print(max(abs(rss - first) for rss in seen[min(3, len(seen) - 1) :]) / 1e6)


if __name__ == "__main__":
    main(int(sys.argv[1]))
