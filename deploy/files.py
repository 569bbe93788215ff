"""Files of a bundle and what is in them; folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class FileStamp:
    """Size and content of one file."""

    size: int
    """Bytes."""
    sha256: str


def stamp_of(path: Path) -> FileStamp:
    """Return size and content of a file."""
    with path.open("rb") as file:
        return FileStamp(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


@contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """Hand out an empty folder that takes the place of `destination` when the block ends well, and vanishes otherwise.

    Whatever is there is replaced: who calls has looked whether it may be.
    """
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _replace_directory(partial, destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace_directory(new: Path, destination: Path) -> None:
    """Give a whole folder its name; what had the name is gone only when the new one is in its place."""
    old = destination.with_name(f".{destination.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        destination.rename(old)
    new.rename(destination)
    shutil.rmtree(old, ignore_errors=True)
