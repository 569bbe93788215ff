"""nvcc compiles the kernels for every architecture, and what is missing is said in one line."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.plugin.library import (
    ARCHITECTURES,
    HOST_SOURCES,
    KERNEL_SOURCES,
    SOURCE_DIR,
    PluginError,
    architecture_flags,
    build_library,
    compile_sources,
    find_nvcc,
    open_library,
    tensorrt_versions,
)


def test_without_nvcc_the_error_says_where_it_was_sought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.plugin.library.find_nvcc", lambda: None)
    with pytest.raises(
        PluginError, match=r"^no nvcc in \$CUDA_HOME/bin, PATH or .*; install the CUDA toolkit"
    ):
        build_library(tmp_path / "kernels.so")


def test_cuda_home_goes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "bin" / "nvcc"
    own.parent.mkdir()
    own.touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert find_nvcc() == own


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kernels.so"
    path.write_text("no library")
    with pytest.raises(PluginError, match=r"kernels\.so cannot be opened: .*; build it again"):
        open_library(path)


def test_a_compiler_that_fails_is_quoted(gxx: str, tmp_path: Path) -> None:
    source = tmp_path / "broken.cpp"
    source.write_text("int main() { return missing; }")
    with pytest.raises(
        PluginError, match=r"^\S*g\+\+ failed with 1: \S*broken\.cpp:1:21: error: .*missing.*$"
    ):
        compile_sources([gxx, str(source)])


def test_cmake_builds_for_the_same_architectures_from_files_that_exist() -> None:
    text = (SOURCE_DIR / "CMakeLists.txt").read_text(encoding="utf-8")
    listed = re.search(r'LSTFE_ARCHITECTURES "([\d;a-z-]+)"', text)
    assert listed is not None
    assert tuple(int(part.split("-")[0]) for part in listed.group(1).split(";")) == ARCHITECTURES
    sources = set(re.findall(r"\b\w+\.(?:cpp|cu)\b", text))
    assert sources == {path.name for path in SOURCE_DIR.iterdir() if path.suffix in (".cpp", ".cu")}
    assert sources >= {Path(path).name for path in (*HOST_SOURCES, *KERNEL_SOURCES)}


def test_a_folder_without_headers_holds_no_version(tmp_path: Path) -> None:
    assert tensorrt_versions(tmp_path) == {}


def test_versions_are_read_from_the_headers_however_they_are_written(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "include", tmp_path / "new"
    for folder, prefix, suffix in ((old, "NV_TENSORRT_", ""), (new, "TRT_", "_ENTERPRISE")):
        folder.mkdir(parents=True)
        parts = zip(("MAJOR", "MINOR", "PATCH"), (8, 5, 3), strict=True)
        lines = [f"#define {prefix}{part}{suffix} {number} //!< its {part}" for part, number in parts]
        (folder / "NvInferVersion.h").write_text("\n".join(lines).replace("8", "11" if suffix else "8"))
    assert tensorrt_versions(tmp_path) == {"8.5.3": old, "11.5.3": new}
    assert tensorrt_versions(old) == {"8.5.3": old}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nvcc_compiles_every_kernel_for_every_architecture_without_a_warning(tmp_path: Path) -> None:
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc on this machine; with it the kernels are compiled for all architectures")
    command = [str(nvcc), "-std=c++17", "-fatbin", "--threads", "2", "--Werror", "all-warnings"]
    command += ["-Xptxas", "-v", *architecture_flags(ARCHITECTURES)]
    printed = "".join(
        compile_sources([*command, source, "-o", str(tmp_path / "kernels.fatbin")])
        for source in KERNEL_SOURCES
    )
    compiled = re.findall(r"Compiling entry function '(\w+)' for 'sm_(\d+)'", printed)
    names = {name for name, _ in compiled}
    assert {(name, number) for name, number in compiled} == {
        (name, str(number)) for name in names for number in ARCHITECTURES
    }
    kinds = {
        "deformConvSimple": 3,
        "deformConvTile": 6,
        "addSplits": 2,
        "sampledSumSimple": 3,
        "sampledSumRows": 3,
        "clearCounters": 1,
        "countDigits": 1,
        "gatherCandidates": 1,
        "orderCandidates": 1,
        "findOverlaps": 1,
        "keepBest": 1,
        "suppressClass": 1,
    }
    assert {kind: sum(kind in name for name in names) for kind in kinds} == kinds


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_shared_library_opens_where_there_is_no_gpu(tmp_path: Path) -> None:
    if find_nvcc() is None:
        pytest.skip("no nvcc on this machine; with it the shared library is built")
    build_library(tmp_path / "kernels.so", [80])
    library = open_library(tmp_path / "kernels.so")
    assert library.lstfe_status_text(0) == b"done"
    exported = subprocess.run(
        [str(shutil.which("nm")), "-D", "--defined-only", str(tmp_path / "kernels.so")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    functions = {line.split()[-1] for line in exported.splitlines() if " T " in line}
    assert {name for name in functions if name.startswith("lstfe")} == {
        "lstfe_deform_conv2d",
        "lstfe_deform_conv2d_host",
        "lstfe_deform_conv2d_workspace",
        "lstfe_output_height",
        "lstfe_output_width",
        "lstfe_proposals",
        "lstfe_proposals_host",
        "lstfe_proposals_workspace",
        "lstfe_sampled_sum",
        "lstfe_sampled_sum_host",
        "lstfe_status_text",
        "lstfe_suppression",
        "lstfe_suppression_host",
        "lstfe_suppression_workspace",
    }
