"""Conditional residual MLP."""

from __future__ import annotations

from torch import Tensor, nn


class ConditionalMLPBlock(nn.Module):
    """Residual block x + W2 silu(W1 (norm(x) · (1 + scale) + shift)), with scale and shift from the condition.

    Peebles & Xie 2023, "Scalable diffusion models with transformers" (adaLN, section 3.2). The last matrix is
    initialized to zero, so that the block starts as the identity.
    """

    def __init__(self, width: int, n_condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(n_condition, 2 * width)
        self.expand = nn.Linear(width, 2 * width)
        self.project = nn.Linear(2 * width, width)
        for layer in (self.modulation, self.project):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, width), (N, n_condition) -> (N, width)."""
        scale, shift = self.modulation(condition).chunk(2, dim=1)
        return x + self.project(nn.functional.silu(self.expand(self.norm(x) * (1 + scale) + shift)))


class ConditionalMLP(nn.Module):
    """Residual MLP with a condition in every block.

        vector -> linear -> block x depth -> norm -> linear -> vector

    Parameters
    ----------
    n_features : int
        Length of the input and output vectors.
    width, depth : int
        Length of the hidden vectors, and number of blocks.
    n_condition : int
        Length of the condition.
    """

    def __init__(self, n_features: int, width: int, depth: int, n_condition: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(n_features, width)
        self.blocks = nn.ModuleList([ConditionalMLPBlock(width, n_condition) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, n_features)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, n_features), (N, n_condition) -> (N, n_features)."""
        x = self.proj_in(x)
        for block in self.blocks:
            x = block(x, condition)
        return self.proj_out(self.norm(x))
