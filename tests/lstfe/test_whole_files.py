from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lstfe.whole_files import new_file


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_file_appears_when_the_block_ends_well(tmp_path: Path, is_durable: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with new_file(path, is_durable=is_durable) as partial:
        partial.write_text("new")
        assert (path.read_text(), partial.suffix) == ("old", ".txt")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def _write_half_a_file(path: Path) -> None:
    with new_file(path) as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt


def test_an_error_leaves_the_old_file_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    for name in ("a.txt", "b.txt"):
        with pytest.raises(KeyboardInterrupt):
            _write_half_a_file(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "a.txt"):
        pass


def test_hosts_and_processes_that_share_a_folder_do_not_share_a_partial_file(tmp_path: Path) -> None:
    with new_file(tmp_path / "a.txt") as partial:
        partial.touch()
        assert f"{socket.gethostname()}-{os.getpid()}-" in partial.name
