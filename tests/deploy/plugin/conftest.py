"""The kernels, compiled for the host by g++, once for every state of their sources."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from deploy.plugin.calls import PreparedCall
from deploy.plugin.library import (
    HOST_SOURCES,
    KERNEL_SOURCES,
    SMALL_WORKSPACE,
    SOURCE_DIR,
    PluginError,
    compile_sources,
    open_library,
)

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


def run_watched(call: PreparedCall) -> None:
    """Run kernels whose loads must stay inside the call's own tensors; its workspace starts with rubbish."""
    assert call.workspace is not None
    call.workspace.random_(0, 256, generator=torch.Generator().manual_seed(0))
    for tensor in (*call.inputs, call.workspace):
        call.library.cuda_on_host_allow(ctypes.c_void_p(tensor.data_ptr()), ctypes.c_size_t(tensor.nbytes))
    call.run()
    call.library.cuda_on_host_allow(None, ctypes.c_size_t(0))


def assert_small_workspace_is_refused(call: PreparedCall, output: Tensor, name: str) -> None:
    """A workspace one byte too small, and none, stop the call before it writes `output`, which holds -1."""
    assert call.workspace is not None
    call.workspace = call.workspace[:-1]
    with pytest.raises(PluginError, match=rf"^{name}: status 4: the workspace is null or smaller"):
        call.run()
    call.workspace = None
    assert call.status() == SMALL_WORKSPACE
    assert bool((output == -1).all())
