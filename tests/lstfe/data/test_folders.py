from __future__ import annotations

from pathlib import Path

import pytest

from lstfe.data.folders import REPORT_NAME, FolderError, new_folder


def test_a_folder_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "out", replace=False) as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def _write_half(out: Path) -> None:
    with new_folder(out, replace=True) as folder:
        (folder / REPORT_NAME).write_text("new")
        raise KeyboardInterrupt


def test_an_error_leaves_nothing_and_keeps_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out, replace=True) as folder:
        (folder / REPORT_NAME).write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _write_half(out)
    assert (out / REPORT_NAME).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_old_data_set_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("first", "second"):
        with new_folder(out, replace=True) as folder:
            (folder / REPORT_NAME).touch()
            (folder / name).touch()
    assert sorted(path.name for path in out.iterdir()) == [REPORT_NAME, "second"]


def test_someone_elses_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(FolderError, match=r"no report\.json"), new_folder(tmp_path, replace=True):
        pass
    assert (tmp_path / "holiday.mp4").exists()


def test_an_existing_data_set_is_kept_unless_replacing_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out, replace=False) as folder:
        (folder / REPORT_NAME).touch()
    with pytest.raises(FolderError, match="exists already"), new_folder(out, replace=False):
        pass


def test_an_empty_folder_is_no_obstacle_but_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out", replace=False):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="is a file"), new_folder(tmp_path / "file", replace=True):
        pass
