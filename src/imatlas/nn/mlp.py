"""A residual network on vectors, steered by a condition."""

from __future__ import annotations

from torch import Tensor, nn


class SteeredBlock(nn.Module):
    """x + W2 silu(W1 (norm(x) · (1 + scale) + shift)), scale and shift from the condition.

    Peebles & Xie 2023, "Scalable diffusion models with transformers" (adaLN, section 3.2). The last matrix starts at
    zero, so that the block starts as the identity.
    """

    def __init__(self, width: int, n_condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.steer = nn.Linear(n_condition, 2 * width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)
        for layer in (self.steer, self.narrow):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, width), (N, n_condition) -> (N, width)."""
        scale, shift = self.steer(condition).chunk(2, dim=1)
        return x + self.narrow(nn.functional.silu(self.widen(self.norm(x) * (1 + scale) + shift)))


class SteeredMLP(nn.Module):
    """vector -> linear -> block x depth -> norm -> linear -> vector, every block steered by the condition.

    Parameters
    ----------
    n_features : int
        Length of the vectors that go in and come out.
    width, depth : int
        Length of the vectors inside, and the number of blocks.
    n_condition : int
        Length of the condition.
    """

    def __init__(self, n_features: int, width: int, depth: int, n_condition: int) -> None:
        super().__init__()
        self.enter = nn.Linear(n_features, width)
        self.blocks = nn.ModuleList([SteeredBlock(width, n_condition) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, n_features)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, n_features), (N, n_condition) -> (N, n_features)."""
        x = self.enter(x)
        for block in self.blocks:
            x = block(x, condition)
        return self.leave(self.norm(x))
