from __future__ import annotations

from pathlib import Path

import numpy as np

from deploy.output import DetectionOutput
from lstfe.types import Detections


def test_detections_of_any_score_are_written_and_those_that_are_drawn_are_counted(tmp_path: Path) -> None:
    boxes = np.array([[4, 4, 20, 20], [8, 8, 30, 30], [1, 1, 9, 9]], np.float32)
    detections = Detections(boxes, np.array([0.9, 0.3, 0.1], np.float32), np.array([1, 1, 1]))
    with DetectionOutput(tmp_path, "clip", 25.0, label_names=("drone",), score_threshold=0.25) as output:
        for _ in range(2):
            output.write(np.zeros((64, 96, 3), np.uint8), detections)
    assert (output.num_frames, output.num_detections, output.num_drawn) == (2, 6, 4)
