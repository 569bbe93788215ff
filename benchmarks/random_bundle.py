"""A bundle of a network with random weights: speed and memory need no training, because all graphs have fixed sizes."""

from __future__ import annotations

from pathlib import Path

import torch

from deploy.bundle import WEIGHTS_FILE, Bundle, write_bundle
from deploy.export_onnx import export_graphs
from lstfe.config import Config
from lstfe.model.detector import LSTFENet
from lstfe.training.checkpoint import save_weights

LABEL_NAMES = ("drone",)


def random_bundle(config: Config, folder: Path) -> Bundle:
    """Write a bundle of `config` (its method resolved) below the folder, always with the same weights."""
    torch.manual_seed(0)
    model = LSTFENet(config.model, len(LABEL_NAMES) + 1, pretrained=False).eval()
    export_graphs(model, config, folder / "graphs")
    save_weights(model, folder / WEIGHTS_FILE)
    return write_bundle(
        folder / "bundle",
        config=config,
        label_names=LABEL_NAMES,
        weights=folder / WEIGHTS_FILE,
        graphs_dir=folder / "graphs",
        created_from="benchmark",
    )
