"""Training state and weights on disk: written whole or not at all, read without running what they contain."""

from __future__ import annotations

import dataclasses
import io
import logging
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lstfe.errors import UserError, one_line
from lstfe.whole_files import PARTIAL_PREFIX, new_file

logger = logging.getLogger(__name__)

_UNREADABLE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
)


class WeightsError(UserError):
    """A file of weights is missing, unreadable, or belongs to another model."""


@dataclass(slots=True, kw_only=True)
class Checkpoint:
    """Full training state after `iteration` updates."""

    iteration: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    rng: list[dict[str, Tensor]] = field(default_factory=list)
    """Random generators of each rank (`rng_state`)."""
    history: list[dict[str, float]] = field(default_factory=list)
    """What was logged until here, one entry per line of metrics."""
    mean_weights: dict[str, Tensor] = field(default_factory=dict)
    """Running means of the parameters; none unless the training keeps them."""


# ---------------------------------------------------------------------------------------- checkpoints


def checkpoint_path(directory: Path, iteration: int) -> Path:
    """Return where the checkpoint after `iteration` updates lies; names sort by age."""
    return directory / f"checkpoint_{iteration:09d}.pt"


def save_checkpoint(checkpoint: Checkpoint, directory: Path, *, num_kept: int = 2) -> Path:
    """Write the checkpoint atomically, then remove all but the newest `num_kept`; OSError where the disk is full."""
    directory.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(directory, checkpoint.iteration)
    values = {item.name: getattr(checkpoint, item.name) for item in dataclasses.fields(checkpoint)}
    with new_file(path, is_durable=True) as partial:
        _save_to(partial, values)
    leftovers = list(directory.glob(f"{PARTIAL_PREFIX}*-checkpoint_*"))  # of a process killed while it wrote
    for outdated in _oldest_first(directory)[:-num_kept] + leftovers:
        outdated.unlink(missing_ok=True)
    return path


class _Watched(io.BufferedWriter):
    """A file that keeps the first error of writing to it: torch raises another one in its place."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            raise


def _save_to(path: Path, values: dict[str, Any]) -> None:
    """Write `values`; OSError where the disk is full."""
    with _Watched(io.FileIO(path, "w")) as file:
        try:
            torch.save(values, file)
        except RuntimeError:
            if file.error is not None:
                raise file.error from None
            raise


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint onto the CPU; raises BadZipFile or what torch.load raises when it is damaged."""
    with zipfile.ZipFile(path) as archive:  # torch.load reads the archive without looking at its checksums
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
    # weights_only: a pickle may run code when it is read.
    return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))


def load_newest_checkpoint(directory: Path) -> Checkpoint | None:
    """Read the newest checkpoint that can be read, warning about those that cannot; None without any."""
    for path in reversed(_oldest_first(directory)):
        try:
            return load_checkpoint(path)
        except _UNREADABLE as error:
            reason = one_line(error)[:200]
            logger.warning("%s: cannot be read (%s); falling back to the checkpoint before it", path, reason)
    return None


def _oldest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("checkpoint_*.pt"))


# -------------------------------------------------------------------------------------------- weights


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's state as safetensors, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, is_durable=True) as partial:
        safetensors.torch.save_file(tensors, partial)


def load_weights(model: nn.Module, path: Path) -> None:
    """Read safetensors into `model`; raises WeightsError unless keys and shapes are exactly the model's."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file, expected a trained model's weights. Run the stage train.")
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not readable as safetensors ({error}). Train or copy again.") from None
    remedy = "Build the model from the config.yaml saved beside them."
    load_state(model, tensors, where=str(path), remedy=remedy)


def load_state(model: nn.Module, state: Mapping[str, Tensor], *, where: str, remedy: str) -> None:
    """Copy `state` into `model`; raises WeightsError with the keys that do not fit and `remedy`."""
    expected = model.state_dict()
    faults = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    if any(faults.values()):
        listed = "; ".join(
            f"{len(keys)} {fault}: {_shortened(keys)}" for fault, keys in faults.items() if keys
        )
        raise WeightsError(f"{where}: these weights belong to another model: {listed}. {remedy}")
    model.load_state_dict(state)


def _shortened(keys: list[str], limit: int = 5) -> str:
    return ", ".join(keys[:limit]) + (", ..." if len(keys) > limit else "")


# -------------------------------------------------------------------------------- random generators


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of this process's global generators."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Set this process's global generators to what `rng_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
