from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from deploy.tensorrt.resampling import padded_size, resample_model, resampling_of
from lstfe.config import ModelConfig
from lstfe.data import transforms

CONFIG = ModelConfig(image_short_side=64, image_long_side=96)
SIZES = [(64, 96), (150, 210), (33, 41), (64, 300), (200, 60), (70, 90), (61, 95)]


@pytest.mark.parametrize("frame_size", SIZES)
def test_the_gpu_s_preprocessing_is_the_training_s(frame_size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*frame_size, 3), dtype=np.uint8)
    image = transforms.to_model_input(torch.from_numpy(frame).permute(2, 0, 1)[None], CONFIG)
    expected = transforms.pad_to_one_size([image])[0].numpy()
    found = resampling_of(frame_size, CONFIG)
    session = onnxruntime.InferenceSession(resample_model(17, TensorProto.FLOAT).SerializeToString())
    arrays = {name: getattr(found, name) for name in ("row_weights", "column_weights", "inside")}
    (resized,) = session.run(None, {"frame": frame, **arrays})
    assert found.image_size == tuple(image.shape[2:])
    np.testing.assert_allclose(resized, expected, atol=4e-5)  # PyTorch has its weights in float32 throughout
    assert not resized[0, :, found.inside == 0].any(), "the padding must stay exactly zero"


def test_sides_are_padded_to_multiples_of_32() -> None:
    assert padded_size((64, 65)) == (64, 96)
