"""How much of the device a training uses: operations of an update, the device's own rate, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_PEAK_TERAFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
    "V100": 125.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
    "T4": 65.0,
    "Orin": 85.0,
}
"""Dense 16-bit matrix products a second, 1e12 operations, of the makers' data sheets; the first name found counts."""

Shape = Sequence[int]


def peak_flops(device: torch.device) -> float | None:
    """Return the operations a second that the device's maker states; None where they are not known here."""
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for name, peak in _PEAK_TERAFLOPS.items() if name in words), None)


def gpu_memory_gb(device: torch.device) -> float | None:
    """Return the most memory that tensors held at a time since the start, 1e9 bytes; None without a GPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def count_flops(work: Callable[[], Any]) -> int:
    """Run `work` and return the operations of its convolutions and matrix products, backward passes included.

    One multiplication and one addition are two operations, as in the makers' figures.
    """
    operators = torch.ops.torchvision
    mapping = {
        operators.deform_conv2d: _deform_conv_flops,
        operators._deform_conv2d_backward: _deform_conv_backward_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        work()
    return int(counter.get_total_flops())


def _deform_conv_flops(images: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    """(N, Cin, H, W), (Cout, Cin / groups, K, K) -> 2 * N * Cout * h * w * (Cin / groups) * K * K."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


def _deform_conv_backward_flops(gradient: Shape, images: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """Count a product as large as the forward one for the input's gradient, and one for the weight's."""
    return 2 * 2 * math.prod(gradient) * math.prod(weight[1:])
