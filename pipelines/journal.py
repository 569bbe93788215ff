"""Metrics of a training on local disk, one JSON object a line: the truth; the tracker gets copies."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

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
        self._entries = _read_sound_lines(path)
        self._known = {(name, entry["iteration"]) for entry in self._entries for name in entry}
        self._num_delivered = _read_count(self._delivered_path)

    def append(self, metrics: dict[str, float], iteration: int) -> None:
        """Write the metrics that are new for this iteration, at once and for good."""
        new = {name: value for name, value in metrics.items() if (name, iteration) not in self._known}
        if not new:
            return
        entry: Entry = {"iteration": iteration, "time": round(time.time(), 3), **new}
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            self._entries.append(entry)
        self._known |= {(name, iteration) for name in new}

    def undelivered(self) -> list[Entry]:
        """Return the entries that the tracker does not have."""
        with self._lock:
            return self._entries[self._num_delivered :]

    def mark_delivered(self, num_entries: int) -> None:
        """Remember, also past the end of this process, that the tracker has that many entries more."""
        with self._lock:
            self._num_delivered += num_entries
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
