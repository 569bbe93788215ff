"""Groups of processes for the tests, started without torchrun: run by path, never imported.

python forked.py WORKER NUMBERS ARGUMENT...    python forked.py worker.py 2,4 config.yaml out/{number}

For each number, calls WORKER's main(ARGUMENT...) once in so many processes; `{number}` stands for it in an argument.
They are forked from one process that has loaded everything, because loading is what takes long.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
from collections.abc import Callable
from functools import partial


def main(worker: str, numbers: str, *arguments: str) -> None:
    """Wait for each group's end; exit with an error where a process of it does not end well."""
    work = runpy.run_path(worker)["main"]
    for number in map(int, numbers.split(",")):
        port = free_port()
        given = [argument.replace("{number}", str(number)) for argument in arguments]
        children = [fork(partial(work, *given), rank, number, port) for rank in range(number)]
        statuses = [os.waitpid(child, 0)[1] for child in children]
        if any(statuses):
            sys.exit(f"{number} processes ended with {statuses}")


def fork(work: Callable[[], None], rank: int, number: int, port: str) -> int:
    """Return the id of a process that is one of a group, if it is not the only one."""
    child = os.fork()
    if child == 0:
        if number > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
        work()
        os._exit(0)
    return child


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
