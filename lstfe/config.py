"""Typed configuration: frozen dataclasses, one per section of params.yaml, refused at birth when wrong.

Read from files by lstfe/params.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict

from lstfe.errors import UserError


class ConfigError(UserError):
    """params.yaml (or a saved config.yaml) holds something that cannot be used."""


_STRICT = ConfigDict(extra="forbid", strict=True)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_seed(section: str, seed: int) -> None:
    # What both NumPy and PyTorch take.
    _require(0 <= seed < 2**63, f"{section}.seed must be in 0..{2**63 - 1}, got {seed}")


# ---------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which data set the chain works on."""

    __pydantic_config__ = _STRICT

    name: str = "embedded"
    """Folder under data/raw and data/prepared."""
    max_bad_fraction: float = 0.01
    """Training stops once more than this share of its clips (in the first epoch: of an epoch's) cannot be read."""

    def __post_init__(self) -> None:
        _require(
            self.name not in ("", ".", "..") and "/" not in self.name and "\\" not in self.name,
            f"data.name must be a folder name without slashes, got {self.name!r}",
        )
        _require(
            0 <= self.max_bad_fraction <= 1,
            f"data.max_bad_fraction must be in 0..1, got {self.max_bad_fraction}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderConfig:
    """The embedded data set: rendered videos of small drones (data/README.md).

    Contrast, clutter and noise are fractions of full scale (1.0 = from black to white).
    """

    __pydantic_config__ = _STRICT

    seed: int = 7
    num_train_videos: int = 8
    num_val_videos: int = 3
    num_test_videos: int = 3
    num_frames: int = 120
    """Frames per video."""
    image_size: tuple[int, int] = (240, 320)
    """(height, width), pixels."""
    frame_rate: int = 30
    """Frames per second."""
    clutter: float = 0.06
    """Standard deviation of the background's texture."""
    noise: float = 0.03
    """Standard deviation of the sensor noise, independent from frame to frame."""
    light_change: float = 0.15
    """How far the light wanders from its mean, as a fraction of it."""
    camera_pan_px: float = 0.8
    """Mean speed of the camera's smooth motion, pixels a frame."""
    camera_shake_px: float = 0.5
    """Standard deviation of the camera's shake, pixels."""
    shutter: float = 0.5
    """Share of a frame's time during which light is gathered: the length of the motion blur."""
    present_fraction: float = 0.67
    """Share of the frames in which at least one drone flies."""
    second_drone_fraction: float = 0.25
    """Chance that a flying drone is not alone."""
    drone_size_px: tuple[float, float] = (8.0, 40.0)
    """Smallest and largest drone width, pixels; most lie in the lower half."""
    drone_speed_px: tuple[float, float] = (1.0, 4.0)
    """Slowest and fastest motion of a drone against the background, pixels a frame."""
    drone_contrast: tuple[float, float] = (0.10, 0.35)
    """Difference between a drone and the background around it: (faded, fully lit)."""
    drone_opacity: float = 0.5
    """How much of the background's texture a drone hides, 0 (glass) .. 1 (solid)."""
    fade_fraction: float = 0.4
    """Share of the time during which a drone is faded to the low contrast."""
    fade_frames: tuple[int, int] = (3, 8)
    """Shortest and longest stretch of such faded frames."""
    flashes_per_frame: float = 0.8
    """Mean number of silhouettes (insects, glints) that look like a drone but last one frame."""
    decoys_per_frame: float = 0.2
    """Mean number of drone-like marks in view that are fixed to the background: only motion tells them."""
    birds_per_frame: float = 0.7
    """Mean number of flapping birds in view."""
    num_branches: int = 2
    """Swaying branches in front of everything, per video."""

    def __post_init__(self) -> None:
        _require_seed("render", self.seed)
        for name in ("num_train_videos", "num_val_videos", "num_test_videos", "num_frames", "frame_rate"):
            _require(getattr(self, name) >= 1, f"render.{name} must be >= 1, got {getattr(self, name)}")
        _require(
            all(side >= 64 and side % 2 == 0 for side in self.image_size),
            f"render.image_size must be two even numbers >= 64 (H.264), got {self.image_size}",
        )
        for name in ("drone_size_px", "drone_speed_px", "drone_contrast", "fade_frames"):
            low, high = getattr(self, name)
            _require(
                0 < low <= high, f"render.{name} must be (low, high) with 0 < low <= high, got {(low, high)}"
            )
        for name in (
            "present_fraction",
            "second_drone_fraction",
            "drone_opacity",
            "fade_fraction",
            "shutter",
        ):
            _require(
                0 <= getattr(self, name) <= 1, f"render.{name} must be in 0..1, got {getattr(self, name)}"
            )
        for name in ("clutter", "noise", "light_change", "camera_pan_px", "camera_shake_px"):
            _require(getattr(self, name) >= 0, f"render.{name} must be >= 0, got {getattr(self, name)}")
        for name in ("flashes_per_frame", "decoys_per_frame", "birds_per_frame", "num_branches"):
            _require(getattr(self, name) >= 0, f"render.{name} must be >= 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """Raw videos and annotations -> randomly accessible frames and final annotations."""

    __pydantic_config__ = _STRICT

    jpeg_quality: int = 95
    """Quality of the stored frames, 1..100."""
    frame_stride: int = 1
    """Keep every n-th frame of each video."""

    def __post_init__(self) -> None:
        _require(
            1 <= self.jpeg_quality <= 100, f"prepare.jpeg_quality must be in 1..100, got {self.jpeg_quality}"
        )
        _require(self.frame_stride >= 1, f"prepare.frame_stride must be >= 1, got {self.frame_stride}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Training clips: one current frame, its short-term frames and long-term candidates."""

    __pydantic_config__ = _STRICT

    short_term_range: int = 12
    """Furthest short-term frame on either side of the current frame, in frames."""
    num_short_term: int = 2
    """Short-term frames per clip."""
    num_candidates: int = 4
    """Long-term candidates per clip, drawn from the whole video (the paper's 2m; selection.num_frames is m).

    In a file null, or nothing, stands for 2m, and for m where none are selected (selection.enabled: false, selsa).
    """

    def __post_init__(self) -> None:
        _require(
            self.short_term_range >= 1, f"sampling.short_term_range must be >= 1, got {self.short_term_range}"
        )
        for name in ("num_short_term", "num_candidates"):
            _require(getattr(self, name) >= 0, f"sampling.{name} must be >= 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """Which frames a streaming detector looks at (window.py turns this into frame indices)."""

    __pydantic_config__ = _STRICT

    lookahead: int = 12
    """Frames of latency: a frame is detected once this many later frames are there. 0 = causal."""
    num_alignment: int = 2
    """Short-term frames that are aligned onto the current frame."""
    alignment_gap: int = 6
    """Distance between those frames, in frames: -gap and +gap (causal: -gap, -2*gap, ...)."""
    relation_range: int = 12
    """Furthest short-term frame whose proposals are related to the current ones, in frames."""
    num_relation: int = 24
    """Short-term frames, spread evenly over the range, whose proposals are used."""
    num_candidates: int = 4
    """Size of the pool that long-term frames are selected from; null as for `sampling`."""
    long_term_source: Literal["video", "past"] = "video"
    """`video`: pool spread over the whole video (files); `past`: reservoir of past frames (live streams)."""
    seed: int = 0
    """Seed of the reservoir."""

    def __post_init__(self) -> None:
        for name in ("lookahead", "num_alignment", "num_relation", "num_candidates"):
            _require(getattr(self, name) >= 0, f"inference.{name} must be >= 0, got {getattr(self, name)}")
        _require_seed("inference", self.seed)
        for name in ("alignment_gap", "relation_range"):
            _require(getattr(self, name) >= 1, f"inference.{name} must be >= 1, got {getattr(self, name)}")


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
    reduce_channels: int | None = 256
    """Channels after the 1x1 convolution before RoIAlign; null = none (the paper's R-101)."""

    def __post_init__(self) -> None:
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

    anchor_sizes: tuple[float, ...] = (16.0, 32.0, 64.0, 128.0, 256.0)
    """Square root of the anchors' area, pixels of the resized image."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height / width."""
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    anchors_per_image: int = 256
    """Anchors that enter the loss."""
    positive_fraction: float = 0.5
    nms_iou: float = 0.7
    pre_nms_top_k: int = 6000
    current_top_k: int = 300
    """Proposals kept for the current frame."""
    reference_top_k: int = 75
    """Proposals kept for each reference frame."""
    min_size_px: float = 0.0
    """Proposals with a shorter side are dropped, pixels of the resized image."""

    def __post_init__(self) -> None:
        _require(
            bool(self.anchor_sizes) and min(self.anchor_sizes) > 0,
            f"proposals.anchor_sizes must be positive numbers, got {self.anchor_sizes}",
        )
        _require(
            bool(self.anchor_ratios) and min(self.anchor_ratios) > 0,
            f"proposals.anchor_ratios must be positive numbers, got {self.anchor_ratios}",
        )
        _require(
            0 <= self.negative_iou <= self.positive_iou <= 1,
            "proposals needs 0 <= negative_iou <= positive_iou <= 1, "
            f"got {self.negative_iou} and {self.positive_iou}",
        )
        for name in ("anchors_per_image", "pre_nms_top_k", "current_top_k", "reference_top_k"):
            _require(getattr(self, name) >= 1, f"proposals.{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentConfig:
    """Spatio-temporal feature alignment (paper 3.2, Fig. 2a-b)."""

    __pydantic_config__ = _STRICT

    num_blocks: int = 1
    """k of Table 3; 0 bypasses alignment and pixel-level aggregation."""
    kernel_size: Literal[1, 3] = 3

    def __post_init__(self) -> None:
        _require(self.num_blocks >= 0, f"alignment.num_blocks must be >= 0, got {self.num_blocks}")


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
    num_frames: int = 2
    """Long-term frames kept (m of Table 4)."""
    similarity: Literal["cosine", "scaled_dot"] = "cosine"
    backbone_gradient: bool = True
    """Off: long-term frames do not train the backbone up to the feature map (layer4 and the relations still learn
    from them), which saves its backward pass."""

    def __post_init__(self) -> None:
        _require(self.num_frames >= 0, f"selection.num_frames must be >= 0, got {self.num_frames}")


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
    embedding: int = 1024
    """D, width of a proposal's feature vector."""
    num_groups: int = 16
    """K of eq. 5."""
    distill_ratio: float = 0.2
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
        _require(
            self.embedding >= 1 and self.embedding % self.num_groups == 0,
            "relation.embedding must be a multiple of relation.num_groups, "
            f"got {self.embedding} and {self.num_groups}",
        )
        _require(
            0 < self.distill_ratio <= 1, f"relation.distill_ratio must be in 0..1, got {self.distill_ratio}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """Detection head."""

    __pydantic_config__ = _STRICT

    roi_size: int = 7
    rois_per_image: int = 128
    """Proposals that enter the loss."""
    positive_fraction: float = 0.25
    positive_iou: float = 0.5
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    score_threshold: float = 0.001
    nms_iou: float = 0.5
    detections_per_frame: int = 100

    def __post_init__(self) -> None:
        for name in ("roi_size", "rois_per_image", "detections_per_frame"):
            _require(getattr(self, name) >= 1, f"head.{name} must be >= 1, got {getattr(self, name)}")


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

    seed: int = 0
    iterations: int = 600
    """Optimiser updates."""
    batch_size: int = 4
    """Clips per update over all processes (the global batch)."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Literal["warmup_multistep", "one_cycle"] = "warmup_multistep"
    lr: float = 0.001
    """Peak learning rate at a global batch of `lr_batch_size`; scaled linearly with the batch."""
    lr_batch_size: int = 4
    alignment_lr_factor: float = 0.1
    """Learning rate of the feature alignment, as a share of `lr`: at the full rate its sampling offsets run away
    before the features are worth aligning."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_iterations: int = 500
    milestones: tuple[float, ...] = (0.6667,)
    """Where the learning rate drops by `gamma`, as fractions of the training (warmup_multistep)."""
    gamma: float = 0.1
    max_gradient_norm: float | None = None
    """Clip the global gradient norm; null = never."""
    still_iterations: int = 0
    """First updates that train on still clips: the current frame alone, without the temporal parts.

    Far cheaper than whole clips, and the temporal parts learn faster on features that know the objects. The
    one-cycle schedule runs once for each of the two phases.
    """
    flip_probability: float = 0.5
    """Chance of a horizontal flip, one draw per clip."""
    colour_jitter: float = 0.0
    """Random change of contrast and colour, one draw per clip, as a fraction."""
    amp: Literal["auto", "off"] = "auto"
    """bf16 autocast where the hardware multiplies it: GPUs, and CPUs with AVX512-BF16 or AMX."""
    num_workers: int = 2
    """Loader processes per training process; the clips drawn do not depend on it."""
    log_every: int = 10
    """Updates between two lines of metrics."""
    checkpoint_every: int = 100
    """Updates between two checkpoints."""
    validate_every: int = 0
    """Updates between two validations on the val split; 0 = only at the end."""
    validation_frames: int = 240
    """Most frames that one validation looks at; 0 = no validation."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept: one to go on from, the others to fall back to."""
    release: str = "last"
    """Weights that training leaves behind: `last`, or those with the highest value of a validation figure, which is
    named as in the metrics (`val.coco.AP50`)."""
    max_skipped_updates: int = 10
    """Updates whose loss or gradient is not finite are skipped; past this number training stops."""
    warm_start: str | None = None
    """Weights to start from (safetensors, a PyTorch state dict or checkpoint): what fits by name and shape is taken."""
    warm_start_coverage: float = 0.5
    """Least share of the model's parameters that `warm_start` must fill."""
    ema_decay: float = 0.0
    """Detect with a running mean of the weights, of which an update keeps this share (0.999); 0 = with the weights."""
    image_scales: tuple[float, ...] = (1.0,)
    """Factors of the model's image sides, of which each update draws one."""
    compile: bool = False
    """Compile the backbone (torch.compile), which needs a C++ compiler on the CPU."""

    def __post_init__(self) -> None:
        positive = ("iterations", "batch_size", "lr_batch_size", "log_every", "checkpoint_every")
        for name in (*positive, "keep_checkpoints"):
            _require(getattr(self, name) >= 1, f"train.{name} must be >= 1, got {getattr(self, name)}")
        counts = ("num_workers", "warmup_iterations", "validate_every", "validation_frames")
        for name in (*counts, "max_skipped_updates"):
            _require(getattr(self, name) >= 0, f"train.{name} must be >= 0, got {getattr(self, name)}")
        for name in ("warm_start_coverage", "ema_decay"):
            share = getattr(self, name)
            _require(0 <= share < 1, f"train.{name} must be at least 0 and less than 1, got {share}")
        _require(
            bool(self.image_scales) and min(self.image_scales) > 0,
            f"train.image_scales must be positive numbers, got {self.image_scales}",
        )
        _require(
            self.release == "last" or (self.release.startswith("val.") and self.validation_frames > 0),
            "train.release must be last or, with train.validation_frames > 0, a figure of the validation "
            f"(val.coco.AP50), got {self.release!r}",
        )
        _require(self.lr > 0 and math.isfinite(self.lr), f"train.lr must be > 0 and finite, got {self.lr}")
        _require_seed("train", self.seed)
        _require(
            0 <= self.still_iterations <= self.iterations,
            f"train.still_iterations must be in 0..iterations ({self.iterations}), got {self.still_iterations}",
        )
        _require(
            0 <= self.colour_jitter < 1, f"train.colour_jitter must be in 0..1, got {self.colour_jitter}"
        )
        _require(
            0 <= self.flip_probability <= 1,
            f"train.flip_probability must be in 0..1, got {self.flip_probability}",
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
    frame_stride: int = 1
    """Score every n-th frame of each video (every frame is still streamed through the detector)."""
    num_pictures: int = 12
    """Pictures of the worst misses."""
    num_threads: int = 1
    """CPU threads of each process. The last bits of the detections depend on it, but not on how many processes there
    are (LSTFE_NPROC): processes of one thread each are also the faster way to use several cores."""
    resamples: int = 1000
    """Resamples of the videos that the 95 % intervals come from; 0 = no intervals."""
    seed: int = 0
    """Of the resamples."""

    def __post_init__(self) -> None:
        _require(bool(self.protocols), "evaluate.protocols must name at least one protocol")
        _require(self.frame_stride >= 1, f"evaluate.frame_stride must be >= 1, got {self.frame_stride}")
        _require(self.num_pictures >= 0, f"evaluate.num_pictures must be >= 0, got {self.num_pictures}")
        _require(self.num_threads >= 1, f"evaluate.num_threads must be >= 1, got {self.num_threads}")
        _require(self.resamples >= 0, f"evaluate.resamples must be >= 0, got {self.resamples}")
        _require_seed("evaluate", self.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """ONNX graphs and their check against PyTorch."""

    __pydantic_config__ = _STRICT

    opset: Literal[19, 20, 21] = 20
    """18 writes an invalid DeformConv, 22 has no RoiAlign kernel in ONNX Runtime."""
    parity_frames: int = 60
    """Real frames that both backends detect on."""
    max_difference: float = 1e-3
    """Largest relative difference of any graph's output that is accepted, on random and on real frames."""
    calibration_frames: int = 64
    """Training frames that the ranges of int8 and fp8 are taken from."""
    int8_min_stride: int = 8
    """Finest maps that int8 and fp8 layers of the backbone read, in image pixels a cell; layers before stay fp16."""
    max_ap_drop: float = 0.01
    """Largest loss of AP (coco) and AP50 (voc07) on the val split that a lower precision may cost."""

    def __post_init__(self) -> None:
        _require(self.parity_frames >= 1, f"export.parity_frames must be >= 1, got {self.parity_frames}")
        _require(self.max_difference > 0, f"export.max_difference must be > 0, got {self.max_difference}")
        for name in ("calibration_frames", "int8_min_stride"):
            _require(getattr(self, name) >= 1, f"export.{name} must be >= 1, got {getattr(self, name)}")
        _require(0 <= self.max_ap_drop <= 1, f"export.max_ap_drop must be in 0..1, got {self.max_ap_drop}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployConfig:
    """The bundle that leaves the project."""

    __pydantic_config__ = _STRICT

    bundle_name: str = "lstfe"
    score_threshold: float = 0.3
    """Detections below it are not drawn on videos (they are still written to detections.json)."""

    def __post_init__(self) -> None:
        _require(bool(self.bundle_name), "deploy.bundle_name must not be empty")
        _require(
            0 <= self.score_threshold <= 1,
            f"deploy.score_threshold must be in 0..1, got {self.score_threshold}",
        )


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
