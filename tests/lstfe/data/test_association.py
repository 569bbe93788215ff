from __future__ import annotations

from lstfe.data.association import Box, associate


def _box(x: float, y: float, side: float = 10) -> Box:
    return (x, y, x + side, y + side)


def test_no_frames_and_no_boxes_give_no_objects() -> None:
    assert associate([]) == []
    assert associate([(0, []), (5, [])]) == [[], []]


def test_a_moving_box_stays_the_same_object() -> None:
    assert associate([(i, [_box(4 * i, 0)]) for i in range(20)]) == [[0]] * 20


def test_the_order_of_boxes_in_a_line_does_not_matter() -> None:
    left, right = _box(0, 0), _box(100, 0)
    assert associate([(0, [left, right]), (1, [right, left])]) == [[0, 1], [1, 0]]


def test_overlap_decides_before_distance() -> None:
    # The wide box overlaps its old self; the small one is nearer to the old wide box's centre.
    wide, small = (0.0, 0.0, 60.0, 10.0), (50.0, 12.0, 56.0, 18.0)
    moved_wide, moved_small = (6.0, 0.0, 66.0, 10.0), (38.0, 12.0, 44.0, 18.0)
    assert associate([(0, [wide, small]), (1, [moved_small, moved_wide])]) == [[0, 1], [1, 0]]


def test_a_far_box_is_a_new_object() -> None:
    assert associate([(0, [_box(0, 0)]), (1, [_box(200, 100)])]) == [[0], [1]]


def test_an_object_survives_a_short_gap_but_not_a_long_one() -> None:
    assert associate([(0, [_box(0, 0)]), (8, [_box(30, 0)])]) == [[0], [0]]
    assert associate([(0, [_box(0, 0)]), (50, [_box(0, 0)])]) == [[0], [1]]


def test_two_boxes_never_share_an_object_in_one_frame() -> None:
    assert associate([(0, [_box(0, 0)]), (1, [_box(1, 0), _box(2, 0)])]) == [[0], [0, 1]]
