"""The TensorRT path, whole, without TensorRT: its API and the GPU's memory are stood in for (fakes/)."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import deploy.tensorrt_graphs.family
from deploy.bundle import Bundle, open_bundle
from deploy.files import FileStamp, stamp_of
from deploy.graph_times import time_graphs
from deploy.runtime import StreamRuntime
from deploy.tensorrt.backend import TensorRTDevice
from deploy.tensorrt.build import build_engines
from deploy.tensorrt.cuda import CudaError, LaunchGraph
from deploy.tensorrt.engines import open_engines
from deploy.tensorrt.manifest import ENGINE_FILE, PLUGIN_FILE, EngineError, read_engine_manifest
from deploy.tensorrt.on_host import EngineGraphs
from lstfe.types import ByteArray, FrameDetections

_spec = importlib.util.spec_from_file_location("engines", Path(__file__).with_name("engines.py"))
assert _spec is not None
assert _spec.loader is not None
engines = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(engines)

ROOT = Path(__file__).parents[2]
NUM_FRAMES = 9


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle with engines, and the stand-in for the GPU that they were built on."""

    bundle: Bundle
    engines_dir: Path
    driver: Any


@pytest.fixture(scope="module")
def family(
    bundle_dir: Path, build_commuted: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The graphs for TensorRT, float32, written once."""
    destination = tmp_path_factory.mktemp("family")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy.tensorrt_graphs.family, "build_graph", build_commuted)
        deploy.tensorrt_graphs.family.write_tensorrt_graphs(
            open_bundle(bundle_dir), destination, precision="fp32", opset=20
        )
    return destination


@pytest.fixture
def copied(bundle_dir: Path, family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle that may be changed; graphs for its engines are copied, not exported."""
    monkeypatch.setattr(
        deploy.tensorrt_graphs.family, "write_tensorrt_graphs", engines.copying_writer(family)
    )
    shutil.copytree(bundle_dir, tmp_path / "bundle")
    return open_bundle(tmp_path / "bundle")


def build(bundle: Bundle, driver: ModuleType, **options: Any) -> Built:
    plugin = engines.write_plugin(bundle.directory.parent / "plugin.so")
    options = {"precision": "fp32", "frame_sizes": [(64, 96)], "plugin": plugin} | options
    return Built(open_bundle(bundle.directory), build_engines(bundle, **options), driver)


@pytest.fixture
def built(copied: Bundle) -> Iterator[Built]:
    with engines.stand_ins() as driver:
        yield build(copied, driver)


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


def test_a_driver_that_is_too_old_is_one_line(
    built: Built, copied: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSTFE_FAKE_OLD_DRIVER", "1")
    expected = (
        r"^TensorRT 10\.13\.2\.6 does not start on this machine: CUDA initialization failure .* 35; is the"
    )
    with pytest.raises(EngineError, match=expected):
        build(copied, built.driver)
    with pytest.raises(EngineError, match=expected):
        built.bundle.detector("tensorrt")


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


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tensorrt": "10.3.0"}, r"built for TensorRT 10\.3\.0, here 10\.13\.2\.6"),
        ({"gpu": "NVIDIA H200", "compute_capability": "8.9"}, r"GPU NVIDIA H200, here Host GPU; compute cap"),
        ({"model_version": "older"}, r"bundle's model version older, here [0-9a-f]{12}"),
        ({"graphs_sha256": "0" * 64}, r"bundle's graphs 000000000000, here"),
    ],
)
def test_engines_for_something_else_are_refused_with_what_differs(
    built: Built, changes: dict[str, str], expected: str
) -> None:
    path = built.engines_dir / ENGINE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(EngineError, match=f"no engines for this machine.*{expected}.*lstfe engine build"):
        built.bundle.detector("tensorrt")


def test_an_engine_that_was_cut_short_is_refused_before_it_is_loaded(built: Built) -> None:
    path = built.engines_dir / "backbone.plan"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        EngineError, match=r"backbone\.plan: the engine changed since it was built \(100 bytes"
    ):
        built.bundle.detector("tensorrt")


def test_an_engine_that_tensorrt_refuses_is_named_with_its_reason(built: Built) -> None:
    path = built.engines_dir / "roi.plan"
    path.write_bytes(path.read_bytes()[:-1])
    restamp(built.engines_dir, "roi.plan", stamp_of(path))
    with pytest.raises(EngineError, match=r"roi\.plan: TensorRT 10\.13\.2\.6 refuses it: .*corrupt plan"):
        built.bundle.detector("tensorrt")


def restamp(directory: Path, name: str, stamp: FileStamp) -> None:
    path = directory / ENGINE_FILE
    values = json.loads(path.read_text())
    values["files"][name] = {"size": stamp.size, "sha256": stamp.sha256}
    path.write_text(json.dumps(values))


def test_a_missing_and_a_changed_plugin_are_named(built: Built) -> None:
    plugin = built.engines_dir / PLUGIN_FILE
    plugin.write_text("something else")
    with pytest.raises(EngineError, match=r"the plugin library changed since it was built"):
        built.bundle.detector("tensorrt")
    plugin.unlink()
    with pytest.raises(EngineError, match=r"liblstfe_plugin\.so: the plugin library is missing"):
        built.bundle.detector("tensorrt")


def test_a_bundle_without_engines_says_how_to_build_them(copied: Bundle) -> None:
    with engines.stand_ins(), pytest.raises(EngineError, match=r"no engines in it; .* `lstfe engine build"):
        copied.detector("tensorrt")


def test_without_tensorrt_and_without_a_gpu_the_error_says_so(copied: Bundle) -> None:
    if importlib.util.find_spec("tensorrt") is None:
        with pytest.raises(EngineError, match=r"needs TensorRT 8\.5 or newer .* `pip install tensorrt`"):
            copied.detector("tensorrt")
    with engines.stand_ins() as driver:
        driver.gpu.count = 0
        with pytest.raises(CudaError, match=r"no usable GPU: .*no CUDA-capable device"):
            copied.detector("tensorrt")


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


def test_a_build_that_fails_leaves_the_engines_that_were_there(copied: Bundle, tmp_path: Path) -> None:
    with engines.stand_ins() as driver:
        directory = build(copied, driver).engines_dir
    before = read_engine_manifest(directory)
    incomplete = engines.write_plugin(tmp_path / "incomplete.so", "LstfeDeformConv2d")
    with (
        engines.stand_ins() as driver,
        pytest.raises(
            EngineError, match=r"has no operator LstfeSampledSum, .* for TensorRT 10\.13\.2\.6; build"
        ),
    ):
        build(copied, driver, plugin=incomplete)
    assert read_engine_manifest(directory) == before
    assert [path.name for path in directory.parent.iterdir() if path.is_dir()] == [directory.name]


def test_a_machine_that_cannot_compile_the_plugin_says_what_it_lacks(
    copied: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("TENSORRT_ROOT", raising=False)
    monkeypatch.setattr("deploy.plugin.build.find_nvcc", lambda: None)
    with (
        engines.stand_ins() as driver,
        pytest.raises(EngineError, match=r"no nvcc .*, no cmake, no TensorRT's headers .* --plugin PATH"),
    ):
        build(copied, driver, plugin=None)


def test_a_graph_that_tensorrt_does_not_read_is_named(
    copied: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = engines.write_plugin(tmp_path / "two.so", "LstfeDeformConv2d LstfeSampledSum")
    monkeypatch.setattr("deploy.tensorrt.library.PLUGIN_OPERATORS", ())  # so that the plugin is taken
    with (
        engines.stand_ins() as driver,
        pytest.raises(EngineError, match=r"graph decode: TensorRT .* No importer .* LstfeSuppression"),
    ):
        build(copied, driver, plugin=partial)


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
