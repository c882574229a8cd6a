"""What an operator or a service asks of a Ray cluster: the `ray={...}` of both, checked where it is declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sage_nb.errors import PipelineError
from sage_nb.pipeline.spelling import did_you_mean

__all__ = ["RayOptions", "ray_options"]

_NUMBERS = ("num_cpus", "num_gpus", "memory")  # CPUs and bytes that are kept for it, GPUs that it is given
_OTHERS = ("resources", "accelerator_type", "scheduling_strategy", "runtime_env")
_STRATEGIES = ("DEFAULT", "SPREAD")  # or an object of Ray's
_OF_SERVICES = ("max_restarts",)  # how often it is made anew after its process has died, -1 for always


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Options for the actors of an operator or service. `given` are Ray's own names; those left out are 0."""

    given: Mapping[str, Any]

    def for_ray(self) -> dict[str, Any]:
        """What `ray.remote` takes. CPUs are not kept unless asked for, so that a small machine runs a wide pipeline."""
        return {"num_cpus": 0, **self.given}

    def wanted(self) -> dict[str, float]:
        """Resources, by Ray's names, that a node has to have."""
        found = {"CPU": self.given.get("num_cpus", 0), "GPU": self.given.get("num_gpus", 0)}
        found["memory"] = self.given.get("memory", 0)
        if "accelerator_type" in self.given:
            found[f"accelerator_type:{self.given['accelerator_type']}"] = 0.001  # so Ray marks the nodes that have it
        return {name: amount for name, amount in (found | dict(self.given.get("resources", {}))).items() if amount}


def ray_options(kind: str, given: Any, *, service: bool = False) -> RayOptions | None:
    """The checked `ray=` of `kind`. Raises `PipelineError`."""
    if given is None:
        return None
    known = (*_NUMBERS, *_OTHERS, *(_OF_SERVICES if service else ()))
    if not isinstance(given, Mapping):
        raise PipelineError(f"{kind}: ray is a dict of options such as {{'num_gpus': 1}}, not {given!r}")
    for key in given:
        if key not in known:
            raise PipelineError(f"{kind}: ray has no option {key!r}{did_you_mean(str(key), known)}")
    for key in given.keys() & set(_NUMBERS):
        _check_amount(f"{kind}: ray's {key}", given[key])
    resources = given.get("resources", {})
    if not isinstance(resources, Mapping) or not all(isinstance(name, str) for name in resources):
        raise PipelineError(f"{kind}: ray's resources is a dict of names and amounts, not {resources!r}")
    for name, amount in resources.items():
        _check_amount(f"{kind}: ray's resource {name!r}", amount)
    strategy = given.get("scheduling_strategy")
    if isinstance(strategy, str) and strategy not in _STRATEGIES:
        hint = did_you_mean(strategy, _STRATEGIES)
        raise PipelineError(f"{kind}: ray has no scheduling_strategy {strategy!r}{hint}")
    restarts = given.get("max_restarts", 0)
    if isinstance(restarts, bool) or not isinstance(restarts, int) or restarts < -1:
        raise PipelineError(f"{kind}: ray's max_restarts is a number of restarts, or -1 for always, not {restarts!r}")
    return RayOptions(dict(given))


def _check_amount(what: str, amount: Any) -> None:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount < float("inf"):
        raise PipelineError(f"{what} is a number, 0 or more, not {amount!r}")
