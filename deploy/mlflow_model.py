"""A bundle as an MLflow model of the flavour `python_function`: the frames of a video in, its detections out.

MLflow imports this module when it loads the model, and calls `_load_pyfunc`; nothing of MLflow is needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle import Bundle, open_bundle
from lstfe.errors import UserError
from lstfe.types import ByteArray, Detections, FrameDetections

INPUT_NAME, INPUT_TYPE, INPUT_SHAPE = "frames", np.dtype(np.uint8), (-1, -1, -1, 3)
"""Frames of one video, RGB, in order."""
COLUMNS = {
    "frame_id": "long",
    "x": "double",
    "y": "double",
    "width": "double",
    "height": "double",
    "score": "double",
    "category": "string",
}
"""Of the table of detections; `frame_id` counts from 0, boxes are in pixels of the video."""


class BundleModel:
    """What `mlflow.pyfunc.load_model` wraps."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def predict(self, model_input: Mapping[str, ByteArray]) -> Any:
        """Detect on all frames of a video: {"frames": (T, H, W, 3) uint8 RGB} -> pandas table with COLUMNS."""
        import pandas as pd

        frames = model_input[INPUT_NAME]
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise UserError(
                f"frames of shape {frames.shape} and type {frames.dtype}, expected (T, H, W, 3) uint8 RGB"
            )
        found = self._detect(frames) if len(frames) else []
        rows = [row for item in found for row in self._rows(item.frame_index, item.detections)]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _detect(self, frames: ByteArray) -> list[FrameDetections]:
        detector = self._bundle.detector("onnx", num_frames=len(frames))
        if detector.pool:
            detector.prime({index: frames[index] for index in detector.pool})
        found = [item for frame in frames for item in detector.push(frame)]
        return found + detector.finish()

    def _rows(self, frame_id: int, detections: Detections) -> list[tuple[Any, ...]]:
        boxes = detections.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        names = [self._bundle.label_names[label - 1] for label in detections.labels.tolist()]
        scores = detections.scores.astype(np.float64).tolist()
        return [
            (frame_id, *box, score, name)
            for box, score, name in zip(boxes.tolist(), scores, names, strict=True)
        ]


def _load_pyfunc(data_path: str) -> BundleModel:
    return BundleModel(open_bundle(Path(data_path)))
