from __future__ import annotations

import io
import multiprocessing
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lstfe.data.frames import FrameError, FrameStore, write_frames
from lstfe.data.video import Frame, read_video


def _smooth_frame(value: int) -> Frame:
    ramp = np.linspace(0, 100, 48, dtype=np.uint8)
    return np.broadcast_to((ramp + value)[None, :, None], (32, 48, 3)).copy()


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    write_frames(tmp_path / "clip.zip", ((index, _smooth_frame(10 * index)) for index in (0, 2, 5)), 95)
    return FrameStore(tmp_path)


def test_a_video_without_frames_is_an_empty_file_that_can_be_opened(tmp_path: Path) -> None:
    assert write_frames(tmp_path / "empty.zip", [], 95) == 0
    assert FrameStore(tmp_path).frame_ids("empty") == []


def test_frames_are_found_by_their_id_in_any_order(store: FrameStore) -> None:
    assert store.frame_ids("clip") == [0, 2, 5]
    for index in (5, 0, 2, 0):
        error = np.abs(store.read("clip", index).astype(int) - _smooth_frame(10 * index))
        assert error.max() <= 3


def test_random_access_gives_what_sequential_decoding_gives(tiny_raw: Path, tiny_prepared: Path) -> None:
    store = FrameStore(tiny_prepared / "frames")
    decoded = list(read_video(tiny_raw / "videos" / "Video_001.mp4"))
    assert store.frame_ids("Video_001") == list(range(len(decoded)))
    for index in (15, 3, 8):
        error = np.abs(store.read("Video_001", index).astype(int) - decoded[index])
        neighbour = np.abs(store.read("Video_001", index).astype(int) - decoded[index - 1])
        assert error.mean() < 3
        assert error.mean() < 0.5 * neighbour.mean()  # sensor noise tells neighbouring frames apart


def test_a_missing_frame_is_named(store: FrameStore) -> None:
    with pytest.raises(FrameError, match=r"clip\.zip: has no frame 1, holds 3 frames"):
        store.read("clip", 1)


def test_a_missing_video_is_named(store: FrameStore) -> None:
    with pytest.raises(FrameError, match=r"other\.zip: no such file"):
        store.read("other", 0)


def test_a_frame_is_the_pixels_that_pillow_decodes(store: FrameStore) -> None:
    with Image.open(io.BytesIO(store.read_jpegs("clip", [5])[0])) as image:
        assert np.array_equal(store.read("clip", 5), np.array(image))


def test_no_frames_are_decoded_into_no_memory(store: FrameStore) -> None:
    store.read_into("clip", [], [])


def test_frames_may_be_decoded_into_given_memory(store: FrameStore) -> None:
    clip = np.zeros((3, 32, 48, 3), np.uint8)
    store.read_into("clip", [5, 0], [clip[2], clip[0]])
    assert np.array_equal(clip[2], store.read("clip", 5))
    assert np.array_equal(clip[0], store.read("clip", 0))
    assert not clip[1].any()


@pytest.mark.parametrize("image_size", [(32, 64), (16, 48)], ids=["too large", "too small"])
def test_a_frame_of_another_size_than_the_memory_for_it_is_refused(
    store: FrameStore, image_size: tuple[int, int]
) -> None:
    with pytest.raises(FrameError, match=r"clip\.zip: frame 2 is (48x32|not readable)"):
        store.read_into("clip", [2], [np.zeros((*image_size, 3), np.uint8)])


def test_a_single_wrong_bit_is_found_and_the_frame_named(store: FrameStore) -> None:
    path = store.directory / "clip.zip"
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\xda") + 40] ^= 1  # in the pixels: still a JPEG that can be decoded
    path.write_bytes(content)
    with pytest.raises(FrameError, match=r"clip\.zip: frame 0 is damaged \(its checksum is wrong\)"):
        store.read("clip", 0)
    assert store.read("clip", 2).shape == (32, 48, 3)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff"])
def test_what_is_no_jpeg_is_named(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "clip.zip", "w") as archive:
        archive.writestr("000004.jpg", content)
    with pytest.raises(FrameError, match=r"clip\.zip: frame 4 is not readable as JPEG"):
        FrameStore(tmp_path).read("clip", 4)


def test_a_file_that_was_cut_off_after_it_was_opened_is_named(store: FrameStore) -> None:
    store.read("clip", 0)
    path = store.directory / "clip.zip"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FrameError, match=r"clip\.zip: frame 5 is damaged"):
        store.read("clip", 5)


def test_a_file_that_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.zip").write_bytes(b"no zip")
    with pytest.raises(FrameError, match=r"clip\.zip: not readable as stored frames"):
        FrameStore(tmp_path).read("clip", 0)


def test_a_compressed_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "clip.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("000000.jpg", b"a" * 100)
    with pytest.raises(FrameError, match="is compressed, expected stored"):
        FrameStore(tmp_path).read("clip", 0)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def frames() -> Iterator[tuple[int, Frame]]:
        yield 0, _smooth_frame(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frames(tmp_path / "clip.zip", frames(), 95)
    assert list(tmp_path.iterdir()) == []


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    for name in ("first.zip", "second.zip"):
        write_frames(tmp_path / name, [(0, _smooth_frame(0)), (1, _smooth_frame(9))], 90)
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


def test_a_used_store_may_be_pickled(store: FrameStore) -> None:
    store.read("clip", 0)
    copy = pickle.loads(pickle.dumps(store))
    assert np.array_equal(copy.read("clip", 2), store.read("clip", 2))


def _read_all(store: FrameStore) -> list[int]:
    return [int(store.read("clip", index).sum()) for index in (0, 2, 5) for _ in range(20)]


def test_a_used_store_may_be_forked(store: FrameStore) -> None:
    expected = _read_all(store)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_read_all, [store] * 4) == [expected] * 4


def test_videos_frames_and_annotations_are_read_without_torch() -> None:
    code = (
        "import sys, lstfe.data.video, lstfe.data.frames, lstfe.data.coco_video; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
