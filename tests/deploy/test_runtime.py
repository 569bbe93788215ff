from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploy.device import HostDevice
from deploy.onnx_backend import GraphError, OnnxGraphs, session_options
from deploy.parity import RowDifference, TorchGraphs, detection_rows
from deploy.runtime import StreamRuntime, similarity
from lstfe.config import Config
from lstfe.errors import UserError
from lstfe.model.selection import selection_scores
from lstfe.stream import StreamingDetector
from lstfe.types import ByteArray, FrameDetections

METHODS = ("faster_rcnn", "selsa", "rdn", "stsn", "lstfe")


def detect_all(
    detector: StreamRuntime | StreamingDetector, frames: Sequence[ByteArray]
) -> list[FrameDetections]:
    detector.prime({index: frames[index] for index in detector.pool or ()})
    return [found for frame in frames for found in detector.push(frame)] + detector.finish()


def assert_same(
    expected: list[FrameDetections], found: list[FrameDetections], *, tolerance: float = 1e-4
) -> None:
    """Compare scores, and boxes relative to the frame; equal scores may come in another order."""
    assert [answer.frame_index for answer in found] == [answer.frame_index for answer in expected]
    assert sum(len(answer.detections) for answer in expected) >= len(expected), "nothing to compare"
    difference = RowDifference()
    for one, other in zip(expected, found, strict=True):
        difference.add(detection_rows(one.detections), detection_rows(other.detections), tolerance=tolerance)
    assert difference.num_unmatched == 0, difference


@pytest.mark.parametrize("num_frames", [1, 2, 9])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_detects_what_pytorch_streaming_detects(
    build_method: Callable[..., Any], make_frames: Callable[..., Any], method: str, num_frames: int
) -> None:
    model, config = build_method(method)
    frames = list(make_frames(num_frames))
    expected = detect_all(StreamingDetector(model, config, num_frames=num_frames), frames)
    found = detect_all(StreamRuntime(TorchGraphs(model, config), config, num_frames=num_frames), frames)
    assert_same(expected, found)


@pytest.mark.parametrize("method", ["faster_rcnn", "lstfe"])
def test_onnx_graphs_detect_what_pytorch_streaming_detects(
    export: Callable[..., Any], make_frames: Callable[..., Any], method: str
) -> None:
    exported = export(method)
    frames = list(make_frames(12))
    expected = detect_all(StreamingDetector(exported.model, exported.config, num_frames=12), frames)
    graphs = OnnxGraphs(exported.directory, exported.config)
    assert_same(expected, detect_all(StreamRuntime(graphs, exported.config, num_frames=12), frames))


def test_frames_that_are_resized_and_padded_are_detected_in_their_own_pixels(
    export: Callable[..., Any], make_frames: Callable[..., Any]
) -> None:
    exported = export("lstfe")
    frames = list(make_frames(6, (150, 210)))
    expected = detect_all(StreamingDetector(exported.model, exported.config, num_frames=6), frames)
    graphs = OnnxGraphs(exported.directory, exported.config)
    found = detect_all(StreamRuntime(graphs, exported.config, num_frames=6), frames)
    assert max(answer.detections.boxes.max() for answer in found) > 96
    assert_same(expected, found)


def test_a_live_stream_without_lookahead_equals_pytorch_streaming(
    export: Callable[..., Any], make_frames: Callable[..., Any]
) -> None:
    exported = export("lstfe")
    config = causal(exported.config)
    frames = list(make_frames(10))
    runtime = StreamRuntime(OnnxGraphs(exported.directory, config), config)
    assert runtime.pool is None
    assert_same(detect_all(StreamingDetector(exported.model, config), frames), detect_all(runtime, frames))


def causal(config: Config) -> Config:
    """Three earlier frames instead of three on either side: the graphs keep their sizes."""
    return replace(config, inference=replace(config.inference, lookahead=0))


def test_a_stream_without_frames_ends_without_detections(build_method: Callable[..., Any]) -> None:
    model, config = build_method()
    assert StreamRuntime(TorchGraphs(model, config), config).finish() == []


def test_memory_holds_no_more_than_the_windows_reach(
    build_method: Callable[..., Any], make_frames: Callable[..., Any]
) -> None:
    model, config = build_method()
    runtime = StreamRuntime(TorchGraphs(model, config), config)
    kept = []
    for frame in make_frames(30):
        runtime.push(frame)
        kept.append(runtime.num_remembered)
    inference = config.inference
    assert max(kept) <= inference.lookahead + 1 + inference.relation_range + inference.num_candidates


def test_a_stream_allocates_nothing_once_all_shapes_are_known(
    export: Callable[..., Any], make_frames: Callable[..., Any]
) -> None:
    exported = export("lstfe")
    device = CountingDevice(OnnxGraphs(exported.directory, exported.config))
    runtime = StreamRuntime(device, exported.config)
    counts = []
    for frame in make_frames(24):
        runtime.push(frame)
        counts.append(device.num_allocated)
    first_detected = exported.config.inference.lookahead
    assert 0 < counts[0] < counts[first_detected]
    assert set(counts[first_detected + 1 :]) == {counts[first_detected]}


class CountingDevice(HostDevice):
    """Counts what is asked of it: memory, and outputs of graphs that are not where they were before."""

    def __init__(self, graphs: OnnxGraphs) -> None:
        super().__init__(graphs)
        self.num_allocated = 0
        self._addresses: set[int] = set()

    def empty(self, like: Any, shape: Any = None) -> Any:
        self.num_allocated += 1
        return super().empty(like, shape)

    def staging(self, like: Any) -> Any:
        self.num_allocated += 1
        return super().staging(like)

    def run(self, name: str, *inputs: Any) -> list[Any]:
        outputs = super().run(name, *inputs)
        self.num_allocated += len({array.ctypes.data for array in outputs} - self._addresses)
        self._addresses |= {array.ctypes.data for array in outputs}
        return outputs


def test_a_frame_of_another_size_is_refused(
    build_method: Callable[..., Any], make_frames: Callable[..., Any]
) -> None:
    model, config = build_method()
    runtime = StreamRuntime(TorchGraphs(model, config), config)
    runtime.push(next(make_frames(1)))
    with pytest.raises(UserError, match="frame 1 is 32x48 pixels"):
        runtime.push(next(make_frames(1, (32, 48))))


def test_a_pool_that_was_not_shown_is_refused_at_the_first_frame(
    build_method: Callable[..., Any], make_frames: Callable[..., Any]
) -> None:
    model, config = build_method()
    runtime = StreamRuntime(TorchGraphs(model, config), config, num_frames=9)
    frames = list(make_frames(9))
    runtime.prime({4: frames[4]})
    with pytest.raises(UserError, match=r"frames 1, 7 of the long-term pool .* call prime"):
        runtime.push(frames[0])
    runtime.prime({1: frames[1], 7: frames[7]})
    assert runtime.push(frames[0]) == []


@pytest.mark.parametrize("kind", ["cosine", "scaled_dot"])
def test_similarity_is_the_frame_selection_s(kind: str) -> None:
    generator = np.random.default_rng(0)
    current, candidates = generator.normal(size=(1, 24)), generator.normal(size=(5, 24))
    candidates[3] = 0  # a black frame may have no features at all
    expected = -selection_scores(torch.from_numpy(current), torch.from_numpy(candidates)[None], kind)[0]
    found = similarity(current[0].astype(np.float32), candidates.astype(np.float32), kind)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_a_graph_of_another_method_is_refused(export: Callable[..., Any], tmp_path: Path) -> None:
    exported = export("lstfe")
    for path in exported.directory.glob("*.onnx"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    other = export("faster_rcnn").directory / "relation.onnx"
    (tmp_path / "relation.onnx").write_bytes(other.read_bytes())
    with pytest.raises(GraphError, match=r"relation\.onnx: inputs proposal_features, boxes, valid, outputs"):
        OnnxGraphs(tmp_path, exported.config)


def test_graphs_of_another_number_of_frames_are_refused(export: Callable[..., Any]) -> None:
    exported = export("lstfe")
    config = replace(exported.config, inference=replace(exported.config.inference, num_relation=2))
    expected = r"short_term_proposal_features has 30 entries, this configuration gives 20"
    with pytest.raises(GraphError, match=expected):
        OnnxGraphs(exported.directory, config)


def test_a_file_that_is_no_graph_is_refused(export: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "preprocess.onnx").write_bytes(b"not a graph")
    with pytest.raises(GraphError, match=r"preprocess\.onnx: not a graph"):
        OnnxGraphs(tmp_path, export("lstfe").config)


def test_the_environment_says_how_many_threads_where_the_caller_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert session_options().intra_op_num_threads == 3
    assert session_options(2).intra_op_num_threads == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert session_options().intra_op_num_threads == 0


def test_detecting_with_the_onnx_backend_never_imports_torch(
    bundle_dir: Path, make_video: Callable[..., Any], tmp_path: Path
) -> None:
    program = (
        "import sys\n"
        "from deploy.detect import detect_source\n"
        "import deploy.runtime\n"
        f"run = detect_source({str(make_video(3))!r}, {str(bundle_dir)!r},"
        f" output_dir={str(tmp_path / 'out')!r}, progress=False)\n"
        "heavy = {'torch', 'torchvision', 'mlflow', 'prefect', 'dvc', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert run.num_frames == 3\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
