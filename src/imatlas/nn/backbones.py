"""EfficientNet-Lite0: a small convolutional backbone with published weights.

Mingxing Tan and Quoc V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
table 1, in the variant for small devices ("Lite", 2020): ReLU6 instead of swish, no squeeze-and-excitation.

    image (N, 3, H, W) -> stem /2 -> 16 inverted residual blocks /16 -> 1 x 1 head -> average pooling -> (N, 1280)

For inference only: `fold_checkpoint` folds every batch normalization of the published checkpoint into the convolution
before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

N_FEATURES = 1280
LAYERS = {7: 80, 10: 112, 14: 192, 15: 320}
"""Index of a block whose output also serves as features -> its channels: the ends of the last four stages."""

BATCH_NORM_EPSILON = 1e-3


class Stage(NamedTuple):
    """Sequence of inverted residual blocks, of which the first has the stride and changes the channels."""

    n_blocks: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Convolution(nn.Conv2d):
    """Convolution with bias and "same" padding as in TensorFlow: the output size is ceil(size / stride), and an odd
    padding has its extra row and column at the bottom and right. `bounded`: followed by ReLU6."""

    def __init__(
        self, c_in: int, c_out: int, kernel_size: int, stride: int = 1, groups: int = 1, bounded: bool = False
    ) -> None:
        padding = kernel_size // 2 if stride == 1 else 0
        super().__init__(c_in, c_out, kernel_size, stride, padding, groups=groups)
        self.bounded = bounded

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            x = F.pad(x, (*self.margins(x.shape[3]), *self.margins(x.shape[2])))
        x = super().forward(x)
        return F.relu6(x, inplace=True) if self.bounded else x

    def margins(self, size: int) -> tuple[int, int]:
        """Padding before and after `size` pixels along one axis, for strides above 1."""
        stride, kernel_size = self.stride[0], self.kernel_size[0]
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Expansion (1 x 1), depthwise convolution (k x k), projection (1 x 1); a skip connection if the shapes agree."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = c_in * expansion
        self.expand = Convolution(c_in, width, 1, bounded=True) if expansion > 1 else None
        self.depthwise = Convolution(width, width, kernel_size, stride, groups=width, bounded=True)
        self.project = Convolution(width, c_out, 1)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else self.expand(x)
        out = self.project(self.depthwise(hidden))
        return out.add_(x) if self.residual else out


class EfficientNetLite0(nn.Module):
    """Pixels (N, 3, H, W) in [-1, 1] to features (N, 1280), each >= 0.

    Parameters
    ----------
    n_classes : int
        Outputs of the linear classifier that `logits` applies; 0 for none.
    """

    def __init__(self, n_classes: int = 0) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM_CHANNELS, 3, stride=2, bounded=True)
        blocks = []
        channels = STEM_CHANNELS
        for stage in STAGES:
            for i in range(stage.n_blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(InvertedResidual(channels, stage.channels, stage.kernel_size, stride, stage.expansion))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = Convolution(channels, N_FEATURES, 1, bounded=True)
        self.classifier = nn.Linear(N_FEATURES, n_classes) if n_classes else None

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[-1]

    def layers(self, x: Tensor) -> list[Tensor]:
        """Pixels (N, 3, H, W) in [-1, 1] to spatial means after each of `LAYERS`, and to the features."""
        means = []
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in LAYERS:
                means.append(x.mean(dim=(2, 3)))
        return [*means, self.head(x).mean(dim=(2, 3))]

    def maps(self, x: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
        """Pixels (N, 3, H, W) in [-1, 1] to feature maps (N, C, h, w) after the given blocks."""
        found = []
        x = F.relu6(self.stem(x), inplace=True)
        for i in range(max(blocks) + 1):
            x = self.blocks[i](x)
            if i in blocks:
                found.append(x.clone())  # the next block may modify it in place
        return found

    def logits(self, features: Tensor) -> Tensor:
        """Features (N, 1280) to class scores (N, n_classes)."""
        if self.classifier is None:
            raise ValueError("This network was built without a classifier; pass n_classes.")
        return self.classifier(features)


def fold_checkpoint(checkpoint: Mapping[str, Tensor], *, classifier: bool = False) -> dict[str, Tensor]:
    """The published checkpoint as a state dict of `EfficientNetLite0`, with batch normalization folded in.

    With mean m, variance v, scale g and shift b, g (Wx - m) / sqrt(v + e) + b is the convolution with weight
    W g / sqrt(v + e) and bias b - m g / sqrt(v + e); computed in float64.

    Raises
    ------
    KeyError
        If the checkpoint lacks a tensor, or has one that the network does not.
    """
    left = dict(checkpoint)
    state: dict[str, Tensor] = {}

    def fold(name: str, convolution: str, norm: str) -> None:
        weight = left.pop(f"{convolution}.weight").double()
        scale, shift, mean, variance = (
            left.pop(f"{norm}.{part}").double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        left.pop(f"{norm}.num_batches_tracked", None)
        scale = scale / torch.sqrt(variance + BATCH_NORM_EPSILON)
        state[f"{name}.weight"] = (weight * scale[:, None, None, None]).float()
        state[f"{name}.bias"] = (shift - mean * scale).float()

    fold("stem", "_conv_stem", "_bn0")
    expansions = [stage.expansion for stage in STAGES for _ in range(stage.n_blocks)]
    for i, expansion in enumerate(expansions):
        if expansion > 1:
            fold(f"blocks.{i}.expand", f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")
        fold(f"blocks.{i}.depthwise", f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1")
        fold(f"blocks.{i}.project", f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")
    fold("head", "_conv_head", "_bn1")
    top = {f"classifier.{part}": left.pop(f"_fc.{part}") for part in ("weight", "bias")}
    if left:
        raise KeyError(f"the checkpoint has tensors that EfficientNet-Lite0 does not: {sorted(left)[:3]}")
    return state | top if classifier else state
