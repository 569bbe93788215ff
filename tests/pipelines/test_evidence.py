"""What the gate is shown: figures of two detectors on the same videos, parity, latency."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lstfe.config import EvaluateConfig
from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.prepared import load_split
from lstfe.errors import UserError
from lstfe.evaluation.records import DetectionRecord, save_detections
from pipelines.evidence import load_scored, paired_figures, parity_difference, single_figure
from pipelines.latency import measure_latency

WANTED = EvaluateConfig(split="train")  # two videos: enough for an interval


def _found(annotations: VideoAnnotations, *, every: int) -> list[DetectionRecord]:
    """Detect every n-th object exactly."""
    names = {video.id: video.name for video in annotations.videos}
    frames = {image.id: image.frame_id for image in annotations.images}
    return [
        DetectionRecord(names[row.video_id], frames[row.image_id], row.bbox, 0.9, "drone")
        for row in list(annotations.annotations)[::every]
    ]


@pytest.fixture
def detections(tiny_prepared: Path, tmp_path: Path) -> dict[str, Path]:
    annotations, _ = load_split(tiny_prepared, "train")
    paths = {name: tmp_path / f"{name}.json" for name in ("none", "half", "all")}
    save_detections([], paths["none"])
    save_detections(_found(annotations, every=2), paths["half"])
    save_detections(_found(annotations, every=1), paths["all"])
    return paths


def test_without_detections_ap50_is_zero_and_not_unknown(
    tiny_prepared: Path, detections: dict[str, Path]
) -> None:
    found = single_figure(load_scored(tiny_prepared, detections["none"], WANTED), "coco")

    assert (found.challenger, found.champion, found.difference) == (0.0, None, None)


def test_both_detectors_are_compared_on_the_same_videos_with_an_interval(
    tiny_prepared: Path, detections: dict[str, Path]
) -> None:
    ours, theirs = (load_scored(tiny_prepared, detections[name], WANTED) for name in ("all", "half"))

    ap50, by_class, by_size = paired_figures(ours, theirs, "coco", resamples=100, seed=0)

    assert ap50.challenger == pytest.approx(1.0)
    assert ap50.champion == pytest.approx(0.5, abs=0.03)
    assert ap50.interval is not None
    assert 0 < ap50.interval[0] <= ap50.difference <= ap50.interval[1]  # type: ignore[operator]
    assert by_class == {"drone": pytest.approx(by_class["drone"])}
    assert (by_class["drone"].challenger, by_class["drone"].champion) == (ap50.challenger, ap50.champion)
    assert list(by_size) == ["APs", "APm", "APl", "AP_tiny", "AP_small16_32"]
    assert by_size["APl"].difference is None  # no such object
    assert by_size["APs"].difference > 0.3  # type: ignore[operator]


@pytest.mark.parametrize("protocol", ["voc07", "voc07_inclusive", "mega_vid"])
def test_protocols_without_size_bins_have_none_to_fall(
    tiny_prepared: Path, detections: dict[str, Path], protocol: str
) -> None:
    ours, theirs = (load_scored(tiny_prepared, detections[name], WANTED) for name in ("half", "half"))

    ap50, by_class, by_size = paired_figures(ours, theirs, protocol, resamples=50, seed=0)

    assert ap50.difference == 0.0
    assert list(by_class) == ["drone"]
    assert by_size == {}


def test_the_largest_difference_of_any_graph_on_any_input_is_the_parity(tmp_path: Path) -> None:
    graphs = {
        "backbone": {"random": {"relative": 1e-6}, "frames": {"relative": 3e-6}},
        "decode": {"random": {"relative": 2e-5}, "frames": {"relative": 0.0}},
    }
    path = tmp_path / "parity.json"
    path.write_text(json.dumps({"graphs": graphs}))

    assert parity_difference(path) == 2e-5


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_difference_that_is_no_number_is_the_largest(tmp_path: Path, value: str) -> None:
    path = tmp_path / "parity.json"
    frames = f'{{"random": {{"relative": 1e-6}}, "frames": {{"relative": {value}}}}}'
    path.write_text(f'{{"graphs": {{"backbone": {frames}}}}}')

    assert parity_difference(path) == float("inf")


@pytest.mark.parametrize("text", [None, "{", "{}", '{"graphs": {}}', '{"graphs": []}'])
def test_a_missing_or_empty_parity_report_is_no_parity(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "parity.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(UserError, match="no parity report that can be read"):
        parity_difference(path)


class _Detector:
    pool = (0,)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.primed: dict[int, Any] = {}
        self.shapes: list[tuple[int, ...]] = []

    def prime(self, frames: dict[int, Any]) -> None:
        self.primed = frames

    def push(self, frame: Any) -> list[Any]:
        self.shapes.append(frame.shape)
        until = time.process_time() + self._seconds
        while time.process_time() < until:
            pass
        return []


def test_latency_is_the_processor_time_of_each_on_the_same_frames(
    tiny_prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detectors = {"slow": _Detector(0.009), "fast": _Detector(0.003)}
    monkeypatch.setattr(
        "deploy.bundle.open_bundle",
        lambda path: SimpleNamespace(detector=lambda backend, num_frames: detectors[path.name]),
    )

    found = measure_latency({name: Path(name) for name in detectors}, tiny_prepared, "test", max_frames=8)

    assert found["slow"] / found["fast"] == pytest.approx(3.0, rel=0.3)
    assert found["fast"] == pytest.approx(3.0, rel=0.3)
    for detector in detectors.values():
        assert detector.shapes == [(64, 96, 3)] * 13  # five to warm up
        assert set(detector.primed) == {0}
