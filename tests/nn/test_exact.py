"""Exact networks: no sum is rounded, so no order of summation matters."""

from __future__ import annotations

import copy

import pytest
import torch

from imatlas.nn.coefficient_network import CoefficientNetwork
from imatlas.nn.exact import MOST, Convolution, exact_copy, log2_of


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_the_largest_sums_are_exact(scale: float) -> None:
    """In float32 as in float64, with the largest activations and the signs that add up most."""
    torch.manual_seed(0)
    layer = Convolution(66, 8, 3)
    layer.weight.data *= scale * 20
    exact = exact_copy(layer)
    x = torch.where(exact.weight.data[:1].sign() < 0, -MOST, MOST).flip(0)
    x = torch.cat([x, torch.randint(-2047, 2048, (3, *x.shape[1:])).float()])
    assert torch.equal(exact(x).double(), copy.deepcopy(exact).double()(x.double()))
    assert torch.equal(exact(x), torch.round(exact(x)))


def test_it_is_close_to_the_network_and_rectified() -> None:
    torch.manual_seed(0)
    layer = Convolution(6, 8, 3, rectified=True)
    x = torch.randn(2, 6, 9, 9)
    made = exact_copy(layer)((x * 64).round()) / 64
    assert (made - layer(x)).abs().max() < 0.05
    assert made.min() == 0


class Fixed:
    """Visitor with coefficients drawn by a seed, which notes the predictions."""

    def __init__(self) -> None:
        self.generator, self.seen = torch.Generator().manual_seed(0), []

    def begin(self, level: int, bands: tuple[int, ...], color: int) -> bool:
        return True

    def visit(self, place: object, prediction: torch.Tensor) -> torch.Tensor:
        self.seen.append(prediction)
        mean = prediction[:, 0]
        return torch.randint(-4, 5, mean.shape[1:], generator=self.generator).expand(mean.shape).double()


def predictions(network: CoefficientNetwork, n: int, threads: int) -> list[torch.Tensor]:
    visitor, before = Fixed(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            start = torch.ones(n, 3, 2, 1, dtype=torch.float64)
            network.walk(start, torch.full((n, 1, 1, 1), 0.25), (50, 31), 3, visitor)
    finally:
        torch.set_num_threads(before)
    return visitor.seen


@pytest.mark.parametrize("lossless", [False, True])
def test_predictions_do_not_depend_on_threads_batch_or_bf16(lossless: bool) -> None:
    torch.manual_seed(0)
    network = exact_copy(CoefficientNetwork(lossless=lossless))
    first = predictions(network, 1, 1)
    for n, threads in ((1, 2), (8, 1), (8, 2)):
        for one, other in zip(first, predictions(network, n, threads), strict=True):
            assert torch.equal(one.expand_as(other), other)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        allowed = predictions(network, 1, 1)
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(map(torch.equal, first, allowed))


def test_the_logarithm_is_linear_between_powers_of_two() -> None:
    x = torch.tensor([0.0, 1, -1, 2, 3, 7, -6], dtype=torch.float64)
    assert log2_of(x).tolist() == [0, 1, 1, 1.5, 2, 3, 2.75]
