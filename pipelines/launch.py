"""One process of a stage or many: the environment may say, because their number is no part of an experiment.

`python -m pipelines.launch TORCHRUN_ARGUMENTS` is torchrun with exit codes that say how the training ended.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from lstfe.errors import UserError

PROCESSES = "LSTFE_NPROC"
"""Processes of a stage on this machine; without it, one a visible GPU (to evaluate on CPUs, several)."""
MICRO_BATCH = "LSTFE_MICRO_BATCH"
"""Most clips that a process puts through the network at a time; without it, its share of the batch."""
MAX_RESTARTS = 3
SHUTDOWN_SECONDS = 60
"""How long torchrun waits for its processes to save, once it is told to stop."""


_MOST_CPU_PROCESSES = 8  # each takes about a gigabyte
_FRAMES_WORTH_A_PROCESS = 300

logger = logging.getLogger(__name__)


def launch_processes(module: str, num_wanted: Callable[[], int]) -> None:
    """Become torchrun with several processes of `module`, unless one is enough or torchrun is there.

    LSTFE_NPROC says how many, else `num_wanted`.
    """
    if "RANK" in os.environ:
        return
    num_processes = _number(PROCESSES) or num_wanted()
    if num_processes > 1:
        _become_torchrun(module, num_processes)


def micro_batch() -> int | None:
    """Return the limit that the environment sets on the clips of one pass, if any."""
    return _number(MICRO_BATCH)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    if not (text.isdecimal() and int(text) >= 1):
        raise UserError(f"{variable} must be a whole number >= 1, got {text!r}")
    return int(text)


def processes_to_train(batch_size: int) -> int:
    """Return the most visible GPUs, at least 1, that can share a batch equally."""
    from lstfe.training.distributed import num_visible_gpus

    visible = num_visible_gpus()
    shared = max(number for number in range(1, max(1, visible) + 1) if batch_size % number == 0)
    if shared < visible:
        logger.warning(
            "%d of %d GPUs train: train.batch_size %d can be shared equally by no more",
            shared,
            visible,
            batch_size,
        )
    return shared


def processes_to_detect(num_videos: int, num_frames: int, *, num_threads: int) -> int:
    """Return how many processes are worth their start: one a visible GPU, else one for each `num_threads` cores."""
    from lstfe.training.distributed import num_visible_gpus

    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    devices = num_visible_gpus() or min(cores // num_threads, _MOST_CPU_PROCESSES)
    return max(1, min(devices, num_videos, num_frames // _FRAMES_WORTH_A_PROCESS))


def _become_torchrun(module: str, num_processes: int) -> NoReturn:
    from lstfe.training.distributed import LAUNCHER_ENVIRONMENT

    defaults = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_processes)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS),
    }
    environment = defaults | dict(os.environ) | LAUNCHER_ENVIRONMENT
    torchrun = ["--standalone", f"--nproc-per-node={num_processes}", f"--max-restarts={MAX_RESTARTS}"]
    command = [sys.executable, "-m", "pipelines.launch", *torchrun, "-m", module]
    os.execve(sys.executable, command, environment)


def run_torchrun(arguments: list[str]) -> int:
    """Run torchrun and return how the training ended: 0, the code of the first process that failed, or of the signal.

    torchrun itself would return 1 for all but the first.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    from lstfe.training.stop import PREEMPTED

    try:
        main(arguments)
    except SignalException as stopped:
        # Its processes got SIGTERM, whatever the signal, and had the time to save.
        return 130 if stopped.sigval == signal.SIGINT else PREEMPTED
    except ChildFailedError as failed:
        _, failure = failed.get_first_failure()
        return int(failure.exitcode) if failure.exitcode > 0 else 128 - int(failure.exitcode)
    return 0


if __name__ == "__main__":
    sys.exit(run_torchrun(sys.argv[1:]))
