"""Packed networks give the results of the plain ones for any shape of batch."""

from __future__ import annotations

import pytest
import torch

from imatlas.nn.backbones import Convolution, EfficientNetLite0
from imatlas.nn.packed_convolutions import packed, packs

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not packs(), reason="needs an x86 processor and a PyTorch built with oneDNN"),
]


def drawn(*shape: int) -> torch.Tensor:
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("size", [(7, 7), (8, 8), (7, 8)])
@pytest.mark.parametrize("bounded", [False, True])
def test_padding_and_relu6_equal_those_of_the_convolution(
    kernel_size: int, size: tuple[int, int], bounded: bool
) -> None:
    layer = Convolution(8, 8, kernel_size, stride=2, groups=8, bounded=bounded).requires_grad_(False)
    layer.weight.copy_(10 * drawn(8, 1, kernel_size, kernel_size))
    x = drawn(2, 8, *size)
    expected = layer(x)
    assert bounded == bool(expected.min() >= 0)
    torch.testing.assert_close(packed(torch.nn.Sequential(layer))(x), expected, rtol=1e-5, atol=1e-5)


def test_results_are_equal_at_any_size_and_weights_are_unchanged() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = EfficientNetLite0().eval().requires_grad_(False).to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    quick = packed(plain)
    with torch.inference_mode():
        for shape in ((2, 3, 64, 64), (1, 3, 65, 48), (2, 3, 64, 64)):
            for expected, got in zip(plain.layers(drawn(*shape)), quick.layers(drawn(*shape)), strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert isinstance(plain.stem, Convolution)
