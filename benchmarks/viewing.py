"""What a live view costs: the same job in a real kernel, with and without a view below its cell."""

from __future__ import annotations

import json
import queue
import sys

from jupyter_client.manager import start_new_kernel

from benchmarks.measure import Figure

__all__ = ["view_on_and_off"]

_CODE = """
import dataclasses
import json
import sage_nb
from sage_nb import LocalEnvironment
from sage_nb.notebook.view import show_job
from benchmarks.measure import side_by_side

def run(live):
    env = LocalEnvironment("viewed")
    env.from_batch(range(30_000_000)).map(lambda x: x + 1).filter(lambda x: x % 2).map(lambda x: x * 3).show("last")
    job = env.submit()
    if live:
        show_job(job, get_ipython(), live=True)
    job.wait()

figure = side_by_side(lambda: run(True), lambda: run(False), {runs})
print("FIGURE " + json.dumps(dataclasses.asdict(figure)))
"""


def view_on_and_off(runs: int) -> Figure:
    """W1 on 30 M items, with a live view and without."""
    manager, client = start_new_kernel(kernel_name="python3", extra_arguments=["--IPKernelApp.log_level=40"])
    said = ""
    try:
        request = client.execute("%load_ext sage_nb\n" + _CODE.replace("{runs}", str(runs)), allow_stdin=True)
        while True:
            message = client.get_iopub_msg(timeout=300)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                said += content["text"]
            elif message["msg_type"] == "error":
                raise RuntimeError("\n".join(content["traceback"]))
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
    except queue.Empty:
        raise RuntimeError(f"the kernel of {sys.executable} did not answer in 300 s") from None
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    line = next(line for line in said.splitlines() if line.startswith("FIGURE "))
    return Figure(**json.loads(line.removeprefix("FIGURE ")))
