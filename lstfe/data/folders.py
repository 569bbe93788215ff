"""Output folders that appear whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lstfe.errors import UserError

REPORT_NAME = "report.json"
"""Every data set that this project writes holds one; a folder without it is never replaced."""


class FolderError(UserError):
    """An output folder is in the way."""


@contextmanager
def new_folder(destination: Path, *, replace: bool) -> Iterator[Path]:
    """Hand out an empty folder that becomes `destination` when the block ends well, and vanishes otherwise.

    An existing data set is replaced only if `replace`; any other folder with content is an error.
    """
    _check_free(destination, replace=replace)
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if destination.is_dir():
            shutil.rmtree(destination)
        partial.rename(destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_free(destination: Path, *, replace: bool) -> None:
    if not destination.exists():
        return
    if not destination.is_dir():
        raise FolderError(f"{destination}: is a file, expected a free name for a folder")
    if not any(destination.iterdir()):
        return
    if not replace:
        raise FolderError(f"{destination}: exists already; remove it or choose another name")
    if not (destination / REPORT_NAME).is_file():
        raise FolderError(
            f"{destination}: has content but no {REPORT_NAME}, so it is no data set and is not replaced; "
            "move it away or choose another name"
        )
