"""The plugin's library for one GPU and one TensorRT: taken as given, or compiled here."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from deploy.plugin.library import SOURCE_DIR, find_nvcc, tensorrt_versions
from deploy.tensorrt.cuda import Gpu
from deploy.tensorrt.manifest import EngineError


def provide_plugin(given: Path | None, target: Path, tensorrt_version: str, gpu: Gpu) -> Path:
    """Put the plugin's library beside the plans: the one given, or one built here; raises EngineError."""
    if given is not None:
        if not given.is_file():
            raise EngineError(
                f"{given}: no such file, expected the plugin's library (deploy/plugin/README.md)"
            )
        shutil.copyfile(given, target)
    else:
        build_plugin(target, tensorrt_version, gpu)
    return target


def build_plugin(target: Path, tensorrt_version: str, gpu: Gpu) -> None:
    """Compile the plugin for this GPU with CMake; raises EngineError for what is missing."""
    cmake = shutil.which("cmake")
    headers = find_headers(tensorrt_version)
    missing = [
        what
        for what, there in (
            ("nvcc (the CUDA toolkit)", find_nvcc()),
            ("cmake", cmake),
            (f"TensorRT's headers of version {tensorrt_version} (TENSORRT_ROOT)", headers),
        )
        if there is None
    ]
    if missing or cmake is None:
        raise EngineError(
            f"the plugin cannot be built here: no {', no '.join(missing)}; install what is missing, or give a "
            "library that was built elsewhere: --plugin PATH (deploy/plugin/README.md says how)"
        )
    build_dir = target.parent / "plugin-build"
    options = [
        f"-DTENSORRT_ROOT={headers}",
        f"-DLSTFE_ARCHITECTURES={gpu.compute_capability.replace('.', '')}",
        f"-DCMAKE_CUDA_COMPILER={find_nvcc()}",
    ]
    for command in (
        [cmake, "-S", str(SOURCE_DIR), "-B", str(build_dir), *options],
        [cmake, "--build", str(build_dir), "-j"],
    ):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            lines = (result.stdout + result.stderr).splitlines()
            reason = next((line.strip() for line in lines if "error" in line.lower()), "it gave no reason")
            raise EngineError(f"the plugin does not compile: {reason}; give one: --plugin PATH")
    shutil.copyfile(next(build_dir.rglob("liblstfe_plugin.so")), target)
    shutil.rmtree(build_dir)


def find_headers(tensorrt_version: str) -> Path | None:
    """Return TensorRT's headers: of TENSORRT_ROOT, or where the system's packages put them."""
    roots = [Path(os.environ["TENSORRT_ROOT"])] if os.environ.get("TENSORRT_ROOT") else []
    roots += [
        Path("/usr/include"),
        Path("/usr/local/tensorrt"),
        Path(f"/usr/include/{platform.machine()}-linux-gnu"),
    ]
    major = tensorrt_version.split(".")[0]
    for root in roots:
        for version, folder in tensorrt_versions(root).items():
            if version.split(".")[0] == major:
                return folder
    return None
