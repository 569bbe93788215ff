"""Engines, plugins and machines that do not fit: one line that says what differs, and nothing else is touched."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from deploy.bundle import Bundle
from deploy.files import FileStamp, stamp_of
from deploy.tensorrt.cuda import CudaError
from deploy.tensorrt.manifest import ENGINE_FILE, PLUGIN_FILE, EngineError, read_engine_manifest

from .conftest import Built, build, engines


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
