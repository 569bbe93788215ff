"""Bundles with engines, built with the stand-ins for TensorRT and the GPU (engines.py, fakes/)."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import deploy.tensorrt_graphs.family
from deploy.bundle import Bundle, open_bundle
from deploy.tensorrt.build import build_engines

_spec = importlib.util.spec_from_file_location("engines", Path(__file__).with_name("engines.py"))
assert _spec is not None
assert _spec.loader is not None
engines = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(engines)


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
