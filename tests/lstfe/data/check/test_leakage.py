from __future__ import annotations

from pathlib import Path

import pytest

from lstfe.data.check.footage import Footage
from lstfe.data.check.leakage import check_content
from lstfe.data.coco_video import VideoEntry

HERE = 0xFFFF_FFFF_0000_0000


def _footage(name: str, background_hash: int | None, file_hash: str | None = None) -> Footage:
    video = VideoEntry(1, name, f"{name}.mp4", 96, 64, 10)
    return Footage(video, Path(name), file_hash=file_hash or name, background_hash=background_hash)


def _kinds(hashes: dict[str, int | None], splits: dict[str, list[str]]) -> list[tuple[str, str | None]]:
    footage = {name: _footage(name, value) for name, value in hashes.items()}
    return [(finding.kind, finding.video) for finding in check_content(footage, splits)]


def test_no_videos_share_nothing() -> None:
    assert check_content({}, {}) == []


@pytest.mark.parametrize(("num_bits", "is_near"), [(0, True), (8, True), (9, False), (32, False)])
def test_backgrounds_are_near_by_the_bits_that_differ(num_bits: int, is_near: bool) -> None:
    there = HERE ^ (2**num_bits - 1)
    found = _kinds({"a": HERE, "b": there}, {"a": ["train"], "b": ["val"]})
    assert found == ([("similar_background", "b")] if is_near else [])


def test_videos_of_the_same_splits_may_show_one_place() -> None:
    assert _kinds({"a": HERE, "b": HERE}, {"a": ["train"], "b": ["train"]}) == []
    assert _kinds({"a": HERE, "b": HERE}, {"a": ["train", "test"], "b": ["train", "test"]}) == []


def test_a_video_without_structure_is_near_to_none() -> None:
    assert _kinds({"a": None, "b": None}, {"a": ["train"], "b": ["val"]}) == []


def test_the_nearest_video_of_another_split_is_named() -> None:
    footage = {name: _footage(name, HERE ^ bits) for name, bits in (("a", 7), ("b", 1), ("c", 0), ("d", 0))}
    splits = {"a": ["train"], "b": ["train"], "c": ["val"], "d": ["val"]}
    messages = [finding.message for finding in check_content(footage, splits)]
    assert [message.split(":")[0] for message in messages] == ["looks like b (train)"] * 2
    assert "differ in 1 of 64 bits" in messages[0]


def test_a_file_that_comes_three_times_is_told_twice() -> None:
    footage = {name: _footage(name, None, "same") for name in "abc"}
    splits = {"a": ["train"], "b": ["train"], "c": ["val"]}
    found = [(finding.kind, finding.split, finding.video) for finding in check_content(footage, splits)]
    assert found == [("repeated_file", "train", "b"), ("shared_file", "val", "c")]
