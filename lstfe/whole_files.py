"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL_PREFIX = ".part-"
"""How a file's name begins that a process was killed over."""


@contextmanager
def new_file(path: Path, *, is_durable: bool = False) -> Iterator[Path]:
    """Hand out a hidden name beside `path` that takes its place when the block ends well, and vanishes otherwise.

    `is_durable` waits until the file is on the disk itself: then a power cut, too, leaves the old or the new one whole.
    """
    # With the suffix at its end, which says the format; with host and process, because two may write the same file.
    partial = path.with_name(f"{PARTIAL_PREFIX}{socket.gethostname()}-{os.getpid()}-{path.name}")
    try:
        yield partial
        if is_durable:
            _flush_to_disk(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if is_durable and os.name == "posix":  # the new name itself is on disk only with its folder
        _flush_to_disk(path.parent)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
