"""Which task runner detects on many videos; checked before anything starts, so Prefect is not imported here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from lstfe.errors import UserError

Runner = Literal["processes", "threads", "dask", "ray"]
_PACKAGES = {"dask": ("prefect_dask", "scale"), "ray": ("prefect_ray", "ray")}
"""Module that a runner needs, and the extra that brings it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerSettings:
    """Where tasks run; raises UserError for what cannot be, also where the runner's package is not installed."""

    kind: Runner = "processes"
    num_workers: int = 1
    """Videos at a time. A cluster that is there already has its own number."""
    address: str | None = None
    """Scheduler of a Dask or Ray cluster that is there already."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Runner):
            raise UserError(f"runner must be one of {', '.join(get_args(Runner))}, got {self.kind!r}")
        if self.num_workers < 1:
            raise UserError(f"the number of workers must be >= 1, got {self.num_workers}")
        if self.address is not None and self.kind not in _PACKAGES:
            raise UserError(f"an address is for the runners {' and '.join(_PACKAGES)}, not for {self.kind}")
        module, extra = _PACKAGES.get(self.kind, ("", ""))
        if module and find_spec(module) is None:
            raise UserError(
                f"runner {self.kind} needs {module.replace('_', '-')}: pip install 'lstfe[{extra}]'"
            )
