from __future__ import annotations

import pytest

from lstfe.config import ModelConfig
from lstfe.image_size import model_input_size

CONFIG = ModelConfig(image_short_side=64, image_long_side=96)


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        ((64, 96), (64, 96)),
        ((32, 48), (64, 96)),
        ((480, 640), (64, 85)),
        ((100, 400), (24, 96)),
        ((400, 100), (96, 24)),
        ((1, 500), (1, 96)),
    ],
)
def test_the_short_side_is_reached_unless_the_long_one_is_too_long(
    image_size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert model_input_size(image_size, CONFIG) == expected
