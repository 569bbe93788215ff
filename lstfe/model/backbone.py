"""Feature extraction: a ResNet trunk to C4 (or a fused stride-8 map) and layer4 on the whole map.

Shapes: N frames, H x W image pixels, h x w cells of the feature map, C feature channels, E channels of C5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import BasicBlock, Bottleneck

from lstfe.config import BackboneConfig
from lstfe.errors import UserError

# Blocks per layer (He et al. 2016, Table 1).
_DEPTHS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
Norm = Callable[[int], nn.Module]
_BATCH_NORM_EPS = 1e-5  # torchvision's


def _group_norm(channels: int) -> nn.GroupNorm:
    # Groups of 8 channels, at most 32 groups; gcd because 32 does not divide every width of BackboneConfig.
    return nn.GroupNorm(channels // 8 if channels <= 256 else math.gcd(32, channels), channels)


class FrozenBatchNorm(nn.Module):
    """Batch norm with the numbers of a pretrained network, under torchvision's names.

    Unlike torchvision's own it keeps the precision of its input: under autocast, scale and shift in float32 would
    turn everything after it into float32, at twice the memory.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, features: Tensor) -> Tensor:
        """Scale and shift each channel: (N, C, h, w) -> (N, C, h, w)."""
        scale = self.weight * (self.running_var + _BATCH_NORM_EPS).rsqrt()
        shift = self.bias - self.running_mean * scale
        scale, shift = (values.to(features.dtype).view(1, -1, 1, 1) for values in (scale, shift))
        return features * scale + shift


class Backbone(nn.Module):
    """Images -> the feature map that alignment, proposals and RoIAlign work on.

    Parameter names are torchvision's, so that its ResNet state dicts load as they are. With pretrained weights
    batch norm is frozen and so are stem and layer1; from scratch everything trains, under GroupNorm.
    """

    def __init__(self, config: BackboneConfig, *, pretrained: bool = True) -> None:
        """`pretrained=False` builds the same network without reading `config.weights`: a trained state follows."""
        super().__init__()
        block, depths = _DEPTHS[config.name]
        norm: Norm = _group_norm if config.weights == "none" else FrozenBatchNorm
        width = config.width
        c3, c4, self.c5_channels = (width * scale * block.expansion for scale in (2, 4, 8))
        self.stride = config.feature_stride
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(width)
        self.layer1 = _layer(block, width, width, depths[0], norm, stride=1)
        self.layer2 = _layer(block, width * block.expansion, width * 2, depths[1], norm, stride=2)
        self.layer3 = _layer(block, c3, width * 4, depths[2], norm, stride=2)
        self.layer4 = (
            _dilated(_layer(block, c4, width * 8, depths[3], norm, stride=1)) if config.layer4 else None
        )
        self.channels = c4 if self.stride == 16 else config.feature_channels
        if self.stride == 8:
            if config.layer4 and self.channels != c4:
                raise UserError(
                    f"backbone.feature_channels must be {c4} for layer4 of {config.name} to run on the fused map, "
                    f"got {self.channels}; set it, or set backbone.layer4: false"
                )
            self.lateral3 = nn.Conv2d(c3, self.channels, 1)
            self.lateral4 = nn.Conv2d(c4, self.channels, 1)
        if self.layer4 is None:
            self.c5_channels = self.channels
        self._initialise()
        if pretrained and config.weights != "none":
            self._load(config)

    def forward(self, images: Tensor) -> Tensor:
        """Extract the feature map: (N, 3, H, W) -> (N, C, h, w)."""
        features = F.relu(self.bn1(self.conv1(images)))
        features = self.layer1(F.max_pool2d(features, 3, stride=2, padding=1))
        c3 = self.layer2(features)
        c4: Tensor = self.layer3(c3)
        if self.stride == 16:
            return c4
        upsampled = F.interpolate(self.lateral4(c4), size=c3.shape[-2:], mode="nearest")
        fused: Tensor = self.lateral3(c3) + upsampled
        return fused

    def high_level(self, features: Tensor) -> Tensor:
        """Run layer4 (stride 1, dilation 2) on the whole map: (N, C, h, w) -> C5 (N, E, h, w)."""
        if self.layer4 is None:
            return features
        c5: Tensor = self.layer4(features)
        return c5

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _load(self, config: BackboneConfig) -> None:
        if config.weights == "imagenet":
            state = _torchvision_state(config.name)
        else:
            state = _state_from_file(Path(config.weights))
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
        own = self.state_dict()
        missing = [key for key in own if key not in state and not key.startswith("lateral")]
        unknown = [key for key in state if key not in own and not key.startswith("layer4.")]
        unknown = [key for key in unknown if not key.endswith("num_batches_tracked")]
        if missing or unknown:
            raise UserError(
                f"backbone.weights {config.weights}: not a state dict of {config.name}: "
                f"{len(missing)} entries missing (first: {missing[:1]}), "
                f"{len(unknown)} unknown (first: {unknown[:1]}); "
                "expected torchvision's names (conv1.weight, layer1.0.conv1.weight, ...)"
            )
        other = [key for key in own if key in state and state[key].shape != own[key].shape]
        if other:
            raise UserError(
                f"backbone.weights {config.weights}: {other[0]} is {tuple(state[other[0]].shape)}, expected "
                f"{tuple(own[other[0]].shape)} for {config.name} of width {config.width}; set backbone.name and "
                "backbone.width to the file's network"
            )
        self.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
        for frozen in (self.conv1, self.bn1, self.layer1):
            frozen.requires_grad_(False)


def _layer(
    block: type[BasicBlock] | type[Bottleneck],
    inplanes: int,
    planes: int,
    depth: int,
    norm: Norm,
    *,
    stride: int,
) -> nn.Sequential:
    outplanes = planes * block.expansion
    downsample = None
    if stride != 1 or inplanes != outplanes:
        downsample = nn.Sequential(
            nn.Conv2d(inplanes, outplanes, 1, stride=stride, bias=False), norm(outplanes)
        )
    first = block(inplanes, planes, stride, downsample, norm_layer=norm)
    return nn.Sequential(first, *(block(outplanes, planes, norm_layer=norm) for _ in range(1, depth)))


def _dilated(layer: nn.Sequential) -> nn.Sequential:
    # torchvision builds dilated bottlenecks only; setting the attributes covers basic blocks too.
    for module in layer.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation, module.padding = (2, 2), (2, 2)
    return layer


def _torchvision_state(name: str) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = get_model_weights(name).DEFAULT.get_state_dict(
            progress=False, check_hash=True
        )
    except OSError as error:
        raise UserError(
            f"backbone.weights imagenet: could not download torchvision's {name} ({error}); "
            "download the file once and set backbone.weights to its path, or set it to none"
        ) from None
    return state


def _state_from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(
            f"backbone.weights: no file {path}; expected imagenet, none, or the path of a state dict"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises pickle, zip and runtime errors alike for a file that is no state dict.
        raise UserError(
            f"backbone.weights {path}: not a PyTorch state dict ({type(error).__name__})"
        ) from None
    if not isinstance(state, dict):
        raise UserError(f"backbone.weights {path}: expected a state dict, found {type(state).__name__}")
    return state
