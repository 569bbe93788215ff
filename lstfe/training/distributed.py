"""One process or many: what torchrun says through the environment, and the few collectives the loop needs.

Start several processes with

    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 \
        python -m torch.distributed.run --standalone --nproc-per-node N -m pipelines.train

Without that variable a restarted group can meet stale keys of the one before it and hang (pytorch #135712).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from lstfe.errors import UserError

LAUNCHER_ENVIRONMENT = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""What a launcher adds to the environment of `python -m torch.distributed.run`."""

DEFAULT_TIMEOUT = timedelta(minutes=30)
"""Longest wait in a collective. The other ranks wait while rank 0 validates, so it must outlast that."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class LaunchError(UserError):
    """The environment that the processes were started with does not add up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """This process among all that train one model."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Place among the processes of this machine; also the index of its GPU."""

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that reports and writes."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Return this process's own GPU, or the CPU where there is none."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")


def current_world(environment: Mapping[str, str] = os.environ) -> World:
    """Read torchrun's variables; without them there is one process. Raises LaunchError on a contradiction."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    found = {name: environment[name] for name in names if name in environment}
    if not found:
        return World()
    try:
        rank, size, local_rank = (int(found[name]) for name in names)
    except (KeyError, ValueError):
        raise LaunchError(
            f"environment: RANK, WORLD_SIZE and LOCAL_RANK must be three numbers, found {found}. "
            "Start with `python -m torch.distributed.run`, or unset all three."
        ) from None
    if not 0 <= rank < size:
        raise LaunchError(f"environment: RANK must be in 0..WORLD_SIZE-1, found {found}")
    return World(rank=rank, size=size, local_rank=local_rank)


def num_visible_gpus() -> int:
    """Return how many GPUs this process may use, without taking hold of any."""
    return torch.cuda.device_count()


@contextmanager
def joined_world(timeout: timedelta = DEFAULT_TIMEOUT) -> Iterator[World]:
    """Join the other processes for the length of the block; alone, or already joined, nothing happens."""
    world = current_world()
    if world.device.type == "cuda":
        _require_gpu(world)
        torch.cuda.set_device(world.device)
    if "RANK" in os.environ:
        die_with_parent()
    if world.size == 1 or dist.is_initialized():
        yield world
        return
    # gloo beside nccl: objects and barriers stay on the CPU, so that waiting does not keep a GPU busy.
    backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timeout)
    # Of 1x1 kernels, whose layout has two names and one meaning.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    yield world
    # Only after a clean end: after an error the others may be gone, and waiting for them would hide it.
    dist.barrier()
    dist.destroy_process_group()


def _require_gpu(world: World) -> None:
    count = torch.cuda.device_count()
    if world.local_rank >= count:
        raise LaunchError(
            f"process {world.local_rank} of this machine has no GPU: found {count}, expected one a process. "
            f"Start with --nproc-per-node {count}, or hide the GPUs (CUDA_VISIBLE_DEVICES=) and use the CPU."
        )


def die_with_parent() -> None:
    """Ask Linux to terminate this process when its parent dies: torchrun's workers outlive a killed agent."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died in between, and the signal with it
        os.kill(os.getpid(), signal.SIGTERM)


def mean_over_processes(values: dict[str, Tensor]) -> dict[str, float]:
    """Average scalar tensors over all processes; this is where the device is waited for."""
    if not values:
        return {}
    stacked = torch.stack([value.detach().double() for value in values.values()])
    if dist.is_initialized():
        dist.all_reduce(stacked)
        stacked /= dist.get_world_size()
    return dict(zip(values, stacked.tolist(), strict=True))


def gather_from_all(value: Any) -> list[Any]:
    """Return every process's `value`, in the order of the ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_from_main(value: Any) -> Any:
    """Return rank 0's `value` in every process."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
