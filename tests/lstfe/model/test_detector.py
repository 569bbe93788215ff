"""The whole network: every switch, every method, empty input, and independence of the batching."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from torch import Tensor

from lstfe.config import Config, ModelConfig
from lstfe.model.detector import LSTFENet
from lstfe.model.methods import METHODS, resolve_method
from lstfe.params import load_config
from lstfe.types import ClipBatch, ClipLayout, Detections, Targets

PARAMS = Path(__file__).parents[3] / "params.yaml"
LOSSES = {"objectness", "proposal_boxes", "classification", "box_regression"}
SWITCHES: list[dict[str, dict[str, Any]]] = [
    {},
    {"backbone": {"feature_stride": 16}},
    {"backbone": {"layer4": True, "feature_channels": 64}},
    {"backbone": {"reduce_channels": None}},
    {"backbone": {"feature_stride": 16, "layer4": True, "reduce_channels": None}},
    {"alignment": {"num_blocks": 0}},
    {"alignment": {"num_blocks": 2}},
    {"alignment": {"kernel_size": 1}},
    {"pixel_aggregation": {"weights": "paper", "include_current": False}},
    {"pixel_aggregation": {"weights": "authors"}},
    {"pixel_aggregation": {"weights": "cosine"}},
    {"selection": {"enabled": False}},
    {"selection": {"similarity": "scaled_dot", "num_frames": 1}},
    {"selection": {"backbone_gradient": False}},
    {"relation": {"stages": ()}},
    {"relation": {"variant": "no_location"}},
    {"relation": {"variant": "simple"}},
    {"relation": {"gate": "additive", "location_embedding": "direct", "value_projection": False}},
    {"relation": {"enhance_current": False, "group_bias": False, "distill_ratio": 0.5}},
]

Tiny = Callable[..., ModelConfig]
BuildModel = Callable[..., LSTFENet]
MakeBatch = Callable[..., ClipBatch]


def config_of(method: str, model: ModelConfig) -> Config:
    return resolve_method(Config(model=replace(model, method=method)))  # type: ignore[arg-type]


def layout_of(config: Config) -> ClipLayout:
    """The layout of a training clip with the frames that the method uses."""
    short = tuple(range(1, 1 + config.sampling.num_short_term))
    candidates = tuple(len(short) + 1 + i for i in range(config.sampling.num_candidates))
    return ClipLayout(alignment=short, relation=short, candidates=candidates)


def losses_of(model: LSTFENet, batch: ClipBatch) -> dict[str, Tensor]:
    losses = model.train()(batch)
    assert isinstance(losses, dict)
    return losses


@torch.no_grad()
def detections_of(model: LSTFENet, batch: ClipBatch) -> list[Detections]:
    detections = model.eval()(batch)
    assert isinstance(detections, list)
    return detections


def assert_equal_detections(found: Detections, expected: Detections) -> None:
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)


def lacking_gradient(model: LSTFENet, batch: ClipBatch) -> list[str]:
    """Names of the trainable parameters whose gradient is absent, zero, or not a number."""
    sum(losses_of(model, batch).values()).backward()  # type: ignore[union-attr]
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return [n for n, grad in gradients.items() if grad is None or not grad.any() or not grad.isfinite().all()]


def without_truth(batch: ClipBatch) -> ClipBatch:
    empty = [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)) for _ in batch.targets]
    return replace(batch, targets=empty)


def one_clip(batch: ClipBatch, place: int) -> ClipBatch:
    lists = ("image_sizes", "original_sizes", "targets", "seeds")
    parts = {name: getattr(batch, name)[place : place + 1] for name in lists}
    return replace(batch, images=batch.images[place : place + 1], **parts)


# ---------------------------------------------------------------------------------------- empty input


@pytest.mark.parametrize("method", METHODS)
def test_black_frames_without_ground_truth_give_numbers(
    method: str, tiny: Tiny, build_model: BuildModel, make_batch: MakeBatch
) -> None:
    config = config_of(method, tiny())
    model = build_model(config.model)
    batch = without_truth(make_batch(2, layout=layout_of(config)))
    batch.images = torch.full_like(batch.images, -2.0)
    losses = losses_of(model, batch)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    for detections in detections_of(model, batch):
        assert np.isfinite(detections.boxes).all()
        assert np.isfinite(detections.scores).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("has_truth", [True, False])
def test_without_a_single_proposal_losses_are_numbers_and_nothing_is_detected(
    has_truth: bool, method: str, tiny: Tiny, build_model: BuildModel, make_batch: MakeBatch
) -> None:
    config = config_of(method, tiny(proposals={"min_size_px": 1e6}))
    model, batch = build_model(config.model), make_batch(2, layout=layout_of(config))
    losses = losses_of(model, batch if has_truth else without_truth(batch))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(loss.isfinite() for loss in losses.values())
    assert (losses["classification"] > 0) == has_truth
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert [len(detections) for detections in detections_of(model, batch)] == [0, 0]


def test_a_clip_of_the_current_frame_alone_is_enough(
    tiny: Tiny, build_model: BuildModel, make_batch: MakeBatch
) -> None:
    model, batch = build_model(), make_batch(layout=ClipLayout())
    assert all(loss.isfinite() for loss in losses_of(model, batch).values())
    single = build_model(tiny(alignment={"num_blocks": 0}, relation={"stages": ()}))
    single.load_state_dict(model.state_dict(), strict=False)
    assert_equal_detections(detections_of(model, batch)[0], detections_of(single, batch)[0])


def test_a_clip_whose_reference_frames_all_are_the_current_frame_gives_numbers(
    build_model: BuildModel, make_batch: MakeBatch
) -> None:
    layout = ClipLayout(alignment=(0, 0), relation=(0, 0), candidates=(0, 0, 0))
    model, batch = build_model(), make_batch(layout=layout)
    assert batch.images.shape[1] == 1
    assert lacking_gradient(model, batch) == []
    assert len(detections_of(model, batch)[0]) > 0


# --------------------------------------------------------------------------------- switches and methods


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_with_every_switch_each_parameter_gets_a_gradient_and_frames_are_detected(
    switches: dict[str, dict[str, Any]], tiny: Tiny, build_model: BuildModel, make_batch: MakeBatch
) -> None:
    model, batch = build_model(tiny(**switches)), make_batch(2)
    assert lacking_gradient(model, batch) == []
    detections = detections_of(model, batch)
    assert all(len(found) > 0 for found in detections)
    assert all((found.boxes[:, 2:] > found.boxes[:, :2]).all() for found in detections)
    assert all((np.diff(found.scores) <= 0).all() for found in detections)


@pytest.mark.parametrize("method", METHODS)
def test_with_every_method_each_parameter_gets_a_gradient(
    method: str, tiny: Tiny, build_model: BuildModel, make_batch: MakeBatch
) -> None:
    config = config_of(method, tiny())
    batch = make_batch(2, layout=layout_of(config))
    assert set(losses_of(build_model(config.model), batch)) == LOSSES
    assert lacking_gradient(build_model(config.model), batch) == []


@pytest.mark.parametrize("method", METHODS)
def test_from_the_initial_weights_no_parameter_is_left_out_of_the_graph(
    method: str, tiny: Tiny, make_batch: MakeBatch
) -> None:
    # Zero-initialised layers make zero gradients at first; DistributedDataParallel needs them to be there.
    config = config_of(method, tiny())
    torch.manual_seed(0)
    model = LSTFENet(config.model, 3)
    sum(losses_of(model, make_batch(layout=layout_of(config))).values()).backward()  # type: ignore[union-attr]
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_zero_blocks_have_no_parameters_and_leave_the_features_as_they_are(
    tiny: Tiny, build_model: BuildModel, make_batch: MakeBatch
) -> None:
    model = build_model(tiny(alignment={"num_blocks": 0}))
    assert not [n for n, _ in model.named_parameters() if n.startswith(("alignment", "pixel_aggregation"))]
    features = model.extract(make_batch().images[0])
    assert torch.equal(model.enhance(features[:1], features[None, 1:3]), features[:1])


@pytest.mark.parametrize("method", METHODS)
def test_a_reference_frame_counts_where_the_method_uses_it(
    method: str, tiny: Tiny, build_model: BuildModel, make_batch: MakeBatch
) -> None:
    config = config_of(method, tiny())
    # All frames are given, also those that the method ignores.
    layout = ClipLayout(alignment=(1, 2), relation=(1, 2), candidates=(3, 4))
    model, batch = build_model(config.model), make_batch(layout=layout)
    before = detections_of(model, batch)[0]
    aligned, stages = config.model.alignment.num_blocks > 0, config.model.relation.stages
    for place, is_used in ((1, aligned or "short_term" in stages), (3, "long_term" in stages)):
        changed = replace(batch, images=batch.images.clone())
        changed.images[:, place] = torch.randn(changed.images[:, place].shape)
        after = detections_of(model, changed)[0]
        is_same = len(before) == len(after) and np.allclose(before.scores, after.scores, atol=1e-5)
        assert is_same != is_used


@pytest.mark.parametrize("method", ["lstfe", "selsa"])
def test_without_backbone_gradient_candidates_give_the_same_losses_and_no_gradient(
    method: str, tiny: Tiny, build_model: BuildModel, make_batch: MakeBatch
) -> None:
    losses, reaches = [], []
    for backbone_gradient in (True, False):
        config = config_of(method, tiny(selection={"backbone_gradient": backbone_gradient}))
        layout = layout_of(config)
        batch = make_batch(2, layout=layout)
        batch.images.requires_grad_()
        losses.append(losses_of(build_model(config.model), batch))
        sum(losses[-1].values()).backward()  # type: ignore[union-attr]
        reaches.append([bool(batch.images.grad[:, i].any()) for i in range(batch.images.shape[1])])
    num_near = 1 + len(layout.alignment)
    assert all(reaches[0][:num_near])
    assert any(reaches[0][num_near:])
    assert reaches[1] == [True] * num_near + [False] * len(layout.candidates)
    for name in LOSSES:
        assert losses[1][name].item() == pytest.approx(losses[0][name].item(), rel=1e-4)


def test_weights_that_autocast_casts_without_gradient_are_not_kept_for_the_layers_that_train(
    tiny: Tiny, build_model: BuildModel, make_batch: MakeBatch
) -> None:
    """Else layer4 of torch 2.10 trains no more; later versions keep what they cast with gradient."""
    model = build_model(tiny(backbone={"layer4": True, "feature_channels": 64}))
    kept_without_gradient: list[bool] = []
    layer4 = model.backbone.layer4
    assert layer4 is not None
    layer4.register_forward_pre_hook(
        lambda *_: (
            None
            if torch.is_grad_enabled()
            else kept_without_gradient.append(torch.is_autocast_cache_enabled())
        )
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(model, make_batch(2))
        assert torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_cache_enabled()
        assert model.descriptor(torch.rand(1, 64, 8, 12)).dtype == torch.bfloat16
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert kept_without_gradient == [False]
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_only_the_selected_candidates_go_on(build_model: BuildModel, make_batch: MakeBatch) -> None:
    model, batch = build_model(), make_batch(2)
    features = model.extract(batch.images.flatten(0, 1)).unflatten(0, batch.images.shape[:2])
    kept = model.select_features(features[:, 0], features[:, 3:])
    for clip in range(2):
        current, *candidates = (features[clip, i].mean(dim=(1, 2)) for i in (0, 3, 4, 5))
        similar = [F.cosine_similarity(current, candidate, dim=0).item() for candidate in candidates]
        order = sorted(range(3), key=similar.__getitem__)
        assert torch.equal(kept[clip], features[clip, [3 + i for i in order[:2]]])


# ------------------------------------------------------------------------------------------- RoIAlign


def loop_roi_align(roi_map: Tensor, box: list[float], stride: int, size: int) -> Tensor:
    """Mean of 2x2 bilinear samples a bin, box edges half a cell back: (C, h, w) -> (C, size, size)."""
    x1, y1, x2, y2 = (corner / stride - 0.5 for corner in box)
    bin_width, bin_height = (x2 - x1) / size, (y2 - y1) / size
    pooled = roi_map.new_zeros(len(roi_map), size, size)
    for row, column, i, j in itertools.product(range(size), range(size), range(2), range(2)):
        y, x = y1 + (row + (i + 0.5) / 2) * bin_height, x1 + (column + (j + 0.5) / 2) * bin_width
        top, left = math.floor(y), math.floor(x)
        for cell_y, cell_x in itertools.product((top, top + 1), (left, left + 1)):
            weight = (1 - abs(y - cell_y)) * (1 - abs(x - cell_x))
            pooled[:, row, column] += weight * roi_map[:, cell_y, cell_x] / 4
    return pooled


@torch.no_grad()
def test_proposals_are_embedded_as_in_a_loop_over_bins_and_samples(build_model: BuildModel) -> None:
    model = build_model()
    roi_map = torch.randn(1, 16, 8, 12)
    boxes = torch.tensor([[[8.0, 9.0, 30.5, 41.0], [33.3, 20.0, 45.0, 28.0], [10.0, 8.0, 80.0, 50.0]]])
    embedded = model.embed(roi_map, boxes)
    for place, box in enumerate(boxes[0].tolist()):
        pooled = loop_roi_align(roi_map[0], box, model.backbone.stride, model.config.head.roi_size)
        torch.testing.assert_close(
            embedded[0, place], model.fc0(pooled.flatten()).relu(), rtol=1e-4, atol=1e-4
        )


@torch.no_grad()
def test_boxes_keep_their_pixels_under_half_precision(build_model: BuildModel) -> None:
    model = build_model()
    ramp = torch.linspace(0, 1, 120).expand(1, 16, 8, 120)  # value = place, so that a moved box is seen
    boxes = torch.tensor([[[901.3, 8.2, 913.1, 20.4]]])
    precise = model.embed(ramp.bfloat16().float(), boxes)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.embed(ramp.bfloat16(), boxes)
    torch.testing.assert_close(half.float(), precise, rtol=0.01, atol=0.01 * precise.max().item())


# ------------------------------------------------------------------------------------------- batching


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_two_equals_two_batches_of_one(
    method: str, tiny: Tiny, build_model: BuildModel, make_batch: MakeBatch
) -> None:
    config = config_of(method, tiny())
    model, batch = build_model(config.model), make_batch(2, layout=layout_of(config))
    alone = [one_clip(batch, place) for place in range(2)]
    losses, parts = losses_of(model, batch), [losses_of(model, clip) for clip in alone]
    for name in LOSSES:
        assert losses[name].item() == pytest.approx((parts[0][name] + parts[1][name]).item() / 2, rel=1e-4)
    for found, clip in zip(detections_of(model, batch), alone, strict=True):
        assert_equal_detections(found, detections_of(model, clip)[0])


def test_seeded_losses_do_not_depend_on_what_was_drawn_before(
    build_model: BuildModel, make_batch: MakeBatch
) -> None:
    model, batch = build_model(), make_batch(2)
    first = losses_of(model, batch)
    torch.rand(17)
    again = losses_of(model, batch)
    assert all(torch.equal(first[name], again[name]) for name in LOSSES)
    state = torch.get_rng_state()
    losses_of(model, batch)
    assert torch.equal(torch.get_rng_state(), state)
    other = losses_of(model, replace(batch, seeds=[98, 99]))
    assert any(not torch.equal(first[name], other[name]) for name in LOSSES)


def test_without_seeds_the_global_generator_draws(build_model: BuildModel, make_batch: MakeBatch) -> None:
    model, batch = build_model(), replace(make_batch(2), seeds=[])
    draws = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        draws.append([loss.item() for loss in losses_of(model, batch).values()])
    assert draws[0] == draws[1] != draws[2]


def test_in_a_batch_of_two_sizes_each_clip_is_detected_within_its_own_frame(
    build_model: BuildModel, make_batch: MakeBatch
) -> None:
    # The padding itself does change the features: zero-padded convolutions and GroupNorm see it.
    model, batch = build_model(), make_batch(2)
    small = (40, 56)
    batch.images[1, :, :, small[0] :] = 0
    batch.images[1, :, :, :, small[1] :] = 0
    batch = replace(batch, image_sizes=[(64, 96), small], original_sizes=[(64, 96), (80, 112)])
    batch.targets[1] = Targets(torch.tensor([[5.0, 6.0, 25.0, 20.0]]), torch.tensor([1]))
    assert all(loss.isfinite() for loss in losses_of(model, batch).values())
    large, padded = detections_of(model, batch)
    assert_equal_detections(large, detections_of(model, one_clip(batch, 0))[0])
    assert_equal_detections(padded, detections_of(model, one_clip(batch, 1))[0])
    assert len(padded) > 0
    assert (padded.boxes >= 0).all()
    assert (padded.boxes <= np.array([112, 80, 112, 80]) + 1e-3).all()
    assert padded.boxes.max() > 56  # given in original pixels, twice the resized ones


# -------------------------------------------------------------------------------------------- presets


def load_preset(name: str, directory: Path) -> ModelConfig:
    """Read params.yaml with another preset, from scratch, and few proposals."""
    yaml = YAML(typ="safe", pure=True)
    values = yaml.load(PARAMS.read_text(encoding="utf-8"))
    proposals = {"current_top_k": 10, "reference_top_k": 5}
    values["model"] = {"preset": name, "backbone": {"weights": "none"}, "proposals": proposals}
    yaml.dump(values, directory / "params.yaml")
    return load_config(directory / "params.yaml").model


@pytest.mark.parametrize(
    ("preset", "channels", "fc0_inputs"), [("tiny", 96, 64), ("small", 1024, 256), ("parity", 1024, 2048)]
)
def test_presets_build_and_detect_once(
    preset: str,
    channels: int,
    fc0_inputs: int,
    tmp_path: Path,
    make_batch: MakeBatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Drawing 184 million random numbers for `parity` would take longer than all other tests together.
    drawn = torch.randn(1009, generator=torch.Generator().manual_seed(0)) * 0.02

    def repeat_drawn(tensor: Tensor, *_args: object, **_keys: object) -> Tensor:
        return tensor.data.copy_(drawn.repeat(-(-tensor.numel() // 1009))[: tensor.numel()].view_as(tensor))

    for name in ("normal_", "kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, repeat_drawn)
    config = load_preset(preset, tmp_path)
    model = LSTFENet(config, 2)
    assert model.backbone.channels == channels
    assert model.fc0.weight.shape == (config.relation.embedding, fc0_inputs * config.head.roi_size**2)
    (detections,) = detections_of(model, make_batch(layout=ClipLayout((1, 2), (1, 2), (3, 4))))
    assert 0 < len(detections) <= config.head.detections_per_frame
    assert np.isfinite(detections.boxes).all()
