"""Feature extraction: shapes of every switch, equality with torchvision's networks, and files of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from lstfe.config import BackboneConfig
from lstfe.errors import UserError
from lstfe.model.backbone import Backbone, FrozenBatchNorm

NARROW: dict[str, Any] = {"name": "resnet18", "width": 16}


def build(**keys: Any) -> Backbone:
    torch.manual_seed(0)
    return Backbone(BackboneConfig(**(NARROW | keys)))


@torch.no_grad()
@pytest.mark.parametrize("layer4", [True, False])
@pytest.mark.parametrize("feature_stride", [8, 16])
def test_maps_have_the_stride_and_channels_they_say(feature_stride: int, layer4: bool) -> None:
    backbone = build(feature_stride=feature_stride, layer4=layer4, feature_channels=64)
    features = backbone(torch.randn(2, 3, 64, 96))
    assert features.shape == (2, backbone.channels, 64 // feature_stride, 96 // feature_stride)
    c5 = backbone.high_level(features)
    assert c5.shape == (2, backbone.c5_channels, *features.shape[2:])
    if layer4:
        assert backbone.c5_channels == 128
        assert all(conv.dilation == (2, 2) for conv in convolutions(backbone.layer4, kernel=3))
        assert all(conv.stride == (1, 1) for conv in convolutions(backbone.layer4, kernel=3))
    else:
        assert c5 is features


def convolutions(layer: nn.Module | None, *, kernel: int) -> list[nn.Conv2d]:
    assert layer is not None
    return [m for m in layer.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (kernel, kernel)]


def test_layer4_on_a_fused_map_of_other_channels_is_refused_with_the_number_it_needs() -> None:
    with pytest.raises(UserError, match=r"feature_channels must be 64 .* got 24"):
        build(feature_stride=8, layer4=True, feature_channels=24)


@pytest.mark.parametrize("width", [16, 24, 136])
def test_from_scratch_every_parameter_trains_under_group_norm(width: int) -> None:
    backbone = build(width=width, layer4=False)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    norms = [m for m in backbone.modules() if "Norm" in type(m).__name__]
    assert norms
    assert all(isinstance(norm, nn.GroupNorm) for norm in norms)


# --------------------------------------------------------------------------------------- pretrained files


def torchvision_network(name: str) -> nn.Module:
    """A torchvision network with random weights and running statistics, as after a training."""
    torch.manual_seed(1)
    network: nn.Module = getattr(torchvision.models, name)(weights=None).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.3, 0.7)
    return network


def through_layer3(network: nn.Module, images: Tensor) -> Tensor:
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    result: Tensor = network.layer3(network.layer2(network.layer1(x)))
    return result


@pytest.fixture
def weights_file(tmp_path: Path) -> Callable[[object], Path]:
    def save(content: object) -> Path:
        path = tmp_path / "weights.pth"
        torch.save(content, path)
        return path

    return save


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_torchvision_state_dict_gives_torchvisions_features(
    name: str, weights_file: Callable[[object], Path]
) -> None:
    network = torchvision_network(name)
    path = weights_file(network.state_dict())
    backbone = Backbone(BackboneConfig(name=name, weights=str(path))).train()  # type: ignore[arg-type]
    images = torch.randn(1, 3, 64, 64)
    c4 = through_layer3(network, images)
    torch.testing.assert_close(backbone(images), c4, rtol=1e-4, atol=1e-4)
    # The same layer, undone by hand: no stride, every 3x3 with holes.
    for layer in network.layer4.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
            if layer.kernel_size == (3, 3):
                layer.dilation = layer.padding = (2, 2)
    torch.testing.assert_close(backbone.high_level(c4), network.layer4(c4), rtol=1e-4, atol=1e-4)


def test_with_pretrained_weights_stem_and_layer1_and_all_batch_norms_are_frozen(
    weights_file: Callable[[object], Path],
) -> None:
    path = weights_file(torchvision_network("resnet18").state_dict())
    backbone = Backbone(BackboneConfig(name="resnet18", weights=str(path), feature_stride=8, layer4=False))
    trainable = {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trainable == {"layer2", "layer3", "lateral3", "lateral4"}
    norms = [m for m in backbone.modules() if "Norm" in type(m).__name__]
    assert all(isinstance(norm, FrozenBatchNorm) for norm in norms)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def frozen_pair() -> tuple[FrozenBatchNorm, FrozenBatchNorm2d]:
    """Ours and torchvision's with the same random numbers."""
    ours, theirs = FrozenBatchNorm(8), FrozenBatchNorm2d(8)
    theirs.load_state_dict({name: torch.rand(8) + 0.1 for name in theirs.state_dict()})
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def test_the_frozen_batch_norm_is_torchvisions_to_the_last_bit_in_float32() -> None:
    ours, theirs = frozen_pair()
    features = torch.randn(2, 8, 5, 7).to(memory_format=torch.channels_last)
    assert torch.equal(ours(features), theirs(features))
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_the_frozen_batch_norm_keeps_the_precision_of_its_input() -> None:
    """In float32, which scale and shift are in, everything after it would take twice the memory."""
    ours, theirs = frozen_pair()
    features = torch.randn(2, 8, 5, 7)
    found = ours(features.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), theirs(features), rtol=0.03, atol=0.03)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*nowhere\.pth; expected imagenet, none, or"):
        Backbone(BackboneConfig(name="resnet18", weights=str(tmp_path / "nowhere.pth")))


def test_a_file_that_is_no_state_dict_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.pth"
    path.write_text("not weights")
    with pytest.raises(UserError, match=r"notes\.pth: not a PyTorch state dict"):
        Backbone(BackboneConfig(name="resnet18", weights=str(path)))
    torch.save([1, 2, 3], path)
    with pytest.raises(UserError, match=r"notes\.pth: expected a state dict, found list"):
        Backbone(BackboneConfig(name="resnet18", weights=str(path)))


def without_layer4(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("layer4.")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: torchvision_network("resnet34").state_dict(), "not a state dict of resnet18.* unknown"),
        (lambda: {"model": torchvision_network("resnet18").state_dict()}, "entries missing.*conv1.weight"),
        (lambda: without_layer4(torchvision_network("resnet18").state_dict()), "missing.*layer4"),
        (lambda: {}, "not a state dict of resnet18"),
    ],
    ids=["another network", "a checkpoint", "cut off", "empty"],
)
def test_the_wrong_state_dict_is_refused_with_what_is_wrong(
    content: Callable[[], object], message: str, weights_file: Callable[[object], Path]
) -> None:
    path = weights_file(content())
    with pytest.raises(UserError, match=rf"(?s)weights\.pth.*{message}"):
        Backbone(BackboneConfig(name="resnet18", weights=str(path)))


def test_weights_of_another_width_are_refused_with_both_shapes(
    weights_file: Callable[[object], Path],
) -> None:
    path = weights_file(torchvision_network("resnet18").state_dict())
    with pytest.raises(UserError, match=r"conv1\.weight is \(64, 3, 7, 7\), expected \(16, 3, 7, 7\)"):
        Backbone(BackboneConfig(**NARROW, weights=str(path)))


def test_layer4_may_be_absent_from_the_file_where_it_is_off(weights_file: Callable[[object], Path]) -> None:
    path = weights_file(without_layer4(torchvision_network("resnet18").state_dict()))
    assert Backbone(BackboneConfig(name="resnet18", weights=str(path), layer4=False)).layer4 is None


def test_the_file_is_not_read_where_a_trained_state_follows(tmp_path: Path) -> None:
    config = BackboneConfig(name="resnet18", weights=str(tmp_path / "gone.pth"))
    backbone = Backbone(config, pretrained=False)
    assert isinstance(backbone.bn1, FrozenBatchNorm)
