"""How far the exported graphs are from PyTorch: graph by graph, and in the detections and their AP.

Graphs are compared on the same inputs, random ones and those that a stream of real frames gives. Where a
graph chooses (suppression), results that differ in the last bit can choose differently: boxes are then
compared with their counterparts, and those without one are counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from deploy.bundle import PARITY_FILE
from deploy.device import Graphs
from deploy.example_inputs import random_inputs
from deploy.export_onnx import graph_module
from deploy.graphs import graphs_of
from deploy.onnx_backend import OnnxGraphs
from deploy.runtime import StreamRuntime
from lstfe.config import Config
from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.data.prepared import load_split
from lstfe.data.transforms import pad_to_one_size, to_model_input
from lstfe.errors import UserError
from lstfe.evaluation.inference import frames_to_stream
from lstfe.evaluation.protocols import score
from lstfe.evaluation.records import DetectionRecord, to_records
from lstfe.model.detector import LSTFENet
from lstfe.stream import StreamingDetector
from lstfe.types import Detections, FrameDetections

Array = npt.NDArray[Any]

# Graphs with an outcome that hangs on comparisons, not only on arithmetic.
_CHOOSING = ("proposals", "decode")
_MAX_UNMATCHED = 0.01
_MAX_AP_DIFFERENCE = 0.01
_RANDOM_SEEDS = 3


class ParityError(UserError):
    """A graph, or the detections made with it, differ too much from PyTorch."""


@dataclass(slots=True)
class ValueDifference:
    """The largest difference between outputs that arithmetic alone decides."""

    absolute: float = 0.0
    relative: float = 0.0
    """Absolute difference over the output's largest magnitude."""

    def add(self, expected: Array, found: Array) -> None:
        """Take one output into account."""
        if expected.size:
            absolute = float(_distances(expected.astype(np.float64), found).max())
            self.absolute = max(self.absolute, absolute)
            self.relative = max(self.relative, absolute / _largest(expected, at_least=1e-12))


@dataclass(slots=True)
class RowDifference:
    """The largest difference between boxes and their counterparts, and how many have none."""

    box_px: float = 0.0
    score: float = 0.0
    relative: float = 0.0
    """The larger of the box difference over the largest coordinate, and the score difference."""
    num_boxes: int = 0
    """Boxes of both results together."""
    num_unmatched: int = 0
    """Those of either result without a counterpart in the other."""

    def add(self, expected: Array, found: Array, *, tolerance: float) -> None:
        """Take two results into account: rows of x1, y1, x2, y2, score, label.

        Two boxes of one label are counterparts where neither scores nor relative coordinates differ by more
        than `tolerance`.
        """
        scale = max(_largest(rows[:, :4], at_least=1.0) for rows in (expected, found))
        distances = _distances(expected[:, None], found[None])  # (rows, rows, 6)
        far = np.maximum(distances[..., :4].max(axis=2) / scale, distances[..., 4])
        far[distances[..., 5] > 0] = np.inf
        has_counterpart = far <= tolerance
        self.num_boxes += len(expected) + len(found)
        for rows, axis in ((expected, 1), (found, 0)):
            unmatched = rows[~has_counterpart.any(axis=axis)]
            self.num_unmatched += len(unmatched)
            if not np.isfinite(unmatched).all():  # one is too many, however many boxes there are
                self.relative = np.inf
        for row in np.flatnonzero(has_counterpart.any(axis=1)):
            nearest = int(far[row].argmin())
            self.box_px = max(self.box_px, float(distances[row, nearest, :4].max()))
            self.score = max(self.score, float(distances[row, nearest, 4]))
            self.relative = max(self.relative, float(far[row, nearest]))


def _distances(expected: Array, found: Array) -> Array:
    """Return how far values lie apart: equal infinities not at all, inf where one is NaN or only one is infinite."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(expected - found)
    return np.where(expected == found, 0.0, np.where(np.isfinite(apart), apart, np.inf))


def _largest(values: Array, *, at_least: float) -> float:
    """Return the largest magnitude of the finite values; beside an infinite one any difference would be nothing."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=at_least))


class TorchGraphs:
    """The PyTorch side of every graph, in the shape that `StreamRuntime` runs."""

    def __init__(self, model: LSTFENet, config: Config) -> None:
        self._config = config
        names = [graph.name for graph in graphs_of(config)]
        self._modules = {name: graph_module(name, model, config) for name in names if name != "preprocess"}

    @torch.inference_mode()
    def run(self, name: str, *inputs: Array) -> list[Array]:
        """Run one graph in PyTorch: arrays in, arrays out."""
        tensors = [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs]
        if name == "preprocess":
            image = to_model_input(tensors[0].permute(2, 0, 1)[None], self._config.model)
            return [pad_to_one_size([image])[0].numpy(), np.array(image.shape[2:], np.int64)]
        outputs = self._modules[name](*tensors)
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


class ComparedGraphs:
    """Runs every graph on both sides, notes the differences, and goes on with the results of `found`."""

    def __init__(self, expected: Graphs, found: Graphs, max_difference: float) -> None:
        self.differences: dict[str, ValueDifference | RowDifference] = {}
        self._expected = expected
        self._found = found
        self._max_difference = max_difference

    def run(self, name: str, *inputs: Array) -> list[Array]:
        """Run one graph twice."""
        expected, found = self._expected.run(name, *inputs), self._found.run(name, *inputs)
        if name in _CHOOSING:
            rows = self.differences.setdefault(name, RowDifference())
            assert isinstance(rows, RowDifference)
            rows.add(_graph_rows(name, expected), _graph_rows(name, found), tolerance=self._max_difference)
        else:
            values = self.differences.setdefault(name, ValueDifference())
            assert isinstance(values, ValueDifference)
            for pair in zip(expected, found, strict=True):
                values.add(*pair)
        return found


def check_parity(
    model: LSTFENet,
    config: Config,
    exported_dir: Path,
    *,
    prepared_dir: Path,
    label_names: Sequence[str],
) -> dict[str, Any]:
    """Compare the graphs in `exported_dir` with `model`; write parity.json there and return it.

    Raises ParityError past `export.max_difference`; the report is written before.
    """
    graphs = OnnxGraphs(exported_dir, config)
    report = {
        "opset": config.export.opset,
        "onnxruntime": onnxruntime.__version__,
        **compare_graphs(
            model,
            config,
            graphs,
            backend="onnx",
            prepared_dir=prepared_dir,
            label_names=label_names,
        ),
    }
    (exported_dir / PARITY_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    _refuse(report, exported_dir)
    return report


def compare_graphs(
    model: LSTFENet,
    config: Config,
    graphs: Graphs,
    *,
    backend: str,
    prepared_dir: Path,
    label_names: Sequence[str],
    split: str | None = None,
    on_random: bool = True,
) -> dict[str, Any]:
    """Compare any backend with PyTorch and report: differences graph by graph, detections, scores of both.

    `graphs` has the plain form's contract, which `deploy.tensorrt_graphs.expanded.PlainView` gives to the other form;
    `backend` is its name in the report. Real frames are `export.parity_frames` of the split (`evaluate.split` by
    default), a stretch a video; random inputs are left out where not `on_random`. Refused here is only a split whose
    categories are not `label_names`, the model's: its AP would be one of other things.
    """
    model.eval()
    annotations, store = load_split(prepared_dir, split or config.evaluate.split, label_names=label_names)
    random_side, frames_side = (
        ComparedGraphs(TorchGraphs(model, config), graphs, config.export.max_difference) for _ in range(2)
    )
    if on_random:
        _run_random(model, config, random_side)
    detections = _compare_detections(model, config, frames_side, annotations, store, backend)
    by_input = {"random": random_side.differences, "frames": frames_side.differences}
    return {
        "torch": torch.__version__,
        "max_difference": config.export.max_difference,
        "graphs": {
            name: {kind: asdict(found[name]) for kind, found in by_input.items() if name in found}
            for name in frames_side.differences
        },
        **detections,
    }


def _run_random(model: LSTFENet, config: Config, graphs: Graphs) -> None:
    for graph in graphs_of(config):
        for seed in range(_RANDOM_SEEDS):
            inputs = random_inputs(graph.name, model, config, seed=seed)
            graphs.run(graph.name, *(value.numpy() for value in inputs))


def _compare_detections(
    model: LSTFENet,
    config: Config,
    compared: ComparedGraphs,
    annotations: VideoAnnotations,
    store: FrameStore,
    backend: str,
) -> dict[str, Any]:
    """Detect on the same real frames with both backends; compare box by box, and the AP."""
    records: dict[str, list[DetectionRecord]] = {"torch": [], backend: []}
    frames = frames_to_stream(annotations, config.export.parity_frames)
    rows = RowDifference()
    for video, frame_ids in frames.items():
        expected = StreamingDetector(model, config, num_frames=len(frame_ids))
        found = StreamRuntime(compared, config, num_frames=len(frame_ids))
        for place, *pair in _detect_with_both(expected, found, video, frame_ids, store):
            rows.add(*(detection_rows(found_by) for found_by in pair), tolerance=config.export.max_difference)
            for side, detections in zip(records, pair, strict=True):
                records[side] += to_records(
                    detections, video=video, frame_id=frame_ids[place], label_names=annotations.label_names
                )
    scores = {
        side: score(annotations, found_records, config.evaluate.protocols, frames=frames)
        for side, found_records in records.items()
    }
    return {"num_frames": sum(map(len, frames.values())), "detections": asdict(rows), "scores": scores}


def _detect_with_both(
    expected: StreamingDetector, found: StreamRuntime, video: str, frame_ids: Sequence[int], store: FrameStore
) -> Iterator[tuple[int, Detections, Detections]]:
    """Push the same frames through both detectors; yield each frame's place with what either found."""
    for detector in (expected, found):
        detector.prime({place: store.read(video, frame_ids[place]) for place in detector.pool or ()})
    for frame_id in frame_ids:
        frame = store.read(video, frame_id)
        yield from _paired(expected.push(frame), found.push(frame))
    yield from _paired(expected.finish(), found.finish())


def _paired(
    expected: Sequence[FrameDetections], found: Sequence[FrameDetections]
) -> Iterator[tuple[int, Detections, Detections]]:
    for first, second in zip(expected, found, strict=True):
        yield first.frame_index, first.detections, second.detections


def detection_rows(detections: Detections) -> Array:
    """Return x1, y1, x2, y2, score, label of each detection: (rows, 6) float64."""
    return np.column_stack((detections.boxes.astype(np.float64), detections.scores, detections.labels))


def _graph_rows(name: str, outputs: Sequence[Array]) -> Array:
    """Return what a graph that chooses gives, padding left out, as `detection_rows` does."""
    if name == "proposals":
        boxes, valid = outputs[0][0], outputs[1][0]
        outputs = boxes, valid, valid
    present = ~(outputs[1] <= 0)  # NaN is no padding
    return detection_rows(Detections(*(output[present] for output in outputs)))


def _refuse(report: dict[str, Any], exported_dir: Path) -> None:
    """Raise ParityError for the first thing in a report that is past its limit."""
    limit = report["max_difference"]
    where = f"see {exported_dir / PARITY_FILE}"
    for name, by_input in report["graphs"].items():
        for kind, difference in by_input.items():
            if not difference["relative"] <= limit:  # so that NaN is refused
                raise ParityError(
                    f"graph {name} differs from PyTorch by {difference['relative']:.1e} (relative) on "
                    f"{kind}, more than export.max_difference {limit:.1e}; {where}"
                )
            if difference.get("num_unmatched", 0) > _MAX_UNMATCHED * difference.get("num_boxes", 0):
                raise ParityError(
                    f"graph {name}: {difference['num_unmatched']} of {difference['num_boxes']} boxes on "
                    f"{kind} have no counterpart in PyTorch's, at most {_MAX_UNMATCHED:.0%} may; {where}"
                )
    for protocol, figures in report["scores"]["torch"].items():
        name = "AP50" if "AP50" in figures else "AP"
        expected, found = figures[name], report["scores"]["onnx"][protocol][name]
        if expected is not None and not abs(expected - found) <= _MAX_AP_DIFFERENCE:
            raise ParityError(
                f"{name} ({protocol}) is {found:.4f} with the graphs and {expected:.4f} with PyTorch, at most "
                f"{_MAX_AP_DIFFERENCE} may lie between; {where}"
            )
