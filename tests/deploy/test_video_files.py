"""Many videos by folder, pattern and address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from deploy.video_files import VideoFile, find_videos
from lstfe.errors import UserError


@pytest.fixture
def memory() -> Iterator[Any]:
    """Return fsspec's store in memory, empty."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of files that are called like videos."""
    for name in ("b.mp4", "a.MOV", "deep/c.mkv", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def names(*sources: object) -> list[str]:
    return [video.name for video in find_videos(map(str, sources))]


def test_a_place_without_videos_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    for source in (folder / "empty", folder / "nowhere", folder / "*.avi"):
        with pytest.raises(UserError, match="no video there"):
            find_videos([str(source)])


def test_a_folder_gives_all_videos_below_it_in_order(folder: Path) -> None:
    assert names(folder) == ["a", "b", "deep/c"]


def test_a_file_and_a_pattern_give_what_they_name(folder: Path) -> None:
    assert names(folder / "b.mp4") == ["b"]
    assert names(folder / "deep" / "*") == ["c"]
    assert names(folder / "*" / "c.mkv", folder / "b.mp4") == ["b", "deep/c"]


def test_a_video_that_is_named_twice_is_one(folder: Path) -> None:
    assert names(folder / "b.mp4", f"file://{folder}/b.mp4") == ["b"]


def test_two_formats_of_one_name_keep_their_suffixes(folder: Path) -> None:
    (folder / "b.avi").write_bytes(b"")

    assert names(folder) == ["a", "b.avi", "b.mp4", "deep/c"]


def test_two_videos_under_one_name_are_refused(folder: Path) -> None:
    (folder / "c.mkv").write_bytes(b"")

    with pytest.raises(UserError, match="two videos are both called c"):
        find_videos([str(folder / "c.mkv"), str(folder / "deep")])


def test_a_bucket_is_a_folder_elsewhere(memory: Any) -> None:
    memory.pipe("/night/x.mp4", b"x")
    memory.pipe("/night/sub/y.mp4", b"y")

    found = find_videos(["memory://night"])

    assert [(video.name, video.url) for video in found] == [
        ("sub/y", "memory:///night/sub/y.mp4"),
        ("x", "memory:///night/x.mp4"),
    ]
    with found[1].local() as path:
        assert path.read_bytes() == b"x"
    assert not path.exists()


def test_other_content_has_another_fingerprint(memory: Any, tmp_path: Path) -> None:
    local, remote = VideoFile("v", str(tmp_path / "v.mp4")), VideoFile("v", "memory:///v.mp4")
    fingerprints = set()
    for content in (b"one", b"two"):
        (tmp_path / "v.mp4").write_bytes(content)
        memory.pipe("/v.mp4", content)
        assert local.fingerprint() == local.fingerprint()
        fingerprints |= {local.fingerprint(), remote.fingerprint()}
    assert len(fingerprints) == 4


def test_a_video_that_went_away_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.mp4: cannot be read"):
        VideoFile("gone", str(tmp_path / "gone.mp4")).fingerprint()


@pytest.mark.parametrize(
    ("source", "message"),
    [("s3://bucket/night", r"pip install 'lstfe\[s3\]'"), ("gs://bucket", r"pip install 'lstfe\[gcs\]'")],
)
def test_an_address_without_its_library_names_the_extra(
    source: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UserError, match=message):
        find_videos([source])


def test_an_address_of_no_store_is_refused() -> None:
    with pytest.raises(UserError, match="rtsp:// is no store of files"):
        find_videos(["rtsp://camera/1"])
