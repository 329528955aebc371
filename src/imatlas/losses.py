"""Losses as pure functions on tensors, with the names of their papers."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

Likelihood = Literal["gaussian", "laplace", "bernoulli"]


def masked_mean(values: Tensor, known: Tensor | None, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """The mean of values over what is known (bool, same shape; None for all), 0 where nothing is."""
    if known is None:
        return values.mean() if dim is None else values.mean(dim)
    kept = values * known
    if dim is None:
        return kept.sum() / known.sum().clamp(min=1)
    return kept.sum(dim) / known.sum(dim).clamp(min=1)


def masked_sum(values: Tensor, known: Tensor | None) -> Tensor:
    """The sum over what is known of each image: (N, C, H, W) -> (N,)."""
    return (values if known is None else values * known).flatten(1).sum(1)


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each dimension, in nats: Kingma, Welling 2014, appendix B."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)


def log_likelihood(x: Tensor, x_hat: Tensor, likelihood: Likelihood, log_scale: Tensor | float = 0.0) -> Tensor:
    """log p(x | x_hat) of each pixel, in nats.

    Parameters
    ----------
    x : tensor in [-1, 1]
        The image.
    x_hat : tensor of the same shape
        What the decoder says: the centre of a Gaussian or Laplace, or the logit of a Bernoulli over (x + 1) / 2.
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
