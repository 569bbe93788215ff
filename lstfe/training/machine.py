"""What a training ran on: versions and device, for its record."""

from __future__ import annotations

import platform

import torch
import torchvision

from lstfe.training.distributed import World


def describe_machine(world: World) -> dict[str, str]:
    """Return the versions that shape the numbers and the devices of all processes, taken to be alike."""
    device = world.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    found = {
        "device": f"{world.size} x {name}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    return found | ({"cuda": str(torch.version.cuda)} if device.type == "cuda" else {})


def _processor() -> str:
    return f"{platform.machine()} CPU ({torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()})"
