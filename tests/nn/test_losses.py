import math

import pytest
import torch
from torch.distributions import Laplace, Normal, kl_divergence

from imatlas.nn.losses import gaussian_kl, log_likelihood, masked_mean, masked_sum


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_kl_of_gaussians_is_torchs(generator):
    mean, logvar = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    expected = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0))
    assert torch.allclose(gaussian_kl(mean, logvar), expected, atol=1e-6)
    assert (gaussian_kl(torch.zeros(2), torch.zeros(2)) == 0).all()


def test_kl_by_hand():
    # KL(N(1, 4) || N(0, 1)) = (1 + 4 - 1 - log 4) / 2
    assert float(gaussian_kl(torch.tensor(1.0), torch.tensor(math.log(4)))) == pytest.approx((4 - math.log(4)) / 2)


@pytest.mark.parametrize("log_scale", [-1.5, 0.0, torch.tensor(0.3)])
def test_likelihoods_are_torchs(generator, log_scale):
    x, x_hat = torch.rand(4, 6, generator=generator) * 2 - 1, torch.randn(4, 6, generator=generator)
    scale = math.exp(float(log_scale))
    for name, law in {"gaussian": Normal(x_hat, scale), "laplace": Laplace(x_hat, scale)}.items():
        assert torch.allclose(log_likelihood(x, x_hat, name, log_scale), law.log_prob(x), atol=1e-5)


def test_bernoulli_by_hand():
    x, logit = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0.4, -0.2, 2.0])
    p = logit.sigmoid()
    expected = torch.tensor([0.0, 0.5, 1.0]) * p.log() + torch.tensor([1.0, 0.5, 0.0]) * (1 - p).log()
    assert torch.allclose(log_likelihood(x, logit, "bernoulli"), expected, atol=1e-6)


def test_masked_means_and_sums_ignore_unknown_pixels(generator):
    values = torch.randn(3, 2, 4, 4, generator=generator)
    known = torch.rand(3, 2, 4, 4, generator=generator) < 0.6
    spoilt = torch.where(known, values, 1e6)
    assert masked_mean(spoilt, known) == pytest.approx(float(values[known].mean()), rel=1e-5)
    assert float(masked_sum(spoilt, known)[1]) == pytest.approx(float(values[1][known[1]].sum()), rel=1e-4)
    each = masked_mean(spoilt, known, dim=(1, 2, 3))
    assert float(each[2]) == pytest.approx(float(values[2][known[2]].mean()), rel=1e-4)
    assert torch.allclose(masked_mean(values, torch.ones_like(known)), masked_mean(values, None), atol=1e-6)
    assert float(masked_mean(values, torch.zeros_like(known))) == 0.0
