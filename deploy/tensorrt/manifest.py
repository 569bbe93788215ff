"""Engines in a bundle: BUNDLE/engines/<key>/ with <graph>.plan, the plugin's library and engine.json.

An engine runs where it was built and nowhere else: with the same TensorRT on the same kind of GPU. engine.json says
what it was built from and for; what differs is said before anything is loaded. This module needs no GPU.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ConfigDict, TypeAdapter, ValidationError

from deploy.files import FileStamp, stamp_of
from deploy.graphs import Form, Precision
from deploy.tensorrt.cuda import Gpu
from lstfe.errors import UserError

if TYPE_CHECKING:
    from deploy.bundle import Bundle

ENGINES_DIR = "engines"
ENGINE_FILE = "engine.json"
PLUGIN_FILE = "liblstfe_plugin.so"
FORMAT_VERSION = 1


class EngineError(UserError):
    """An engine is missing, damaged, made for something else, or cannot do what is asked of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineManifest:
    """What engine.json says."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    format_version: int
    model_version: str
    """Of the bundle."""
    graphs_sha256: str
    """Over the bundle's own graphs, configuration and weights."""
    precision: Precision
    form: Form
    opset: int
    tensorrt: str
    gpu: str
    compute_capability: str
    frame_sizes: tuple[tuple[int, int], ...]
    """(height, width) of the frames that the profiles were made for; the second one is what they are tuned to."""
    files: dict[str, FileStamp]
    """Plans and the plugin's library."""

    @property
    def has_plugin(self) -> bool:
        """Whether a plugin's library lies beside the plans."""
        return PLUGIN_FILE in self.files


def graphs_sha256(bundle: Bundle) -> str:
    """Return a hash over all that engines are built from."""
    stamps = sorted((name, stamp.sha256) for name, stamp in bundle.manifest.files.items())
    text = "".join(f"{name}:{sha256}\n" for name, sha256 in stamps if not name.endswith(".json"))
    return hashlib.sha256(text.encode()).hexdigest()


def engine_key(precision: Precision, tensorrt: str, gpu: Gpu) -> str:
    """Return the folder's name: `fp16-trt10.13.2-sm90-nvidia-h200`."""
    slug = "-".join("".join(c if c.isalnum() else " " for c in gpu.name.lower()).split())
    return f"{precision}-trt{tensorrt}-sm{gpu.compute_capability.replace('.', '')}-{slug}"


def write_engine_manifest(directory: Path, manifest: EngineManifest) -> None:
    """Write engine.json."""
    (directory / ENGINE_FILE).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def read_engine_manifest(directory: Path) -> EngineManifest:
    """Read engine.json; raises EngineError."""
    path = directory / ENGINE_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["format_version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise EngineError(f"{path}: cannot be read; build the engines again: `lstfe engine build`") from None
    if version != FORMAT_VERSION:
        raise EngineError(
            f"{path}: engine format {version!r}, this program reads {FORMAT_VERSION}; build the engines again"
        )
    try:
        return TypeAdapter(EngineManifest).validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        raise EngineError(f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


def difference(manifest: EngineManifest, bundle: Bundle, tensorrt: str, gpu: Gpu) -> str | None:
    """Say what keeps an engine from running here, None where nothing does."""
    pairs = {
        "bundle's model version": (manifest.model_version, bundle.manifest.model_version),
        "bundle's graphs": (manifest.graphs_sha256[:12], graphs_sha256(bundle)[:12]),
        "TensorRT": (manifest.tensorrt, tensorrt),
        "GPU": (manifest.gpu, gpu.name),
        "compute capability": (manifest.compute_capability, gpu.compute_capability),
    }
    differing = [f"{what} {built}, here {found}" for what, (built, found) in pairs.items() if built != found]
    return "; ".join(differing) or None


def check_files(directory: Path, files: Mapping[str, FileStamp]) -> None:
    """Raise EngineError for the first file that is missing, cut short or changed."""
    for name, stamp in files.items():
        path = directory / name
        what = "plugin library" if name == PLUGIN_FILE else "engine"
        if not path.is_file():
            raise EngineError(f"{path}: the {what} is missing; build the engines again: `lstfe engine build`")
        if (found := stamp_of(path)) != stamp:
            raise EngineError(
                f"{path}: the {what} changed since it was built ({found.size} bytes, sha256 "
                f"{found.sha256[:12]}; expected {stamp.size} bytes, {stamp.sha256[:12]}); build the engines again"
            )


def find_engines(bundle: Bundle, tensorrt: str, gpu: Gpu) -> tuple[Path, EngineManifest]:
    """Return the engines of a bundle that run here, the last ones built; raises EngineError that says what differs."""
    directories = sorted(path.parent for path in (bundle.directory / ENGINES_DIR).glob(f"*/{ENGINE_FILE}"))
    if not directories:
        raise EngineError(
            f"{bundle.directory}: no engines in it; build them on this machine: "
            f"`lstfe engine build {bundle.directory}`"
        )
    # Age is that of engine.json, which is written last.
    directories.sort(key=lambda directory: (directory / ENGINE_FILE).stat().st_mtime, reverse=True)
    reasons = []
    for directory in directories:
        manifest = read_engine_manifest(directory)
        reason = difference(manifest, bundle, tensorrt, gpu)
        if reason is None:
            return directory, manifest
        reasons.append(f"{directory.name}: built for {reason}")
    raise EngineError(
        f"{bundle.directory}: no engines for this machine ({' | '.join(reasons)}); build them here: "
        f"`lstfe engine build {bundle.directory}`"
    )
