"""The network of a bundle in PyTorch."""

from __future__ import annotations

from deploy.bundle import WEIGHTS_FILE, Bundle
from lstfe.model.detector import LSTFENet
from lstfe.training.checkpoint import load_weights


def load_network(bundle: Bundle) -> LSTFENet:
    """Return the network of a bundle with its weights, in evaluation mode."""
    network = LSTFENet(bundle.config.model, len(bundle.label_names) + 1, pretrained=False)
    load_weights(network, bundle.directory / WEIGHTS_FILE)
    return network.eval()
