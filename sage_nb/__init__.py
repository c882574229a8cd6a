"""Run data pipelines from notebook cells, watch them live, leave nothing running.

In a notebook: `%load_ext sage_nb`, then `%%sage_submit`. In plain Python:

    from sage_nb import LocalEnvironment

    env = LocalEnvironment("squares")
    env.from_batch(range(10)).map(lambda x: x * x).collect("squares")
    job = env.submit(autostop=True)
    print(list(job.results["squares"]))
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

_HOME = {
    "sage_nb.errors": (
        "AccessError",
        "ClusterError",
        "DuplicateNameError",
        "ItemTimeout",
        "JobNotFoundError",
        "JobStateError",
        "JobTimeout",
        "KeyTypeError",
        "PipelineError",
        "ProtocolError",
        "RemoteError",
        "SageError",
        "ServerBusyError",
        "ServerError",
        "ServerUnreachableError",
        "ServiceDiedError",
        "ServiceError",
        "ServiceMethodError",
        "ServiceNotFoundError",
        "ServiceStoppedError",
        "ServiceTimeout",
        "ShippingError",
        "SignatureError",
        "SubmitError",
        "WorkerError",
    ),
    "sage_nb.jobs.environment": ("LocalEnvironment",),
    "sage_nb.jobs.info": ("JobInfo",),
    "sage_nb.jobs.job": ("Job",),
    "sage_nb.jobs.manager": ("JobManager",),
    "sage_nb.notebook.hints": ("Range",),
    "sage_nb.notebook.launcher": ("launcher",),
    "sage_nb.pipeline.context": ("call_service", "call_service_async"),
    "sage_nb.pipeline.functions": (
        "BaseCoMapFunction",
        "BaseFunction",
        "BaseJoinFunction",
        "BaseService",
        "BatchFunction",
        "FilterFunction",
        "FlatMapFunction",
        "KeyByFunction",
        "MapFunction",
        "SinkFunction",
        "SourceFunction",
        "StopSignal",
    ),
    "sage_nb.remote.attaching": ("attach",),
    "sage_nb.remote.client": ("JobManagerClient",),
    "sage_nb.remote.environment": ("RemoteEnvironment",),
    "sage_nb.remote.server": ("JobManagerServer",),
    "sage_nb.pipeline.stream": ("ConnectedStreams", "DataStream", "FutureStream", "KeyedStream", "WindowedStream"),
    "sage_nb.pipeline.windows": ("Session", "Sliding", "Tumbling", "WindowResult"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: PLE0604 - built from the table above
    *sorted(_MODULE_OF),
    "load_ipython_extension",
    "unload_ipython_extension",
]
__version__ = "0.1.0"

if os.environ.get("SAGE_NB_JUPYTER"):  # the Jupyter server's extension listens there
    from sage_nb.jobs.announcing import use_announcer

    def _announce(job: Any) -> None:
        from sage_nb.notebook.announce import announce

        announce(job)

    use_announcer(_announce)

if TYPE_CHECKING:
    from sage_nb.errors import *  # noqa: F403
    from sage_nb.jobs.environment import LocalEnvironment as LocalEnvironment
    from sage_nb.jobs.info import JobInfo as JobInfo
    from sage_nb.jobs.job import Job as Job
    from sage_nb.jobs.manager import JobManager as JobManager
    from sage_nb.notebook.hints import Range as Range
    from sage_nb.notebook.launcher import launcher as launcher
    from sage_nb.pipeline.context import call_service as call_service
    from sage_nb.pipeline.context import call_service_async as call_service_async
    from sage_nb.pipeline.functions import *  # noqa: F403
    from sage_nb.pipeline.stream import ConnectedStreams as ConnectedStreams
    from sage_nb.pipeline.stream import DataStream as DataStream
    from sage_nb.pipeline.stream import FutureStream as FutureStream
    from sage_nb.pipeline.stream import KeyedStream as KeyedStream
    from sage_nb.pipeline.stream import WindowedStream as WindowedStream
    from sage_nb.pipeline.windows import Session as Session
    from sage_nb.pipeline.windows import Sliding as Sliding
    from sage_nb.pipeline.windows import Tumbling as Tumbling
    from sage_nb.pipeline.windows import WindowResult as WindowResult
    from sage_nb.remote.attaching import attach as attach
    from sage_nb.remote.client import JobManagerClient as JobManagerClient
    from sage_nb.remote.environment import RemoteEnvironment as RemoteEnvironment
    from sage_nb.remote.server import JobManagerServer as JobManagerServer


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'sage_nb' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext sage_nb`: the magics and the job views."""
    from sage_nb.notebook import extension

    extension.load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """`%unload_ext sage_nb`: take both away again; jobs go on."""
    from sage_nb.notebook import extension

    extension.unload(ipython)
