"""Typed configuration: frozen dataclasses, one per section of params.yaml, refused at birth when wrong.

Read from files by lstfe/params.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict

from lstfe.errors import UserError


class ConfigError(UserError):
    """params.yaml (or a saved config.yaml) holds something that cannot be used."""


_STRICT = ConfigDict(extra="forbid", strict=True)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class _Limit:
    """What the values of a field are, as its type says it; `_check` holds them to it, however a section is made."""

    text: str
    admits: Callable[[Any], bool]


_Natural = Annotated[int, _Limit(">= 0", lambda value: value >= 0)]
_Count = Annotated[int, _Limit(">= 1", lambda value: value >= 1)]
# What both NumPy and PyTorch take.
_Seed = Annotated[int, _Limit(f"in 0..{2**63 - 1}", lambda value: 0 <= value < 2**63)]
_NonNegative = Annotated[float, _Limit(">= 0", lambda value: value >= 0)]
_Positive = Annotated[float, _Limit("> 0 and finite", lambda value: 0 < value < math.inf)]
_Share = Annotated[float, _Limit("in 0..1", lambda value: 0 <= value <= 1)]
_ShareBelowOne = Annotated[float, _Limit("at least 0 and less than 1", lambda value: 0 <= value < 1)]
_PositiveNumbers = Annotated[
    tuple[float, ...],
    _Limit("positive numbers", lambda values: bool(values) and all(value > 0 for value in values)),
]


@cache
def _limits(kind: type) -> dict[str, _Limit]:
    """Return the limits of a section's fields by name; of `X | None`, those of X."""
    return {
        name: note
        for name, hint in get_type_hints(kind, include_extras=True).items()
        for part in (hint, *get_args(hint))
        for note in getattr(part, "__metadata__", ())
        if isinstance(note, _Limit)
    }


def _check(section: object, name: str) -> None:
    limits = _limits(type(section))  # type: ignore[arg-type] # mypy doubts that classes can be hashed
    for key, limit in limits.items():
        value = getattr(section, key)
        _require(value is None or limit.admits(value), f"{name}.{key} must be {limit.text}, got {value}")


# ---------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which data set the chain works on."""

    __pydantic_config__ = _STRICT

    name: str = "embedded"
    """Folder under data/raw and data/prepared."""
    max_bad_fraction: _Share = 0.01
    """Training stops once more than this share of its clips (in the first epoch: of an epoch's) cannot be read."""

    def __post_init__(self) -> None:
        _check(self, "data")
        _require(
            self.name not in ("", ".", "..") and "/" not in self.name and "\\" not in self.name,
            f"data.name must be a folder name without slashes, got {self.name!r}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderConfig:
    """The embedded data set: rendered videos of small drones (data/README.md).

    Contrast, clutter and noise are fractions of full scale (1.0 = from black to white).
    """

    __pydantic_config__ = _STRICT

    seed: _Seed = 7
    num_train_videos: _Count = 8
    num_val_videos: _Count = 3
    num_test_videos: _Count = 3
    num_frames: _Count = 120
    """Frames per video."""
    image_size: tuple[int, int] = (240, 320)
    """(height, width), pixels."""
    frame_rate: _Count = 30
    """Frames per second."""
    clutter: _NonNegative = 0.06
    """Standard deviation of the background's texture."""
    noise: _NonNegative = 0.03
    """Standard deviation of the sensor noise, independent from frame to frame."""
    light_change: _NonNegative = 0.15
    """How far the light wanders from its mean, as a fraction of it."""
    camera_pan_px: _NonNegative = 0.8
    """Mean speed of the camera's smooth motion, pixels a frame."""
    camera_shake_px: _NonNegative = 0.5
    """Standard deviation of the camera's shake, pixels."""
    shutter: _Share = 0.5
    """Share of a frame's time during which light is gathered: the length of the motion blur."""
    present_fraction: _Share = 0.67
    """Share of the frames in which at least one drone flies."""
    second_drone_fraction: _Share = 0.25
    """Chance that a flying drone is not alone."""
    drone_size_px: tuple[float, float] = (8.0, 40.0)
    """Smallest and largest drone width, pixels; most lie in the lower half."""
    drone_speed_px: tuple[float, float] = (1.0, 4.0)
    """Slowest and fastest motion of a drone against the background, pixels a frame."""
    drone_contrast: tuple[float, float] = (0.10, 0.35)
    """Difference between a drone and the background around it: (faded, fully lit)."""
    drone_opacity: _Share = 0.5
    """How much of the background's texture a drone hides, 0 (glass) .. 1 (solid)."""
    fade_fraction: _Share = 0.4
    """Share of the time during which a drone is faded to the low contrast."""
    fade_frames: tuple[int, int] = (3, 8)
    """Shortest and longest stretch of such faded frames."""
    flashes_per_frame: _NonNegative = 0.8
    """Mean number of silhouettes (insects, glints) that look like a drone but last one frame."""
    decoys_per_frame: _NonNegative = 0.2
    """Mean number of drone-like marks in view that are fixed to the background: only motion tells them."""
    birds_per_frame: _NonNegative = 0.7
    """Mean number of flapping birds in view."""
    num_branches: _Natural = 2
    """Swaying branches in front of everything, per video."""

    def __post_init__(self) -> None:
        _check(self, "render")
        _require(
            all(side >= 64 and side % 2 == 0 for side in self.image_size),
            f"render.image_size must be two even numbers >= 64 (H.264), got {self.image_size}",
        )
        for name in ("drone_size_px", "drone_speed_px", "drone_contrast", "fade_frames"):
            low, high = getattr(self, name)
            _require(
                0 < low <= high, f"render.{name} must be (low, high) with 0 < low <= high, got {(low, high)}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """Raw videos and annotations -> randomly accessible frames and final annotations."""

    __pydantic_config__ = _STRICT

    jpeg_quality: Annotated[int, _Limit("in 1..100", lambda value: 1 <= value <= 100)] = 95
    """Quality of the stored frames, 1..100."""
    frame_stride: _Count = 1
    """Keep every n-th frame of each video."""

    def __post_init__(self) -> None:
        _check(self, "prepare")


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Training clips: one current frame, its short-term frames and long-term candidates."""

    __pydantic_config__ = _STRICT

    short_term_range: _Count = 12
    """Furthest short-term frame on either side of the current frame, in frames."""
    num_short_term: _Natural = 2
    """Short-term frames per clip."""
    num_candidates: _Natural = 4
    """Long-term candidates per clip, drawn from the whole video (the paper's 2m; selection.num_frames is m).

    In a file null, or nothing, stands for 2m, and for m where none are selected (selection.enabled: false, selsa).
    """

    def __post_init__(self) -> None:
        _check(self, "sampling")


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """Which frames a streaming detector looks at (window.py turns this into frame indices)."""

    __pydantic_config__ = _STRICT

    lookahead: _Natural = 12
    """Frames of latency: a frame is detected once this many later frames are there. 0 = causal."""
    num_alignment: _Natural = 2
    """Short-term frames that are aligned onto the current frame."""
    alignment_gap: _Count = 6
    """Distance between those frames, in frames: -gap and +gap (causal: -gap, -2*gap, ...)."""
    relation_range: _Count = 12
    """Furthest short-term frame whose proposals are related to the current ones, in frames."""
    num_relation: _Natural = 24
    """Short-term frames, spread evenly over the range, whose proposals are used."""
    num_candidates: _Natural = 4
    """Size of the pool that long-term frames are selected from; null as for `sampling`."""
    long_term_source: Literal["video", "past"] = "video"
    """`video`: pool spread over the whole video (files); `past`: reservoir of past frames (live streams)."""
    seed: _Seed = 0
    """Seed of the reservoir."""

    def __post_init__(self) -> None:
        _check(self, "inference")


# --------------------------------------------------------------------------------------------- model


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """Feature extraction (paper Fig. 1, 'Feature extraction network')."""

    __pydantic_config__ = _STRICT

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    weights: str = "none"
    """`imagenet` (torchvision's, downloads once), `none` (from scratch, GroupNorm), or a path to a state dict."""
    width: int = 64
    """Channels of the stem; 64 is the standard network, less is a narrow one (basic blocks, from scratch only)."""
    feature_stride: Literal[8, 16] = 16
    """Image pixels per cell of the map that everything works on; 8 adds C3 for smaller objects."""
    feature_channels: int = 256
    """Channels of the fused map at stride 8; at stride 16 the map is C4 as it is."""
    layer4: bool = True
    """Run layer4 (stride 1, dilation 2) on the whole map before RoIAlign."""
    reduce_channels: _Count | None = 256
    """Channels after the 1x1 convolution before RoIAlign; null = none (the paper's R-101)."""

    def __post_init__(self) -> None:
        _check(self, "backbone")
        # From 16 on: the weight gradient of a strided 1x1 convolution with fewer input channels is written past its
        # buffer by the CPU kernels of torch 2.14 (oneDNN) when more than one thread computes it.
        _require(
            self.width >= 16 and self.width % 8 == 0,
            f"backbone.width must be a multiple of 8, at least 16, got {self.width}",
        )
        narrow = self.width != 64
        _require(
            not narrow or self.name in ("resnet18", "resnet34"),
            f"backbone.width {self.width} needs basic blocks (resnet18, resnet34), got {self.name}",
        )
        _require(
            not narrow or self.weights != "imagenet",
            f"backbone.weights imagenet exist for width 64 only, got width {self.width}",
        )
        _require(
            self.feature_channels >= 8 and self.feature_channels % 8 == 0,
            f"backbone.feature_channels must be a multiple of 8, got {self.feature_channels}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposalConfig:
    """Region proposal network and RoIAlign."""

    __pydantic_config__ = _STRICT

    anchor_sizes: _PositiveNumbers = (16.0, 32.0, 64.0, 128.0, 256.0)
    """Square root of the anchors' area, pixels of the resized image."""
    anchor_ratios: _PositiveNumbers = (0.5, 1.0, 2.0)
    """Height / width."""
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    anchors_per_image: _Count = 256
    """Anchors that enter the loss."""
    positive_fraction: _Share = 0.5
    nms_iou: _Share = 0.7
    pre_nms_top_k: _Count = 6000
    current_top_k: _Count = 300
    """Proposals kept for the current frame."""
    reference_top_k: _Count = 75
    """Proposals kept for each reference frame."""
    min_size_px: _NonNegative = 0.0
    """Proposals with a shorter side are dropped, pixels of the resized image."""

    def __post_init__(self) -> None:
        _check(self, "proposals")
        _require(
            0 <= self.negative_iou <= self.positive_iou <= 1,
            "proposals needs 0 <= negative_iou <= positive_iou <= 1, "
            f"got {self.negative_iou} and {self.positive_iou}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentConfig:
    """Spatio-temporal feature alignment (paper 3.2, Fig. 2a-b)."""

    __pydantic_config__ = _STRICT

    num_blocks: _Natural = 1
    """k of Table 3; 0 bypasses alignment and pixel-level aggregation."""
    kernel_size: Literal[1, 3] = 3

    def __post_init__(self) -> None:
        _check(self, "alignment")


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelAggregationConfig:
    """Pixel-level aggregation of the aligned features (paper eq. 1-2, Fig. 2c)."""

    __pydantic_config__ = _STRICT

    weights: Literal["lite", "paper", "authors", "cosine"] = "lite"
    """The mask function rho.

    `lite` gives one weight a cell, `paper` one a channel and cell, `authors` works on embeddings, `cosine` has no
    parameters.
    """
    include_current: bool = True
    """Let the current frame take part in the weighted sum."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionConfig:
    """Frame selection (paper 3.3, eq. 3-4)."""

    __pydantic_config__ = _STRICT

    enabled: bool = True
    """Off: the first candidates are kept instead of the least similar ones."""
    num_frames: _Natural = 2
    """Long-term frames kept (m of Table 4)."""
    similarity: Literal["cosine", "scaled_dot"] = "cosine"
    backbone_gradient: bool = True
    """Off: long-term frames do not train the backbone up to the feature map (layer4 and the relations still learn
    from them), which saves its backward pass."""

    def __post_init__(self) -> None:
        _check(self, "selection")


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationConfig:
    """Long short-term feature aggregation of proposals (paper 3.4, eq. 5-9, Fig. 4)."""

    __pydantic_config__ = _STRICT

    stages: tuple[Literal["long_term", "short_term"], ...] = (
        "long_term",
        "short_term",
        "short_term",
        "short_term",
        "long_term",
    )
    """Aggregation stages in order; empty = a single-frame head."""
    embedding: _Count = 1024
    """D, width of a proposal's feature vector."""
    num_groups: _Count = 16
    """K of eq. 5."""
    distill_ratio: Annotated[float, _Limit("more than 0 and at most 1", lambda value: 0 < value <= 1)] = 0.2
    """Share of each short-term frame's proposals that is enhanced and kept from the second short-term stage on."""
    variant: Literal["full", "no_location", "simple"] = "full"
    """Table 5's three rows."""
    gate: Literal["log_gate", "additive"] = "log_gate"
    """How the location weight enters: log(omega_r + 1e-6), or omega_r as eq. 9 prints it."""
    location_embedding: Literal["sinusoid", "direct"] = "sinusoid"
    value_projection: bool = True
    """Off: eq. 7's value is the reference's own channel segment."""
    group_bias: bool = True
    """The learnable weights mu of eq. 7 and 9."""
    enhance_current: bool = True
    """The long-term stages enhance the current frame's proposals too."""

    def __post_init__(self) -> None:
        _check(self, "relation")
        _require(
            self.embedding % self.num_groups == 0,
            "relation.embedding must be a multiple of relation.num_groups, "
            f"got {self.embedding} and {self.num_groups}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """Detection head."""

    __pydantic_config__ = _STRICT

    roi_size: _Count = 7
    rois_per_image: _Count = 128
    """Proposals that enter the loss."""
    positive_fraction: _Share = 0.25
    positive_iou: _Share = 0.5
    box_weights: Annotated[
        tuple[float, float, float, float], _Limit("positive numbers", lambda values: min(values) > 0)
    ] = (10.0, 10.0, 5.0, 5.0)
    score_threshold: _Share = 0.001
    nms_iou: _Share = 0.5
    detections_per_frame: _Count = 100

    def __post_init__(self) -> None:
        _check(self, "head")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The whole network; `preset` and `method` name where the numbers come from."""

    __pydantic_config__ = _STRICT

    preset: str = "small"
    method: Literal["lstfe", "faster_rcnn", "selsa", "rdn", "stsn"] = "lstfe"
    """`lstfe`, or a comparator made of its parts (lstfe/model/methods.py)."""
    image_short_side: int = 600
    image_long_side: int = 1000
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    pixel_aggregation: PixelAggregationConfig = field(default_factory=PixelAggregationConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    relation: RelationConfig = field(default_factory=RelationConfig)
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        _require(
            32 <= self.image_short_side <= self.image_long_side,
            "model needs 32 <= image_short_side <= image_long_side, "
            f"got {self.image_short_side} and {self.image_long_side}",
        )


# ------------------------------------------------------------------------------------------ the chain


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Training recipe."""

    __pydantic_config__ = _STRICT

    seed: _Seed = 0
    iterations: _Count = 600
    """Optimiser updates."""
    batch_size: _Count = 4
    """Clips per update over all processes (the global batch)."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["warmup_multistep", "one_cycle"] = "warmup_multistep"
    lr: _Positive = 0.001
    """Peak learning rate at a global batch of `lr_batch_size`; scaled linearly with the batch."""
    lr_batch_size: _Count = 4
    alignment_lr_factor: _NonNegative = 0.1
    """Learning rate of the feature alignment, as a share of `lr`: at the full rate its sampling offsets run away
    before the features are worth aligning."""
    momentum: _ShareBelowOne = 0.9
    weight_decay: _NonNegative = 1e-4
    warmup_iterations: _Natural = 500
    milestones: Annotated[
        tuple[float, ...],
        _Limit("fractions in 0..1", lambda values: all(0 <= value <= 1 for value in values)),
    ] = (0.6667,)
    """Where the learning rate drops by `gamma`, as fractions of the training (warmup_multistep)."""
    gamma: _Share = 0.1
    max_gradient_norm: _Positive | None = None
    """Clip the global gradient norm; null = never."""
    still_iterations: int = 0
    """First updates that train on still clips: the current frame alone, without the temporal parts.

    Far cheaper than whole clips, and the temporal parts learn faster on features that know the objects. The
    one-cycle schedule runs once for each of the two phases.
    """
    flip_probability: _Share = 0.5
    """Chance of a horizontal flip, one draw per clip."""
    colour_jitter: _ShareBelowOne = 0.0
    """Random change of contrast and colour, one draw per clip, as a fraction."""
    amp: Literal["auto", "off"] = "auto"
    """bf16 autocast where the hardware multiplies it: GPUs, and CPUs with AVX512-BF16 or AMX."""
    num_workers: _Natural = 2
    """Loader processes per training process; the clips drawn do not depend on it."""
    log_every: _Count = 10
    """Updates between two lines of metrics."""
    checkpoint_every: _Count = 100
    """Updates between two checkpoints."""
    validate_every: _Natural = 0
    """Updates between two validations on the val split; 0 = only at the end."""
    validation_frames: _Natural = 240
    """Most frames that one validation looks at; 0 = no validation."""
    keep_checkpoints: _Count = 2
    """Newest checkpoints kept: one to go on from, the others to fall back to."""
    release: str = "last"
    """Weights that training leaves behind: `last`, or those with the highest value of a validation figure, which is
    named as in the metrics (`val.coco.AP50`)."""
    max_skipped_updates: _Natural = 10
    """Updates whose loss or gradient is not finite are skipped; past this number training stops."""
    warm_start: str | None = None
    """Weights to start from (safetensors, a PyTorch state dict or checkpoint): what fits by name and shape is taken."""
    warm_start_coverage: _ShareBelowOne = 0.5
    """Least share of the model's parameters that `warm_start` must fill."""
    ema_decay: _ShareBelowOne = 0.0
    """Detect with a running mean of the weights, of which an update keeps this share (0.999); 0 = with the weights."""
    image_scales: _PositiveNumbers = (1.0,)
    """Factors of the model's image sides, of which each update draws one."""
    compile: bool = False
    """Compile the backbone (torch.compile), which needs a C++ compiler on the CPU."""

    def __post_init__(self) -> None:
        _check(self, "train")
        _require(
            self.release == "last" or (self.release.startswith("val.") and self.validation_frames > 0),
            "train.release must be last or, with train.validation_frames > 0, a figure of the validation "
            f"(val.coco.AP50), got {self.release!r}",
        )
        _require(
            0 <= self.still_iterations <= self.iterations,
            f"train.still_iterations must be in 0..iterations ({self.iterations}), got {self.still_iterations}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Scoring of the trained detector."""

    __pydantic_config__ = _STRICT

    split: Literal["train", "val", "test"] = "test"
    protocols: tuple[Literal["coco", "voc07", "voc07_inclusive", "mega_vid", "ilsvrc"], ...] = (
        "coco",
        "voc07",
    )
    """Presets that the detections are scored by; docs/evaluation.md."""
    frame_stride: _Count = 1
    """Score every n-th frame of each video (every frame is still streamed through the detector)."""
    num_pictures: _Natural = 12
    """Pictures of the worst misses."""
    num_threads: _Count = 1
    """CPU threads of each process. The last bits of the detections depend on it, but not on how many processes there
    are (LSTFE_NPROC): processes of one thread each are also the faster way to use several cores."""
    resamples: _Natural = 1000
    """Resamples of the videos that the 95 % intervals come from; 0 = no intervals."""
    seed: _Seed = 0
    """Of the resamples."""

    def __post_init__(self) -> None:
        _check(self, "evaluate")
        _require(bool(self.protocols), "evaluate.protocols must name at least one protocol")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """ONNX graphs and their check against PyTorch."""

    __pydantic_config__ = _STRICT

    opset: Literal[19, 20, 21] = 20
    """18 writes an invalid DeformConv, 22 has no RoiAlign kernel in ONNX Runtime."""
    parity_frames: _Count = 60
    """Real frames that both backends detect on."""
    max_difference: _Positive = 1e-3
    """Largest relative difference of any graph's output that is accepted, on random and on real frames."""
    calibration_frames: _Count = 64
    """Training frames that the ranges of int8 and fp8 are taken from."""
    int8_min_stride: _Count = 8
    """Finest maps that int8 and fp8 layers of the backbone read, in image pixels a cell; layers before stay fp16."""
    max_ap_drop: _Share = 0.01
    """Largest loss of AP (coco) and AP50 (voc07) on the val split that a lower precision may cost."""

    def __post_init__(self) -> None:
        _check(self, "export")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployConfig:
    """The bundle that leaves the project."""

    __pydantic_config__ = _STRICT

    bundle_name: str = "lstfe"
    score_threshold: _Share = 0.3
    """Detections below it are not drawn on videos (they are still written to detections.json)."""

    def __post_init__(self) -> None:
        _check(self, "deploy")
        _require(bool(self.bundle_name), "deploy.bundle_name must not be empty")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All of params.yaml, with `model` resolved."""

    __pydantic_config__ = _STRICT

    data: DataConfig = field(default_factory=DataConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    deploy: DeployConfig = field(default_factory=DeployConfig)
