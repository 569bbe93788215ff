"""The two graphs that only the form `commuted` has: the alignment with its once-per-frame part done beforehand.

Shapes: see deploy/graphs.py; C channels, K kernel size, S short-term frames.
"""

from __future__ import annotations

from torch import Tensor, nn

from deploy.tensorrt_graphs.operators import sampled_sum
from lstfe.model.detector import LSTFENet


class SupportGraph(nn.Module):
    """What the alignment of the form `commuted` needs of a short-term frame."""

    def __init__(self, model: LSTFENet) -> None:
        super().__init__()
        assert model.alignment is not None
        self.alignment = model.alignment

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(1, C, h, w) -> support_maps (1, h, w, K*K*C) tap-major, offset_response (1, 2*K*K, h, w)."""
        channels, height, width = features.shape[1:]
        weight = self.alignment.weight.permute(1, 2, 3, 0).flatten(1)  # (C, K*K*C)
        # One product of two matrices, whose result lies as the sampled sum reads it: no layer moves it.
        maps = features.reshape(channels, height * width).transpose(0, 1) @ weight
        return maps.reshape(1, height, width, -1), self.alignment.offset_response(features)


class CommutedAlignGraph(nn.Module):
    """`export_onnx.AlignGraph` with the once-per-frame part done: the last deformable convolution is a sampled sum."""

    def __init__(self, model: LSTFENet) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, *short_term: Tensor) -> tuple[Tensor, ...]:
        """(1, C, h, w), (1, S, C, h, w) if there are several blocks, support maps, offset response of S frames."""
        *cascade, support_maps, offset_response = short_term
        alignment, aggregation = self.model.alignment, self.model.pixel_aggregation
        assert alignment is not None
        assert aggregation is not None
        # With one block the features themselves are not looked at.
        short_term_features = cascade[0] if cascade else features[:, None]
        offsets = alignment.sampling_offsets(features, short_term_features, offset_response, directly=True)
        summed = sampled_sum(
            support_maps.flatten(0, 1), offsets.flatten(0, 1), alignment.bias, alignment.kernel_size
        )
        aligned = summed.reshape(*support_maps.shape[:2], *summed.shape[1:])
        maps = self.model.describe(aggregation(features, aligned))
        return maps.roi_map, maps.objectness, maps.box_deltas
