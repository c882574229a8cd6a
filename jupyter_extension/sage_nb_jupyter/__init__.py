"""sage_nb's extension of the Jupyter server: all jobs of its kernels and of the user's JobManager server."""

from __future__ import annotations

from typing import Any

__all__: list[str] = []


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from sage_nb_jupyter.app import SageNb

    return [{"module": "sage_nb_jupyter", "app": SageNb}]
