"""Operations against numbers worked out by hand; a device's rate by its name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from lstfe.training import speed
from lstfe.training.speed import count_flops, gpu_memory_gb, peak_flops

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_nothing_done_costs_nothing() -> None:
    assert count_flops(lambda: None) == 0


def test_a_convolution_costs_two_operations_a_weight_and_cell_and_twice_as_many_backwards() -> None:
    conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    images = torch.rand(2, 3, 5, 7, requires_grad=True)
    forward = 2 * (2 * 8 * 5 * 7) * (3 * 3 * 3)
    assert count_flops(lambda: conv(images)) == forward
    assert count_flops(lambda: conv(images).sum().backward()) == 3 * forward


def test_a_deformable_convolution_costs_what_a_plain_one_does() -> None:
    features, weight = torch.rand(2, 4, 5, 6, requires_grad=True), torch.rand(8, 4, 3, 3, requires_grad=True)
    offsets = torch.zeros(2, 18, 5, 6)
    forward = 2 * (2 * 8 * 5 * 6) * (4 * 3 * 3)
    assert count_flops(lambda: deform_conv2d(features, offsets, weight, padding=1)) == forward
    assert (
        count_flops(lambda: deform_conv2d(features, offsets, weight, padding=1).sum().backward())
        == 3 * forward
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A10G", 70e12),
        ("Something else", None),
    ],
)
def test_a_gpus_rate_is_known_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, expected: float | None
) -> None:
    monkeypatch.setattr(speed.torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(GPU) == expected


def test_of_a_cpu_neither_rate_nor_memory_is_stated() -> None:
    assert peak_flops(CPU) is None
    assert gpu_memory_gb(CPU) is None
