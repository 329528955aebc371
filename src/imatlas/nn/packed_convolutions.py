"""Convolutions with weights packed for oneDNN: the same results on x86 processors, about twice as fast.

oneDNN, which computes PyTorch's convolutions on x86, needs the weights in a layout of its own and can fuse ReLU6 into
the convolution. PyTorch converts the layout in every call and applies ReLU6 in a second pass; here the weights are
packed once and the activation is fused.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imatlas.nn.backbones import Convolution


def packs() -> bool:
    """Whether convolutions can be packed on this machine: an x86 processor, and a PyTorch built with oneDNN."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
    )


def packed(module: nn.Module) -> nn.Module:
    """Copy of a network for inference on this processor; the weights are shared and unchanged.

    It takes channels_last batches; a batch of another shape packs the weights again.
    """
    copied = copy.copy(module)
    copied._modules = {name: _packed(part) for name, part in module._modules.items()}
    return copied


def _packed(part: nn.Module | None) -> nn.Module | None:
    if part is None:
        return None
    return PackedConvolution(part) if isinstance(part, Convolution) else packed(part)


class PackedConvolution(nn.Module):
    """`Convolution` with weights packed for the shape of its last input."""

    def __init__(self, plain: Convolution) -> None:
        super().__init__()
        self.plain = plain
        self._shape: torch.Size | None = None
        self._padding: list[int] = []
        self._weight = plain.weight.detach()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape != self._shape:
            self._pack(x.shape)
        bound, limits = ("hardtanh", [0.0, 6.0]) if self.plain.bounded else ("none", [])
        return torch.ops.mkldnn._convolution_pointwise(
            x,
            self._weight,
            self.plain.bias,
            self._padding,
            list(self.plain.stride),
            [1, 1],
            self.plain.groups,
            bound,
            limits,
            "",
        )

    def _pack(self, shape: torch.Size) -> None:
        """Pack the weights for inputs of this shape.

        oneDNN pads both sides equally. If the end needs one more zero than the start, a row or column of zeros is
        prepended to the kernel.
        """
        plain, weight = self.plain, self.plain.weight.detach()
        self._padding = list(plain.padding)  # type: ignore[arg-type]
        if plain.stride[0] > 1:
            sides = [plain.margins(size) for size in shape[2:]]
            self._padding = [after for _, after in sides]
            extra = [after - before for before, after in sides]
            weight = F.pad(weight, (extra[1], 0, extra[0], 0))
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(), self._padding, list(plain.stride), [1, 1], plain.groups, list(shape)
        )
        self._shape = shape
