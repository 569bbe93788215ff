"""One at a time: a lock that ends with the process that holds it, however that ends, and says who that is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from lstfe.errors import UserError

_POLL_SECONDS = 0.1


class Busy(UserError):
    """Somebody else holds the lock."""


@contextlib.contextmanager
def hold_lock(path: Path, *, what: str, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock in the file `path` while the block runs; Busy where another process has it for too long.

    The kernel gives it up when its holder ends, also by SIGKILL, so that no stale lock is left; the file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        until = time.monotonic() + wait_seconds
        while not _try(descriptor):
            if time.monotonic() >= until:
                raise Busy(
                    f"{path}: {what} is running already ({_holder(path)}); wait for its end or stop it"
                )
            time.sleep(_POLL_SECONDS)
        about = {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(about).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> str:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return f"process {about['pid']} since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "process unknown"
