"""From the host to a GPU without waiting for it: a copy that is not awaited must come from pinned memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor to the device; where that is a GPU, the host goes on at once."""
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """Return numbers as a tensor of the type and on the device of another: -> (len(values),)."""
    if not like.is_cuda or torch.compiler.is_compiling():  # a compiler makes constants of its own of them
        return like.new_tensor(values)
    return to_device(torch.tensor(values, dtype=like.dtype), like.device)
