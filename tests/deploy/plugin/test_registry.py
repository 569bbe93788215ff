"""The plugin in the registry of a real TensorRT, which needs no GPU: a full one, or the lean runtime."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

import deploy.tensorrt.library
from deploy.plugin.build import build_plugin, find_headers
from deploy.plugin.library import find_nvcc
from deploy.tensorrt.cuda import Gpu
from deploy.tensorrt.library import PLUGIN_OPERATORS, open_tensorrt

PACKAGES = ("tensorrt", "tensorrt_lean_bindings", "tensorrt_lean")


def find_tensorrt() -> ModuleType:
    """Return the first package that is installed and loads here."""
    reasons = []
    for name in PACKAGES:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as error:
            reasons.append(f"{name}: {error}")
    pytest.skip(f"no TensorRT here, whose registry would be asked ({'; '.join(reasons)})")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_registry_takes_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = find_tensorrt()
    if find_nvcc() is None or shutil.which("cmake") is None:
        pytest.skip("no nvcc or no cmake; with them the plugin would be built and loaded")
    if find_headers(module.__version__) is None:
        pytest.skip(f"no headers of TensorRT {module.__version__} in TENSORRT_ROOT")
    build_plugin(tmp_path / "plugin.so", module.__version__, Gpu("any", "9.0"))
    if not hasattr(module, "init_libnvinfer_plugins"):  # the lean runtime has no plugins of its own
        monkeypatch.setattr(module, "init_libnvinfer_plugins", lambda *_: True, raising=False)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(deploy.tensorrt.library, "_opened", {})
    tensorrt = open_tensorrt()
    tensorrt.load_plugin(tmp_path / "plugin.so")
    registry = module.get_plugin_registry()
    creators = registry.all_creators if hasattr(registry, "all_creators") else registry.plugin_creator_list
    assert {creator.name for creator in creators} >= set(PLUGIN_OPERATORS)
