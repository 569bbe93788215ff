"""Weights of another training as a start: what fits by name and shape is taken, and said how much that is."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lstfe.errors import one_line
from lstfe.training.checkpoint import WeightsError

_WRAPPERS = ("model", "state_dict", "model_state_dict", "weights")
"""Keys under which checkpoints of this and other projects keep the model's state."""
_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before the names of parameters."""
_NUM_NAMED = 5


def warm_start(model: nn.Module, path: Path, *, min_coverage: float) -> str:
    """Copy what fits from `path` into `model` and return the report; WeightsError below `min_coverage`.

    Coverage is the share of the model's parameters (numbers, not tensors) that the file fills.
    """
    state, own = read_state(path), dict(model.state_dict())
    fitting = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
    total = sum(parameter.numel() for parameter in model.parameters())
    filled = sum(parameter.numel() for name, parameter in model.named_parameters() if name in fitting)
    groups = {
        "not in the file": [name for name in own if name not in state],
        "of another shape": [name for name in own if name in state and name not in fitting],
        "unused": [name for name in state if name not in own],
    }
    coverage = filled / total
    report = f"warm start from {path}: {len(fitting)} of {len(own)} tensors, {coverage:.1%} of the parameters"
    report += "".join(f"; {len(names)} {what}: {_listed(names)}" for what, names in groups.items() if names)
    if coverage < min_coverage:
        raise WeightsError(
            f"{report}. Expected at least {min_coverage:.0%} of the parameters (train.warm_start_coverage): "
            "choose the file of a model like this one, or lower that limit"
        )
    model.load_state_dict(fitting, strict=False)
    return report


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file, by name, without running what it contains; raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"train.warm_start {path}: no such file, expected weights or a checkpoint")
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        OSError,
        RuntimeError,
        EOFError,
    ) as error:
        reason = one_line(error)[:200]
        raise WeightsError(
            f"train.warm_start {path}: not readable as safetensors or as a PyTorch file of plain tensors ({reason})"
        ) from None
    state = {
        _without_prefix(name): value
        for name, value in _unwrapped(content).items()
        if isinstance(value, Tensor)
    }
    if not state:
        raise WeightsError(
            f"train.warm_start {path}: holds no tensors by name, expected a model's state dict"
        )
    return state


def _unwrapped(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        return {}
    inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    return {str(name): value for name, value in inner.items()}


def _without_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NUM_NAMED]) + (", ..." if len(names) > _NUM_NAMED else "")
