"""What a job prints, and who may write it."""

from __future__ import annotations

import threading

import msgspec
import numpy as np

from sage_nb.engine import displaying
from sage_nb.engine.printing import Limits, Printed
from tests.support import until


def test_who_looks_at_the_last_lines_writes_nothing() -> None:
    """Else what a view asks for would land below whatever cell is the newest."""
    printed = Printed(Limits(lines=2, size=1000, seconds=0.01))
    written: list[tuple[str, str]] = []

    def write(text: str) -> None:
        written.append((threading.current_thread().name, text))

    for n in range(10):
        printed.take(f"line {n}\n", write)
    before = len(written)
    looked = threading.Event()

    def look() -> None:
        printed.last(5)
        looked.set()

    for _ in range(3):  # there is room again by now, or soon
        looked.clear()
        threading.Thread(target=look, name="a view").start()
        looked.wait(10)
    assert {name for name, _ in written} == {threading.current_thread().name}
    assert len(written) == before
    assert printed.last(1) == ["line 9"]

    def opened() -> bool:
        printed.take("more\n", write)
        return any("not shown here" in text for _, text in written)

    until(opened)


def test_numbers_of_numpy_in_a_display_travel() -> None:
    sent: list[tuple[displaying.Bundle, displaying.Bundle]] = []
    before = displaying._send
    displaying._send = lambda data, metadata: sent.append((data, metadata))
    try:
        bundle = {"application/json": {"n": np.int64(3), "x": np.float64(0.5), "many": (np.bool_(True), 1 << 70)}}
        displaying._publish_display_data(bundle, {"width": np.int32(7)})
    finally:
        displaying._send = before
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sent)) == [
        [{"application/json": {"n": 3, "x": 0.5, "many": [True, str(1 << 70)]}}, {"width": 7}]
    ]
