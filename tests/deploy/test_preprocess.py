from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from deploy.preprocess import preprocess_model
from lstfe.config import ModelConfig
from lstfe.data.transforms import pad_to_one_size, to_model_input
from lstfe.image_size import model_input_size

CONFIG = ModelConfig(image_short_side=64, image_long_side=96)


def session(config: ModelConfig) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        preprocess_model(config, 20).SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize(
    "frame_size",
    [(64, 96), (128, 192), (57, 91), (101, 77), (48, 64), (101, 500), (9, 300)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
def test_frames_come_out_as_the_training_transforms_make_them(frame_size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*frame_size, 3), dtype=np.uint8)
    image, image_size = session(CONFIG).run(None, {"frame": frame})
    expected = to_model_input(torch.from_numpy(frame).permute(2, 0, 1)[None], CONFIG)
    assert tuple(image_size) == expected.shape[2:]
    # A hundredth of a grey level, in units of the standard deviation.
    np.testing.assert_allclose(image, pad_to_one_size([expected])[0], atol=0.01 / (0.225 * 255))


def test_sizes_round_as_in_training_for_every_frame_size() -> None:
    for config in (CONFIG, replace(CONFIG, image_short_side=600, image_long_side=1000)):
        sizes = session(config)
        for height, width in np.random.default_rng(1).integers(16, 64, (60, 2)).tolist():
            frame = np.zeros((height, width, 3), np.uint8)
            [found] = sizes.run(["image_size"], {"frame": frame})
            assert tuple(found) == model_input_size((height, width), config), (height, width)
