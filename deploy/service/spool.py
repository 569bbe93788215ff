"""The folder of uploads and results: the service's own, empty at its start and gone at its end."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

from lstfe.errors import UserError

_PREFIX = "lstfe-serve-"
_LOCK = ".lock"
_ENTRY = re.compile(r"[0-9a-f]{32}")


class SpoolError(UserError):
    """The spool folder cannot be used."""


class Spool:
    """A folder that this process alone uses; one subfolder a job, named by its id and by nothing of a client's."""

    def __init__(self, folder: Path | None = None) -> None:
        """Use `folder`, or a new one under the system's temporary folder; remove what a killed service left."""
        self._is_temporary = folder is None
        if folder is None:
            _remove_abandoned(Path(tempfile.gettempdir()))
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.folder = folder.resolve()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolError(
                f"{self.folder}: cannot be written to ({error.strerror}); give another spool"
            ) from None
        if not _take(self._lock):
            os.close(self._lock)
            raise SpoolError(f"{self.folder}: another service uses it; give each a spool of its own")
        self._remove_entries()

    def new_entry(self, job_id: str) -> Path:
        """Make and return the folder of a job."""
        assert _ENTRY.fullmatch(job_id), "ids are our own"
        entry = self.folder / job_id
        entry.mkdir(mode=0o700)
        return entry

    def remove_entry(self, job_id: str) -> None:
        """Remove a job's folder, if it is there."""
        assert _ENTRY.fullmatch(job_id), "ids are our own"
        shutil.rmtree(self.folder / job_id, ignore_errors=True)

    def close(self) -> None:
        """Remove everything of ours."""
        self._remove_entries()
        (self.folder / _LOCK).unlink(missing_ok=True)
        os.close(self._lock)
        if self._is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_entries(self) -> None:
        for entry in self.folder.iterdir():
            if _ENTRY.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_abandoned(parent: Path) -> None:
    """Remove temporary spools whose process is gone: nobody holds their lock."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            status = folder.lstat()
            if status.st_uid != os.geteuid() or not folder.is_dir() or folder.is_symlink():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if _take(lock):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
