"""The plugin against TensorRT's headers: harness.cpp plays TensorRT, cuda_on_host.h the GPU."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from deploy.plugin.library import (
    HOST_SOURCES,
    SOURCE_DIR,
    compile_sources,
    find_cuda_include,
    tensorrt_versions,
)

VERSIONS = ("8.5.3", "8.6.1", "10.3", "10.13", "11.1")
HERE = Path(__file__).parent
PLUGIN_SOURCES = sorted(str(file) for file in SOURCE_DIR.glob("*.cpp") if str(file) not in HOST_SOURCES)


def headers_of(version: str) -> Path:
    """Return the folder of TensorRT's headers of a version, a prefix of the full one."""
    root = os.environ.get("TENSORRT_ROOT")
    if root is None:
        pytest.skip(
            f"TENSORRT_ROOT is not set; a folder with the headers of TensorRT {version} would test the plugin"
        )
    found = tensorrt_versions(Path(root))
    folder = next((path for name, path in found.items() if f"{name}.".startswith(f"{version}.")), None)
    if folder is None:
        pytest.skip(
            f"TENSORRT_ROOT has no headers of TensorRT {version}, only of {', '.join(found) or 'none'}"
        )
    return folder


def include_folders(version: str) -> list[str]:
    cuda = find_cuda_include()
    if cuda is None:
        pytest.skip("no CUDA headers; TensorRT's need cuda_runtime_api.h")
    return ["-isystem", str(headers_of(version)), "-isystem", str(cuda), f"-I{SOURCE_DIR}"]


@pytest.fixture
def plugin(version: str, build: Callable[[Sequence[str], str], Path]) -> Path:
    """The plugin for a version, without kernels."""
    # IPluginV2 is deprecated in the versions that have no other.
    arguments = ["-O1", "-Wno-deprecated-declarations", "-Wno-shadow", "-fvisibility=hidden"]
    return build([*arguments, *include_folders(version), *PLUGIN_SOURCES], f"plugin-{version}")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_plugin_passes_the_harness(
    version: str, plugin: Path, gxx: str, emulated_library: ctypes.CDLL, tmp_path: Path
) -> None:
    program = tmp_path / "harness"
    command = [gxx, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations"]
    command += [*include_folders(version), str(HERE / "harness.cpp"), "-o", str(program)]
    libraries = [plugin, Path(emulated_library._name)]
    linked = [part for path in libraries for part in (str(path), f"-Wl,-rpath,{path.parent}")]
    compile_sources([*command, *linked])
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    major, minor, *_ = version.split(".")
    assert result.stdout.startswith(f"{major}.{minor} ")
    assert int(result.stdout.split()[1]) > 500  # checks


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_plugin_leaves_nothing_for_libnvinfer_to_bring(version: str, plugin: Path) -> None:
    symbols = subprocess.run(["nm", "-DC", str(plugin)], capture_output=True, text=True, check=True).stdout
    # Versioned ones are of the C and C++ libraries.
    missing = {line.split()[-1] for line in symbols.splitlines() if " U " in line and "@" not in line}
    assert missing == {
        *("lstfe_deform_conv2d", "lstfe_deform_conv2d_workspace", "lstfe_sampled_sum", "lstfe_status_text"),
        *("lstfe_output_height", "lstfe_output_width", "lstfe_proposals", "lstfe_proposals_workspace"),
        *("lstfe_suppression", "lstfe_suppression_workspace"),
    }
    creators = "getCreators" if version.startswith("1") else "getPluginCreators"
    assert {f" T {name}" for name in (creators, "lstfe_register", "lstfe_tensorrt_version")} <= {
        line[line.index(" T ") :] for line in symbols.splitlines() if " T " in line
    }
