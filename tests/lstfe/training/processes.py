"""Trainings of several processes for the tests, started without torchrun: run by path, never imported.

python processes.py CONFIG PREPARED_DIR OUTPUT_DIR NUMBER...    trains once with each number of processes

Forked from one process that has loaded everything, because loading is what takes long.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from worker import main as train_in_this_process


def main(config: str, prepared_dir: str, output_dir: str, *numbers: str) -> None:
    """Write OUTPUT_DIR/NUMBER/history.json and weights.safetensors for each number."""
    for number in numbers:
        folder = Path(output_dir) / number
        folder.mkdir()
        arguments = (config, prepared_dir, str(folder / "checkpoints"), str(folder))
        os.environ |= {"WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        children = [fork(rank, arguments) for rank in range(int(number))]
        statuses = [os.waitpid(child, 0)[1] for child in children]
        if any(statuses):
            sys.exit(f"{number} processes ended with {statuses}")


def fork(rank: int, arguments: tuple[str, ...]) -> int:
    child = os.fork()
    if child == 0:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        train_in_this_process(*arguments)
        os._exit(0)
    return child


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
