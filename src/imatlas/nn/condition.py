"""Embedding of conditions: a label, a vector, or none."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Condition(nn.Module):
    """Embedding of labels or vectors, with a learned null embedding for no condition.

    Parameters
    ----------
    n_labels : int
        Labels are 0 to n_labels - 1; 0 for no labels.
    n_features : int
        Length of the vectors; 0 for no vectors.
    width : int
        Length of the embedding.
    """

    def __init__(self, n_labels: int, n_features: int, width: int) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.zeros(width))
        self.embed: nn.Module | None = None
        if n_labels:
            self.embed = nn.Embedding(n_labels, width)
        elif n_features:
            self.embed = nn.Sequential(nn.Linear(n_features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, y: Tensor | None, n: int, dropped: Tensor | None = None) -> Tensor:
        """Embeddings (n, width) of the conditions of n images.

        Parameters
        ----------
        y : Tensor (n,) int64 or (n, n_features), optional
            None: unconditional.
        n : int
        dropped : Tensor (n,) of bool, optional
            Images whose condition is dropped (Ho & Salimans 2022, "Classifier-free diffusion guidance", section 3).
        """
        null = self.null.expand(n, -1)
        if y is None or self.embed is None:
            return null
        cond = self.embed(y)
        return cond if dropped is None else torch.where(dropped[:, None], null.to(cond.dtype), cond)
