"""How large the network's image of a frame is; without torch, for what runs engines."""

from __future__ import annotations

from lstfe.config import ModelConfig

PAD_MULTIPLE = 32
"""Padded sides are multiples of this, pixels."""


def model_input_size(image_size: tuple[int, int], config: ModelConfig) -> tuple[int, int]:
    """Return the (height, width) of the network's image: as short and long side of the model allow."""
    scale = min(config.image_short_side / min(image_size), config.image_long_side / max(image_size))
    return max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale))
