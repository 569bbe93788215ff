"""Which objects come onto the sheet, and how they look there."""

from __future__ import annotations

import numpy as np
import pytest

from lstfe.data.contact_sheet import CROP_PX, VideoObject, draw_crop, join_crops, pick_smallest
from lstfe.visualize import INSTANCE_COLORS


def _object(
    frame_id: int,
    side: float = 8,
    *,
    instance: int = 1,
    split: str = "all",
    place: tuple[float, float] = (40, 30),
    is_crowd: bool = False,
) -> VideoObject:
    return VideoObject(frame_id, (*place, side, side), "drone", instance, split, is_crowd=is_crowd)


def _frame_ids(picked: list[VideoObject]) -> list[int]:
    return sorted(item.frame_id for item in picked)


def test_without_objects_none_is_picked() -> None:
    assert pick_smallest([], 30) == []


def test_fewer_objects_than_places_are_all_picked_smallest_first() -> None:
    objects = [_object(0, 9), _object(1, 7), _object(2, 8)]
    assert pick_smallest(objects, 30) == [objects[1], objects[2], objects[0]]


def test_objects_of_one_frame_without_instance_numbers_are_all_picked() -> None:
    objects = [_object(0, side, instance=0) for side in (4, 5, 6)]
    assert pick_smallest(objects, 30) == objects


def test_neighbouring_frames_are_left_out_while_there_are_others() -> None:
    objects = [_object(frame_id, 5 + 0.01 * frame_id) for frame_id in range(100)]
    assert _frame_ids(pick_smallest(objects, 4)) == [0, 15, 30, 45]
    assert _frame_ids(pick_smallest(objects[:20], 4)) == [0, 3, 7, 15]


def test_the_smallest_of_every_instance_comes_before_a_second_one() -> None:
    small = [_object(frame_id, 4) for frame_id in range(200)]
    large = [_object(7, 50, instance=2), _object(99, 40, instance=2)]
    picked = pick_smallest(small + large, 5)
    assert [item.side_px for item in picked] == [4, 4, 4, 4, 40]


def test_equal_numbers_of_two_splits_are_two_instances() -> None:
    objects = [_object(0, 4, split="train"), _object(1, 4, split="train"), _object(2, 9, split="test")]
    assert _frame_ids(pick_smallest(objects, 2)) == [0, 2]


def test_crowds_are_never_picked() -> None:
    assert pick_smallest([_object(0, is_crowd=True), _object(1)], 30) == [_object(1)]


@pytest.mark.parametrize("place", [(40, 30), (0, 0), (88, 56), (0.5, 55.5)])
def test_a_crop_shows_the_object_pixel_by_pixel_with_a_line_around(place: tuple[float, float]) -> None:
    frame = np.full((64, 96, 3), 128, np.uint8)
    left, top = (int(value) for value in place)
    frame[top : top + 8, left : left + 8] = (200, 10, 10)
    crop = draw_crop(frame, _object(3, 8, place=place))
    scale = CROP_PX // 32
    assert crop.shape[1:] == (CROP_PX, 3)
    panel = crop[:CROP_PX]
    # At an edge of the frame two of the line's sides are drawn over what is left of the object there.
    red = (panel == (200, 10, 10)).all(axis=2).sum()
    assert (8 * scale - 4) ** 2 <= red <= (8 * scale) ** 2
    assert (panel == INSTANCE_COLORS[1]).all(axis=2).sum() > 4 * 8 * scale - 30
    assert crop[CROP_PX:].max() > 200  # the text


@pytest.mark.parametrize("side", [64, 500])
def test_large_objects_and_small_frames_fit_into_a_crop(side: float) -> None:
    frame = np.full((20, 64, 3), 128, np.uint8)
    assert draw_crop(frame, _object(0, side, place=(0, 0))).shape == draw_crop(frame, _object(0)).shape


def test_crops_are_joined_row_by_row() -> None:
    crops = [np.full((10, 20, 3), value, np.uint8) for value in range(1, 9)]
    sheet = join_crops(crops)
    assert sheet.shape == (2 * 14 + 4, 6 * 24 + 4, 3)
    assert [int(value) for value in sheet[5, 5::24, 0]] == [1, 2, 3, 4, 5, 6]
    assert [int(value) for value in sheet[19, 5::24, 0]] == [7, 8, 90, 90, 90, 90]
    assert join_crops(crops[:1]).shape == (18, 28, 3)
