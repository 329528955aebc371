"""Losses as pure functions on tensors, with the symbols of their papers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, softplus

Likelihood = Literal["gaussian", "laplace", "bernoulli"]
AdversarialLoss = Literal["relativistic", "minimax", "hinge"]

GRID = 8
"""Rows and columns of the grid on which sets of images are compared."""


def masked_mean(values: Tensor, known: Tensor | None, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Mean of the values where `known` (bool, same shape; None: everywhere); 0 if nothing is known."""
    if known is None:
        return values.mean() if dim is None else values.mean(dim)
    kept = values * known
    if dim is None:
        return kept.sum() / known.sum().clamp(min=1)
    return kept.sum(dim) / known.sum(dim).clamp(min=1)


def masked_sum(values: Tensor, known: Tensor | None) -> Tensor:
    """Sum of the values where `known`, per image: (N, C, H, W) -> (N,)."""
    return (values if known is None else values * known).flatten(1).sum(1)


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) per dimension, in nats (Kingma, Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)


def log_likelihood(x: Tensor, x_hat: Tensor, likelihood: Likelihood, log_scale: Tensor | float = 0.0) -> Tensor:
    """log p(x | x_hat) per pixel, in nats.

    Parameters
    ----------
    x : tensor in [-1, 1]
        The image.
    x_hat : tensor of the same shape
        Output of the decoder: the center of the Gaussian or Laplace, or the logit of a Bernoulli over (x + 1) / 2.
    likelihood : {'gaussian', 'laplace', 'bernoulli'}
    log_scale : tensor or float
        Logarithm of the standard deviation (Gaussian) or the scale (Laplace).
    """
    if likelihood == "bernoulli":
        return -nn.functional.binary_cross_entropy_with_logits(x_hat, (x.clamp(-1, 1) + 1) / 2, reduction="none")
    error = x_hat - x
    if likelihood == "laplace":
        scale = log_scale.exp() if isinstance(log_scale, Tensor) else math.exp(log_scale)
        return -error.abs() / scale - log_scale - math.log(2)
    precision = (-2 * log_scale).exp() if isinstance(log_scale, Tensor) else math.exp(-2 * log_scale)
    return -0.5 * error.square() * precision - log_scale - 0.5 * math.log(2 * math.pi)


def discriminator_loss(loss: AdversarialLoss, real: Tensor, fake: Tensor) -> Tensor:
    """Loss of the discriminator from paired logits (N,) of real and fake images."""
    if loss == "relativistic":
        return softplus(fake - real).mean()
    if loss == "minimax":
        return softplus(-real).mean() + softplus(fake).mean()
    return (1 - real).relu().mean() + (1 + fake).relu().mean()


def generator_loss(loss: AdversarialLoss, real: Tensor, fake: Tensor) -> Tensor:
    """Loss of the generator from paired logits (N,) of real and fake images."""
    if loss == "relativistic":
        return softplus(real - fake).mean()
    return softplus(-fake).mean() if loss == "minimax" else -fake.mean()


def gradient_penalty(discriminator: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    """Mean squared norm of the gradient of the logit at images x (N, C, H, W)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(discriminator(x, y).float().sum(), x, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def fill_missing(x: Tensor, known: Tensor | None) -> Tensor:
    """Images with mid-gray (0) where a pixel is not known."""
    return x if known is None else torch.where(known, x, 0.0)


def grid_statistics(x: Tensor) -> Tensor:
    """Mean and standard deviation of images (N, C, H, W) in each cell of a grid, as vectors (N, D)."""
    mean = adaptive_avg_pool2d(x.float(), GRID)
    square = adaptive_avg_pool2d(x.float().square(), GRID)
    return torch.cat([mean.flatten(1), (square - mean.square()).clamp(min=0).sqrt().flatten(1)], dim=1)


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """2 E|x - y| - E|x - x'| - E|y - y'| over rows (N, D), (M, D): 0 for equal distributions, otherwise positive.

    Székely, Rizzo 2013, "Energy statistics"; here unbiased, without the zero distances of rows to themselves.
    """

    def within(a: Tensor) -> Tensor:
        return distances(a, a).sum() / max(1, len(a) * (len(a) - 1))

    return 2 * distances(x, y).mean() - within(x) - within(y)


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (N, M) between rows (N, D) and (M, D)."""
    # computed by a matrix product, the distance of a row to itself would not be zero
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def vicreg(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance, variance and covariance terms of VICReg, for two views (N, D) of the same images.

    Bardes, Ponce, LeCun 2022, eq. 1 to 4: the mean squared distance of the views; the hinge of each feature's standard
    deviation at 1, against collapse; and the squared covariances of different features, against redundancy.
    """
    invariance = (a - b).square().mean()
    variance, covariance = a.new_zeros(()), a.new_zeros(())
    for z in (a, b):
        z = z - z.mean(0)
        c = z.T @ z / max(1, len(z) - 1)
        variance = variance + (1 - (c.diagonal() + 1e-4).sqrt()).relu().mean() / 2
        covariance = covariance + (c.square().sum() - c.diagonal().square().sum()) / z.shape[1]
    return invariance, variance, covariance


def nt_xent(a: Tensor, b: Tensor, temperature: float = 0.2) -> Tensor:
    """Normalized temperature-scaled cross entropy of two views (N, D) of the same images.

    Chen et al. 2020, "A simple framework for contrastive learning of visual representations" (SimCLR), eq. 1.
    """
    z = nn.functional.normalize(torch.cat([a, b]), dim=1)
    n = len(a)
    similarity = (z @ z.T / temperature).fill_diagonal_(-1e9)
    positive = torch.arange(2 * n, device=z.device).roll(n)
    return nn.functional.cross_entropy(similarity, positive)
