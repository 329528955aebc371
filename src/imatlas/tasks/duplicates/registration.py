"""Registration of one picture onto another, and the difference that remains.

The model of a pair is B(x) = g · A(s · x + t) + o, clipped: scale s and shift t along each axis, and one gain g and
offset o for all channels. Pictures are (n, 3, SIDE, SIDE) RGB; coordinates run from -1 to 1 along an axis.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from imatlas.tasks.duplicates.features import COARSE, NOISE, SIDE, WINDOWS, pixel_centers, to_ycc

TRIMMED, DETAILED = 0.8, 0.8
"""The share of the grid that `trimmed_levels` averages, and the share of it that must have detail."""


class Alignment(NamedTuple):
    """Where pictures B lie in pictures A: x_A = scale · x_B + shift, each (n, 2) as (x, y)."""

    scale: torch.Tensor
    shift: torch.Tensor


class Differences(NamedTuple):
    """How much aligned pictures (n,) differ.

    `residual`: root of the share of the picture left unexplained, 0 to about 1, whatever the lighting. `levels`: root
    mean square difference in gray levels of 255 over an 8 x 8 grid, with no change of lighting. `trimmed_levels`: the
    same over the most similar 80 % of the grid, which a watermark leaves unchanged; infinite for pictures with little
    detail.
    """

    residual: torch.Tensor
    levels: torch.Tensor
    trimmed_levels: torch.Tensor


def window_alignment(window: torch.Tensor, orientation: torch.Tensor) -> Alignment:
    """The alignment of pictures that show one of the `WINDOWS` (n,) of another, in an orientation (n,)."""
    top, bottom, left, right = torch.tensor(WINDOWS)[window].T
    size = torch.stack([right - left, bottom - top], 1) / 2
    x, y = (right + left) / 2, (bottom + top) / 2
    x = torch.where(orientation >= 4, -x, x)
    for quarter in range(1, 4):
        x, y = torch.where(orientation % 4 >= quarter, y, x), torch.where(orientation % 4 >= quarter, -x, y)
    return Alignment(size, torch.stack([x, y], 1))


def align(a: torch.Tensor, b: torch.Tensor, start: Alignment, n_steps: int = 4) -> Alignment:
    """Align pictures B with pictures A, both (n, 3, SIDE, SIDE), starting near the solution.

    Gauss-Newton on the lightness (Lucas and Kanade 1981; Baker and Matthews 2004, "Lucas-Kanade 20 years on") with gain
    and offset as two more unknowns, and Tukey's weights against watermarks. The prior on the start corresponds to
    `NOISE` levels of noise and moves of about 0.05, so pictures without detail stay at the start.
    """
    light_a, light_b = (F.avg_pool2d(to_ycc(x)[:, :1], SIDE // COARSE) for x in (a, b))
    n, size = len(a), COARSE
    line = pixel_centers(size)
    stack = torch.cat([light_a, *_gradients(light_a)], 1)
    target = light_b.reshape(n, -1, 1)
    x, y = line.expand(size, size).reshape(-1), line[:, None].expand(size, size).reshape(-1)
    scale, shift = start.scale.clone(), start.shift.clone()
    first = torch.stack([scale[:, 0], shift[:, 0], scale[:, 1], shift[:, 1]], 1)
    prior = torch.tensor([1e-3, 1e-3] + [(NOISE / 0.05) ** 2] * 4)
    robust = torch.ones(n, size * size)
    for _ in range(n_steps):
        warped, inside = _warp(stack, Alignment(scale, shift))
        light, dx, dy = warped.reshape(n, 3, -1).unbind(1)
        jacobian = torch.stack([light, torch.ones_like(light), dx * x, dx, dy * y, dy], -1)
        weighted = jacobian * (inside.reshape(n, -1) * robust)[..., None]
        now = torch.stack([scale[:, 0], shift[:, 0], scale[:, 1], shift[:, 1]], 1)
        right = weighted.transpose(1, 2) @ target
        right[:, 2:, 0] += prior[2:] * (first - now)
        found = torch.linalg.solve(weighted.transpose(1, 2) @ jacobian + torch.diag(prior), right)
        # Tukey's weights, with the scale from the median absolute residual.
        residual = (target - jacobian @ found)[..., 0].abs()
        limit = 2.5 * 1.4826 * residual.median(1, keepdim=True).values + NOISE
        robust = (1 - (residual / limit) ** 2).clamp(min=0) ** 2 * 0.95 + 0.05
        # A step of at most 0.05, within the range of the model.
        gain = found[:, :1, 0].clamp(min=0.3)
        now = now + (found[:, 2:, 0] / gain).clamp(-0.05, 0.05)
        scale = now[:, [0, 2]].clamp(0.75, 1.3)
        shift = now[:, [1, 3]].clamp(-0.3, 0.3)
    return Alignment(scale, shift)


def differences(a: torch.Tensor, b: torch.Tensor, alignment: Alignment) -> Differences:
    """The differences of aligned pictures A and B, both (n, 3, SIDE, SIDE)."""
    warped, inside = _warp(a, alignment)
    step = SIDE // COARSE
    a, b = F.avg_pool2d(warped, step), F.avg_pool2d(b, step)
    inside = (F.avg_pool2d(inside[:, None], step) > 0.99).float()
    residual = torch.minimum(
        _residual(_match_lighting(a, b, inside), b, inside), _residual(_match_lighting(b, a, inside), a, inside)
    )
    return Differences(residual, *_levels(a, b, inside))


def _match_lighting(a: torch.Tensor, b: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """A with the gain and offset that bring it nearest to B, clipped as files are."""
    free = inside * ((b > 2) & (b < 253)).float()
    few = free.mean((1, 2, 3), keepdim=True) < 0.1
    weights = torch.where(few, inside.expand_as(b), free)
    n = weights.sum((1, 2, 3), keepdim=True) + 1e-6
    mean_a, mean_b = ((x * weights).sum((1, 2, 3), keepdim=True) / n for x in (a, b))
    spread = ((a - mean_a).square() * weights).sum((1, 2, 3), keepdim=True)
    gain = ((a - mean_a) * (b - mean_b) * weights).sum((1, 2, 3), keepdim=True) / (spread + 1e-3)
    gain = gain.clamp(0.4, 2.5)
    return (gain * (a - mean_a) + mean_b).clamp(0, 255)


def _residual(predicted: torch.Tensor, real: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Root of the unexplained share (n,): lightness by pixel, chroma by larger cells, since files subsample it."""
    error, signal = torch.zeros(len(predicted)), torch.zeros(len(predicted))
    for part, step in ((slice(0, 1), 1), (slice(1, 3), 4)):
        one, other = (F.avg_pool2d(to_ycc(x)[:, part], step) for x in (predicted, real))
        mask = (F.avg_pool2d(inside, step) > 0.99).float()
        n = mask.sum((1, 2, 3)) + 1e-6
        mean = (other * mask).sum((2, 3), keepdim=True) / n[:, None, None, None]
        error = error + ((one - other).square() * mask).sum((1, 2, 3)) / n
        signal = signal + ((other - mean).square() * mask).sum((1, 2, 3)) / n
    return ((error + 1) / (signal + 1)).sqrt()


def _levels(a: torch.Tensor, b: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`levels` and `trimmed_levels` (n,) of `Differences`."""
    step = COARSE // 8
    cells = F.avg_pool2d(to_ycc(a - b), step).square().sum(1).flatten(1)
    known = F.avg_pool2d(inside, step).flatten(1) > 0.5
    cells, _ = torch.where(known, cells, torch.inf).sort(dim=1)
    n = known.sum(1).clamp(min=1)
    first = torch.arange(cells.shape[1])
    levels, trimmed = (
        torch.where(first < (n * part).ceil()[:, None], cells, 0).sum(1).div((n * part).ceil()).sqrt()
        for part in (1.0, TRIMMED)
    )
    light = to_ycc(b)[:, :1]
    detail = F.avg_pool2d(light.square(), step) - F.avg_pool2d(light, step).square() > 1
    return levels, torch.where(detail.flatten(1).float().mean(1) > DETAILED, trimmed, torch.inf)


def _gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivatives of pictures (n, 1, size, size) along x and along y."""
    size = x.shape[-1]
    along_x, along_y = torch.gradient(x, dim=(3, 2))
    return along_x * (size / 2), along_y * (size / 2)


def _warp(x: torch.Tensor, alignment: Alignment) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures A (n, C, size, size) sampled at the pixels of B, and which of these lie inside A (n, size, size)."""
    n, _, size, _ = x.shape
    line = pixel_centers(size)
    across = alignment.scale[:, :1] * line + alignment.shift[:, :1]
    down = alignment.scale[:, 1:] * line + alignment.shift[:, 1:]
    grid = torch.stack([across[:, None].expand(n, size, size), down[:, :, None].expand(n, size, size)], -1)
    inside = (across.abs() <= 1)[:, None] & (down.abs() <= 1)[:, :, None]
    return F.grid_sample(x, grid, align_corners=False, padding_mode="border"), inside.float()
