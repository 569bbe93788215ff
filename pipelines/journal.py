"""Metrics of a training on local disk, one JSON object a line: the truth; the tracker gets copies."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Entry = dict[str, Any]
"""{"iteration": updates done, "time": seconds since 1970, and each metric's name and value}."""


class Journal:
    """A file that is only appended to, and how much of it the tracker has received.

    A killed training repeats updates after its last checkpoint; what is in the journal is not added again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._delivered_path = path.with_name(path.name + ".delivered")
        self._lock = threading.Lock()
        self._waiting: list[Entry] = []
        """Not on disk yet, because the disk was full."""
        self._is_reported = False
        self._entries = _read_sound_lines(path)
        self._known = {(name, entry["iteration"]) for entry in self._entries for name in entry}
        self._num_delivered = _read_count(self._delivered_path)

    def append(self, metrics: dict[str, float], iteration: int) -> None:
        """Keep the metrics that are new for this iteration, and write them at once; a full disk makes them wait."""
        new = {name: value for name, value in metrics.items() if (name, iteration) not in self._known}
        if not new:
            return
        entry: Entry = {"iteration": iteration, "time": round(time.time(), 3), **new}
        with self._lock:
            self._entries.append(entry)
            self._waiting.append(entry)
            self._write_waiting()
        self._known |= {(name, iteration) for name in new}

    def _write_waiting(self) -> None:
        """Append what is not on disk yet, whole lines or nothing."""
        try:
            with self.path.open("ab", buffering=0) as file:
                end = file.tell()
                lines = "".join(json.dumps(entry) + "\n" for entry in self._waiting).encode()
                try:
                    if file.write(lines) < len(lines):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError:
                    file.truncate(end)
                    raise
            self._waiting = []
        except OSError as error:
            if not self._is_reported:
                reason = (error.strerror or str(error)).lower()
                logger.warning("%s: cannot be written (%s); metrics wait in memory", self.path, reason)
            self._is_reported = True

    def undelivered(self) -> list[Entry]:
        """Return the entries that the tracker does not have."""
        with self._lock:
            if self._waiting:
                self._write_waiting()
            return self._entries[self._num_delivered :]

    def mark_delivered(self, num_entries: int) -> None:
        """Remember, also past the end of this process, that the tracker has that many entries more."""
        with self._lock:
            self._num_delivered += num_entries
            # What a full disk keeps us from noting is delivered once more after a restart, which changes nothing.
            with contextlib.suppress(OSError):
                self._delivered_path.write_text(str(self._num_delivered), encoding="utf-8")


def read_journal(path: Path) -> list[Entry]:
    """Read the entries of a journal; none where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _read_sound_lines(path: Path) -> list[Entry]:
    """Read all entries after cutting off a last line that a kill left unfinished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes() if path.is_file() else b""
    sound = content[: content.rfind(b"\n") + 1]
    if len(sound) < len(content):
        path.write_bytes(sound)
    return read_journal(path)


def _read_count(path: Path) -> int:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
