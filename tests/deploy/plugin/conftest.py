"""The kernels, compiled for the host by g++."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest

from deploy.plugin.library import SOURCE_DIR, compile_sources, open_library

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wshadow")


@pytest.fixture(scope="session")
def gxx() -> str:
    """The path of g++."""
    path = shutil.which("g++")
    if path is None:
        pytest.skip("g++ is not in PATH; with it the plugin's arithmetic is compared with torchvision's")
    return path


@pytest.fixture(scope="session")
def host_library(gxx: str, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The host references: the arithmetic that the kernels use, in plain loops."""
    output = tmp_path_factory.mktemp("plugin") / "host.so"
    command = [gxx, "-std=c++17", "-O2", "-ffp-contract=off", "-Wconversion", *WARNINGS, "-shared", "-fPIC"]
    compile_sources([*command, "-o", str(output), str(SOURCE_DIR / "host.cpp")])
    return open_library(Path(output))


@pytest.fixture(scope="session")
def emulated_library(gxx: str, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels as they are, run on the CPU by cuda_on_host.h; any undefined behaviour ends the process."""
    output = tmp_path_factory.mktemp("plugin") / "emulated.so"
    here = Path(__file__).parent
    command = [gxx, "-std=c++17", "-O1", *WARNINGS, "-Wno-unknown-pragmas", "-Wno-clobbered"]
    command += ["-shared", "-fPIC", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    command += [f"-I{here}", '-DLSTFE_CUDA_ON_HOST="cuda_on_host.h"', "-o", str(output)]
    sources = [str(SOURCE_DIR / "host.cpp"), "-x", "c++", str(SOURCE_DIR / "kernels.cu")]
    compile_sources([*command, *sources])
    return open_library(output)
