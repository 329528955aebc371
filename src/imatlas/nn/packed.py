"""A network of convolutions made ready for one processor: the same answers, about twice as fast.

oneDNN, which computes PyTorch's convolutions on x86 processors, wants the weights in an order of its own, and can bound
what a convolution gives while it still lies in the cache. PyTorch brings the weights into that order in every call, and
bounds in a second pass through memory. Here both are done once.
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
    """A copy of a network for inference on this processor; the weights are shared, and left as they are.

    It takes batches in the layout channels_last, all of one shape: another one packs the weights anew.
    """
    copied = copy.copy(module)
    copied._modules = {name: _packed(part) for name, part in module._modules.items()}
    return copied


def _packed(part: nn.Module | None) -> nn.Module | None:
    if part is None:
        return None
    return PackedConvolution(part) if isinstance(part, Convolution) else packed(part)


class PackedConvolution(nn.Module):
    """A `Convolution` for one shape of input at a time."""

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
        """Bring the weights into the order that is fastest for inputs of this shape.

        oneDNN pads both sides alike. Where one zero more belongs after than before, the kernel gets a row or column of
        zeros in front, which reads the zero that is one too many.
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
