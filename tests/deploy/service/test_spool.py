from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from deploy.service.spool import Spool, SpoolError

JOB = "0123456789abcdef" * 2


def test_a_temporary_spool_is_gone_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool()
    assert spool.folder.parent == tmp_path
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    spool.new_entry(JOB)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_service_left_is_removed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = Spool()
    (killed.new_entry(JOB) / "0.video").write_bytes(b"x")
    os.close(killed._lock)  # as the system does for a process that is gone
    alive = Spool()
    assert not killed.folder.exists()
    other = Spool()
    assert alive.folder.is_dir()
    alive.close()
    other.close()


def test_a_given_spool_is_emptied_of_jobs_and_of_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    (folder / JOB).mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / ("f" * 32)).symlink_to(tmp_path)
    spool = Spool(folder)
    assert not (folder / JOB).exists()
    spool.new_entry(JOB)
    spool.remove_entry(JOB)
    spool.new_entry("e" * 32)
    spool.close()
    assert sorted(path.name for path in folder.iterdir()) == ["f" * 32, "notes.txt"]


def test_two_services_do_not_share_a_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(SpoolError, match="another service uses it"):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()


def test_a_spool_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SpoolError, match="cannot be written to"):
        Spool(tmp_path / "file")


@pytest.mark.parametrize("name", ["../x", "", "a/b", "A" * 32, "a" * 33, "a" * 31 + "\n"])
def test_no_folder_is_named_by_a_client(tmp_path: Path, name: str) -> None:
    spool = Spool(tmp_path)
    for act in (spool.new_entry, spool.remove_entry):
        with pytest.raises(AssertionError):
            act(name)
    spool.close()
