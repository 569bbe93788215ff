"""A model for NVIDIA Triton Inference Server: one sequence a camera, each with a stream of its own.

    REPOSITORY/<name>/config.pbtxt     inputs, outputs, sequence batching
    REPOSITORY/<name>/1/model.py       three lines that name deploy/triton/model.py
    REPOSITORY/<name>/1/bundle/        the bundle, with its engines

Triton's Python backend runs it; this project must be installed in that backend's Python.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.bundle import Bundle
from deploy.files import whole_folder
from lstfe.errors import UserError

VERSION = "1"
BUNDLE_DIR = "bundle"
INPUT = "FRAME"
OUTPUTS = {
    "COMPLETED": ("TYPE_INT64", "[ -1 ]"),
    "FRAME_INDEX": ("TYPE_INT64", "[ -1 ]"),
    "BOXES": ("TYPE_FP32", "[ -1, 4 ]"),
    "SCORES": ("TYPE_FP32", "[ -1 ]"),
    "LABELS": ("TYPE_INT64", "[ -1 ]"),
}
"""Frames whose detections are in a response, by index; then one entry a detection."""

_MODEL = '''"""LSTFE-Net as a model of Triton's Python backend."""

from deploy.triton.model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def write_triton_model(
    bundle: Bundle,
    destination: Path,
    *,
    backend: str = "tensorrt",
    num_streams: int = 8,
    num_instances: int = 1,
    idle_seconds: int = 60,
) -> Path:
    """Write the model into a folder of models, replacing one of its name that this function wrote; return its path.

    `num_streams` cameras at a time, dealt out to `num_instances` processes; a stream that is idle for so many
    seconds is given up. Raises UserError where a folder of that name holds something else.
    """
    name = bundle.manifest.name
    target = destination / name
    if target.exists() and not (target / VERSION / BUNDLE_DIR / "manifest.json").is_file():
        raise UserError(f"{target}: holds something else than a model of this project; give another folder")
    config = triton_config(
        name,
        backend=backend,
        num_streams=num_streams,
        num_instances=num_instances,
        idle_seconds=idle_seconds,
    )
    with whole_folder(target) as partial:
        version_dir = partial / VERSION
        shutil.copytree(bundle.directory, version_dir / BUNDLE_DIR, ignore=shutil.ignore_patterns(".*"))
        (version_dir / "model.py").write_text(_MODEL, encoding="utf-8")
        (partial / "config.pbtxt").write_text(config, encoding="utf-8")
    return target


def triton_config(name: str, *, backend: str, num_streams: int, num_instances: int, idle_seconds: int) -> str:
    """Return config.pbtxt: Triton's ModelConfig in protobuf's text format."""
    # The first GPU, which the runtime takes; without naming it there would be so many instances on every GPU.
    kind = "KIND_GPU gpus: [ 0 ]" if backend == "tensorrt" else "KIND_CPU"
    outputs = ",\n".join(
        f'  {{ name: "{output}" data_type: {data_type} dims: {dims} }}'
        for output, (data_type, dims) in OUTPUTS.items()
    )
    controls = ",\n".join(
        f'    {{ name: "{control}" control [ {{ kind: CONTROL_SEQUENCE_{control} int32_false_true: [ 0, 1 ] }} ] }}'
        for control in ("START", "END", "READY")
    )
    candidates = -(-num_streams // num_instances)
    return f"""\
name: "{name}"
backend: "python"
max_batch_size: 1
input [
  {{ name: "{INPUT}" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }}
]
output [
{outputs}
]
sequence_batching {{
  max_sequence_idle_microseconds: {idle_seconds * 1_000_000}
  oldest {{ max_candidate_sequences: {candidates} }}
  control_input [
{controls},
    {{ name: "CORRID" control [ {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }} ] }}
  ]
}}
instance_group [
  {{ count: {num_instances} kind: {kind} }}
]
parameters {{
  key: "backend"
  value: {{ string_value: "{backend}" }}
}}
parameters {{
  key: "idle_seconds"
  value: {{ string_value: "{idle_seconds}" }}
}}
"""
