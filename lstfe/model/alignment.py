"""Spatio-temporal feature alignment: deformable convolutions warp short-term features onto the current frame.

Paper 3.2 and Fig. 2a-b. Shapes: B clips, S short-term frames, C channels, h x w cells, K kernel size (3 or 1).
`sampling_offsets` are (dy, dx) in cells, one pair per kernel tap, torchvision's order.

Bilinear sampling is linear, so the last deformable convolution commutes with its own weights: the maps W_p f_s of
all K*K taps are one dense 1x1 convolution, done once per frame, and what is left per (current, short-term) pair is
a weighted sum of 4 * K * K rows per cell. Both forms are here; a test holds them equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from lstfe.config import AlignmentConfig


@dataclass(slots=True)
class SupportMaps:
    """All that alignment needs of a short-term frame, computed once per frame and kept while streaming."""

    features: Tensor
    """(..., C, h, w) f_s."""
    offset_response: Tensor
    """(..., 2*K*K, h, w) the first offset convolution's share of f_s, without bias."""
    taps: Tensor
    """(..., K*K, h*w, C) W_p f_s of the last deformable convolution, cells as rows."""


class FeatureAlignment(nn.Module):
    """k cascaded offset predictions, the last of which warps f_s (paper Fig. 2a-b)."""

    def __init__(self, channels: int, config: AlignmentConfig) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = config.kernel_size
        self.num_blocks = config.num_blocks
        taps = config.kernel_size**2
        offset_convs = [nn.Conv2d(2 * channels, 2 * taps, 3, padding=1) for _ in range(config.num_blocks)]
        for parameter in (parameter for conv in offset_convs for parameter in conv.parameters()):
            nn.init.zeros_(parameter)  # training starts from "no motion"
        self.offset_convs = nn.ModuleList(offset_convs)
        # The k-th block's own mixture would never be used, so there are k - 1 of these.
        self.mixing_weights = nn.ParameterList(
            _identity_kernel(2 * channels, config.kernel_size) for _ in range(config.num_blocks - 1)
        )
        self.weight = _identity_kernel(channels, config.kernel_size)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, current: Tensor, short_term: Tensor) -> Tensor:
        """Align every short-term frame onto the current one: (B, C, h, w), (B, S, C, h, w) -> (B, S, C, h, w)."""
        if short_term.is_cuda:  # the fused operator is the faster one there
            return self.align_directly(current, short_term)
        return self.align(current, self.prepare(short_term))

    def prepare(self, features: Tensor) -> SupportMaps:
        """Compute the once-per-frame part of short-term frames: (B, S, C, h, w) -> maps with (B, S) in front."""
        lead, (channels, height, width) = features.shape[:-3], features.shape[-3:]
        flat = features.reshape(-1, channels, height, width)
        response = self.offset_response(flat)
        taps = tap_maps(flat, self.weight)
        return SupportMaps(
            features, response.reshape(*lead, *response.shape[1:]), taps.reshape(*lead, *taps.shape[1:])
        )

    def align(self, current: Tensor, support: SupportMaps) -> Tensor:
        """Align by the commuted form: (B, C, h, w), maps of (B, S) frames -> (B, S, C, h, w)."""
        offsets = self.sampling_offsets(current, support.features, support.offset_response)
        taps = support.taps.flatten(0, 1)  # (B*S, K*K, h*w, C)
        height, width = current.shape[-2:]
        aligned = sampled_sum(taps, offsets.flatten(0, 1), (height, width), self.kernel_size)
        aligned = aligned + self.bias[:, None, None]
        return aligned.reshape(*support.features.shape)

    def align_directly(self, current: Tensor, short_term: Tensor) -> Tensor:
        """Align with the plain deformable convolution, the reference form: same shapes as `forward`."""
        response = self.offset_response(short_term.flatten(0, 1))
        response = response.reshape(*short_term.shape[:2], *response.shape[1:])
        offsets = self.sampling_offsets(current, short_term, response, directly=True)
        aligned = self._deform(short_term.flatten(0, 1), offsets.flatten(0, 1), self.weight, self.bias)
        return aligned.reshape(short_term.shape)

    def sampling_offsets(
        self, current: Tensor, short_term: Tensor, response: Tensor, *, directly: bool = False
    ) -> Tensor:
        """Return m_k, the last block's offsets: (B, S, 2*K*K, h, w).

        `response` is `offset_response` of the short-term frames; `directly` uses the plain deformable convolution in
        the blocks before the last one, as on a GPU.
        """
        first = self._first_offset_conv()
        # W [f_t; f_s] = W_t f_t + W_s f_s: the current frame's share is computed once for all S frames.
        own = F.conv2d(current, first.weight[:, : self.channels], first.bias, padding=1)
        offsets = own[:, None] + response
        if self.num_blocks == 1:
            return offsets
        pair = torch.cat((current[:, None].expand_as(short_term), short_term), dim=2).flatten(0, 1)
        flat_offsets = offsets.flatten(0, 1)
        for weight, offset_conv in zip(self.mixing_weights, list(self.offset_convs)[1:], strict=True):
            pair = self._mix(pair, flat_offsets, weight, directly=directly)  # (B*S, 2C, h, w)
            flat_offsets = offset_conv(pair)
        return flat_offsets.reshape(offsets.shape)

    def offset_response(self, short_term: Tensor) -> Tensor:
        """Return the first offset convolution's share of f_s: (N, C, h, w) -> (N, 2*K*K, h, w)."""
        return F.conv2d(short_term, self._first_offset_conv().weight[:, self.channels :], padding=1)

    def _first_offset_conv(self) -> nn.Conv2d:
        return cast(nn.Conv2d, self.offset_convs[0])

    def _mix(self, pair: Tensor, offsets: Tensor, weight: Tensor, *, directly: bool) -> Tensor:
        if directly or pair.is_cuda:
            return self._deform(pair, offsets, weight, None)
        map_size = (pair.shape[2], pair.shape[3])
        return sampled_sum(tap_maps(pair, weight), offsets, map_size, self.kernel_size)

    def _deform(self, features: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        deformed: Tensor = deform_conv2d(features, offsets, weight, bias, padding=self.kernel_size // 2)
        return deformed


def tap_maps(features: Tensor, weight: Tensor) -> Tensor:
    """Apply every tap's weights to the whole map: (N, C, h, w), (C', C, K, K) -> (N, K*K, h*w, C')."""
    rows = features.flatten(2).transpose(1, 2)  # (N, h*w, C)
    return rows[:, None] @ weight.flatten(2).permute(2, 1, 0)[None]


def sampled_sum(
    taps: Tensor, sampling_offsets: Tensor, map_size: tuple[int, int], kernel_size: int
) -> Tensor:
    """Sum bilinear samples of per-tap maps: (N, K*K, h*w, C), (N, 2*K*K, h, w) -> (N, C, h, w).

    Equal to `deform_conv2d` when `taps` holds W_p f for every tap p; outside the map is zero. Coordinates and sums
    are float32 at least, whatever the maps are: bfloat16 cannot even name the cells of a large map.
    """
    number, num_taps, cells, channels = taps.shape
    precise = torch.promote_types(taps.dtype, torch.float32)
    rows, weights = _corner_rows(sampling_offsets.to(precise), map_size, kernel_size)  # (N, h*w, K*K, 4) each
    tap_index = torch.arange(number * num_taps, device=taps.device).reshape(number, 1, num_taps, 1)
    indices = (tap_index * cells + rows).reshape(number * cells, num_taps * 4)
    summed = F.embedding_bag(
        indices,
        taps.to(precise).reshape(-1, channels),
        mode="sum",
        per_sample_weights=weights.reshape(indices.shape),
    )  # (N*h*w, C)
    return summed.to(taps.dtype).reshape(number, *map_size, channels).permute(0, 3, 1, 2)


def _corner_rows(offsets: Tensor, map_size: tuple[int, int], kernel_size: int) -> tuple[Tensor, Tensor]:
    """Return row index and weight of the four cells around every sampling point: (N, h*w, K*K, 4) twice."""
    height, width = map_size
    device, dtype = offsets.device, offsets.dtype
    dy, dx = offsets.unflatten(1, (-1, 2)).unbind(2)  # (N, K*K, h, w)
    steps = torch.arange(kernel_size, device=device, dtype=dtype) - kernel_size // 2
    tap_y, tap_x = (grid.reshape(1, -1, 1, 1) for grid in torch.meshgrid(steps, steps, indexing="ij"))
    y = dy + tap_y + torch.arange(height, device=device, dtype=dtype)[:, None]
    x = dx + tap_x + torch.arange(width, device=device, dtype=dtype)
    # What is not finite sees nothing, as in the plugin: -2 has all its corners outside of the map.
    y, x = (torch.nan_to_num(place, nan=-2.0, posinf=-2.0, neginf=-2.0) for place in (y, x))
    y0, x0 = y.floor(), x.floor()
    # Not 1 - |y - y0|: its derivative at whole cells is 0, and training starts exactly there.
    part_y, part_x = y - y0, x - x0
    corner_rows, corner_weights = [], []
    for step_y in (0, 1):
        for step_x in (0, 1):
            corner_y, corner_x = y0 + step_y, x0 + step_x
            inside = (corner_y >= 0) & (corner_y < height) & (corner_x >= 0) & (corner_x < width)
            weight = (part_y if step_y else 1 - part_y) * (part_x if step_x else 1 - part_x) * inside
            row = corner_y.clamp(0, height - 1).long() * width + corner_x.clamp(0, width - 1).long()
            corner_rows.append(row)
            corner_weights.append(weight)
    rows, weights = torch.stack(corner_rows, dim=-1), torch.stack(corner_weights, dim=-1)  # (N, K*K, h, w, 4)
    return rows.flatten(2, 3).transpose(1, 2), weights.flatten(2, 3).transpose(1, 2)


def _identity_kernel(channels: int, kernel_size: int) -> nn.Parameter:
    weight = torch.zeros(channels, channels, kernel_size, kernel_size)
    weight[:, :, kernel_size // 2, kernel_size // 2] = torch.eye(channels)
    return nn.Parameter(weight)
