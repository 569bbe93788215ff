"""What the flows act on: the sections `gate`, `retrain`, `drift` and `ops` of params.yaml, refused at birth when wrong.

No stage reads them and no bundle carries them (a webhook's address may hold a secret), so they are no part of Config.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from lstfe.config import ConfigError
from lstfe.params import OPERATIONS, describe_faults, read_sections

_STRICT = ConfigDict(extra="forbid", strict=True)
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """When a challenger becomes champion. Figures are fractions: 0.01 is one point of average precision."""

    __pydantic_config__ = _STRICT

    protocol: Literal["coco", "voc07", "voc07_inclusive", "mega_vid"] = "coco"
    """Preset that AP50, its classes and its size bins are measured by; docs/evaluation.md."""
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """The whole 95 % interval of AP50's difference to the champion, paired over videos, must lie above it."""
    max_class_drop: _Share = 0.02
    """Most that AP50 of any class may fall."""
    class_drops: dict[str, _Share] = field(default_factory=dict)
    """Limits of single classes, which replace that one: {bird: 0.1}."""
    max_size_drop: _Share = 0.02
    """Most that the average precision of any size bin may fall."""
    size_drops: dict[str, _Share] = field(default_factory=dict)
    """Limits of single figures, which replace that one: {APl: 0.1}."""
    max_parity_difference: Annotated[float, Field(gt=0)] = 1e-3
    """Largest relative difference between the exported graphs and PyTorch."""
    max_latency_ratio: Annotated[float, Field(gt=0)] = 1.1
    """Most processor time a frame, as a multiple of the champion's in the same run on the same machine."""
    first_min_ap50: _Share = 0.0
    """AP50 that the first champion must reach, where there is none to compare with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrainConfig:
    """How a challenger comes about."""

    __pydantic_config__ = _STRICT

    warm_start: bool = True
    """Train from the champion's weights; without a champion, from the start that `train` names."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Parameters that a training from the champion has instead: {train.iterations: 300}."""
    settle_seconds: Annotated[float, Field(ge=0)] = 60.0
    """Data counts as new when nothing in it has changed for so long: before, somebody may still be copying."""
    latency_frames: _Count = 60
    """Frames of the evaluated split that both are timed on."""
    keep_bundles: _Count = 5
    """Newest bundles kept for a rollback; those of champion and previous champion always are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftConfig:
    """When incoming footage counts as another than the champion was trained and tested on."""

    __pydantic_config__ = _STRICT

    footage: str | None = None
    """Folder of recent footage, from the project's folder; null = what lies in data/incoming/NAME."""
    max_frames: _Count = 600
    """First frames of each video that are detected on."""
    frames_per_video: _Count = 32
    """Frames looked at in each video, evenly spread."""
    significance: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Level of all tests together (Holm's correction)."""
    min_effect: _Share = 0.2
    """Kolmogorov-Smirnov distance below which a significant difference is too small to matter."""
    permutations: _Count = 1999
    """Random ways of telling new from old videos that an observed difference is held against."""
    score_threshold: _Share = 0.3
    """Detections below it are not looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpsConfig:
    """What all flows share."""

    __pydantic_config__ = _STRICT

    webhook: str | None = None
    """Address that failures, refusals and drift are posted to as JSON; LSTFE_WEBHOOK, which keeps it out of git,
    comes first."""
    step_timeout_hours: Annotated[float, Field(gt=0)] = 48.0
    """A step of a flow (a training too) that takes longer is ended; the next run goes on from its checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OperationsConfig:
    """All of it."""

    __pydantic_config__ = _STRICT

    gate: GateConfig = field(default_factory=GateConfig)
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    ops: OpsConfig = field(default_factory=OpsConfig)


def load_operations(path: Path) -> OperationsConfig:
    """Read the sections from params.yaml, what is absent by default; raises ConfigError with one line a fault."""
    sections = read_sections(path)
    values = {name: sections[name] or {} for name in OPERATIONS if name in sections}
    try:
        return TypeAdapter(OperationsConfig).validate_json(json.dumps(values))
    except (ValidationError, TypeError) as error:
        raise ConfigError(describe_faults(error, str(path))) from None
