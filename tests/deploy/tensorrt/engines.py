"""Engines without a GPU: the stand-ins of `fakes`, a family of graphs written once, bundles with engines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FAKES = Path(__file__).with_name("fakes")
OPERATORS = "LstfeDeformConv2d LstfeSampledSum LstfeProposals LstfeSuppression"
_PACKAGES = ("tensorrt", "pycuda")


def _forget() -> None:
    """Close what is opened once a process."""
    import deploy.tensorrt.cuda
    import deploy.tensorrt.engines

    deploy.tensorrt.engines._shared.clear()
    deploy.tensorrt.cuda.open_cuda.cache_clear()


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.split(".")[0] in _PACKAGES]


@contextmanager
def stand_ins(version: str = "10.13.2.6") -> Iterator[ModuleType]:
    """Let `import tensorrt` and `import pycuda` find the stand-ins; yields pycuda.driver."""
    import deploy.tensorrt.cuda
    import deploy.tensorrt.engines
    import deploy.tensorrt.library

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FAKES))
        patch.setenv("LSTFE_FAKE_TENSORRT", version)
        for name in _loaded():
            patch.delitem(sys.modules, name)
        import pycuda.driver as driver

        library = driver.DriverLibrary()
        patch.setattr(driver, "library", library, raising=False)
        patch.setattr(deploy.tensorrt.cuda, "driver_library", lambda: library)
        import tensorrt

        patch.setattr(deploy.tensorrt.library, "_opened", {})
        patch.setattr(deploy.tensorrt.library, "open_shared", tensorrt.SharedLibrary)
        _forget()
        yield driver
        _forget()
        for name in _loaded():
            del sys.modules[name]


def copying_writer(family: Path) -> Any:
    """Return a `write_tensorrt_graphs` that takes graphs written before: exporting takes seconds."""
    import onnx

    from deploy.tensorrt_graphs.opsets import lower_to_17

    def write(
        bundle: Any, destination: Path, *, precision: str, opset: int, calibration: Path | None = None
    ) -> list[Path]:
        destination.mkdir(parents=True)
        paths = []
        for source in sorted(family.glob("*.onnx")):
            model = onnx.load(source)
            if opset == 17:
                lower_to_17(model)
            paths.append(destination / source.name)
            onnx.save(model, paths[-1])
        return paths

    return write


def write_plugin(path: Path, operators: str = OPERATORS) -> Path:
    """Write a library as the stand-in for TensorRT loads it."""
    path.write_text(operators, encoding="utf-8")
    return path
