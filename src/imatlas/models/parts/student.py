"""Student network of self-training: one hidden layer that learns a teacher's probabilities under noise.

Xie, Q., Luong, M.-T., Hovy, E. and Le, Q. (2020), "Self-training with Noisy Student improves ImageNet classification",
CVPR. The noise is dropout and mixup: Zhang, H. et al. (2018), "mixup: beyond empirical risk minimization".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imatlas import seeding

N_HIDDEN = 512
N_EPOCHS, MIN_STEPS, MAX_STEPS = 16, 50, 300
"""Passes over all rows, within limits on the number of training steps."""

BATCH, LABELED_BATCH = 256, 16
"""Rows per step, and how many of them are labeled ones."""

LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-2
INPUT_DROPOUT, DROPOUT, MIXUP = 0.2, 0.5, 0.4
"""Dropout of features and of hidden units, and the parameter of the Beta distribution of mixup."""


@dataclass(frozen=True)
class Student:
    """Hidden layer `axes` (n_features, n_hidden), `offset` (n_hidden,), and a linear classifier on its output."""

    axes: np.ndarray
    offset: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray


def hidden(X: np.ndarray, axes: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Activations (n, n_hidden) float32, at least 0, of a student's hidden layer for rows (n, n_features)."""
    return np.maximum(X @ axes + offset, 0.0)


def train_student(X: np.ndarray, proba: np.ndarray, labeled: np.ndarray, seed: int) -> Student:
    """Learn class probabilities.

    Parameters
    ----------
    X : ndarray (n_samples, n_features) float32
    proba : ndarray (n_samples, n_classes)
        The teacher's probabilities; one-hot for labeled rows.
    labeled : ndarray (n_labeled,) int64
        Rows that are drawn far more often than the others.
    seed : int
    """
    center, scale = X.mean(axis=0), max(float(X.std()), 1e-12)
    rows, targets = torch.from_numpy((X - center) / scale), torch.from_numpy(proba.astype(np.float32))
    with seeding.seeded_init(seed):
        first, norm, last = (
            nn.Linear(X.shape[1], N_HIDDEN),
            nn.BatchNorm1d(N_HIDDEN),
            nn.Linear(N_HIDDEN, targets.shape[1]),
        )
    parameters = [*first.parameters(), *norm.parameters(), *last.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    n_steps = int(np.clip(N_EPOCHS * len(X) // BATCH, MIN_STEPS, MAX_STEPS))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=n_steps)
    rng, generator = seeding.rng(seed, "batches"), seeding.generator(seed, "dropout")
    for _ in range(n_steps):
        chosen = np.concatenate([rng.integers(len(X), size=BATCH - LABELED_BATCH), rng.choice(labeled, LABELED_BATCH)])
        other, share = chosen[rng.permutation(BATCH)], float(rng.beta(MIXUP, MIXUP))
        x, y = (share * values[chosen] + (1 - share) * values[other] for values in (rows, targets))
        h = _dropout(F.relu(norm(first(_dropout(x, INPUT_DROPOUT, generator)))), DROPOUT, generator)
        loss = F.cross_entropy(last(h), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():  # fold batch normalization and input scaling into the first layer
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = (gain[:, None] * first.weight).numpy() / scale
        offset = (gain * (first.bias - norm.running_mean) + norm.bias).numpy() - weight @ center
    return Student(weight.T, offset, last.weight.detach().numpy(), last.bias.detach().numpy())


def _dropout(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Dropout with an explicit generator."""
    return x * (torch.rand(x.shape, generator=generator) >= share) / (1 - share)
