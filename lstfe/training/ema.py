"""A running mean of the weights, which detects better than the last of them where the learning rate stays high."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MeanWeights:
    """Exponential moving average of a model's parameters; its buffers do not train and are left alone."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters = dict(model.named_parameters())
        self._means = {name: tensor.detach().clone() for name, tensor in self._parameters.items()}
        self._decay = decay

    @torch.no_grad()
    def restart(self) -> None:
        """Begin with the weights as they are."""
        for name, mean in self._means.items():
            mean.copy_(self._parameters[name])

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Take in the weights after `num_updates` updates; the first ones count for more, or the start would stay."""
        decay = min(self._decay, (1 + num_updates) / (10 + num_updates))
        torch._foreach_lerp_(list(self._means.values()), list(self._parameters.values()), 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the means by the names of their parameters."""
        return self._means

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from saved means."""
        for name, mean in self._means.items():
            mean.copy_(state[name])

    @torch.no_grad()
    def adopt(self) -> None:
        """Give the model the means for good."""
        for name, mean in self._means.items():
            self._parameters[name].copy_(mean)

    @contextmanager
    def adopted(self) -> Iterator[None]:
        """Give the model the means for the length of the block."""
        weights = {name: tensor.detach().clone() for name, tensor in self._parameters.items()}
        self.adopt()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in weights.items():
                    self._parameters[name].copy_(tensor)
