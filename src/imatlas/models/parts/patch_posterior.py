"""The local, closed-form denoiser of a diffusion process over a set of images.

An image y of the set, plus Gaussian noise of standard deviation sigma, gives x. Given x, the mean of y over the set is

    E[y | x] = sum_i w_i y_i        w_i proportional to exp(-|x - y_i|^2 / (2 sigma^2))

the denoiser that every diffusion model approximates, and whose flow ends in an image of the set. If each pixel is
denoised from a patch around it, of a size that shrinks with sigma, the flow ends in new images instead, composed of
parts of several: Kamb & Ganguli 2024, "An analytic theory of creativity in convolutional diffusion models" (eq. 7,
with positions); Niedoba et al. 2024, "Towards a mechanistic explanation of diffusion model generalization".

Two limits keep the result from becoming a copy of one image. Patches that shrink early leave more to choose; and the
share of an image, its weight averaged over the pixels, is held below a maximum by a bias on its log-weight.

Tensors here have the axis of the images last, where it is contiguous for sums over them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

SIGMA_MAX, SIGMA_MIN, RHO = 80.0, 0.02, 7.0
"""Noise levels of the schedule of Karras et al. 2022 (eq. 5), for values in [-1, 1]."""

REFERENCE = 64 * 64 * 3
"""Values of an image that `SIGMA_MAX` is for. Whether two images are told apart under noise depends on their distance,
which grows with the square root of their number of values, and so do the levels at which whole images are compared."""

SMALLEST_PATCH, SMALLEST_UNTIL = 5, 0.1
"""Side of the smallest patch, in pixels, and the noise level up to which it is used."""

ROUNDS, MASKED = 16, -1e30
"""Most times that a share is lowered per step, and the logit of images that miss a pixel."""

CLOSE = 1e-5
"""Tolerance of the number by which logits are lowered."""


@dataclass(frozen=True)
class Sources:
    """The images that a new one is composed of, with K of them including mirrored and shifted copies.

    Attributes
    ----------
    pixels : tensor (C, H, W, K)
        Values in [-1, 1]; missing ones are 0.
    known : tensor (H, W, K) or None
        1 where a pixel is known, 0 where it is missing; None if all are known.
    prior : tensor (K,)
        Logarithms of the weights before anything is compared.
    groups : tensor (K,) of int64
        Copies of one image, and near-duplicates, share a number from 0 on; their share is limited together.
    rows : tensor (K,) of int64
        Which training image each is.
    """

    pixels: Tensor
    known: Tensor | None
    prior: Tensor
    groups: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Locality:
    """How local the denoiser is.

    Attributes
    ----------
    whole_from : float
        Noise level of a 64 x 64 RGB image from which on patches cover the image.
    max_share : float
        Largest share of the pixels that one image may give.
    """

    whole_from: float
    max_share: float

    @classmethod
    def of(cls, novelty: float) -> Locality:
        """The locality of a `novelty` from 0 (images of the set) to 1 (collage)."""
        return cls(whole_from=10.0 ** (1.0 + 1.6 * novelty**2), max_share=1.0 - 0.9 * novelty)

    def side(self, sigma: float, height: int, width: int, scale: float) -> int:
        """The odd side of patches at a noise level: between the two limits, its logarithm is linear in log sigma."""
        high = max(self.whole_from * scale, 2 * SMALLEST_UNTIL)
        t = math.log(sigma / SMALLEST_UNTIL) / math.log(high / SMALLEST_UNTIL)
        whole = 2 * max(height, width)
        return round(SMALLEST_PATCH * (whole / SMALLEST_PATCH) ** min(1.0, max(0.0, t))) | 1


def level_scale(n_values: int) -> float:
    """Factor on noise levels for images of `n_values` values."""
    return math.sqrt(n_values / REFERENCE)


def noise_levels(n_steps: int, highest: float) -> list[float]:
    """`n_steps` decreasing noise levels from `highest`, and 0 (Karras et al. 2022, eq. 5)."""
    low, high = SIGMA_MIN ** (1 / RHO), max(highest, SIGMA_MIN) ** (1 / RHO)
    return [*((high + i / max(1, n_steps - 1) * (low - high)) ** RHO for i in range(n_steps)), 0.0]


def posterior(
    x: Tensor, sources: Sources, sigma: float, side: int, max_share: float, certainty: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mean of the images given a noisy one, and the weight of each image at each pixel.

    Parameters
    ----------
    x : tensor (C, H, W)
    sources : Sources
    sigma : float
        Noise level of x.
    side : int
        Side of the patches that are compared, odd.
    max_share : float
        Largest share of a group of sources.
    certainty : tensor (H, W), optional
        Weight of each pixel in the comparison; 1 is that of a pixel with noise of level sigma.

    Returns
    -------
    mean : tensor (C, H, W)
    weights : tensor (H, W, K), or with an axis of length 1 along which they are all equal
    """
    logits = _log_likelihood(x, sources, side, certainty) / sigma**2 + sources.prior
    if sources.known is not None:
        logits = logits.masked_fill(sources.known == 0, MASKED)
    weights = torch.softmax(logits, -1)
    if max_share < 1:
        weights = _limited(logits, weights, sources.groups, max_share)
    return torch.stack([(weights * channel).sum(-1) for channel in sources.pixels]), weights


def _log_likelihood(x: Tensor, sources: Sources, side: int, certainty: Tensor | None) -> Tensor:
    """-|patch of x - patch of source|^2 / 2 around each pixel, up to a constant: (H, W, K), or 1 for H or W."""
    inner = -0.5 * sources.pixels.square().sum(0)  # x y - y^2 / 2 differs from -(x - y)^2 / 2 by the same for all y
    for own, channel in zip(x, sources.pixels, strict=True):
        inner.addcmul_(channel, own.unsqueeze(-1))
    if sources.known is not None:  # here the constant would differ, by the pixels that are known
        inner = (inner - 0.5 * x.square().sum(0).unsqueeze(-1)) * sources.known
    if certainty is not None:
        inner *= certainty.unsqueeze(-1)
    total = box_sum(box_sum(inner, side // 2, 0), side // 2, 1)
    if sources.known is None:
        return total
    counted = sources.known if certainty is None else sources.known * certainty.unsqueeze(-1)
    known = box_sum(box_sum(counted, side // 2, 0), side // 2, 1)
    return total * (known.amax(-1, keepdim=True) / known.clamp(min=1.0))


def box_sum(values: Tensor, radius: int, axis: int) -> Tensor:
    """Sums over windows of 2 radius + 1 along an axis, cut off at the ends; one sum if that is the same for all."""
    n = values.shape[axis]
    if radius >= n - 1:
        return values.sum(axis, keepdim=True)
    sums = values.cumsum(axis)
    out = torch.empty_like(sums)
    out.narrow(axis, 0, n - radius).copy_(sums.narrow(axis, radius, n - radius))
    out.narrow(axis, n - radius, radius).copy_(sums.narrow(axis, n - 1, 1).expand_as(sums.narrow(axis, 0, radius)))
    out.narrow(axis, radius + 1, n - radius - 1).sub_(sums.narrow(axis, 0, n - radius - 1))
    return out


def shares(weights: Tensor, groups: Tensor) -> Tensor:
    """The share of each group: its weight averaged over the pixels."""
    each = weights.mean((0, 1))
    return torch.zeros(int(groups.max()) + 1, device=each.device).index_add_(0, groups, each)


def _limited(logits: Tensor, weights: Tensor, groups: Tensor, max_share: float) -> Tensor:
    """Weights after the logits of groups above the largest share are lowered, each by one number for all pixels.

    Of G groups, one gives at least 1 / G.
    """
    max_share = max(max_share, 1 / (int(groups.max()) + 1))
    for _ in range(ROUNDS):
        share = shares(weights, groups)
        top = int(share.argmax())
        if share[top] <= max_share + 1e-3:
            break
        mine = groups == top
        if bool(mine.all()):
            break
        others = torch.logsumexp(logits.masked_fill(mine, MASKED), -1)
        margin = torch.logsumexp(logits[..., mine], -1) - others
        logits = logits - torch.where(mine, _excess(margin, max_share), 0.0)
        weights = torch.softmax(logits, -1)
    return weights


def _excess(margin: Tensor, max_share: float) -> float:
    """The b at which the mean of sigmoid(margin - b) is `max_share`."""
    margin = margin.flatten()
    finite = margin[margin.abs() < -MASKED / 2]  # elsewhere the group, or all others, miss the pixel
    if len(finite) == 0:
        return 0.0
    low, high = (float(v) for v in (finite.min() - 20.0, finite.max() + 20.0))

    def above(b: float) -> float:
        return float(torch.sigmoid(margin - b).mean()) - max_share

    return float(brentq(above, low, high, xtol=CLOSE)) if above(high) < 0 else high
