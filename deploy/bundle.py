"""The bundle: everything a detector needs, in one directory that leaves the project.

    manifest.json          versions, names, and the SHA-256 of every other file
    config.yaml            the resolved configuration
    labels.json            category names; label 1 is the first
    weights.safetensors    for the torch backend
    *.onnx                 the graphs, for the onnx backend
    engines/               what `lstfe engine build` made of them on this machine, for the tensorrt backend
    parity.json            how far the graphs are from PyTorch (where it was measured)

This module imports neither torch nor onnxruntime until a backend is asked for.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from deploy.files import FileStamp, stamp_of, whole_folder
from deploy.graphs import graphs_of
from deploy.runtime import StreamRuntime
from lstfe.config import Config
from lstfe.errors import UserError
from lstfe.params import load_config, save_config
from lstfe.types import ByteArray, FrameDetections

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
CONFIG_FILE = "config.yaml"
LABELS_FILE = "labels.json"
WEIGHTS_FILE = "weights.safetensors"
PARITY_FILE = "parity.json"

Backend = Literal["onnx", "torch", "tensorrt"]


class BundleError(UserError):
    """A bundle is incomplete, damaged, of another version, or asked for something it does not hold."""


class StreamDetector(Protocol):
    """What every backend offers: the four members of `lstfe.stream.StreamingDetector`."""

    @property
    def pool(self) -> tuple[int, ...] | None:
        """Frames that `prime` must be shown before the first `push`; None where none are needed."""

    def prime(self, frames: Mapping[int, ByteArray]) -> None:
        """Show the pool frames: frame index -> (H, W, 3) uint8 RGB."""

    def push(self, frame: ByteArray) -> list[FrameDetections]:
        """Take the next frame, (H, W, 3) uint8 RGB; return the detections that it completes."""

    def finish(self) -> list[FrameDetections]:
        """End the stream; return the detections of all frames still waiting."""


DetectorBuilder = Callable[[int | None], StreamDetector]
"""Builds a detector for a video of so many frames, or for a live stream (None)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What manifest.json says."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    format_version: int
    name: str
    model_version: str
    """The first 12 digits of a hash over weights, configuration and label names."""
    created_from: str
    """Git commit of the project that wrote the bundle, or `unknown`."""
    run_id: str | None
    """Training run in the experiment tracker."""
    method: str
    preset: str
    opset: int
    """ONNX opset of the graphs."""
    label_names: tuple[str, ...]
    files: dict[str, FileStamp]


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle whose files are all there and unchanged."""

    directory: Path
    manifest: Manifest
    config: Config

    @property
    def label_names(self) -> tuple[str, ...]:
        """Category names; the name of `label` is `label_names[label - 1]`."""
        return self.manifest.label_names

    def detector(self, backend: str = "onnx", num_frames: int | None = None) -> StreamDetector:
        """Build a streaming detector; `num_frames` is the video's length, None for a live stream.

        Raises BundleError for an unknown backend or one whose packages are not installed.
        """
        return self.detectors(backend)(num_frames)

    def detectors(self, backend: str = "onnx", *, num_threads: int | None = None) -> DetectorBuilder:
        """Load the network once and return a builder of detectors that share it, each with a state of its own.

        `num_threads` is how many a graph takes on the CPU, unless given what OMP_NUM_THREADS says. Detectors of
        backend onnx may run in several threads at once, one thread a detector. Raises as `detector`.
        """
        if backend == "onnx":
            return self._onnx_detectors(num_threads)
        if backend == "torch":
            return self._torch_detectors(num_threads)
        if backend == "tensorrt":
            return self._tensorrt_detectors()
        raise BundleError(f"backend {backend!r} is not known, expected one of {', '.join(get_args(Backend))}")

    def _onnx_detectors(self, num_threads: int | None) -> DetectorBuilder:
        try:
            from deploy.onnx_backend import OnnxGraphs
        except ModuleNotFoundError as error:
            raise _missing_package("onnx", error) from None
        graphs = OnnxGraphs(self.directory, self.config, num_threads=num_threads)
        return lambda num_frames: StreamRuntime(graphs, self.config, num_frames=num_frames)

    def _tensorrt_detectors(self) -> DetectorBuilder:
        from deploy.tensorrt.backend import TensorRTDevice
        from deploy.tensorrt.engines import open_engines

        engines = open_engines(self)
        return lambda num_frames: StreamRuntime(TensorRTDevice(engines), self.config, num_frames=num_frames)

    def _torch_detectors(self, num_threads: int | None) -> DetectorBuilder:
        try:
            import torch

            from deploy.network import load_network
            from lstfe.stream import StreamingDetector
        except ModuleNotFoundError as error:
            raise _missing_package("torch", error) from None
        model = load_network(self)
        device = "cuda" if torch.cuda.is_available() else "cpu"

        def build(num_frames: int | None) -> StreamDetector:
            if num_threads is not None:
                torch.set_num_threads(num_threads)  # which holds for the thread that calls
            return StreamingDetector(model, self.config, num_frames=num_frames, device=device)

        return build


def write_bundle(
    destination: Path,
    *,
    config: Config,
    label_names: Sequence[str],
    weights: Path,
    graphs_dir: Path,
    created_from: str = "unknown",
    run_id: str | None = None,
) -> Bundle:
    """Collect a bundle in `destination`, replacing one that is there only when the new one is complete.

    `config` has its method resolved, `weights` is the trained state (safetensors), `graphs_dir` what
    `export_graphs` wrote. Raises BundleError where a file is missing, GraphError where a graph is of another
    configuration.
    """
    if destination.exists() and any(destination.iterdir()) and not (destination / MANIFEST_FILE).is_file():
        raise BundleError(f"{destination}: holds other things than a bundle; give another folder or empty it")
    with whole_folder(destination) as partial:
        _collect_files(partial, config, label_names, weights, graphs_dir)
        files = {path.name: stamp_of(path) for path in sorted(partial.iterdir())}
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=config.deploy.bundle_name,
            model_version=_content_version(files),
            created_from=created_from,
            run_id=run_id,
            method=config.model.method,
            preset=config.model.preset,
            opset=_opset(partial / "decode.onnx"),
            label_names=tuple(label_names),
            files=files,
        )
        _write_json(partial / MANIFEST_FILE, asdict(manifest))
    return open_bundle(destination)


def _collect_files(
    directory: Path, config: Config, label_names: Sequence[str], weights: Path, graphs_dir: Path
) -> None:
    from deploy.onnx_backend import OnnxGraphs

    _copy_file(weights, directory / WEIGHTS_FILE)
    for graph in graphs_of(config):
        _copy_file(graphs_dir / f"{graph.name}.onnx", directory / f"{graph.name}.onnx")
    OnnxGraphs(directory, config)  # what cannot run is never given out
    if (graphs_dir / PARITY_FILE).is_file():
        _copy_file(graphs_dir / PARITY_FILE, directory / PARITY_FILE)
    save_config(config, directory / CONFIG_FILE)
    _write_json(directory / LABELS_FILE, list(label_names))


def open_bundle(directory: Path | str) -> Bundle:
    """Open a bundle after checking its version and the hash of every file; raises BundleError."""
    directory = Path(directory)
    manifest = _read_manifest(directory)
    for name, stamp in manifest.files.items():
        _verify_file(directory / name, stamp)
    config = load_config(directory / CONFIG_FILE)
    expected = {
        CONFIG_FILE,
        LABELS_FILE,
        WEIGHTS_FILE,
        *(f"{graph.name}.onnx" for graph in graphs_of(config)),
    }
    if missing := sorted(expected - set(manifest.files)):
        raise BundleError(
            f"{directory}: {MANIFEST_FILE} does not list {', '.join(missing)}, which a detector of method "
            f"{manifest.method} needs. Write the bundle again with `dvc repro deploy`."
        )
    return Bundle(directory, manifest, config)


def _read_manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST_FILE
    if not path.is_file():
        found = "no such directory" if not directory.is_dir() else f"no {MANIFEST_FILE} in it"
        raise BundleError(
            f"{directory}: {found}, expected a bundle. Give the directory that `dvc repro deploy` writes "
            "(artifacts/deployed)."
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["format_version"]
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"{path}: not a bundle's manifest (no format_version that can be read)") from None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: bundle format {version!r}, this program reads format {FORMAT_VERSION}. "
            "Use the lstfe version that wrote it, or write the bundle again."
        )
    try:
        manifest = TypeAdapter(Manifest).validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        raise BundleError(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    if outside := [name for name in manifest.files if Path(name).name != name]:
        raise BundleError(f"{path}: {outside[0]!r} is not a plain file name")
    return manifest


def _verify_file(path: Path, stamp: FileStamp) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: missing, but listed in {MANIFEST_FILE}. Copy the whole bundle again.")
    found = stamp_of(path)
    if found != stamp:
        raise BundleError(
            f"{path}: changed since the bundle was written ({found.size} bytes, sha256 {found.sha256[:12]}; "
            f"expected {stamp.size} bytes, {stamp.sha256[:12]}). Copy the whole bundle again."
        )


def _content_version(files: Mapping[str, FileStamp]) -> str:
    named = "".join(f"{name}:{files[name].sha256}\n" for name in (CONFIG_FILE, LABELS_FILE, WEIGHTS_FILE))
    return hashlib.sha256(named.encode()).hexdigest()[:12]


def _opset(graph: Path) -> int:
    import onnx

    model = onnx.load(graph, load_external_data=False)
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _copy_file(source: Path, target: Path) -> None:
    if not source.is_file():
        raise BundleError(f"{source}: no such file, but the bundle needs it. Run `dvc repro export` first.")
    shutil.copyfile(source, target)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _missing_package(backend: str, error: ModuleNotFoundError) -> BundleError:
    return BundleError(
        f"backend {backend} needs {error.name}, which is not installed: run `pip install {error.name}`"
    )
