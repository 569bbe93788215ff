"""Build the kernels with the compilers at hand and open them with ctypes: `python -m deploy.plugin.library OUT.so`."""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lstfe.errors import UserError

SOURCE_DIR = Path(__file__).parent
ARCHITECTURES = (75, 80, 86, 87, 89, 90)
"""Compute capabilities of a full build; PTX of the last one is included for newer GPUs."""

HOST_SOURCES = [str(SOURCE_DIR / name) for name in ("host.cpp", "proposals_host.cpp", "suppression_host.cpp")]
"""What needs no CUDA."""
KERNEL_SOURCES = [str(SOURCE_DIR / name) for name in ("kernels.cu", "proposals.cu", "suppression.cu")]

FLOAT32, FLOAT16, BFLOAT16 = range(3)
NCHW, NHWC = range(2)
AUTO, SIMPLE, TILE_64X64, TILE_128X128, TILE_128X256 = range(5)
OK, BAD_PARAMETERS, NOT_SUPPORTED, NULL_POINTER, SMALL_WORKSPACE = range(5)


class PluginError(UserError):
    """The kernels cannot be built, opened or run."""


class Sampling(ctypes.Structure):
    """Where a deformable convolution looks: `LstfeSampling` of lstfe_plugin.h."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("batch", "height", "width", "kernel_height", "kernel_width", "stride_y", "stride_x"),
            *("pad_top", "pad_left", "pad_bottom", "pad_right", "dilation_y", "dilation_x", "offset_groups"),
        )
    ]


class DeformConvParams(ctypes.Structure):
    """`LstfeDeformConvParams` of lstfe_plugin.h."""

    _fields_ = [
        ("sampling", Sampling),
        *(
            (name, ctypes.c_int32)
            for name in (
                *("channels", "out_channels", "groups"),
                *("relu", "type", "layout", "algorithm", "splits"),
            )
        ),
    ]


class SampledSumParams(ctypes.Structure):
    """`LstfeSampledSumParams` of lstfe_plugin.h."""

    _fields_ = [
        ("sampling", Sampling),
        *((name, ctypes.c_int32) for name in ("channels", "relu", "type", "layout")),
    ]


class ProposalParams(ctypes.Structure):
    """`LstfeProposalParams` of lstfe_plugin.h."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("anchors", "height", "width")),
        ("stride", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("pre_nms_top_k", "post_nms_top_k")),
        *((name, ctypes.c_float) for name in ("nms_iou", "min_size_px")),
    ]


class SuppressionParams(ctypes.Structure):
    """`LstfeSuppressionParams` of lstfe_plugin.h."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("classes", "boxes")),
        *((name, ctypes.c_float) for name in ("nms_iou", "score_threshold")),
        ("max_kept", ctypes.c_int32),
    ]


def find_nvcc() -> Path | None:
    """Return CUDA's compiler: of $CUDA_HOME, in PATH, or in /usr/local/cuda."""
    homes = [Path(os.environ["CUDA_HOME"])] if os.environ.get("CUDA_HOME") else []
    in_path = shutil.which("nvcc")
    places = [home / "bin" / "nvcc" for home in homes]
    places += [Path(in_path)] if in_path else []
    places.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((place for place in places if place.is_file()), None)


def find_cuda_include() -> Path | None:
    """Return the folder of CUDA's headers: the toolkit's, or that of the package nvidia-cuda-runtime."""
    nvcc = find_nvcc()
    places = [Path(os.environ["CUDA_HOME"]) / "include"] if os.environ.get("CUDA_HOME") else []
    places += [nvcc.resolve().parents[1] / "include"] if nvcc else []
    places.append(Path("/usr/local/cuda/include"))
    places += [Path(folder) / "nvidia" / "cu13" / "include" for folder in sys.path]
    return next((place for place in places if (place / "cuda_runtime_api.h").is_file()), None)


def tensorrt_versions(root: Path) -> dict[str, Path]:
    """Return TensorRT's header folders in `root`, or in folders one or two below it, by version: `10.3`."""
    found = [file for pattern in ("", "*/", "*/*/") for file in root.glob(f"{pattern}NvInferVersion.h")]
    return {_tensorrt_version(file): file.parent for file in sorted(found)}


def _tensorrt_version(header: Path) -> str:
    text = header.read_text(encoding="utf-8")
    # Some versions define NV_TENSORRT_MAJOR by way of TRT_MAJOR_ENTERPRISE.
    numbers = (
        re.search(rf"define (?:NV_TENSORRT_{part}|TRT_{part}_ENTERPRISE) (\d+)", text)
        for part in ("MAJOR", "MINOR", "PATCH")
    )
    return ".".join(number.group(1) for number in numbers if number)


def architecture_flags(architectures: Sequence[int]) -> list[str]:
    """Return nvcc's flags for machine code of each compute capability and PTX of the last."""
    flags = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures]
    return [*flags, f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}"]


def build_library(
    output: Path, architectures: Sequence[int] = ARCHITECTURES, *, options: Sequence[str] = ()
) -> str:
    """Compile the kernels (no TensorRT) to a shared library with nvcc; return what the compiler printed."""
    nvcc = find_nvcc()
    if nvcc is None:
        raise PluginError(
            "no nvcc in $CUDA_HOME/bin, PATH or /usr/local/cuda/bin; install the CUDA toolkit >= 11.8"
        )
    command = [str(nvcc), "-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    command += ["-Xcompiler", "-ffp-contract=off", *architecture_flags(architectures), *options]
    return compile_sources([*command, "-o", str(output), *HOST_SOURCES, *KERNEL_SOURCES])


def compile_sources(command: Sequence[str]) -> str:
    """Run a compiler and return what it printed; the first line with an error is quoted if it fails."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    printed = (result.stdout + result.stderr).strip()
    if result.returncode != 0:
        lines = printed.splitlines() or ["it printed nothing"]
        first = next((line for line in lines if "error" in line), lines[-1])
        raise PluginError(f"{command[0]} failed with {result.returncode}: {first}")
    return printed


def open_library(path: Path) -> ctypes.CDLL:
    """Open a library of the kernels and tell ctypes what its functions take."""
    try:
        library = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise PluginError(f"{path} cannot be opened: {error}; build it again on this machine") from error
    pointer = ctypes.c_void_p
    library.lstfe_status_text.restype = ctypes.c_char_p
    deform, summed = ctypes.POINTER(DeformConvParams), ctypes.POINTER(SampledSumParams)
    proposals, suppression = ctypes.POINTER(ProposalParams), ctypes.POINTER(SuppressionParams)
    library.lstfe_deform_conv2d_host.argtypes = [deform, *[pointer] * 6]
    library.lstfe_sampled_sum_host.argtypes = [summed, *[pointer] * 5]
    library.lstfe_proposals_host.argtypes = [proposals, *[pointer] * 6]
    library.lstfe_suppression_host.argtypes = [suppression, *[pointer] * 3]
    if hasattr(library, "lstfe_deform_conv2d"):  # not where only the host's part was compiled
        library.lstfe_deform_conv2d.argtypes = [deform, *[pointer] * 7, ctypes.c_size_t, pointer]
        library.lstfe_deform_conv2d_workspace.argtypes = [deform]
        library.lstfe_deform_conv2d_workspace.restype = ctypes.c_size_t
        library.lstfe_sampled_sum.argtypes = [summed, *[pointer] * 6]
        library.lstfe_proposals.argtypes = [proposals, *[pointer] * 7, ctypes.c_size_t, pointer]
        library.lstfe_proposals_workspace.argtypes = [proposals]
        library.lstfe_proposals_workspace.restype = ctypes.c_size_t
        library.lstfe_suppression.argtypes = [suppression, *[pointer] * 4, ctypes.c_size_t, pointer]
        library.lstfe_suppression_workspace.argtypes = [suppression]
        library.lstfe_suppression_workspace.restype = ctypes.c_size_t
    return library


def status_text(library: ctypes.CDLL, status: int) -> str:
    """Return the library's line for a status."""
    text: bytes = library.lstfe_status_text(status)
    return f"status {status}: {text.decode()}"


def main() -> None:
    """Build for the GPUs named, all of `ARCHITECTURES` otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES)
    arguments = parser.parse_args()
    try:
        print(build_library(arguments.output, arguments.architectures))
    except PluginError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
