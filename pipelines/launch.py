"""One training process or many: the environment says, because their number is no part of an experiment."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from lstfe.errors import UserError
from lstfe.training.distributed import LAUNCHER_ENVIRONMENT

VARIABLE = "LSTFE_NPROC"


def launch_processes(module: str) -> None:
    """Become torchrun with LSTFE_NPROC processes of `module`, unless one is enough or torchrun is there."""
    num_processes = _num_processes()
    if num_processes > 1 and "RANK" not in os.environ:
        _become_torchrun(module, num_processes)


def _num_processes() -> int:
    text = os.environ.get(VARIABLE, "1")
    if not (text.isdecimal() and int(text) >= 1):
        raise UserError(f"{VARIABLE} must be a whole number >= 1, got {text!r}")
    return int(text)


def _become_torchrun(module: str, num_processes: int) -> NoReturn:
    threads = str(max(1, (os.cpu_count() or 1) // num_processes))
    environment = {"OMP_NUM_THREADS": threads} | dict(os.environ) | LAUNCHER_ENVIRONMENT
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    os.execve(sys.executable, [sys.executable, *torchrun, "--max-restarts=3", "-m", module], environment)
