"""Quantization: bits of the distribution, the choice of the lesser cost, and the mean that is decoded."""

from __future__ import annotations

import torch

from imatlas.models.parts.quantization import bits_of, expected, quantized

MEAN, LOG_SCALE = torch.tensor([0.3, 0.0, -2.7, 40.0]), torch.tensor([-1.0, 0.0, 2.0, 3.5])


def test_bits_are_those_of_a_distribution() -> None:
    q = torch.arange(-3000, 3001).double()[:, None]
    total = torch.exp2(-bits_of(q, MEAN.double(), LOG_SCALE.double())).sum(0)
    assert (total - 1).abs().max() < 1e-3
    far = bits_of(torch.tensor([1e4, 2e4]).double(), torch.zeros(2).double(), torch.zeros(2).double())
    assert torch.isfinite(far).all()
    assert far[1] > far[0] > 1000


def test_an_integer_nearer_to_zero_is_taken_where_it_saves_more_than_it_costs() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 6 * torch.randn(5000, 1, generator=generator)
    for weight in (0.0, 0.1, 0.3):
        q = quantized(x, MEAN, LOG_SCALE, weight)
        nearest = torch.round(x).expand_as(q)
        assert ((q == nearest) | (q == nearest - torch.sign(nearest))).all()
        cost, other = ((x - k).square() + weight * bits_of(k, MEAN, LOG_SCALE) for k in (q, nearest))
        assert (cost <= other + 1e-4).all()
    assert (quantized(x, MEAN, LOG_SCALE, 0.0) == torch.round(x)).all()


def test_what_is_decoded_is_the_mean_of_what_becomes_an_integer() -> None:
    """No other values for the integers would have a smaller squared error."""
    mean = torch.tensor([0.3, 0.0, -2.7, 40.0, 0.6, -0.4])
    log_scale = torch.tensor([-1.0, 0.0, 2.0, 3.5, -4.0, -1.7])
    u = torch.rand(50_000, 6, generator=torch.Generator().manual_seed(0)).clamp(1e-4, 1 - 1e-4)
    x = mean + torch.exp2(log_scale) * torch.log(u / (1 - u))
    q = quantized(x, mean, log_scale, 0.1)
    errors = (expected(q, mean, log_scale, 0.1) - x).square().mean(0)
    for column, error in enumerate(errors.tolist()):
        values, integers = x[:, column], q[:, column]
        groups = [values[integers == k] for k in integers.unique()]
        least = sum(float((group - group.mean()).square().sum()) for group in groups) / len(values)
        assert error < 1.01 * least


def test_far_from_the_mean_what_is_decoded_stays_in_its_interval() -> None:
    q = torch.tensor([-5000.0, -60.0, -3.0, 0.0, 3.0, 60.0, 5000.0])
    for log_scale in (-4.5, 0.0, 12.0):
        made = expected(q, torch.zeros(7), torch.full((7,), log_scale), 0.1)
        assert ((made - q).abs() < 1.6).all()
