"""A small network that learns from what others say of many rows, and is less often wrong than they are.

Xie, Q., Luong, M.-T., Hovy, E. and Le, Q. (2020), "Self-training with Noisy Student improves ImageNet classification",
CVPR: a student learns the probabilities that a teacher gives to rows without labels, while it is disturbed. What
neighboring rows have in common it can learn, the teacher's single mistakes it cannot; so it becomes the next teacher.
Disturbed it is by dropout, and by mixed rows: Zhang, H. et al. (2018), "mixup: beyond empirical risk minimization".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imatlas import seeding

N_HIDDEN = 512
PASSES, FEWEST_STEPS, MOST_STEPS = 16, 50, 300
"""How often all rows are seen, within limits to the steps of learning."""

BATCH, GIVEN = 256, 16
"""Rows of a step, and how many of them are rows whose label was given."""

LEARNING_RATE, DECAY = 3e-3, 1e-2
DROPPED_IN, DROPPED, MIXED = 0.2, 0.5, 0.4
"""Shares of the features and of the hidden units that are dropped, and the shape of the Beta distribution of mixing."""


@dataclass(frozen=True)
class Student:
    """One hidden layer: `axes` (n_features, n_hidden), `offset` (n_hidden,), and from it one line for each class."""

    axes: np.ndarray
    offset: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray


def hidden(X: np.ndarray, axes: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """What rows (n, n_features) are in a student's hidden layer (n, n_hidden) float32, at least 0."""
    return np.maximum(X @ axes + offset, 0.0)


def taught(X: np.ndarray, shares: np.ndarray, given: np.ndarray, seed: int) -> Student:
    """Learn class probabilities.

    Parameters
    ----------
    X : ndarray (n_samples, n_features) float32
    shares : ndarray (n_samples, n_classes)
        What a teacher says of each row; of the given rows what is known.
    given : ndarray (n_given,) int64
        Rows that are seen far more often than the others.
    """
    center, scale = X.mean(axis=0), max(float(X.std()), 1e-12)
    rows, said = torch.from_numpy((X - center) / scale), torch.from_numpy(shares.astype(np.float32))
    with seeding.seeded_init(seed):
        first, norm, last = (
            nn.Linear(X.shape[1], N_HIDDEN),
            nn.BatchNorm1d(N_HIDDEN),
            nn.Linear(N_HIDDEN, said.shape[1]),
        )
    parameters = [*first.parameters(), *norm.parameters(), *last.parameters()]
    adam = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=DECAY)
    n_steps = int(np.clip(PASSES * len(X) // BATCH, FEWEST_STEPS, MOST_STEPS))
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, LEARNING_RATE, total_steps=n_steps)
    rng, generator = seeding.rng(seed, "batches"), seeding.generator(seed, "dropout")
    for _ in range(n_steps):
        chosen = np.concatenate([rng.integers(len(X), size=BATCH - GIVEN), rng.choice(given, GIVEN)])
        other, share = chosen[rng.permutation(BATCH)], float(rng.beta(MIXED, MIXED))
        x, truth = (share * values[chosen] + (1 - share) * values[other] for values in (rows, said))
        seen = _dropped(F.relu(norm(first(_dropped(x, DROPPED_IN, generator)))), DROPPED, generator)
        loss = F.cross_entropy(last(seen), truth)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    with torch.no_grad():  # the normalization, and that of the rows, go into the first layer
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = (gain[:, None] * first.weight).numpy() / scale
        offset = (gain * (first.bias - norm.running_mean) + norm.bias).numpy() - weight @ center
    return Student(weight.T, offset, last.weight.detach().numpy(), last.bias.detach().numpy())


def _dropped(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Some values set to 0, the others longer by as much."""
    return x * (torch.rand(x.shape, generator=generator) >= share) / (1 - share)
