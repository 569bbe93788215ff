"""The kernels, compiled for the host by g++, once for every state of their sources."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from filelock import FileLock

from deploy.plugin.library import HOST_SOURCES, KERNEL_SOURCES, SOURCE_DIR, compile_sources, open_library

HERE = Path(__file__).parent
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wshadow")
Build = Callable[[Sequence[str], str], Path]


@pytest.fixture(scope="session")
def gxx() -> str:
    """The path of g++."""
    path = shutil.which("g++")
    if path is None:
        pytest.skip("g++ is not in PATH; with it the plugin's arithmetic is compared with torchvision's")
    return path


@pytest.fixture(scope="session")
def build(request: pytest.FixtureRequest, gxx: str) -> Build:
    """Compile to a shared library, or find the one that the same command made of the same sources."""
    cache = request.config.cache
    assert cache is not None
    folder = cache.mkdir("lstfe_plugin")
    sources = [file for file in sorted(SOURCE_DIR.iterdir()) if file.suffix in (".h", ".cuh", ".cu", ".cpp")]
    state = hashlib.sha256(b"".join(file.read_bytes() for file in (*sources, HERE / "cuda_on_host.h")))

    def build_once(arguments: Sequence[str], name: str) -> Path:
        command = [gxx, "-std=c++17", "-ffp-contract=off", "-shared", "-fPIC", *WARNINGS, *arguments]
        key = state.copy()
        key.update("\0".join(command).encode())
        output = folder / f"{name}-{key.hexdigest()[:16]}.so"
        with FileLock(folder / f"{name}.lock"):  # another process may be at it
            if not output.exists():
                part = output.with_suffix(".part")
                compile_sources([*command, "-o", str(part)])
                part.replace(output)
                for outdated in set(folder.glob(f"{name}-*.so")) - {output}:
                    outdated.unlink()
        return output

    return build_once


@pytest.fixture(scope="session")
def host_library(build: Build) -> ctypes.CDLL:
    """The host references: the arithmetic that the kernels use, in plain loops."""
    return open_library(build(["-O2", "-Wconversion", *HOST_SOURCES], "host"))


@pytest.fixture(scope="session")
def emulated_library(build: Build) -> ctypes.CDLL:
    """The kernels as they are, run on the CPU by cuda_on_host.h; any undefined behaviour ends the process."""
    arguments = ["-O1", "-Wno-unknown-pragmas", "-Wno-clobbered"]
    arguments += ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    arguments += [f"-I{HERE}", '-DLSTFE_CUDA_ON_HOST="cuda_on_host.h"', *HOST_SOURCES]
    for source in KERNEL_SOURCES:
        arguments += ["-x", "c++", source]
    return open_library(build(arguments, "emulated"))
