"""What Triton's Python backend runs: a stream per sequence, over a bundle of the model's own folder.

A request is one frame, (1, H, W, 3) uint8 RGB; its response holds the detections of the frames that it completes
(`lookahead` frames later), at the sequence's end those of all frames left. A request that fails answers with one
line and ends its stream; other streams go on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from deploy.bundle import Bundle, StreamDetector, open_bundle
from deploy.triton.repository import BUNDLE_DIR, INPUT, OUTPUTS
from lstfe.errors import UserError
from lstfe.types import FrameDetections


@dataclass(slots=True)
class OpenStream:
    """One sequence that has started."""

    detector: StreamDetector
    last_used: float
    """Seconds of a monotonic clock."""


class Streams:
    """The streams of one model instance, by correlation id."""

    def __init__(self, bundle: Bundle, backend: str, *, idle_seconds: float) -> None:
        self._bundle = bundle
        self._backend = backend
        self._idle_seconds = idle_seconds
        self._open: dict[int, OpenStream] = {}

    def __len__(self) -> int:
        return len(self._open)

    def push(self, correlation_id: int, frame: Any, *, start: bool, end: bool) -> list[FrameDetections]:
        """Take a sequence's next frame; UserError where it cannot go on, which ends its stream."""
        self._drop_idle()
        if start:
            self._open.pop(correlation_id, None)
            # Live: the server does not know how many frames follow.
            detector = self._bundle.detector(self._backend, None)
            self._open[correlation_id] = OpenStream(detector, monotonic())
        stream = self._open.get(correlation_id)
        if stream is None:
            raise UserError(
                f"sequence {correlation_id} has not started, or was idle for {self._idle_seconds:.0f} s or failed; "
                "start it again with sequence_start"
            )
        try:
            found = stream.detector.push(_as_frame(frame))
            if end:
                found += stream.detector.finish()
        except UserError:
            del self._open[correlation_id]
            raise
        stream.last_used = monotonic()
        if end:
            del self._open[correlation_id]
        return found

    def _drop_idle(self) -> None:
        """Give up streams that Triton has given up, of which it tells nothing."""
        oldest = monotonic() - self._idle_seconds
        for correlation_id in [key for key, stream in self._open.items() if stream.last_used < oldest]:
            self._open.pop(correlation_id)


def _as_frame(frame: Any) -> Any:
    if frame.ndim != 4 or frame.shape[0] != 1 or frame.shape[3] != 3 or frame.dtype != np.uint8:
        raise UserError(
            f"{INPUT} has shape {frame.shape} and type {frame.dtype}, expected (1, H, W, 3) uint8 RGB"
        )
    return frame[0]


def response_arrays(found: Sequence[FrameDetections]) -> dict[str, Any]:
    """Return the arrays of a response, each with Triton's batch axis in front."""
    rows = [item.detections for item in found]
    counts = [len(detections) for detections in rows]
    completed = np.array([item.frame_index for item in found], np.int64)
    values: dict[str, Any] = {
        "COMPLETED": completed,
        "FRAME_INDEX": np.repeat(completed, counts),
        "BOXES": np.concatenate([np.zeros((0, 4)), *(item.boxes for item in rows)]).astype(np.float32),
        "SCORES": np.concatenate([np.zeros(0), *(item.scores for item in rows)]).astype(np.float32),
        "LABELS": np.concatenate([np.zeros(0), *(item.labels for item in rows)]).astype(np.int64),
    }
    return {name: values[name][None] for name in OUTPUTS}


class TritonPythonModel:
    """Triton's Python backend calls these by name."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the bundle of the model's folder, and start nothing yet."""
        parameters = json.loads(args["model_config"])["parameters"]
        bundle = open_bundle(Path(args["model_repository"]) / args["model_version"] / BUNDLE_DIR)
        self.streams = Streams(
            bundle,
            parameters["backend"]["string_value"],
            idle_seconds=float(parameters["idle_seconds"]["string_value"]),
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests in order, each with its own response."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        import triton_python_backend_utils as utils

        def value(name: str) -> Any:
            return utils.get_input_tensor_by_name(request, name).as_numpy()

        start, end, correlation_id = (int(value(name).reshape(-1)[0]) for name in ("START", "END", "CORRID"))
        try:
            found = self.streams.push(correlation_id, value(INPUT), start=bool(start), end=bool(end))
        except UserError as error:
            return utils.InferenceResponse(output_tensors=[], error=utils.TritonError(str(error)))
        tensors = [utils.Tensor(name, array) for name, array in response_arrays(found).items()]
        return utils.InferenceResponse(output_tensors=tensors)
