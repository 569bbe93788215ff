"""The library's operators on torch tensors, for checks and timings; on the CPU with a library built for the host.

Shapes: N batch, C channels, O output channels, H x W input cells, h x w output cells, K taps, G offset groups.
Nothing is copied when a prepared call runs, so that the time of a run is the time of the kernel.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from deploy.plugin import library as kernels
from deploy.plugin.library import DeformConvParams, PluginError, SampledSumParams, Sampling

TYPES = {torch.float32: kernels.FLOAT32, torch.float16: kernels.FLOAT16, torch.bfloat16: kernels.BFLOAT16}
CHANNEL_VECTOR = 8
"""Channels-last tensors are padded to a multiple of this, as TensorRT's kHWC8."""

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where the kernel's taps lie, each (vertical, horizontal), in cells."""

    kernel: Pair = (3, 3)
    stride: Pair = (1, 1)
    padding: Pair = (1, 1)
    dilation: Pair = (1, 1)

    def sampling(self, batch: int, size: Pair, offset_groups: int) -> Sampling:
        """Return the C struct for `batch` maps of a size (height, width)."""
        return Sampling(
            *(batch, *size, *self.kernel, *self.stride, *self.padding, *self.padding, *self.dilation),
            offset_groups,
        )


@dataclass(slots=True)
class Call:
    """One prepared call: tensors as they lie in memory, and the output that a run fills."""

    library: ctypes.CDLL
    params: DeformConvParams | SampledSumParams
    tensors: list[Tensor | None]
    """All but the output, in the order of the C function; kept, because C holds only their addresses."""
    stored: Tensor
    workspace: Tensor | None = None

    @classmethod
    def deform_conv2d(
        cls,
        library: ctypes.CDLL,
        features: Tensor,
        offsets: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        grid: Grid,
        layout: int = kernels.NCHW,
        relu: bool = False,
        algorithm: int = kernels.AUTO,
        splits: int = 0,
    ) -> Self:
        """Prepare torchvision's deform_conv2d: (N, C, H, W), (N, 2*G*K, h, w) -> (N, O, h, w)."""
        batch, channels = features.shape[:2]
        out_channels, group_channels, *_ = weight.shape
        offset_groups = offsets.shape[1] // (2 * grid.kernel[0] * grid.kernel[1])
        params = DeformConvParams(
            grid.sampling(batch, (features.shape[2], features.shape[3]), offset_groups),
            *(channels, out_channels, channels // group_channels, relu, TYPES[features.dtype], layout),
            *(algorithm, splits),
        )
        tensors = [
            stored(features, layout),
            *(_float32(offsets), _float32(mask), stored(weight, layout), _float32(bias)),
        ]
        output = _empty_output(features, (batch, out_channels, offsets.shape[2], offsets.shape[3]), layout)
        call = cls(library, params, tensors, output)
        if hasattr(library, "lstfe_deform_conv2d"):
            size = library.lstfe_deform_conv2d_workspace(ctypes.byref(params))
            call.workspace = torch.empty(size, dtype=torch.uint8, device=features.device) if size else None
        return call

    @classmethod
    def sampled_sum(
        cls,
        library: ctypes.CDLL,
        maps: Tensor,
        offsets: Tensor,
        bias: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        grid: Grid,
        layout: int = kernels.NCHW,
        relu: bool = False,
    ) -> Self:
        """Prepare the sum of sampled per-tap maps: (N, H, W, K*C), (N, 2*K, h, w) -> (N, C, h, w) in a layout."""
        number, height, width, row = maps.shape
        channels = row // (grid.kernel[0] * grid.kernel[1])
        sampling = grid.sampling(number, (height, width), 1)
        params = SampledSumParams(sampling, channels, relu, TYPES[maps.dtype], layout)
        output = _empty_output(maps, (number, channels, offsets.shape[2], offsets.shape[3]), layout)
        inputs = [maps.contiguous(), _float32(offsets), _float32(mask), _float32(bias)]
        return cls(library, params, inputs, output)

    def run(self, stream: int = 0) -> None:
        """Fill the output on the device, in a CUDA stream given by its address."""
        status = self.status(stream)
        if status != kernels.OK:
            raise PluginError(f"{type(self.params).__name__}: {kernels.status_text(self.library, status)}")

    def status(self, stream: int = 0) -> int:
        """Start the work and return the library's status."""
        addresses = [_address(tensor) for tensor in self.tensors]
        params = ctypes.byref(self.params)
        if isinstance(self.params, SampledSumParams):
            return int(self.library.lstfe_sampled_sum(params, *addresses, _address(self.stored), stream))
        workspace, size = _address(self.workspace), 0 if self.workspace is None else self.workspace.numel()
        return int(
            self.library.lstfe_deform_conv2d(
                params, *addresses, _address(self.stored), workspace, size, stream
            )
        )

    def run_on_host(self) -> None:
        """Fill the output with the host reference: float32, NCHW, tensors on the CPU."""
        summed = isinstance(self.params, SampledSumParams)
        function = self.library.lstfe_sampled_sum_host if summed else self.library.lstfe_deform_conv2d_host
        addresses = [_address(tensor) for tensor in (*self.tensors, self.stored)]
        status = function(ctypes.byref(self.params), *addresses)
        if status != kernels.OK:
            raise PluginError(f"host reference: {kernels.status_text(self.library, status)}")

    def output(self) -> Tensor:
        """Return the output as (N, O, h, w), a view."""
        if self.params.layout == kernels.NCHW:
            return self.stored
        summed = isinstance(self.params, SampledSumParams)
        channels = self.params.channels if summed else self.params.out_channels
        return self.stored[..., :channels].permute(0, 3, 1, 2)


def stored(tensor: Tensor, layout: int) -> Tensor:
    """Return (N, C, H, W) as it lies in memory: itself, or (N, H, W, C) with C padded to a multiple of 8."""
    if layout == kernels.NCHW:
        return tensor.contiguous()
    return F.pad(tensor.permute(0, 2, 3, 1), (0, -tensor.shape[1] % CHANNEL_VECTOR)).contiguous()


def _empty_output(like: Tensor, shape: tuple[int, int, int, int], layout: int) -> Tensor:
    number, channels, height, width = shape
    if layout != kernels.NCHW:
        shape = (number, height, width, channels + -channels % CHANNEL_VECTOR)
    # NaN, so that an element nobody wrote is found.
    return torch.full(shape, float("nan"), dtype=like.dtype, device=like.device)


def _float32(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.float().contiguous()


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
