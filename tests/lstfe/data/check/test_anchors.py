from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lstfe.config import BackboneConfig, ModelConfig, ProposalConfig
from lstfe.data.check.anchors import anchor_shapes, best_overlaps, measure_boxes
from lstfe.data.check.tables import Doubles, load_tables
from lstfe.data.importers.fl_drones import import_fl_drones
from lstfe.data.raw import ImportOptions
from lstfe.params import load_config

SHARED = os.environ.get("LSTFE_SHARED", "")


def _some_boxes(num_boxes: int, input_size: tuple[int, int]) -> Doubles:
    generator = np.random.default_rng(3)
    height, width = input_size
    centers = generator.uniform((0, 0), (width, height), (num_boxes, 2))
    sides = np.exp(generator.uniform(0, 5, (num_boxes, 2)))
    corners = np.hstack((centers - sides / 2, centers + sides / 2)).clip(0, (width, height) * 2)
    return np.asarray(corners, np.float64)


def test_no_boxes_have_no_overlaps() -> None:
    assert best_overlaps(np.zeros((0, 4)), (240, 320), ModelConfig()).shape == (0,)


@pytest.mark.parametrize(("stride", "input_size"), [(8, (240, 320)), (16, (600, 800)), (16, (90, 101))])
def test_best_overlaps_are_those_of_all_anchors_that_train(stride: int, input_size: tuple[int, int]) -> None:
    import torch

    from lstfe.boxes import iou
    from lstfe.model.proposals import ProposalNetwork

    config = ProposalConfig(anchor_sizes=(12.0, 40.0), anchor_ratios=(0.5, 1.0, 2.0))
    model = ModelConfig(backbone=BackboneConfig(feature_stride=stride), proposals=config)  # type: ignore[arg-type]
    corners = _some_boxes(200, input_size)

    padded = [-(-side // 32) * 32 for side in input_size]
    anchors = ProposalNetwork(4, stride, config).anchors((padded[0] // stride, padded[1] // stride))
    x, y = (anchors[:, :2] + anchors[:, 2:]).unbind(1)
    anchors = anchors[(x / 2 < input_size[1]) & (y / 2 < input_size[0])]
    expected = iou(torch.from_numpy(corners).float(), anchors).amax(dim=1)

    np.testing.assert_allclose(best_overlaps(corners, input_size, model), expected.numpy(), atol=1e-5)


def test_anchor_shapes_are_those_of_the_proposal_network() -> None:
    from lstfe.model.proposals import cell_anchors

    config = ProposalConfig(anchor_sizes=(12.0, 40.0), anchor_ratios=(0.5, 1.0, 3.0))
    anchors = cell_anchors(config).numpy()
    np.testing.assert_allclose(anchor_shapes(config), anchors[:, 2:] - anchors[:, :2], rtol=1e-6)


def test_a_box_as_large_as_an_anchor_and_on_its_place_is_reached(
    write_raw: Callable[..., Path], tiny: Callable[..., ModelConfig]
) -> None:
    measured = measure_boxes(load_tables(write_raw()), tiny())
    assert measured["reached"] == {"0.3": 1.0, "0.5": 1.0, "0.7": 1.0}
    assert measured["mean_size_px"] == 16.0
    assert measured["by_size_px"]["16-24"] == 30


def test_boxes_are_measured_at_the_size_that_the_network_sees(
    write_raw: Callable[..., Path], tiny: Callable[..., ModelConfig]
) -> None:
    doubled = ModelConfig(
        image_short_side=128,
        image_long_side=192,
        backbone=BackboneConfig(feature_stride=8),
        proposals=tiny().proposals,
    )
    measured = measure_boxes(load_tables(write_raw()), doubled)
    assert measured["by_size_px"]["16-24"] == 30
    assert measured["by_size_at_input_px"]["32-48"] == 30


def test_boxes_in_frames_of_unknown_size_are_set_aside(
    write_raw: Callable[..., Path], tiny: Callable[..., ModelConfig]
) -> None:
    def change(content: dict[str, dict[str, list[dict[str, int]]]], raw: Path) -> None:
        content["val"]["videos"][0] |= {"width": 0, "height": 0}

    measured = measure_boxes(load_tables(write_raw(change)), tiny())
    assert measured["boxes"] == 30
    assert measured["boxes_of_unknown_frame_size"] == 10
    assert measured["reached"]["0.7"] == 1.0


@pytest.mark.skipif(not SHARED, reason="LSTFE_SHARED is not set")
def test_the_anchors_of_the_paper_miss_nine_of_ten_boxes_of_fl_drones(tmp_path: Path) -> None:
    options = ImportOptions(annotations_only=True, image_size=(480, 752), split="none")
    import_fl_drones(
        Path(SHARED) / "data" / "fl-drones-annotations" / "annotations", tmp_path / "raw", options
    )
    params = (Path(__file__).parents[4] / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace("preset: tiny", "preset: parity"))

    measured = measure_boxes(load_tables(tmp_path / "raw"), load_config(tmp_path / "params.yaml").model)

    assert measured["anchor_sizes"] == [64.0, 128.0, 256.0, 512.0]
    assert measured["boxes"] > 20_000
    assert measured["reached"]["0.5"] < 0.1
