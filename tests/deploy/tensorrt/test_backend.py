"""The TensorRT path, whole, without TensorRT: its API and the GPU's memory are stood in for (fakes/)."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.bundle import Bundle, open_bundle
from deploy.graph_times import time_graphs
from deploy.runtime import StreamRuntime
from deploy.tensorrt.backend import TensorRTDevice
from deploy.tensorrt.cuda import CudaError, LaunchGraph
from deploy.tensorrt.engines import open_engines
from deploy.tensorrt.manifest import EngineError, read_engine_manifest
from deploy.tensorrt.on_host import EngineGraphs
from lstfe.types import ByteArray, FrameDetections

from .conftest import Built, build, engines

ROOT = Path(__file__).parents[3]
NUM_FRAMES = 9


def detect_all(detector: Any, frames: Sequence[ByteArray]) -> list[FrameDetections]:
    detector.prime({index: frames[index] for index in detector.pool or ()})
    return [found for frame in frames for found in detector.push(frame)] + detector.finish()


def assert_alike(expected: list[FrameDetections], found: list[FrameDetections]) -> None:
    assert [item.frame_index for item in found] == [item.frame_index for item in expected]
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other.detections.scores, one.detections.scores, atol=1e-5)
        np.testing.assert_allclose(other.detections.boxes, one.detections.boxes, atol=1e-3)
        np.testing.assert_array_equal(other.detections.labels, one.detections.labels)


@pytest.mark.parametrize("version", ["8.5.3.1", "8.6.1.6", "10.0.1", "10.13.2.6", "11.1.0.3"])
def test_engines_of_every_api_detect_what_onnx_runtime_detects(
    copied: Bundle, make_frames: Callable[..., Any], version: str
) -> None:
    frames = list(make_frames(NUM_FRAMES))
    expected = detect_all(copied.detector("onnx", NUM_FRAMES), frames)
    with engines.stand_ins(version) as driver:
        bundle = build(copied, driver).bundle
        assert_alike(expected, detect_all(bundle.detector("tensorrt", NUM_FRAMES), frames))
        assert driver.library.num_launched > 0, "graphs are recorded and replayed"
        assert (driver.library.num_executables, driver.gpu.used_bytes) == (0, 0), "all is given back"


@pytest.mark.parametrize("version", ["8.5.3.1", "8.6.1.6"])
def test_streams_share_engines_with_free_shapes_before_10_too(
    copied: Bundle, make_frames: Callable[..., Any], version: str
) -> None:
    frames = list(make_frames(NUM_FRAMES))
    expected = detect_all(copied.detector("onnx", NUM_FRAMES), frames)
    with engines.stand_ins(version) as driver:
        bundle = build(copied, driver, frame_sizes=[(48, 64), (64, 96)]).bundle
        first, second = (bundle.detector("tensorrt", NUM_FRAMES) for _ in range(2))
        assert_alike(expected, detect_all(first, frames))
        assert_alike(expected, detect_all(second, frames))


def test_a_stream_that_ends_in_another_thread_leaves_nothing_behind(
    built: Built, make_frames: Callable[..., Any]
) -> None:
    detector = built.bundle.detector("tensorrt")
    for frame in make_frames(NUM_FRAMES):
        detector.push(frame)
    thread = threading.Thread(target=detector.finish)
    thread.start()
    thread.join()
    del detector
    gc.collect()
    assert built.driver.gpu.leaked == 0
    assert len(built.driver.streams) == 0


def test_every_graph_of_a_frame_is_recorded(
    built: Built, make_frames: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: dict[str, bool] = {}
    record = LaunchGraph.record

    def watched(launch: Any, stream: Any) -> LaunchGraph | None:
        found = record(launch, stream)
        recorded[launch.__self__._name] = found is not None
        return found

    monkeypatch.setattr(LaunchGraph, "record", staticmethod(watched))
    detect_all(built.bundle.detector("tensorrt", NUM_FRAMES), list(make_frames(NUM_FRAMES)))
    graphs = {"resample", "backbone", "support", "align", "proposals", "roi", "relation", "decode"}
    assert recorded == dict.fromkeys(graphs, True)


def test_the_time_of_each_engine_is_that_of_its_work(built: Built, make_frames: Callable[..., Any]) -> None:
    detector = built.bundle.detector("tensorrt")
    found = {graph.name: graph.runs_per_frame for graph in time_graphs(detector, make_frames(20), warm_up=12)}
    assert found == {
        **dict.fromkeys(("preprocess", "backbone", "support", "align", "relation", "decode"), 1.0),
        **dict.fromkeys(("proposals", "roi"), 2.0),
    }


def test_without_recordings_the_detections_are_the_same(
    built: Built, make_frames: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.tensorrt.cuda.driver_library", lambda: None)
    frames = list(make_frames(NUM_FRAMES))
    expected = detect_all(built.bundle.detector("onnx", NUM_FRAMES), frames)
    assert_alike(expected, detect_all(built.bundle.detector("tensorrt", NUM_FRAMES), frames))
    assert built.driver.library.num_launched == 0


def test_streams_in_one_process_share_engines_and_nothing_else(
    built: Built, make_frames: Callable[..., Any]
) -> None:
    videos = [list(make_frames(NUM_FRAMES, seed=seed)) for seed in (1, 2)]
    expected = [detect_all(built.bundle.detector("onnx"), frames) for frames in videos]
    detectors = [built.bundle.detector("tensorrt") for _ in videos]
    assert open_engines(built.bundle) is open_engines(built.bundle)
    found: list[list[FrameDetections]] = [[], []]
    for pair in zip(*videos, strict=True):
        for results, detector, frame in zip(found, detectors, pair, strict=True):
            results += detector.push(frame)
    for results, detector in zip(found, detectors, strict=True):
        results += detector.finish()
    for one, other in zip(expected, found, strict=True):
        assert_alike(one, other)


def test_a_long_stream_takes_no_more_memory_than_a_short_one(
    built: Built, make_frames: Callable[..., Any]
) -> None:
    detector = built.bundle.detector("tensorrt")
    used = []
    for frame in make_frames(40):
        detector.push(frame)
        used.append(built.driver.gpu.used_bytes)
    lookahead = built.bundle.config.inference.lookahead
    assert len(set(used[lookahead + 1 :])) == 1
    detector.finish()
    assert built.driver.gpu.used_bytes == 0


def test_graphs_of_engines_give_what_the_plain_graphs_give(
    built: Built, make_frames: Callable[..., Any]
) -> None:
    from deploy.onnx_backend import OnnxGraphs
    from deploy.tensorrt_graphs.expanded import PlainView

    config = built.bundle.config
    onnx_graphs = OnnxGraphs(built.bundle.directory, config)
    graphs = EngineGraphs(open_engines(built.bundle))
    view = PlainView(graphs, onnx_graphs, config)
    frames = list(make_frames(NUM_FRAMES))
    expected = detect_all(StreamRuntime(onnx_graphs, config, num_frames=NUM_FRAMES), frames)
    assert_alike(expected, detect_all(StreamRuntime(view, config, num_frames=NUM_FRAMES), frames))
    graphs.close()
    assert built.driver.gpu.used_bytes == 0


# ------------------------------------------------------------------------------------ what cannot be run


def test_frames_outside_the_profile_are_refused_and_other_streams_go_on(
    built: Built, make_frames: Callable[..., Any]
) -> None:
    running, refused = (built.bundle.detector("tensorrt") for _ in range(2))
    frames = list(make_frames(NUM_FRAMES))
    found = [item for frame in frames[:4] for item in running.push(frame)]
    with pytest.raises(EngineError, match=r"frames of 32x48 pixels .* takes frame from 64x96x3 to 64x96x3"):
        refused.push(next(make_frames(1, (32, 48))))
    found += [item for frame in frames[4:] for item in running.push(frame)] + running.finish()
    assert_alike(detect_all(built.bundle.detector("onnx"), frames), found)


def test_a_stream_without_memory_ends_alone(built: Built, make_frames: Callable[..., Any]) -> None:
    gpu = built.driver.gpu
    frames = list(make_frames(NUM_FRAMES))
    running = built.bundle.detector("tensorrt")
    found = [item for frame in frames[:4] for item in running.push(frame)]
    before = gpu.used_bytes
    gpu.total_bytes = before + 2**14
    late = built.bundle.detector("tensorrt")
    with pytest.raises(CudaError, match=r"Host GPU: out of memory .*MiB are free; run fewer streams"):
        late.push(frames[0])
    assert gpu.used_bytes == before, "what the failed stream had is free again"
    found += [item for frame in frames[4:] for item in running.push(frame)] + running.finish()
    assert_alike(detect_all(built.bundle.detector("onnx"), frames), found)


def test_engines_of_several_sizes_take_what_lies_between(
    copied: Bundle, make_frames: Callable[..., Any]
) -> None:
    frames = list(make_frames(6, (70, 90)))
    expected = detect_all(copied.detector("onnx"), frames)
    with engines.stand_ins() as driver:
        bundle = build(copied, driver, frame_sizes=[(64, 64), (64, 96), (96, 96)]).bundle
        assert_alike(expected, detect_all(bundle.detector("tensorrt"), frames))


# ---------------------------------------------------------------------------------------------- building


def test_engines_of_one_frame_size_have_fixed_shapes_but_for_the_number_of_boxes(built: Built) -> None:
    opened = open_engines(built.bundle)
    free = {
        (name, tensor)
        for name, tensors in opened.inputs.items()
        for tensor in tensors
        if -1 in opened[name].get_tensor_shape(tensor)
    }
    assert free == {("roi", "boxes")}


def test_engines_leave_the_bundle_as_it_was_and_say_what_they_are(built: Built) -> None:
    manifest = read_engine_manifest(built.engines_dir)
    assert built.engines_dir.name == "fp32-trt10.13.2.6-sm90-host-gpu"
    assert (manifest.precision, manifest.form, manifest.opset) == ("fp32", "commuted", 20)
    assert manifest.frame_sizes == ((64, 96),)
    assert {name for name in manifest.files if name.endswith(".plan")} >= {"support.plan", "resample.plan"}
    assert open_bundle(built.bundle.directory).manifest == built.bundle.manifest


def test_detecting_with_engines_never_imports_torch_or_orchestration(
    built: Built, make_video: Callable[..., Any], tmp_path: Path
) -> None:
    program = (
        "import sys\n"
        "from deploy.detect import detect_source\n"
        f"run = detect_source({str(make_video(3))!r}, {str(built.bundle.directory)!r}, backend='tensorrt',"
        f" output_dir={str(tmp_path / 'out')!r}, progress=False)\n"
        "heavy = {'torch', 'torchvision', 'mlflow', 'prefect', 'dvc'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert run.num_frames == 3 and run.num_detections > 0\n"
    )
    paths = os.pathsep.join([str(ROOT), str(engines.FAKES)])
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_a_stream_that_is_dropped_gives_everything_back(
    built: Built, make_frames: Callable[..., Any]
) -> None:
    detector = built.bundle.detector("tensorrt")
    for frame in make_frames(5):
        detector.push(frame)
    assert built.driver.library.num_executables > 0
    del detector
    assert (built.driver.library.num_executables, built.driver.gpu.used_bytes) == (0, 0)


def test_a_device_counts_its_memory(built: Built) -> None:
    device = TensorRTDevice(open_engines(built.bundle))
    assert device.num_bytes == built.driver.gpu.used_bytes > 0
    with device.active():
        device.close()
    assert device.num_bytes == built.driver.gpu.used_bytes == 0
