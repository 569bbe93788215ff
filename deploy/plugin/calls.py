"""A prepared call of one of the library's functions that need a workspace, on torch tensors."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deploy.plugin import library as kernels
from deploy.plugin.library import PluginError


@dataclass(slots=True)
class PreparedCall:
    """Inputs as they lie in memory, and the outputs that a run fills; on the CPU with a library for the host.

    Nothing is copied or allocated when it runs, so that the time of a run is the time of the kernels.
    """

    NAME: ClassVar[str]
    """Of the function: `lstfe_NAME`, beside it `lstfe_NAME_workspace` and `lstfe_NAME_host`."""
    library: ctypes.CDLL
    params: ctypes.Structure
    inputs: list[Tensor]
    """In the order of the C function; kept, because C holds only their addresses."""
    outputs: list[Tensor]
    workspace: Tensor | None = None

    def __post_init__(self) -> None:
        if hasattr(self.library, f"lstfe_{self.NAME}"):
            size = self._function("_workspace")(ctypes.byref(self.params))
            device = self.inputs[0].device
            self.workspace = torch.empty(size, dtype=torch.uint8, device=device) if size else None

    def run(self, stream: int = 0) -> None:
        """Fill the outputs on the device, in a CUDA stream given by its address."""
        self._require_ok(self.status(stream))

    def status(self, stream: int = 0) -> int:
        """Start the work and return the library's status."""
        address, size = None, 0
        if self.workspace is not None:
            address, size = self.workspace.data_ptr(), self.workspace.nbytes
        return int(self._function("")(ctypes.byref(self.params), *self._addresses(), address, size, stream))

    def run_on_host(self) -> None:
        """Fill the outputs with the host reference; tensors are on the CPU."""
        self._require_ok(self._function("_host")(ctypes.byref(self.params), *self._addresses()))

    def _function(self, suffix: str) -> ctypes._NamedFuncPointer:
        function: ctypes._NamedFuncPointer = getattr(self.library, f"lstfe_{self.NAME}{suffix}")
        return function

    def _addresses(self) -> list[int]:
        return [tensor.data_ptr() for tensor in (*self.inputs, *self.outputs)]

    def _require_ok(self, status: int) -> None:
        if status != kernels.OK:
            raise PluginError(f"{self.NAME}: {kernels.status_text(self.library, status)}")
