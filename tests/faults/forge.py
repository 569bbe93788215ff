"""Forks training processes on request, because loading everything is what takes long: run by path.

Reads {"number": N, "arguments": [...]} a line, forks N processes of worker.py and answers with their ids; then, once
they have all ended, with their wait statuses.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback

import worker


def main() -> None:
    """Serve until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
        children = [fork(rank, request, port) for rank in range(request["number"])]
        print(json.dumps(children), flush=True)
        print(json.dumps([os.waitpid(child, 0)[1] for child in children]), flush=True)


def fork(rank: int, request: dict[str, object], port: str) -> int:
    child = os.fork()
    if child:
        return child
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": request["number"], "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
    code = 1
    try:
        worker.main(*request["arguments"])
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    os._exit(code)


if __name__ == "__main__":
    main()
