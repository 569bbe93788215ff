"""What is drawn where; and above all what is not drawn over."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from lstfe.types import Detections
from lstfe.visualize import (
    DETECTION_COLORS,
    INSTANCE_COLORS,
    TARGET_COLOR,
    append_caption,
    draw_boxes,
    draw_detections,
    draw_instances,
)

NAMES = ["drone", "bird"]


def grey(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Rows are x1, y1, x2, y2, score, label."""
    columns = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(columns[:, :4], columns[:, 4], columns[:, 5].astype(np.int64))


def colored(frame: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return (frame == color).all(axis=2)


def test_without_detections_the_frame_is_copied_as_it_is() -> None:
    frame = grey()
    drawn = draw_detections(frame, Detections.none(), NAMES)
    assert np.array_equal(drawn, frame)
    assert drawn is not frame


def test_the_given_frame_is_not_drawn_on() -> None:
    frame = grey()
    draw_detections(frame, detections((40, 40, 50, 50, 0.9, 1)), NAMES)
    assert np.array_equal(frame, grey())


def test_the_object_and_its_border_stay_visible() -> None:
    drawn = draw_detections(grey(), detections((60, 60, 70, 68, 0.9, 1)), NAMES)
    assert (drawn[57:71, 57:73] == 128).all()  # three pixels around the object are free
    line = colored(drawn, DETECTION_COLORS[0])
    assert line[56, 56:74].all()
    assert line[71, 56:74].all()
    assert line[56:72, 56].all()
    assert line[56:72, 73].all()


def test_scores_below_the_threshold_are_not_drawn() -> None:
    found = detections((60, 60, 70, 70, 0.3, 1), (20, 60, 30, 70, 0.29, 2))
    drawn = draw_detections(grey(), found, NAMES, 0.3)
    assert colored(drawn, DETECTION_COLORS[0]).any()
    assert not colored(drawn, DETECTION_COLORS[1]).any()


def test_labels_have_their_own_colours_and_more_labels_start_again() -> None:
    many = len(DETECTION_COLORS) + 1
    drawn = draw_detections(
        grey(), detections((60, 60, 70, 70, 0.9, many)), [f"kind {i}" for i in range(many)]
    )
    assert colored(drawn, DETECTION_COLORS[0]).any()
    assert len(set(DETECTION_COLORS) | {TARGET_COLOR}) == len(DETECTION_COLORS) + 1


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 5, 5),
        (155, 115, 160, 120),
        (-40, -40, 300, 300),
        (150, 2, 160, 8),
        (400, 400, 410, 410),
        (9, 9, 9, 9),
    ],
)
def test_boxes_at_and_past_the_edges_are_drawn_inside(box: tuple[float, float, float, float]) -> None:
    drawn = draw_detections(grey(), detections((*box, 0.9, 1)), NAMES)
    assert drawn.shape == (120, 160, 3)
    assert colored(drawn, DETECTION_COLORS[0]).any()


def test_a_text_wider_than_the_frame_does_not_fail() -> None:
    drawn = draw_boxes(
        grey(24, 24), np.array([[8, 8, 12, 12]], np.float32), ["a very long name"], [TARGET_COLOR]
    )
    assert drawn.shape == (24, 24, 3)


def test_text_has_a_dark_ground_above_the_box() -> None:
    drawn = draw_detections(grey(), detections((60, 60, 70, 70, 0.9, 1)), NAMES)
    rows = np.flatnonzero(colored(drawn, (0, 0, 0)).any(axis=1))
    assert rows.size > 5
    assert rows.max() < 56


def test_instances_have_their_own_colours_and_more_numbers_start_again() -> None:
    boxes = np.array([[20, 60, 30, 70], [60, 60, 70, 70], [100, 60, 110, 70]], np.float32)
    drawn = draw_instances(grey(), boxes, ["", "", ""], [0, 1, len(INSTANCE_COLORS)])
    assert [tuple(drawn[56, x]) for x in (20, 60, 100)] == [INSTANCE_COLORS[n] for n in (0, 1, 0)]
    assert len(set(INSTANCE_COLORS)) == len(INSTANCE_COLORS)


def test_a_caption_is_below_the_frame_and_covers_nothing() -> None:
    frame = grey()
    one, two = append_caption(frame, "frame 12"), append_caption(frame, "frame 12\nframe 12")
    assert np.array_equal(one[:120], frame)
    assert np.array_equal(two[:120], frame)
    assert 120 < one.shape[0] < two.shape[0]
    assert one.shape == append_caption(frame, "a text that is far too long for a frame so narrow").shape
    assert not np.array_equal(one, append_caption(frame, "frame 13"))


def test_drawing_needs_no_torch() -> None:
    code = "import sys, lstfe.visualize; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
