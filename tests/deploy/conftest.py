"""A tiny network with random weights, its graphs (exported once), bundles and moving pictures."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploy.bundle import WEIGHTS_FILE, write_bundle
from deploy.export_onnx import export_graph, export_graphs
from deploy.graphs import graphs_of
from lstfe.config import (
    BackboneConfig,
    Config,
    HeadConfig,
    InferenceConfig,
    ModelConfig,
    ProposalConfig,
    RelationConfig,
    SelectionConfig,
)
from lstfe.data.video import VideoWriter
from lstfe.model.detector import LSTFENet
from lstfe.model.methods import resolve_method
from lstfe.training.checkpoint import save_weights
from lstfe.types import ByteArray

LABEL_NAMES = ("drone", "bird")
IMAGE_SIZE = (64, 96)

TINY = Config(
    inference=InferenceConfig(
        lookahead=2, alignment_gap=1, relation_range=3, num_relation=3, num_candidates=3
    ),
    model=ModelConfig(
        image_short_side=64,
        image_long_side=96,
        backbone=BackboneConfig(
            name="resnet18", width=16, feature_stride=8, feature_channels=24, layer4=False, reduce_channels=16
        ),
        proposals=ProposalConfig(
            anchor_sizes=(8.0, 16.0, 32.0),
            anchor_ratios=(0.5, 1.0),
            pre_nms_top_k=200,
            current_top_k=20,
            reference_top_k=10,
        ),
        selection=SelectionConfig(num_frames=2),
        relation=RelationConfig(
            stages=("long_term", "short_term", "short_term", "long_term"), embedding=32, num_groups=4
        ),
        head=HeadConfig(roi_size=3, detections_per_frame=20),
    ),
)

# Boxes that stay in the image, scores well apart.
_GAINS = {"proposal_network.box_deltas": 0.01, "head.box_deltas": 0.5, "head.class_logits": 2.0}


@dataclass(frozen=True, slots=True)
class Exported:
    """A network, its configuration and the folder of its graphs."""

    model: LSTFENet
    config: Config
    directory: Path


@pytest.fixture(scope="session")
def build_model() -> Callable[[str], tuple[LSTFENet, Config]]:
    """Return a builder of networks in which every part has an influence, and their configuration."""

    def build(method: Any = "lstfe") -> tuple[LSTFENet, Config]:
        config = resolve_method(replace(TINY, model=replace(TINY.model, method=method)))
        torch.manual_seed(0)
        model = LSTFENet(config.model, len(LABEL_NAMES) + 1).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not name.startswith(("backbone", "reduce", "fc0")):
                    fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
                    parameter.normal_(std=_GAINS.get(name.rpartition(".")[0], 1.0) / fan_in**0.5)
                if name.endswith("location.linear.bias"):
                    # The logarithm of a gate that is just closing turns the last bit into a percent.
                    parameter.fill_(5.0)
        return model, config

    return build


@pytest.fixture(scope="session")
def export(
    build_model: Callable[[str], tuple[LSTFENet, Config]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Exported]:
    """Return an exporter that writes the graphs of lstfe, or of faster_rcnn, once for all tests."""

    @functools.cache
    def build(method: str = "lstfe") -> Exported:
        model, config = build_model(method)
        directory = tmp_path_factory.mktemp(f"exported-{method}")
        if method == "lstfe":
            export_graphs(model, config, directory)
            return Exported(model, config, directory)
        # With the same weights all graphs but one are lstfe's; exporting takes seconds.
        whole = build("lstfe")
        model.load_state_dict({name: whole.model.state_dict()[name] for name in model.state_dict()})
        for graph in graphs_of(config):
            if graph.name == "relation":
                export_graph(graph.name, model, config, directory)
            else:
                shutil.copy(whole.directory / f"{graph.name}.onnx", directory)
        return Exported(model, config, directory)

    return build


@pytest.fixture(scope="session")
def bundle_dir(export: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that tests may read, not change."""
    exported = export("lstfe")
    directory = tmp_path_factory.mktemp("bundle")
    save_weights(exported.model, directory / WEIGHTS_FILE)
    write_bundle(
        directory / "deployed",
        config=exported.config,
        label_names=LABEL_NAMES,
        weights=directory / WEIGHTS_FILE,
        graphs_dir=exported.directory,
        created_from="0123abc",
    )
    return directory / "deployed"


def moving_frames(
    num_frames: int, image_size: tuple[int, int] = IMAGE_SIZE, *, seed: int = 0
) -> Iterator[ByteArray]:
    """Yield frames of a texture that moves by a pixel a frame, (H, W, 3) uint8."""
    height, width = image_size
    coarse = np.random.default_rng(seed).integers(
        0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8
    )
    texture = coarse.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    for shift in range(num_frames):
        yield np.roll(texture, (shift // 2, shift), axis=(0, 1))


@pytest.fixture(scope="session")
def make_frames() -> Callable[..., Iterator[ByteArray]]:
    """Return `moving_frames`."""
    return moving_frames


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of short videos: make_video(num_frames) -> path of an mp4."""

    def make(num_frames: int, image_size: tuple[int, int] = IMAGE_SIZE, name: str = "clip") -> Path:
        path = tmp_path / f"{name}.mp4"
        with VideoWriter(path, 30.0, image_size) as writer:
            for frame in moving_frames(num_frames, image_size):
                writer.write(frame)
        return path

    return make
