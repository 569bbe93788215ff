"""What a training ran on."""

from __future__ import annotations

import torch

from lstfe.training.distributed import World
from lstfe.training.machine import describe_machine


def test_on_a_cpu_the_processes_and_threads_are_said() -> None:
    found = describe_machine(World(rank=1, size=3))
    assert found["device"].startswith("3 x ")
    assert f"({torch.get_num_threads()} threads" in found["device"]
    assert found["torch"] == torch.__version__
    assert found.keys() == {"device", "python", "torch", "torchvision"}
