from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from lstfe.data.check.footage import examine_footage, hash_background
from lstfe.data.coco_video import VideoEntry
from lstfe.data.video import VideoWriter


def _texture(seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((32, 32)), np.float64)


def _different_bits(first: int | None, second: int | None) -> int:
    assert first is not None
    assert second is not None
    return (first ^ second).bit_count()


def test_an_even_picture_has_no_hash() -> None:
    assert hash_background(np.full((32, 32), 90.0)) is None


def test_a_hash_has_64_bits_and_half_of_them_are_set() -> None:
    value = hash_background(_texture(1))
    assert value is not None
    assert value < 2**64
    assert value.bit_count() == 32


def test_light_and_noise_change_few_bits_and_another_place_many() -> None:
    noise = np.random.default_rng(0).normal(0, 4, (32, 32))
    here, changed = hash_background(_texture(1)), hash_background(_texture(1) * 0.7 + 30 + noise)
    assert _different_bits(here, changed) <= 4
    others = [_different_bits(here, hash_background(_texture(seed))) for seed in range(2, 40)]
    assert min(others) > 12


def test_a_missing_video_is_a_fault_and_no_exception(tmp_path: Path) -> None:
    seen = examine_footage(tmp_path / "a.mp4", VideoEntry(1, "a", "a.mp4", 96, 64, 10))
    assert seen.fault is not None
    assert "no such video" in seen.fault
    assert (seen.num_frames, seen.thumbnail, seen.pictures) == (0, b"", {})


def test_a_video_is_read_once_to_its_end(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 30, (64, 96)) as video:
        for frame_id in range(7):
            video.write(np.full((64, 96, 3), 30 * frame_id, np.uint8))
    seen = examine_footage(tmp_path / "a.mp4", VideoEntry(1, "a", "a.mp4", 96, 64, 7), {2, 5, 99})
    assert (seen.fault, seen.num_frames, seen.image_size) == (None, 7, (64, 96))
    assert sorted(seen.pictures) == [2, 5]
    assert abs(np.asarray(Image.open(io.BytesIO(seen.pictures[5]))).mean() - 150) < 4
    assert abs(np.asarray(Image.open(io.BytesIO(seen.thumbnail))).mean() - 90) < 4


def test_a_folder_of_pictures_is_known_by_all_of_them(tmp_path: Path) -> None:
    hashes = []
    for folder, last in (("a", 50), ("b", 50), ("c", 51)):
        (tmp_path / folder).mkdir()
        for number, grey in enumerate((10, 20, last)):
            Image.new("RGB", (96, 64), (grey,) * 3).save(tmp_path / folder / f"{number}.png")
        seen = examine_footage(tmp_path / folder, VideoEntry(1, folder, folder, 96, 64, 3))
        assert (seen.fault, seen.num_frames) == (None, 3)
        hashes.append(seen.file_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_frame_of_another_size_is_what_is_reported(tmp_path: Path) -> None:
    for number, width in enumerate((96, 80, 96)):
        Image.new("RGB", (width, 64)).save(tmp_path / f"{number}.png")
    seen = examine_footage(tmp_path, VideoEntry(1, "a", "a", 96, 64, 3))
    assert seen.image_size == (64, 80)
