"""What this machine has, and what each missing part would give."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

from deploy.plugin.library import find_nvcc
from pipelines.checkout import has_git
from pipelines.tables import text_table

_NEEDED_GIB = 5.0
INSTALL_PROJECT = "pip install 'lstfe[project]'"
_ANYWHERE = (
    "only `lstfe detect`, `detect-all`, `bench`, `engine`, `score`, `serve --bundle`, `data` and `doctor`"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of the machine: `missing` parts are needed, `absent` ones would be an extra."""

    part: str
    state: Literal["ok", "missing", "absent", "warning"]
    note: str


def examine(root: Path | None) -> list[Finding]:
    """Look at everything; `root` is the project, None outside of one."""
    is_project = root is not None
    checks: list[Callable[[], Finding]] = [
        _python,
        lambda: _package("torch", "training and the torch backend", is_project),
        lambda: _threads(is_project),
        _gpu,
        _tensorrt,
        _nvcc,
        _ffmpeg,
        lambda: _package("onnxruntime", "the onnx backend of `lstfe detect`", True),
        lambda: _package("dvc", "the pipeline", is_project),
        lambda: _package("mlflow", "run tracking", is_project),
        lambda: _package("prefect", "the flow", is_project),
        lambda: _capped("fastapi", (0, 151), "every Prefect flow run fails", is_project),
        lambda: _capped("sqlalchemy", (2, 1), "Prefect's scheduler starts nothing", is_project),
        lambda: _git(root),
        lambda: _disk(root or Path.cwd()),
    ]
    return [check() for check in checks]


def report(findings: list[Finding]) -> str:
    """Return the findings as a table."""
    return text_table(("part", "state", "note"), [(item.part, item.state, item.note) for item in findings])


def is_fit(findings: list[Finding]) -> bool:
    """Return whether nothing necessary is missing."""
    return all(item.state != "missing" for item in findings)


def _python() -> Finding:
    version = platform.python_version()
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("python", "missing", f"found {version}; 3.11, 3.12 or 3.13 runs the project")
    return Finding("python", "ok", f"{version}, {sys.executable}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _package(package: str, use: str, is_needed: bool) -> Finding:
    version = _version(package)
    if version is None:
        return Finding(package, _without(is_needed), f"would give {use}: {INSTALL_PROJECT}")
    return Finding(package, "ok", f"{version}: {use}")


def _without(is_needed: bool) -> Literal["missing", "absent"]:
    """A machine that only detects needs nothing of the project's packages."""
    return "missing" if is_needed else "absent"


def _capped(package: str, below: tuple[int, int], effect: str, is_needed: bool) -> Finding:
    """Prefect 3.8 does not declare these limits itself."""
    found = _version(package)
    limit = ".".join(map(str, below))
    if found is None:
        return Finding(package, _without(is_needed), f"Prefect needs it, below {limit}: {INSTALL_PROJECT}")
    if _major_minor(found) < below:
        return Finding(package, "ok", f"{found}, below {limit} as Prefect 3.8 needs")
    return Finding(package, "warning", f"{found}: from {limit} on {effect}; pip install '{package}<{limit}'")


def _major_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _threads(is_needed: bool) -> Finding:
    try:
        torch = import_module("torch")
    except ImportError as error:
        return Finding("threads", _without(is_needed), f"torch cannot be imported: {error}")
    return Finding("threads", "ok", f"{torch.get_num_threads()} for torch, {os.cpu_count()} processors")


def _gpu() -> Finding:
    try:
        cuda = import_module("torch").cuda
    except ImportError:
        return Finding("gpu", "absent", "torch cannot be imported, so none can be found")
    if not cuda.is_available():
        return Finding(
            "gpu", "absent", "a CUDA GPU would give fast training and the presets small and parity"
        )
    names = [cuda.get_device_name(index) for index in range(cuda.device_count())]
    return Finding("gpu", "ok", f"{len(names)} x {names[0]}, CUDA {import_module('torch').version.cuda}")


def _tensorrt() -> Finding:
    lacking = [name for name in ("tensorrt", "pycuda") if _version(name) is None]
    if lacking:
        note = f"{' and '.join(lacking)} would let TensorRT engines run here: pip install 'lstfe[tensorrt]'"
        return Finding("tensorrt", "absent", note)
    return Finding("tensorrt", "ok", f"{_version('tensorrt')} with pycuda {_version('pycuda')}")


def _nvcc() -> Finding:
    path = find_nvcc()
    if path is None:
        return Finding("nvcc", "absent", "CUDA's compiler would build the plugin of deploy/plugin")
    return Finding("nvcc", "ok", f"{path}: builds the plugin of deploy/plugin")


def _ffmpeg() -> Finding:
    try:
        av = import_module("av")
    except ImportError as error:
        return Finding("ffmpeg", "missing", f"PyAV brings it and cannot be imported: {error}")
    return Finding("ffmpeg", "ok", f"{av.ffmpeg_version_info}, with PyAV {av.__version__}")


def _git(root: Path | None) -> Finding:
    if root is None:
        return Finding(
            "git", "absent", f"not in a project's folder: {_ANYWHERE} work, with a bundle or files of yours"
        )
    if not has_git(root):
        return Finding("git", "absent", "no .git here; a clone would give `dvc exp` (comparing experiments)")
    if shutil.which("git") is None:
        return Finding("git", "absent", "the git command would tie runs to commits")
    return Finding("git", "ok", _git_state(root))


def _git_state(root: Path) -> str:
    command = ["git", "-C", str(root), "status", "--short", "--branch"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if result.returncode != 0:
        return " ".join(result.stderr.split())[:200]
    branch, *changes = result.stdout.splitlines()
    return f"{branch.removeprefix('## ')}, {len(changes)} changed files"


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    if free < _NEEDED_GIB:
        return Finding("disk", "warning", f"{free:.1f} GiB free, the demo wants {_NEEDED_GIB:.0f}")
    return Finding("disk", "ok", f"{free:.1f} GiB free")
