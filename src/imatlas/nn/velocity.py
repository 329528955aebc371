"""Velocity network of flow matching, targets of its shortcuts, and optimal-transport coupling of noise and data."""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from imatlas.nn.mlp import ConditionalMLP
from imatlas.nn.time_embedding import sinusoidal

MIN_STEP = 1 / 16
"""Shortest step that shortcuts are learned for; their targets consist of two steps of half the length."""


class VelocityNetwork(nn.Module):
    """The velocity v(x, t, d | y) of a step of length d.

    Parameters
    ----------
    condition : Condition
        Embeds y in vectors of length `width`.
    body : UNet or ConditionalMLP
        A U-Net over images, or an MLP over vectors (images of one pixel).
    width : int
        Length of the embedding of times and conditions.
    deviations : tensor (D,)
        Standard deviations of the vectors; the MLP is added to the velocity of Gaussian vectors with these.
    """

    deviations: Tensor

    def __init__(self, condition: nn.Module, body: nn.Module, width: int, deviations: Tensor | None = None) -> None:
        super().__init__()
        self.width = width
        self.times = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU())
        self.condition = condition
        self.mix = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.body = body
        self.register_buffer("deviations", deviations, persistent=False)

    def forward(
        self, x: Tensor, t: Tensor, d: Tensor, y: Tensor | None = None, dropped: Tensor | None = None
    ) -> Tensor:
        """x (N, C, H, W), times t (N,), step lengths d (N,), conditions y (N, …) -> v (N, C, H, W)."""
        times = torch.cat([sinusoidal(t, self.width), sinusoidal(d, self.width)], dim=1)
        cond = self.mix(self.times(times) + self.condition(y, x.shape[0], dropped))
        if isinstance(self.body, ConditionalMLP):
            return self.body(x.flatten(1), cond).view_as(x) + gaussian_velocity(x, t, d, self.deviations)
        return self.body(x, t, cond)


def gaussian_velocity(x: Tensor, t: Tensor, d: Tensor, deviations: Tensor) -> Tensor:
    """Mean velocity (N, D, 1, 1) from t to t + d of the flow from standard normal noise to data N(0, diag(sigma²)).

    Each coordinate of x_t has the standard deviation s(t) = sqrt(sigma² t² + (1 - t)²) and moves in proportion to it:
    x_(t+d) = x_t s(t + d) / s(t).

    Parameters
    ----------
    x : tensor (N, D, 1, 1)
    t, d : tensors (N,)
    deviations : tensor (D,)
        sigma.
    """
    t, d = t[:, None], d[:, None]
    variance = deviations.square()
    s_t, s_next = ((variance * u.square() + (1 - u).square()).sqrt() for u in (t, t + d))
    limit = (variance * t - (1 - t)) / s_t.square()
    rate = torch.where(d > 0, (s_next / s_t - 1) / d.clamp(min=1e-6), limit)
    return rate[:, :, None, None] * x


def optimal_coupling(x_0: Tensor, x_1: Tensor) -> Tensor:
    """Order (N,) of noise x_0 that minimizes the summed squared distance to data x_1, both (N, …)."""
    cost = torch.cdist(x_0.flatten(1).float(), x_1.flatten(1).float()).square()
    return torch.from_numpy(linear_sum_assignment(cost.T.cpu().numpy())[1]).to(x_0.device)


def shortcut_times(n: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random times t and lengths d (n,) of shortcuts: d is 1, 1/2, …, `MIN_STEP`, and t a multiple of d."""
    if not n:
        return torch.zeros(0, device=device), torch.zeros(0, device=device)
    halvings = torch.randint(0, round(-math.log2(MIN_STEP)) + 1, (n,), generator=generator, device=device)
    d = 0.5**halvings
    u = torch.rand(n, generator=generator, device=device)
    return (u / d).floor() * d, d


@torch.no_grad()
def two_step_velocity(
    module: nn.Module, x_t: Tensor, t: Tensor, d: Tensor, y: Tensor | None, dropped: Tensor
) -> Tensor:
    """Mean velocity of two steps of length d (Frans et al. 2024, eq. 4); if d < `MIN_STEP`, of the flow itself."""
    d_net = torch.where(d < MIN_STEP, 0.0, d)
    v_t = module(x_t, t, d_net, y, dropped)
    x_next = x_t + d.view(-1, 1, 1, 1) * v_t
    return (v_t + module(x_next, t + d, d_net, y, dropped)) / 2
