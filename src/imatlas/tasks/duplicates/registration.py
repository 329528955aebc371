"""Whether one picture is an edited copy of another: features to propose it by, and a registration to confirm it by.

A copy may be recompressed, scaled, cropped by about a tenth, made brighter or of other contrast, and turned or
mirrored. So the model of a pair is B(x) = g · A(s · x + t) + o, clipped: a scale and a shift along each axis, one gain
and offset for all channels. Pictures are stretched to `SIDE` x `SIDE` RGB; places run from -1 to 1 along an axis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

SIDE = 64
"""Pixels along either side at which pictures are compared."""

COARSE = 32
"""Pixels along either side at which they are laid on each other, and at which differences of lightness count."""

N_WAVES, N_TINTS = 8, 3
"""Lowest cosine waves along either side that are features, of the lightness and of the two tints."""

N_FEATURES = N_WAVES**2 + 2 * N_TINTS**2

WINDOWS = (
    (-1.0, 1.0, -1.0, 1.0),
    (-0.9, 0.9, -0.9, 0.9),
    (-1.0, 0.8, -1.0, 0.8),
    (-1.0, 0.8, -0.8, 1.0),
    (-0.8, 1.0, -1.0, 0.8),
    (-0.8, 1.0, -0.8, 1.0),
)
"""The whole, and what is left where a tenth is cropped off: top, bottom, left, right of each window."""

STRIPS = ((-1.0, -0.16, -1.0, 1.0), (0.16, 1.0, -1.0, 1.0))
"""Above and below the middle: words laid over a picture leave one of them as it was."""

NOISE = 2.0
"""Gray levels, of 255, that compression changes: differences as small as this say nothing."""

MOST, DETAILED = 0.8, 0.8
"""The share of a picture that words laid over it leave as it was, and that must have detail to judge by it."""

N_ORIENTATIONS = 8
"""Turn 0 leaves a picture as it is, 1 to 3 turn it by 90 degrees each, 4 to 7 are the same after mirroring."""

_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
_STEP = 0.04


class Placed(NamedTuple):
    """Where the pictures B lie in the pictures A: x_A = scale · x_B + shift, each (n, 2) as (x, y)."""

    scale: torch.Tensor
    shift: torch.Tensor


class Differences(NamedTuple):
    """How much of each pair of pictures (n,) differs once one was laid on the other.

    `share`: the root of the part of the picture that is left unexplained, 0 to about 1, whatever the light. `levels`:
    gray levels of 255 over an 8 x 8 grid, with no change of light. `most`: the same over the most similar 80 % of the
    grid; infinite for pictures that have detail in few places, since these say little.
    """

    share: torch.Tensor
    levels: torch.Tensor
    most: torch.Tensor


def pictures(view: np.ndarray) -> torch.Tensor:
    """Pixels (n, H, W, 3) uint8 stretched to (n, 3, SIDE, SIDE) float32, 0 to 255."""
    tensor = torch.from_numpy(np.ascontiguousarray(view)).permute(0, 3, 1, 2).float()
    if tensor.shape[2:] == (SIDE, SIDE):
        return tensor
    return F.interpolate(tensor, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def features(rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What pictures (n, 3, SIDE, SIDE) are found by.

    Returns
    -------
    windows : Tensor (n, len(WINDOWS), N_FEATURES)
    tangents : Tensor (n, 4, N_FEATURES)
        How the features of the whole change with a shift and a scale along x and y.
    strips : Tensor (n, len(STRIPS), N_FEATURES)
    """
    ycc = F.avg_pool2d(_ycc(rgb), SIDE // COARSE)
    windows = torch.stack([_waves_of(ycc, window) for window in WINDOWS], 1)
    strips = torch.stack([_waves_of(ycc, strip) for strip in STRIPS], 1)
    tangents = []
    for axis in (2, 0):
        for moved in ((_STEP, _STEP), (-_STEP, _STEP)):
            ends = [list(WINDOWS[0]), list(WINDOWS[0])]
            for sign, end in zip((1, -1), ends):
                end[axis] += sign * moved[0]
                end[axis + 1] += sign * moved[1]
            tangents.append((_waves_of(ycc, tuple(ends[0])) - _waves_of(ycc, tuple(ends[1]))) / (2 * _STEP))
    return windows, torch.stack(tangents, 1), strips


def oriented_features(feats: torch.Tensor, orientation: int) -> torch.Tensor:
    """The features (..., N_FEATURES) of pictures after a turn: waves change their sign or their axis, no more."""
    if orientation == 0:
        return feats
    parts = []
    start = 0
    for size in (N_WAVES, N_TINTS, N_TINTS):
        part = feats[..., start : start + size**2].unflatten(-1, (size, size))
        start += size**2
        odd = torch.tensor([1.0, -1.0]).repeat(size)[:size].to(part.dtype)
        if orientation >= 4:
            part = part * odd
        for _ in range(orientation % 4):
            part = part.transpose(-1, -2) * odd[:, None]
        parts.append(part.flatten(-2))
    return torch.cat(parts, -1)


def oriented(rgb: torch.Tensor, orientation: int) -> torch.Tensor:
    """Pictures (n, 3, SIDE, SIDE) after a turn: mirrored where it is 4 or more, then turned by 90 degrees each."""
    return torch.rot90(rgb.flip(-1) if orientation >= 4 else rgb, orientation % 4, (-2, -1))


def without_light(feats: torch.Tensor) -> torch.Tensor:
    """Features (..., N_FEATURES) without the mean lightness, as vectors of length 1."""
    feats = torch.cat([torch.zeros_like(feats[..., :1]), feats[..., 1:]], -1)
    return feats / (feats.norm(dim=-1, keepdim=True) + 1e-3)


def unexplained(query: torch.Tensor, whole: torch.Tensor, tangents: torch.Tensor) -> torch.Tensor:
    """The share (n,) of features that no change of light, small shift or small change of scale explains.

    The tangent distance (Simard, LeCun, Denker, "Efficient pattern recognition using a new transformation distance",
    1992) from `query` (n, N_FEATURES) to `whole` along `tangents` (n, 4, N_FEATURES), over the length of `query`; moves
    beyond a tenth are held back.
    """
    light = torch.zeros_like(query)
    light[:, 0] = 1.0
    basis = torch.cat([whole[:, None], light[:, None], tangents], 1)
    gram = basis @ basis.transpose(1, 2)
    held = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0]) * (NOISE / 8 / 0.1) ** 2 + 1e-4
    weights = torch.linalg.solve(gram + torch.diag(held), basis @ query[..., None])
    rest = query - (basis * weights).sum(1)
    spread = query.clone()
    spread[:, 0] = 0
    return rest.norm(dim=1) / (spread.square().sum(1) + (NOISE / 2) ** 2).sqrt()


def placed_by(window: torch.Tensor, orientation: torch.Tensor) -> Placed:
    """Where a picture lies that is the whole of one of the `WINDOWS` (n,) of another, after the turn (n,) of that."""
    top, bottom, left, right = torch.tensor(WINDOWS)[window].T
    size = torch.stack([right - left, bottom - top], 1) / 2
    x, y = (right + left) / 2, (bottom + top) / 2
    x = torch.where(orientation >= 4, -x, x)
    for quarter in range(1, 4):
        x, y = torch.where(orientation % 4 >= quarter, y, x), torch.where(orientation % 4 >= quarter, -x, y)
    return Placed(size, torch.stack([x, y], 1))


def lay_on(a: torch.Tensor, b: torch.Tensor, start: Placed, n_steps: int = 4) -> Placed:
    """Where pictures B lie in pictures A, both (n, 3, SIDE, SIDE), found from a start near by.

    Gauss-Newton on the lightness (Lucas and Kanade 1981; Baker and Matthews 2004, "Lucas-Kanade 20 years on") with gain
    and offset as two more unknowns, Tukey's weights against words laid over, and a hold on the start that `NOISE`
    levels of noise and moves of about 0.05 would give: a picture without detail stays where it was.
    """
    light_a, light_b = (F.avg_pool2d(_ycc(x)[:, :1], SIDE // COARSE) for x in (a, b))
    n, size = len(a), COARSE
    line = _line(size)
    stack = torch.cat([light_a, *_slopes(light_a)], 1)
    target = light_b.reshape(n, -1, 1)
    x, y = line.expand(size, size).reshape(-1), line[:, None].expand(size, size).reshape(-1)
    scale, shift = start.scale.clone(), start.shift.clone()
    first = torch.stack([scale[:, 0], shift[:, 0], scale[:, 1], shift[:, 1]], 1)
    hold = torch.tensor([1e-3, 1e-3] + [(NOISE / 0.05) ** 2] * 4)
    robust = torch.ones(n, size * size)
    for _ in range(n_steps):
        warped, inside = _warped(stack, Placed(scale, shift))
        light, dx, dy = warped.reshape(n, 3, -1).unbind(1)
        jacobian = torch.stack([light, torch.ones_like(light), dx * x, dx, dy * y, dy], -1)
        weighted = jacobian * (inside.reshape(n, -1) * robust)[..., None]
        now = torch.stack([scale[:, 0], shift[:, 0], scale[:, 1], shift[:, 1]], 1)
        right = weighted.transpose(1, 2) @ target
        right[:, 2:, 0] += hold[2:] * (first - now)
        found = torch.linalg.solve(weighted.transpose(1, 2) @ jacobian + torch.diag(hold), right)
        rest = (target - jacobian @ found)[..., 0].abs()
        limit = 2.5 * 1.4826 * rest.median(1, keepdim=True).values + NOISE
        robust = (1 - (rest / limit) ** 2).clamp(min=0) ** 2 * 0.95 + 0.05
        gain = found[:, :1, 0].clamp(min=0.3)
        now = now + (found[:, 2:, 0] / gain).clamp(-0.05, 0.05)
        scale = now[:, [0, 2]].clamp(0.75, 1.3)
        shift = now[:, [1, 3]].clamp(-0.3, 0.3)
    return Placed(scale, shift)


def differences(a: torch.Tensor, b: torch.Tensor, placed: Placed) -> Differences:
    """How pictures A and B (n, 3, SIDE, SIDE) differ where B was laid on A."""
    warped, inside = _warped(a, placed)
    step = SIDE // COARSE
    a, b = F.avg_pool2d(warped, step), F.avg_pool2d(b, step)
    inside = (F.avg_pool2d(inside[:, None], step) > 0.99).float()
    pairs = [_relit(a, b, inside), _relit(b, a, inside)]
    share = torch.minimum(*(_share(made, real, inside) for made, real in pairs))
    return Differences(share, *_levels(a, b, inside))


def _relit(a: torch.Tensor, b: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A with the gain and offset that bring it nearest to B, clipped as files are, and B."""
    free = inside * ((b > 2) & (b < 253)).float()
    few = free.mean((1, 2, 3), keepdim=True) < 0.1
    weights = torch.where(few, inside.expand_as(b), free)
    n = weights.sum((1, 2, 3), keepdim=True) + 1e-6
    mean_a, mean_b = ((x * weights).sum((1, 2, 3), keepdim=True) / n for x in (a, b))
    spread = ((a - mean_a).square() * weights).sum((1, 2, 3), keepdim=True)
    gain = ((a - mean_a) * (b - mean_b) * weights).sum((1, 2, 3), keepdim=True) / (spread + 1e-3)
    gain = gain.clamp(0.4, 2.5)
    return (gain * (a - mean_a) + mean_b).clamp(0, 255), b


def _share(made: torch.Tensor, real: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """The root of the unexplained share (n,): lightness by pixels, tints by larger cells, as files keep them."""
    rest, signal = torch.zeros(len(made)), torch.zeros(len(made))
    for part, step in ((slice(0, 1), 1), (slice(1, 3), 4)):
        one, other = (F.avg_pool2d(_ycc(x)[:, part], step) for x in (made, real))
        mask = (F.avg_pool2d(inside, step) > 0.99).float()
        n = mask.sum((1, 2, 3)) + 1e-6
        mean = (other * mask).sum((2, 3), keepdim=True) / n[:, None, None, None]
        rest = rest + ((one - other).square() * mask).sum((1, 2, 3)) / n
        signal = signal + ((other - mean).square() * mask).sum((1, 2, 3)) / n
    return ((rest + 1) / (signal + 1)).sqrt()


def _levels(a: torch.Tensor, b: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The difference in color over an 8 x 8 grid (n,), and over the most similar cells (n,), in levels."""
    step = COARSE // 8
    cells = F.avg_pool2d(_ycc(a - b), step).square().sum(1).flatten(1)
    known = F.avg_pool2d(inside, step).flatten(1) > 0.5
    cells, _ = torch.where(known, cells, torch.inf).sort(dim=1)
    n = known.sum(1).clamp(min=1)
    first = torch.arange(cells.shape[1])
    levels, most = (
        torch.where(first < (n * part).ceil()[:, None], cells, 0).sum(1).div((n * part).ceil()).sqrt()
        for part in (1.0, MOST)
    )
    light = _ycc(b)[:, :1]
    detail = F.avg_pool2d(light.square(), step) - F.avg_pool2d(light, step).square() > 1
    return levels, torch.where(detail.flatten(1).float().mean(1) > DETAILED, most, torch.inf)


def _ycc(rgb: torch.Tensor) -> torch.Tensor:
    return torch.einsum("kc,nchw->nkhw", _TO_YCC, rgb)


def _waves_of(ycc: torch.Tensor, window: tuple[float, ...]) -> torch.Tensor:
    """The lowest cosine amplitudes (n, N_FEATURES) of a window of pictures (n, 3, COARSE, COARSE)."""
    rows, columns = _waves(window[0], window[1]), _waves(window[2], window[3])
    light = torch.einsum("kh,nhw,lw->nkl", rows, ycc[:, 0], columns)
    tints = torch.einsum("kh,nchw,lw->nckl", rows[:N_TINTS], ycc[:, 1:], columns[:N_TINTS])
    return torch.cat([light.flatten(1), tints.flatten(1)], 1)


def _waves(low: float, high: float) -> torch.Tensor:
    """Cosine waves (N_WAVES, COARSE) over [low, high]; higher ones count more, as pictures have less of them."""
    line = _line(COARSE)
    half = 1 / COARSE
    inside = ((line + half).clamp(max=high) - (line - half).clamp(min=low)).clamp(min=0)
    order = torch.arange(N_WAVES)[:, None]
    waves = torch.cos(torch.pi * order * (line - low) / (high - low)) * inside / inside.sum()
    return waves * order.clamp(min=1) ** 0.4


def _line(size: int) -> torch.Tensor:
    """The places of pixels along an axis (size,)."""
    return (torch.arange(size) + 0.5) * 2 / size - 1


def _slopes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How pictures (n, 1, size, size) change along x and along y."""
    size = x.shape[-1]
    across, down = torch.gradient(x, dim=(3, 2))
    return across * (size / 2), down * (size / 2)


def _warped(x: torch.Tensor, placed: Placed) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (n, C, size, size) as seen from the places of B, and where these lie inside (n, size, size)."""
    n, _, size, _ = x.shape
    line = _line(size)
    across = placed.scale[:, :1] * line + placed.shift[:, :1]
    down = placed.scale[:, 1:] * line + placed.shift[:, 1:]
    grid = torch.stack([across[:, None].expand(n, size, size), down[:, :, None].expand(n, size, size)], -1)
    inside = (across.abs() <= 1)[:, None] & (down.abs() <= 1)[:, :, None]
    return F.grid_sample(x, grid, align_corners=False, padding_mode="border"), inside.float()
