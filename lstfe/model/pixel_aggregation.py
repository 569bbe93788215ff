"""Pixel-level aggregation: aligned short-term features are summed into the current ones with learned weights.

Paper eq. 1-2 and Fig. 2c. Shapes: B clips, S aligned frames, C channels, h x w cells.

The mask function's first layer sees f_multi = cat(f_t - A, A - f_t, f_t, A). It is linear in f_t and A, so its
weights fold into one part for f_t, applied once, and one for A; the concatenation is never made.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lstfe.config import PixelAggregationConfig

# Keeps an all-zero feature column finite under the L2 norm.
_EPS = 1e-6


class PixelAggregation(nn.Module):
    """Weigh each aligned frame per cell (and channel) and sum them up (paper eq. 2)."""

    def __init__(self, channels: int, config: PixelAggregationConfig) -> None:
        super().__init__()
        self.include_current = config.include_current
        self.mask = _build_mask(channels, config)

    def forward(self, current: Tensor, aligned: Tensor) -> Tensor:
        """Enhance the current features: (B, C, h, w), (B, S, C, h, w) -> (B, C, h, w)."""
        # Deviation: eq. 2 as printed weighs f_t with weights that sum to 1, a no-op; the sum is over the aligned
        # frames. With include_current f_t is one of them, which protects against scene cuts.
        if self.include_current:
            aligned = torch.cat((current[:, None], aligned), dim=1)
        return (self.weights(current, aligned) * aligned).sum(dim=1)

    def weights(self, current: Tensor, aligned: Tensor) -> Tensor:
        """Return weights that sum to 1 over the frames: (B, S, C, h, w), or (B, S, 1, h, w) for one a cell."""
        weights: Tensor = self.mask(current, aligned).softmax(dim=1)
        return weights


class _FoldedMask(nn.Module):
    """rho: 4C -> `hidden` -> `outputs`, with the first layer folded (see the module's docstring)."""

    def __init__(self, channels: int, hidden: int, outputs: int, *, kernel_size: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.squeeze = nn.Conv2d(4 * channels, hidden, kernel_size, padding=kernel_size // 2)
        self.fuse = nn.Conv2d(hidden, outputs, 3, padding=1)

    def forward(self, current: Tensor, aligned: Tensor) -> Tensor:
        """Return one logit map per frame: (B, C, h, w), (B, S, C, h, w) -> (B, S, outputs, h, w)."""
        forward_difference, backward_difference, own, other = self.squeeze.weight.split(self.channels, dim=1)
        padding = self.squeeze.padding
        of_current = F.conv2d(
            current, forward_difference - backward_difference + own, self.squeeze.bias, padding=padding
        )
        of_aligned = F.conv2d(
            aligned.flatten(0, 1), backward_difference - forward_difference + other, padding=padding
        )
        hidden = _per_frame(of_aligned, aligned) + of_current[:, None]
        return _per_frame(self.fuse(F.relu(hidden).flatten(0, 1)), aligned)


class _EmbeddedMask(nn.Module):
    """rho on L2-normalised embeddings of twice the width, the heaviest variant."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.mask = _FoldedMask(2 * channels, channels, channels, kernel_size=3)

    def forward(self, current: Tensor, aligned: Tensor) -> Tensor:
        embedded = _per_frame(self.embed(aligned.flatten(0, 1)), aligned)
        logits: Tensor = self.mask(
            F.normalize(self.embed(current), dim=1, eps=_EPS), F.normalize(embedded, dim=2, eps=_EPS)
        )
        return logits


class _CosineMask(nn.Module):
    """Cosine similarity of the features themselves, without parameters (FGFA, STSN)."""

    def forward(self, current: Tensor, aligned: Tensor) -> Tensor:
        return F.cosine_similarity(current[:, None], aligned, dim=2, eps=_EPS)[:, :, None]


def _build_mask(channels: int, config: PixelAggregationConfig) -> nn.Module:
    if config.weights == "lite":
        return _FoldedMask(channels, 64, 1)
    if config.weights == "paper":
        return _FoldedMask(channels, channels // 4, channels)
    return _EmbeddedMask(channels) if config.weights == "authors" else _CosineMask()


def _per_frame(maps: Tensor, frames: Tensor) -> Tensor:
    """Give maps of (B*S, ...) the leading (B, S) of `frames`."""
    return maps.reshape(*frames.shape[:2], *maps.shape[1:])
